"""What both transports hold on to, and how they say what went wrong."""

import socket
import ssl
from collections.abc import Iterable

from modelport.client.flows import Body, Request, Response, TransportFailed
from modelport.client.tls_failures import explain_tls
from modelport.client.transports.address import Address
from modelport.errors import InvalidRequest, TooLarge
from modelport.wire.http_response import (
    BadResponse,
    ResponseHead,
    ResponseReader,
    encode_request_head,
)

__all__ = [
    "JOIN_BELOW_BYTES",
    "MOST_BYTES",
    "MOST_ERROR_BYTES",
    "MOST_IDLE",
    "Heads",
    "WholeAnswer",
    "check_stream",
    "failure_of",
    "pieces_of",
    "tunnel_head",
]

MOST_IDLE = 20
"""Connections to one address that are kept for later."""
JOIN_BELOW_BYTES = 65_536
"""A body below this goes out with its head, in one piece."""
PIECE_BYTES = 1 << 20
"""A larger one goes out in pieces, so that the time allowed is for each of them."""
MOST_ERROR_BYTES = 1 << 22
"""Of an answer that is no success, more than this is not read: it is a text for people."""
MOST_BYTES = 1 << 30
"""Of an answer that is held in memory, where nobody says otherwise."""
MOST_KNOWN = 256
NO_LIMIT = 1 << 62


class Heads:
    """Heads that were written or read before: the same few come again and again.

    Attributes:
        answers: For :class:`~modelport.wire.http_response.ResponseReader`.
    """

    def __init__(self) -> None:
        self.answers: dict[bytes, ResponseHead] = {}
        self._requests: dict[tuple[object, ...], bytes] = {}

    def of(
        self, request: Request, target: str, way: tuple[tuple[str, str], ...]
    ) -> tuple[bytes, int | None]:
        """Write the head of a request, with the headers of its way first.

        Returns:
            The head, and the bytes of the body; ``None`` if it goes in chunks.
        """
        body = request.body
        length = len(body) if isinstance(body, bytes) else request.length
        key = (request.method, target, way, length, *request.headers)
        head = self._requests.get(key)
        if head is None:
            has_none = length == 0 and request.method in ("GET", "HEAD", "DELETE")
            head = encode_request_head(
                request.method,
                target,
                [*way, *request.headers],
                -1 if has_none else length,
            )
            if len(self._requests) >= MOST_KNOWN:
                self._requests.clear()
            self._requests[key] = head
        return head, length


class WholeAnswer:
    """An answer that is held in memory, as far as it may be.

    Args:
        reader: Has read the head, and goes on reading.
        first: What came of the body together with the head.
        address: Of who answers.
        most_bytes: Of a success; ``None`` for no bound.

    Attributes:
        is_cut_short: Whether the rest of it is not to be read.

    Raises:
        TooLarge: If it is, or will be, longer than may be.
    """

    def __init__(
        self, reader: ResponseReader, first: bytes, address: Address, most_bytes: int | None
    ) -> None:
        assert reader.head is not None
        self.is_cut_short = False
        self._head = reader.head
        self._reader = reader
        self._address = address
        self._is_success = reader.head.status < 300
        self._most_bytes = most_bytes if self._is_success else None
        self._parts = [first]
        self._size = len(first)
        self._check(self._size + reader.missing_bytes)

    def wants_more(self) -> bool:
        """Whether to read on."""
        if self._reader.is_complete:
            return False
        self.is_cut_short = not self._is_success and self._size > MOST_ERROR_BYTES
        return not self.is_cut_short

    def add(self, part: bytes) -> None:
        """Take what has been read.

        Raises:
            TooLarge: If that is more than may be.
        """
        self._parts.append(part)
        self._size += len(part)
        self._check(self._size)

    def response(self) -> Response:
        """Give it.

        Raises:
            BadResponse: It is compressed in a way that cannot be undone.
            TooLarge: It unfolds to more than may be.
        """
        head, body = self._head, b"".join(self._parts)
        if head.coding:
            body = self._unfolded(body)
        return Response(head.status, head.headers, body)

    def _unfolded(self, body: bytes) -> bytes:
        """Undo a compression, which was not asked for and not refused (RFC 9110 §12.5.3)."""
        from modelport.wire.compression import CODINGS, decompress  # few servers do it

        coding = self._head.coding
        try:
            if coding not in CODINGS:
                raise BadResponse(f"the answer is compressed with {coding[:40]!r}, unasked")
            return decompress(body, coding, self._unfolded_bytes)
        except InvalidRequest as exc:
            if self._is_success:
                raise BadResponse(f"the answer cannot be unfolded: {exc.text}") from exc
        except TooLarge as exc:
            if self._is_success:
                raise self._too_large() from exc
        except BadResponse:
            if self._is_success:
                raise
        return body  # of an error, the status says the most

    @property
    def _unfolded_bytes(self) -> int:
        if not self._is_success:
            return MOST_ERROR_BYTES
        return NO_LIMIT if self._most_bytes is None else self._most_bytes

    def _check(self, size: int) -> None:
        most_bytes = self._most_bytes
        if most_bytes is not None and size > most_bytes:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the answer of the server at {self._address} is longer than {self._most_bytes} bytes; "
            "allow more with max_response_bytes"
        )


