"""The light end of a gRPC connection: one call at a time, on a plain socket.

It does what HTTP/2 asks of a client, flow control of what it sends included, and nothing else:
the fields of a call are written once, large requests are sent out of a file in memory that the
kernel does not copy, and of a large response all but the end is counted and thrown away by the
kernel: where two virtual cores share a real one, what the client does takes from the server.
"""

import functools
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from hpack import Encoder

from modelport.wire.header_blocks import BlockReader
from modelport.wire.http2 import PREFACE

_HEADER = struct.Struct(">IBI")
_PREFIX_BYTES = 5
# Shared by all connections: what has come is looked at before anything else is received.
_RECEIVED = memoryview(bytearray(1 << 20))
_KEPT_BYTES = 1 << 16
"""Longer messages are counted, and their last bytes kept."""
_LARGE_BYTES = 1 << 16
"""Of a piece that is not copied: a system call of its own is cheaper from here on."""
_FIRST_BYTES = 4096
"""What is received of the answer to a large request before it is known what comes."""
_MOST_PIECES = 64
_WINDOW = 2**31 - 1
_TOP_UP_BYTES = 2**29


class CallError(Exception):
    """A call failed, or the server said something that was not expected."""


@dataclass
class _Stored:
    """A part of a file that is still to be sent."""

    file: int
    start: int
    size: int


