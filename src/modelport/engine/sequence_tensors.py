"""What a sequence adds to the inputs of its model: control tensors, and the states it remembers.

Controls tell the model where in its sequence a request stands. States (Triton calls them implicit)
are outputs of one step that are inputs of the next, kept here, so that the model itself remembers
nothing.

Source: Triton, "Model Configuration" and "Implicit State Management"; ``ModelSequenceBatching`` in
``model_config.proto``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelport.dtypes import BOOL, BYTES, DATATYPE_BY_CONFIG_NAME, FP32, INT32, DataType
from modelport.errors import InvalidRequest, ModelFailed
from modelport.messages import Response
from modelport.specs import Control, ModelConfig, State
from modelport.tensors import Array, Tensor

__all__ = ["Controls", "Memory", "States", "blank"]

Memory = Mapping[str, Array]
"""What a sequence remembers, by the name of the input that it is given back as."""


class Controls:
    """The control tensors of one model."""

    def __init__(self, config: ModelConfig) -> None:
        sequences = config.sequence_batching
        assert sequences is not None
        self._model = config.name
        self._shape = (1, 1) if config.max_batch_size > 0 else (1,)
        self._flags: list[tuple[str, DataType, str, tuple[Any, ...]]] = []
        self._id: tuple[str, DataType] | None = None
        for given in sequences.control_input:
            for control in given.control:
                if control.kind == "CONTROL_SEQUENCE_CORRID":
                    self._id = given.name, DATATYPE_BY_CONFIG_NAME[control.data_type]
                else:
                    datatype, values = _false_true(control)
                    self._flags.append((given.name, datatype, control.kind, values))
        self._tensors_by_flags: dict[tuple[bool, bool, bool], list[Tensor]] = {}

    def check(self, sequence_id: int | str) -> None:
        """Refuse an id that the model's tensor for it cannot hold.

        Raises:
            InvalidRequest: If it is text, or too large.
        """
        if self._id is None or self._id[1] is BYTES:
            return
        name, datatype = self._id
        if isinstance(sequence_id, str):
            raise InvalidRequest(
                f"sequence_id of model '{self._model}' must be an integer, because its control "
                f"'{name}' is {datatype}; got the string '{sequence_id[:80]}'"
            )
        most = int(np.iinfo(datatype.numpy).max)
        if sequence_id > most:
            raise InvalidRequest(
                f"sequence_id {sequence_id} of model '{self._model}' is too large: its control "
                f"'{name}' is {datatype}, which holds up to {most}"
            )

    def tensors(
        self, sequence_id: int | str, *, starts: bool, ends: bool, is_ready: bool = True
    ) -> list[Tensor]:
        """Give the control tensors of one step; ids must have passed ``check``."""
        flags = starts, ends, is_ready
        tensors = self._tensors_by_flags.get(flags)
        if tensors is None:
            tensors = self._tensors_by_flags[flags] = self._flag_tensors(*flags)
        if self._id is None:
            return tensors
        name, datatype = self._id
        array: Array = np.empty(self._shape, datatype.numpy)
        array.fill(str(sequence_id).encode() if datatype is BYTES else sequence_id)
        return [*tensors, Tensor(name, datatype, array)]

    def _flag_tensors(self, starts: bool, ends: bool, is_ready: bool) -> list[Tensor]:
        truth = {
            "CONTROL_SEQUENCE_START": starts,
            "CONTROL_SEQUENCE_END": ends,
            "CONTROL_SEQUENCE_READY": is_ready,
        }
        tensors = []
        for name, datatype, kind, values in self._flags:
            array: Array = np.full(self._shape, values[truth[kind]], datatype.numpy)
            # Shared by all requests.
            array.flags.writeable = False
            tensors.append(Tensor(name, datatype, array))
        return tensors


class States:
    """The states of one model.

    Args:
        config: Complete and checked.
        initial: What states begin with, by the name of their input; the others begin with zeros.
            Without the batch dimension.
    """

    def __init__(self, config: ModelConfig, initial: Mapping[str, Array]) -> None:
        sequences = config.sequence_batching
        assert sequences is not None
        self._model = config.name
        self._batch = (1,) if config.max_batch_size > 0 else ()
        self._states = sequences.state
        self._is_output = frozenset(output.name for output in config.output)
        self._datatypes = [DATATYPE_BY_CONFIG_NAME[state.data_type] for state in self._states]
        self._initial: Memory = {
            state.input_name: self._first(state, initial.get(state.input_name))
            for state in self._states
        }
        self.vary = any(-1 in state.dims for state in self._states)

    def __bool__(self) -> bool:
        return bool(self._states)

    def begin(self) -> Memory:
        """What a sequence that starts remembers."""
        return self._initial

    def tensors(self, memory: Memory) -> list[Tensor]:
        """Give the inputs that hold what a sequence remembers."""
        return [
            Tensor(state.input_name, datatype, memory[state.input_name])
            for state, datatype in zip(self._states, self._datatypes, strict=True)
        ]

    def remember(self, memory: Memory, response: Response) -> Memory:
        """Read from a response what is to be remembered from now on.

        Raises:
            ModelFailed: If the model gives a state that is not as declared.
        """
        given = {tensor.name: tensor for tensor in response.outputs}
        remembered = dict(memory)
        for state in self._states:
            tensor = given.get(state.output_name)
            if tensor is not None:
                self._check(state, tensor)
                array = tensor.array
                # A view keeps the whole batch in memory, for as long as the sequence is silent.
                remembered[state.input_name] = array if array.base is None else array.copy()
        return remembered

    def missing(self, response: Response) -> str | None:
        """Name a state that a response does not hold."""
        given = {tensor.name for tensor in response.outputs}
        return next((s.output_name for s in self._states if s.output_name not in given), None)

    def without(self, response: Response, wanted: Sequence[str]) -> Response:
        """Leave of a response what its caller is to see.

        Args:
            response: Of the model.
            wanted: The outputs asked for; empty for all that the configuration lists.
        """
        seen = wanted or self._is_output
        outputs = [tensor for tensor in response.outputs if tensor.name in seen]
        return Response(outputs, response.parameters)

    def _check(self, state: State, tensor: Tensor) -> None:
        expected = (*self._batch, *state.dims)
        shape = tensor.array.shape
        fits = len(shape) == len(expected) and all(
            dim in (-1, size) for dim, size in zip(expected, shape, strict=True)
        )
        if not fits:
            raise ModelFailed(
                f"state '{state.output_name}' of model '{self._model}' is declared as "
                f"{list(expected)}, and the model gave {list(shape)}"
            )

    def _first(self, state: State, given: Array | None) -> Array:
        datatype = DATATYPE_BY_CONFIG_NAME[state.data_type]
        if given is None:
            dims = state.initial_state[0].dims if state.initial_state else ()
            given = _zeros(tuple(1 if dim == -1 else dim for dim in dims or state.dims), datatype)
        array = given.reshape((*self._batch, *given.shape))
        array.flags.writeable = False
        return array


def blank(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Give tensors of the same names and shapes that hold nothing: what an empty place is given."""
    return [
        Tensor(tensor.name, tensor.datatype, _zeros(tensor.array.shape, tensor.datatype))
        for tensor in tensors
    ]


def _zeros(shape: tuple[int, ...], datatype: DataType) -> Array:
    if datatype is BYTES:
        return np.full(shape, b"", object)
    return np.zeros(shape, datatype.numpy)


def _false_true(control: Control) -> tuple[DataType, tuple[Any, ...]]:
    if control.int32_false_true:
        return INT32, control.int32_false_true
    if control.fp32_false_true:
        return FP32, control.fp32_false_true
    return BOOL, control.bool_false_true
