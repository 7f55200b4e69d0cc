"""One request while the engine owns it: the caller's ticket and the model's work in one object.

Between a model that produces and a caller that reads stands a bound. Responses that the caller has
not taken yet are counted, in items and in bytes; at the bound a producing thread blocks, an async
producer waits in ``drained``, and a caller that does not read costs nobody but itself.

A job is over when two things have happened: its caller knows the end (``is_closed``), and the model
has let go of it (not ``is_running``). Either may come first.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Protocol

from modelport.errors import Cancelled, ModelFailed, ModelportError
from modelport.messages import Request, Response, Sink
from modelport.stats import InstanceStatistics

if TYPE_CHECKING:
    from modelport.engine.executor import Completions

__all__ = [
    "MAX_UNREAD_BYTES",
    "MAX_UNREAD_ITEMS",
    "NOBODY",
    "OVERRUN_FACTOR",
    "Job",
    "Owner",
    "Times",
]

Times = tuple[int, int, int, InstanceStatistics | None]
"""How long an execution took to put inputs together, compute and take outputs apart, in
nanoseconds; and whose it was."""

MAX_UNREAD_ITEMS = 64
"""Responses a stream may be ahead of its reader before the producer waits."""
MAX_UNREAD_BYTES = 16 * 1024 * 1024
OVERRUN_FACTOR = 16
"""How far a producer that cannot wait may overrun ``MAX_UNREAD_ITEMS`` before it is refused."""
OVERRUN_FACTOR_BYTES = 4
"""The same for ``MAX_UNREAD_BYTES``."""
OVERRUN_GRACE_S = 0.25
"""How long it is held up, and what runs beside it, before that: a caller that does read catches up
in a few milliseconds, and models written for Triton send without looking back."""


class Owner(Protocol):
    """The deployment, as its jobs see it."""

    name: str
    send_lock: threading.Lock
    completions: "Completions"

    def cancelled(self, job: "Job") -> None:
        """A caller has gone."""
        ...

    def overran(self, job: "Job") -> None:
        """A model sends on and on, and its caller does not read."""
        ...

    def responded(
        self, job: "Job", response: Response | ModelportError | None, final: bool
    ) -> None:
        """A model gave a response through its sender; on the event loop."""
        ...


class _Nobody:
    """Hears nothing."""

    def push(self, response: Response, final: bool) -> bool:
        return False

    def end(self) -> None:
        pass

    def fail(self, error: ModelportError) -> None:
        pass


NOBODY: Sink = _Nobody()
"""The sink of a request that is over.

