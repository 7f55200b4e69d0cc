"""The requests that wait for an instance of one version, in the order in which they came.

The event loop puts them in; batches are cut off by the loop and by the threads of the instances,
which go on with the next batch while the answers to the last are still being written. So this is
what they share, and everything here may be called from any thread.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from modelport.engine.batcher import BatchPolicy, Cut, Queued, Wait, decide
from modelport.engine.job import Job
from modelport.runtimes.base import Batch
from modelport.stats import ModelStatistics

__all__ = ["JobQueue"]

Decide = Callable[[Sequence[Queued], BatchPolicy, int], Cut | Wait]

_MOST_GONE = 32
"""Jobs that have left from the middle before it is worth the while to close the gaps."""


class JobQueue:
    """A bounded queue that is cut into batches.

    A job that leaves from the middle stays in place until it is swept out, so that leaving needs
    no search: its ``is_queued`` is what counts.

    Args:
        policy: How batches are cut.
        most: Jobs that may wait.
        statistics: Whose ``pending`` is kept up to date.
        decide: Says how much to take, from the jobs, the policy and the time.

    Attributes:
        jobs: To be looked at only; the same object for ever. Empty means that nobody waits.
        earliest_ns: When the first of the jobs may wait no longer; 0 for never.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        most: int,
        statistics: ModelStatistics,
        *,
        decide: Decide = decide,
    ) -> None:
        self.jobs: deque[Job] = deque()
        self.earliest_ns = 0
        self._policy = policy
        self._decide = decide
        self._most = most
        self._statistics = statistics
        self._gone = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<JobQueue waiting={len(self.jobs) - self._gone} of {self._most}>"

    def most_like(self, job: Job) -> int:
        """Say how many jobs such as this one may wait."""
        return self._most

    def enter(self, job: Job) -> bool:
        """Put a job at the end. Returns whether there was room."""
        with self._lock:
            jobs = self.jobs
            if len(jobs) - self._gone >= self._most:
                return False
            job.is_queued = True
            jobs.append(job)
            self._statistics.pending += 1
            if job.expires_ns and (not self.earliest_ns or job.expires_ns < self.earliest_ns):
                self.earliest_ns = job.expires_ns
        return True

    def leave(self, job: Job) -> bool:
        """Take a job out, wherever it stands. Returns whether it still waited."""
        with self._lock:
            if not job.is_queued:
                return False
            job.is_queued = False
            self._statistics.pending -= 1
            self._gone += 1
            # A caller's cancelled requests must not pile up while all instances are busy.
            if self._gone >= _MOST_GONE and self._gone * 2 >= len(self.jobs):
                self._sweep()
        return True

    def cut(self, now_ns: int) -> Batch | Wait | None:
        """Take the next batch off, if it is time for it.

        Returns:
            ``None`` if nobody waits, and also while somebody has waited too long: then ``overdue``
            comes first.
        """
        with self._lock:
            if self._gone:
                self._sweep()
            jobs = self.jobs
            if not jobs or self.is_overdue(now_ns):
                return None
            decision = self._decide(jobs, self._policy, now_ns)
            if isinstance(decision, Wait):
                return decision
            taken = [jobs.popleft() for _ in range(decision.count)]
            for job in taken:
                job.is_queued = False
                job.is_running = True
                job.started_ns = now_ns
            self._statistics.pending -= decision.count
            if not jobs:
                self.earliest_ns = 0
        return Batch(taken, decision.rows)

    def is_overdue(self, now_ns: int) -> bool:
        """Whether somebody may have waited too long."""
        return self.earliest_ns != 0 and now_ns >= self.earliest_ns

    def overdue(self, now_ns: int) -> list[Job]:
        """Take out those that have waited too long."""
        with self._lock:
            late = self._late(now_ns)
            for job in late:
                job.is_queued = False
            self._statistics.pending -= len(late)
            self._sweep()
            self.earliest_ns = min(
                (job.expires_ns for job in self.jobs if job.expires_ns), default=0
            )
        return late

    def _late(self, now_ns: int) -> list[Job]:
        return [
            job
            for job in self.jobs
            if job.is_queued and job.expires_ns and now_ns >= job.expires_ns
        ]

    def clear(self) -> None:
        """Take everybody out."""
        with self._lock:
            for job in self.jobs:
                job.is_queued = False
            self._statistics.pending -= len(self.jobs) - self._gone
            self.jobs.clear()
            self._gone = 0
            self.earliest_ns = 0

    def _sweep(self) -> None:
        waiting = [job for job in self.jobs if job.is_queued]
        self.jobs.clear()
        self.jobs.extend(waiting)
        self._gone = 0
