"""Files that hold one tensor each, its elements as they go over the wire.

Little-endian and row-major, and for text each element after its length in 4 bytes.
"""

import math
import struct
from pathlib import Path

import numpy as np

from modelport.dtypes import BYTES, DATATYPE_BY_CONFIG_NAME
from modelport.errors import LoadFailed
from modelport.tensors import Array

__all__ = ["read_tensor"]


def read_tensor(file: Path, data_type: str, dims: tuple[int, ...], where: str) -> Array:
    """Read a file.

    Args:
        file: Its name was checked.
        data_type: As in a configuration, ``TYPE_FP32``.
        dims: What the tensor is like; every size is known.
        where: What the file is for, as an error says it.

    Raises:
        LoadFailed: If it is missing, or has another size than its tensor.
    """
    return _tensor(_content(file, where), data_type, dims, where)


def _content(file: Path, where: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise LoadFailed(f"{where} cannot be read: {exc.strerror}") from exc


def _tensor(content: bytes, data_type: str, dims: tuple[int, ...], where: str) -> Array:
    datatype = DATATYPE_BY_CONFIG_NAME[data_type]
    count = math.prod(dims)
    if datatype is BYTES:
        return _texts(content, count, where).reshape(dims)
    wanted = count * datatype.item_bytes
    if len(content) != wanted:
        raise LoadFailed(f"{where} has {len(content)} bytes; {list(dims)} takes {wanted}")
    return np.frombuffer(content, datatype.numpy).reshape(dims)


def _texts(content: bytes, count: int, where: str) -> Array:
    elements = []
    position = 0
    while position + 4 <= len(content):
        (length,) = struct.unpack_from("<I", content, position)
        elements.append(content[position + 4 : position + 4 + length])
        position += 4 + length
    if position != len(content) or len(elements) != count:
        raise LoadFailed(
            f"{where} does not hold {count} elements, each after its length in 4 bytes"
        )
    array = np.empty(count, object)
    array[:] = elements
    return array
