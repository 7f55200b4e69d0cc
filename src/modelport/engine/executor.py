"""Where batches run: on the event loop, or each instance on a thread of its own.

What it costs, measured: ``run_in_executor`` 13 µs a call, the queue and the coalesced wake-up here
about 2 µs. A hop to a thread and back still takes 20 to 40 µs when nothing else goes on, which is
why models that are quicker than that run on the loop (see :class:`Placement`).

Every thread here is a daemon: a model that never returns must not keep the process from ending.
"""

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from queue import SimpleQueue
from types import CoroutineType
from typing import Any, TypeVar, cast

from modelport.clock import Clock
from modelport.errors import ModelFailed
from modelport.runtimes.base import Batch, Outcome, Runtime
from modelport.specs import Execution

__all__ = [
    "DEBT_SHARE",
    "FAST_NS",
    "FAST_RUNS",
    "MOST_DEBT_NS",
    "SLOW_NS",
    "Completions",
    "InstanceThread",
    "Placement",
    "Ran",
    "are_awaited",
    "await_outcomes",
    "call_on_thread",
    "failure_of",
    "new_event_loop",
]

FAST_NS = 100_000
"""A run below this is cheaper on the loop than a hop to a thread and back."""
DRAIN_NS = 1_000_000
"""How long the loop deals with what threads have told before it looks at its sockets again."""
SLOW_NS = 1_000_000
"""A run above this is felt by every other connection."""
FAST_RUNS = 32
"""Fast runs after which a model is trusted on the loop."""
FAST_PER_SLOW = 4
"""Fast runs on the thread that a slow one takes back."""
DEBT_SHARE = 0.005
"""Share of the time that slow runs of one model may take from the loop."""
MOST_DEBT_NS = 20_000_000
"""Slow runs together above which a model leaves the loop."""

log = logging.getLogger("modelport.engine")

_T = TypeVar("_T")


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
        is_kept: bool = False,
    ) -> None:
        self.started_ns = started_ns
        self.ended_ns = ended_ns
        self.outcomes = outcomes
        self.error = error
        self.is_kept = is_kept


Done = Callable[[Batch, Ran], None]


