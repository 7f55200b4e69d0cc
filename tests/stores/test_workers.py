"""Which processes are taken for gone, and when."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modelport.stores.task_schema import SCHEMA
from modelport.stores.workers import FORGOTTEN_AFTER_S, SEEN_EVERY_S, Workers


class Day:
    """A time of day that the test sets."""

    def __init__(self) -> None:
        self.s = 1e9

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def day() -> Day:
    return Day()


@pytest.fixture
def table() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.executescript(SCHEMA)
    yield connection
    connection.close()


def rewrite(table: sqlite3.Connection, **values: object) -> None:
    for column, value in values.items():
        table.execute(f"UPDATE workers SET {column} = ?", (value,))


def test_a_process_that_runs_is_there_however_long_nothing_was_heard_of_it(
    table: sqlite3.Connection, day: Day
) -> None:
    workers = Workers("me", day)
    workers.register(table)
    day.s += 2 * FORGOTTEN_AFTER_S
    assert workers.forget_dead(table) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells when one was started")
def test_a_process_that_has_ended_is_gone_at_once(table: sqlite3.Connection, day: Day) -> None:
    workers = Workers("me", day)
    workers.register(table)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    rewrite(table, process=ended.pid)
    assert workers.forget_dead(table) == ["me"]
    assert workers.forget_dead(table) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells when one was started")
def test_a_process_id_that_is_used_again_is_another_process(
    table: sqlite3.Connection, day: Day
) -> None:
    workers = Workers("me", day)
    workers.register(table)
    rewrite(table, process_started="some other boot 1")
    assert workers.forget_dead(table) == ["me"]


def test_a_process_of_another_host_is_there_until_it_was_silent_for_a_day(
    table: sqlite3.Connection, day: Day
) -> None:
    workers = Workers("me", day)
    workers.register(table)
    rewrite(table, host="elsewhere")
    day.s += FORGOTTEN_AFTER_S
    assert workers.forget_dead(table) == []
    day.s += 1
    assert workers.forget_dead(table) == ["me"]


def test_a_process_says_now_and_then_that_it_is_there(table: sqlite3.Connection, day: Day) -> None:
    workers = Workers("me", day)
    workers.stay_known(table)
    began_s = day.s
    for passed_s in (SEEN_EVERY_S, 1):
        seen = table.execute("SELECT seen_s FROM workers").fetchone()["seen_s"]
        assert seen == began_s
        day.s += passed_s
        workers.stay_known(table)
    assert table.execute("SELECT seen_s FROM workers").fetchone()["seen_s"] == day.s
