"""Ensembles: several models as one, by dataflow.

A step starts as soon as all its inputs are there, so steps that do not need each other run side by
side. Tensors go by name from step to step and are never copied; one is let go when no step that
has not started yet needs it.

A step that streams makes a stream of the whole: for each of its responses the steps after it run
anew, in a branch of their own, and the ensemble responds once for each branch, in order. What that
means for several such steps is told in :mod:`modelport.engine.flow`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from modelport.clock import Clock
from modelport.engine.admission import Admission
from modelport.engine.flow import Flow
from modelport.engine.instances import Instance
from modelport.engine.plan import Plan, Step
from modelport.engine.reshape import Reshaping
from modelport.errors import (
    Cancelled,
    Kind,
    LoadFailed,
    ModelFailed,
    ModelportError,
    Overloaded,
    Unavailable,
)
from modelport.messages import Request, Response, Sink, Tensors, Ticket
from modelport.repository.loading import ModelVersion
from modelport.stats import ModelStatistics
from modelport.tensors import Tensor

if TYPE_CHECKING:
    from modelport.engine.deployment import Deployment

__all__ = ["MAX_OPEN_BRANCHES", "Pipeline", "Served"]

Served: TypeAlias = "Deployment | Pipeline"
"""A version that takes requests."""

MAX_OPEN_BRANCHES = 16
"""Responses of a step that may be on their way through the steps after it, before it waits.

What ``max_inflight_requests`` of an ensemble says otherwise.
"""


class Pipeline:
    """A version of an ensemble that takes requests. Looks like a ``Deployment`` to its callers.

    Args:
        version: Of the ensemble; its configuration has been held against its members.
        resolve: Finds a member at the time it is needed, so that members can be reloaded.
        clock: For statistics.

    Raises:
        LoadFailed: If a tensor has a ``reshape``.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        resolve: Callable[[str, str | None], Served],
        clock: Clock,
    ) -> None:
        config = version.config
        self.source = version
        self.name = version.name
        self.version = version.version
        self.config = config
        self.config_json = version.config_json
        self.labels = version.labels
        self.statistics = ModelStatistics(
            load_s=version.load_s, first_response_buckets_ms=config.first_response_buckets_ms
        )
        self.memo: dict[str, Any] = {}
        self.is_decoupled = config.is_decoupled
        self.resolve = resolve
        self.now_ns = clock.now_ns
        self.plan = Plan.of(config)
        self.output_names = tuple(output.name for output in config.output)
        scheduling = config.ensemble_scheduling
        self.most_open = (
            scheduling.max_inflight_requests if scheduling else 0
        ) or MAX_OPEN_BRANCHES
        self.optional = tuple(entry.name for entry in config.input if entry.optional)
        self._admission = Admission(config)
        self._is_closed = False
        self._drained: list[asyncio.Future[None]] = []
        self._runs: set[_Run] = set()
        self._check()

    def __repr__(self) -> str:
        return f"<Pipeline {self.name} v{self.version} in_flight={self.in_flight}>"

    def _check(self) -> None:
        if Reshaping.of(self.config) is not None:
            raise LoadFailed(
                "an ensemble has no shapes of its own; put reshape into the model of the step"
            )

    @property
    def instances(self) -> Sequence[Instance]:
        """None of its own."""
        return ()

    @property
    def in_flight(self) -> int:
        """Requests that were admitted and are not over."""
        return len(self._runs)

    def is_ready(self) -> bool:
        """Whether every member takes requests."""
        return not self.why_not_ready()

    def why_not_ready(self) -> str:
        """Say which member does not take requests; "" if all do."""
        for step in self.plan.steps:
            try:
                if self.resolve(step.model, step.version).is_ready():
                    continue
            except ModelportError:
                pass
            return f"model '{step.model}', which it needs, is not ready"
        return ""

    def needs(self, member: Served) -> bool:
        """Whether requests in flight here may still come to this very deployment."""
        steps = [step for step in self.plan.steps if step.model == member.name]
        try:
            return any(self.resolve(step.model, step.version) is member for step in steps)
        except ModelportError:
            return False

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Take a request, or raise; see ``Deployment.submit``."""
        rows = self._admission.rows(request)
        if self._is_closed:
            raise Unavailable(
                f"Request for unknown model: '{self.name}' version {self.version} is not at ready "
                "state"
            )
        run = _Run(self, request, sink, rows, request.received_ns or self.now_ns())
        self._runs.add(run)
        run.advance()
        return run

    def ended(self, run: "_Run", error: ModelportError | None) -> None:
        """Count a run that is over."""
        self._runs.discard(run)
        total_ns = self.now_ns() - run.started_ns
        if error is None:
            self.statistics.record_execution(run.started_ns, run.rows, 0, total_ns, 0)
            self.statistics.record_success(run.rows, total_ns, 0, 0, total_ns, 0)
        else:
            reason = "CANCELED" if error.kind is Kind.CANCELLED else "OTHER"
            self.statistics.record_failure(total_ns, reason)
        if self._drained and not self._runs:
            waiting, self._drained = self._drained, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def drain(self) -> None:
        """Wait until no request is in flight."""
        if self._runs:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drained.append(future)
            await future

    def close(self) -> None:
        """Fail what is still in flight. New requests are refused."""
        self._is_closed = True
        for run in list(self._runs):
            run.fail(Unavailable("Server exiting"))

    async def wait_closed(self) -> None:
        """Nothing of an ensemble's own has to end."""