Sinks know their tickets. A job that still knew its sink would lie in a circle with all that the
request was made of, until the garbage collector comes and holds everybody up.
"""


class Job:
    """A request that was admitted. Made once per request, so it does little until asked.

    The event loop writes everything but ``_is_ended`` and what begins with ``_sent``, which belong
    to the producers and are guarded by the deployment's ``send_lock``.
    """

    # Defaults of the class, not slots: a request that is answered at once sets none of these.
    batch_key: Hashable = None
    queued_ns = 0
    started_ns = 0
    expires_ns = 0
    level = 0
    is_delayed = False
    responses = 0
    responded_ns = 0
    is_queued = False
    is_running = False
    is_cancelled = False
    is_closed = False
    deadline: asyncio.TimerHandle | None = None
    outcome: tuple[Response | ModelportError, int, Times] | None = None
    on_stop: Callable[[], object] | None = None
    _is_ended = False
    _is_paused = False
    _held: deque[tuple[Response | ModelportError | None, int, bool]] | None = None
    _waiters: list[Callable[[], object]] | None = None
    _sent_items = 0
    _sent_bytes = 0
    _taken_items = 0
    _taken_bytes = 0

    def __init__(
        self, deployment: Owner, request: Request, sink: Sink, rows: int, now_ns: int
    ) -> None:
        self.deployment = deployment
        self.request = request
        self.sink = sink
        self.rows = rows
        self.enqueued_ns = now_ns

    def __repr__(self) -> str:
        names = ("is_queued", "is_running", "is_cancelled", "is_closed")
        states = " ".join(name[3:] for name in names if getattr(self, name))
        return f"<Job {self.request.id!r} of {self.deployment.name} {states or 'new'}>"

    # The caller's side.

    def cancel(self) -> None:
        """Drop the request if it is queued, tell the model if it runs. Idempotent."""
        if not self.is_closed:
            self.deployment.cancelled(self)

    def resume(self) -> None:
        """Give the sink what was held back for it."""
        self._is_paused = False
        held = self._held
        while held and not self._is_paused:
            self._hand_over(*held.popleft())

    # The model's side, from any thread.

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Give one response. See :class:`modelport.runtimes.base.Work`."""
        deployment = self.deployment
        size = self._noted(response, final)
        try:
            if self.is_cancelled:
                raise Cancelled("nobody waits for this request any more")
            if threading.get_ident() == deployment.completions.thread_id:
                self.deliver(response, size, final)
                self._refuse_overrun()
                return
            if self._is_full():
                self._wait_for_reader()
        except Cancelled:
            if not final:
                raise
            # Nobody hears it, but the engine must know that the model is done.
            response = None
        deployment.completions.post(self.deliver, response, size, final)

    def offer(self, response: Response) -> bool:
        """Give one response from a thread. See :class:`modelport.runtimes.base.StoppableWork`."""
        size = self._noted(response, False)
        if self.is_cancelled:
            raise Cancelled("nobody waits for this request any more")
        self.deployment.completions.post(self.deliver, response, size, False)
        return not self._is_full()

    def _noted(self, response: Response | ModelportError | None, final: bool) -> int:
        """Count a response, and give its bytes."""
        size = _bytes_of(response) if response.__class__ is Response else 0
        with self.deployment.send_lock:
            if self._is_ended:
                raise ModelFailed("Unable to send response. Response sender has been closed.")
            self._is_ended = final
            if response.__class__ is Response:
                self._sent_items += 1
                self._sent_bytes += size
        return size

    def reschedule(self) -> None:
        """Refuse to be seen again: only steps of iterative sequences are."""
        raise ModelFailed(
            f"model '{self.deployment.name}' asks to see a request again, which only models with "
            "sequence_batching { iterative_sequence: true } can"
        )

    async def drained(self) -> None:
        """Wait until the caller has read enough to take more."""
        while self._is_full() and not self.is_cancelled:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def wake(
                loop: asyncio.AbstractEventLoop = loop, future: "asyncio.Future[None]" = future
            ) -> None:
                # The producer's loop may have been closed meanwhile.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_set, future)

            if not self.deployment.completions.post(self._wake_when_free, wake):
                return
            await future

    def _is_full(self) -> bool:
        return (
            self._sent_items - self._taken_items > MAX_UNREAD_ITEMS
            or self._sent_bytes - self._taken_bytes > MAX_UNREAD_BYTES
        )

    def _has_room(self) -> bool:
        # Half of it, so that a producer is not woken for each single response.
        return (
            self._sent_items - self._taken_items <= MAX_UNREAD_ITEMS // 2
            and self._sent_bytes - self._taken_bytes <= MAX_UNREAD_BYTES // 2
        )

    def _wait_for_reader(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            limit_s = None
        else:
            if not self._is_overrun():
                return
            limit_s = OVERRUN_GRACE_S
        while self._is_full() and not self.is_cancelled:
            event = threading.Event()
            if not self.deployment.completions.post(self._wake_when_free, event.set):
                raise Cancelled("the server has gone")
            if not event.wait(limit_s):
                self._refuse_overrun()
                break
        if self.is_cancelled:
            raise Cancelled("nobody waits for this request any more")

    def _is_overrun(self) -> bool:
        return (
            self._sent_items - self._taken_items > MAX_UNREAD_ITEMS * OVERRUN_FACTOR
            or self._sent_bytes - self._taken_bytes > MAX_UNREAD_BYTES * OVERRUN_FACTOR_BYTES
        )

    def _refuse_overrun(self) -> None:
        """End the stream of a producer that runs on an event loop and does not wait."""
        if self._is_overrun():
            self.deployment.completions.post(self.deployment.overran, self)
            raise Cancelled("the caller does not read; its stream was ended")

    # On the event loop.

    def deliver(
        self, response: Response | ModelportError | None, size_bytes: int, final: bool
    ) -> None:
        """Take what the model gave and hand it on, now or when the caller is ready."""
        if self._is_paused and not self.is_closed:
            if self._held is None:
                self._held = deque()
            self._held.append((response, size_bytes, final))
        else:
            self._hand_over(response, size_bytes, final)

    def _hand_over(
        self, response: Response | ModelportError | None, size_bytes: int, final: bool
    ) -> None:
        if response.__class__ is Response:
            self._taken_items += 1
            self._taken_bytes += size_bytes
            if self._waiters and self._has_room():
                self._wake()
        self.deployment.responded(self, response, final)

    def pause(self) -> None:
        """Hold further responses back until ``resume``."""
        self._is_paused = True

    def stop(self) -> None:
        """Tell a model that is still at it that nobody waits any more."""
        self.is_cancelled = True
        if self.on_stop is not None:
            self.on_stop()
        self.resume()
        self._wake()

    def _wake_when_free(self, wake: Callable[[], object]) -> None:
        if self.is_cancelled or self._has_room():
            wake()
            return
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(wake)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for wake in waiters or ():
            wake()


def _bytes_of(response: Response) -> int:
    value = response.value
    total = len(value) if value is not None and hasattr(value, "__len__") else 0
    for tensor in response.outputs:
        array = tensor.array
        # An array of objects counts pointers only.
        total += sum(map(len, array.flat)) if array.dtype.hasobject else array.nbytes
    return total


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
