"""Keep connections busy until the server has closed every one, and count what was lost.

Run as ``python -m benchmarks.clients.drain PORT``; prints one JSON line when all connections
have had an answer and one when all are closed. A request counts as lost if it was sent whole on a
connection not yet closed and its whole answer never came. Nothing is sent on a connection
after an answer with ``Connection: close``, and no connection is opened anew.
"""

import asyncio
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop

from benchmarks import inputs
from benchmarks.clients.connection import Connection, LostError, NotSentError
from benchmarks.exchange import Exchange

_QUICK_CONNECTIONS = 56
_SLOW_CONNECTIONS = 8
_UNDER_WAY_TIMEOUT_S = 20.0
_REASONS = 3


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


async def occupy(
    port: int, exchanges: Sequence[Exchange], tally: Tally, under_way: asyncio.Event
) -> None:
    """Ask without pause until the connection ends."""
    connection = await Connection.open(port)
    for exchange in itertools.cycle(exchanges):
        try:
            reply = await connection.ask(exchange.request(port))
        except NotSentError:
            return
        except LostError as error:
            tally.lost.append(f"{exchange.name}: {error}")
            return
        tally.answered += 1
        under_way.set()
        if reply.status != 200 or not exchange.is_right(reply):
            tally.wrong.append(f"{exchange.name}: {reply.status} {reply.body[:200]!r}")


async def main(port: int) -> None:
    """Run all connections to their end."""
    loads = [inputs.affine()] * _QUICK_CONNECTIONS + [inputs.slow("sleeping")] * _SLOW_CONNECTIONS
    tally = Tally()
    under_way = [asyncio.Event() for _ in loads]
    async with asyncio.TaskGroup() as lanes:
        for exchanges, event in zip(loads, under_way, strict=True):
            lanes.create_task(occupy(port, exchanges, tally, event))
        async with asyncio.timeout(_UNDER_WAY_TIMEOUT_S):
            for event in under_way:
                await event.wait()
        print(json.dumps({"is_ready": True}), flush=True)
    found = {
        "answered": tally.answered,
        "wrong": len(tally.wrong),
        "lost": len(tally.lost),
        "reasons": (tally.lost + tally.wrong)[:_REASONS],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
