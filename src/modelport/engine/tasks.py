"""Runs the tasks of a store: claims them, keeps their leases, ends them.

One coroutine claims as many tasks as may run, another renews the leases and hears there of
cancellations and of tasks that other processes have taken over. The store is the truth: a task runs
here only while its lease is ours, and it is over only once the store says so.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelport.engine.notices import Deliver, Notices
from modelport.errors import (
    INTERNAL_ERROR,
    Cancelled,
    InvalidRequest,
    ModelportError,
    NotFound,
    Unavailable,
    WorkerDied,
)
from modelport.progress import reporting_to
from modelport.stores.base import Claim, Content, NewTask, Retry, Task, TaskState, TaskStore

__all__ = ["TaskEndpoint", "TaskOptions", "Tasks", "new_task_id"]

REPORT_S = 0.5
"""How old a report of progress may be when its owner looks."""

COUNT_EVERY_S = 2.0
"""How old the numbers in the metrics may be."""
FINISH_AGAIN_S = 1.0
"""Between two tries to write the end of a task to a disk that is full."""

log = logging.getLogger("modelport.tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How tasks are run. Durations in seconds.

    Attributes:
        lease_s: How long after this process has last been heard of its tasks are taken for
            interrupted.
        poll_s: How often to look for tasks that another process has accepted.
        keep_s: How long tasks that are over, and their results, can be looked at.
    """

    lease_s: float = 15.0
    poll_s: float = 1.0
    keep_s: float = 86_400.0
    prune_every_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEndpoint:
    """What can be done as a task.

    Attributes:
        name: Unique, and the same in every process that shares the store.
        run: Does it, and gives the answer as it would have gone to a caller who waited; an answer
            with a status of 400 and above is a failure. It is cancelled to stop it.
        concurrency: How many run at a time in this process.
        retry: What an interruption means.
        expires_s: Seconds after which a task that was not started fails; 0 for never.
    """

    name: str
    run: Callable[[Claim], Awaitable[Content]]
    concurrency: int = 1
    retry: Retry = Retry.NEVER
    expires_s: float = 0.0


