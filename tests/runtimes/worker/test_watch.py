"""When a process is asked, and given up; time is moved by hand."""

from collections.abc import Iterator

import pytest

from modelport.runtimes.worker.watch import LOOKS, Watch
from modelport.testing.clock import ManualClock
from tests.server.memory_connection import HandTurnedLoop, turning


@pytest.fixture
def loop() -> Iterator[HandTurnedLoop]:
    made = HandTurnedLoop(ManualClock())
    with turning(made):
        yield made


def test_process_that_answers_is_asked_for_ever(loop: HandTurnedLoop) -> None:
    asked: list[int] = []
    given_up: list[bool] = []
    watch = Watch(100.0, lambda: asked.append(1), lambda: given_up.append(True))
    watch.start()
    for number in range(50):
        loop.advance(10)
        assert len(asked) == number + 1
        watch.answered()
    assert not given_up


def test_process_that_does_not_is_given_up_once_and_after_the_limit(loop: HandTurnedLoop) -> None:
    asked: list[int] = []
    given_up: list[bool] = []
    watch = Watch(100.0, lambda: asked.append(1), lambda: given_up.append(True))
    watch.start()
    loop.advance(109)
    assert not given_up
    loop.advance(2)
    assert given_up == [True]
    loop.advance(1000)
    assert (len(asked), len(given_up)) == (1, 1)


def test_answer_that_comes_late_is_one(loop: HandTurnedLoop) -> None:
    given_up: list[bool] = []
    watch = Watch(100.0, lambda: None, lambda: given_up.append(True))
    watch.start()
    for _ in range(3):
        loop.advance(95)
        watch.answered()
    assert not given_up


def test_time_in_which_nobody_looked_does_not_count(loop: HandTurnedLoop) -> None:
    """This process was stopped for an hour: the answer that has come meanwhile is not read yet."""
    given_up: list[bool] = []
    watch = Watch(100.0, lambda: None, lambda: given_up.append(True))
    watch.start()
    loop.advance(10)
    loop.clock.advance(3600)
    loop.advance(0)
    assert "1 of 10" in repr(watch)
    watch.answered()
    loop.advance(90)
    assert not given_up
    assert LOOKS == 10


def test_watch_that_was_stopped_asks_no_more(loop: HandTurnedLoop) -> None:
    asked: list[int] = []
    watch = Watch(100.0, lambda: asked.append(1), lambda: None)
    watch.start()
    watch.stop()
    watch.stop()
    loop.advance(1000)
    assert not asked
