"""Where batches run: on the event loop, or each instance on a thread of its own.

What it costs, measured: ``run_in_executor`` 13 µs a call, the queue and the coalesced wake-up here
about 2 µs. A hop to a thread and back still takes 20 to 40 µs when nothing else goes on, which is
why models that are quicker than that run on the loop (see :class:`Placement`).
"""

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from queue import SimpleQueue
from typing import Any, cast

from modelport.clock import Clock
from modelport.runtimes.base import Batch, Outcome, Runtime
from modelport.specs import Execution

__all__ = [
    "SLOW_NS",
    "Completions",
    "Execute",
    "InstanceThread",
    "Placement",
    "Ran",
    "new_event_loop",
    "start_on_loop",
]

FAST_NS = 100_000
"""A run below this is cheaper on the loop than a hop to a thread and back."""
SLOW_NS = 1_000_000
"""A run above this is felt by every other connection."""
FAST_RUNS = 32
"""Fast runs in a row before a model is trusted on the loop."""


class Ran:
    """How an execution went: outcomes, or the exception, and when it began and ended.

    ``is_kept`` says that the instance has gone on with another batch already.
    """

    __slots__ = ("ended_ns", "error", "is_kept", "outcomes", "started_ns")

    def __init__(
        self,
        started_ns: int,
        ended_ns: int,
        outcomes: Sequence[Outcome] | None,
        error: Exception | None,
    ) -> None:
        self.started_ns = started_ns
        self.ended_ns = ended_ns
        self.outcomes = outcomes
        self.error = error
        self.is_kept = False


Done = Callable[[Batch, Ran], None]
Execute = Callable[[Batch, Done], None]


class Completions:
    """The way from any thread to the event loop, with one wake-up for many messages."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._messages: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_scheduled = False
        self.thread_id = threading.get_ident()

    def post(self, call: Callable[..., object], *args: object) -> None:
        """Have ``call(*args)`` run on the loop, after all that was posted before."""
        self._messages.append((call, args))
        if not self._is_scheduled:
            self._is_scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                # The loop is closed: the server has gone, and with it whoever waited.
                self._messages.clear()

    def _drain(self) -> None:
        # First the flag, then the messages: who posts meanwhile schedules once too often, never
        # once too seldom.
        self._is_scheduled = False
        messages = self._messages
        for _ in range(len(messages)):
            call, args = messages.popleft()
            call(*args)


class InstanceThread:
    """A thread that executes the batches of one instance, one after another.

    When it has executed one it asks for the next by itself (``take``): the answers to the first
    are written by the server's loop meanwhile, and the instance does not wait for that.

    The first ``execute`` that gives an awaitable turns it into a thread that runs an event loop;
    from then on batches run beside one another.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        completions: Completions,
        clock: Clock,
        became_async: Callable[[], None],
        take: Callable[[], Batch | None],
    ) -> None:
        self._runtime = runtime
        self._became_async = became_async
        self._take = take
        self._completions = completions
        self._now_ns = clock.now_ns
        self._queue: SimpleQueue[tuple[Batch, Done] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def execute(self, batch: Batch, done: Done) -> None:
        """Run a batch; ``done`` is called on the server's loop."""
        if self._loop is None:
            self._queue.put((batch, done))
        else:
            self._loop.call_soon_threadsafe(self._start, batch, done)

    def close(self) -> None:
        """Let the thread end once it has done what it was given."""
        self._queue.put(None)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            batch: Batch | None = item[0]
            done = item[1]
            while batch is not None:
                started_ns = self._now_ns()
                outcomes: Any = None
                error: Exception | None = None
                try:
                    outcomes = self._runtime.execute(batch)
                except Exception as exc:
                    error = exc
                if inspect.isawaitable(outcomes):
                    self._run_loop(outcomes, batch, done, started_ns)
                    return
                ran = Ran(started_ns, self._now_ns(), outcomes, error)
                following = self._take()
                ran.is_kept = following is not None
                self._completions.post(done, batch, ran)
                batch = following
            # Else the last batch lives until the next one has come.
            del item, batch, done, outcomes, error, ran

    def _run_loop(
        self,
        first: Awaitable[Sequence[Outcome] | None],
        batch: Batch,
        done: Done,
        started_ns: int,
    ) -> None:
        loop = new_event_loop()
        asyncio.set_event_loop(loop)
        tasks: set[asyncio.Task[None]] = set()
        self._tasks = tasks
        self._keep(loop.create_task(self._finish(first, batch, done, started_ns)))
        self._loop = loop
        self._completions.post(self._became_async)
        # What was queued before the loop was there.
        while not self._queue.empty():
            item = self._queue.get()
            if item is None:
                loop.call_soon(loop.stop)
            else:
                loop.call_soon(self._start, *item)
        try:
            loop.run_forever()
            if tasks:
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            loop.close()

    def _start(self, batch: Batch, done: Done) -> None:
        started_ns = self._now_ns()
        try:
            outcomes = self._runtime.execute(batch)
        except Exception as exc:
            self._post(done, batch, started_ns, None, exc)
            return
        if inspect.isawaitable(outcomes):
            loop = cast(asyncio.AbstractEventLoop, self._loop)
            self._keep(loop.create_task(self._finish(outcomes, batch, done, started_ns)))
        else:
            self._post(done, batch, started_ns, outcomes, None)

    def _keep(self, task: asyncio.Task[None]) -> None:
        # A loop holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(
        self,
        running: Awaitable[Sequence[Outcome] | None],
        batch: Batch,
        done: Done,
        started_ns: int,
    ) -> None:
        try:
            outcomes = await running
        except Exception as exc:
            self._post(done, batch, started_ns, None, exc)
        else:
            self._post(done, batch, started_ns, outcomes, None)

    def _post(
        self,
        done: Done,
        batch: Batch,
        started_ns: int,
        outcomes: Sequence[Outcome] | None,
        error: Exception | None,
    ) -> None:
        ran = Ran(started_ns, self._now_ns(), outcomes, error)
        self._completions.post(done, batch, ran)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make the fastest loop there is on this platform."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())


