"""What both transports hold on to, and how they say what went wrong."""

import socket
import ssl

from modelport.client.flows import TransportFailed
from modelport.client.transports.address import Address
from modelport.wire.http_response import BadResponse

__all__ = ["JOIN_BELOW_BYTES", "MOST_IDLE", "failure_of"]

MOST_IDLE = 20
"""Connections to one address that are kept for later."""
JOIN_BELOW_BYTES = 65_536
"""A body below this goes out with its head, in one piece."""


def failure_of(
    exc: Exception, address: Address, timeout_s: float | None, *, was_sent: bool
) -> TransportFailed:
    """Say what went wrong between us and a server."""
    where = f"the server at {address}"
    if isinstance(exc, TimeoutError):
        doing = "did not answer" if was_sent else "could not be reached"
        text = f"{where} {doing} within {timeout_s:g} s"
        return TransportFailed(text, was_sent=was_sent, is_timeout=True)
    if isinstance(exc, ConnectionRefusedError):
        text = f"connection refused: nothing listens at {address}; is the server running?"
        return TransportFailed(text, was_sent=False)
    if isinstance(exc, ssl.SSLCertVerificationError):
        text = f"{where} has a certificate that is not trusted: {exc.verify_message}"
        return TransportFailed(text, was_sent=False)
    if isinstance(exc, socket.gaierror):
        return TransportFailed(f"no host is called {address.host!r}", was_sent=False)
    said = exc.text if isinstance(exc, BadResponse) else str(exc) or type(exc).__name__
    return TransportFailed(f"{where}: {said}", was_sent=was_sent)