class Completions:
    """The way from any thread to the event loop, with one wake-up for many messages."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._messages: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_scheduled = False
        self.thread_id = threading.get_ident()

    def post(self, call: Callable[..., object], *args: object) -> bool:
        """Have ``call(*args)`` run on the loop, after all that was posted before.

        Returns:
            Whether it will; not any more once the loop is closed.
        """
        self._messages.append((call, args))
        if not self._is_scheduled:
            self._is_scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                # The server has gone, and with it whoever waited.
                self._is_scheduled = False
                self._messages.clear()
                return False
        return True

    def _drain(self) -> None:
        # First the flag, then the messages: who posts meanwhile schedules once too often, never
        # once too seldom.
        self._is_scheduled = False
        messages = self._messages
        until_ns = time.perf_counter_ns() + DRAIN_NS
        for _ in range(len(messages)):
            call, args = messages.popleft()
            try:
                call(*args)
            except Exception:
                # Somebody else's answer comes next.
                log.exception("what a thread had to tell could not be dealt with")
            if time.perf_counter_ns() > until_ns:
                break
        if messages and not self._is_scheduled:
            # Hundreds of large answers at once: the sockets come in between.
            self._is_scheduled = True
            self._loop.call_soon(self._drain)


class InstanceThread:
    """A thread that executes the batches of one instance, one after another.

    When it has executed one it asks for the next by itself (``take``): the answers to the first
    are written by the server's loop meanwhile, and the instance does not wait for that.

    The first ``execute`` that gives an awaitable turns it into a thread that runs an event loop;
    from then on batches run beside one another.

    Args:
        runtime: The instance.
        name: Of the thread.
        completions: The way back to the server's loop.
        clock: For how long a run takes.
        became_async: Called on the server's loop after the first awaitable, before its ``done``.
        take: Gives the next batch, or ``None`` if the server's loop will; called on the thread.

    Attributes:
        has_ended: Set on the server's loop once the thread executes nothing any more.
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
        self.has_ended = asyncio.Event()
        self._runtime = runtime
        self._became_async = became_async
        self._take = take
        self._completions = completions
        self._now_ns = clock.now_ns
        self._queue: SimpleQueue[tuple[Batch, Done] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        # The first batch that the model awaits, on its way to the loop that is made for it.
        self._first: _Running | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def execute(self, batch: Batch, done: Done) -> None:
        """Run a batch; ``done`` is called on the server's loop."""
        if self._loop is None:
            self._queue.put((batch, done))
        else:
            self._loop.call_soon_threadsafe(self._start, batch, done)

    def close(self) -> None:
        """Let the thread end once it has done what it was given; what it awaits is cancelled."""
        self._is_closing = True
        self._queue.put(None)
        if self._loop is not None:
            # The loop may be closed already.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        try:
            self._execute_all()
            if self._first is not None:
                self._run_loop()
        finally:
            self._completions.post(self.has_ended.set)

    def _execute_all(self) -> None:
        """Run what comes, one batch after another, to the end or to the first ``await``."""
        while (item := self._queue.get()) is not None:
            batch: Batch | None
            batch, done = item
            del item
            while batch is not None:
                started_ns = self._now_ns()
                outcomes, error = self._executed(batch)
                if are_awaited(outcomes):
                    self._first = _Running(outcomes, batch, done, started_ns)
                    return
                ended_ns = self._now_ns()
                following = self._take()
                self._completions.post(
                    done, batch, Ran(started_ns, ended_ns, outcomes, error, following is not None)
                )
                # The loop clears away what is over: the next batch shall not wait for that, and
                # nothing may live on because it was the first or the last for now.
                outcomes = error = None
                batch = following

    def _run_loop(self) -> None:
        loop = new_event_loop()
        asyncio.set_event_loop(loop)
        first, self._first = cast(_Running, self._first), None
        self._keep(loop.create_task(self._finish(first)))
        del first
        self._loop = loop
        self._completions.post(self._became_async)
        try:
            # Whoever closes first sets the flag and then looks for a loop; here it is the other
            # way round, so one of the two sees the other.
            while not self._is_closing:
                # Tasks that the model has made itself may try to end the process.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
            _cancel_all(loop)
        finally:
            loop.close()

    def _start(self, batch: Batch, done: Done) -> None:
        started_ns = self._now_ns()
        outcomes, error = self._executed(batch)
        if are_awaited(outcomes):
            loop = self._loop
            assert loop is not None
            running = _Running(outcomes, batch, done, started_ns)
            self._keep(loop.create_task(self._finish(running)))
        else:
            ran = Ran(started_ns, self._now_ns(), outcomes, error)
            self._completions.post(done, batch, ran)

    def _executed(self, batch: Batch) -> tuple[Any, Exception | None]:
        """Give what the runtime gave, which may be awaitable, or why it failed."""
        try:
            return self._runtime.execute(batch), None
        except BaseException as exc:
            # Also what would end the thread: everybody in the batch waits for an answer.
            return None, failure_of(exc)

    def _keep(self, task: asyncio.Task[None]) -> None:
        # A loop holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, running: "_Running") -> None:
        error: Exception | None = None
        outcomes: Sequence[Outcome] | None = None
        try:
            outcomes = await running.outcomes
        except BaseException as exc:
            error = failure_of(exc)
        ran = Ran(running.started_ns, self._now_ns(), outcomes, error)
        self._completions.post(running.done, running.batch, ran)


class _Running:
    """A batch that has begun, and what it waits for."""

    __slots__ = ("batch", "done", "outcomes", "started_ns")

    def __init__(
        self,
        outcomes: Awaitable[Sequence[Outcome] | None],
        batch: Batch,
        done: Done,
        started_ns: int,
    ) -> None:
        self.outcomes = outcomes
        self.batch = batch
        self.done = done
        self.started_ns = started_ns


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs on a loop of our own, the model's own tasks included."""
    # A task that is cancelled before its first step never gets to tell that it was: let what was
    # given in this very moment begin.
    with contextlib.suppress(SystemExit):
        loop.run_until_complete(asyncio.sleep(0))
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(SystemExit):
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())


