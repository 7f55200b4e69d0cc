"""The contract between the engine and what executes a batch.

A runtime is a class in a file of its own, which is the only one that imports its framework. One
object is one instance of one version of one model. Its five methods: ``complete`` says what the
model file tells of itself, ``load`` and ``unload`` bring it up and down, ``execute`` answers a
batch, ``is_ready`` tells whether it still can.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from modelport.dtypes import DataType
from modelport.errors import InvalidRequest, ModelFailed, ModelportError
from modelport.messages import Request, Response
from modelport.specs import ModelConfig
from modelport.tensors import Array, Tensor, join, split

__all__ = [
    "Batch",
    "Host",
    "LoadContext",
    "ModelSource",
    "Outcome",
    "Runtime",
    "TensorRuntime",
    "Work",
]

Outcome = Response | ModelportError | None
"""What a request of a batch came to; ``None`` where it is answered through ``Work.send``."""


class Host(Protocol):
    """What a model may ask of the server that runs it. Safe to call from any thread."""

    def log(self, level: str, message: str, *, model: str) -> None:
        """Write a line to the server's log; ``level`` is error, warning, info or verbose."""
        ...


class Work(Protocol):
    """One request, as the instance that answers it sees it."""

    request: Request
    rows: int

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        ...

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Give one response, from any thread. ``None`` with ``final`` ends the stream.

        Blocks a plain thread while the caller does not read fast enough; on a thread that runs an
        event loop it raises instead, because blocking there would hold up all the others.

        Raises:
            ModelFailed: If the stream has ended already.
            Cancelled: If nobody waits any more, or the caller has not read for too long.
        """
        ...

    async def drained(self) -> None:
        """Wait until the caller has read enough to take more; for async producers."""
        ...


class Batch:
    """What an instance executes at once.

    Attributes:
        works: At least one; the order is theirs in the queue.
        rows: Rows of all of them together; the number of works for a model without batching.
        inputs_ready_ns: When the runtime began to compute; 0 if it does not tell.
        computed_ns: When the runtime had computed; 0 if it does not tell.
    """

    __slots__ = ("computed_ns", "inputs_ready_ns", "rows", "works")

    def __init__(self, works: Sequence[Work], rows: int) -> None:
        self.works = works
        self.rows = rows
        self.inputs_ready_ns = 0
        self.computed_ns = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a version of a model lies.

    Attributes:
        name: Of the model.
        directory: Of the model: configuration, labels and versions lie here.
        version_directory: Of this version.
        version: A positive integer.
        allow_pickle: Whether the operator lets model files run code while they are read.
        attribute: ``object`` of a ``module:object`` target; "" for none.
    """

    name: str
    directory: Path
    version_directory: Path
    version: int
    allow_pickle: bool = False
    attribute: str = ""

    def file(self, config: ModelConfig, default: str) -> Path:
        """The model file: as configured, or by the runtime's usual name."""
        return self.version_directory / (config.default_model_filename or default)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadContext:
    """All that an instance needs to come up.

    Attributes:
        source: Where the model lies.
        config: Complete and checked.
        config_json: The same in Triton's JSON form, for models that want to read it.
        instance_name: ``<model>_<group>_<index>``.
        kind: ``CPU`` or ``GPU``.
        device_id: Of the GPU; 0 on a CPU.
        host: What the model may ask of us.
    """

    source: ModelSource
    config: ModelConfig
    config_json: str
    instance_name: str
    host: Host
    kind: str = "CPU"
    device_id: int = 0


