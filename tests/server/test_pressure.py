from collections.abc import Iterator

import pytest

from modelport.server.pressure import (
    CHECK_S,
    LARGE_ANSWER_BYTES,
    LONGEST_KNOWN,
    MOST_CLOSED,
    MOST_KNOWN,
    MOST_WAITING_NS,
    PATIENCE_NS,
    STUCK_NS,
    UNREAD_BYTES,
    Pressure,
)
from modelport.server.turns import Turns
from modelport.testing.clock import ManualClock

from .memory_connection import HandTurnedLoop, TestServer, get, turning

HALF = UNREAD_BYTES // 2


class Reader:
    """A connection that does not keep up."""

    def __init__(self, unread_bytes: int) -> None:
        self.left_bytes = unread_bytes
        self.is_aborted = False
        self.reads_on = False

    def unread_bytes(self) -> int:
        return self.left_bytes

    def abort(self) -> None:
        self.is_aborted = True


@pytest.fixture
def loop() -> Iterator[HandTurnedLoop]:
    loop = HandTurnedLoop(ManualClock(10**12))
    with turning(loop):
        yield loop


@pytest.fixture
def pressure(loop: HandTurnedLoop) -> Pressure:
    return Pressure(loop.clock, Turns(loop.clock))


class Waiter:
    """A request that waits for room."""

    def __init__(self, pressure: Pressure, expected_bytes: int) -> None:
        self.outcome = ""
        pressure.wait(expected_bytes, lambda: self._set("goes on"), lambda: self._set("refused"))

    def _set(self, outcome: str) -> None:
        assert not self.outcome
        self.outcome = outcome


def test_room_is_reserved_until_it_is_used_up(pressure: Pressure) -> None:
    assert pressure.reserve(HALF)
    assert pressure.reserve(HALF)
    assert not pressure.reserve(1)
    pressure.release(HALF)
    assert pressure.reserve(1)


def test_an_answer_over_the_bound_goes_out_alone(pressure: Pressure) -> None:
    assert pressure.reserve(2 * UNREAD_BYTES)
    assert not pressure.reserve(1)
    pressure.release(2 * UNREAD_BYTES)
    assert pressure.reserve(1)
    assert not pressure.reserve(2 * UNREAD_BYTES)


def test_who_waits_goes_first_and_in_order(loop: HandTurnedLoop, pressure: Pressure) -> None:
    assert pressure.reserve(UNREAD_BYTES)
    waiters = [Waiter(pressure, HALF) for _ in range(3)]
    pressure.release(UNREAD_BYTES)
    assert not pressure.reserve(1)
    loop.turn()
    assert [waiter.outcome for waiter in waiters] == ["goes on", "goes on", ""]
    assert not pressure.reserve(1)
    pressure.release(HALF)
    loop.turn()
    assert waiters[2].outcome == "goes on"


def test_what_is_unread_takes_room_until_it_is_read(
    loop: HandTurnedLoop, pressure: Pressure
) -> None:
    reader = Reader(UNREAD_BYTES)
    pressure.filled(reader)
    assert not pressure.reserve(1)
    waiter = Waiter(pressure, 1)
    pressure.emptied(reader)
    loop.turn()
    assert waiter.outcome == "goes on"


def test_a_reader_that_reads_on_makes_room(loop: HandTurnedLoop, pressure: Pressure) -> None:
    reader = Reader(UNREAD_BYTES)
    pressure.filled(reader)
    waiter = Waiter(pressure, HALF)
    reader.left_bytes = HALF
    loop.advance(CHECK_S * 2)
    assert waiter.outcome == "goes on"
    assert not reader.is_aborted


def test_the_longest_stuck_are_dropped_until_half_is_free(
    loop: HandTurnedLoop, pressure: Pressure
) -> None:
    readers = [Reader(HALF) for _ in range(4)]
    for reader in readers:
        pressure.filled(reader)
        loop.clock.advance(0.001)
    loop.advance(STUCK_NS / 2e9)
    readers[0].left_bytes -= 1
    loop.advance(STUCK_NS / 2e9 + 2 * CHECK_S)
    assert [reader.is_aborted for reader in readers] == [False, True, True, True]


def test_a_reader_that_has_read_before_may_stop_for_a_while(
    loop: HandTurnedLoop, pressure: Pressure, caplog: pytest.LogCaptureFixture
) -> None:
    """Its machine is busy; with its connection all its calls would be lost."""
    paused, never = Reader(2 * UNREAD_BYTES), Reader(UNREAD_BYTES)
    for reader in (paused, never):
        pressure.filled(reader)
    loop.advance(0.2)
    paused.left_bytes -= 1000
    loop.advance(PATIENCE_NS / 1e9 - 0.2)
    assert (paused.is_aborted, never.is_aborted) == (False, True)
    pressure.emptied(paused)
    pressure.filled(paused)
    loop.advance(PATIENCE_NS / 1e9 - 0.2)
    assert [paused.is_aborted] == [False], "it is known for longer than one answer takes"
    loop.advance(0.5)
    assert paused.is_aborted
    assert caplog.text.count("clients are cut off that do not read their answers: 1") == 2


