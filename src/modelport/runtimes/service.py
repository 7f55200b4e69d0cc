"""One endpoint of a service: calls with named values, answered by a method of an object.

Unlike other runtimes this one is not brought up from a file: the object belongs to the service, all
of whose endpoints share it, and whoever made it gives it to each of them.

Functions answer on the thread of an instance; coroutines and async generators run on the loop of
their service, and answer through ``Work.send``; a generator has a thread while it makes items, and
none while its caller does not read them.
"""

import asyncio
import contextlib
import contextvars
import inspect
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol, cast

from msgspec import Struct

from modelport.errors import (
    Cancelled,
    InvalidArguments,
    InvalidRequest,
    LoadFailed,
    ModelFailed,
    ModelportError,
)
from modelport.exceptions import BentoMLException
from modelport.messages import Arguments, CallScope, Response, Tensors
from modelport.progress import report_to
from modelport.runtimes.base import (
    Batch,
    Host,
    LoadContext,
    ModelSource,
    Outcome,
    StoppableWork,
    Work,
)
from modelport.services.context import Context, current, current_service
from modelport.services.endpoint import Endpoint
from modelport.services.files import Folder
from modelport.services.loop import ServiceLoop, Threads
from modelport.specs import ModelConfig

__all__ = ["MASKED", "Call", "ServiceRuntime", "TensorView"]

MASKED = "An unexpected error has occurred, please check the server log."
"""What a caller hears of a failure that its author did not write a text for."""


class TensorView(Protocol):
    """How tensors become arguments and results tensors; see :mod:`modelport.services.tensors`."""

    def arguments(self, payload: Tensors, folder: Folder) -> dict[str, Any]:
        """Make bound arguments, with files in ``folder``. Raises InvalidRequest."""
        ...

    def response(self, value: Any) -> Response:
        """Make a response of a result or an item. Raises ModelFailed."""
        ...


