"""Ask for streams, read the first bytes of each, and then no more.

Run as ``python -m benchmarks.clients.unread PORT CLIENTS PATH``; prints one JSON line when all
streams have begun, and one at SIGTERM.
"""

import asyncio
import json
import signal
import socket
import sys

import uvloop

from benchmarks.clients.siege import RECEIVE_BUFFER_BYTES
from benchmarks.clients.streams import stream_at

_AT_A_TIME = 50


async def begin(port: int, request: bytes, turn: asyncio.Semaphore) -> socket.socket:
    """Read until the stream has begun."""
    peer = socket.socket()
    peer.setblocking(False)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    loop = asyncio.get_running_loop()
    async with turn:
        await loop.sock_connect(peer, ("127.0.0.1", port))
        await loop.sock_sendall(peer, request)
        if not await loop.sock_recv(peer, 16):
            raise ConnectionError("the server has closed a connection")
    return peer


async def main(port: int, clients: int, path: str) -> None:
    """Hold all streams until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    request = stream_at(path).request(port)
    turn = asyncio.Semaphore(_AT_A_TIME)
    peers = await asyncio.gather(*(begin(port, request, turn) for _ in range(clients)))
    print(json.dumps({"is_ready": True}), flush=True)
    await stop.wait()
    for peer in peers:
        peer.close()
    print(json.dumps({"streams": len(peers)}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
