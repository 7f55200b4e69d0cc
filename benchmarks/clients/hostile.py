"""Hold connections that send their headers a byte now and then, and others that never read.

Run as ``python -m benchmarks.clients.hostile PORT SLOW SILENT ANSWER_BYTES PIPELINED``;
prints one JSON line when all have connected and sent, and one at SIGTERM. A connection that
the server closes is opened again, as an attacker would.
"""

import asyncio
import json
import random
import socket
import sys
from functools import partial

import uvloop

from benchmarks import inputs
from benchmarks.clients.siege import Behaviour, besiege
from benchmarks.exchange import Exchange

_INTERVAL_S = 1.0
_SEED = 20_240_229


async def trickle(
    peer: socket.socket, has_begun: asyncio.Event, random_numbers: random.Random
) -> None:
    """Send headers without an end, a byte each second."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(peer, b"POST /v2/models/affine/infer HTTP/1.1\r\nX-Slow: ")
    has_begun.set()
    await asyncio.sleep(random_numbers.uniform(0, _INTERVAL_S))
    while True:
        await loop.sock_sendall(peer, b"a")
        await asyncio.sleep(_INTERVAL_S)


async def ignore(peer: socket.socket, has_begun: asyncio.Event, requests: bytes) -> None:
    """Send pipelined requests each second and read no answer."""
    loop = asyncio.get_running_loop()
    while True:
        await loop.sock_sendall(peer, requests)
        has_begun.set()
        await asyncio.sleep(_INTERVAL_S)


def large_answer(answer_bytes: int) -> Exchange:
    """Give a small request whose answer has many bytes."""
    tensor = {"name": "COUNT", "shape": [1], "datatype": "INT32", "data": [answer_bytes // 4]}
    request = {"parameters": {"binary_data_output": True}, "inputs": [tensor]}
    return Exchange(
        "expanding",
        inputs.infer_path("expanding"),
        json.dumps(request).encode(),
        lambda reply: len(reply.body) >= answer_bytes,
    )


async def main(port: int, slow: int, silent: int, answer_bytes: int, pipelined: int) -> None:
    """Hold all connections until told to stop."""
    random_numbers = random.Random(_SEED)
    requests = large_answer(answer_bytes).request(port) * pipelined
    behaviours: list[Behaviour] = [partial(trickle, random_numbers=random_numbers)] * slow
    behaviours += [partial(ignore, requests=requests)] * silent
    await besiege(port, behaviours)


if __name__ == "__main__":
    uvloop.run(main(*(int(argument) for argument in sys.argv[1:])))
