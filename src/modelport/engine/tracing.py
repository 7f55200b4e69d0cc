"""Traces of single requests: which are traced, and what is noted of them.

While nothing is traced, nothing of this is in the way of a request: the engine gives callers an
:class:`Entrance` in place of the deployment only for models that are traced now.

Settings come in scopes: one for all models, and one for each model that has settings of its own.
Counters belong to the scope, so that a rate for all models counts the requests of all of them.

Source: Triton, "Trace" and "Trace Extension".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from modelport.clock import Clock
from modelport.engine.trace_settings import TraceSettings, parse_setting
from modelport.errors import InvalidRequest, ModelportError, Unsupported
from modelport.messages import (
    Arrival,
    RemoteSink,
    Request,
    Response,
    Sink,
    Target,
    Tensors,
    Ticket,
)
from modelport.specs import ModelConfig
from modelport.stats import ModelStatistics
from modelport.tensors import Tensor

if TYPE_CHECKING:
    from modelport.engine.deployment import Deployment
    from modelport.engine.pipeline import Pipeline

__all__ = ["Entrance", "Trace", "TracedTensor", "Traces"]

MOST_TRACED_VALUES: Final = 4096
"""Of one tensor; what comes after them is left out."""

SettingValues = Sequence[str] | None


class TracedTensor(Struct, frozen=True):
    """A tensor as a trace shows it; ``data`` may be cut."""

    activity: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[object, ...]


class Trace(Struct, eq=False):
    """What is noted of one request.

    Attributes:
        id: Counts the traces.
        model: Its name.
        version: Of the model.
        request_id: The caller's own; "" for none.
        timestamps: Names and nanoseconds of a monotonic clock, in their order.
        tensors: Where these are traced.
        log_frequency: Traces to a file; 0 for all in one.
        parent: Of the ensemble, where the request is one of its steps, or of the request for which
            a model has made this one.
        steps: Traces of the steps of an ensemble, or of the requests that the model made, as they
            ended. One that ends after this one, because another step has failed or because the
            model did not wait for it, is left out.
        arrival: How the request came; ``None`` if it came from inside.
        is_executed: Whether a model has run for it.
        is_sending: Whether a response of it was handed to the connection.
        is_answered: Whether nothing more will come of the model.
        is_over: Whether nothing more will be noted.
    """

    id: int
    model: str
    version: int
    request_id: str
    log_frequency: int
    has_timestamps: bool
    has_tensors: bool
    timestamps: list[tuple[str, int]] = field(default_factory=list)
    tensors: list[TracedTensor] = field(default_factory=list)
    parent: "Trace | None" = None
    steps: "list[Trace]" = field(default_factory=list)
    traces: "Traces | None" = None
    arrival: Arrival | None = None
    is_executed: bool = False
    is_sending: bool = False
    is_answered: bool = False
    is_over: bool = False

    def __repr__(self) -> str:
        return f"<Trace {self.id} of {self.model} v{self.version}>"

    def mark(self, name: str, at_ns: int) -> None:
        """Note when something happened; what happens after the end is not noted."""
        if self.has_timestamps and not self.is_over:
            self.timestamps.append((name, at_ns))

    def executed(self, started_ns: int, ready_ns: int, computed_ns: int, ended_ns: int) -> None:
        """Note how the batch went that the request was in. Idempotent."""
        if self.is_executed:
            return
        self.is_executed = True
        self.mark("COMPUTE_START", started_ns)
        self.mark("COMPUTE_INPUT_END", ready_ns)
        self.mark("COMPUTE_OUTPUT_START", computed_ns)
        self.mark("COMPUTE_END", ended_ns)

    def submit_step(self, target: Target, request: Request, sink: Sink) -> Ticket:
        """Submit what a step of the request is, with a trace of its own."""
        assert self.traces is not None
        trace = self.traces.begin_step(self, target, request)
        return self.traces.submit(trace, target, request, sink)

    def show(self, activity: str, tensors: Sequence[Tensor]) -> None:
        """Note what went in or came out."""
        if not self.has_tensors:
            return
        for tensor in tensors:
            values = tuple(tensor.array.ravel()[:MOST_TRACED_VALUES].tolist())
            self.tensors.append(
                TracedTensor(activity, tensor.name, tensor.datatype.name, tensor.shape, values)
            )


class _Scope:
    """Settings of all models, or of one, and what has been traced under them.

    Attributes:
        own: Those that were set here; the others are those of the scope above.
    """

    def __init__(self) -> None:
        self.own: dict[str, Any] = {}
        self.seen = 0
        self.traced = 0


class Traces:
    """Decides what is traced. Used on the event loop only.

    Args:
        start: The settings at start, for all models.
        file: Where traces go; "" for nowhere, and then nothing is traced.
        keep: Takes the traces that are over.
        clock: For the times.
    """

    def __init__(
        self, start: TraceSettings, file: str, keep: Callable[[Trace], None], clock: Clock
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._start = start
        self._file = file
        self._keep = keep
        self.now_ns = clock.now_ns
        self._scope = _Scope()
        self._scope_by_model: dict[str, _Scope] = {}
        self._last_id = 0
        self._open_by_id: dict[str, Trace] = {}

    # Settings.

    def settings(self, model: str | None = None) -> dict[str, str | list[str]]:
        """Say what is traced, of all models or of one; in the words of Triton."""
        settings = self._settings(model)
        left = settings.count
        if left > 0:
            left = max(0, left - self._scope_of(model).traced)
        return {
            "trace_level": list(settings.levels) or ["OFF"],
            "trace_rate": str(settings.rate),
            "trace_count": str(left),
            "log_frequency": str(settings.log_frequency),
            "trace_file": self._file,
            "trace_mode": "triton",
        }

    def change(self, model: str | None, changes: Mapping[str, SettingValues]) -> None:
        """Trace otherwise from now on; all of the changes are made, or none.

        Args:
            model: Whose settings; ``None`` for those of all models that have none of their own.
            changes: Values by the names of ``settings``; ``None`` goes back to what holds without.

        Raises:
            InvalidRequest: A name is unknown, or a value is.
            Unsupported: A setting cannot be changed while the server runs.
        """
        parsed = {name: _parsed(name, values) for name, values in changes.items()}
        if not parsed:
            return
        scope = self._scope if model is None else self._scope_by_model.get(model) or _Scope()
        for name, value in parsed.items():
            if value is None:
                scope.own.pop(_FIELDS[name], None)
            else:
                scope.own[_FIELDS[name]] = value
        scope.seen = scope.traced = 0
        if model is not None:
            if scope.own:
                self._scope_by_model[model] = scope
            else:
                self._scope_by_model.pop(model, None)
        self.on_change()

    def _settings(self, model: str | None) -> TraceSettings:
        settings = replace(self._start, **self._scope.own)
        if model in self._scope_by_model:
            settings = replace(settings, **self._scope_by_model[model].own)
        return settings

    def _scope_of(self, model: str | None) -> _Scope:
        return self._scope if model is None else self._scope_by_model.get(model, self._scope)

    # Requests.

    def concerns(self, model: str) -> bool:
        """Whether requests to a model may be traced now."""
        settings = self._settings(model)
        return bool(self._file and settings.levels and settings.count)

    def begin(
        self, model: str, version: int, request: Request, sink: Sink | None = None
    ) -> Trace | None:
        """Count a request, and begin its trace if it is its turn."""
        scope, settings = self._scope_of(model), self._settings(model)
        if 0 <= settings.count <= scope.traced:
            return None
        scope.seen += 1
        if scope.seen % settings.rate:
            return None
        scope.traced += 1
        trace = Trace(
            self._next_id(),
            model,
            version,
            request.id,
            settings.log_frequency,
            "TIMESTAMPS" in settings.levels,
            "TENSORS" in settings.levels,
            traces=self,
        )
        if isinstance(sink, RemoteSink):
            trace.arrival = sink.arrival()
        self._note_start(trace, request)
        return trace

    def begin_step(self, parent: Trace, target: Target, request: Request) -> Trace:
        """Begin the trace of a part of a request; how much is noted is as for the whole."""
        trace = replace(
            parent,
            id=self._next_id(),
            model=target.name,
            version=target.version,
            request_id=request.id,
            timestamps=[],
            tensors=[],
            parent=parent,
            steps=[],
            arrival=None,
            is_executed=False,
            is_sending=False,
            is_answered=False,
        )
        self._note_start(trace, request)
        return trace

    def asker(self, request: Request) -> Trace | None:
        """Find the trace that a model has handed on to a request of its own, if it is not over."""
        return self._open_by_id.get(request.trace_id)

    def submit(self, trace: Trace, target: Target, request: Request, sink: Sink) -> Ticket:
        """Submit a request that is traced; see ``Deployment.submit``."""
        request.trace = trace
        request.trace_id = str(trace.id)
        self._open_by_id[request.trace_id] = trace
        try:
            ticket = target.submit(request, _TracedSink(sink, trace, self))
        except ModelportError:
            self.end(trace)
            raise
        return ticket if trace.is_over else _TracedTicket(ticket, trace, self)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _note_start(self, trace: Trace, request: Request) -> None:
        now_ns = self.now_ns()
        arrival = trace.arrival
        if arrival is not None:
            trace.mark(arrival.stages[0], arrival.begun_ns)
            trace.mark(arrival.stages[1], arrival.received_ns)
        trace.mark("REQUEST_START", request.received_ns or now_ns)
        trace.mark("QUEUE_START", now_ns)
        payload = request.payload
        if isinstance(payload, Tensors):
            trace.show("TENSOR_QUEUE_INPUT", payload.tensors)

    def sending(self, trace: Trace) -> None:
        """A response is handed to the connection now."""
        arrival = trace.arrival
        if arrival is not None and not trace.is_sending:
            trace.is_sending = True
            trace.mark(arrival.stages[2], self.now_ns())

    def answered(self, trace: Trace) -> None:
        """The model has given its last response. Idempotent."""
        if not trace.is_answered:
            trace.is_answered = True
            trace.mark("REQUEST_END", self.now_ns())

    def end(self, trace: Trace) -> None:
        """A request is over, or its caller has gone. Idempotent."""
        if trace.is_over:
            return
        self.answered(trace)
        if trace.arrival is not None and trace.is_sending:
            trace.mark(trace.arrival.stages[3], self.now_ns())
        trace.is_over = True
        self._open_by_id.pop(str(trace.id), None)
        if trace.parent is None:
            self._keep(trace)
        elif not trace.parent.is_over:
            trace.parent.steps.append(trace)


class Entrance:
    """A deployment whose requests may be traced; looks like it to its callers.

    Attributes:
        served: The deployment.
        memo: For protocols, apart from the deployment's: what they keep there leads here.
    """

    def __init__(self, served: "Deployment | Pipeline", traces: Traces) -> None:
        self.served = served
        self.name = served.name
        self.version = served.version
        self.memo: dict[str, Any] = {}
        self._traces = traces

    def __repr__(self) -> str:
        return f"<Entrance to {self.served!r}>"

    @property
    def config(self) -> ModelConfig:
        """Complete."""
        return self.served.config

    @property
    def config_json(self) -> str:
        """The same in Triton's JSON form."""
        return self.served.config_json

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Class labels by output."""
        return self.served.labels

    @property
    def statistics(self) -> ModelStatistics:
        """What it has done."""
        return self.served.statistics

    @property
    def is_decoupled(self) -> bool:
        """Whether a request may have no response, or many."""
        return self.served.is_decoupled

    def is_ready(self) -> bool:
        """Whether it can still answer."""
        return self.served.is_ready()

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Take a request, or raise; see ``Deployment.submit``."""
        trace = self._traces.begin(self.name, self.version, request, sink)
        if trace is None:
            return self.served.submit(request, sink)
        return self._traces.submit(trace, self.served, request, sink)


