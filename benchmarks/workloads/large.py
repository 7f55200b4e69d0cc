"""W2: 602 112 bytes of FP32 in and out as binary data, against a raw echo of the body."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import inputs, servers
from benchmarks.load import Load, check, press_with_images
from benchmarks.plan import Plan
from benchmarks.report import Bar, Row, at_least, at_most, value
from benchmarks.servers import GENEROUS_MALLOC
from benchmarks.workloads import turns

_CONNECTIONS = 8
_SETTLE_S = 10
_SETTINGS: tuple[tuple[str, dict[str, str], Bar], ...] = (
    ("as shipped", {}, at_least(1.5)),
    ("equal malloc", GENEROUS_MALLOC, at_least(1.2)),
)


def throughput(plan: Plan) -> Iterator[Row]:
    """Compare requests per second on 8 connections, then see what memory the load leaves.

    Both servers are started anew for every turn. How the heap of a process happens to lie decides
    whether glibc gives every body's pages back to the kernel, and bare uvicorn, as shipped, has
    two speeds by that: one process would be one throw of the dice.
    """
    with servers.repository("identity") as repository:
        for variant, environment, bar in _SETTINGS:
            yield from turns.throughput(
                plan,
                "W2",
                variant,
                baseline=partial(
                    _pressed, partial(servers.bare_uvicorn, "echo", environment=environment)
                ),
                ours=partial(
                    _pressed, partial(servers.modelport, repository, environment=environment)
                ),
                bar=bar,
            )
        yield _memory(plan, repository)


def _pressed(start: turns.Start, seconds: int) -> Load:
    with start() as server:
        return press_with_images(server, connections=_CONNECTIONS, seconds=seconds)


def _memory(plan: Plan, repository: Path) -> Row:
    with servers.modelport(repository) as server:
        check(server, inputs.image_identity(1))
        idle_bytes = server.resident_bytes()
        press_with_images(server, connections=_CONNECTIONS, seconds=plan.seconds)
        plan.tell(f"W2: {_SETTLE_S} s of rest before the memory is read")
        time.sleep(_SETTLE_S)
        grown_mb = (server.resident_bytes() - idle_bytes) / 1e6
    return value("W2", f"memory over idle, {_SETTLE_S} s later", "MB", grown_mb, at_most(64))
