import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from modelport.engine.tasks import TaskEndpoint, TaskOptions, Tasks
from modelport.errors import InvalidRequest, ModelFailed, NotFound, Unavailable
from modelport.progress import report_progress
from modelport.stores.base import Claim, Content, Retry, Task, TaskState
from modelport.stores.tasks import SqliteTasks

OPTIONS = TaskOptions(lease_s=0.5, poll_s=0.05)
ASKED = Content((), b"please", 0)

Run = Callable[[Claim], Awaitable[Content]]
Scene = Callable[[Tasks], Awaitable[None]]


async def echo(claim: Claim) -> Content:
    return Content((("content-type", "text/plain"),), claim.request.body, 200)


async def never(claim: Claim) -> Content:
    await asyncio.Event().wait()
    raise AssertionError


def play(
    path: Path,
    scene: Scene,
    run: Run = echo,
    *,
    concurrency: int = 2,
    retry: Retry = Retry.NEVER,
) -> None:
    async def main() -> None:
        tasks = Tasks(SqliteTasks(path / "tasks.sqlite", time.time), OPTIONS)
        tasks.register(TaskEndpoint(name="do", run=run, concurrency=concurrency, retry=retry))
        await tasks.open()
        try:
            async with asyncio.timeout(20):
                await scene(tasks)
        finally:
            await tasks.close()

    asyncio.run(main())


async def seen(tasks: Tasks, task: Task, is_so: Callable[[Task], bool]) -> Task:
    for _ in range(4000):
        task = await tasks.get("ann", task.id)
        if is_so(task):
            return task
        await asyncio.sleep(0.005)
    raise AssertionError(task)


async def over(tasks: Tasks, task: Task) -> Task:
    return await seen(tasks, task, lambda task: task.state.is_over)


async def until_running(tasks: Tasks, task: Task) -> None:
    await seen(tasks, task, lambda task: task.state is TaskState.RUNNING)


def test_task_is_run_and_its_answer_kept(tmp_path: Path) -> None:
    async def scene(tasks: Tasks) -> None:
        task = await tasks.submit("do", "ann", ASKED)
        done = await over(tasks, task)
        assert (done.state, done.attempts) == (TaskState.COMPLETED, 1)
        found, answer = await tasks.result("ann", task.id)
        assert found == done
        assert answer == Content((("content-type", "text/plain"),), b"please", 200)
        with pytest.raises(NotFound):
            await tasks.result("bob", task.id)

    play(tmp_path, scene)


def test_nobody_waits_for_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    async def scene(tasks: Tasks) -> None:
        with pytest.raises(NotFound, match="fly"):
            await tasks.submit("fly", "ann", ASKED)

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelFailed("no such leaf"), "no such leaf"),
        (ValueError("/secret/path"), "internal error; the log of the server tells more"),
        (asyncio.CancelledError(), "its own code cancelled it"),
    ],
)
def test_failure_says_why_and_no_more_than_it_may(
    tmp_path: Path, error: BaseException, reason: str
) -> None:
    async def fail(claim: Claim) -> Content:
        raise error

    async def scene(tasks: Tasks) -> None:
        done = await over(tasks, await tasks.submit("do", "ann", ASKED))
        assert (done.state, done.reason) == (TaskState.FAILED, reason)
        after = await over(tasks, await tasks.submit("do", "ann", ASKED))
        assert after.state is TaskState.FAILED

    play(tmp_path, scene, fail)


def test_answer_with_an_error_status_is_a_failure_that_can_be_read(tmp_path: Path) -> None:
    async def refuse(claim: Claim) -> Content:
        return Content((), b'{"error": "bad"}', 400)

    async def scene(tasks: Tasks) -> None:
        task = await over(tasks, await tasks.submit("do", "ann", ASKED))
        assert task.state is TaskState.FAILED
        assert (await tasks.result("ann", task.id))[1] == Content((), b'{"error": "bad"}', 400)

    play(tmp_path, scene, refuse)


