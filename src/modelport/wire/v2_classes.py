"""The classification extension: an output as its best classes, ``"0.912345:7:seven"``.

Source: Triton's classification extension, and the reference for what its texts look like.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from modelport import dtypes
from modelport.errors import InvalidRequest
from modelport.messages import Response
from modelport.tensors import Array, Tensor

__all__ = ["classify", "classify_outputs", "takes_long"]

LONG_VALUES = 1 << 14
"""Values whose classes, all of them, take some 15 ms."""

MAX_ELEMENTS = 1_000_000


def classify(tensor: Tensor, classes: int, labels: Sequence[str], *, is_batching: bool) -> Tensor:
    """Give the best classes of each row, best first, ties by index.

    Args:
        tensor: ``[batch, ...]`` if the model batches, else one row; all dimensions but the batch
            are taken for one.
        classes: How many, at least 1; there are never more than values.
        labels: By index; an index beyond them has none.
        is_batching: Whether the first axis is the batch.

    Returns:
        BYTES ``[batch?, min(classes, n)]``.

    Raises:
        InvalidRequest: If the datatype has no order, or the tensor is too large for this.
    """
    datatype = tensor.datatype
    if datatype in (dtypes.BYTES, dtypes.BOOL, dtypes.FP16, dtypes.BF16):
        raise InvalidRequest(
            "class result not available for output due to unsupported type "
            f"'{datatype}' (output '{tensor.name}')"
        )
    array = tensor.array
    if array.size > MAX_ELEMENTS:
        raise InvalidRequest(
            f"classification output tensor too large: output '{tensor.name}' has {array.size} "
            f"elements, and at most {MAX_ELEMENTS} are sorted"
        )
    batch = array.shape[0] if is_batching and array.ndim else 1
    width = math.prod(array.shape[1:] if is_batching else array.shape)
    kept = min(classes, width)
    result = np.empty((batch, kept), object)
    for row, values in enumerate(array.reshape(batch, width)):
        best = _best(values, kept)
        is_float = values.dtype.kind == "f"
        for column, (index, value) in enumerate(
            zip(best.tolist(), values[best].tolist(), strict=True)
        ):
            label = labels[index] if index < len(labels) else None
            text = f"{value:f}:{index}" if is_float else f"{value}:{index}"
            result[row, column] = (text if label is None else f"{text}:{label}").encode()
    if not is_batching:
        result = result.reshape(kept)
    return Tensor(tensor.name, dtypes.BYTES, result)


def takes_long(response: Response, classes: Mapping[str, int]) -> bool:
    """Whether finding the classes of a response would hold up others; see ``classify_outputs``."""
    return any(
        tensor.array.size > LONG_VALUES and classes.get(tensor.name) for tensor in response.outputs
    )


def classify_outputs(
    response: Response,
    classes: Mapping[str, int],
    labels: Mapping[str, Sequence[str]],
    *,
    is_batching: bool,
) -> Response:
    """Give the response with some of its outputs as their best classes.

    Args:
        response: As the model gave it.
        classes: How many, by name of the output; 0 or no entry leaves an output as it is.
        labels: By name of the output.
        is_batching: Whether the first axis is the batch.

    Raises:
        InvalidRequest: As :func:`classify` does.
    """
    outputs = []
    for tensor in response.outputs:
        wanted = classes.get(tensor.name, 0)
        if wanted:
            known = labels.get(tensor.name, ())
            tensor = classify(tensor, wanted, known, is_batching=is_batching)
        outputs.append(tensor)
    return Response(outputs, response.parameters)


def _best(values: Array, kept: int) -> Array:
    """Indexes of the largest values; NaN comes last."""
    if values.dtype.kind == "f":
        is_nan = np.isnan(values)
        if is_nan.any():
            numbers = np.flatnonzero(~is_nan)
            best = numbers[_best(values[numbers], kept)]
            return np.concatenate([best, np.flatnonzero(is_nan)])[:kept]
    if kept >= len(values) // 8:
        return _falling(values)[:kept]
    # Sorting all to keep a few is ten times the work.
    at = len(values) - kept
    near = np.flatnonzero(values >= np.partition(values, at)[at])
    return near[_falling(values[near])[:kept]]


def _falling(values: Array) -> Array:
    """Indexes from the largest value to the smallest."""
    # Negating integers overflows at their smallest; reversing twice keeps ties in their order.
    order: Array = len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]
    return order
