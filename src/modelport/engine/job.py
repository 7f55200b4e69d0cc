"""One request while the engine owns it: the caller's ticket and the model's work in one object.

Between a model that produces and a caller that reads stands a bound. Responses that the caller has
not taken yet are counted, in items and in bytes; at the bound a producing thread blocks, an async
producer waits in ``drained``, and a caller that does not read costs nobody but itself.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from modelport.errors import Cancelled, ModelFailed, ModelportError
from modelport.messages import Request, Response, Sink

if TYPE_CHECKING:
    from modelport.engine.deployment import Deployment

__all__ = ["Job"]

MAX_UNREAD_ITEMS = 64
"""Responses a stream may be ahead of its reader before the producer waits."""
MAX_UNREAD_BYTES = 16 * 1024 * 1024
OVERRUN_FACTOR = 16
"""How far a producer that cannot wait may overrun ``MAX_UNREAD_ITEMS`` before it is refused."""


class Job:
    """A request that was admitted. Made once per request, so it does little until asked.

    The event loop writes everything but ``_sent_items`` and ``_sent_bytes``, which belong to the
    producer; each side only reads what is the other's.
    """

    # Defaults of the class, not slots: a request that is answered at once sets none of these.
    batch_key: Hashable = None
    queued_ns = 0
    expires_ns = 0
    responses = 0
    is_cancelled = False
    is_closed = False
    is_queued = False
    outcome: tuple[Response | ModelportError, int, tuple[int, int, int]] | None = None
    _producer_done = False
    _is_paused = False
    _held: deque[tuple[Response | ModelportError | None, bool]] | None = None
    _waiters: list[Callable[[], None]] | None = None
    _sent_items = 0
    _sent_bytes = 0
    _taken_items = 0
    _taken_bytes = 0

    def __init__(
        self, deployment: "Deployment", request: Request, sink: Sink, rows: int, now_ns: int
    ) -> None:
        self.deployment = deployment
        self.request = request
        self.sink = sink
        self.rows = rows
        self.enqueued_ns = now_ns

    # The caller's side.

    def cancel(self) -> None:
        """Drop the request if it is queued, tell the model if it runs. Idempotent."""
        if self.is_closed or self.is_cancelled:
            return
        self.is_cancelled = True
        self.deployment.cancelled(self)
        self._wake()

    def resume(self) -> None:
        """Give the sink what was held back for it."""
        self._is_paused = False
        held = self._held
        while held and not self._is_paused:
            self._hand_over(*held.popleft())

    # The model's side, from any thread.

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Give one response. See :class:`modelport.runtimes.base.Work`."""
        if self._producer_done:
            raise ModelFailed("Unable to send response. Response sender has been closed.")
        if final:
            self._producer_done = True
        completions = self.deployment.completions
        if self.is_cancelled:
            if final:
                completions.post(self.deliver, None, True)
                return
            raise Cancelled("nobody waits for this request any more")
        if threading.get_ident() == completions.thread_id:
            self.deliver(response, final)
            return
        if response.__class__ is Response:
            self._sent_items += 1
            self._sent_bytes += sum(tensor.array.nbytes for tensor in response.outputs)
            if self._is_full():
                self._wait_for_reader()
        completions.post(self.deliver, response, final)

    async def drained(self) -> None:
        """Wait until the caller has read enough to take more."""
        while self._is_full() and not self.is_cancelled:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def wake(
                loop: asyncio.AbstractEventLoop = loop, future: "asyncio.Future[None]" = future
            ) -> None:
                loop.call_soon_threadsafe(_set, future)

            self._add_waiter(wake)
            if self._is_full() and not self.is_cancelled:
                await future

    def _is_full(self) -> bool:
        return (
            self._sent_items - self._taken_items > MAX_UNREAD_ITEMS
            or self._sent_bytes - self._taken_bytes > MAX_UNREAD_BYTES
        )

    def _wait_for_reader(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            if self._sent_items - self._taken_items > MAX_UNREAD_ITEMS * OVERRUN_FACTOR:
                self.deployment.completions.post(self._overrun)
                raise Cancelled("the caller does not read; its stream was ended")
            return
        while self._is_full() and not self.is_cancelled:
            event = threading.Event()
            self._add_waiter(event.set)
            if self._is_full() and not self.is_cancelled:
                # The timeout is a belt beside the braces: waiters are woken by every taken item.
                event.wait(1.0)
        if self.is_cancelled:
            raise Cancelled("nobody waits for this request any more")

    def _add_waiter(self, wake: Callable[[], None]) -> None:
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(wake)

    # On the event loop.

    def deliver(self, response: Response | ModelportError | None, final: bool) -> None:
        """Take what the model gave and hand it on, now or when the caller is ready."""
        if self._is_paused and not self.is_cancelled:
            if self._held is None:
                self._held = deque()
            self._held.append((response, final))
        else:
            self._hand_over(response, final)

    def _hand_over(self, response: Response | ModelportError | None, final: bool) -> None:
        if response.__class__ is Response:
            self._taken_items += 1
            self._taken_bytes += sum(tensor.array.nbytes for tensor in response.outputs)
            if self._waiters and not self._is_full():
                self._wake()
        if self.is_closed:
            return
        self.deployment.responded(self, response, final)

    def pause(self) -> None:
        """Hold further responses back until ``resume``."""
        self._is_paused = True

    def _overrun(self) -> None:
        if not self.is_closed:
            self.sink.fail(Cancelled("the caller did not read its stream"))
            self.cancel()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for wake in waiters or ():
            wake()


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