def test_no_more_run_at_a_time_than_may(tmp_path: Path) -> None:
    running, most = 0, 0

    async def count(claim: Claim) -> Content:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return Content()

    async def scene(tasks: Tasks) -> None:
        submitted = [await tasks.submit("do", "ann", ASKED) for _ in range(12)]
        for task in submitted:
            assert (await over(tasks, task)).state is TaskState.COMPLETED

    play(tmp_path, scene, count, concurrency=3)
    assert most == 3


def test_cancelling_stops_what_runs_and_what_waits(tmp_path: Path) -> None:
    async def scene(tasks: Tasks) -> None:
        running = await tasks.submit("do", "ann", ASKED)
        waiting = await tasks.submit("do", "ann", ASKED)
        await until_running(tasks, running)
        assert (await tasks.cancel("ann", waiting.id)).state is TaskState.CANCELED
        with pytest.raises(NotFound):
            await tasks.cancel("bob", running.id)
        await tasks.cancel("ann", running.id)
        assert (await over(tasks, running)).state is TaskState.CANCELED

    play(tmp_path, scene, never, concurrency=1)


def test_task_that_runs_longer_than_a_lease_is_not_interrupted(tmp_path: Path) -> None:
    async def slow(claim: Claim) -> Content:
        await asyncio.sleep(OPTIONS.lease_s * 2.5)
        return Content((), b"done", 200)

    async def scene(tasks: Tasks) -> None:
        done = await over(tasks, await tasks.submit("do", "ann", ASKED))
        assert (done.state, done.attempts) == (TaskState.COMPLETED, 1)

    play(tmp_path, scene, slow)


def test_progress_is_seen_while_it_runs(tmp_path: Path) -> None:
    async def report(claim: Claim) -> Content:
        report_progress(0.5, "half way")
        await asyncio.Event().wait()
        raise AssertionError

    async def scene(tasks: Tasks) -> None:
        task = await tasks.submit("do", "ann", ASKED)
        found = await seen(tasks, task, lambda task: task.progress is not None)
        assert (found.progress, found.progress_text) == (0.5, "half way")

    play(tmp_path, scene, report)


def test_progress_outside_of_a_task_is_nobodys_business() -> None:
    report_progress(1.0)
    with pytest.raises(ValueError, match="0 to 1"):
        report_progress(1.5)


def test_retry_asks_the_same_again_as_a_new_task(tmp_path: Path) -> None:
    async def scene(tasks: Tasks) -> None:
        hook = "https://hooks.example.com"
        first = await over(tasks, await tasks.submit("do", "ann", ASKED, webhook=hook))
        again = await tasks.retry("ann", first.id)
        assert again.id != first.id
        assert (first.webhook, again.webhook) == ("https://hooks.example.com", first.webhook)
        assert (await over(tasks, again)).state is TaskState.COMPLETED
        assert (await tasks.result("ann", again.id))[1] == (await tasks.result("ann", first.id))[1]

    play(tmp_path, scene)


def test_retry_of_a_task_that_is_not_over_is_refused(tmp_path: Path) -> None:
    async def scene(tasks: Tasks) -> None:
        task = await tasks.submit("do", "ann", ASKED)
        with pytest.raises(InvalidRequest, match="not completed yet"):
            await tasks.retry("ann", task.id)

    play(tmp_path, scene, never)


@pytest.mark.parametrize("retry", Retry)
def test_end_of_the_server_is_an_interruption_by_the_authors_policy(
    tmp_path: Path, retry: Retry
) -> None:
    tasks_seen: list[Task] = []

    async def submit(tasks: Tasks) -> None:
        tasks_seen.append(await tasks.submit("do", "ann", ASKED))
        await until_running(tasks, tasks_seen[0])

    async def look(tasks: Tasks) -> None:
        tasks_seen.append(await over(tasks, tasks_seen[0]))

    play(tmp_path, submit, never, retry=retry)
    play(tmp_path, look, echo, retry=retry)
    if retry is Retry.NEVER:
        assert (tasks_seen[1].state, tasks_seen[1].attempts) == (TaskState.FAILED, 1)
        assert "stopped while it was running" in tasks_seen[1].reason
    else:
        assert (tasks_seen[1].state, tasks_seen[1].attempts) == (TaskState.COMPLETED, 2)


