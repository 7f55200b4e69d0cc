import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from modelport.stores.base import Content, NewTask, Retry, Task, TaskState, TaskStore
from modelport.stores.tasks import SqliteTasks
from modelport.testing.task_store_suite import Opener, TaskStoreSuite


class TestSqliteTasks(TaskStoreSuite):
    def open(self, folder: Path, now_s: Callable[[], float], most_queued: int) -> TaskStore:
        return SqliteTasks(folder / "tasks.sqlite", now_s, most_queued=most_queued)

    def test_the_file_is_for_this_user_alone(self, store: TaskStore, tmp_path: Path) -> None:
        assert (tmp_path / "tasks.sqlite").stat().st_mode & 0o077 == 0

    def test_calls_that_nobody_waits_for_any_more_are_left_out(
        self, stores: Opener, store: TaskStore
    ) -> None:
        assert isinstance(store, SqliteTasks)
        gate = threading.Event()
        holding = store._database.call(lambda _: gate.wait(5))
        given_up: Future[Task] = store.submit(stores.new())
        assert given_up.cancel()
        gate.set()
        assert holding.result()
        assert store.owned("ann").result() == []

    def test_close_twice_and_calls_before_it_are_answered(
        self, stores: Opener, store: TaskStore
    ) -> None:
        call = store.submit(stores.new())
        store.close()
        store.close()
        assert call.result(0).state is TaskState.QUEUED

    def test_a_full_disk_fails_the_calls_and_not_the_store(
        self, stores: Opener, store: TaskStore
    ) -> None:
        assert isinstance(store, SqliteTasks)
        store._database.call(lambda connection: connection.execute("PRAGMA max_page_count=30"))
        with pytest.raises(sqlite3.Error):
            store.submit(stores.new(request=Content((), bytes(1 << 20)))).result()
        assert store.owned("ann").result() == []


RUN_AND_DIE = """
import os, sys, time
from pathlib import Path
from modelport.stores.tasks import SqliteTasks
store = SqliteTasks(Path(sys.argv[1]), time.time)
claims = store.claim({"train": 2}, 3600).result()
print(len(claims), flush=True)
time.sleep(60)
"""


def test_killed_process_is_noticed_before_its_leases_run_out(tmp_path: Path) -> None:
    path = tmp_path / "tasks.sqlite"
    store = SqliteTasks(path, time.time)
    try:
        for task_id, retry in (("a", Retry.NEVER), ("b", Retry.ON_INTERRUPT)):
            new = NewTask(id=task_id, owner="", endpoint="train", request=Content(), retry=retry)
            store.submit(new).result()
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_AND_DIE, str(path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"2\n"
            assert store.recover().result() == 0
            process.kill()
            process.wait()
        assert store.recover().result() == 2
        assert store.get("", "a").result().state is TaskState.FAILED
        assert store.get("", "b").result().state is TaskState.QUEUED
    finally:
        store.close()
