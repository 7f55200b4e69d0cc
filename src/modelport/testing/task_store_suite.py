"""What every store of tasks has to do, as a suite of pytest tests.

Ours runs it, and so can one's own: subclass :class:`TaskStoreSuite` and say how a store is opened.

::

    class TestMyTasks(TaskStoreSuite):
        def open(self, folder: Path, now_s: Callable[[], float], most_queued: int) -> TaskStore:
            return MyTasks(folder / "tasks", now_s, most_queued=most_queued)
"""

# The names of the tests are their docstrings.
# ruff: noqa: D102

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelport.errors import Conflict, NotFound, Overloaded, Unavailable
from modelport.stores.base import Claim, Content, NewTask, Retry, Task, TaskState, TaskStore

__all__ = ["Opener", "TaskStoreSuite"]

LEASE_S = 10.0
ENOUGH = 1000


class Opener:
    """Opens stores that share what they keep, as processes would, and a time of day."""

    def __init__(self, open_store: Callable[[Callable[[], float]], TaskStore]) -> None:
        self.now_s = 1_000_000.0
        self._open = open_store
        self._opened: list[TaskStore] = []
        self._ids = itertools.count(1)

    def __call__(self) -> TaskStore:
        """Open another one."""
        store = self._open(lambda: self.now_s)
        self._opened.append(store)
        return store

    def new(self, **changes: Any) -> NewTask:
        """Make a task with an id of its own."""
        standard: dict[str, Any] = {
            "id": f"task-{next(self._ids)}",
            "owner": "ann",
            "endpoint": "train",
            "request": Content((("content-type", "text/plain"),), b"learn \x00 this"),
        }
        return NewTask(**{**standard, **changes})

    def close(self) -> None:
        """Close them all."""
        for store in self._opened:
            store.close()


