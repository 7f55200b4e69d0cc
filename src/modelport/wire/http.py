"""HTTP/1.1 as bytes: heads, chunked bodies and what a connection may do next. No socket, no clock.

Heads are read by llhttp (through httptools), which has the security history that a parser needs.
Bodies are not fed to it: a counted body is only counted, and a chunked one is read here, because
llhttp does not say where in its input a message ends.

Source: RFC 9110, RFC 9112.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import httptools

from modelport.errors import InvalidRequest, ModelportError, TooLarge

__all__ = [
    "END_OF_HEAD",
    "LAST_CHUNK",
    "REASONS",
    "BadMessage",
    "ChunkedReader",
    "HttpLimits",
    "RequestHead",
    "body_too_large",
    "encode_chunk",
    "encode_response_head",
    "parse_request_head",
    "unquote_component",
]

END_OF_HEAD = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What a client may send.

    Attributes:
        head_bytes: Request line and headers together. 64 KiB is what large cookies and tokens
            need, eight times what nginx allows by default.
        body_bytes: A body, also after decompression. 64 MiB is Triton's limit.
        chunks: Non-empty chunks of one body; each costs the server more than its bytes.
            65 536 is Triton's limit.
    """

    head_bytes: int = 65_536
    body_bytes: int = 67_108_864
    chunks: int = 65_536


class BadMessage(InvalidRequest):
    """What came is not HTTP, or is HTTP that nobody should act on; the connection is over.

    Attributes:
        status: To answer with before closing.
    """

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class RequestHead:
    """Request line and headers. Equal bytes give equal heads, so a head may be kept and used again.

    Attributes:
        raw: The bytes, up to and including the empty line.
        method: As sent.
        target: As sent: path and query, still encoded.
        path: Still percent-encoded, so that ``%2F`` does not become a separator.
        query: After the ``?``; "" for none.
        headers: Names in lower case; values of repeated ones joined by ", ".
        minor: 0 or 1, of HTTP/1.x.
        content_length: Bytes of a counted body; 0 for none.
        is_chunked: Whether the body comes in chunks.
        keep_alive: Whether the client wants to go on with this connection.
        expects_continue: Whether the client waits for leave to send the body.
        upgrade: Protocol that the client would like, in lower case; "" for none.
    """

    __slots__ = (
        "content_length",
        "expects_continue",
        "headers",
        "is_chunked",
        "keep_alive",
        "method",
        "minor",
        "path",
        "query",
        "raw",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        raw: bytes,
        method: str,
        target: str,
        headers: Mapping[str, str],
        minor: int,
        keep_alive: bool,
    ) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.path, _, self.query = _origin_form(target).partition("?")
        self.headers = headers
        self.minor = minor
        self.keep_alive = keep_alive
        length = headers.get("content-length", "0")
        self.content_length = int(length) if length.isascii() and length.isdigit() else 0
        self.is_chunked = "transfer-encoding" in headers
        self.expects_continue = minor == 1 and headers.get("expect", "").lower() == "100-continue"
        connection = headers.get("connection", "").lower()
        self.upgrade = headers.get("upgrade", "").lower() if "upgrade" in connection else ""