async def await_outcomes(running: Awaitable[Sequence[Outcome] | None]) -> Sequence[Outcome] | None:
    """Turn any awaitable into a coroutine, which is what tasks are made of."""
    return await running


class Placement:
    """Decides from measured runs whether a model may run on the event loop.

    ``auto`` starts on the thread and comes to the loop after ``FAST_RUNS`` fast runs. One slow run
    sends it back, and it must then prove itself for 32 times as long as before: a model that is
    slow now and then blocks the loop ever more seldom, and one hiccup of the machine does not
    banish a fast model for good.
    """

    def __init__(self, execution: Execution) -> None:
        self._is_auto = execution == "auto"
        self.is_inline = execution == "inline"
        self._needed = FAST_RUNS
        self._fast = 0

    def ran(self, duration_ns: int) -> None:
        """Take note of how long a run took."""
        if not self._is_auto:
            return
        if duration_ns > SLOW_NS:
            if self.is_inline:
                self._needed *= 32
            self.is_inline = False
            self._fast = 0
        elif duration_ns < FAST_NS and not self.is_inline:
            self._fast += 1
            self.is_inline = self._fast >= self._needed

    def stay_off_loop(self) -> None:
        """The model turned out to be asynchronous: it has a loop of its own."""
        self._is_auto = False
        self.is_inline = False


def start_on_loop(
    running: Awaitable[Sequence[Outcome] | None],
) -> "asyncio.Task[Sequence[Outcome] | None]":
    """Run an awaitable beside everything else on the server's own loop."""
    coroutine = cast(
        Coroutine[Any, Any, Sequence[Outcome] | None],
        running if inspect.iscoroutine(running) else await_outcomes(running),
    )
    return asyncio.get_running_loop().create_task(coroutine)
