"""How a model asks other models, from a thread that waits or from a coroutine.

What both kinds of Python models share. A :class:`Call` is where the other model's answers go
(:class:`~modelport.messages.Sink`) and where the caller takes them from, at its own pace.

A model that waits for one that waits for it would wait for ever. So a request carries the names of
the models that wait for it, and one that would come back to one of them is refused.
"""

import asyncio
import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from modelport.errors import Cancelled, ModelFailed, ModelportError
from modelport.messages import Request, Response, Ticket
from modelport.runtimes.base import Host, Question, Work

__all__ = [
    "Call",
    "answer_to",
    "begin_call",
    "calls_others",
    "current_trace_id",
    "waiting_for",
]

MAX_UNREAD = 64
"""Responses that may wait for a model to take them."""

_trail: ContextVar[tuple[str, ...]] = ContextVar("trail", default=())
_trace_id: ContextVar[str] = ContextVar("trace_id", default="")


class Call:
    """One request to another model: a sink on one side, responses in order on the other."""

    def __init__(self) -> None:
        self.ticket: Ticket | None = None
        self.has_bare_end = False
        """Whether the end came by itself, after the last response."""
        self._changed = threading.Condition()
        self._given: deque[Response | ModelportError] = deque()
        self._is_over = False
        self._is_held = False
        self._wake: Callable[[], None] | None = None

    # The host's side, on a thread of its own that must not be held up.

    def push(self, response: Response, final: bool) -> bool:
        """Take one response; say whether another one is welcome."""
        return self._put(response, final)

    def end(self) -> None:
        """No more."""
        self.has_bare_end = not self._is_over
        self._put(None, True)

    def fail(self, error: ModelportError) -> None:
        """It went wrong."""
        self._put(error, True)

    def _put(self, given: Response | ModelportError | None, final: bool) -> bool:
        with self._changed:
            if self._is_over:
                return False
            if given is not None:
                self._given.append(given)
            self._is_over = final
            self._is_held = len(self._given) >= MAX_UNREAD
            self._changed.notify_all()
            if self._wake is not None:
                self._wake()
            return not self._is_held

    # The model's side.

    def take(self) -> Response | ModelportError | None:
        """Wait for the next response on a plain thread; ``None`` after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._given or self._is_over)
            return self._next()

    async def take_async(self) -> Response | ModelportError | None:
        """Wait for the next response without holding up the loop; ``None`` after the last."""
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(arrived.set)

        with self._changed:
            if not self._given and not self._is_over:
                self._wake = wake
        if self._wake is not None:
            try:
                await arrived.wait()
            except asyncio.CancelledError:
                self.cancel()
                raise
            finally:
                self._wake = None
        with self._changed:
            return self._next()

    def _next(self) -> Response | ModelportError | None:
        if not self._given:
            return None
        given = self._given.popleft()
        if self._is_held and len(self._given) <= MAX_UNREAD // 2:
            self._is_held = False
            if self.ticket is not None:
                self.ticket.resume()
        return given

    def cancel(self) -> None:
        """Ask for no more: what has come can still be taken, and then the error that says so."""
        if self.ticket is not None:
            self.ticket.cancel()
        self.fail(Cancelled("the model does not wait for this answer any more"))


def begin_call(
    host: Host, caller: str, model: str, version: str, request: Request, *, blocks: bool
) -> Call:
    """Send a request to another model.

    Args:
        host: Of the model that asks.
        caller: The model that asks.
        model: The one that is asked.
        version: Decimal digits; "" for the one that the server chooses.
        request: Belongs to the host from here on.
        blocks: Whether the calling thread is going to wait.

    Raises:
        ModelFailed: If that would make a circle, or hold up the whole server.
    """
    trail = _trail.get()
    if not trail or trail[-1] != caller:
        # A thread of the model's own: nothing is known of who waits but itself.
        trail = (*trail, caller)
    if model in trail:
        chain = " -> ".join((*trail[trail.index(model) :], model))
        raise ModelFailed(
            f"model '{caller}' must not call '{model}', which waits for it ({chain}): the calls of "
            "models cannot go round in a circle"
        )
    if blocks:
        check_may_wait(host, caller)
    request.trail = trail
    call = Call()
    call.ticket = host.infer(model, version, request, call)
    return call


def check_may_wait(host: Host, caller: str) -> None:
    """Refuse to wait where everybody would have to.

    Raises:
        ModelFailed: On the server's event loop.
    """
    if not host.may_wait(model=caller):
        raise ModelFailed(
            f"model '{caller}' runs on the server's event loop, where it cannot wait for another "
            "model; give its configuration the parameter execution with the value thread"
        )


def answer_to(host: Host, caller: str, question: Question) -> bool:
    """Ask the server to load or unload a model, or whether one is ready; wait for the answer.

    Raises:
        ModelportError: Why it did not work.
    """
    check_may_wait(host, caller)
    if question.verb == "unload" and question.model in (*_trail.get(), caller):
        raise ModelFailed(
            f"model '{caller}' must not unload '{question.model}', which is answering a request "
            "for it: unloading waits until that is over"
        )
    is_answered = threading.Event()
    answers: list[bool | ModelportError] = []

    def done(answer: bool | ModelportError) -> None:
        answers.append(answer)
        is_answered.set()

    host.ask(question, done)
    is_answered.wait()
    (answer,) = answers
    if isinstance(answer, ModelportError):
        raise answer
    return answer


@contextlib.contextmanager
def waiting_for(model: str, works: Sequence[Work]) -> Iterator[None]:
    """Remember, while a batch is executed, who waits for it."""
    names: dict[str, None] = {}
    for work in works:
        names.update(dict.fromkeys(work.request.trail))
    token = _trail.set((*(name for name in names if name != model), model))
    trace = _trace_id.set(works[0].request.trace_id if len(works) == 1 else "")
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            # A coroutine may be closed in another context than it began in.
            _trail.reset(token)
            _trace_id.reset(trace)


def current_trace_id() -> str:
    """Name the trace of the request that is executed; "" for none, and in a batch of several."""
    return _trace_id.get()


def calls_others(*directories: Path) -> bool:
    """Whether Python files there look as if they called other models, or managed them.

    Such a model waits, so it must not run on the event loop. What this does not find is refused
    when it happens, and then the model leaves the loop.
    """
    for directory in directories:
        for file in directory.glob("*.py"):
            with contextlib.suppress(OSError):
                if _CALLS.search(file.read_bytes()):
                    return True
    return False


_CALLS = re.compile(
    rb"\b(InferenceRequest|load_model|unload_model|is_model_ready|call_model|stream_model)\s*\("
)