class GrpcPeer:
    """One connection.

    Args:
        port: Of 127.0.0.1.
        method: Path of the calls.
        on_message: Called with each message of the response; of long ones with their last bytes.

    Attributes:
        is_done: Whether the last call has its answer.
    """

    def __init__(self, port: int, method: str, on_message: Callable[[bytes], None]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_done = True
        self._on_message = on_message
        encoder = Encoder()
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", f"127.0.0.1:{port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "modelport-benchmarks"),
        ]
        # The first time the fields enter the server's table, from then on they are one byte each.
        self._first_block = encoder.encode(fields)
        self._block = encoder.encode(fields)
        self._reader = BlockReader(1 << 16)
        self._stream_id = -1
        self._send_window = self._peer_window = 65_535
        self._stream_window = 0
        self._frame_bytes = 16_384
        self._taken_bytes = 0
        self._first_bytes = len(_RECEIVED)
        self._prefix = b""
        self._message = b""
        self._unsent: memoryview | None = None
        self._ends = True
        # Of what has come: the rest of a data frame, then what is no whole frame.
        self._left = 0
        self._received = b""
        # Of the message that comes: what is kept, and what is missing of a long one.
        self._kept = b""
        self._missing = 0
        self._out: list[bytes | memoryview | _Stored] = []
        settings = struct.pack(">HIHIHI", 2, 0, 4, _WINDOW, 5, 2**20)
        window = (_WINDOW - 65_535).to_bytes(4, "big")
        self._out.append(PREFACE + _frame(4, 0, 0, settings) + _frame(8, 0, 0, window))

    def call(self, message: bytes, *, ends: bool = True) -> None:
        """Begin a call; ``flush`` sends it.

        Args:
            message: The request.
            ends: Whether it is the only one.
        """
        self._stream_id += 2
        block = self._block if self._stream_id > 1 else self._first_block
        self.is_done = False
        self._kept = b""
        self._ends = ends
        self._stream_window = self._peer_window
        self._first_bytes = _FIRST_BYTES if len(message) > _KEPT_BYTES else len(_RECEIVED)
        size = len(message) + _PREFIX_BYTES
        prefix = b"\0" + len(message).to_bytes(4, "big")
        head = _frame(1, 4, self._stream_id, block)
        room = min(self._frame_bytes, self._send_window, self._stream_window)
        if size <= min(room, _KEPT_BYTES):
            self._out.append(
                head + _HEADER.pack(size << 8, int(ends), self._stream_id) + prefix + message
            )
            self._send_window -= size
            self._stream_window -= size
        else:
            self._out.append(head)
            self._prefix = prefix
            self._message = message
            self._unsent = memoryview(message)
            self._send_data()

    def end(self) -> None:
        """Say that no more messages follow."""
        self._out.append(_frame(0, 1, self._stream_id, b""))

    def _send_data(self) -> None:
        unsent = self._unsent
        while unsent is not None:
            room = min(self._frame_bytes, self._send_window, self._stream_window)
            room -= len(self._prefix)
            if room <= 0:
                break
            piece = unsent[:room]
            unsent = unsent[room:] if len(unsent) > room else None
            flags = 1 if unsent is None and self._ends else 0
            size = len(self._prefix) + len(piece)
            self._out.append(_HEADER.pack(size << 8, flags, self._stream_id) + self._prefix)
            self._out.append(self._stored(piece, 0 if unsent is None else len(unsent)))
            self._prefix = b""
            self._send_window -= size
            self._stream_window -= size
        self._unsent = unsent

    def flush(self) -> bool:
        """Send what the kernel takes; whether that is all."""
        out = self._out
        try:
            while out:
                first = out[0]
                if isinstance(first, _Stored):
                    self._send_stored(first)
                else:
                    self._send_pieces()
        except BlockingIOError:
            return False
        return True

    def _send_stored(self, stored: _Stored) -> None:
        sent = os.sendfile(self.socket.fileno(), stored.file, stored.start, stored.size)
        stored.start += sent
        stored.size -= sent
        if not stored.size:
            self._out.pop(0)

    def _send_pieces(self) -> None:
        out = self._out
        pieces: list[bytes | memoryview] = []
        for piece in out[:_MOST_PIECES]:
            if isinstance(piece, _Stored):
                break
            pieces.append(piece)
        follows = socket.MSG_MORE if len(pieces) < len(out) else 0
        sent = self.socket.sendmsg(pieces, (), follows)
        for piece in pieces:
            if sent < len(piece):
                out[0] = memoryview(piece)[sent:]
                break
            sent -= len(piece)
            out.pop(0)

    def _stored(self, piece: memoryview, left_bytes: int) -> "memoryview | _Stored":
        """Give a piece of the message as a part of a file, if it is large."""
        if len(piece) < _LARGE_BYTES:
            return piece
        start = len(self._message) - left_bytes - len(piece)
        return _Stored(_file_of(self._message), start, len(piece))

    def receive(self) -> None:
        """Take what has come.

        Raises:
            CallError: The call failed.
        """
        skipped_bytes = min(self._left, self._missing) - _PREFIX_BYTES
        if skipped_bytes >= _LARGE_BYTES:
            # Linux throws away what is asked for this way, whatever the buffer holds; tcp(7).
            count = self._receive(skipped_bytes, socket.MSG_TRUNC)
            self._left -= count
            self._missing -= count
            self._taken_bytes += count
            return
        received_bytes = self._receive(self._first_bytes if not self._left else len(_RECEIVED), 0)
        data = _RECEIVED[:received_bytes]
        if self._received:
            data = memoryview(self._received + data)
            self._received = b""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                stop = min(at + self._left, end)
                self._left -= stop - at
                self._take_data(data, at, stop)
                at = stop
                continue
            if end - at < 9:
                break
            word, flags, stream_id = _HEADER.unpack_from(data, at)
            length, kind = word >> 8, word & 0xFF
            if kind == 0:
                self._left = length
                at += 9
                continue
            stop = at + 9 + length
            if stop > end:
                break
            payload = bytes(data[at + 9 : stop])
            if kind == 1:
                self._take_fields(payload, flags)
            else:
                self._take_control(kind, flags, stream_id, payload)
            at = stop
        self._received = bytes(data[at:])

    def _receive(self, size: int, flags: int) -> int:
        received_bytes = self.socket.recv_into(_RECEIVED, min(size, len(_RECEIVED)), flags)
        if not received_bytes:
            raise CallError("the connection was closed")
        return received_bytes

    def _take_data(self, data: memoryview, start: int, stop: int) -> None:
        self._taken_bytes += stop - start
        if self._taken_bytes > _TOP_UP_BYTES:
            self._out.append(_frame(8, 0, 0, self._taken_bytes.to_bytes(4, "big")))
            self._taken_bytes = 0
        if self._missing > stop - start:
            self._missing -= stop - start
            return
        if self._missing:
            end = start + self._missing
            self._missing = 0
            self._on_message(bytes(data[max(start, end - _PREFIX_BYTES) : end]))
            start = end
        if not self._kept and stop - start > _PREFIX_BYTES:
            size = int.from_bytes(data[start + 1 : start + _PREFIX_BYTES], "big") + _PREFIX_BYTES
            if size > max(_KEPT_BYTES, stop - start):
                self._missing = size - (stop - start)
                return
        kept = self._kept + data[start:stop]
        while len(kept) >= _PREFIX_BYTES:
            size = int.from_bytes(kept[1:_PREFIX_BYTES], "big") + _PREFIX_BYTES
            if len(kept) >= size:
                self._on_message(kept[_PREFIX_BYTES:size])
                kept = kept[size:]
            elif size > _KEPT_BYTES:
                self._missing = size - len(kept)
                kept = b""
            else:
                break
        self._kept = kept

    def _take_fields(self, block: bytes, flags: int) -> None:
        fields = dict(self._reader.read(block).fields)
        if flags & 1:
            if fields.get("grpc-status") != "0":
                raise CallError(f"the call failed: {fields}")
            self.is_done = True
        elif fields.get(":status") != "200":
            raise CallError(f"no good answer: {fields}")

    def _take_control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == 4 and not flags & 1:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == 4:
                    self._stream_window += value - self._peer_window
                    self._peer_window = value
                elif name == 5:
                    self._frame_bytes = value
            self._out.append(_frame(4, 1, 0, b""))
            self._send_data()
        elif kind == 6 and not flags & 1:
            self._out.append(_frame(6, 1, 0, payload))
        elif kind == 8:
            more = int.from_bytes(payload, "big")
            if stream_id == 0:
                self._send_window += more
            elif stream_id == self._stream_id:
                self._stream_window += more
            self._send_data()
        elif kind in (3, 7):
            raise CallError(f"the server ended the stream or the connection: {payload!r}")


@functools.cache
def _file_of(message: bytes) -> int:
    """Keep a message in a file in memory."""
    file = os.memfd_create("message")
    os.write(file, message)
    return file


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload
