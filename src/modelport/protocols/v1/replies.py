"""Answers of V1: ``{"error": text}`` in the words of OVMS and KServe, and their statuses."""

from modelport.errors import Kind, ModelportError, NotFound, Overloaded, Unavailable
from modelport.protocols.base import Exchange, Headers, Reply
from modelport.protocols.v1.ports import EnginePort
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.texts import LONGEST_TEXT
from modelport.wire import json
from modelport.wire.v1 import MalformedJson

__all__ = [
    "JSON_HEADERS",
    "V1Options",
    "asked_version",
    "encode_error",
    "fail",
    "not_served",
    "respond_json",
]

JSON_HEADERS: Headers = (("Content-Type", "application/json"),)


class V1Options(V2Options, frozen=True, kw_only=True):
    """What an operator can set of V1.

    Attributes:
        max_body_bytes: Of a body after decompression.
        max_json_depth: Levels of a body.
        max_json_bytes: Of a body; ``None`` for the server's limit alone.
    """

    max_body_bytes: int = 2**31 - 1
    max_json_depth: int = json.MAX_DEPTH
    max_json_bytes: int | None = None


def asked_version(exchange: Exchange) -> str | None:
    """The version in the path; ``None`` for the default one, which ``0`` means here as well."""
    version = exchange.params.get("version")
    return version if version is not None and version.strip("0") else None


def encode_error(error: ModelportError) -> Reply:
    """Say an error."""
    headers = JSON_HEADERS
    if isinstance(error, Overloaded):
        headers = (*JSON_HEADERS, ("Retry-After", str(error.retry_after_s)))
    status = 412 if isinstance(error, MalformedJson) else _STATUS[error.kind]
    text = str(error)
    shown = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."
    return Reply(status, headers, [json.encode({"error": shown})])


def fail(exchange: Exchange, error: ModelportError) -> None:
    """Answer with an error."""
    reply = encode_error(error)
    exchange.respond(reply.status, reply.headers, reply.body)


def not_served(
    engine: EnginePort,
    error: NotFound,
    model: str,
    version: str | None,
    *,
    is_known: bool | None = None,
) -> ModelportError:
    """Say in the words of OVMS and KServe that there is no such model, or version of it.

    Args:
        engine: Knows why not.
        error: What V2 says.
        model: Its name.
        version: ``None`` for the default one.
        is_known: Whether other versions of it are; ``None`` for whether any is served.
    """
    if is_known is None:
        is_known = bool(engine.deployments(model))
    if is_known and version is not None:
        return NotFound(
            f"Model with requested version is not found - version {version} of '{model}'"
        )
    faults = [
        row.reason
        for row in engine.index()
        if row.name == model and row.reason and not row.reason.startswith("unloaded")
    ]
    if faults:
        return Unavailable(f"Model with name {model} is not ready. {'; '.join(faults)}")
    return NotFound(
        f"Model with requested name is not found - Model with name {model} does not exist. {error}"
    )


def respond_json(exchange: Exchange, value: object, status: int = 200) -> None:
    """Answer with a JSON body."""
    exchange.respond(status, JSON_HEADERS, [json.encode(value)])


_STATUS: dict[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.OVERLOADED: 503,
    Kind.UNAVAILABLE: 503,
    Kind.TIMEOUT: 504,
    Kind.CANCELLED: 499,
    Kind.UNSUPPORTED: 501,
    Kind.MODEL_FAILED: 500,
    Kind.LOAD_FAILED: 500,
    Kind.UNKNOWN: 500,
}
