"""Two servers measured in turn, round by round, in one run."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from benchmarks.load import Load
from benchmarks.plan import Plan
from benchmarks.report import Bar, Row, compared
from benchmarks.servers import Server

Start = Callable[[], AbstractContextManager[Server]]
Figure = TypeVar("Figure")

# What a quiet machine uses beside the two: the harness itself and the kernel's own threads.
_QUIET = 0.15


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
    *,
    baseline: Callable[[int], Load],
    ours: Callable[[int], Load],
    bar: Bar | None,
    against: str = "uvicorn",
) -> Iterator[Row]:
    """Compare requests per second, with processor time and p99 beside them.

    Both servers are loaded for a second each in turn: a machine that others share changes its
    speed by half from one second to the next.

    Args:
        plan: Its rounds times its seconds is how many turns each server has.
        workload: As in the table.
        variant: As in the table.
        baseline: Load that server for so many seconds.
        ours: Likewise.
        bar: Of the ratio of requests per second, if it has one.
        against: What the baseline is.
    """
    theirs, mine = in_turn(plan.rounds * plan.seconds, partial(baseline, 1), partial(ours, 1))
    others = statistics.median(load.others_busy for load in (*theirs, *mine))
    if others > _QUIET:
        plan.tell(f"{workload}: beware, other processes used {others:.0%} of a core meanwhile")
    name = f"{workload} {variant}"
    plan.tell_figures(f"{name}, {against}", [load.requests_per_s for load in theirs], "req/s")
    plan.tell_figures(f"{name}, modelport", [load.requests_per_s for load in mine], "req/s")
    figures: tuple[tuple[str, str, Callable[[Load], float], Bar | None], ...] = (
        ("throughput", "req/s", lambda load: load.requests_per_s, bar),
        ("server CPU", "µs", lambda load: load.server_cpu_us, None),
        ("p99", "ms", lambda load: load.p99_ms, None),
        ("generator busy", "%", lambda load: 100 * load.generator_busy, None),
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
