"""Two servers measured in turn, round by round, in one run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.exchange import Exchange
from benchmarks.load import Load, press
from benchmarks.plan import Plan
from benchmarks.report import Bar, Row, compared
from benchmarks.servers import Server

Start = Callable[[], AbstractContextManager[Server]]
Figure = TypeVar("Figure")


@dataclass(frozen=True, slots=True)
class Side:
    """A way to start a server, and the requests with the answers expected from it."""

    start: Start
    exchanges: Sequence[Exchange]

    def press(self, connections: int, seconds: int) -> Load:
        """Start the server, load it, and end it."""
        with self.start() as server:
            return press(server, self.exchanges, connections=connections, seconds=seconds)


def in_turn(
    rounds: int, baseline: Callable[[], Figure], ours: Callable[[], Figure]
) -> tuple[list[Figure], list[Figure]]:
    """Measure both in each round; who goes first alternates."""
    theirs: list[Figure] = []
    mine: list[Figure] = []
    for index in range(rounds):
        if index % 2:
            mine.append(ours())
        theirs.append(baseline())
        if not index % 2:
            mine.append(ours())
    return theirs, mine


def throughput(
    plan: Plan,
    workload: str,
    variant: str,
    baseline: Side,
    ours: Side,
    *,
    connections: int,
    bar: Bar,
) -> Iterator[Row]:
    """Compare requests per second, with processor time and p99 beside them."""
    theirs, mine = in_turn(
        plan.rounds,
        lambda: baseline.press(connections, plan.seconds),
        lambda: ours.press(connections, plan.seconds),
    )
    name = f"{workload} {variant}"
    plan.tell_figures(f"{name}, uvicorn", [load.requests_per_s for load in theirs], "req/s")
    plan.tell_figures(f"{name}, modelport", [load.requests_per_s for load in mine], "req/s")
    figures: tuple[tuple[str, str, Callable[[Load], float], Bar | None], ...] = (
        ("throughput", "req/s", lambda load: load.requests_per_s, bar),
        ("server CPU", "µs", lambda load: load.server_cpu_us, None),
        ("p99", "ms", lambda load: load.p99_ms, None),
        ("wrk busy", "%", lambda load: 100 * load.generator_busy, None),
    )
    for subject, unit, figure, figure_bar in figures:
        yield compared(
            workload,
            f"{subject}, {variant}",
            unit,
            [figure(load) for load in theirs],
            [figure(load) for load in mine],
            figure_bar,
        )