class ServiceRuntime:
    """An endpoint on an object. One of these may serve as any number of instances.

    Args:
        endpoint: What is called.
        instance: The object of the service.
        loop: For coroutines.
        host: For the log.
        view: For requests that bring tensors.
        state: Of :class:`Context`, shared by the whole service.
        slots: Bounds the synchronous calls of the whole service; ``None`` for no bound of its own.
        most_streams: Generators of this endpoint that may make items at a time.
    """

    default_filename: ClassVar[str] = ""

    def __init__(
        self,
        endpoint: Endpoint,
        instance: Any,
        *,
        loop: ServiceLoop,
        host: Host,
        view: TensorView,
        state: dict[str, Any],
        slots: threading.Semaphore | None = None,
        most_streams: int = 64,
    ) -> None:
        self._endpoint = endpoint
        self._instance = instance
        self._call: Callable[[dict[str, Any], Context | None], Any] = endpoint.caller(instance)
        self._loop = loop
        self._host = host
        self._view = view
        self._state = state
        self._slots = slots
        self._streams = asyncio.Semaphore(most_streams)
        self._threads = Threads(f"modelport-{endpoint.name}")
        self._wants_context = endpoint.context_name is not None

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Leave it as it is: the service has said all there is to say."""
        return config

    def load(self, context: LoadContext) -> None:
        """Do nothing: the object is there already."""

    def is_ready(self) -> bool:
        """Whether it can answer; the service is asked for its own readiness elsewhere."""
        return True

    def unload(self) -> None:
        """Do nothing: the object belongs to the service."""

    def execute(self, batch: Batch) -> Sequence[Outcome] | None:
        """Call the method in its own way."""
        endpoint = self._endpoint
        works = batch.works
        if endpoint.api.batchable:
            return self._batch(works)
        if endpoint.is_async or endpoint.is_stream:
            for work in works:
                self._begin(work)
            return None
        return [self._answer(work) for work in works]

    # One answer for one request.

    def _answer(self, work: Work) -> Outcome:
        call: Call | None = None
        try:
            call = self._call_of(work)
            if self._slots is None:
                return call.response(self._call(call.values, call.context))
            with self._slots:
                return call.response(self._call(call.values, call.context))
        except BaseException as exc:
            return self._failure(exc)
        finally:
            if call is not None:
                call.close()

    def _begin(self, work: Work) -> None:
        call: Call | None = None
        try:
            call = self._call_of(work)
        except Exception as exc:
            work.send(self._failure(exc), final=True)
            return
        if not self._endpoint.is_async:
            # It is told by its work, between two items, that nobody waits.
            self._loop.spawn(self._stream(cast(StoppableWork, work), call))
            return
        run = self._stream_async if self._endpoint.is_stream else self._answer_async
        running = self._loop.spawn(run(work, call))
        cast(StoppableWork, work).on_stop = running.cancel
        if work.is_cancelled:
            # Where cancellations come on another thread, this one came before.
            running.cancel()

    async def _answer_async(self, work: Work, call: "Call") -> None:
        outcome: Outcome
        try:
            outcome = call.response(await self._call(call.values, call.context))
        except BaseException as exc:
            # KeyboardInterrupt, too, which would end the loop of the whole service.
            outcome = self._failure(exc)
        finally:
            call.close()
        _send_last(work, outcome)

    # A stream for one request.

    async def _stream(self, work: StoppableWork, call: "Call") -> None:
        error: ModelportError | None = None
        items = _Items(lambda: self._call(call.values, call.context), work, call.response)
        context = contextvars.copy_context()
        try:
            while True:
                async with self._streams:
                    is_over = await self._threads.run(partial(context.run, self._go_on, items))
                if is_over:
                    break
                await work.drained()
        except BaseException as exc:
            error = None if isinstance(exc, Cancelled) else self._failure(exc)
        finally:
            call.close()
        _send_last(work, error)

    def _go_on(self, items: "_Items") -> bool:
        with self._slots or contextlib.nullcontext():
            return items.go_on()

    async def _stream_async(self, work: Work, call: "Call") -> None:
        error: ModelportError | None = None
        try:
            items = self._call(call.values, call.context)
            if inspect.isawaitable(items):
                items = await items
            async with contextlib.aclosing(items):
                async for item in items:
                    if work.is_cancelled:
                        break
                    work.send(call.response(item), final=False)
                    await work.drained()
        except BaseException as exc:
            error = None if isinstance(exc, Cancelled) else self._failure(exc)
        finally:
            call.close()
        _send_last(work, error)

    # One call for many requests.

    def _batch(self, works: Sequence[Work]) -> list[Outcome]:
        calls: list[Call | None] = []
        outcomes: list[Outcome] = [None] * len(works)
        for at, work in enumerate(works):
            try:
                calls.append(self._call_of(work))
            except Exception as exc:
                outcomes[at] = self._failure(exc)
                calls.append(None)
        present = [at for at, call in enumerate(calls) if call is not None]
        joined = [call for call in calls if call is not None]
        try:
            for at, outcome in zip(present, self._answers(joined), strict=True):
                outcomes[at] = outcome
        finally:
            for call in joined:
                call.close()
        return outcomes

    def _answers(self, calls: Sequence["Call"]) -> Sequence[Outcome]:
        """Call for all together; what fails together is called again one by one."""
        if not calls:
            return []
        try:
            return self._joined(calls)
        except BaseException as exc:
            if len(calls) == 1:
                return [self._failure(exc)]
            if isinstance(exc, LoadFailed):
                # The author's mistake, and calling again one by one would hide it.
                failure = self._failure(exc)
                return [failure] * len(calls)
        return [outcome for call in calls for outcome in self._answers([call])]

    def _joined(self, calls: Sequence["Call"]) -> list[Outcome]:
        endpoint = self._endpoint
        most = endpoint.api.max_batch_size
        rows = [endpoint.rows_of(call.values) for call in calls]
        context = calls[-1].context
        if len(calls) == 1 and rows[0] > most:
            results = [
                self._run_batch(part, context) for part in endpoint.cut(calls[0].values, most)
            ]
            return [self._part_of(calls[0], endpoint.rejoin(results))]
        result = self._run_batch(endpoint.join([call.values for call in calls]), context)
        if rows.count(1) == len(rows) and all(call.is_for(endpoint) for call in calls):
            answers = endpoint.encode_rows(result, len(calls))
            if answers is not None:
                return [Response((), value=answer) for answer in answers]
        parts = endpoint.split(result, rows)
        return [self._part_of(call, part) for call, part in zip(calls, parts, strict=True)]

    def _part_of(self, call: "Call", part: Any) -> Outcome:
        """Make the answer to one of many calls; if that cannot be done, it is no fault of others.

        A method may give an exception in place of a result, for that row alone.
        """
        failure = self._endpoint.failure_in(part)
        if failure is not None:
            return self._failure(failure)
        try:
            return call.response(part)
        except Exception as exc:
            return self._failure(exc)

    def _run_batch(self, values: dict[str, Any], context: Context | None) -> Any:
        result = self._call(values, context)
        return self._loop.run(result) if inspect.iscoroutine(result) else result

    # What is common.

    def _call_of(self, work: Work) -> "Call":
        current_service.set(self._instance)
        payload = work.request.payload
        if payload.__class__ is Arguments:
            context = payload.context
            if context is not None and self._endpoint.api.is_task:
                current.set(context)
                report_to(context.task)
            scope = payload.scope
            if scope is not None:
                scope.claim()
            return Call(payload.values, context, payload.encode, scope)
        folder = Folder()
        try:
            values = self._view.arguments(payload, folder)
        except BaseException:
            folder.close()
            raise
        context = Context.without_request(folder, self._state) if self._wants_context else None
        return Call(values, context, None, folder, self._view.response)

    def _failure(self, exc: BaseException) -> ModelportError:
        """Tell the log what happened, and the caller what its author wants it to know."""
        if isinstance(exc, InvalidArguments | InvalidRequest | Cancelled):
            return exc
        if isinstance(exc, asyncio.CancelledError):
            return Cancelled("the call was cancelled")
        if isinstance(exc, BentoMLException) and int(exc.error_code) < 500:
            return exc
        name = self._endpoint.name
        if isinstance(exc, LoadFailed):
            self._host.log("error", str(exc), model=name)
        else:
            text = "".join(traceback.format_exception(exc)).rstrip()
            self._host.log("error", f"a call of '{name}' failed: {text}", model=name)
        if isinstance(exc, BentoMLException):
            return BentoMLException(MASKED, error_code=exc.error_code)
        return ModelFailed(MASKED)


class _Items:
    """A generator under way: it runs on some thread until it ends or its caller falls behind."""

    def __init__(
        self,
        begin: Callable[[], Any],
        work: StoppableWork,
        response: Callable[[Any], Response],
    ) -> None:
        self._begin = begin
        self._work = work
        self._response = response
        self._items: Any = None

    def go_on(self) -> bool:
        """Make items.

        Returns:
            Whether it is over, by itself or because nobody waits any more.
        """
        is_over = True
        try:
            if self._items is None and not self._work.is_cancelled:
                self._items = iter(self._begin())
            while not self._work.is_cancelled:
                item = next(self._items, _END)
                if item is _END:
                    break
                if not self._work.offer(self._response(item)):
                    is_over = False
                    break
        finally:
            if is_over and hasattr(self._items, "close"):
                self._items.close()
        return is_over


_END = object()


class Call(Struct):
    """A request, bound."""

    values: dict[str, Any]
    context: Context | None
    encode: Callable[[Any], Any] | None
    scope: CallScope | None
    respond: Callable[[Any], Response] | None = None

    def close(self) -> None:
        """It is over: what was kept for it may go."""
        if self.scope is not None:
            self.scope.close()

    def is_for(self, endpoint: Endpoint) -> bool:
        """Whether its caller wants what the endpoint makes of a result, and nothing else."""
        return self.respond is None and self.encode == endpoint.encode

    def response(self, value: Any) -> Response:
        """Make a response of a result or an item."""
        if self.respond is not None:
            return self.respond(value)
        return Response((), value=value if self.encode is None else self.encode(value))


def _send_last(work: Work, outcome: Outcome) -> None:
    # Nobody may be waiting any more; then there is nothing to tell.
    with contextlib.suppress(Cancelled, ModelFailed):
        work.send(outcome, final=True)