class _HeadCollector:
    """Callbacks for httptools."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_complete = True


def parse_request_head(raw: bytes) -> RequestHead:
    """Read the bytes up to and including the empty line.

    Raises:
        BadMessage: If they are not a request, or one whose length two readers could see
            differently (both lengths given, several lengths, an unknown transfer coding).
    """
    collector = _HeadCollector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as exc:
        raise BadMessage(f"the request is not valid HTTP: {exc}") from exc
    if not collector.is_complete:
        raise BadMessage("the request is not valid HTTP: its head does not end with an empty line")
    version = parser.get_http_version()
    if version not in ("1.0", "1.1"):
        raise BadMessage(f"HTTP/{version} is not spoken here; HTTP/1.1 and 1.0 are", status=505)
    headers = _join_headers(collector.headers)
    coding = headers.get("transfer-encoding")
    if coding is not None and coding.strip().lower() != "chunked":
        raise BadMessage(f"transfer coding '{coding}' is not understood; send chunked", status=501)
    if coding is not None and (version == "1.0" or "content-length" in headers):
        # RFC 9112 §6.1 and §6.3: the ways to smuggle a request past a proxy.
        raise BadMessage("a body with a transfer coding cannot have a length as well")
    if version == "1.1" and "host" not in headers:
        raise BadMessage("an HTTP/1.1 request must have a Host header")
    return RequestHead(
        raw,
        parser.get_method().decode("ascii"),
        collector.target.decode("latin-1"),
        headers,
        int(version[2]),
        parser.should_keep_alive(),
    )


def _join_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.decode("latin-1").strip(" \t")
        if name in headers:
            if name in _ONCE:
                raise BadMessage(f"the header '{name}' may be sent only once")
            headers[name] += ", " + value
        else:
            headers[name] = value
    return headers


_ONCE = frozenset(
    {"host", "content-length", "transfer-encoding", "inference-header-content-length"}
)


def _origin_form(target: str) -> str:
    # RFC 9112 §3.2.2: the absolute form must be understood although only proxies are sent it.
    if target.startswith(("http://", "https://")):
        rest = target.partition("://")[2]
        slash = rest.find("/")
        return rest[slash:] if slash >= 0 else "/"
    return target


def unquote_component(component: str) -> str:
    """Decode one component of a path; what is not UTF-8 is kept readable."""
    return unquote(component) if "%" in component else component


class ChunkedReader:
    """Reads a body in chunks, from pieces of any size.

    Strict where it matters for telling where the message ends: sizes are hexadecimal digits and
    nothing else, lines end in CRLF. Extensions are skipped, trailers are read and dropped.

    Source: RFC 9112 §7.1.
    """

    def __init__(self, limits: HttpLimits, body_bytes: int) -> None:
        self._limits = limits
        self._max_bytes = body_bytes
        self._buffer = bytearray()
        self._missing = 0
        self._state = self._size
        self._chunks = 0
        self._trailer_bytes = 0
        self.pieces: list[bytes] = []
        self.total_bytes = 0
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        """Take more bytes.

        Returns:
            What follows the end of the body; ``b""`` before it.

        Raises:
            BadMessage: If it is no chunked coding.
            TooLarge: If there are too many bytes or chunks.
        """
        self._buffer += data
        while not self.is_complete and self._state():
            pass
        if not self.is_complete:
            return b""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _line(self, most: int) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > most or (end < 0 and len(self._buffer) > most + 1):
            raise BadMessage(f"a line of the chunked body is longer than {most} bytes")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _size(self) -> bool:
        line = self._line(256)
        if line is None:
            return False
        digits = line.partition(b";")[0].rstrip(b" \t")
        if not 1 <= len(digits) <= 16 or not _is_hex(digits) or _has_control(line):
            raise BadMessage("the size of a chunk must be 1 to 16 hexadecimal digits")
        size = int(digits, 16)
        if size == 0:
            self._state = self._trailer
            return True
        self._chunks += 1
        if self._chunks > self._limits.chunks:
            raise BadMessage(
                f"Chunked request body exceeds maximum of {self._limits.chunks} non-empty chunks. "
                "Send fewer or larger HTTP chunks."
            )
        self.total_bytes += size
        if self.total_bytes > self._max_bytes:
            raise body_too_large(self.total_bytes, self._max_bytes)
        self._missing = size
        self._state = self._data
        return True

    def _data(self) -> bool:
        if not self._buffer:
            return False
        piece = bytes(self._buffer[: self._missing])
        del self._buffer[: self._missing]
        self.pieces.append(piece)
        self._missing -= len(piece)
        if self._missing == 0:
            self._state = self._data_end
        return True

    def _data_end(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise BadMessage("a chunk is longer than its size says")
        del self._buffer[:2]
        self._state = self._size
        return True

    def _trailer(self) -> bool:
        line = self._line(self._limits.head_bytes)
        if line is None:
            return False
        self._trailer_bytes += len(line)
        if self._trailer_bytes > self._limits.head_bytes:
            raise BadMessage("the trailers of the chunked body are too long")
        if not line:
            self.is_complete = True
        return True


def body_too_large(got: int, most: int) -> ModelportError:
    """Say that a body is over the limit, in the words that clients know."""
    return TooLarge(
        f"request JSON size of {got} bytes exceeds the maximum allowed input size of {most} bytes. "
        "Use --http-max-input-size to increase the limit."
    )


def _is_hex(digits: bytes) -> bool:
    return all(digit in b"0123456789abcdefABCDEF" for digit in digits)


def _has_control(line: bytes) -> bool:
    return any(byte < 0x20 and byte != 0x09 for byte in line)


def encode_response_head(
    status: int, headers: Sequence[tuple[str, str]], content_length: int | None, *, close: bool
) -> bytes:
    """Write the status line and headers of a response.

    Args:
        status: A final or an interim status.
        headers: Without those that say how long the body is.
        content_length: ``None`` for a body in chunks.
        close: Whether the connection ends with this response.

    Raises:
        ValueError: If a header would break out of its line.
    """
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
    for name, value in headers:
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"the value of header {name} holds a line break")
        lines.append(f"{name}: {value}")
    if close:
        lines.append("Connection: close")
    if content_length is None:
        lines.append("Transfer-Encoding: chunked")
    elif status not in _WITHOUT_BODY:
        lines.append(f"Content-Length: {content_length}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1", "replace")


def encode_chunk(data: bytes | bytearray | memoryview) -> list[bytes | bytearray | memoryview]:
    """Wrap data as one chunk; nothing for empty data, which would end the body."""
    size = len(data) if not isinstance(data, memoryview) else data.nbytes
    return [b"%x\r\n" % size, data, b"\r\n"] if size else []


_WITHOUT_BODY = frozenset({100, 101, 204, 304})

REASONS = {
    100: "Continue",
    101: "Switching Protocols",
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    301: "Moved Permanently",
    302: "Found",
    304: "Not Modified",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
