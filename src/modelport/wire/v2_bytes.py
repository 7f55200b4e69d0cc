"""A tensor as bytes, both ways: little-endian, row-major, and BYTES with a length before each.

The same form serves the binary tensor extension of REST, ``raw_input_contents`` of gRPC and
shared memory. Numbers are not copied in either direction.

What is wrong with the data of an input goes into its :attr:`~modelport.tensors.Tensor.fault`,
because clients know these errors in the engine's order: shape first, bytes after it.

Source: Open Inference Protocol, "Raw Tensor Data"; Triton, binary tensor data extension.
"""

import math
import struct
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelport import dtypes
from modelport.dtypes import DataType
from modelport.errors import InvalidInference
from modelport.tensors import Array, Tensor
from modelport.wire.v2_values import MAX_ELEMENTS, impossible_shape, lay_out, overflowing_size

__all__ = [
    "IncompleteStrings",
    "decode_bytes",
    "decode_strings",
    "encode_array",
    "encode_strings",
    "string_array",
]

Buffer = bytes | bytearray | memoryview

_EMPTY = np.empty(0, np.uint8)


def decode_bytes(
    name: str,
    datatype: DataType,
    shape: tuple[int, ...],
    buffer: Buffer,
    offset: int,
    size: int,
    model: str,
) -> Tensor:
    """Make an input of ``size`` bytes at ``offset``; its array is a view on them.

    Args:
        name: Of the input.
        datatype: As announced.
        shape: As announced, no dimension negative.
        buffer: Holds at least ``offset + size`` bytes. Pass a read-only one for a read-only array.
        offset: Where the data begins.
        size: Bytes that the caller announced.
        model: For the texts of errors.

    Raises:
        InvalidRequest: If no array can have the shape, or none of the datatype.
    """
    if datatype is dtypes.BYTES:
        view = memoryview(buffer)[offset : offset + size]
        return _decode_strings(name, shape, view, model)
    elements = math.prod(shape)
    expected = elements * datatype.item_bytes
    if size != expected:
        if elements > MAX_ELEMENTS:
            raise impossible_shape(shape, name)
        if expected > MAX_ELEMENTS:
            raise overflowing_size(shape, name)
        fault = InvalidInference(
            f"input byte size mismatch for input '{name}' for model '{model}'. "
            f"Expected {expected}, got {size}"
        )
        return Tensor(name, datatype, _EMPTY, shape, fault)
    array = lay_out(buffer, datatype, shape, name, offset)
    if datatype is dtypes.BOOL and size and array.view(np.uint8).max() > 1:
        # numpy's own operations disagree on booleans that are neither 0 nor 1.
        array = array.view(np.uint8) != 0
    return Tensor(name, datatype, array)


class IncompleteStrings(Exception):
    """BYTES end in the middle of a length or of an element.

    Attributes:
        count: Elements that are whole.
        left: Bytes that are left for the one that is not.
        length: Of that one; ``None`` if its length is cut off itself.
    """

    def __init__(self, count: int, left: int, length: int | None) -> None:
        super().__init__(count, left, length)
        self.count = count
        self.left = left
        self.length = length


def decode_strings(view: Buffer, limit: int = sys.maxsize) -> list[bytes]:
    """Cut elements, each after its 4-byte length, out of a buffer.

    Args:
        view: All of the elements and nothing else.
        limit: Stop after so many; the rest is left alone.

    Raises:
        IncompleteStrings: If the last length or element is cut off.
    """
    data = bytes(view)
    end = len(data)
    unpack = _LENGTH.unpack_from
    elements: list[bytes] = []
    position = 0
    while position < end and len(elements) < limit:
        start = position + 4
        if start > end:
            raise IncompleteStrings(len(elements), end - position, None)
        (length,) = unpack(data, position)
        position = start + length
        if position > end:
            raise IncompleteStrings(len(elements), end - start, length)
        elements.append(data[start:position])
    if position < end:
        # One more than allowed: enough to know that there are too many.
        elements.append(b"")
    return elements


def encode_array(array: Array, datatype: DataType) -> Buffer:
    """Give the bytes of an array; of a contiguous one that is not BYTES, a view."""
    if datatype is dtypes.BYTES:
        return encode_strings(array.ravel().tolist())
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if array.size == 0:
        return b""
    return array.reshape(-1).view(np.uint8).data


def encode_strings(elements: Sequence[Any]) -> bytes:
    """Put elements one after another, each after its 4-byte length; ``str`` as UTF-8."""
    pack = _LENGTH.pack
    parts: list[bytes] = []
    for element in elements:
        data = element if type(element) is bytes else _as_bytes(element)
        parts.append(pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def string_array(elements: Sequence[bytes], shape: tuple[int, ...], name: str) -> Array:
    """Make the object array that BYTES tensors have; as many elements as the shape asks for."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return lay_out(array, dtypes.BYTES, shape, name)


_LENGTH = struct.Struct("<I")


def _as_bytes(element: Any) -> bytes:
    if isinstance(element, bytes | bytearray | memoryview):
        return bytes(element)
    return str(element).encode()


def _decode_strings(name: str, shape: tuple[int, ...], view: memoryview, model: str) -> Tensor:
    wanted = math.prod(shape)
    try:
        elements = decode_strings(view, wanted)
    except IncompleteStrings as exc:
        text = _incomplete(name, model, exc.left, exc.length)
        return _faulty(name, shape, f"{text} ({exc.count} of {wanted} elements are whole)", view)
    if len(elements) > wanted:
        return _faulty(
            name,
            shape,
            f"unexpected number of string elements {wanted + 1} for inference input '{name}' "
            f"for model '{model}', expecting {wanted}",
            view,
        )
    if len(elements) < wanted:
        return _faulty(
            name,
            shape,
            f"expected {wanted} string elements for inference input '{name}' "
            f"for model '{model}', got {len(elements)}",
            view,
        )
    return Tensor(name, dtypes.BYTES, string_array(elements, shape, name))


def _incomplete(name: str, model: str, left: int, length: int | None) -> str:
    if length is None:
        return (
            f"incomplete string length indicator for inference input '{name}' for model "
            f"'{model}', expecting 4 bytes but only {left} bytes available. Each element of a "
            "BYTES tensor begins with its length as 4 bytes, little-endian."
        )
    return (
        f"incomplete string data for inference input '{name}', expecting string of length "
        f"{length} but only {left} bytes available"
    )


def _faulty(name: str, shape: tuple[int, ...], text: str, view: memoryview) -> Tensor:
    # The bytes as they came go with it: to who knows another form of them they may mean something.
    array = np.frombuffer(view, np.uint8)
    return Tensor(name, dtypes.BYTES, array, shape, InvalidInference(text))
