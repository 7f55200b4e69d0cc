"""What must survive a restart, as ports. One implementation each, and one contract suite for all.

A task is one call of an endpoint that is made later. ``submit`` returning means that the task is on
disk; from there on it ends in exactly one of three states, whatever happens to the process.

::

    queued ──claim──▶ running ──finish──▶ completed | failed | canceled
      ▲                  │
      └── interrupted ───┘   ``Retry.ON_INTERRUPT``; ``Retry.NEVER`` fails instead

Several processes may share a store. Who claims a task gets a lease and renews it; a lease that has
run out belongs to nobody, and its task has been interrupted.
"""

import enum
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "Claim",
    "Content",
    "Heartbeat",
    "NewTask",
    "Retry",
    "Task",
    "TaskState",
    "TaskStore",
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
        body: Whole.
        status: Of an answer; 0 for a request.
    """

    headers: Headers = ()
    body: bytes = b""
    status: int = 0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is known of a task. Times are seconds since 1970, UTC; 0 for "not yet".

    Attributes:
        attempts: How often it was started.
        progress: From 0 to 1, if its author reports it; ``None`` otherwise.
        progress_text: What its author said last.
        reason: Why it failed or was canceled, in words for its owner; "" otherwise.
        cancel_requested: Whether its owner wants it to stop.
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


class TaskStore(Protocol):
    """Keeps tasks. Every method may be called from any thread, and none blocks.

    What a method promises holds when its future is done: written tasks are on disk then. Futures
    fail with a :class:`~modelport.errors.ModelportError`, or with what the disk said.
    """

    def submit(self, task: NewTask) -> "Future[Task]":
        """Accept a task; the one of before, if its idempotency key is known.

        Raises:
            Overloaded: As many wait as may wait.
            Conflict: The idempotency key came with another request before.
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
        """Deal with tasks whose process has gone, and with those that waited too long.

        Returns:
            How many have changed.
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
        """Look at a task and what it asked, to ask it again."""
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

    def counts(self) -> "Future[Mapping[tuple[str, TaskState], int]]":
        """How many there are, by endpoint and state, of all owners."""
        ...

    def prune(self, older_than_s: float) -> "Future[int]":
        """Forget tasks that have been over for so many seconds. Returns how many."""
        ...

    def close(self) -> None:
        """Finish what was asked for, and let go of the store. Idempotent."""
        ...
