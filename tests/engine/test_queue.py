import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelport.engine.batcher import BatchPolicy, Wait
from modelport.engine.job import Job
from modelport.engine.queue import JobQueue
from modelport.runtimes.base import Batch
from modelport.stats import ModelStatistics

from .conftest import request


class Line:
    """A queue, and the jobs that were put into it."""

    def __init__(self, policy: BatchPolicy | None = None, most: int = 100) -> None:
        self.statistics = ModelStatistics()
        self.queue = JobQueue(policy or BatchPolicy(4, joins=True), most, self.statistics)

    def enter(self, value: float, expires_ns: int = 0) -> Job | None:
        deployment = cast(Any, SimpleNamespace(name="m"))
        job = Job(deployment, request(value), cast(Any, None), 1, now_ns=0)
        job.expires_ns = expires_ns
        return job if self.queue.enter(job) else None

    def fill(self, count: int) -> list[Job]:
        jobs = [self.enter(value) for value in range(count)]
        assert None not in jobs
        return cast("list[Job]", jobs)

    def cut(self, now_ns: int = 0) -> list[str]:
        batch = self.queue.cut(now_ns)
        assert isinstance(batch, Batch)
        return ids(batch.works)


def ids(jobs: Any) -> list[str]:
    return [job.request.id for job in jobs]


def test_batches_are_cut_in_order_and_jobs_know_where_they_are() -> None:
    line = Line()
    jobs = line.fill(6)
    assert line.statistics.pending == 6
    assert line.cut(now_ns=7) == ["0", "1", "2", "3"]
    assert [job.is_queued for job in jobs] == [False] * 4 + [True] * 2
    assert [job.is_running for job in jobs] == [True] * 4 + [False] * 2
    assert jobs[0].started_ns == 7
    assert line.statistics.pending == 2
    assert line.cut() == ["4", "5"]
    assert line.queue.cut(0) is None
    assert line.statistics.pending == 0


def test_no_more_than_the_bound_may_wait() -> None:
    line = Line(most=2)
    jobs = line.fill(2)
    assert line.enter(2) is None
    assert line.statistics.pending == 2
    assert line.queue.leave(jobs[0])
    assert line.enter(3) is not None
    assert repr(line.queue) == "<JobQueue waiting=2 of 2>"


def test_who_has_left_is_in_no_batch() -> None:
    line = Line()
    jobs = line.fill(3)
    assert line.queue.leave(jobs[1])
    assert not line.queue.leave(jobs[1])
    assert line.statistics.pending == 2
    assert line.cut() == ["0", "2"]
    assert not line.queue.leave(jobs[0]), "it has been taken"
    assert line.statistics.pending == 0


def test_who_has_left_does_not_pile_up() -> None:
    """While all instances are busy nobody cuts, and callers may come and go for ever."""
    line = Line(most=100)
    stays = line.fill(1)[0]
    for value in range(1000):
        job = line.enter(value)
        assert job is not None
        line.queue.leave(job)
        assert len(line.queue.jobs) < 70
    assert line.statistics.pending == 1
    assert line.cut() == ["0"]
    assert stays.is_running


def test_queue_says_when_to_ask_again() -> None:
    line = Line(BatchPolicy(4, max_delay_ns=50, joins=True))
    line.fill(1)
    assert line.queue.cut(10) == Wait(50)
    assert line.statistics.pending == 1
    assert line.cut(50) == ["0"]


def test_who_has_waited_too_long_is_taken_out_wherever_it_stands() -> None:
    line = Line()
    line.enter(0)
    line.enter(1, expires_ns=80)
    line.enter(2, expires_ns=30)
    assert line.queue.earliest_ns == 30
    assert not line.queue.is_overdue(29)
    assert line.queue.is_overdue(30)
    assert line.queue.cut(30) is None, "those come first"
    assert ids(line.queue.overdue(30)) == ["2"]
    assert line.queue.earliest_ns == 80
    assert line.statistics.pending == 2
    assert line.cut(30) == ["0", "1"]
    assert line.queue.earliest_ns == 0


def test_who_has_left_is_not_late() -> None:
    line = Line()
    job = line.enter(0, expires_ns=10)
    assert job is not None
    line.queue.leave(job)
    assert line.queue.overdue(20) == []
    assert line.queue.earliest_ns == 0
    assert line.statistics.pending == 0


def test_everybody_can_be_sent_away() -> None:
    line = Line()
    jobs = line.fill(3)
    line.queue.leave(jobs[0])
    line.queue.clear()
    assert not any(job.is_queued for job in jobs)
    assert line.statistics.pending == 0
    assert line.queue.cut(0) is None


@pytest.mark.parametrize("threads", [4])
def test_threads_share_a_queue_without_losing_anybody(threads: int) -> None:
    line = Line(BatchPolicy(3, joins=True), most=10_000)
    taken: list[list[str]] = [[] for _ in range(threads)]
    is_over = threading.Event()

    def take(mine: list[str]) -> None:
        while True:
            was_over = is_over.is_set()
            batch = line.queue.cut(0)
            if isinstance(batch, Batch):
                mine += ids(batch.works)
            elif was_over:
                return

    workers = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for worker in workers:
        worker.start()
    left = []
    for value in range(2000):
        job = line.enter(value)
        assert job is not None
        if value % 5 == 0 and line.queue.leave(job):
            left.append(str(value))
    is_over.set()
    for worker in workers:
        worker.join(10)
    heard = sorted([*left, *(value for mine in taken for value in mine)], key=float)
    assert heard == [str(value) for value in range(2000)]
    assert line.statistics.pending == 0
