"""JSON as the V2 protocol speaks it: bounded in depth, and with NaN and Infinity as bare words.

RFC 8259 has no NaN, and neither have the fast libraries; Triton reads and writes it. So the fast
way comes first everywhere, and the standard library's parser, which knows these words, second.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from modelport.errors import InvalidRequest

__all__ = ["DEEPEST", "MAX_DEPTH", "Pairs", "check_depth", "decode", "decode_pairs", "encode"]

MAX_DEPTH = 100
"""Levels that are read where nobody says otherwise: Triton's limit."""

DEEPEST = 500
"""Levels that may be asked for; below every recursion limit of the parsers behind us."""

Text = bytes | bytearray | memoryview


def check_depth(text: bytes | bytearray, most: int = MAX_DEPTH) -> None:
    """Refuse a text that is nested too deeply, before any parser recurses over it.

    Linear in time: two counts for a usual text; only one with many brackets is looked at closely.

    Raises:
        InvalidRequest: If an array or object lies more than ``most`` deep.
    """
    if text.count(b"[") + text.count(b"{") > most and _depth(text) > most:
        raise InvalidRequest(
            f"JSON nesting depth exceeds maximum allowed limit ({most}). "
            "Send large arrays flat, or as binary data."
        )


def decode(text: Text, most_depth: int = MAX_DEPTH) -> Any:
    """Parse a whole text, slowly and exactly: integers of any size, NaN and Infinity.

    Raises:
        InvalidRequest: If it is malformed, nested too deeply, not UTF-8, or holds a number that
            no double can.
    """
    return _parse(text, _DECODER, most_depth)


def decode_pairs(text: Text, most_depth: int = MAX_DEPTH) -> Any:
    """Like :func:`decode`, with every object as a :class:`Pairs`, so that repeated keys show."""
    return _parse(text, _PAIRS_DECODER, most_depth)


def encode(value: Any) -> bytes:
    """Write a value; NaN and Infinity as bare words."""
    try:
        encoded = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # An integer beyond 64 bits, or a string with half a surrogate pair: rare, and exact here.
        return json.dumps(value, separators=(",", ":")).encode()
    if b"null" in encoded:
        # None, or a NaN that orjson has no word for.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return encoded


class Pairs(list[tuple[str, Any]]):
    """An object as its members in their order, repeated keys included."""


def _parse(text: Text, decoder: json.JSONDecoder, most_depth: int) -> Any:
    data = bytes(text) if isinstance(text, memoryview) else text
    check_depth(data, most_depth)
    try:
        chars = data.decode()
    except UnicodeDecodeError as exc:
        raise malformed("invalid UTF-8", exc.start) from None
    try:
        value = decoder.decode(chars)
    except json.JSONDecodeError as exc:
        raise malformed(exc.msg, len(chars[: exc.pos].encode())) from None
    except _NumberOutOfRange as exc:
        raise malformed(f"number out of range: {exc}", data.find(str(exc).encode())) from None
    if "\\ud" in chars or "\\uD" in chars:
        _check_surrogates(value, data)
    return value


def malformed(reason: str, offset: int) -> InvalidRequest:
    """The error of a text that is no JSON; ``offset`` counts bytes."""
    return InvalidRequest(f"failed to parse the request JSON buffer: {reason} at {offset}")


def _check_surrogates(value: Any, text: bytes | bytearray) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise malformed("half of a surrogate pair", text.lower().find(b"\\ud")) from None


_STRING = re.compile(rb'"[^"]*"')
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STEP = np.zeros(256, np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


def _depth(text: bytes | bytearray) -> int:
    """How deep a text is nested, brackets inside strings left out.

    Escapes go first, so that every quote left opens or closes a string; then all but brackets and
    quotes, then the strings.
    """
    if b"\\" in text:
        text = _ESCAPE.sub(b"", text)
    brackets = _STRING.sub(b"", text.translate(None, _NOT_STRUCTURE))
    if not brackets:
        return 0
    steps = _STEP[np.frombuffer(brackets, np.uint8)]
    return int(np.cumsum(steps, dtype=np.int64).max())


class _NumberOutOfRange(Exception):
    pass


def _parse_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NumberOutOfRange(digits[:40])
    return value


def _parse_int(digits: str) -> int:
    # Python refuses more than 4300 digits, because reading them takes quadratic time.
    if len(digits) > 400:
        raise _NumberOutOfRange(digits[:40])
    return int(digits)


def _pairs(members: Sequence[tuple[str, Any]]) -> Pairs:
    return Pairs(members)


_DECODER = json.JSONDecoder(parse_float=_parse_float, parse_int=_parse_int)
_PAIRS_DECODER = json.JSONDecoder(
    parse_float=_parse_float, parse_int=_parse_int, object_pairs_hook=_pairs
)