def test_what_the_kernel_takes_at_once_is_not_read(
    loop: HandTurnedLoop, pressure: Pressure
) -> None:
    loop.clock.advance(1)
    first = Reader(UNREAD_BYTES)
    pressure.filled(first)
    loop.advance(CHECK_S * 0.9)
    late = Reader(2 * UNREAD_BYTES)
    pressure.filled(late)
    late.left_bytes -= 100_000
    loop.advance(STUCK_NS / 1e9 + 3 * CHECK_S)
    assert not late.reads_on
    assert (first.is_aborted, late.is_aborted) == (True, True)


def test_stuck_readers_may_stay_while_there_is_room(
    loop: HandTurnedLoop, pressure: Pressure
) -> None:
    reader = Reader(UNREAD_BYTES)
    pressure.filled(reader)
    loop.advance(10 * STUCK_NS / 1e9)
    assert not reader.is_aborted


def test_a_thousand_stuck_readers_are_looked_at_in_pieces(
    loop: HandTurnedLoop, pressure: Pressure
) -> None:
    readers = [Reader(UNREAD_BYTES // 500) for _ in range(1000)]
    for reader in readers:
        pressure.filled(reader)
        loop.clock.advance(1e-6)
    loop.advance(STUCK_NS / 1e9 + CHECK_S)
    assert sum(reader.is_aborted for reader in readers) == MOST_CLOSED
    loop.advance(1000 / MOST_CLOSED * CHECK_S)
    left = [reader for reader in readers if not reader.is_aborted]
    assert len(left) * left[0].left_bytes <= UNREAD_BYTES
    assert all(reader.is_aborted for reader in readers[: 1000 - len(left)]), "the longest stuck"


def test_who_waits_too_long_is_refused(loop: HandTurnedLoop, pressure: Pressure) -> None:
    assert pressure.reserve(UNREAD_BYTES)
    waiter = Waiter(pressure, 1)
    loop.advance(MOST_WAITING_NS / 1e9 - 1)
    assert waiter.outcome == ""
    loop.advance(2)
    assert waiter.outcome == "refused"
    assert repr(pressure) == "<Pressure unread=0 waiting=0>"


def test_a_request_that_is_answered_at_once_lets_the_next_go_on(
    loop: HandTurnedLoop, pressure: Pressure
) -> None:
    """Thousands of them, without calling itself as deep."""
    assert pressure.reserve(UNREAD_BYTES)
    done: list[int] = []

    def go_on() -> None:
        done.append(1)
        pressure.release(HALF)

    for _ in range(5000):
        pressure.wait(HALF, go_on, pytest.fail)
    pressure.release(UNREAD_BYTES)
    loop.turn()
    assert len(done) == 5000


def test_what_is_known_of_paths_is_bounded(pressure: Pressure) -> None:
    known = pressure.answers("/a")
    assert pressure.answers("/a") is known
    long = "/" + "x" * LONGEST_KNOWN
    assert pressure.answers(long) is not pressure.answers(long)
    for i in range(MOST_KNOWN):
        pressure.answers(f"/{i}")
    assert pressure.answers("/a") is not known


# In the listener


def test_a_large_answer_waits_while_others_do_not_read_theirs() -> None:
    server = TestServer()
    with turning(server.loop):
        first, second, third = (server.client() for _ in range(3))
        size = HALF + LARGE_ANSWER_BYTES
        for client in (first, second):
            client.transport.is_stuck = True
            client.send(get("/later"))
        server.waiting[0].respond(200, (), [bytes(size)])
        server.loop.turn()
        server.waiting[1].respond(200, (), [b"small"])
        server.loop.turn()
        second.send(get("/later"))
        server.waiting[2].respond(200, (), [bytes(size)])
        server.loop.turn()
        third.send(get("/later"))
        assert len(server.waiting) == 3, "it waits"
        third.send(get("/hello"))
        first.read()
        second.read()
        assert len(server.waiting) == 4
        server.waiting[3].respond(200, (), [b"done"])
        server.loop.turn()
        assert [answer.body for answer in third.answers] == [b"done", b"hello"]


def test_a_client_that_leaves_while_it_waits_takes_no_room() -> None:
    server = TestServer()
    with turning(server.loop):
        stuck, waiting = server.client(), server.client()
        stuck.transport.is_stuck = True
        stuck.send(get("/later"))
        server.waiting[0].respond(200, (), [bytes(UNREAD_BYTES)])
        server.loop.turn()
        waiting.send(get("/later"))
        waiting.leave()
        stuck.read()
        server.loop.turn()
        assert len(server.waiting) == 1
        assert server.http.pressure.reserve(UNREAD_BYTES)