def check_stream(head: ResponseHead) -> None:
    """Make sure that an answer can be read as it comes.

    Raises:
        BadResponse: It is compressed, which nobody asked for.
    """
    if head.coding:
        raise BadResponse(f"the stream is compressed with {head.coding[:40]!r}, unasked")


def tunnel_head(address: Address) -> bytes:
    """Write what asks a proxy for a way to an address."""
    assert address.proxy is not None
    name = f"[{address.host}]" if ":" in address.host else address.host
    target = f"{name}:{address.port}"
    return encode_request_head("CONNECT", target, [("Host", target), *address.proxy.headers()], -1)


def pieces_of(body: Body) -> Iterable[bytes | memoryview]:
    """Cut a body into what is sent at a time."""
    if not isinstance(body, bytes):
        return body
    view = memoryview(body)
    return (view[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES))


def failure_of(
    exc: Exception, address: Address, timeout_s: float | None, *, was_sent: bool
) -> TransportFailed:
    """Say what went wrong between us and a server."""
    proxy = address.proxy
    where = f"the server at {address}"
    first = address
    if proxy is not None:
        where += f", by the proxy at {proxy.host}:{proxy.port},"
        first = Address(False, proxy.host, proxy.port)
    if isinstance(exc, TimeoutError | BlockingIOError):
        doing = "did not answer" if was_sent else "could not be reached"
        text = f"{where} {doing} within {timeout_s:g} s"
        return TransportFailed(text, was_sent=was_sent, is_timeout=True)
    if isinstance(exc, ConnectionRefusedError):
        what = "server" if proxy is None else "proxy"
        text = f"connection refused: nothing listens at {first}; is the {what} running?"
        return TransportFailed(text, was_sent=False)
    if address.is_tls and not was_sent and isinstance(exc, ssl.SSLEOFError | ConnectionResetError):
        text = f"{where} breaks TLS off when it begins; if it speaks none, call it with http://"
        return TransportFailed(text, was_sent=False)
    if isinstance(exc, ssl.SSLError):
        was_sent = was_sent and not isinstance(exc, ssl.SSLCertVerificationError)
        return TransportFailed(f"{where} {explain_tls(exc)}", was_sent=was_sent)
    if isinstance(exc, socket.gaierror):
        return TransportFailed(f"no host is called {first.host!r}", was_sent=False)
    if isinstance(exc, BadResponse):
        said = exc.text
    else:
        said = (isinstance(exc, OSError) and exc.strerror) or str(exc) or type(exc).__name__
    return TransportFailed(f"{where}: {said}", was_sent=was_sent)
