"""Keep a model busy: call it all the time on a few connections, until SIGTERM.

Run as ``python -m benchmarks.clients.repeat PORT MODEL CONNECTIONS``; prints one JSON line
when the first call was answered and one at the end.
"""

import asyncio
import json
import signal
import sys

import uvloop

from benchmarks import inputs
from benchmarks.clients.connection import Connection


class Calls:
    """Count right and wrong answers."""

    def __init__(self) -> None:
        self.right = 0
        self.wrong = 0
        self.first_answered = asyncio.Event()

    async def repeat(self, port: int, model: str) -> None:
        """Call until cancelled."""
        connection = await Connection.open(port)
        while True:
            for exchange in inputs.slow(model):
                reply = await connection.ask(exchange.request(port))
                is_right = reply.status == 200 and exchange.is_right(reply)
                self.right += is_right
                self.wrong += not is_right
                self.first_answered.set()


async def main(port: int, model: str, connections: int) -> None:
    """Call on all connections until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    calls = Calls()
    async with asyncio.TaskGroup() as lanes:
        running = [lanes.create_task(calls.repeat(port, model)) for _ in range(connections)]
        await calls.first_answered.wait()
        print(json.dumps({"is_ready": True}), flush=True)
        await stop.wait()
        for lane in running:
            lane.cancel()
    print(json.dumps({"right": calls.right, "wrong": calls.wrong}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
