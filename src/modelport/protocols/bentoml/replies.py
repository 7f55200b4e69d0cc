"""Statuses and bodies of errors, as BentoML's clients know them."""

import itertools
import secrets

from modelport.errors import InvalidArguments, Kind, ModelportError, Overloaded
from modelport.exceptions import BentoMLException
from modelport.protocols.base import Headers, Reply
from modelport.wire import bentoml

__all__ = [
    "JSON_HEADERS",
    "MASKED",
    "TEXT_HEADERS",
    "encode_error",
    "error_text",
    "new_request_id",
    "status_of",
]

MASKED = "An unexpected error has occurred, please check the server log."

JSON_HEADERS: Headers = (("Content-Type", "application/json"),)
TEXT_HEADERS: Headers = (("Content-Type", "text/plain; charset=utf-8"),)


def encode_error(error: ModelportError) -> Reply:
    """Say an error as an object with ``error``, and with ``detail`` where arguments do not fit."""
    status = status_of(error)
    headers = JSON_HEADERS
    if status in (429, 503):
        wait_s = error.retry_after_s if isinstance(error, Overloaded) else 1
        headers = (*JSON_HEADERS, ("Retry-After", str(wait_s)))
    detail = error.detail if isinstance(error, InvalidArguments) else ()
    return Reply(status, headers, [bentoml.encode_error(error_text(error), detail)])


def status_of(error: ModelportError) -> int:
    """The status of an error in this protocol; authors choose theirs."""
    if isinstance(error, BentoMLException):
        chosen = int(error.error_code)
        return chosen if 200 <= chosen <= 599 else 500
    return _STATUS[error.kind]


def error_text(error: ModelportError) -> str:
    """What the caller hears."""
    status = status_of(error)
    if isinstance(error, BentoMLException):
        if status in (401, 403):
            return "Authorization error"
        return MASKED if status >= 500 else str(error)
    return MASKED if status == 500 else str(error)


def new_request_id() -> str:
    """Sixteen hexadecimal digits, different each time."""
    return f"{next(_ids) & 0xFFFFFFFFFFFFFFFF:016x}"


_ids = itertools.count(secrets.randbits(63))

_STATUS: dict[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.OVERLOADED: 429,
    Kind.UNAVAILABLE: 503,
    Kind.TIMEOUT: 504,
    Kind.CANCELLED: 400,
    Kind.UNSUPPORTED: 501,
    Kind.MODEL_FAILED: 500,
    Kind.LOAD_FAILED: 503,
    Kind.UNKNOWN: 500,
}