class TaskStoreSuite:
    """Subclass it and implement ``open``."""

    MOST_QUEUED = 50

    def open(self, folder: Path, now_s: Callable[[], float], most_queued: int) -> TaskStore:
        """Open the store that lies in ``folder``; several may be open at once."""
        raise NotImplementedError

    @pytest.fixture
    def stores(self, tmp_path: Path) -> Iterator[Opener]:
        opener = Opener(lambda now_s: self.open(tmp_path, now_s, self.MOST_QUEUED))
        yield opener
        opener.close()

    @pytest.fixture
    def store(self, stores: Opener) -> TaskStore:
        return stores()

    # Accepting.

    def test_a_new_task_waits_and_is_its_owners(self, stores: Opener, store: TaskStore) -> None:
        task = store.submit(stores.new()).result()
        assert (task.state, task.attempts, task.created_s) == (TaskState.QUEUED, 0, stores.now_s)
        assert store.get("ann", task.id).result() == task
        for ask in (store.get, store.result, store.request, store.cancel):
            with pytest.raises(NotFound):
                ask("bob", task.id).result()
            with pytest.raises(NotFound):
                ask("ann", "nobody's").result()

    def test_what_was_asked_comes_back_byte_for_byte(
        self, stores: Opener, store: TaskStore
    ) -> None:
        request = Content((("a", "1"), ("A", "é")), bytes(range(256)) * 4000)
        new = stores.new(request=request)
        store.submit(new).result()
        again = store.request("ann", new.id).result()[1]
        (claim,) = claimed(store)
        for content in (again, claim.request):
            assert content.headers == request.headers
            assert whole(content) == request.body

    def test_full_queue_refuses_and_says_when_to_try_again(
        self, stores: Opener, store: TaskStore
    ) -> None:
        for _ in range(self.MOST_QUEUED):
            store.submit(stores.new()).result()
        with pytest.raises(Overloaded) as refused:
            store.submit(stores.new(owner="bob")).result()
        assert refused.value.retry_after_s > 0
        claimed(store, 1)
        store.submit(stores.new(owner="bob")).result()

    def test_idempotency_key_gives_the_first_task_again(
        self, stores: Opener, store: TaskStore
    ) -> None:
        first = store.submit(stores.new(idempotency_key="k")).result()
        assert store.submit(stores.new(idempotency_key="k")).result() == first
        other_owner = store.submit(stores.new(idempotency_key="k", owner="bob")).result()
        other_endpoint = store.submit(stores.new(idempotency_key="k", endpoint="test")).result()
        assert len({first.id, other_owner.id, other_endpoint.id}) == 3
        with pytest.raises(Conflict):
            store.submit(stores.new(idempotency_key="k", request=Content((), b"other"))).result()

    def test_same_id_twice_is_refused_and_harms_nobody(
        self, stores: Opener, store: TaskStore
    ) -> None:
        new = stores.new()
        calls = [store.submit(new), store.submit(new), store.submit(stores.new())]
        assert [call.exception() is None for call in calls] == [True, False, True]

    # Large bodies.

    def test_a_file_is_the_stores_once_it_was_given(self, stores: Opener, store: TaskStore) -> None:
        file = written(store, b"asked")
        new = stores.new(request=Content((), file=file))
        store.submit(new).result()
        (claim,) = claimed(store)
        assert whole(claim.request) == b"asked"
        result = Content((), status=200, file=written(store, b"answered"))
        assert store.finish(new.id, TaskState.COMPLETED, result).result()
        kept = store.result("ann", new.id).result()[1]
        assert kept is not None
        assert (kept.status, whole(kept)) == (200, b"answered")

    def test_a_file_that_was_not_taken_is_gone(self, stores: Opener, store: TaskStore) -> None:
        first = stores.new(idempotency_key="k")
        store.submit(first).result()
        files = [written(store, b"asked") for _ in range(3)]
        again = stores.new(idempotency_key="k", request=Content((), file=files[0]))
        assert store.submit(again).result().id == first.id
        refused = stores.new(id=first.id, request=Content((), file=files[1]))
        assert store.submit(refused).exception() is not None
        result = Content((), file=files[2])
        assert not store.finish("nobody's", TaskState.COMPLETED, result).result()
        assert [file for file in files if file.exists()] == []

    def test_asking_again_does_not_share_the_file(self, stores: Opener, store: TaskStore) -> None:
        first = stores.new(request=Content((), file=written(store, b"asked")))
        store.submit(first).result()
        again = stores.new(request=store.request("ann", first.id).result()[1])
        store.submit(again).result()
        for claim in claimed(store):
            store.finish(claim.task.id, TaskState.COMPLETED, None).result()
            stores.now_s += 100
        assert store.prune(150).result() == 1
        assert whole(store.request("ann", again.id).result()[1]) == b"asked"

    # Running.

    def test_claims_come_by_priority_and_then_in_order(
        self, stores: Opener, store: TaskStore
    ) -> None:
        ids = [store.submit(stores.new(priority=priority)).result().id for priority in (1, 0, 1, 0)]
        order = [claim.task.id for _ in range(2) for claim in claimed(store, 2)]
        assert order == [ids[1], ids[3], ids[0], ids[2]]
        assert claimed(store) == []

    def test_only_the_endpoints_asked_for_are_claimed(
        self, stores: Opener, store: TaskStore
    ) -> None:
        store.submit(stores.new()).result()
        assert store.claim({"test": 5, "train": 0}, LEASE_S).result() == []
        (claim,) = claimed(store)
        assert claim.task.state is TaskState.RUNNING
        assert (claim.task.attempts, claim.task.started_s) == (1, stores.now_s)

    def test_each_task_is_claimed_by_one_process_only(self, stores: Opener) -> None:
        here, there = stores(), stores()
        ids = {here.submit(stores.new()).result().id for _ in range(40)}
        calls = [store.claim({"train": 3}, LEASE_S) for _ in range(10) for store in (here, there)]
        taken = [claim.task.id for call in calls for claim in call.result()]
        assert sorted(taken) == sorted(ids)

    @pytest.mark.parametrize("state", [TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED])
    def test_a_finished_task_stays_as_it_ended(
        self, stores: Opener, store: TaskStore, state: TaskState
    ) -> None:
        task = started(stores, store)
        answer = Content((("content-type", "image/png"),), b"\x89PNG", 200)
        stores.now_s += 5
        assert store.finish(task.id, state, answer, "so it was").result()
        found, result = store.result("ann", task.id).result()
        assert (found.state, found.reason, found.finished_s) == (state, "so it was", stores.now_s)
        assert result == answer
        assert not store.finish(task.id, TaskState.FAILED, None).result()
        assert store.cancel("ann", task.id).result().state is state
        assert claimed(store) == []

    def test_progress_is_shown_while_it_runs(self, stores: Opener, store: TaskStore) -> None:
        task = started(stores, store)
        store.heartbeat({task.id: (0.25, "first quarter")}, LEASE_S).result()
        store.heartbeat({task.id: None}, LEASE_S).result()
        found = store.get("ann", task.id).result()
        assert (found.progress, found.progress_text) == (0.25, "first quarter")

    # Cancelling.

    def test_canceled_before_it_was_started(self, stores: Opener, store: TaskStore) -> None:
        task = store.submit(stores.new()).result()
        canceled = store.cancel("ann", task.id).result()
        assert canceled.state is TaskState.CANCELED
        assert canceled.finished_s == stores.now_s
        assert claimed(store) == []
        assert store.cancel("ann", task.id).result() == canceled

    def test_canceled_while_another_process_runs_it(self, stores: Opener) -> None:
        here, there = stores(), stores()
        task = started(stores, there)
        assert here.cancel("ann", task.id).result().cancel_requested
        assert there.heartbeat({task.id: None}, LEASE_S).result().cancelled == {task.id}
        assert there.finish(task.id, TaskState.CANCELED, None, "stopped").result()
        assert here.get("ann", task.id).result().state is TaskState.CANCELED

    # Interruptions.

    @pytest.mark.parametrize("retry", Retry)
    def test_a_lease_that_ran_out_is_an_interruption(self, stores: Opener, retry: Retry) -> None:
        here, there = stores(), stores()
        task = started(stores, there, retry=retry)
        stores.now_s += LEASE_S - 1
        assert here.recover().result() == 0
        there.heartbeat({task.id: None}, LEASE_S).result()
        stores.now_s += LEASE_S - 1
        assert here.recover().result() == 0
        stores.now_s += 2
        assert here.recover().result() == 1
        self._is_interrupted(here, task, retry)
        # Whoever lost it learns so, and changes nothing any more.
        assert there.heartbeat({task.id: None}, LEASE_S).result().lost == {task.id}
        assert not there.finish(task.id, TaskState.COMPLETED, Content()).result()

    @pytest.mark.parametrize("retry", Retry)
    def test_given_back_is_an_interruption(
        self, stores: Opener, store: TaskStore, retry: Retry
    ) -> None:
        task = started(stores, store, retry=retry)
        store.give_back([task.id], "the server was stopped").result()
        self._is_interrupted(store, task, retry)

    def _is_interrupted(self, store: TaskStore, task: Task, retry: Retry) -> None:
        found = store.get("ann", task.id).result()
        if retry is Retry.NEVER:
            assert found.state is TaskState.FAILED
            assert "interrupted" in found.reason
            assert claimed(store) == []
        else:
            assert found.state is TaskState.QUEUED
            (again,) = claimed(store)
            assert (again.task.id, again.task.attempts) == (task.id, 2)

    def test_tried_too_often_fails(self, stores: Opener, store: TaskStore) -> None:
        new = stores.new(retry=Retry.ON_INTERRUPT, most_attempts=3)
        store.submit(new).result()
        for _ in range(3):
            (claim,) = claimed(store)
            store.give_back([claim.task.id], "stopped").result()
        found = store.get("ann", new.id).result()
        assert (found.state, found.attempts) == (TaskState.FAILED, 3)
        assert "3 times" in found.reason

    def test_interrupted_after_its_owner_wanted_it_to_stop(
        self, stores: Opener, store: TaskStore
    ) -> None:
        task = started(stores, store, retry=Retry.ON_INTERRUPT)
        store.cancel("ann", task.id).result()
        store.give_back([task.id], "stopped").result()
        assert store.get("ann", task.id).result().state is TaskState.CANCELED

    def test_what_was_not_started_in_time_fails(self, stores: Opener, store: TaskStore) -> None:
        late = store.submit(stores.new(expires_s=30)).result()
        patient = store.submit(stores.new()).result()
        stores.now_s += 31
        assert [claim.task.id for claim in claimed(store)] == [patient.id]
        assert store.recover().result() >= 1
        found = store.get("ann", late.id).result()
        assert found.state is TaskState.FAILED
        assert "expired" in found.reason

    # Webhooks.

    def test_every_end_is_noticed_once(self, stores: Opener, store: TaskStore) -> None:
        url = "https://example.com/hook"
        canceled = store.submit(stores.new(webhook=url)).result()
        store.cancel("ann", canceled.id).result()
        late = store.submit(stores.new(webhook=url, expires_s=10)).result()
        stores.now_s += 11
        store.recover().result()
        interrupted = started(stores, store, webhook=url)
        store.give_back([interrupted.id], "stopped").result()
        done = started(stores, store, webhook=url)
        store.finish(done.id, TaskState.COMPLETED, Content((), b"1", 200)).result()
        store.finish(done.id, TaskState.FAILED, None).result()
        store.cancel("ann", done.id).result()
        unheard = started(stores, store)
        store.finish(unheard.id, TaskState.COMPLETED, None).result()
        notices = store.notices(ENOUGH, LEASE_S).result()
        assert [notice.task.id for notice in notices] == [
            task.id for task in (canceled, late, interrupted, done)
        ]
        assert {notice.url for notice in notices} == {url}
        assert all(notice.task.state.is_over for notice in notices)

    def test_a_notice_is_handed_out_until_it_is_settled(self, stores: Opener) -> None:
        here, there = stores(), stores()
        task = started(stores, here, webhook="https://example.com/")
        here.finish(task.id, TaskState.COMPLETED, None).result()
        (notice,) = there.notices(1, LEASE_S).result()
        assert here.notices(1, LEASE_S).result() == []
        # Whoever had it ended before it was delivered.
        stores.now_s += LEASE_S + 1
        (again,) = here.notices(1, LEASE_S).result()
        assert (again.id, again.attempts) == (notice.id, 2)
        here.settle(again.id, 60).result()
        stores.now_s += 59
        assert there.notices(1, LEASE_S).result() == []
        stores.now_s += 1
        (last,) = there.notices(1, LEASE_S).result()
        there.settle(last.id, None).result()
        stores.now_s += LEASE_S + 1
        assert here.notices(1, LEASE_S).result() == []

    # Keeping.

    def test_everything_is_there_after_a_restart(self, stores: Opener) -> None:
        before = stores()
        waiting = before.submit(stores.new()).result()
        done = started(stores, before, endpoint="other")
        before.finish(done.id, TaskState.COMPLETED, Content((), b"42", 200)).result()
        before.close()
        with pytest.raises(Unavailable):
            before.get("ann", done.id)
        after = stores()
        assert after.get("ann", waiting.id).result() == waiting
        assert after.result("ann", done.id).result()[1] == Content((), b"42", 200)

    def test_lists_are_the_owners_newest_first_in_pages(
        self, stores: Opener, store: TaskStore
    ) -> None:
        ids = [store.submit(stores.new(endpoint=f"e{index % 2}")).result().id for index in range(7)]
        store.submit(stores.new(owner="bob")).result()
        store.cancel("ann", ids[0]).result()
        newest = ids[::-1]
        assert [task.id for task in store.owned("ann").result()] == newest
        page = store.owned("ann", limit=3).result()
        assert [task.id for task in page] == newest[:3]
        rest = store.owned("ann", before=page[-1].id).result()
        assert [task.id for task in rest] == newest[3:]
        canceled = store.owned("ann", states=[TaskState.CANCELED]).result()
        assert [task.id for task in canceled] == ids[:1]
        assert [task.id for task in store.owned("ann", endpoint="e1").result()] == ids[5::-2]
        with pytest.raises(NotFound):
            store.owned("bob", before=ids[0]).result()

    def test_counts_are_by_endpoint_and_state(self, stores: Opener, store: TaskStore) -> None:
        started(stores, store)
        store.submit(stores.new()).result()
        store.submit(stores.new(owner="bob")).result()
        assert store.counts().result() == {
            ("train", TaskState.RUNNING): 1,
            ("train", TaskState.QUEUED): 2,
        }

    def test_only_what_has_been_over_for_long_is_forgotten(
        self, stores: Opener, store: TaskStore
    ) -> None:
        old = started(stores, store)
        store.finish(old.id, TaskState.COMPLETED, Content((), b"1")).result()
        stores.now_s += 100
        young = started(stores, store)
        store.finish(young.id, TaskState.COMPLETED, Content((), b"2")).result()
        waiting = store.submit(stores.new()).result()
        assert store.prune(50).result() == 1
        with pytest.raises(NotFound):
            store.get("ann", old.id).result()
        assert store.result("ann", young.id).result()[1] is not None
        assert store.get("ann", waiting.id).result() == waiting

    def test_hundreds_of_calls_at_once_are_all_answered(
        self, stores: Opener, store: TaskStore
    ) -> None:
        calls = [store.submit(stores.new()) for _ in range(self.MOST_QUEUED + 10)]
        accepted = [call for call in calls if call.exception() is None]
        assert len(accepted) == self.MOST_QUEUED
        assert len(claimed(store)) == self.MOST_QUEUED


def claimed(store: TaskStore, count: int = ENOUGH) -> list[Claim]:
    """Claim tasks of the suite's endpoint."""
    return store.claim({"train": count}, LEASE_S).result()


def written(store: TaskStore, body: bytes) -> Path:
    """Write a body to a file of the store."""
    file = store.new_file()
    file.write_bytes(body)
    return file


def whole(content: Content) -> bytes:
    """Give a body, wherever it is."""
    return content.body if content.file is None else content.file.read_bytes()


def started(stores: Opener, store: TaskStore, **changes: Any) -> Task:
    """Submit a task and claim it."""
    new = stores.new(**changes)
    store.submit(new).result()
    claims = store.claim({new.endpoint: ENOUGH}, LEASE_S).result()
    return next(claim.task for claim in claims if claim.task.id == new.id)