def are_awaited(outcomes: object) -> bool:
    """Whether outcomes are still to come. An instance waits for the answer to this one."""
    kind = outcomes.__class__
    if kind is CoroutineType or kind is list or outcomes is None:
        return kind is CoroutineType
    # What has a length is there; to ask an abstract class takes ten times as long.
    return not hasattr(outcomes, "__len__") and inspect.isawaitable(outcomes)


def failure_of(exc: BaseException) -> Exception:
    """Take what is no ``Exception`` for a failure of the model too: a server outlives those."""
    if isinstance(exc, Exception):
        return exc
    if isinstance(exc, asyncio.CancelledError):
        return ModelFailed("the model's task was cancelled")
    return ModelFailed(f"the model's code raised {type(exc).__name__}, which would end a process")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make the fastest loop there is on this platform."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())


async def await_outcomes(running: Awaitable[Sequence[Outcome] | None]) -> Ran:
    """Await outcomes without raising; for the server's own loop, which a model must not end.

    Returns:
        Times are left at 0.
    """
    try:
        return Ran(0, 0, await running, None)
    except BaseException as exc:
        return Ran(0, 0, None, failure_of(exc))


async def call_on_thread(call: Callable[..., _T], *args: object) -> _T:
    """Call something that blocks on a thread of its own.

    Unlike ``asyncio.to_thread``, whose threads are waited for when the process ends: a model that
    hangs while it is loaded or unloaded is left behind instead.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(_T, result))

    def run() -> None:
        result: _T | None = None
        error: BaseException | None = None
        try:
            result = call(*args)
        except BaseException as exc:
            error = exc if not isinstance(exc, StopIteration) else RuntimeError(repr(exc))
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=f"modelport-{call.__name__}", daemon=True).start()
    return await future


class Placement:
    """Decides from measured runs whether a model may run on the event loop.

    ``auto`` starts on the thread and comes to the loop after ``FAST_RUNS`` fast runs. There it may
    spend ``DEBT_SHARE`` of the time in slow runs and no more: each slow run is a debt that is paid
    off as time passes, and above ``MOST_DEBT_NS`` the model leaves the loop until all is paid. So
    a run of 200 ms keeps a model away for most of a minute, and a hiccup of the machine, which
    looks like a slow run of a fast model, changes nothing.

    On the thread, runs that are neither fast nor slow count for nothing, because a busy loop makes
    them; slow ones take back a few fast ones.
    """

    def __init__(self, execution: Execution) -> None:
        self._is_auto = execution == "auto"
        self.is_inline = execution == "inline"
        self._fast = 0
        self._debt_ns = 0.0
        self._debt_at_ns = 0

    def __repr__(self) -> str:
        where = "on the loop" if self.is_inline else "on a thread"
        return f"<Placement {where}, {self._fast} of {FAST_RUNS} fast runs>"

    def ran(self, duration_ns: int, ended_ns: int) -> None:
        """Take note of how long a run took and of when it was over."""
        if not self._is_auto:
            return
        if self.is_inline:
            if duration_ns > SLOW_NS and self._debt(ended_ns, duration_ns) > MOST_DEBT_NS:
                self.is_inline = False
                self._fast = 0
        elif duration_ns < FAST_NS:
            self._fast = min(self._fast + 1, FAST_RUNS)
            self.is_inline = self._fast == FAST_RUNS and self._debt(ended_ns) == 0
        elif duration_ns > SLOW_NS:
            self._fast = max(0, self._fast - FAST_PER_SLOW)

    def _debt(self, now_ns: int, more_ns: int = 0) -> float:
        paid_ns = (now_ns - self._debt_at_ns) * DEBT_SHARE
        self._debt_ns = max(0.0, self._debt_ns - paid_ns) + more_ns
        self._debt_at_ns = now_ns
        return self._debt_ns

    def stay_off_loop(self) -> None:
        """Let ``auto`` never choose the loop: the model has one of its own, or may block."""
        if self._is_auto:
            self._is_auto = False
            self.is_inline = False