class Runtime(Protocol):
    """One instance of one model.

    ``load``, ``execute`` and ``unload`` are called one after another, never two at once on one
    object, and not always on the same thread.
    """

    default_filename: ClassVar[str]
    """What the model file is called where the configuration does not say."""

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Say what the model file tells of inputs, outputs and batching.

        Returns:
            A configuration with what was found; nothing of ``config`` needs to be repeated. The
            caller merges, and refuses contradictions.

        Raises:
            LoadFailed: If the file cannot be read.
        """
        ...

    def load(self, context: LoadContext) -> None:
        """Bring the instance up. May take long; runs on a thread of its own.

        Raises:
            LoadFailed: With a text for the operator.
        """
        ...

    def execute(
        self, batch: Batch
    ) -> Sequence[Outcome] | None | Awaitable[Sequence[Outcome] | None]:
        """Answer a batch.

        Returns:
            One outcome per work in their order; ``None`` where all answer through ``send``. An
            awaitable runs on a loop that outlives the call, and others may be started beside it.

        Raises:
            ModelportError: The whole batch failed. Any other exception is taken for the model's
                own, and its type and text are told to the caller.
        """
        ...

    def is_ready(self) -> bool:
        """Whether the instance can still answer."""
        ...

    def unload(self) -> None:
        """Give everything back."""
        ...


@dataclass(slots=True)
class _OutputSpec:
    name: str
    datatype: DataType


@dataclass(slots=True)
class _Plan:
    outputs: list[_OutputSpec] = field(default_factory=list)
    is_batching: bool = False


class TensorRuntime:
    """The half of ``execute`` that runtimes of plain arrays share: join, compute, cut, isolate.

    A subclass calls ``prepare`` in its ``load`` and implements ``compute``.
    """

    _plan: _Plan

    def prepare(self, config: ModelConfig) -> None:
        """Learn the outputs and whether the first axis is the batch."""
        outputs = [_OutputSpec(output.name, output.datatype) for output in config.output]
        self._plan = _Plan(outputs, config.max_batch_size > 0)

    def compute(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Mapping[str, Array]:
        """Turn the inputs of a whole batch into at least the outputs named."""
        raise NotImplementedError  # pragma: no cover - every subclass has its own

    def execute(self, batch: Batch) -> Sequence[Outcome]:
        """Answer a batch in one go; if that fails, answer each of its works by itself.

        One row that a model cannot stand would else fail all the requests it was batched with.
        """
        works = batch.works
        try:
            return self._execute_joined(works, batch)
        except Exception as exc:
            if len(works) == 1:
                return [as_model_failure(exc)]
        outcomes: list[Outcome] = []
        for work in works:
            try:
                outcomes.extend(self._execute_joined([work], batch))
            except Exception as exc:
                outcomes.append(as_model_failure(exc))
        return outcomes

    def _execute_joined(self, works: Sequence[Work], batch: Batch) -> list[Outcome]:
        if not self._plan.is_batching and len(works) > 1:
            raise InvalidRequest("a model without batching takes one request at a time")
        first = works[0].request.payload.tensors
        if len(works) == 1:
            inputs = {tensor.name: tensor.array for tensor in first}
        else:
            named = [{t.name: t.array for t in work.request.payload.tensors} for work in works]
            inputs = {t.name: join([arrays[t.name] for arrays in named]) for t in first}
        wanted = self._wanted(works)
        computed = self.compute(inputs, [output.name for output in wanted])
        if len(works) == 1:
            names = works[0].request.outputs
            return [
                Response([_tensor(o, computed) for o in wanted if not names or o.name in names])
            ]
        rows = [work.rows for work in works]
        columns = {o.name: split(_tensor(o, computed).array, rows) for o in wanted}
        return [
            Response(
                [
                    Tensor(o.name, o.datatype, columns[o.name][index])
                    for o in wanted
                    if not work.request.outputs or o.name in work.request.outputs
                ]
            )
            for index, work in enumerate(works)
        ]

    def _wanted(self, works: Sequence[Work]) -> list[_OutputSpec]:
        if any(not work.request.outputs for work in works):
            return self._plan.outputs
        names = {name for work in works for name in work.request.outputs}
        return [output for output in self._plan.outputs if output.name in names]


def _tensor(output: _OutputSpec, computed: Mapping[str, Array]) -> Tensor:
    array = computed.get(output.name)
    if array is None:
        raise ModelFailed(
            f"output '{output.name}' is configured, and the model gave only {sorted(computed)}"
        )
    if array.dtype != output.datatype.numpy:
        array = array.astype(output.datatype.numpy)
    return Tensor(output.name, output.datatype, array)


def as_model_failure(exc: Exception) -> ModelportError:
    """Take an exception for the model's own, unless it is already one of ours.

    Type and text are the model author's to show; a traceback holds paths and is not.
    """
    if isinstance(exc, ModelportError):
        return exc
    return ModelFailed(f"{type(exc).__name__}: {exc}")
