"""The instances of one version: which of them are free, and how they execute a batch.

Where a batch runs is the :class:`~modelport.engine.executor.Placement`'s decision. Whether it runs
alone follows from the model: one whose ``execute`` gives an awaitable takes the next batch while
it still waits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from modelport.clock import Clock
from modelport.engine.executor import (
    Completions,
    InstanceThread,
    Placement,
    Ran,
    are_awaited,
    await_outcomes,
    failure_of,
)
from modelport.engine.readiness import Readiness
from modelport.runtimes.base import Batch, Outcome, RemoteRuntime, Runtime, Work
from modelport.stats import InstanceStatistics

__all__ = ["MAX_CONCURRENT_AWAITABLES", "Instance", "Instances"]

MAX_CONCURRENT_AWAITABLES = 1024
"""Batches that one asynchronous instance may have under way."""


class Instance:
    """A loaded runtime and the thread that it runs on, made when it is first needed.

    Attributes:
        is_async: Whether its batches run beside one another; known from its first one on.
        running: Batches that it has under way.
        remote: The runtime again, if it runs elsewhere.
        statistics: What it has done.
    """

    __slots__ = (
        "done",
        "is_async",
        "name",
        "readiness",
        "remote",
        "running",
        "runtime",
        "statistics",
        "thread",
    )

    def __init__(
        self, owner: "Instances", runtime: Runtime, name: str, readiness: Readiness
    ) -> None:
        self.runtime = runtime
        self.readiness = readiness
        self.name = name
        self.thread: InstanceThread | None = None
        self.is_async = False
        self.running = 0
        self.statistics = InstanceStatistics()
        self.remote = runtime if isinstance(runtime, RemoteRuntime) else None

        def done(batch: Batch, ran: Ran) -> None:
            owner.completed(self, batch, ran)

        self.done = done


class Instances:
    """All instances of one version. Used on the event loop only.

    Args:
        runtimes: Loaded, with the names of their threads.
        placement: Says where they run; is told how long they took.
        completions: The way back from their threads.
        clock: For how long they take.
        completed: Called with a batch, how it went and the statistics of its instance, after that
            has become free.
        freed: Called when an instance turns out to take more than one batch.
        take: Gives a thread its next batch, or ``None`` if that is left to the loop; called on the
            thread.

    Attributes:
        free: Who can take a batch now. Whoever takes one out without ``execute`` puts it back, or
            calls ``executed``.
    """

    def __init__(
        self,
        runtimes: Iterable[tuple[Runtime, str]],
        *,
        placement: Placement,
        completions: Completions,
        clock: Clock,
        completed: Callable[[Batch, Ran, InstanceStatistics], None],
        freed: Callable[[], None],
        take: Callable[[], Batch | None],
    ) -> None:
        self._all = [
            Instance(self, runtime, name, Readiness(runtime, completions, clock))
            for runtime, name in runtimes
        ]
        self.free: list[Instance] = []
        self._placement = placement
        self._completions = completions
        self._clock = clock
        self._now_ns = clock.now_ns
        self._completed = completed
        self._freed = freed
        self._take = take
        self._tasks: set[asyncio.Task[Ran]] = set()
        self._is_closed = False
        for instance in self._all:
            if instance.remote is None:
                self.free.append(instance)
            else:
                self._attach(instance, instance.remote)

    def __repr__(self) -> str:
        return f"<Instances free={len(self.free)}/{len(self._all)}>"

    def are_ready(self) -> bool:
        """Whether every one can still answer."""
        return all(instance.readiness.ask() for instance in self._all)

    def why_not_ready(self) -> str:
        """Say which one cannot answer; "" if all can."""
        for instance in self._all:
            if not instance.readiness.ask():
                return _why_not_ready(instance)
        return ""

    def are_live(self) -> bool:
        """Whether none that runs elsewhere hangs."""
        return all(each.remote is None or each.remote.is_live() for each in self._all)

    def all(self) -> Sequence[Instance]:
        """Every one, in the order of the instance groups."""
        return self._all

    def remotes(self) -> list[tuple[str, RemoteRuntime]]:
        """Those that have a process to themselves, with their names."""
        return [
            (each.name, each.remote)
            for each in self._all
            if each.remote is not None and not each.remote.is_shared
        ]

    @property
    def failure(self) -> str:
        """Why none of them will take a batch for some time; "" if one does."""
        failure = ""
        for instance in self._all:
            if instance.remote is None or not instance.remote.failure:
                return ""
            failure = instance.remote.failure
        return failure

    def are_busy(self) -> bool:
        """Whether any one executes anything."""
        return any(instance.running for instance in self._all)

    # Batches.

    def execute(self, batch: Batch) -> None:
        """Have one of the free instances, of which there must be one, execute a batch."""
        instance = self.free.pop()
        if instance.remote is not None:
            self._start(instance, instance.remote, batch)
            return
        if not self._placement.is_inline:
            self._occupy(instance)
            self._thread_of(instance).execute(batch, instance.done)
            return
        started_ns = self._now_ns()
        outcomes: Any = None
        error: Exception | None = None
        try:
            outcomes = instance.runtime.execute(batch)
        except BaseException as exc:
            # Ctrl-C is a signal to the server, and never raised here: this one is the model's.
            error = failure_of(exc)
        self.executed(instance, batch, Ran(started_ns, self._now_ns(), outcomes, error))

    def executed(self, instance: Instance, batch: Batch, ran: Ran) -> None:
        """Go on from where ``execute`` of a runtime has returned, on the loop.

        Args:
            instance: Taken out of ``free``.
            batch: What it was given.
            ran: How it went; its outcomes may be an awaitable.
        """
        self._occupy(instance)
        outcomes: Any = ran.outcomes
        if are_awaited(outcomes):
            self._await(instance, batch, ran.started_ns, outcomes)
        else:
            self.completed(instance, batch, ran)

    def completed(self, instance: Instance, batch: Batch, ran: Ran) -> None:
        """An instance has come to the end of a batch."""
        if not instance.is_async:
            self._placement.ran(ran.ended_ns - ran.started_ns, ran.ended_ns)
        if not ran.is_kept:
            self._give_back(instance)
        self._completed(batch, ran, instance.statistics)

    async def execute_on_each(
        self, batch_of: Callable[[], Batch], checked: Callable[[str, Batch, Ran], Awaitable[None]]
    ) -> None:
        """Have every instance execute a batch of its own, while there are no requests yet.

        Args:
            batch_of: Makes them.
            checked: Told of each, with the name of its instance; what it raises ends this.
        """
        normally = self._completed
        ran: asyncio.Future[Ran]
        self._completed = lambda _, result, __: ran.set_result(result)
        try:
            for instance in self._all:
                ran = asyncio.get_running_loop().create_future()
                self.free[:] = [instance]
                batch = batch_of()
                self.execute(batch)
                await checked(instance.name, batch, await ran)
        finally:
            self._completed = normally
            self.free.clear()
            for instance in self._all:
                if instance.remote is not None:
                    self._list(instance, instance.remote)
                elif not self._is_closed:
                    self.free.append(instance)

    def _thread_of(self, instance: Instance) -> InstanceThread:
        thread = instance.thread
        if thread is None:
            thread = instance.thread = InstanceThread(
                instance.runtime,
                instance.name,
                self._completions,
                self._clock,
                lambda: self._became_async(instance),
                self._take,
            )
        return thread

    def _await(
        self,
        instance: Instance,
        batch: Batch,
        started_ns: int,
        running: Awaitable[Sequence[Outcome] | None],
    ) -> None:
        """Let a batch run beside everything else on the server's own loop."""

        def finish(task: asyncio.Task[Ran]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                ran = Ran(0, 0, None, failure_of(asyncio.CancelledError()))
            else:
                ran = task.result()
            ran.started_ns, ran.ended_ns = started_ns, self._now_ns()
            self.completed(instance, batch, ran)

        if not instance.is_async:
            self._became_async(instance)
        task = asyncio.get_running_loop().create_task(await_outcomes(running))
        # A loop holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(finish)

    def _became_async(self, instance: Instance) -> None:
        """An instance gave its first awaitable: others may run beside it."""
        self._placement.stay_off_loop()
        instance.is_async = True
        if not self._is_closed:
            self.free.append(instance)
            self._freed()

    def _occupy(self, instance: Instance) -> None:
        instance.running += 1
        if instance.is_async and instance.running < MAX_CONCURRENT_AWAITABLES:
            self.free.append(instance)

    def _give_back(self, instance: Instance) -> None:
        instance.running -= 1
        was_full = not instance.is_async or instance.running == MAX_CONCURRENT_AWAITABLES - 1
        if was_full and not self._is_closed:
            self.free.append(instance)

    # Those that run elsewhere.

    def _attach(self, instance: Instance, remote: RemoteRuntime) -> None:
        def changed() -> None:
            self._list(instance, remote)
            self._freed()

        remote.attach(changed)
        self._list(instance, remote)

    def _start(self, instance: Instance, remote: RemoteRuntime, batch: Batch) -> None:
        instance.running += 1
        self._list(instance, remote)

        def done(
            batch: Batch,
            times: tuple[int, int, int, int],
            outcomes: Sequence[Outcome] | None,
            error: Exception | None,
        ) -> None:
            started_ns, batch.inputs_ready_ns, batch.computed_ns, ended_ns = times
            instance.running -= 1
            self._list(instance, remote)
            ran = Ran(started_ns, ended_ns, outcomes, error)
            self._completed(batch, ran, instance.statistics)

        remote.start(batch, done)

    def _list(self, instance: Instance, remote: RemoteRuntime) -> None:
        """Have it stand among the free as long as it has room."""
        free = self.free
        is_listed = instance in free
        has_room = instance.running < remote.capacity and not self._is_closed
        if has_room and not is_listed:
            # In front: the last one is taken next, and another may have less to do.
            free.insert(0, instance)
        elif is_listed and not has_room:
            free.remove(instance)

    def cancel(self, work: Work) -> None:
        """Tell those that run elsewhere that nobody waits for a request any more."""
        for instance in self._all:
            if instance.remote is not None:
                instance.remote.cancel(work)

    # The end.

    def close(self) -> None:
        """Take no more batches; what is awaited is cancelled, threads end when they can."""
        self._is_closed = True
        self.free.clear()
        for task in self._tasks:
            task.cancel()
        for instance in self._all:
            if instance.thread is not None:
                instance.thread.close()

    async def wait_closed(self) -> None:
        """Wait until no thread is in the models any more; for ever, if a model never returns."""
        for instance in self._all:
            if instance.thread is not None:
                await instance.thread.has_ended.wait()
        # Each of the two knows the other, and the runtime may hold much.
        self._all.clear()


def _why_not_ready(instance: Instance) -> str:
    remote = instance.remote
    if remote is None:
        return f"instance '{instance.name}' says that it is not ready"
    if remote.capacity:
        return f"instance '{instance.name}' is not ready, or its worker process does not answer"
    return remote.failure or f"the worker process of instance '{instance.name}' is started again"
