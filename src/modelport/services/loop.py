"""The event loop of a service: its coroutines run here, beside one another and the server."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

__all__ = ["Running", "ServiceLoop", "Threads"]

T = TypeVar("T")

IDLE_S = 10.0
"""How long a thread waits for further work."""


class ServiceLoop:
    """A thread that runs an event loop, made when it is first needed. Safe to use from any thread.

    One for all methods of a service, so that what its hooks open, a client or a lock, can be used
    by its endpoints.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this loop."""
        return self._thread is threading.current_thread()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "Running":
        """Run a coroutine that keeps its failures to itself."""
        running = Running(self._open())
        running.loop.call_soon_threadsafe(self._start, coroutine, running)
        return running

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its result.

        Raises:
            RuntimeError: From the loop's own thread, which would wait for itself.
        """
        if self.is_current:
            coroutine.close()
            raise RuntimeError(
                "a coroutine cannot be waited for on its own event loop; await it, or use .to_async"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self._open()).result()

    async def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine here and wait for its result on whichever loop this is called.

        Cancelling the wait cancels it.
        """
        if self.is_current:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._open()))

    def close(self) -> None:
        """Cancel what runs and end the thread. Doing it again does nothing."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(5)

    def _open(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = _new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            while True:
                # A coroutine may try to end the process.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
                    break
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            with contextlib.suppress(SystemExit):
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
                loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _start(self, coroutine: Coroutine[Any, Any, None], running: "Running") -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        running.task = task
        # A loop holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Threads:
    """Threads that are made when there is work for them. Safe to use from any thread.

    They are daemons, and so do not keep a process from ending whose generator hangs, which those
    of ``concurrent.futures`` would; and they cost a hop, where a new thread costs its start.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    async def run(self, call: Callable[[], T]) -> T:
        """Call something that blocks, and wait for its result on whichever loop this is called.

        If the wait is cancelled, the call goes on.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = (call(), None)
            except BaseException as exc:
                outcome = (None, exc)
            # The loop may be closed already.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, *outcome)

        self._put(work)
        return await future

    def _put(self, work: Callable[[], object]) -> None:
        with self._lock:
            is_new = not self._idle
            if not is_new:
                self._idle -= 1
        self._queue.put(work)
        if is_new:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                work = self._queue.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    # Otherwise work is on its way to one of those that wait.
                    if self._idle:
                        self._idle -= 1
                        return
                continue
            work()
            del work
            with self._lock:
                self._idle += 1


class Running:
    """A coroutine on its way; ``cancel`` may be called from any thread, any number of times."""

    __slots__ = ("is_cancelled", "loop", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task: asyncio.Task[Any] | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        """Have it raise ``CancelledError`` where it waits."""
        self.is_cancelled = True
        # The loop may be closed already.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
