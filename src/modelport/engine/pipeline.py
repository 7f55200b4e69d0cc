"""Ensembles: several models as one, by dataflow.

A step starts as soon as all its inputs are there, so steps that do not need each other run side by
side. Tensors go by name from step to step and are never copied; one is let go when no step that
has not started yet needs it.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelport.clock import Clock
from modelport.dtypes import DataType
from modelport.engine.admission import Admission
from modelport.errors import Cancelled, Kind, ModelFailed, ModelportError
from modelport.messages import Request, Response, Sink, Tensors, Ticket
from modelport.repository.repository import ModelVersion
from modelport.specs import EnsembleStep
from modelport.stats import ModelStatistics
from modelport.tensors import Tensor

if TYPE_CHECKING:
    from modelport.engine.engine import Served

__all__ = ["Pipeline"]


class Pipeline:
    """A version of an ensemble that takes requests. Looks like a ``Deployment`` to its callers.

    Args:
        version: Of the ensemble; its configuration has been held against its members.
        resolve: Finds a member at the time it is needed, so that members can be reloaded.
        clock: For statistics.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        resolve: "Callable[[str, str | None], Served]",
        clock: Clock,
    ) -> None:
        config = version.config
        self.source = version
        self.name = version.name
        self.version = version.version
        self.config = config
        self.config_json = version.config_json
        self.labels = version.labels
        self.statistics = ModelStatistics(load_s=version.load_s)
        self.in_flight = 0
        self.memo: dict[str, Any] = {}
        self.is_closing = False
        self.is_decoupled = config.is_decoupled
        self.resolve = resolve
        self.now_ns = clock.now_ns
        self.steps = config.ensemble_scheduling.step if config.ensemble_scheduling else ()
        self._admission = Admission(config)
        self._drained: list[asyncio.Future[None]] = []
        self._runs: set[_Run] = set()

    def __repr__(self) -> str:
        return f"<Pipeline {self.name} v{self.version} in_flight={self.in_flight}>"

    def is_ready(self) -> bool:
        """Whether every member takes requests."""
        try:
            return all(self._member(step).is_ready() for step in self.steps)
        except ModelportError:
            return False

    def _member(self, step: EnsembleStep) -> "Served":
        return self.resolve(step.model_name, step_version(step))

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Take a request, or raise; see ``Deployment.submit``."""
        rows = self._admission.rows(request)
        run = _Run(self, request, sink, rows, request.received_ns or self.now_ns())
        self.in_flight += 1
        self.statistics.pending += 1
        self._runs.add(run)
        run.start()
        return run

    def ended(self, run: "_Run", error: ModelportError | None) -> None:
        """Count a run that is over."""
        self._runs.discard(run)
        self.in_flight -= 1
        self.statistics.pending -= 1
        total_ns = self.now_ns() - run.started_ns
        if error is None:
            self.statistics.record_execution(run.started_ns, run.rows, 0, total_ns, 0)
            self.statistics.record_success(run.rows, total_ns, 0, 0, total_ns, 0)
        else:
            reason = "CANCELED" if error.kind is Kind.CANCELLED else "OTHER"
            self.statistics.record_failure(total_ns, reason)
        if self._drained and self.in_flight == 0:
            waiting, self._drained = self._drained, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def drain(self) -> None:
        """Wait until no request is in flight."""
        self.is_closing = True
        if self.in_flight:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drained.append(future)
            await future

    def close(self) -> None:
        """Cancel what is still in flight."""
        for run in list(self._runs):
            run.cancel()


class _Run:
    """One request on its way through the steps."""

    __slots__ = (
        "_by_name",
        "_is_over",
        "_running",
        "_sink",
        "_tickets",
        "_waiting",
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
        self._by_name = {tensor.name: tensor for tensor in request.payload.tensors}
        self._waiting = list(pipeline.steps)
        self._running = 0
        self._tickets: list[Ticket] = []
        self._is_over = False

    def start(self) -> None:
        """Start every step whose inputs are there."""
        while not self._is_over:
            ready = [step for step in self._waiting if self._has_inputs(step)]
            if not ready:
                break
            # All are taken out first: a step that runs at once comes back here before this ends.
            self._waiting = [step for step in self._waiting if step not in ready]
            self._running += len(ready)
            for step in ready:
                self._start_step(step)
        if not self._is_over and self._running == 0:
            self._finish()

    def _has_inputs(self, step: EnsembleStep) -> bool:
        return all(name in self._by_name for name in step.input_map.values())

    def _start_step(self, step: EnsembleStep) -> None:
        if self._is_over:
            return
        tensors = [_renamed(self._by_name[outer], inner) for inner, outer in step.input_map.items()]
        request = Request(
            Tensors(tensors),
            id=self.request.id,
            outputs=tuple(step.output_map),
            parameters=self.request.parameters,
        )
        request.principal = self.request.principal
        request.trace_id = self.request.trace_id
        request.deadline_ns = self.request.deadline_ns
        try:
            member = self.pipeline.resolve(step.model_name, step_version(step))
            self._tickets.append(member.submit(request, _StepSink(self, step)))
        except ModelportError as exc:
            self.step_failed(step, exc)

    def step_answered(self, step: EnsembleStep, response: Response) -> None:
        """A member has answered: its outputs are there for the others."""
        if self._is_over:
            return
        self._running -= 1
        for tensor in response.outputs:
            outer = step.output_map.get(tensor.name)
            if outer is not None:
                self._by_name[outer] = _renamed(tensor, outer)
        self._drop_unneeded()
        self.start()

    def step_failed(self, step: EnsembleStep, error: ModelportError) -> None:
        """A member failed, and with it the whole request."""
        if self._is_over:
            return
        where = f"in ensemble '{self.pipeline.name}', step '{step.model_name}': {error.text}"
        failure = ModelFailed(where, code=error.kind)
        self._end(failure)
        self._cancel_members()
        self._sink.fail(failure)

    def _drop_unneeded(self) -> None:
        needed = {name for step in self._waiting for name in step.input_map.values()}
        needed.update(output.name for output in self.pipeline.config.output)
        for name in [name for name in self._by_name if name not in needed]:
            del self._by_name[name]

    def _finish(self) -> None:
        config = self.pipeline.config
        wanted = self.request.outputs
        missing = [o.name for o in config.output if o.name not in self._by_name]
        if missing:
            # The graph was checked at load: only a member that kept an output back comes here.
            failure = ModelFailed(
                f"in ensemble '{config.name}', unexpected deadlock, at least one output is not set "
                f"while no more ensemble steps can be made: {missing}"
            )
            self._end(failure)
            self._sink.fail(failure)
            return
        outputs = [
            _typed(self._by_name[output.name], output.name, output.datatype)
            for output in config.output
            if not wanted or output.name in wanted
        ]
        self._end(None)
        self._sink.push(Response(outputs), True)

    def _end(self, error: ModelportError | None) -> None:
        self._is_over = True
        self.pipeline.ended(self, error)

    def _cancel_members(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()

    def cancel(self) -> None:
        """Nobody waits any more: tell every member."""
        if not self._is_over:
            self._end(Cancelled("cancelled by the caller"))
            self._cancel_members()

    def resume(self) -> None:
        """Nothing to resume: an ensemble answers once."""


class _StepSink:
    """Where a member's answer goes."""

    __slots__ = ("_run", "_step")

    def __init__(self, run: _Run, step: EnsembleStep) -> None:
        self._run = run
        self._step = step

    def push(self, response: Response, final: bool) -> bool:
        if final:
            self._run.step_answered(self._step, response)
        return True

    def end(self) -> None:
        error = ModelFailed(f"model '{self._step.model_name}' gave no response")
        self._run.step_failed(self._step, error)

    def fail(self, error: ModelportError) -> None:
        self._run.step_failed(self._step, error)


def step_version(step: EnsembleStep) -> str | None:
    """The version as ``resolve`` wants it; -1 and 0 mean the latest."""
    return str(step.model_version) if step.model_version > 0 else None


def _renamed(tensor: Tensor, name: str) -> Tensor:
    return Tensor(name, tensor.datatype, tensor.array, tensor.shape)


def _typed(tensor: Tensor, name: str, datatype: DataType) -> Tensor:
    return Tensor(name, datatype, tensor.array, tensor.shape)
