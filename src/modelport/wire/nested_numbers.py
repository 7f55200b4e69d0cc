"""Numbers in lists in lists, as JSON text → an array, a piece at a time.

Parsed in one go, a list of two million pairs is as many objects of Python, and everybody waits for
a second. Here the text is looked at twice, and no list is ever made: once for its brackets and
commas alone, which must be those of some shape, and once for its numbers without the brackets.
Other threads may go on between the pieces.
"""

import math

from modelport import dtypes
from modelport.dtypes import DataType
from modelport.tensors import Array
from modelport.wire.v2_values import CODECS, MAX_DIMENSIONS, decode_in_pieces

__all__ = ["decode_numbers"]

PIECE_BYTES = 1 << 20

_NUMBER_AS_0 = bytes.maketrans(b"123456789+-.eE", b"0" * 14)
_SPACE = b" \t\r\n"


def decode_numbers(text: memoryview, datatype: DataType, name: str) -> Array | None:
    """Read lists of numbers, of any regular shape.

    Args:
        text: From the first bracket to the last. Need not be well-formed.
        datatype: Of the array.
        name: Of the tensor, for the texts of errors.

    Returns:
        The array; ``None`` for whatever is not so simple, wrong or not: the general way says.
    """
    if datatype in (dtypes.BYTES, dtypes.BOOL):
        return None
    structure = _structure(text)
    shape = None if structure is None else _shape(structure)
    if shape is None or not math.prod(shape):
        return None
    return decode_in_pieces(text, CODECS[datatype], datatype, shape, name)


def _structure(text: memoryview) -> bytes | None:
    """Leave out all but brackets and commas, if there is nothing else than these and numbers."""
    pieces = []
    before = b""
    for start in range(0, len(text), PIECE_BYTES):
        piece = bytes(text[start : start + PIECE_BYTES]).translate(_NUMBER_AS_0, _SPACE)
        joint = before + piece
        # A number beside a bracket that it is not inside of would be lost sight of.
        if b"]0" in joint or b"0[" in joint or b"][" in joint:
            return None
        pieces.append(piece.translate(None, b"0"))
        before = piece[-1:] or before
        if pieces[-1].translate(None, b"[],"):
            return None
    return b"".join(pieces)


def _shape(structure: bytes) -> tuple[int, ...] | None:
    """Tell the shape whose brackets and commas these are: ``[[,,],[,,]]`` is of ``(2, 3)``."""
    depth = len(structure) - len(structure.lstrip(b"["))
    if not 0 < depth <= MAX_DIMENSIONS:
        return None
    end = structure.find(b"]")
    unit = structure[depth - 1 : end + 1]
    shape = [len(unit) - 1]
    if unit[1:-1].strip(b","):
        return None
    for start in range(depth - 1, 0, -1):
        # The first list that such lists are in ends with the first of them that a bracket follows.
        end = structure.find(unit + b"]", start)
        count, rest = divmod(end - start, len(unit) + 1)
        if end < 0 or rest:
            return None
        shape.append(count + 1)
        unit = b"[%b%b]" % ((unit + b",") * count, unit)
    return tuple(reversed(shape)) if unit == structure else None
