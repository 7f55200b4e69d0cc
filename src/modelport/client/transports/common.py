"""What both transports hold on to, and how they say what went wrong."""

import socket
import ssl

from modelport.client.flows import Request, TransportFailed
from modelport.client.transports.address import Address
from modelport.wire.http_response import BadResponse, ResponseHead, encode_request_head

__all__ = ["JOIN_BELOW_BYTES", "MOST_IDLE", "Heads", "failure_of"]

MOST_IDLE = 20
"""Connections to one address that are kept for later."""
JOIN_BELOW_BYTES = 65_536
"""A body below this goes out with its head, in one piece."""
MOST_KNOWN = 256


class Heads:
    """Heads that were written or read before: the same few come again and again.

    Attributes:
        answers: For :class:`~modelport.wire.http_response.ResponseReader`.
    """

    def __init__(self) -> None:
        self.answers: dict[bytes, ResponseHead] = {}
        self._requests: dict[tuple[object, ...], bytes] = {}

    def of(self, request: Request, target: str, host: str) -> tuple[bytes, int | None]:
        """Write the head of a request.

        Returns:
            The head, and the bytes of the body; ``None`` if it goes in chunks.
        """
        body = request.body
        length = len(body) if isinstance(body, bytes) else request.length
        key = (request.method, target, host, length, *request.headers)
        head = self._requests.get(key)
        if head is None:
            has_none = length == 0 and request.method in ("GET", "HEAD", "DELETE")
            head = encode_request_head(
                request.method,
                target,
                [("Host", host), *request.headers],
                -1 if has_none else length,
            )
            if len(self._requests) >= MOST_KNOWN:
                self._requests.clear()
            self._requests[key] = head
        return head, length


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
