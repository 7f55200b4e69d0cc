"""Open and reset ten thousand streams at once, again and again, beside clients that never read.

Run as ``python -m benchmarks.clients.floods PORT STREAMS SILENT ANSWER_BYTES``; prints one JSON
line when all have connected and sent, and one at SIGTERM. Half of the silent connections leave
the socket unread, half read nothing because their windows are closed.
"""

import asyncio
import socket
import struct
import sys
from functools import partial

import uvloop
from hpack import Encoder

from benchmarks import messages
from benchmarks.clients.siege import Behaviour, besiege
from modelport.wire.http2 import PREFACE

_HEADER = struct.Struct(">IBI")
_INTERVAL_S = 1.0
_CALLS = 64


async def reset(peer: socket.socket, has_begun: asyncio.Event, streams: int) -> None:
    """Open streams and reset them, all in one piece; then wait to be thrown out."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(peer, _beginning(2**31 - 1) + _opened_and_reset(streams))
    has_begun.set()
    while await loop.sock_recv(peer, 1 << 16):
        pass
    raise ConnectionResetError


async def ignore(
    peer: socket.socket, has_begun: asyncio.Event, window: int, answer_bytes: int
) -> None:
    """Call each second for large answers and take none of them."""
    loop = asyncio.get_running_loop()
    encoder = Encoder()
    encoder.encode(_fields(messages.INFER))
    fields = encoder.encode(_fields(messages.INFER))
    first = Encoder().encode(_fields(messages.INFER))
    count = struct.pack("<i", answer_bytes // 4)
    message = messages.infer_request("expanding", "COUNT", "INT32", (1,), count)
    data = b"\0" + len(message).to_bytes(4, "big") + message
    await loop.sock_sendall(peer, _beginning(window))
    stream_id = 1
    while True:
        calls = bytearray()
        for _ in range(_CALLS):
            block = fields if stream_id > 1 else first
            calls += _frame(1, 4, stream_id, block) + _frame(0, 1, stream_id, data)
            stream_id += 2
        await loop.sock_sendall(peer, calls)
        has_begun.set()
        if not window:
            # What the server says is read, so that only the closed windows hold it.
            try:
                async with asyncio.timeout(_INTERVAL_S):
                    while await loop.sock_recv(peer, 1 << 16):
                        pass
                    raise ConnectionResetError
            except TimeoutError:
                continue
        await asyncio.sleep(_INTERVAL_S)


def _beginning(window: int) -> bytes:
    settings = _frame(4, 0, 0, struct.pack(">HI", 4, window))
    return PREFACE + settings + _frame(8, 0, 0, (2**31 - 1 - 65_535).to_bytes(4, "big"))


def _opened_and_reset(streams: int) -> bytes:
    encoder = Encoder()
    blocks = [encoder.encode(_fields(messages.INFER)) for _ in range(2)]
    data = messages.affine(1)[0].data
    message = b"\0" + len(data).to_bytes(4, "big") + data
    frames = bytearray()
    for number in range(streams):
        stream_id = 2 * number + 1
        frames += _frame(1, 4, stream_id, blocks[min(number, 1)])
        frames += _frame(0, 1, stream_id, message)
        frames += _frame(3, 0, stream_id, bytes(4))
    return bytes(frames)


def _fields(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


async def main(port: int, streams: int, silent: int, answer_bytes: int) -> None:
    """Hold all connections until told to stop."""
    behaviours: list[Behaviour] = [partial(reset, streams=streams)] * bool(streams)
    for index in range(silent):
        window = 2**31 - 1 if index % 2 else 0
        behaviours.append(partial(ignore, window=window, answer_bytes=answer_bytes))
    await besiege(port, behaviours)


if __name__ == "__main__":
    uvloop.run(main(*(int(argument) for argument in sys.argv[1:])))
