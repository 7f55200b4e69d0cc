"""What must survive a restart, as ports. One implementation each, and one contract suite for all.

A task is one call of an endpoint that is made later. ``submit`` returning means that the task is on
disk; from there on it ends in exactly one of three states, whatever happens to the process.

::

    queued ──claim──▶ running ──finish──▶ completed | failed | canceled
      ▲                  │
      └── interrupted ───┘   ``Retry.ON_INTERRUPT``; ``Retry.NEVER`` fails instead

Several processes may share a store. Who claims a task gets a lease and renews it; a lease that has
run out belongs to nobody, and its task has been interrupted.

Who wants to hear of the end of a task names a webhook. The notice of it is written with the end
itself, so one cannot be without the other; it is handed out, under a lease likewise, until somebody
says that it has arrived.
"""

import enum
import errno
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modelport.errors import Unavailable

__all__ = [
    "Claim",
    "Content",
    "Heartbeat",
    "NewTask",
    "Notice",
    "Retry",
    "Task",
    "TaskState",
    "TaskStore",
    "unwritable",
    "unwritable_by",
]

Headers = Sequence[tuple[str, str]]


class TaskState(enum.StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self not in (TaskState.QUEUED, TaskState.RUNNING)


class Retry(enum.StrEnum):
    """What an interruption means: the process that ran a task ended before the task did."""

    NEVER = "never"
    """The task is started at most once, and fails with the reason."""
    ON_INTERRUPT = "on_interrupt"
    """The task is run again: at least once, until it ends or has been tried too often."""


@dataclass(frozen=True, slots=True)
class Content:
    """A request or its answer, as it goes over the wire.

    Attributes:
        headers: Those that matter to who reads the body.
        body: Whole; empty if it lies in a file.
        status: Of an answer; 0 for a request.
        file: Where the body lies, if it is too large to be held in memory.
    """

    headers: Headers = ()
    body: bytes = b""
    status: int = 0
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What somebody wants done.

    Attributes:
        id: Unique, and not to be guessed.
        owner: The principal that asks; only this one sees the task again.
        endpoint: Who does it.
        request: What is asked.
        priority: Lower ones go first; equal ones in the order in which they came.
        retry: What an interruption means.
        most_attempts: Starts after which an interrupted task fails.
        expires_s: Seconds after which a task that has not been started fails; 0 for never.
        idempotency_key: A second task of the same owner and endpoint with it is the first one;
            "" for none.
        webhook: URL that is told when the task is over; "" for none.
    """

    id: str
    owner: str
    endpoint: str
    request: Content
    priority: int = 0
    retry: Retry = Retry.NEVER
    most_attempts: int = 3
    expires_s: float = 0.0
    idempotency_key: str = ""
    webhook: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is known of a task. Times are seconds since 1970, UTC; 0 for "not yet".

    Attributes:
        attempts: How often it was started.
        progress: From 0 to 1, if its author reports it; ``None`` otherwise.
        progress_text: What its author said last.
        reason: Why it failed or was canceled, in words for its owner; "" otherwise.
        cancel_requested: Whether its owner wants it to stop.
        webhook: URL that is told when it is over; "" for none.
    """

    id: str
    owner: str
    endpoint: str
    state: TaskState
    priority: int = 0
    retry: Retry = Retry.NEVER
    created_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    attempts: int = 0
    progress: float | None = None
    progress_text: str = ""
    reason: str = ""
    cancel_requested: bool = False
    webhook: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that this process has to run now, and what it asks."""

    task: Task
    request: Content


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a process learns when it renews its leases.

    Attributes:
        cancelled: Ids of tasks that their owners want to stop.
        lost: Ids of tasks that are not this process's any more: it must not finish them.
    """

    cancelled: frozenset[str] = field(default_factory=frozenset)
    lost: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Notice:
    """That a task is over, for a webhook.

    Attributes:
        id: The same each time the notice is handed out.
        url: Of the webhook.
        task: That is over.
        attempts: How often it was handed out, this time included.
    """

    id: int
    url: str
    task: Task
    attempts: int


class TaskStore(Protocol):
    """Keeps tasks. Every method may be called from any thread, and none waits for the disk.

    What a method promises holds when its future is done: written tasks are on disk then, with
    their bodies. Futures fail with a :class:`~modelport.errors.ModelportError`; with
    :class:`~modelport.errors.Unavailable` where the disk is full or broken, and nothing of what was
    asked has happened then.
    """

    def new_file(self) -> Path:
        """Give a place for a body that is too large for memory.

        Whoever writes it gives it to ``submit`` or ``finish``, who then own it whatever comes of
        the call, or deletes it. What a crash leaves is deleted by a later ``recover``.

        Raises:
            Unavailable: There is no room on the disk.
        """
        ...

    def submit(self, task: NewTask) -> "Future[Task]":
        """Accept a task; the one of before, if its idempotency key is known.

        Raises:
            Overloaded: As many wait as may wait, of all owners or of this one, or as much is kept
                as may be.
            Conflict: The idempotency key came with another request before.
            Unavailable: There is no room on the disk.
        """
        ...

    def claim(self, endpoints: Mapping[str, int], lease_s: float) -> "Future[list[Claim]]":
        """Take tasks to run, at most as many of each endpoint as it says. They are started."""
        ...

    def heartbeat(
        self, progress: Mapping[str, tuple[float | None, str] | None], lease_s: float
    ) -> "Future[Heartbeat]":
        """Renew the leases on the tasks with these ids, and note how far they have come."""
        ...

    def finish(
        self, task_id: str, state: TaskState, result: Content | None, reason: str = ""
    ) -> "Future[bool]":
        """End a task that this process has claimed.

        Returns:
            Whether it was still this process's; if not, nothing has changed.
        """
        ...

    def give_back(self, task_ids: Sequence[str], reason: str) -> "Future[None]":
        """This process ends before these tasks do: they have been interrupted, now."""
        ...

    def recover(self) -> "Future[int]":
        """Deal with what processes that have gone left, and with tasks that waited too long.

        Returns:
            How many tasks have changed.
        """
        ...

    def get(self, owner: str, task_id: str) -> "Future[Task]":
        """Look at a task.

        Raises:
            NotFound: There is none, or it is somebody else's.
        """
        ...

    def result(self, owner: str, task_id: str) -> "Future[tuple[Task, Content | None]]":
        """Look at a task and its answer; ``None`` if it has none (yet)."""
        ...

    def request(self, owner: str, task_id: str) -> "Future[tuple[Task, Content]]":
        """Look at a task and what it asked, to ask it again.

        A body in a file has a name of its own there, as if it had been written to ``new_file``.
        """
        ...

    def owned(
        self,
        owner: str,
        *,
        endpoint: str | None = None,
        states: Sequence[TaskState] = (),
        limit: int = 100,
        before: str | None = None,
    ) -> "Future[list[Task]]":
        """List the tasks of one owner, the newest first.

        Args:
            owner: Whose.
            endpoint: Only of this one.
            states: Only in one of these; all if empty.
            limit: From 1 to 1000.
            before: Only those older than the task with this id, for the next page.
        """
        ...

    def cancel(self, owner: str, task_id: str) -> "Future[Task]":
        """Stop a task: a queued one is canceled by this, a running one is told by its process.

        Nothing happens to one that is over.
        """
        ...

    def notices(self, count: int, lease_s: float) -> "Future[list[Notice]]":
        """Take notices that are due; nobody else is given them before the lease has run out."""
        ...

    def settle(self, notice_id: int, again_in_s: float | None) -> "Future[None]":
        """Forget a notice (``None``), or have it be due again after so many seconds."""
        ...

    def counts(self) -> "Future[Mapping[tuple[str, TaskState], int]]":
        """How many there are, by endpoint and state, of all owners."""
        ...

    def prune(self, older_than_s: float) -> "Future[int]":
        """Forget tasks that have been over for so many seconds, with their bodies and notices.

        Returns:
            How many.
        """
        ...

    def close(self) -> None:
        """Finish what was asked for, and let go of the store. Idempotent."""
        ...


def unwritable(*, is_full: bool) -> Unavailable:
    """Make the error for a disk that takes nothing."""
    what = "the server's disk is full" if is_full else "the server cannot write to its disk now"
    return Unavailable(f"{what}, so nothing was accepted; try again later")


def unwritable_by(exc: OSError) -> Unavailable:
    """The same, of what the system said."""
    return unwritable(is_full=exc.errno in (errno.ENOSPC, errno.EDQUOT))
