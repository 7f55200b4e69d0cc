"""Between the arrays of requests and the values that annotations ask for."""

import dataclasses
import enum
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelport.dtypes import BYTES
from modelport.errors import InvalidRequest, ModelFailed
from modelport.runtimes.python_readers import Reader
from modelport.signature import TensorSignature
from modelport.tensors import Array

__all__ = ["argument_of", "array_of", "fields_of"]


def argument_of(tensor: TensorSignature, array: Array, reader: Reader | None = None) -> Any:
    """What a function gets for an array.

    Args:
        tensor: As declared.
        array: As it came.
        reader: Makes the value that the annotation asks for.

    Raises:
        InvalidRequest: If it holds no text, no JSON, or not the one value that is asked for.
    """
    if reader is None:
        return _plain_argument_of(tensor, array)
    return reader(
        _one(tensor, array) if tensor.form == "json" else _plain_argument_of(tensor, array)
    )


def _plain_argument_of(tensor: TensorSignature, array: Array) -> Any:
    match tensor.form:
        case "array":
            return _decoded(tensor, array) if tensor.is_text else array
        case "list":
            return (_decoded(tensor, array) if tensor.is_text else array).tolist()
        case "value":
            return _one(tensor, _decoded(tensor, array) if tensor.is_text else array)
        case "json":
            return _parsed(tensor, _one(tensor, array))


def array_of(tensor: TensorSignature, value: Any, batch_rank: int) -> Array:
    """The array of what a function returned for an output; a single value stands for one of one.

    Raises:
        ModelFailed: If it is no such value.
    """
    if tensor.form == "json":
        value = _dumped(tensor, value)
    elif tensor.annotation is not None:
        value = _without_members(value)
    if isinstance(value, np.ndarray):
        array = value
    elif tensor.datatype is BYTES:
        # Left to itself numpy cuts trailing zero bytes, and makes one array of equal-sized texts.
        array = np.asarray(value, dtype=object)
    else:
        array = np.asarray(value)
    return array if array.ndim else array.reshape((1,) * (len(tensor.dims) + batch_rank))


def fields_of(result: Any) -> Mapping[str, Any] | None:
    """Give the fields of a record or mapping by name, ``None`` for all else."""
    if isinstance(result, Mapping):
        return result
    if hasattr(type(result), "__pydantic_fields__"):
        return {name: getattr(result, name) for name in type(result).__pydantic_fields__}
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, tuple) and hasattr(result, "_asdict"):
        named: Mapping[str, Any] = result._asdict()
        return named
    return None


def _one(tensor: TensorSignature, array: Array) -> Any:
    if array.size != 1:
        raise InvalidRequest(f"input '{tensor.name}' is one value, and {array.size} were given")
    return array.item()


def _decoded(tensor: TensorSignature, array: Array) -> Array:
    texts = np.empty(array.shape, object)
    try:
        texts.reshape(-1)[:] = [element.decode() for element in array.flat]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"input '{tensor.name}' holds bytes that are no UTF-8") from exc
    return texts


def _parsed(tensor: TensorSignature, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"input '{tensor.name}' holds no JSON: {exc}") from exc


def _dumped(tensor: TensorSignature, value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ModelFailed(f"output '{tensor.name}' cannot be told as JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    """What JSON has no word for, and is often found in results."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    # Dates, paths, sets, members of an Enum, models: whoever returns them may not have imported it.
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value, fallback=_told_as_array)
    except PydanticSerializationError as exc:
        raise TypeError(f"a {type(value).__name__} is not JSON") from exc


def _told_as_array(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is not JSON")


def _without_members(value: Any) -> Any:
    """The values of members of an Enum, at any depth of lists."""
    if isinstance(value, enum.Enum):
        return value.value
    return [_without_members(each) for each in value] if isinstance(value, list) else value
