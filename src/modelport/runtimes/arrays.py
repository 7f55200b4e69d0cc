"""The half of ``execute`` that runtimes of plain arrays share: join, compute, cut, isolate."""

import time
from collections.abc import Awaitable, Mapping, Sequence

from modelport.dtypes import DATATYPE_BY_CONFIG_NAME, DataType
from modelport.errors import Cancelled, ModelFailed, ModelportError
from modelport.messages import Response
from modelport.runtimes.base import Batch, Outcome, Work, as_model_failure
from modelport.runtimes.declared import as_declared
from modelport.specs import ModelConfig
from modelport.tensors import Array, Tensor, join, split

__all__ = ["Arrays", "Layout", "TensorRuntime"]

Arrays = Mapping[str, Array]
"""Arrays by the name of their input or output."""


class Layout:
    """How the arrays of a model lie in its requests and responses.

    Attributes:
        datatype_by_output: In the order of the configuration.
        is_batching: Whether the first axis of every array is the batch.
        states: Outputs that are given with every response, because the engine keeps them for the
            next request of the sequence.
    """

    __slots__ = ("datatype_by_output", "is_batching", "states")

    def __init__(self, config: ModelConfig) -> None:
        self.datatype_by_output: dict[str, DataType] = {
            output.name: output.datatype for output in config.output
        }
        self.is_batching = config.max_batch_size > 0
        self.states = frozenset[str]()
        if config.sequence_batching is not None:
            states = config.sequence_batching.state
            self.states = frozenset(state.output_name for state in states)
            for state in states:
                self.datatype_by_output[state.output_name] = DATATYPE_BY_CONFIG_NAME[
                    state.data_type
                ]

    def inputs(self, works: Sequence[Work]) -> Arrays:
        """Put the inputs of some works together, along the first axis.

        Raises:
            ModelFailed: If they cannot be joined; one at a time they can.
        """
        first = works[0].request.payload.tensors
        if len(works) == 1:
            return {tensor.name: tensor.array for tensor in first}
        if not self.is_batching:
            raise ModelFailed("a model without batching takes one request at a time")
        by_name = {tensor.name: [tensor.array] for tensor in first}
        for work in works[1:]:
            tensors = work.request.payload.tensors
            if len(tensors) != len(by_name):
                raise ModelFailed("requests with different optional inputs cannot be joined")
            for tensor in tensors:
                by_name[tensor.name].append(tensor.array)
        return {name: join(arrays) for name, arrays in by_name.items()}

    def outputs(self, works: Sequence[Work]) -> Sequence[str]:
        """Name the outputs that at least one of the works wants, in the model's order."""
        every = self.datatype_by_output
        wanted = set(self.states)
        for work in works:
            if not work.request.outputs:
                return list(every)
            wanted.update(work.request.outputs)
        return [name for name in every if name in wanted]

    def responses(self, works: Sequence[Work], computed: Arrays) -> list[Outcome]:
        """Cut what was computed into one response per work, each with what it wants.

        Raises:
            ModelFailed: If an output is missing, or is not as declared.
        """
        tensors = [self._tensor(name, computed) for name in self.outputs(works)]
        rows = [work.rows for work in works]
        if self.is_batching:
            for tensor in tensors:
                _check_rows(tensor, sum(rows))
        if len(works) == 1:
            return [Response(tensors)]
        columns = [split(tensor.array, rows) for tensor in tensors]
        return [
            Response(
                [
                    Tensor(tensor.name, tensor.datatype, column[index])
                    for tensor, column in zip(tensors, columns, strict=True)
                    if not work.request.outputs
                    or tensor.name in work.request.outputs
                    or tensor.name in self.states
                ]
            )
            for index, work in enumerate(works)
        ]

    def _tensor(self, name: str, computed: Arrays) -> Tensor:
        array = computed.get(name)
        if array is None:
            raise ModelFailed(f"output '{name}' is declared, and the model did not give it")
        datatype = self.datatype_by_output[name]
        return Tensor(name, datatype, as_declared(name, datatype, array))


class TensorRuntime:
    """A runtime whose model is a function from arrays to arrays.

    A subclass calls ``prepare`` in its ``load`` and implements ``compute``.
    """

    layout: Layout

    def prepare(self, config: ModelConfig) -> None:
        """Learn the outputs, and whether the first axis is the batch."""
        self.layout = Layout(config)

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Turn the inputs of a whole batch into at least the outputs named.

        Inputs are read-only. What is returned is given away.
        """
        raise NotImplementedError  # pragma: no cover - every subclass has its own

    def failure(self, exc: Exception) -> ModelportError:
        """Say to the caller what went wrong."""
        return as_model_failure(exc)

    def execute(
        self, batch: Batch
    ) -> Sequence[Outcome] | Awaitable[Sequence[Outcome] | None] | None:
        """Answer a batch in one go; if that fails, answer each of its works by itself.

        One row that a model cannot stand would else fail all the requests it was batched with.
        """
        works = batch.works
        if len(works) == 1 or self.layout.is_batching:
            try:
                return self.answer(works, batch)
            except Exception as exc:
                if len(works) == 1:
                    return [self.failure(exc)]
        return [self._answer_alone(work, batch) for work in works]

    def _answer_alone(self, work: Work, batch: Batch) -> Outcome:
        if work.is_cancelled:
            return Cancelled("nobody waits for this request any more")
        try:
            return self.answer([work], batch)[0]
        except Exception as exc:
            return self.failure(exc)

    def answer(self, works: Sequence[Work], batch: Batch) -> list[Outcome]:
        """Compute some works of a batch together, and cut what came out."""
        layout = self.layout
        inputs = layout.inputs(works)
        outputs = layout.outputs(works)
        # Of the first try: a second one, work by work, is all computing.
        batch.inputs_ready_ns = batch.inputs_ready_ns or time.perf_counter_ns()
        computed = self.compute(inputs, outputs)
        batch.computed_ns = time.perf_counter_ns()
        return layout.responses(works, computed)


def _check_rows(tensor: Tensor, rows: int) -> None:
    if not tensor.shape or tensor.shape[0] != rows:
        raise ModelFailed(
            f"output '{tensor.name}' has shape {list(tensor.shape)}, and its first dimension must "
            f"be the batch, which was {rows}"
        )
