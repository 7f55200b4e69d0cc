"""BYTES as clients of OVMS send them: the form that V2 has now, and the one before it.

Since 2023.0 each element has its length before it, as in Triton. Clients of 2022.3 and earlier
send elements bare, and say where one ends by a list of sizes, ``"370,480,500"``, or by there being
only one. What walks by its lengths exactly to the end is of the new kind; the first bytes of an
image never do that.

Source: OpenVINO Model Server, "Predict on Binary Inputs via KServe API", 2022.3 and 2023.0.
"""

import math
from collections.abc import Sequence
from typing import Any

from modelport import dtypes
from modelport.dtypes import DataType
from modelport.errors import InvalidRequest
from modelport.wire.images import is_image
from modelport.wire.v2_bytes import IncompleteStrings, decode_strings

__all__ = ["implied_size", "sizes_of", "split"]

MOST_SIZES = 65_536


def sizes_of(value: Any, name: str) -> list[int]:
    """Read a ``binary_data_size``: an integer, several, or a text of them.

    Raises:
        InvalidRequest: If it is none of these.
    """
    parts: Sequence[Any] = [value]
    if type(value) is str:
        parts = [_number(part) for part in value.split(",", MOST_SIZES)]
    elif type(value) is list:
        parts = value
    if not 0 < len(parts) <= MOST_SIZES or any(
        type(part) is not int or not 0 <= part < 2**63 for part in parts
    ):
        raise InvalidRequest(
            "Unable to parse 'binary_data_size': attempt to access JSON non-unsigned-integer as "
            f"unsigned-integer. 'binary_data_size' of input '{name}' must be an integer of 0 or "
            'more, a list of them, or a text such as "370,480".'
        )
    return list(parts)


def implied_size(datatype: DataType, shape: tuple[int, ...], left: int) -> int:
    """How many bytes an input takes that does not say it: those of its shape, or all ``left``."""
    if datatype is dtypes.BYTES:
        return left
    return math.prod(shape) * datatype.item_bytes


def split(data: bytes, sizes: Sequence[int], count: int) -> list[bytes] | None:
    """Cut BYTES of either form into elements.

    Args:
        data: Of the input.
        sizes: As announced; their sum is ``len(data)``.
        count: Elements that the shape asks for.

    Returns:
        The elements; ``None`` if neither form gives ``count`` of them.
    """
    try:
        elements = decode_strings(data, count)
    except IncompleteStrings:
        elements = []
    if len(elements) == count:
        return elements
    if len(sizes) != count or (count == 1 and not is_image(data)):
        return None
    elements = []
    start = 0
    for size in sizes:
        elements.append(data[start : start + size])
        start += size
    return elements


def _number(text: str) -> int | None:
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