class Tasks:
    """The tasks of this process. On the event loop only.

    Args:
        store: Where they are kept; closed by ``close``.
        options: Durations.
        deliver: Tells webhooks; without it notices stay in the store.
    """

    def __init__(
        self,
        store: TaskStore,
        options: TaskOptions | None = None,
        deliver: Deliver | None = None,
    ) -> None:
        self._store = store
        self._notices = Notices(store, deliver) if deliver is not None else None
        self._options = options or TaskOptions()
        self._endpoints: dict[str, TaskEndpoint] = {}
        self._running: dict[str, _Running] = {}
        self._may_claim = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._counts: Mapping[tuple[str, TaskState], int] = {}

    def __repr__(self) -> str:
        return f"<Tasks running={len(self._running)} endpoints={list(self._endpoints)}>"

    def register(self, endpoint: TaskEndpoint) -> None:
        """Offer an endpoint; what waits for it in the store is run from now on."""
        self._endpoints[endpoint.name] = endpoint
        self._may_claim.set()

    async def open(self) -> None:
        """Take over what an earlier process left, and begin to run tasks."""
        recovered = await asyncio.wrap_future(self._store.recover())
        if recovered:
            log.warning("%d tasks were interrupted by the end of a server, or expired", recovered)
        loop = asyncio.get_running_loop()
        self._loops = [
            loop.create_task(self._repeat(self._renew, min(self._options.lease_s / 5, REPORT_S))),
            loop.create_task(self._repeat(self._claim_next, None)),
            loop.create_task(self._repeat(self._recover, self._options.lease_s / 3)),
            loop.create_task(self._repeat(self._count_all, COUNT_EVERY_S)),
            loop.create_task(self._repeat(self._prune, self._options.prune_every_s)),
        ]
        if self._notices is not None:
            self._notices.open()

    # What owners ask for.

    async def submit(
        self,
        endpoint: str,
        owner: str,
        request: Content,
        *,
        priority: int = 0,
        expires_s: float | None = None,
        idempotency_key: str = "",
        webhook: str = "",
    ) -> Task:
        """Accept a task; when this returns it is on disk.

        The file of a request is the store's from here on, whatever comes of this call.

        Raises:
            NotFound: There is no such endpoint.
            Overloaded: Too many tasks wait.
            Conflict: The idempotency key came with another request before.
            Unavailable: The server is going down, or its disk is full.
        """
        try:
            row = self._endpoint(endpoint)
        except ModelportError:
            if request.file is not None:
                request.file.unlink(missing_ok=True)
            raise
        new = NewTask(
            id=new_task_id(),
            owner=owner,
            endpoint=endpoint,
            request=request,
            priority=priority,
            retry=row.retry,
            expires_s=row.expires_s if expires_s is None else expires_s,
            idempotency_key=idempotency_key,
            webhook=webhook,
        )
        task = await asyncio.wrap_future(self._store.submit(new))
        self._may_claim.set()
        return task

    def _endpoint(self, name: str) -> TaskEndpoint:
        row = self._endpoints.get(name)
        if row is None:
            raise NotFound(f"no task is called '{name}'")
        if self._is_closing:
            raise Unavailable("the server is going down and takes no more tasks")
        return row

    def new_file(self) -> Path:
        """Give a place for a body that is too large for memory.

        Whoever writes it gives it on, as a request or an answer, or deletes it.

        Raises:
            Unavailable: There is no room on the disk.
        """
        return self._store.new_file()

    async def get(self, owner: str, task_id: str) -> Task:
        """Look at a task.

        Raises:
            NotFound: There is none, or it is somebody else's.
        """
        return await asyncio.wrap_future(self._store.get(owner, task_id))

    async def result(self, owner: str, task_id: str) -> tuple[Task, Content | None]:
        """Look at a task and its answer, ``None`` if it has none (yet)."""
        return await asyncio.wrap_future(self._store.result(owner, task_id))

    async def list(
        self,
        owner: str,
        *,
        endpoint: str | None = None,
        states: Sequence[TaskState] = (),
        limit: int = 100,
        before: str | None = None,
    ) -> list[Task]:
        """List tasks, the newest first."""
        listed = self._store.owned(
            owner, endpoint=endpoint, states=states, limit=limit, before=before
        )
        return await asyncio.wrap_future(listed)

    async def cancel(self, owner: str, task_id: str) -> Task:
        """Stop a task. A running one of this process is told at once, another's soon."""
        task = await asyncio.wrap_future(self._store.cancel(owner, task_id))
        self._look_for_notices()
        running = self._running.get(task_id)
        if running is not None and task.cancel_requested:
            running.cancel()
        return task

    async def retry(self, owner: str, task_id: str) -> Task:
        """Ask again what a task that is over has asked, as a new task with its webhook.

        Raises:
            NotFound: There is none, or it is somebody else's.
            InvalidRequest: It is not over yet.
        """
        task = await self.get(owner, task_id)
        if not task.state.is_over:
            raise InvalidRequest(f"task {task_id} is not completed yet")
        task, request = await asyncio.wrap_future(self._store.request(owner, task_id))
        return await self.submit(
            task.endpoint, owner, request, priority=task.priority, webhook=task.webhook
        )

    def counts(self) -> Mapping[tuple[str, TaskState], int]:
        """How many there were a moment ago, by endpoint and state; of endpoints here also none."""
        return {(name, TaskState.QUEUED): 0 for name in self._endpoints} | dict(self._counts)

    # Running them.

    async def _claim_next(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.poll_s):
                await self._may_claim.wait()
        self._may_claim.clear()
        free = {
            endpoint.name: endpoint.concurrency - self._count(endpoint.name)
            for endpoint in self._endpoints.values()
        }
        free = {name: count for name, count in free.items() if count > 0}
        if not free or self._is_closing:
            return
        # Not to be cut off: what is claimed must be run.
        claiming = asyncio.ensure_future(
            asyncio.wrap_future(self._store.claim(free, self._options.lease_s))
        )
        try:
            claims = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claims = await claiming
            await self._give_back([claim.task.id for claim in claims])
            raise
        for claim in claims:
            self._start(claim)

    def _count(self, endpoint: str) -> int:
        return sum(
            running.claim.task.endpoint == endpoint and not running.is_ending
            for running in self._running.values()
        )

    def _start(self, claim: Claim) -> None:
        running = _Running(claim, self._endpoints[claim.task.endpoint])
        self._running[claim.task.id] = running
        running.begin(self._run(running))

    async def _run(self, running: "_Running") -> None:
        task_id = running.claim.task.id
        state, result, reason = TaskState.FAILED, None, ""
        is_interrupted = False
        try:
            with reporting_to(running.report):
                result = await running.endpoint.run(running.claim)
            state = TaskState.COMPLETED if result.status < 400 else TaskState.FAILED
            if state is TaskState.FAILED:
                reason = f"it answered with status {result.status}"
        except asyncio.CancelledError:
            if running.is_cancelled:
                state, reason = TaskState.CANCELED, "canceled while it was running"
            else:
                reason = "its own code cancelled it"
        except WorkerDied as exc:
            is_interrupted, reason = True, exc.text
        except ModelportError as exc:
            reason = exc.text
        except Exception:
            log.exception("task %s of %s failed", task_id, running.endpoint.name)
            reason = INTERNAL_ERROR
        # Nobody stops it any more, but its lease is renewed still: a large result takes a while.
        running.is_ending = True
        self._may_claim.set()
        try:
            if is_interrupted:
                await self._give_back([task_id], reason)
            elif not running.is_dropped:
                await self._finish(task_id, state, result, reason)
        finally:
            del self._running[task_id]
        if is_interrupted:
            self._may_claim.set()
            self._look_for_notices()

    async def _finish(
        self, task_id: str, state: TaskState, result: Content | None, reason: str
    ) -> None:
        """Write the end of a task; where that fails, try again for the time of a lease."""
        until_s = asyncio.get_running_loop().time() + self._options.lease_s
        while True:
            try:
                finishing = asyncio.wrap_future(self._store.finish(task_id, state, result, reason))
                if not await asyncio.shield(finishing):
                    log.warning("task %s is another server's by now; its result is lost", task_id)
                self._look_for_notices()
                return
            except Unavailable:
                if result is not None:
                    # There is no room for the result, but there may be for its end.
                    state, result = TaskState.FAILED, None
                    reason = "its result could not be kept: the server's disk is full or broken"
                    continue
                log.exception("the end of task %s could not be written", task_id)
            if self._is_closing or asyncio.get_running_loop().time() > until_s:
                # What becomes of it now is for its author's policy to say.
                return
            await asyncio.sleep(FINISH_AGAIN_S)

    async def _renew(self) -> None:
        progress = {task_id: running.take_report() for task_id, running in self._running.items()}
        if not progress:
            return
        beat = await asyncio.wrap_future(self._store.heartbeat(progress, self._options.lease_s))
        for task_id in beat.cancelled:
            if task_id in self._running:
                self._running[task_id].cancel()
        for task_id in beat.lost:
            running = self._running.get(task_id)
            if running is not None:
                log.warning("task %s is another server's by now: its lease ran out", task_id)
                running.drop()

    async def _recover(self) -> None:
        if await asyncio.wrap_future(self._store.recover()):
            self._may_claim.set()
            self._look_for_notices()

    async def _count_all(self) -> None:
        self._counts = await asyncio.wrap_future(self._store.counts())

    async def _prune(self) -> None:
        await asyncio.wrap_future(self._store.prune(self._options.keep_s))

    def _look_for_notices(self) -> None:
        if self._notices is not None:
            self._notices.wake()

    async def _repeat(self, step: Callable[[], Awaitable[None]], every_s: float | None) -> None:
        while True:
            try:
                await step()
            except Exception:
                log.exception("the store of tasks failed; trying again")
                await asyncio.sleep(1.0)
            if every_s is not None:
                await asyncio.sleep(every_s)

    # The end.

    async def close(self, grace_s: float = 0.0) -> None:
        """Let what runs end for so long, give the rest back as interrupted, close the store.

        Idempotent.
        """
        if self._is_closing:
            return
        self._is_closing = True
        # The leases are renewed to the last.
        renewing, others = self._loops[:1], self._loops[1:]
        await _cancelled(others)
        if self._running and grace_s > 0:
            await asyncio.wait([one.task for one in self._running.values()], timeout=grace_s)
        left = list(self._running.values())
        for running in left:
            running.drop()
        await asyncio.gather(*(running.task for running in left), return_exceptions=True)
        await _cancelled(renewing)
        await self._give_back([running.claim.task.id for running in left])
        if self._notices is not None:
            await self._notices.close()
        await asyncio.to_thread(self._store.close)

    async def _give_back(
        self,
        task_ids: Sequence[str],
        reason: str = "the server was stopped while it was running",
    ) -> None:
        if task_ids:
            await asyncio.wrap_future(self._store.give_back(task_ids, reason))


