"""Answers of the V2 gRPC protocol, and errors with the status codes of this protocol."""

from modelport.errors import Kind, ModelportError, PollFailed, QueueTimedOut, Unavailable
from modelport.protocols.base import Call
from modelport.protocols.v2.texts import error_text

__all__ = ["INTERNAL", "end_exiting", "error_status", "fail", "reply"]

INTERNAL = 13

LONGEST_STATUS = 2048
"""Characters of a status's text. It travels in a header, where there is little room."""


def reply(call: Call, message: bytes) -> None:
    """Answer with the one message of a unary call."""
    call.answer([message])


def fail(call: Call, error: ModelportError, request_id: str = "") -> None:
    """Answer with an error."""
    call.finish(*error_status(error, request_id))


def end_exiting(call: Call) -> None:
    """End a call that would go on, because the server does not."""
    fail(call, Unavailable("Server exiting"))


def error_status(error: ModelportError, request_id: str = "") -> tuple[int, str]:
    """Say an error as a status code and its text."""
    status = _STATUS_BY_CLASS.get(type(error), _STATUS[error.kind])
    return status, error_text(error, request_id, LONGEST_STATUS)


_STATUS: dict[Kind, int] = {
    Kind.INVALID: 3,  # INVALID_ARGUMENT
    Kind.UNAUTHENTICATED: 16,
    Kind.FORBIDDEN: 7,  # PERMISSION_DENIED
    Kind.NOT_FOUND: 5,
    Kind.CONFLICT: 6,  # ALREADY_EXISTS
    Kind.TOO_LARGE: 8,  # RESOURCE_EXHAUSTED
    Kind.OVERLOADED: 14,  # UNAVAILABLE
    Kind.UNAVAILABLE: 14,
    Kind.TIMEOUT: 4,  # DEADLINE_EXCEEDED
    Kind.CANCELLED: 1,
    Kind.UNSUPPORTED: 12,  # UNIMPLEMENTED
    Kind.MODEL_FAILED: INTERNAL,
    Kind.LOAD_FAILED: 3,
    Kind.UNKNOWN: 2,
}
_STATUS_BY_CLASS: dict[type[ModelportError], int] = {
    # Triton's classes for these, where its own differ from what their kind has.
    PollFailed: INTERNAL,
    QueueTimedOut: 14,
}