class _Run:
    """One request on its way through the steps."""

    __slots__ = (
        "_absent",
        "_has_more_to_do",
        "_is_advancing",
        "_is_over",
        "_is_paused",
        "_sink",
        "_tickets",
        "_trunk",
        "pipeline",
        "request",
        "rows",
        "started_ns",
    )

    def __init__(
        self, pipeline: Pipeline, request: Request, sink: Sink, rows: int, started_ns: int
    ) -> None:
        self.pipeline = pipeline
        self.request = request
        self.rows = rows
        self.started_ns = started_ns
        self._sink = sink
        self._trunk = Flow(request.payload.tensors, pipeline.plan.steps)
        # Optional inputs that the caller left out: the steps do without them.
        self._absent = [name for name in pipeline.optional if name not in self._trunk.by_name]
        self._tickets: dict[_StepSink, Ticket] = {}
        self._is_paused = False
        self._is_over = False
        self._is_advancing = False
        self._has_more_to_do = False

    # The caller's side.

    def cancel(self) -> None:
        """Nobody waits any more: tell every member."""
        if not self._is_over:
            self._end(Cancelled("cancelled by the caller"))
            self._cancel_members()

    def resume(self) -> None:
        """Give the sink what was held back for it, and let the stream go on."""
        self._is_paused = False
        self.advance()

    # From step to step.

    def advance(self) -> None:
        """Start every step whose inputs are there, and hand on what is finished.

        A step that runs at once, or a sink that sends on at once, comes back here before the first
        call has ended: that one then looks again. So the stack does not grow with the graph.
        """
        self._has_more_to_do = True
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._has_more_to_do and not self._is_over:
                self._has_more_to_do = False
                for flow in list(self._trunk.walk()):
                    self._start_ready(flow)
                if not self._is_over:
                    self._respond()
        finally:
            self._is_advancing = False

    def _start_ready(self, flow: Flow) -> None:
        # One at a time: a step that runs at once changes what is there, and who needs it.
        while not self._is_over:
            ready = flow.ready(self._absent)
            if ready is None:
                return
            flow.waiting.remove(ready)
            flow.running += 1
            self._start_step(flow, ready)

    def _start_step(self, flow: Flow, step: Step) -> None:
        mine = self.request
        # A branch shares with the other branches whatever it has from the trunk.
        request = Request(
            Tensors(
                [
                    _given(
                        tensor,
                        inner,
                        is_shared=outer in step.shared or outer not in flow.by_name,
                    )
                    for inner, outer in step.inputs
                    if (tensor := flow.find(outer)) is not None
                ]
            ),
            id=mine.id,
            outputs=tuple(step.outputs),
            parameters=mine.parameters,
        )
        if mine.trail:
            request.trail = mine.trail
        request.principal = mine.principal
        request.trace_id = mine.trace_id
        request.priority = mine.priority
        request.sequence_id = mine.sequence_id
        request.sequence_start = mine.sequence_start
        request.sequence_end = mine.sequence_end
        request.timeout_us = mine.timeout_us
        request.deadline_ns = mine.deadline_ns
        sink = _StepSink(self, flow, step)
        try:
            member = self.pipeline.resolve(step.model, step.version)
            sink.is_decoupled = member.is_decoupled
            if mine.trace is None:
                ticket = member.submit(request, sink)
            else:
                ticket = mine.trace.submit_step(member, request, sink)
        except ModelportError as exc:
            self.step_failed(step, exc)
            return
        if self._is_over:
            ticket.cancel()
        elif not sink.is_over:
            self._tickets[sink] = ticket

    def step_answered(self, sink: "_StepSink", response: Response) -> None:
        """A member has answered once and for all: its outputs are there for the others."""
        if self._is_over:
            return
        self._tickets.pop(sink, None)
        flow = sink.flow
        flow.running -= 1
        flow.by_name.update((tensor.name, tensor) for tensor in _outputs(sink.step, response))
        flow.drop_unneeded(self.pipeline.output_names)
        self.advance()

    def step_streamed(self, sink: "_StepSink", response: Response) -> bool:
        """A member has given one response of a stream: it goes into a branch.

        Returns:
            Whether another one is welcome now.
        """
        if self._is_over or not self._is_streaming(sink):
            return False
        flow, step = sink.flow, sink.step
        flow.add_response(step, _outputs(step, response))
        self.advance()
        is_welcome = not self._is_paused and not flow.is_ahead(step, self.pipeline.most_open)
        if not is_welcome:
            flow.streams[step].held = sink
        return is_welcome

    def step_ended(self, sink: "_StepSink") -> None:
        """A member's stream is over."""
        if self._is_over:
            return
        if not sink.is_decoupled:
            error = ModelFailed(f"model '{sink.step.model}' gave no response")
            self.step_failed(sink.step, error)
            return
        if not self._is_streaming(sink):
            return
        self._tickets.pop(sink, None)
        sink.flow.streams[sink.step].has_ended = True
        self.advance()

    def step_failed(self, step: Step, error: ModelportError) -> None:
        """A member failed, and with it the whole request."""
        where = f"in ensemble '{self.pipeline.name}', {step.title}: {error.text}"
        if isinstance(error, Overloaded):
            self.fail(Overloaded(where, retry_after_s=error.retry_after_s))
        else:
            self.fail(ModelFailed(where, code=error.kind))

    def fail(self, error: ModelportError) -> None:
        """End the whole request."""
        if self._is_over:
            return
        self._end(error)
        self._cancel_members()
        self._sink.fail(error)

    def _is_streaming(self, sink: "_StepSink") -> bool:
        """Let the steps after this one run in branches, if they may."""
        if sink.step in sink.flow.streams:
            return True
        if not self.pipeline.is_decoupled:
            error = ModelFailed(
                "it streams, and did not when the ensemble was loaded; load it anew"
            )
            self.step_failed(sink.step, error)
            return False
        sink.flow.begin_stream(sink.step, self.pipeline.plan.after[sink.step])
        return True

    # Towards the caller.

    def _respond(self) -> None:
        """Give what is finished, in order; a leaf that waits holds back those after it."""
        trunk = self._trunk
        while not self._is_paused and not self._is_over:
            leaf = trunk.next_leaf()
            if leaf is None or not self._is_finished(leaf):
                break
            if leaf.parent is not None:
                leaf.parent.cut()
            self._give(leaf, final=leaf.parent is None or self._has_ended())
        if self._is_over:
            return
        if self._has_ended():
            self._end(None)
            self._sink.end()
        elif not self._is_paused:
            self._let_streams_go_on()

    def _is_finished(self, leaf: Flow) -> bool:
        """Whether all of a leaf is there, or nothing more can come."""
        is_whole = not (leaf.waiting or leaf.running) and all(
            leaf.find(name) is not None or name in self._absent
            for name in self.pipeline.output_names
        )
        return is_whole or not (leaf.may_get_more() or self._has_more_to_do)

    def _has_ended(self) -> bool:
        return self._trunk.is_over() and not self._has_more_to_do

    def _give(self, leaf: Flow, *, final: bool) -> None:
        names = [name for name in self.pipeline.output_names if name not in self._absent]
        found = {name: tensor for name in names if (tensor := leaf.find(name)) is not None}
        if len(found) < len(names):
            self.fail(self._why_missing(leaf, [name for name in names if name not in found]))
            return
        wanted = self.request.outputs
        response = Response([found[name] for name in names if not wanted or name in wanted])
        if final:
            self._end(None)
        self._is_paused = not self._sink.push(response, final) and not final

    def _why_missing(self, leaf: Flow, missing: list[str]) -> ModelFailed:
        uneven = leaf.uneven_streams()
        if uneven:
            counts = ", ".join(f"{step.title} gave {count}" for step, count in uneven)
            return ModelFailed(
                f"in ensemble '{self.pipeline.name}', steps stream side by side and have to give "
                f"the same number of responses: {counts}"
            )
        # The graph was checked at load: only a member that kept an output back comes here.
        return ModelFailed(
            f"in ensemble '{self.pipeline.name}', unexpected deadlock, at least one output "
            f"is not set while no more ensemble steps can be made: {missing}"
        )

    def _let_streams_go_on(self) -> None:
        most = self.pipeline.most_open
        for flow in list(self._trunk.walk()):
            for step, stream in flow.streams.items():
                if stream.held is not None and not flow.is_ahead(step, max(1, most // 2)):
                    held, stream.held = stream.held, None
                    ticket = self._tickets.get(held)
                    if ticket is not None:
                        ticket.resume()

    # The end.

    def _end(self, error: ModelportError | None) -> None:
        self._is_over = True
        self.pipeline.ended(self, error)

    def _cancel_members(self) -> None:
        tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            ticket.cancel()


class _StepSink:
    """Where the answers of one member to one flow go."""

    __slots__ = ("flow", "is_decoupled", "is_over", "run", "step")

    def __init__(self, run: _Run, flow: Flow, step: Step) -> None:
        self.run = run
        self.flow = flow
        self.step = step
        self.is_decoupled = False
        self.is_over = False

    def push(self, response: Response, final: bool) -> bool:
        if final and not self.is_decoupled:
            self.is_over = True
            self.run.step_answered(self, response)
            return True
        welcome = self.run.step_streamed(self, response)
        if final:
            self.end()
        return welcome

    def end(self) -> None:
        self.is_over = True
        self.run.step_ended(self)

    def fail(self, error: ModelportError) -> None:
        self.is_over = True
        self.run.step_failed(self.step, error)


def _outputs(step: Step, response: Response) -> list[Tensor]:
    """Give a member's outputs the ensemble's names; those that share memory become read-only."""
    tensors = [tensor for tensor in response.outputs if tensor.name in step.outputs]
    owners = Counter(_owner(tensor) for tensor in tensors)
    return [
        _given(tensor, step.outputs[tensor.name], is_shared=owners[_owner(tensor)] > 1)
        for tensor in tensors
    ]


def _owner(tensor: Tensor) -> int:
    return id(tensor.array if tensor.array.base is None else tensor.array.base)


def _given(tensor: Tensor, name: str, *, is_shared: bool) -> Tensor:
    """Name a tensor anew; models may write to their inputs, so what others get too is read-only."""
    array = tensor.array
    if is_shared and array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return Tensor(name, tensor.datatype, array)
