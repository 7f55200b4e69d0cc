"""When an alarm rings, on the loop whose time is a ``ManualClock``."""

import asyncio
from typing import Any

from modelport.engine.alarm import Alarm

Bench = Any

START_NS = 10**9
MS = 10**6


def rings(bench: Bench, *set_to_ms: int, cancel: bool = False) -> list[int]:
    """Set an alarm to these times, and give the milliseconds at which it rang."""
    rang: list[int] = []

    async def main() -> None:
        alarm = Alarm(
            bench.clock.now_ns, lambda: rang.append((bench.clock.now_ns() - START_NS) // MS)
        )
        for at_ms in set_to_ms:
            alarm.set(START_NS + at_ms * MS)
        if cancel:
            alarm.cancel()
        await asyncio.sleep(1)

    bench.run(main())
    return rang


def test_it_rings_once_and_at_the_earliest_time(bench: Bench) -> None:
    assert rings(bench, 30) == [30]


def test_an_earlier_time_counts_and_a_later_one_does_not(bench: Bench) -> None:
    assert rings(bench, 30, 10, 20) == [10]


def test_a_time_that_has_passed_is_now(bench: Bench) -> None:
    assert rings(bench, -5) == [0]


def test_it_does_not_ring_once_it_is_cancelled(bench: Bench) -> None:
    assert rings(bench, 30, cancel=True) == []


def test_who_hears_it_may_set_it_again(bench: Bench) -> None:
    rang = 0

    async def main() -> None:
        def ring() -> None:
            nonlocal rang
            rang += 1
            if rang < 3:
                alarm.set(bench.clock.now_ns() + 10 * MS)

        alarm = Alarm(bench.clock.now_ns, ring)
        alarm.set(START_NS)
        await asyncio.sleep(1)

    bench.run(main())
    assert rang == 3
