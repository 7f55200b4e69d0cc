import pytest

from modelport.clock import Clock
from modelport.testing.clock import ManualClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock: Clock = ManualClock(5)
    assert (clock.now_ns(), clock.now_ns()) == (5, 5)


def test_time_moves_by_seconds() -> None:
    clock = ManualClock()
    clock.advance(1.5)
    clock.advance(0)
    assert clock.now_ns() == 1_500_000_000
    assert repr(clock) == "<ManualClock 1500000000 ns>"


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="cannot go back by 1 s"):
        ManualClock().advance(-1)
