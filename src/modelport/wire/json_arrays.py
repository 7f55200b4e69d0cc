"""Large arrays as JSON, a piece at a time, so that other threads may go on between.

One call for ten million numbers takes half a second, and holds Python's lock all the while: whoever
makes it on a thread still has everybody wait. So what has more than ``LONG_VALUES`` is written in
pieces, on a thread.
"""

from collections.abc import Callable, Iterator

from modelport.tensors import Array

__all__ = ["LONG_VALUES", "LongAnswer", "in_pieces"]

LONG_VALUES = 1 << 18
"""Values whose JSON takes some 5 ms: with more than these, writing it would hold up the others."""

PIECE_VALUES = 1 << 14


class LongAnswer(Exception):
    """What is to be written takes long; have it written on a thread, in pieces."""


def in_pieces(array: Array, encode: Callable[[Array], bytes]) -> Iterator[bytes]:
    """Write an array as lists in lists.

    Args:
        array: Of any shape.
        encode: Writes an array that is a part of it, in one go.

    Yields:
        The text; about a millisecond of work lies between one piece and the next.

    >>> import numpy as np, orjson
    >>> encode = lambda part: orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY)
    >>> b"".join(in_pieces(np.zeros((2, 2), np.int64), encode))
    b'[[0,0],[0,0]]'
    """
    if array.size <= PIECE_VALUES or not array.ndim:
        yield encode(array)
        return
    row_values = array.size // len(array)
    step = max(1, PIECE_VALUES // row_values)
    before = b"["
    for start in range(0, len(array), step):
        if row_values > PIECE_VALUES:
            yield before
            yield from in_pieces(array[start], encode)
        else:
            yield before + encode(array[start : start + step])[1:-1]
        before = b","
    yield b"]"
