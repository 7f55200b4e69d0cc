"""Make what a model returned into what it had declared, or say why that cannot be.

Nothing that a model returns is changed silently: a conversion that could lose more than precision
is the model's error, told with both types.
"""

from typing import Any

import numpy as np

from modelport.dtypes import BF16, BYTES, DataType, bf16_from_float32
from modelport.errors import ModelFailed
from modelport.tensors import Array

__all__ = ["as_declared"]


def as_declared(name: str, datatype: DataType, array: Array) -> Array:
    """Give an output's array the dtype of its datatype.

    Floats become floats, integers and booleans become integers that can hold them or floats, text
    becomes bytes in UTF-8; for BF16 ``uint16`` are the bits and floats are rounded.

    Args:
        name: Of the output, for the error.
        datatype: As declared.
        array: As the model gave it; not changed.

    Raises:
        ModelFailed: If the values do not fit the datatype.
    """
    if datatype is BYTES:
        return _as_bytes(name, array)
    if array.dtype == datatype.numpy:
        return array
    given, wanted = array.dtype.kind, datatype.numpy.kind
    if datatype is BF16:
        if given == "f":
            return bf16_from_float32(array.astype(np.float32, copy=False))
    elif wanted == "f" and given in "fiub":
        return array.astype(datatype.numpy)
    elif wanted in "iu" and given in "iub":
        converted = array.astype(datatype.numpy)
        if given == "b" or _is_same(converted, array):
            return converted
        raise ModelFailed(f"output '{name}' holds values that {datatype} cannot; declare it wider")
    raise ModelFailed(
        f"output '{name}' is declared {datatype}, and the model gave {array.dtype.name}"
    )


def _is_same(converted: Array, array: Array) -> bool:
    # A sign that got lost shows nowhere else: int64 -1 as uint64 compares equal to nothing, but
    # numpy would compare both as float64.
    return bool(np.array_equal(converted, array) and np.array_equal(converted < 0, array < 0))


def _as_bytes(name: str, array: Array) -> Array:
    if array.dtype.kind == "S":
        return array.astype(object)
    if array.dtype.kind == "U":
        return _each_as_bytes(name, array.astype(object))
    if array.dtype.kind != "O":
        raise ModelFailed(
            f"output '{name}' is declared BYTES, and the model gave {array.dtype.name}; "
            "give an object array of bytes or str"
        )
    if all(element.__class__ is bytes for element in array.flat):
        return array
    return _each_as_bytes(name, array)


def _each_as_bytes(name: str, array: Array) -> Array:
    converted = np.empty(array.shape, object)
    flat: Any = converted.reshape(-1)
    for index, element in enumerate(array.flat):
        match element:
            case bytes():
                flat[index] = element
            case str():
                flat[index] = element.encode()
            case bytearray() | memoryview():
                flat[index] = bytes(element)
            case _:
                raise ModelFailed(
                    f"output '{name}' is declared BYTES, and the model gave an element of type "
                    f"{type(element).__name__}; give bytes or str"
                )
    return converted
