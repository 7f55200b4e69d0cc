"""Hold connections that behave badly, until told to stop."""

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence

__all__ = ["RECEIVE_BUFFER_BYTES", "Behaviour", "besiege"]

Behaviour = Callable[[socket.socket, asyncio.Event], Awaitable[None]]
"""What is done with a connection, without an end; sets the event once it has begun."""

_AGAIN_AFTER_S = 1.0
# The kernel would otherwise take megabytes of answers on behalf of a client that reads none.
RECEIVE_BUFFER_BYTES = 4_096


async def besiege(port: int, behaviours: Sequence[Behaviour]) -> None:
    """Hold a connection for each behaviour until SIGTERM.

    Prints one JSON line when all of them have begun, and one at the end.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    siege = _Siege(port)
    begun = [asyncio.Event() for _ in behaviours]
    async with asyncio.TaskGroup() as connections:
        held = [
            connections.create_task(siege.hold(behave, has_begun))
            for behave, has_begun in zip(behaviours, begun, strict=True)
        ]
        for has_begun in begun:
            await has_begun.wait()
        print(json.dumps({"is_ready": True}), flush=True)
        await stop.wait()
        for connection in held:
            connection.cancel()
    print(json.dumps({"reopened": siege.reopened}))


class _Siege:
    """Connections that come back when they are thrown out."""

    def __init__(self, port: int) -> None:
        self.reopened = 0
        self._address = ("127.0.0.1", port)

    async def hold(self, behave: Behaviour, has_begun: asyncio.Event) -> None:
        """Connect and behave badly; never returns."""
        while True:
            with socket.socket() as peer:
                peer.setblocking(False)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
                try:
                    await asyncio.get_running_loop().sock_connect(peer, self._address)
                    await behave(peer, has_begun)
                except OSError:
                    self.reopened += 1
            await asyncio.sleep(_AGAIN_AFTER_S)
