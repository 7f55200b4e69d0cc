"""What goes: header blocks, and data as far as the windows let it.

Source: RFC 9113 §5.2, §6.9, §8.1.
"""

import struct
from collections import deque
from collections.abc import Sequence

from modelport.wire.http2.frames import (
    CONTINUATION,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    EMPTY_TABLE,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADERS,
    LARGEST_STREAM_ID,
    SMALL_ANSWER,
    SMALL_DATA,
    Buffer,
    ErrorCode,
    Frame,
    Http2Limits,
)
from modelport.wire.http2.ledger import Ledger, code_bytes
from modelport.wire.http2.stream import Owner, Stream

__all__ = ["Sending"]


class Sending(Ledger):
    """The part of an endpoint that sends."""

    def __init__(self, owner: Owner, limits: Http2Limits, *, is_client: bool) -> None:
        super().__init__(owner, limits, is_client=is_client)
        self.out_bytes = 0
        self.peer_max_streams = LARGEST_STREAM_ID
        self.data_frames_sent = 0
        self.send_window = DEFAULT_WINDOW
        self.peer_window = DEFAULT_WINDOW
        self.peer_frame_bytes = DEFAULT_FRAME_BYTES
        # What the next block has to begin with.
        self._table_update = b""
        self._has_shrunk_table = False

    def open(self, stream: Stream, block: bytes, *, is_end: bool = False) -> None:
        """Open a stream, as a client. The caller looks at ``peer_max_streams``."""
        stream.id = self._next_id
        self._next_id += 2
        stream.send_window = self.peer_window
        stream.receive_window = self._limits.stream_window
        self.streams[stream.id] = stream
        self.send_block(stream, block, is_end=is_end)

    def send_block(self, stream: Stream, block: bytes, *, is_end: bool = False) -> None:
        """Send fields: a response's head, or trailers, which come after all data."""
        if stream.is_over or stream.is_local_done:
            return
        if is_end:
            stream.is_local_done = True
            if stream.queue is not None:
                stream.end_block = block
                return
        self._send_block(stream.id, block, END_STREAM if is_end else 0)
        if is_end:
            self._finish_if_done(stream)

    def _shrink_table(self) -> None:
        """Give up a table that is never written to: the other side has made its own smaller.

        Source: RFC 7541 §4.2, which asks for this at the beginning of the next block.
        """
        if not self._has_shrunk_table:
            self._has_shrunk_table = True
            self._table_update = EMPTY_TABLE

    def _send_block(self, stream_id: int, block: bytes, flags: int) -> None:
        if self._table_update:
            block = self._table_update + block
            self._table_update = b""
        most = self.peer_frame_bytes
        if len(block) <= most:
            self.out.append(
                HEADER.pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream_id) + block
            )
            return
        pieces = [block[at : at + most] for at in range(0, len(block), most)]
        self._frame(HEADERS, flags, stream_id, pieces[0])
        for piece in pieces[1:-1]:
            self._frame(CONTINUATION, 0, stream_id, piece)
        self._frame(CONTINUATION, END_HEADERS, stream_id, pieces[-1])

    def send_data(
        self, stream: Stream, pieces: Sequence[Buffer], size: int, *, is_end: bool = False
    ) -> None:
        """Send data, at once as far as the windows let it, the rest when they do.

        Args:
            stream: Of this endpoint.
            pieces: Must not change afterwards; may be views.
            size: Bytes of them together.
            is_end: Whether it is the last.
        """
        if stream.is_over or stream.is_local_done:
            return
        if is_end:
            stream.is_local_done = True
        if (
            stream.queue is None
            and size <= stream.send_window
            and size <= self.send_window
            and size <= self.peer_frame_bytes
        ):
            stream.send_window -= size
            self.send_window -= size
            self.out_bytes += size
            self.data_frames_sent += 1
            self._allowance += 4
            self.out.append(HEADER.pack(size << 8, END_STREAM if is_end else 0, stream.id))
            self.out += pieces
            if is_end:
                self._finish_if_done(stream)
            return
        queue = stream.queue
        if queue is None:
            queue = stream.queue = deque()
            self._blocked[stream.id] = stream
        queue.extend(piece for piece in pieces if len(piece))
        stream.queued_bytes += size
        self.queued_bytes += size
        self._pump(stream)

    def send_whole(
        self, stream: Stream, head: bytes, pieces: Sequence[Buffer], size: int, trailers: bytes
    ) -> bool:
        """Send a small answer in one piece: head, data, and trailers that end it.

        Args:
            stream: Of this endpoint; nothing of the answer was sent before.
            head: The block of fields.
            pieces: The data.
            size: Bytes of it.
            trailers: The block behind it.

        Returns:
            Whether it was; nothing is if the data is not small, or windows or settings of the
            other side are in the way.
        """
        if (
            size > SMALL_ANSWER
            or size > stream.send_window
            or size > self.send_window
            or stream.queue is not None
            or stream.is_local_done
            or stream.is_over
            or self._table_update
        ):
            return False
        stream.is_local_done = True
        stream.send_window -= size
        self.send_window -= size
        self.out_bytes += size
        self.data_frames_sent += 1
        self._allowance += 4
        stream_id = stream.id
        pack = HEADER.pack
        self.out.append(
            b"".join(
                (
                    pack(len(head) << 8 | HEADERS, END_HEADERS, stream_id),
                    head,
                    pack(size << 8, 0, stream_id),
                    *pieces,
                    pack(len(trailers) << 8 | HEADERS, END_HEADERS | END_STREAM, stream_id),
                    trailers,
                )
            )
        )
        self._finish_if_done(stream)
        return True

    def _pump_all(self) -> None:
        """Send what the windows let through, a frame of each stream in turn."""
        while self._blocked and self.send_window > 0:
            before = self.send_window
            for stream in list(self._blocked.values()):
                self._pump(stream, frames=1)
            if self.send_window == before:
                break

    def _pump(self, stream: Stream, frames: int = LARGEST_STREAM_ID) -> None:
        queue = stream.queue
        while queue is not None and frames:
            room = min(stream.send_window, self.send_window, self.peer_frame_bytes)
            size = min(stream.queued_bytes, max(room, 0))
            if not size and stream.queued_bytes:
                return
            is_last = size == stream.queued_bytes
            is_end = is_last and stream.is_local_done and stream.end_block is None
            self.out.append(HEADER.pack(size << 8, END_STREAM if is_end else 0, stream.id))
            _move(queue, self.out, size)
            stream.queued_bytes -= size
            self.queued_bytes -= size
            self.out_bytes += size
            stream.send_window -= size
            self.send_window -= size
            self.data_frames_sent += 1
            frames -= 1
            if is_last:
                self._emptied(stream)
                return
            # The windows make frames small, not we: a byte at a time costs more than it brings.
            if size >= SMALL_DATA:
                self._allowance += 4

    def _emptied(self, stream: Stream) -> None:
        stream.queue = None
        del self._blocked[stream.id]
        self._allowance += 4
        if stream.is_local_done:
            if stream.end_block is not None:
                self._send_block(stream.id, stream.end_block, END_STREAM)
            self._finish_if_done(stream)
        stream.flushed()

    def _finish_if_done(self, stream: Stream) -> None:
        """Forget a stream whose two sides have ended."""
        if not stream.is_local_done or stream.queue is not None:
            return
        if stream.is_remote_done:
            self._resets_left += 1
            self._remove(stream)
        elif not self._is_client:
            # RFC 9113 §8.1: the answer is complete, and the rest of the request is of no use.
            self._frame(Frame.RST_STREAM, 0, stream.id, code_bytes(ErrorCode.NO_ERROR))
            self._remove(stream)

    def ping(self, payload: bytes) -> None:
        """Ask whether the other side lives.

        Args:
            payload: Eight bytes that come back with the answer.
        """
        self._frame(Frame.PING, 0, 0, payload)

    def go_away(
        self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "", *, is_final: bool = True
    ) -> None:
        """Say that no further streams are taken.

        Args:
            code: Why.
            text: For people who debug the other side.
            is_final: ``False`` says so beforehand, for streams that may be on their way.
        """
        last_id = LARGEST_STREAM_ID
        if is_final:
            last_id = self._highest_taken = min(self.last_stream_id, self._highest_taken)
        self._frame(Frame.GOAWAY, 0, 0, struct.pack(">II", last_id, code) + text.encode())


def _move(queue: deque[Buffer], out: list[Buffer], size: int) -> None:
    """Move ``size`` bytes from the front of a queue."""
    while size:
        piece = queue[0]
        if len(piece) <= size:
            out.append(queue.popleft())
            size -= len(piece)
        else:
            view = memoryview(piece)
            out.append(view[:size])
            queue[0] = view[size:]
            size = 0
