"""JSON as the V2 protocol speaks it: bounded in depth, and with NaN and Infinity as bare words.

RFC 8259 has no NaN, and neither have the fast libraries; Triton reads and writes it. So the fast
way comes first everywhere, and the standard library's parser, which knows these words, second.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from modelport.errors import InvalidRequest, TooLarge
from modelport.wire.json_writing import encode

__all__ = [
    "DEEPEST",
    "MAX_DEPTH",
    "MOST_MEMBERS",
    "Pairs",
    "check_depth",
    "check_size",
    "decode",
    "decode_pairs",
    "encode",
]

MAX_DEPTH = 100
"""Levels that are read where nobody says otherwise: Triton's limit."""

DEEPEST = 500
"""Levels that may be asked for; below every recursion limit of the parsers behind us."""

Text = bytes | bytearray | memoryview


MOST_MEMBERS = 500_000
"""Of all objects of a text together. Seven million are 70 MB, and took a parser 3 to 26 s, during
which nobody else was answered; values without names cost a thirtieth."""

PIECE_BYTES = 1 << 20
"""Of a text that is looked at closely at a time, so that other threads may go on between."""


def check_depth(text: bytes | bytearray, most: int = MAX_DEPTH) -> None:
    """Refuse a text that is nested too deeply, or has too many names, before it is parsed.

    Linear in time: three counts for a usual text; only one with many brackets or colons is looked
    at closely.

    Raises:
        InvalidRequest: If an array or object lies more than ``most`` deep, or the objects have
            more than ``MOST_MEMBERS`` members together.
    """
    brackets = text.count(b"[") + text.count(b"{")
    is_long = len(text) > MOST_MEMBERS
    if brackets <= most and not (is_long and text.count(b":") > MOST_MEMBERS):
        return
    for depth, members in _structure(text):
        if depth > most:
            raise InvalidRequest(
                f"JSON nesting depth exceeds maximum allowed limit ({most}). "
                "Send large arrays flat, or as binary data."
            )
        if members > MOST_MEMBERS:
            raise InvalidRequest(
                f"the JSON has more than {MOST_MEMBERS} named members. Send large data as arrays, "
                "or as binary data."
            )


def check_size(size: int, most: int | None) -> None:
    """Refuse a text that would be parsed in one go, with everybody else waiting, for too long.

    Args:
        size: Bytes of it.
        most: That are read; ``None`` for any number.

    Raises:
        TooLarge: There are more.
    """
    if most is not None and size > most:
        raise TooLarge(
            f"the JSON has {size} bytes, and {most} is the most that is read in one go "
            "(--max-json-size). Send large arrays as binary data to /v2/models/NAME/infer, or as "
            "plain numbers without NaN; or large data as files."
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
    flat = _read_flat(text)
    return _parse(text, _PAIRS_DECODER, most_depth) if flat is None else flat


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


def _read_flat(text: Text) -> Pairs | None:
    """Read a small object of numbers and short texts, as most are, in a tenth of the time.

    Returns:
        ``None`` for whatever else it is: it is read the other way, or refused there.
    """
    if len(text) > _FLAT_BYTES or isinstance(text, memoryview) or b"\\" in text:
        return None
    try:
        members = _FLAT_DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if members.__class__ is not dict:
        return None
    strings = len(members)
    for value in members.values():
        kind = value.__class__
        if kind is str:
            strings += 1
        elif kind is int:
            if not -_MOST_EXACT < value < _MOST_EXACT:
                return None
        elif kind is not float and kind is not bool:
            return None
    # Of a name that occurs twice only the last is left: then there are more quotes than strings.
    return Pairs(members.items()) if text.count(b'"') == 2 * strings else None


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
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}:"'))
_STEP = np.zeros(256, np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


def _structure(text: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Go through a text: how deep it has been nested in each piece, and how many members so far.

    What is inside strings is left out. Escapes go first, so that every quote left opens or closes
    a string; then all but the structure, then the strings.
    """
    depth = members = at = 0
    is_inside = False
    while at < len(text):
        piece = bytes(text[at : at + PIECE_BYTES])
        if piece.endswith(b"\\") and (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece += text[at + len(piece) : at + len(piece) + 1]
        at += len(piece)
        if b"\\" in piece:
            piece = _ESCAPE.sub(b"", piece)
        piece = piece.translate(None, _NOT_STRUCTURE)
        piece = _STRING.sub(b"", b'"' + piece if is_inside else piece)
        piece, quote, _ = piece.partition(b'"')
        is_inside = bool(quote)
        if piece:
            members += piece.count(b":")
            steps = np.cumsum(_STEP[np.frombuffer(piece, np.uint8)], dtype=np.int64)
            yield depth + int(steps.max()), members
            depth += int(steps[-1])


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


_FLAT_BYTES = 4096
_FLAT_DECODER = msgspec.json.Decoder()
_MOST_EXACT = 1 << 64
_DECODER = json.JSONDecoder(parse_float=_parse_float, parse_int=_parse_int)
_PAIRS_DECODER = json.JSONDecoder(
    parse_float=_parse_float, parse_int=_parse_int, object_pairs_hook=_pairs
)
