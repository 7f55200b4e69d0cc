"""Values as JSON, with NaN and Infinity as bare words; apart, so that clients load no reader."""

import json
from typing import Any

import orjson

__all__ = ["encode"]


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
