"""Work that can wait: it is done in rotation, a little in each turn."""

from collections.abc import Callable, Iterator

import pytest

from modelport.server.turns import SLICE_NS, TURN_NS, Turns
from modelport.testing.clock import ManualClock

from .memory_connection import HandTurnedLoop, turning


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(10**12)


@pytest.fixture
def loop(clock: ManualClock) -> Iterator[HandTurnedLoop]:
    loop = HandTurnedLoop(clock)
    with turning(loop):
        yield loop


class Bench:
    """Work that takes time, and what was done in which turn."""

    def __init__(self, clock: ManualClock, loop: HandTurnedLoop) -> None:
        self.clock = clock
        self.loop = loop
        self.turns = Turns(clock)
        self.done: list[str] = []

    def work(self, name: str, duration_ns: int) -> Callable[[], None]:
        left_ns = duration_ns

        def step() -> None:
            nonlocal left_ns
            now_ns = self.clock.now_ns()
            taken_ns = min(left_ns, self.turns.until_ns(now_ns) - now_ns)
            self.clock.advance(taken_ns / 1e9)
            self.done.append(name)
            left_ns -= taken_ns
            if left_ns:
                self.turns.later(step)

        return step

    def one_turn(self) -> list[str]:
        """Run what the loop had ready, and nothing that came meanwhile."""
        self.done.clear()
        self.loop.turn_once()
        return list(self.done)


@pytest.fixture
def bench(clock: ManualClock, loop: HandTurnedLoop) -> Bench:
    return Bench(clock, loop)


def test_one_alone_has_the_whole_turn(bench: Bench) -> None:
    bench.turns.later(bench.work("a", 2 * TURN_NS))
    assert bench.one_turn() == ["a"]
    assert bench.one_turn() == ["a"]
    assert bench.one_turn() == []


def test_several_take_slices_in_rotation(bench: Bench) -> None:
    for name in "abc":
        bench.turns.later(bench.work(name, 2 * SLICE_NS))
    assert TURN_NS == 4 * SLICE_NS
    assert bench.one_turn() == ["a", "b", "c", "a"]
    assert bench.one_turn() == ["b", "c"]


def test_what_was_spent_before_is_not_there_any_more_in_this_turn(bench: Bench) -> None:
    turns = bench.turns
    now_ns = bench.clock.now_ns()
    assert turns.until_ns(now_ns) == now_ns + TURN_NS
    turns.spend(TURN_NS // 2)
    assert turns.until_ns(now_ns) == now_ns + TURN_NS // 2
    turns.spend(TURN_NS)
    assert turns.until_ns(now_ns) <= now_ns
    bench.one_turn()
    assert turns.until_ns(now_ns) == now_ns + TURN_NS


def test_what_waiting_work_took_counts_for_its_turn(bench: Bench) -> None:
    bench.turns.later(bench.work("a", 3 * TURN_NS))
    bench.one_turn()
    now_ns = bench.clock.now_ns()
    assert bench.turns.until_ns(now_ns) <= now_ns, "others have to wait for the next one"


def test_work_that_fails_does_not_keep_the_others(bench: Bench) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    bench.turns.later(fail)
    bench.turns.later(bench.work("b", SLICE_NS))
    with pytest.raises(ZeroDivisionError):
        bench.one_turn()
    assert bench.one_turn() == ["b"]
    assert repr(bench.turns) == f"<Turns waiting=0 spent_ns={SLICE_NS}>"


def test_an_idle_server_does_not_turn(bench: Bench) -> None:
    bench.turns.spend(1)
    bench.one_turn()
    assert not bench.loop.has_work
