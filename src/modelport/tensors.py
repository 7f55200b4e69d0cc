"""Named arrays, and the joining and cutting that batching needs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelport.dtypes import DataType
from modelport.errors import InvalidRequest, ModelportError

__all__ = ["Array", "Tensor", "join", "split"]

Array = np.ndarray[Any, np.dtype[Any]]


class Tensor:
    """A named array with its datatype.

    Not a frozen dataclass: two are made for the smallest request, and freezing triples their cost.
    Nobody changes one after it has been handed on.

    Attributes:
        name: As on the wire.
        datatype: Beside the array, because numpy has no bfloat16: see :mod:`modelport.dtypes`.
        shape: Of the array; of what was announced where there is a ``fault``.
        array: Read-only where it is a view on a request's body.
        fault: What is wrong with the data. Decoders keep it here instead of raising, so that the
            checks of a request can be made in the order that clients know.
    """

    __slots__ = ("array", "datatype", "fault", "name", "shape")

    def __init__(
        self,
        name: str,
        datatype: DataType,
        array: Array,
        shape: tuple[int, ...] | None = None,
        fault: ModelportError | None = None,
    ) -> None:
        self.name = name
        self.datatype = datatype
        self.array = array
        self.shape: tuple[int, ...] = array.shape if shape is None else shape
        self.fault = fault

    def __repr__(self) -> str:
        dims = ",".join(map(str, self.shape))
        return f"<Tensor {self.name} {self.datatype.name}[{dims}]>"


def join(arrays: Sequence[Array]) -> Array:
    """Put arrays together along the first axis; one array is given back as it is."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def split(array: Array, rows: Sequence[int]) -> list[Array]:
    """Cut a batched array back into one per request.

    Args:
        array: ``[sum(rows), ...]``; rows are the first axis.
        rows: Rows per request, each ≥ 0, in batch order.

    Returns:
        Views on ``array``; no copy is made.

    Raises:
        InvalidRequest: If ``sum(rows)`` differs from the first dimension.
    """
    total = sum(rows)
    if array.ndim == 0 or array.shape[0] != total:
        shape = list(array.shape)
        raise InvalidRequest(f"cannot cut an array of shape {shape} into {total} rows")
    if len(rows) == 1:
        return [array]
    parts = []
    start = 0
    for count in rows:
        parts.append(array[start : start + count])
        start += count
    return parts
