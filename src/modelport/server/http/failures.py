"""Answers for what went wrong, also when a protocol cannot even say that."""

import logging

from modelport.errors import INTERNAL_ERROR, ModelportError
from modelport.protocols.base import ErrorEncoder, Reply

__all__ = ["encode_error", "internal_error"]

log = logging.getLogger("modelport.http")


def encode_error(errors: ErrorEncoder, error: ModelportError) -> Reply:
    """Say an error in the protocol's own form.

    A protocol that fails at it, such as one that is imported on first use and cannot be, must not
    leave its client without any answer.
    """
    try:
        return errors(error)
    except Exception:
        log.exception("an error could not be said in the form of its protocol: %s", error)
        body = b'{"error":"%b"}' % INTERNAL_ERROR.encode()
        return Reply(500, (("Content-Type", "application/json"),), [body])


def internal_error(errors: ErrorEncoder) -> Reply:
    """Tell a client that something went wrong that should not; what it was, the log tells."""
    reply = encode_error(errors, ModelportError(INTERNAL_ERROR))
    return Reply(500, reply.headers, reply.body)
