"""Requests while a worker's model has them, and the credit that its streams live on.

A model that sends its responses itself may be so far ahead of its reader and no further. The
server gives credit as the reader takes; without any left a plain thread blocks in ``send``, and a
coroutine waits in ``drained``.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence

from modelport.errors import Cancelled, ModelFailed, ModelportError
from modelport.messages import Request, Response
from modelport.runtimes.base import Outcome

__all__ = ["WINDOW_BYTES", "WINDOW_ITEMS", "WorkerWork", "Works"]

WINDOW_ITEMS = 32
"""Responses of a stream that the server has not given credit for."""
WINDOW_BYTES = 8 * 1024 * 1024
OVERRUN_FACTOR = 16
"""How far a producer on an event loop, which cannot be blocked, may get beyond that."""

Send = Callable[[int, int, Outcome, bool], None]


class Works:
    """All requests that the model of this process has. Safe to call from any thread.

    Args:
        send: Sends a response: number of its batch, index in it, outcome, whether it is the last.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._batches: dict[int, list[WorkerWork]] = {}
        self._open: dict[tuple[int, int], WorkerWork] = {}
        self._cancelled_early: set[tuple[int, int]] = set()
        self._latest = -1

    def begin(self, batch: int, requests: Sequence[tuple[Request, int]]) -> "list[WorkerWork]":
        """Take a batch over."""
        works = [
            WorkerWork(self, batch, index, request, rows)
            for index, (request, rows) in enumerate(requests)
        ]
        self._batches[batch] = works
        self._latest = batch
        if self._cancelled_early:
            with self._changed:
                for work in works:
                    work.is_cancelled = work.key in self._cancelled_early
                    self._cancelled_early.discard(work.key)
        return works

    def end(self, batch: int, outcomes: Sequence[Outcome] | None) -> None:
        """A batch has been executed; what was left out is still to be answered."""
        works = self._batches[batch]
        for index, work in enumerate(works):
            if (outcomes is None or outcomes[index] is None) and not (
                work.is_ended or work.comes_again
            ):
                self._open[work.key] = work
        del self._batches[batch]
        # One that ended just now took itself out before it was put in.
        for work in works:
            if work.is_ended:
                self._open.pop(work.key, None)

    def cancel(self, batch: int, index: int) -> None:
        """Nobody waits for a request any more."""
        with self._changed:
            work = self._find(batch, index)
            if work is not None:
                work.is_cancelled = True
                self._wake(work)
                if work.on_stop is not None:
                    work.on_stop()
            elif batch > self._latest:
                # It has not been read yet: this news goes past what waits.
                self._cancelled_early.add((batch, index))

    def credit(self, batch: int, index: int, items: int, size: int) -> None:
        """The reader of a stream has taken some."""
        with self._changed:
            work = self._find(batch, index)
            if work is not None:
                work.taken_items += items
                work.taken_bytes += size
                self._wake(work)

    def _find(self, batch: int, index: int) -> "WorkerWork | None":
        works = self._batches.get(batch)
        return self._open.get((batch, index)) if works is None else works[index]

    def _wake(self, work: "WorkerWork") -> None:
        self._changed.notify_all()
        waiters, work.waiters = work.waiters, []
        for wake in waiters:
            wake()

    def sent(self, work: "WorkerWork", response: Outcome, final: bool) -> None:
        """Send a response, when there is credit for it."""
        size = _bytes_of(response)
        with self._changed:
            if work.is_ended:
                raise ModelFailed("Unable to send response. Response sender has been closed.")
            work.is_ended = final
            work.sent_items += 1
            work.sent_bytes += size
            if not final:
                self._wait_for_credit(work)
                if work.is_cancelled:
                    raise Cancelled("nobody waits for this request any more")
        self._send(*work.key, None if work.is_cancelled else response, final)
        if final:
            self._open.pop(work.key, None)

    def offered(self, work: "WorkerWork", response: Response) -> bool:
        """Send a response, with or without credit for it; whether there is some left."""
        with self._changed:
            if work.is_ended:
                raise ModelFailed("Unable to send response. Response sender has been closed.")
            if work.is_cancelled:
                raise Cancelled("nobody waits for this request any more")
            work.sent_items += 1
            work.sent_bytes += _bytes_of(response)
            is_full = work.is_full
        self._send(*work.key, response, False)
        return not is_full

    def _wait_for_credit(self, work: "WorkerWork") -> None:
        if not work.is_full:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._changed.wait_for(lambda: work.is_cancelled or not work.is_full)
        else:
            if work.sent_items - work.taken_items > WINDOW_ITEMS * OVERRUN_FACTOR:
                raise Cancelled("the caller does not read; await drained() between responses")

    async def drained(self, work: "WorkerWork") -> None:
        """Wait until there is credit."""
        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()

            def wake(future: "asyncio.Future[None]" = future) -> None:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_set, future)

            with self._changed:
                if work.is_cancelled or not work.is_full:
                    return
                work.waiters.append(wake)
            await future


class WorkerWork:
    """One request, as its runtime sees it: see :class:`modelport.runtimes.base.StoppableWork`."""

    __slots__ = (
        "comes_again",
        "is_cancelled",
        "is_ended",
        "key",
        "on_stop",
        "request",
        "rows",
        "sent_bytes",
        "sent_items",
        "taken_bytes",
        "taken_items",
        "waiters",
        "works",
    )

    def __init__(self, works: Works, batch: int, index: int, request: Request, rows: int) -> None:
        self.works = works
        self.key = (batch, index)
        self.request = request
        self.rows = rows
        self.is_cancelled = False
        self.is_ended = False
        self.comes_again = False
        self.on_stop: Callable[[], object] | None = None
        self.sent_items = self.sent_bytes = self.taken_items = self.taken_bytes = 0
        self.waiters: list[Callable[[], object]] = []

    @property
    def is_full(self) -> bool:
        """Whether there is no credit left."""
        return (
            self.sent_items - self.taken_items > WINDOW_ITEMS
            or self.sent_bytes - self.taken_bytes > WINDOW_BYTES
        )

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Give one response, from any thread."""
        self.works.sent(self, response, final)

    def offer(self, response: Response) -> bool:
        """Give one response without waiting; whether the next one may come at once."""
        return self.works.offered(self, response)

    def reschedule(self) -> None:
        """Have the request executed once more; the server is told with the end of the batch."""
        self.comes_again = True

    async def drained(self) -> None:
        """Wait until the caller has read enough to take more."""
        await self.works.drained(self)


def _bytes_of(response: Outcome) -> int:
    return (
        sum(each.array.nbytes for each in response.outputs) if isinstance(response, Response) else 0
    )


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
