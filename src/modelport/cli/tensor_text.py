"""Tensors as people write and read them on a command line; pure.

What a model declares decides how a text is read: for BYTES it is one string, for anything else
JSON or values between commas, laid out in the declared shape.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelport import dtypes
from modelport.client.v2 import TensorMetadata
from modelport.client.v2_infer import tensor_of
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import ModelportError
from modelport.tensors import Array, Tensor

__all__ = [
    "fit",
    "format_tensor",
    "tensor_from_array",
    "tensor_from_bytes",
    "tensor_from_text",
    "tensor_to_json",
]

# More values than these are cut in the middle; --json gives all.
_SHOWN_VALUES = 200


def tensor_from_text(text: str, declared: TensorMetadata) -> Tensor:
    """Read an input as it was written.

    Args:
        text: For BYTES the string itself, or a JSON array of strings; else JSON, or values
            between commas.
        declared: The model's description of the input.

    Raises:
        ValueError: With what is wrong, where the text does not fit.
    """
    datatype = _datatype(declared)
    is_array = text.lstrip().startswith("[")
    try:
        if datatype is dtypes.BYTES:
            values = _strings(text) if is_array else [text]
        else:
            values = json.loads(text if is_array else f"[{text}]")
    except ValueError as exc:
        raise ValueError(
            f"expected {datatype} as JSON or as values between commas, got {text!r:.80}"
        ) from exc
    shape = fit(_nested_shape(values), declared.shape)
    try:
        return tensor_of(declared.name, datatype, shape, values)
    except ModelportError as exc:
        raise ValueError(str(exc)) from exc


def tensor_from_bytes(content: bytes, declared: TensorMetadata) -> Tensor:
    """Make a file's bytes the one element of a BYTES input.

    Raises:
        ValueError: If the input has another datatype.
    """
    datatype = _datatype(declared)
    if datatype is not dtypes.BYTES:
        raise ValueError(
            f"bytes of a file fit BYTES only, and it is {datatype}; give .npy or .json"
        )
    array = np.empty(1, object)
    array[0] = content
    return Tensor(declared.name, datatype, array.reshape(fit((1,), declared.shape)))


def tensor_from_array(array: Array, declared: TensorMetadata) -> Tensor:
    """Make an array from a file an input; numbers may change their width, not their kind.

    Raises:
        ValueError: If the kinds do not fit, an integer into BOOL for example.
    """
    datatype = _datatype(declared)
    shape = fit(array.shape, declared.shape)
    if datatype is dtypes.BYTES:
        if array.dtype.kind not in "SU":
            raise ValueError(f"expected an array of strings, got {array.dtype}")
        strings = np.empty(array.size, object)
        strings[:] = [
            each.encode() if isinstance(each, str) else each for each in array.ravel().tolist()
        ]
        return Tensor(declared.name, datatype, strings.reshape(shape))
    wanted = np.dtype(np.float32) if datatype is dtypes.BF16 else datatype.numpy
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise ValueError(f"expected {datatype}, got an array of {array.dtype}")
    cast = np.ascontiguousarray(array, wanted).reshape(shape)
    return Tensor(
        declared.name, datatype, dtypes.bf16_from_float32(cast) if datatype is dtypes.BF16 else cast
    )


def fit(given: Sequence[int], declared: Sequence[int]) -> tuple[int, ...]:
    """Choose the shape for values that were written flat, or without their batch dimension.

    What was written nested keeps its shape, right or wrong: the server knows better what to say.

    Args:
        given: As written; one dimension for a flat list.
        declared: By the model; -1 is any length.

    Raises:
        ValueError: If the number of values cannot fill the declared shape.

    >>> fit((4,), (-1, 4)), fit((3,), (-1, 1)), fit((5,), (-1, -1)), fit((1,), ())
    ((1, 4), (3, 1), (1, 5), ())
    """
    if _matches(given, declared):
        return tuple(given)
    if declared and declared[0] in (-1, 1) and _matches(given, declared[1:]):
        return (1, *given)
    if len(given) != 1:
        return tuple(given)
    fixed = math.prod(size for size in declared if size != -1)
    is_open = -1 in declared
    if fixed == 0 or given[0] % fixed or (given[0] != fixed and not is_open):
        raise ValueError(f"{given[0]} values do not fill the shape {list(declared)}")
    shape = [1 if size == -1 else size for size in declared]
    if is_open:
        innermost = max(at for at, size in enumerate(declared) if size == -1)
        shape[innermost] = given[0] // fixed
    return tuple(shape)


def format_tensor(tensor: Tensor) -> str:
    """Write an output for a person: its name, datatype and shape, and its values below."""
    shape = ",".join(map(str, tensor.shape))
    array = _readable(tensor)
    if tensor.datatype is dtypes.BYTES:
        values = array.ravel().tolist()
        shown = [json.dumps(_text_of(each), ensure_ascii=False) for each in values[:_SHOWN_VALUES]]
        left = len(values) - len(shown)
        lines = [*shown, f"... and {left} more"] if left else shown
    else:
        text = np.array2string(array, separator=", ", threshold=_SHOWN_VALUES, max_line_width=96)
        lines = text.splitlines()
    return "\n".join(
        [f"{tensor.name} {tensor.datatype}[{shape}]", *(f"  {line}" for line in lines)]
    )


def tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    """Give an output as V2 JSON does; what is no UTF-8 as ``{"base64": ...}``."""
    array = _readable(tensor).ravel()
    values: list[Any] = array.tolist()
    if tensor.datatype is dtypes.BYTES:
        values = [_json_of(each) for each in values]
    elif tensor.datatype in (dtypes.FP16, dtypes.BF16, dtypes.FP32):
        # 0.1 and not 0.10000000149011612. FP16 as float32, whose shortest text is still exact:
        # its own would turn 65504 into 65500.
        values = [float(str(each)) for each in array.astype(np.float32)]
    return {
        "name": tensor.name,
        "datatype": tensor.datatype.name,
        "shape": list(tensor.shape),
        "data": values,
    }


def _datatype(declared: TensorMetadata) -> DataType:
    try:
        return DATATYPE_BY_NAME[declared.datatype]
    except KeyError:
        raise ValueError(
            f'the server declares an unknown datatype, "{declared.datatype}"'
        ) from None


def _strings(text: str) -> list[Any]:
    values = json.loads(text)
    if not all(isinstance(each, str) for each in _leaves(values)):
        raise ValueError("not only strings")
    return list(values)


def _nested_shape(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        return ()
    inner = {_nested_shape(each) for each in values}
    if len(inner) > 1:
        raise ValueError("the rows of a nested array differ in length")
    return (len(values), *(inner.pop() if inner else ()))


def _leaves(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [leaf for each in values for leaf in _leaves(each)]


def _matches(given: Sequence[int], declared: Sequence[int]) -> bool:
    return len(given) == len(declared) and all(
        wanted in (-1, size) for size, wanted in zip(given, declared, strict=True)
    )


def _readable(tensor: Tensor) -> Array:
    if tensor.datatype is dtypes.BF16:
        return dtypes.float32_from_bf16(tensor.array)
    return tensor.array


def _text_of(element: bytes | str) -> str:
    if isinstance(element, str):
        return element
    try:
        return element.decode()
    except UnicodeDecodeError:
        return f"<{len(element)} bytes>"


def _json_of(element: bytes | str) -> str | dict[str, str]:
    if isinstance(element, str):
        return element
    try:
        return element.decode()
    except UnicodeDecodeError:
        import base64

        return {"base64": base64.b64encode(element).decode()}
