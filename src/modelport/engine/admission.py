"""Whether a request fits its model, before anything of it waits or runs.

The common case is one short pass. Only when that says "no" are the checks made again one by one,
in the order that clients know, to find what to say.

Source: the texts and their order are those of the reference, §1.3 "Shared-core error texts".
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from modelport.dtypes import DataType
from modelport.errors import InvalidInference, InvalidRequest
from modelport.messages import Request
from modelport.specs import ModelConfig
from modelport.tensors import Tensor

__all__ = ["Admission"]


class _Input(Struct, frozen=True):
    name: str
    datatype: DataType
    # As on the wire: with the batch dimension, -1 for any size.
    shape: tuple[int, ...]
    is_optional: bool


class Admission:
    """The checks of one version of one model, prepared once."""

    def __init__(self, config: ModelConfig) -> None:
        self._model = config.name
        self._max_batch = config.max_batch_size
        prefix = (-1,) if config.max_batch_size > 0 else ()
        self._inputs = {
            entry.name: _Input(entry.name, entry.datatype, prefix + entry.dims, entry.optional)
            for entry in config.input
        }
        self._outputs = frozenset(entry.name for entry in config.output)
        self._required = frozenset(e.name for e in config.input if not e.optional)
        # What fitted last, of a model with one input: most requests are like the one before.
        self._last_shape: tuple[int, ...] | None = None
        self._last_rows = 0
        self._last_key: tuple[object, ...] | None = None
        self._only = next(iter(self._inputs.values())) if len(self._inputs) == 1 else None
        self._has_any_dims = any(-1 in entry.dims for entry in config.input)

    def rows(self, request: Request) -> int:
        """Check a request and count its rows; a model without batching counts 1.

        Raises:
            InvalidInference: It does not fit; the text says where and what would.
            InvalidRequest: It asks for an output that there is not.
        """
        tensors = request.payload.tensors
        only = self._only
        if only is not None and len(tensors) == 1 and not request.outputs:
            tensor = tensors[0]
            if (
                tensor.shape == self._last_shape
                and tensor.datatype is only.datatype
                and tensor.name == only.name
                and tensor.fault is None
            ):
                return self._last_rows
            rows = self._fitting_rows(request)
            if rows is not None:
                self._last_shape = tensor.shape
                self._last_rows = rows
        else:
            rows = self._fitting_rows(request)
        if rows is None:
            self._explain(request)
            raise InvalidInference(f"the request does not fit model '{self._model}'")
        return rows

    def batch_key(self, request: Request) -> tuple[object, ...] | None:
        """What requests must have in common to share a batch; ``None`` where they always do."""
        if not self._has_any_dims and len(self._required) == len(self._inputs):
            return None
        tensors = request.payload.tensors
        if len(tensors) == 1 and len(self._inputs) == 1:
            shape = tensors[0].shape[1:]
            if shape != self._last_key:
                # The same object for the same shape: comparing two of them is one look.
                self._last_key = shape
            return self._last_key
        return tuple(sorted((t.name, t.shape[1:]) for t in tensors))

    def _fitting_rows(self, request: Request) -> int | None:
        tensors = request.payload.tensors
        for name in request.outputs:
            if name not in self._outputs:
                return None
        if len(tensors) != len(self._inputs) and not self._has_required(tensors):
            return None
        batch = -1
        for tensor in tensors:
            entry = self._inputs.get(tensor.name)
            if entry is None or tensor.datatype is not entry.datatype or tensor.fault is not None:
                return None
            shape = tensor.shape
            if len(shape) != len(entry.shape):
                return None
            for size, expected in zip(shape, entry.shape, strict=True):
                if size != expected and expected != -1:
                    return None
            if self._max_batch:
                if batch == -1:
                    batch = shape[0]
                elif shape[0] != batch:
                    return None
        if not self._max_batch or not tensors:
            return 1
        return batch if 0 <= batch <= self._max_batch else None

    def _has_required(self, tensors: Sequence[Tensor]) -> bool:
        return self._required.issubset({tensor.name for tensor in tensors})

    def _explain(self, request: Request) -> None:
        tensors = request.payload.tensors
        self._check_outputs(request.outputs)
        self._check_count(tensors)
        for tensor in tensors:
            if tensor.name not in self._inputs:
                raise InvalidInference(
                    f"unexpected inference input '{tensor.name}' for model '{self._model}'; "
                    f"it has {_listed(self._inputs)}"
                )
        if self._max_batch:
            self._check_batch(tensors)
        for tensor in tensors:
            self._check_datatype(tensor)
        for tensor in tensors:
            self._check_shape(tensor)
        for tensor in tensors:
            if tensor.fault is not None:
                raise tensor.fault

    def _check_outputs(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._outputs:
                raise InvalidRequest(
                    f"unexpected inference output '{name}' for model '{self._model}'; "
                    f"it has {_listed(self._outputs)}"
                )

    def _check_count(self, tensors: Sequence[Tensor]) -> None:
        least, most = len(self._required), len(self._inputs)
        if least <= len(tensors) <= most and (
            self._has_required(tensors) or any(t.name not in self._inputs for t in tensors)
        ):
            return
        names = [tensor.name for tensor in tensors]
        missing = [name for name in self._inputs if name in self._required and name not in names]
        expected = (
            f"{most} inputs" if least == most else f"number of inputs between {least} and {most}"
        )
        text = f"expected {expected} but got {len(names)} inputs for model '{self._model}'."
        if missing:
            text += (
                f" Got input(s) {_listed(names)}, but missing required input(s) {_listed(missing)}."
                " Please provide all required input(s)."
            )
        else:
            text += f" Got input(s) {_listed(names)}; it has {_listed(self._inputs)}."
        raise InvalidInference(text)

    def _check_batch(self, tensors: Sequence[Tensor]) -> None:
        batch: int | None = None
        for tensor in tensors:
            if not tensor.shape:
                raise InvalidInference(
                    f"input '{tensor.name}' has no shape but model requires batch dimension for "
                    f"'{self._model}'; send [1] or more as the first dimension"
                )
            if batch is None:
                batch = tensor.shape[0]
            elif tensor.shape[0] != batch:
                raise InvalidInference(
                    f"input '{tensor.name}' batch size does not match other inputs for "
                    f"'{self._model}': {tensor.shape[0]} here, {batch} there; the first dimension "
                    "of every input is the batch"
                )
        if batch is not None and batch > self._max_batch:
            raise InvalidInference(
                f"inference request batch-size must be <= {self._max_batch} for '{self._model}', "
                f"got {batch}; send the rows in several requests"
            )

    def _check_datatype(self, tensor: Tensor) -> None:
        expected = self._inputs[tensor.name].datatype
        if tensor.datatype is not expected:
            raise InvalidInference(
                f"inference input '{tensor.name}' data-type is '{tensor.datatype}', but model "
                f"'{self._model}' expects '{expected}'"
            )

    def _check_shape(self, tensor: Tensor) -> None:
        expected = self._inputs[tensor.name].shape
        fits = len(tensor.shape) == len(expected) and all(
            size == wanted or wanted == -1
            for size, wanted in zip(tensor.shape, expected, strict=True)
        )
        if fits:
            return
        text = (
            f"unexpected shape for input '{tensor.name}' for model '{self._model}'. "
            f"Expected {_dims(expected)}, got {_dims(tensor.shape)}."
        )
        if self._max_batch:
            text += (
                f" NOTE: the model has max_batch_size {self._max_batch}, so the first dimension is "
                "the batch and comes before the dims of its configuration; a model whose dims hold "
                "the batch already wants max_batch_size 0."
            )
        raise InvalidInference(text)


def _dims(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _listed(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"
