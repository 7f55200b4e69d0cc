import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from modelport.errors import Overloaded, Unavailable
from modelport.stores.base import Content, NewTask, Retry, Task, TaskState, TaskStore
from modelport.stores.tasks import SqliteTasks
from modelport.testing.task_store_suite import Opener, TaskStoreSuite


class TestSqliteTasks(TaskStoreSuite):
    def open(self, folder: Path, now_s: Callable[[], float], most_queued: int) -> TaskStore:
        return SqliteTasks(folder / "tasks.sqlite", now_s, most_queued=most_queued)

    def test_no_owner_fills_the_queue_alone(self, tmp_path: Path) -> None:
        with contextlib.closing(
            SqliteTasks(tmp_path / "shared.sqlite", time.time, most_queued=5, most_queued_each=2)
        ) as store:
            stores = Opener(lambda now_s: store)
            for owner in ("ann", "ann", "bob"):
                store.submit(stores.new(owner=owner, idempotency_key=owner)).result()
                store.submit(stores.new(owner=owner)).exception()
            with pytest.raises(Overloaded, match="2 of your tasks wait already") as refused:
                store.submit(stores.new(owner="ann")).result()
            assert refused.value.retry_after_s > 0
            # What is accepted already is no new task.
            store.submit(stores.new(owner="ann", idempotency_key="ann")).result()
            store.claim({"train": 2}, 60).result()
            store.submit(stores.new(owner="ann")).result()

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
        store._database.call(lambda connection: connection.execute("PRAGMA max_page_count=60"))
        calls = [store.submit(stores.new(request=Content((), bytes(50_000)))) for _ in range(50)]
        refusals = {str(call.exception()) for call in calls} - {"None"}
        assert ["disk is full" in refusal for refusal in refusals] == [True]
        accepted = [call.result() for call in calls if call.exception() is None]
        assert store.owned("ann").result() == accepted[::-1]

    def test_large_bodies_are_files_for_this_user_alone_and_go_with_their_task(
        self, stores: Opener, store: TaskStore, tmp_path: Path
    ) -> None:
        large = Content((), bytes(1 << 20), 200)
        new = stores.new(request=large)
        store.submit(new).result()
        store.claim({"train": 1}, 10).result()
        store.finish(new.id, TaskState.COMPLETED, large).result()
        files = list((tmp_path / "tasks").iterdir())
        assert [file.stat().st_size for file in files] == [1 << 20] * 2
        assert all(file.stat().st_mode & 0o077 == 0 for file in (*files, tmp_path / "tasks"))
        assert (tmp_path / "tasks.sqlite").stat().st_size < 1 << 20
        stores.now_s += 100
        assert store.prune(50).result() == 1
        assert list((tmp_path / "tasks").iterdir()) == []

    def test_no_more_bytes_are_kept_than_may_be(self, stores: Opener, tmp_path: Path) -> None:
        store = SqliteTasks(tmp_path / "few", lambda: stores.now_s, most_bytes=1000)
        try:
            first = stores.new(request=Content((), bytes(600)))
            store.submit(first).result()
            with pytest.raises(Overloaded, match="600 bytes together, and 1000 is the most"):
                store.submit(stores.new(request=Content((), bytes(600)))).result()
            store.cancel("ann", first.id).result()
            stores.now_s += 10
            store.prune(5).result()
            store.submit(stores.new(request=Content((), bytes(600)))).result()
        finally:
            store.close()

    @pytest.mark.parametrize("size", [10, 1 << 20])
    def test_nothing_is_accepted_when_the_disk_is_nearly_full(
        self, stores: Opener, tmp_path: Path, size: int
    ) -> None:
        path = tmp_path / "none.sqlite"
        store = SqliteTasks(path, lambda: stores.now_s, kept_free_bytes=1 << 60)
        try:
            with pytest.raises(Unavailable, match="disk is full"):
                store.submit(stores.new(request=Content((), bytes(size))))
            with pytest.raises(Unavailable):
                store.new_file()
            assert store.owned("ann").result() == []
        finally:
            store.close()
        assert not (tmp_path / "none").exists()

    def test_large_body_that_cannot_be_written_is_not_accepted(
        self, stores: Opener, store: TaskStore, tmp_path: Path
    ) -> None:
        (tmp_path / "tasks").write_text("no folder")
        with pytest.raises(Unavailable):
            store.submit(stores.new(request=Content((), bytes(1 << 20)))).result()
        assert store.owned("ann").result() == []

    def test_file_of_another_schema_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "other.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE tasks (id)")
        with pytest.raises(sqlite3.DatabaseError, match="another version"):
            SqliteTasks(path, time.time)


OPEN_AND_SUBMIT = """
import sys, time
from pathlib import Path
from modelport.stores.base import Content, NewTask
from modelport.stores.tasks import SqliteTasks
sys.stdin.readline()
store = SqliteTasks(Path(sys.argv[1]), time.time)
for number in range(20):
    new = NewTask(id=f"{sys.argv[2]}-{number}", owner="", endpoint="e", request=Content())
    store.submit(new).result()
store.close()
"""


def test_processes_that_make_the_file_at_the_same_moment(tmp_path: Path) -> None:
    path = tmp_path / "tasks.sqlite"
    command = [sys.executable, "-c", OPEN_AND_SUBMIT, str(path)]
    processes = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE) for number in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(b"go\n")
    assert [process.wait(60) for process in processes] == [0] * 4
    store = SqliteTasks(path, time.time)
    assert store.counts().result() == {("e", TaskState.QUEUED): 80}
    store.close()


WRITE_AND_DIE = """
import sys, time
from pathlib import Path
from modelport.stores.base import Content, NewTask
from modelport.stores.tasks import SqliteTasks
store = SqliteTasks(Path(sys.argv[1]), time.time)
new = NewTask(id="kept", owner="", endpoint="e", request=Content((), bytes(1 << 20)))
store.submit(new).result()
store.new_file().write_bytes(b"its row was to come")
print("written", flush=True)
time.sleep(60)
"""


def test_body_whose_row_never_came_is_deleted_when_its_process_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "tasks.sqlite"
    command = [sys.executable, "-c", WRITE_AND_DIE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert len(list((tmp_path / "tasks").iterdir())) == 2
        store = SqliteTasks(path, time.time)
        try:
            store.recover().result()
            assert len(list((tmp_path / "tasks").iterdir())) == 2
            process.kill()
            process.wait()
            store.recover().result()
            (left,) = (tmp_path / "tasks").iterdir()
            assert left.stat().st_size == 1 << 20
            claim = store.claim({"e": 1}, 10).result()[0]
            assert claim.request.file == left
        finally:
            store.close()


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