def test_two_servers_share_the_work(tmp_path: Path) -> None:
    done_by: dict[str, int] = {}

    async def main() -> None:
        servers = []
        for name in ("one", "two"):

            async def run(claim: Claim, name: str = name) -> Content:
                await asyncio.sleep(0.01)
                done_by[name] = done_by.get(name, 0) + 1
                return Content((), b"", 200)

            tasks = Tasks(SqliteTasks(tmp_path / "tasks.sqlite", time.time), OPTIONS)
            tasks.register(TaskEndpoint(name="do", run=run, concurrency=2))
            await tasks.open()
            servers.append(tasks)
        submitted = [await servers[0].submit("do", "ann", ASKED) for _ in range(60)]
        for task in submitted:
            assert (await over(servers[1], task)).state is TaskState.COMPLETED
        for tasks in servers:
            await tasks.close()

    asyncio.run(main())
    assert sum(done_by.values()) == 60
    assert set(done_by) == {"one", "two"}


def test_closing_refuses_new_tasks_and_lets_short_ones_end(tmp_path: Path) -> None:
    async def short(claim: Claim) -> Content:
        await asyncio.sleep(0.05)
        return Content((), b"", 200)

    async def main() -> None:
        path = tmp_path / "tasks.sqlite"
        tasks = Tasks(SqliteTasks(path, time.time), OPTIONS)
        tasks.register(TaskEndpoint(name="do", run=short))
        await tasks.open()
        task = await tasks.submit("do", "ann", ASKED)
        await until_running(tasks, task)
        closing = asyncio.create_task(tasks.close(grace_s=5))
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            await tasks.submit("do", "ann", ASKED)
        await closing
        store = SqliteTasks(path, time.time)
        assert store.get("ann", task.id).result().state is TaskState.COMPLETED
        store.close()

    asyncio.run(main())


class Narrow(SqliteTasks):
    """A store that has no room for results, and at times none for anything."""

    failures = 0

    def finish(
        self, task_id: str, state: TaskState, result: Content | None, reason: str = ""
    ) -> "Future[bool]":
        if result is not None or self.failures:
            self.failures -= result is None
            refused: Future[bool] = Future()
            refused.set_exception(Unavailable("no room"))
            return refused
        return super().finish(task_id, state, result, reason)


def test_result_that_finds_no_room_is_a_failure_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelport.engine.tasks.FINISH_AGAIN_S", 0.01)

    async def main() -> None:
        store = Narrow(tmp_path / "tasks.sqlite", time.time)
        store.failures = 3
        tasks = Tasks(store, OPTIONS)
        tasks.register(TaskEndpoint(name="do", run=echo))
        await tasks.open()
        done = await over(tasks, await tasks.submit("do", "ann", ASKED))
        assert (done.state, done.attempts) == (TaskState.FAILED, 1)
        assert "disk is full" in done.reason
        await tasks.close()

    asyncio.run(main())


def test_lease_is_renewed_while_a_large_result_is_written(tmp_path: Path) -> None:
    class Slow(SqliteTasks):
        def finish(
            self, task_id: str, state: TaskState, result: Content | None, reason: str = ""
        ) -> "Future[bool]":
            outer: Future[bool] = Future()
            later = super().finish

            def end() -> None:
                outer.set_result(later(task_id, state, result, reason).result())

            threading.Timer(OPTIONS.lease_s * 2.5, end).start()
            return outer

    async def main() -> None:
        here = Tasks(Slow(tmp_path / "tasks.sqlite", time.time), OPTIONS)
        there = Tasks(SqliteTasks(tmp_path / "tasks.sqlite", time.time), OPTIONS)
        here.register(TaskEndpoint(name="do", run=echo))
        await here.open()
        await there.open()
        task = await here.submit("do", "ann", ASKED)
        done = await over(here, task)
        assert done.state is TaskState.COMPLETED
        await here.close()
        await there.close()

    asyncio.run(main())


def test_counts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.engine.tasks.COUNT_EVERY_S", 0.01)

    async def scene(tasks: Tasks) -> None:
        await over(tasks, await tasks.submit("do", "ann", ASKED))
        for _ in range(1000):
            if tasks.counts() == {("do", TaskState.QUEUED): 0, ("do", TaskState.COMPLETED): 1}:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(tasks.counts())

    play(tmp_path, scene)