class _Running:
    """A task that runs here.

    ``is_cancelled``: its owner wants it to stop. ``is_dropped``: it is not ours any more.
    ``is_ending``: its work is over, and the end is being written.
    """

    task: asyncio.Task[None]

    def __init__(self, claim: Claim, endpoint: TaskEndpoint) -> None:
        self.claim = claim
        self.endpoint = endpoint
        self.is_cancelled = False
        self.is_dropped = False
        self.is_ending = False
        self.report = _Report()

    def take_report(self) -> tuple[float | None, str] | None:
        last, self.report.last = self.report.last, None
        return last

    def begin(self, running: Coroutine[Any, Any, None]) -> None:
        self.task = asyncio.get_running_loop().create_task(running)

    def cancel(self) -> None:
        if not self.is_cancelled:
            self.is_cancelled = True
            self._stop()

    def drop(self) -> None:
        self.is_dropped = True
        self._stop()

    def _stop(self) -> None:
        # What awaits is cancelled; what runs on a thread looks here.
        if not self.is_ending:
            self.report.is_cancelled = True
            self.task.cancel()


class _Report:
    """What a task has said last, and whether it should stop. Used by any thread."""

    is_cancelled = False
    last: tuple[float | None, str] | None = None

    def __call__(self, fraction: float | None, text: str) -> None:
        if self.is_cancelled:
            raise Cancelled("the task was cancelled")
        self.last = (fraction, text)


def new_task_id() -> str:
    """Make an id: 32 hexadecimal digits, not to be guessed."""
    return secrets.token_hex(16)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
