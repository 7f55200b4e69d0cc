"""Errors as callers of V2 read them."""

from modelport.errors import InvalidInference, ModelportError

__all__ = ["LONGEST_TEXT", "error_text"]

LONGEST_TEXT = 8192
"""Characters of an error; names in it may be as long as a body."""


def error_text(error: ModelportError, request_id: str = "", longest: int = LONGEST_TEXT) -> str:
    """Give the text for the caller, cut where it is very long.

    Triton puts the request's id before what its core says of an inference request, and only there.
    """
    text = str(error)
    if isinstance(error, InvalidInference):
        text = f"[request id: {request_id or error.request_id or '<id_unknown>'}] {text}"
    return text if len(text) <= longest else f"{text[:longest]}..."