class _TracedTicket:
    """Ends the trace of a request whose caller goes away."""

    __slots__ = ("_ticket", "_trace", "_traces")

    def __init__(self, ticket: Ticket, trace: Trace, traces: Traces) -> None:
        self._ticket = ticket
        self._trace = trace
        self._traces = traces

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._ticket.cancel()
        self._traces.end(self._trace)

    def resume(self) -> None:
        """More responses are welcome again."""
        self._ticket.resume()


class _TracedSink:
    """Notes when the end is there, and when it has been handed on."""

    __slots__ = ("_sink", "_trace", "_traces")

    def __init__(self, sink: Sink, trace: Trace, traces: Traces) -> None:
        self._sink = sink
        self._trace = trace
        self._traces = traces

    def push(self, response: Response, final: bool) -> bool:
        """Hand a response on."""
        self._trace.show("TENSOR_BACKEND_OUTPUT", response.outputs)
        if not final:
            self._traces.sending(self._trace)
            return self._sink.push(response, final)
        self._completed()
        is_welcome = self._sink.push(response, final)
        self._traces.end(self._trace)
        return is_welcome

    def end(self) -> None:
        """Hand the end on."""
        self._completed()
        self._sink.end()
        self._traces.end(self._trace)

    def fail(self, error: ModelportError) -> None:
        """Hand an error on."""
        self._completed()
        self._sink.fail(error)
        self._traces.end(self._trace)

    def _completed(self) -> None:
        trace, traces = self._trace, self._traces
        if trace.arrival is None:
            # Before whoever asked from inside goes on: the last step of an ensemble ends it.
            traces.end(trace)
            return
        traces.answered(trace)
        trace.mark("INFER_RESPONSE_COMPLETE", traces.now_ns())
        traces.sending(trace)


def _parsed(name: str, values: SettingValues) -> Any:
    if name in _READ_ONLY:
        raise Unsupported(
            f"{_READ_ONLY[name]} can not be updated through network protocol. "
            "Set it when the server starts: --trace-config."
        )
    if name not in _FIELDS:
        raise InvalidRequest(
            f"unknown trace setting '{name[:40]}'. There are {', '.join((*_FIELDS, *_READ_ONLY))}."
        )
    return None if values is None else parse_setting(name, values)


_FIELDS: Final = {
    "trace_level": "levels",
    "trace_rate": "rate",
    "trace_count": "count",
    "log_frequency": "log_frequency",
}
_READ_ONLY: Final = {"trace_file": "trace file location", "trace_mode": "trace mode"}
