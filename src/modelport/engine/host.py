"""What models may ask of the server, answered by the engine: log lines, other models, metrics."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from modelport.custom_metrics import CustomMetrics, Labels, Measure
from modelport.engine.deployment import Deployment
from modelport.errors import ModelFailed, ModelportError, Unavailable
from modelport.messages import Request, Sink, Ticket
from modelport.runtimes.base import Question

if TYPE_CHECKING:
    from modelport.engine.executor import Completions
    from modelport.engine.pipeline import Served

__all__ = ["EngineHost", "Models"]

Answer = Callable[[bool | ModelportError], object]


class Models(Protocol):
    """What a host asks of the engine."""

    custom_metrics: CustomMetrics

    @property
    def completions(self) -> "Completions | None":
        """The way to the event loop; ``None`` before there is one."""
        ...

    def deployments(self, model: str) -> "Sequence[Served]":
        """The versions of a model that are served."""
        ...

    def resolve(self, model: str, version: str) -> "Served":
        """Find who answers for a model, or raise."""
        ...

    def submit_call(self, model: str, version: str, request: Request, sink: Sink) -> Ticket:
        """Send a request of one model to another, or raise."""
        ...

    async def load(
        self, model: str, *, config: str | None, files: Mapping[str, bytes] | None
    ) -> None:
        """Have a model loaded, or loaded again."""
        ...

    async def unload(self, model: str, *, unload_dependents: bool) -> None:
        """Have a model taken down."""
        ...


class EngineHost:
    """The engine as models see it: see :class:`modelport.runtimes.base.Host`."""

    def __init__(self, engine: Models) -> None:
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()

    def log(self, level: str, message: str, *, model: str) -> None:
        """Write a line; ``level`` is error, warning, info or verbose."""
        with contextlib.suppress(KeyError):
            _MODEL_LOG.log(_LEVELS[level], "%s", message, extra={"model": model})

    # Other models.

    def infer(self, model: str, version: str, request: Request, sink: Sink) -> Ticket:
        """Send a request to another model."""
        call = _Call(self._engine, model, version, request, sink)
        call.post(call.submit)
        return call

    def ask(self, question: Question, done: Answer) -> None:
        """Load or unload a model, or tell whether one is ready."""
        completions = _completions(self._engine)
        if not completions.post(self._begin, question, done):
            done(Unavailable("Server exiting"))

    def may_wait(self, *, model: str) -> bool:
        """Whether this is not the event loop; what asks there runs elsewhere from now on."""
        if threading.get_ident() != _completions(self._engine).thread_id:
            return True
        for served in self._engine.deployments(model):
            if isinstance(served, Deployment):
                served.stay_off_loop()
        return False

    def _begin(self, question: Question, done: Answer) -> None:
        if question.verb == "is_ready":
            done(self._is_ready(question))
            return
        task = asyncio.get_running_loop().create_task(self._manage(question, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_ready(self, question: Question) -> bool:
        try:
            return self._engine.resolve(question.model, question.version).is_ready()
        except ModelportError:
            return False

    async def _manage(self, question: Question, done: Answer) -> None:
        try:
            if question.verb == "load":
                await self._engine.load(
                    question.model, config=question.config, files=question.files or None
                )
            else:
                await self._engine.unload(
                    question.model, unload_dependents=question.unload_dependents
                )
        except ModelportError as exc:
            done(exc)
        except Exception as exc:
            done(ModelFailed(f"{question.verb} of model '{question.model}' failed: {exc}"))
        else:
            done(True)

    # Metrics.

    def measure(self, measure: Measure) -> None:
        """Count what a model has measured."""
        self._engine.custom_metrics.apply(measure)

    def measured(self, family: str, labels: Labels) -> float:
        """What a metric of a model stands at."""
        return self._engine.custom_metrics.value(family, labels)


class _Call:
    """A request of a model, on its way to another: a ticket that any thread may use."""

    def __init__(
        self, engine: Models, model: str, version: str, request: Request, sink: Sink
    ) -> None:
        self._engine = engine
        self._model = model
        self._version = version
        self._request = request
        self._sink = sink
        self._ticket: Ticket | None = None
        self._is_cancelled = False

    def submit(self) -> None:
        """Give the request to the engine."""
        if self._is_cancelled:
            return
        try:
            self._ticket = self._engine.submit_call(
                self._model, self._version, self._request, self._sink
            )
        except ModelportError as exc:
            self._sink.fail(exc)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._is_cancelled = True
        self.post(self._cancel)

    def resume(self) -> None:
        """More responses are welcome again."""
        self.post(self._resume)

    def post(self, call: Callable[[], None]) -> None:
        """Do something on the event loop, after all that was posted before."""
        if not _completions(self._engine).post(call):
            self._sink.fail(Unavailable("Server exiting"))

    def _cancel(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()

    def _resume(self) -> None:
        if self._ticket is not None:
            self._ticket.resume()


def _completions(engine: Models) -> "Completions":
    completions = engine.completions
    if completions is None:
        raise Unavailable("Server not ready")
    return completions


_MODEL_LOG = logging.getLogger("modelport.model")
_LEVELS = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "verbose": logging.DEBUG,
}
