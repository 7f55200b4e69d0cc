"""Answers of the V2 REST protocol: JSON bodies, and errors with the statuses of this protocol."""

from modelport.errors import Kind, ModelportError, Overloaded, Unsupported
from modelport.protocols.base import Buffer, Exchange, Headers, Reply
from modelport.protocols.v2.texts import error_text
from modelport.wire import json

__all__ = [
    "JSON_HEADERS",
    "encode_error",
    "error_body",
    "fail",
    "respond_empty",
    "respond_json",
    "status_of",
]

JSON_HEADERS: Headers = (("Content-Type", "application/json"),)
_CODINGS: Headers = (*JSON_HEADERS, ("Accept-Encoding", "gzip, deflate"))


def encode_error(error: ModelportError) -> Reply:
    """Say an error the way Triton does: ``{"error": text}``."""
    return Reply(status_of(error), _headers(error), error_body(error_text(error)))


def fail(exchange: Exchange, error: ModelportError, request_id: str = "") -> None:
    """Answer with an error."""
    body = error_body(error_text(error, request_id))
    exchange.respond(status_of(error), _headers(error), body)


def error_body(text: str) -> list[Buffer]:
    """Write the body of an error."""
    return [json.encode({"error": text})]


def respond_json(exchange: Exchange, value: object, status: int = 200) -> None:
    """Answer with a JSON body."""
    exchange.respond(status, JSON_HEADERS, [json.encode(value)])


def respond_empty(exchange: Exchange) -> None:
    """Answer that it is done."""
    exchange.respond(200, JSON_HEADERS, ())


def status_of(error: ModelportError) -> int:
    """The HTTP status of an error in this protocol."""
    return _STATUS[error.kind]


def _headers(error: ModelportError) -> Headers:
    if isinstance(error, Overloaded):
        return (*JSON_HEADERS, ("Retry-After", str(error.retry_after_s)))
    if isinstance(error, Unsupported) and str(error).startswith("Unsupported compression type"):
        return _CODINGS
    return JSON_HEADERS


_STATUS: dict[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 400,
    Kind.TOO_LARGE: 413,
    Kind.OVERLOADED: 503,
    Kind.UNAVAILABLE: 503,
    # Triton's "Request timeout expired" is UNAVAILABLE.
    Kind.TIMEOUT: 503,
    Kind.CANCELLED: 400,
    Kind.UNSUPPORTED: 501,
    Kind.MODEL_FAILED: 500,
    Kind.LOAD_FAILED: 400,
    Kind.UNKNOWN: 400,
}
