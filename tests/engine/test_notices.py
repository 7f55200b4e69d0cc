import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from modelport.engine import notices
from modelport.engine.notices import Notices
from modelport.errors import Unavailable
from modelport.stores.base import Content, NewTask, Notice, TaskState
from modelport.stores.tasks import SqliteTasks
from tests.waiting import until

URL = "https://example.com/hook"


class Day:
    """A time of day."""

    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def play(
    path: Path, answers: list[str | Exception], scene: Callable[..., Awaitable[None]]
) -> list[Notice]:
    """Deliver notices of tasks to somebody who says these things, and then nothing."""
    day = Day()
    told: list[Notice] = []

    async def deliver(notice: Notice) -> str:
        told.append(notice)
        answer = answers.pop(0) if answers else ""
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main() -> None:
        store = SqliteTasks(path / "tasks.sqlite", day)
        delivering = Notices(store, deliver)
        delivering.open()
        try:
            async with asyncio.timeout(10):
                await scene(store, delivering, day, told)
        finally:
            await delivering.close()
            await delivering.close()
            store.close()

    asyncio.run(main())
    return told


def end(store: SqliteTasks, task_id: str) -> None:
    new = NewTask(id=task_id, owner="ann", endpoint="do", request=Content(), webhook=URL)
    store.submit(new).result()
    store.claim({"do": 1}, 10).result()
    store.finish(task_id, TaskState.COMPLETED, Content((), b"1", 200)).result()


async def settled(store: SqliteTasks, count: int) -> None:
    """Wait until so many notices are left, whenever they are due."""
    query = "SELECT count(*) AS count FROM notices WHERE due_s < 1000050"
    for _ in range(2000):
        found = await asyncio.wrap_future(
            store._database.call(lambda connection: connection.execute(query).fetchone()["count"])
        )
        if found == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError


@pytest.mark.parametrize("wrong", ["status 500", ValueError("oops")])
def test_notice_is_delivered_again_until_it_arrives(tmp_path: Path, wrong: str | Exception) -> None:
    async def scene(store: SqliteTasks, delivering: Notices, day: Day, told: list[Notice]) -> None:
        end(store, "a")
        delivering.wake()
        await until(lambda: len(told) == 1)
        await settled(store, 1)
        day.now_s += notices.FIRST_WAIT_S
        delivering.wake()
        await until(lambda: len(told) == 2)
        await settled(store, 0)

    told = play(tmp_path, [wrong], scene)
    assert [(notice.task.id, notice.attempts) for notice in told] == [("a", 1), ("a", 2)]


def test_more_notices_than_at_a_time_are_all_delivered(tmp_path: Path) -> None:
    ids = [f"task {number}" for number in range(notices.AT_A_TIME * 2 + 1)]

    async def scene(store: SqliteTasks, delivering: Notices, day: Day, told: list[Notice]) -> None:
        for task_id in ids:
            end(store, task_id)
        delivering.wake()
        await until(lambda: len(told) == len(ids))

    assert sorted(notice.task.id for notice in play(tmp_path, [], scene)) == sorted(ids)


def test_store_that_fails_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [Unavailable("no disk")]
    working = SqliteTasks.notices

    def fail(self: SqliteTasks, count: int, lease_s: float) -> object:
        if failures:
            raise failures.pop()
        return working(self, count, lease_s)

    monkeypatch.setattr(SqliteTasks, "notices", fail)

    async def scene(store: SqliteTasks, delivering: Notices, day: Day, told: list[Notice]) -> None:
        await until(lambda: not failures)
        end(store, "a")
        delivering.wake()
        await until(lambda: len(told) == 1)

    play(tmp_path, [], scene)
