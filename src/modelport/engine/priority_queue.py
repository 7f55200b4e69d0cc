"""A queue in which some go before others.

Sorted at all times by level, and within a level those that have waited too long and were told to
step back come last; among equals the order is that of their coming. So batches are cut from the
front as ever: a batch takes the highest levels first and fills up with the next ones.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

from modelport.engine.batcher import BatchPolicy, Wait, decide_among_levels
from modelport.engine.job import Job
from modelport.engine.queue import JobQueue
from modelport.engine.queue_policy import QueuePolicies
from modelport.runtimes.base import Batch
from modelport.stats import ModelStatistics

__all__ = ["PriorityQueue", "queue_of"]


def queue_of(
    policy: BatchPolicy, policies: QueuePolicies, most: int, statistics: ModelStatistics
) -> JobQueue:
    """Make the queue that a model needs: for nearly all it is the simple one."""
    if policies.is_ordered:
        return PriorityQueue(policy, policies, most, statistics)
    return JobQueue(policy, policies.default.most or most, statistics)


class PriorityQueue(JobQueue):
    """A bounded queue with levels.

    Args:
        policy: How batches are cut.
        policies: What holds for each level.
        most: Jobs that may wait in those levels together that have no bound of their own.
        statistics: Whose ``pending`` is kept up to date.
    """

    def __init__(
        self, policy: BatchPolicy, policies: QueuePolicies, most: int, statistics: ModelStatistics
    ) -> None:
        super().__init__(policy, most, statistics, decide=decide_among_levels)
        self._policies = policies
        # Who waits, by level; those that share a bound stand under ``None``.
        self._waiting: Counter[int | None] = Counter()

    def most_like(self, job: Job) -> int:
        """Say how many jobs of its level may wait, or of those levels that share its bound."""
        return self._policies.limits_of(job.level).most or self._most

    def enter(self, job: Job) -> bool:
        """Put a job behind those that go before it. Returns whether there was room."""
        share = self._share(job)
        with self._lock:
            if self._waiting[share] >= self.most_like(job):
                return False
            self._waiting[share] += 1
            job.is_queued = True
            self.jobs.insert(bisect_right(self.jobs, _place(job), key=_place), job)
            self._statistics.pending += 1
            if job.expires_ns and (not self.earliest_ns or job.expires_ns < self.earliest_ns):
                self.earliest_ns = job.expires_ns
        return True

    def leave(self, job: Job) -> bool:
        """Take a job out, wherever it stands. Returns whether it still waited."""
        has_left = super().leave(job)
        if has_left:
            self._release([job])
        return has_left

    def cut(self, now_ns: int) -> Batch | Wait | None:
        """Take the next batch off the front, if it is time for it."""
        cut = super().cut(now_ns)
        if isinstance(cut, Batch):
            self._release(job for job in cut.works if isinstance(job, Job))
        return cut

    def overdue(self, now_ns: int) -> list[Job]:
        """Take out those that have waited too long; those that are only delayed step back."""
        with self._lock:
            late = self._late(now_ns)
            refused = []
            for job in late:
                job.expires_ns = 0
                if self._policies.limits_of(job.level).delays:
                    job.is_delayed = True
                else:
                    job.is_queued = False
                    refused.append(job)
            self._statistics.pending -= len(refused)
            # Late ones behind those that were late before them.
            gone = set(late)
            others = [job for job in self.jobs if job.is_queued and job not in gone]
            delayed = [job for job in late if job.is_queued]
            self.jobs.clear()
            self.jobs.extend(sorted((*others, *delayed), key=_place))
            self._gone = 0
            self.earliest_ns = min((job.expires_ns for job in others if job.expires_ns), default=0)
        self._release(refused)
        return refused

    def clear(self) -> None:
        """Take everybody out."""
        super().clear()
        with self._lock:
            self._waiting.clear()

    def _share(self, job: Job) -> int | None:
        return job.level if self._policies.limits_of(job.level).most else None

    def _release(self, jobs: Iterable[Job]) -> None:
        with self._lock:
            for job in jobs:
                self._waiting[self._share(job)] -= 1


def _place(job: Job) -> tuple[int, bool]:
    return job.level, job.is_delayed
