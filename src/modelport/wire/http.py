"""HTTP/1.1 as bytes: heads, and what a connection may do next. No socket, no clock.

Heads are read by llhttp (through httptools), which has the security history that a parser needs.
Bodies are not fed to it: a counted body is only counted, a chunked one read by ``chunked.py``.

Source: RFC 9110, RFC 9112.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from urllib.parse import unquote

import httptools
from msgspec import Struct

from modelport.wire.chunked import END_OF_LINE, TOKEN, BadMessage

__all__ = [
    "REASONS",
    "WITHOUT_BODY",
    "HttpLimits",
    "RequestHead",
    "check_final",
    "check_header",
    "check_partial_head",
    "encode_response_head",
    "parse_request_head",
    "unquote_component",
]


class HttpLimits(Struct, frozen=True, kw_only=True):
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
    ) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.path, _, self.query = _origin_form(target).partition("?")
        self.headers = headers
        self.minor = minor
        self.content_length = int(headers.get("content-length", "0"))
        self.is_chunked = "transfer-encoding" in headers
        self.expects_continue = minor == 1 and headers.get("expect", "").lower() == "100-continue"
        connection = {word.strip() for word in headers.get("connection", "").lower().split(",")}
        # An HTTP/1.0 client that asks to keep the connection would have to be answered that it is
        # kept; none that matters asks.
        self.keep_alive = minor == 1 and "close" not in connection
        self.upgrade = headers.get("upgrade", "").lower() if "upgrade" in connection else ""

    @property
    def original_headers(self) -> Mapping[str, str]:
        """The headers with their names as they were sent; read anew each time.

        Of names that differ in nothing but case, the first is kept for all.
        """
        if not self.raw:
            return self.headers  # HTTP/2 has names in lower case only: RFC 9113 §8.2
        sent = [name.decode("latin-1") for name, _ in _header_lines(self.raw)]
        name_by_lower = {name.lower(): name for name in reversed(sent)}
        return {name_by_lower.get(name, name): value for name, value in self.headers.items()}


class _HeadCollector:
    """Callbacks for httptools."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False

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
    line = _REQUEST_LINE.match(raw)
    if line is None:
        raise BadMessage("the request is not valid HTTP: it must begin 'METHOD /path HTTP/1.1'")
    if line["version"] not in (b"1.0", b"1.1"):
        version = line["version"].decode()
        raise BadMessage(f"HTTP/{version} is not spoken here; HTTP/1.1 and 1.0 are", status=505)
    if raw.count(b"\n") != raw.count(END_OF_LINE) or raw.count(b"\r") != raw.count(END_OF_LINE):
        # RFC 9112 §2.2 lets a reader take a bare LF for the end of a line; then this reader and a
        # proxy could see the end of the head in different places.
        raise BadMessage("the request is not valid HTTP: its lines must end in CRLF")
    headers = _parse_headers(raw)
    minor = int(line["version"][2:])
    _check_length(headers, minor)
    authority = _authority(target := line["target"].decode("latin-1"))
    if authority is not None:
        headers["host"] = authority  # RFC 9112 §3.2.2
    elif minor == 1 and "host" not in headers:
        raise BadMessage("an HTTP/1.1 request must have a Host header")
    if not _HOST.fullmatch(headers.get("host", "")):
        raise BadMessage("the Host header is not a host name or address with an optional port")
    return RequestHead(raw, line["method"].decode("ascii"), target, headers, minor)


def check_partial_head(data: bytes, start: int, limits: HttpLimits) -> None:
    """Refuse a head whose end has not come yet, if nothing that comes can make it one.

    Answered at once rather than when its time is over: a TLS client on this port, bare line feeds.

    Args:
        data: What has come.
        start: Where the head begins in it, behind empty lines.
        limits: What a client may send.

    Raises:
        BadMessage: It is too long, or no request.
    """
    if len(data) >= limits.head_bytes:
        raise BadMessage(
            f"the request line and headers are longer than {limits.head_bytes} bytes", status=431
        )
    first = data[start : start + 1]
    if not first.isalpha() and data[start:] != b"\r":
        raise BadMessage("this is not HTTP; if the client speaks TLS, this port does not")
    if b"\n\n" in data or b"\n\r\n" in data.replace(b"\r\n\r\n", b""):
        raise BadMessage("the lines of the request must end in CRLF")


def _parse_headers(raw: bytes) -> dict[str, str]:
    return _join_headers(_header_lines(raw))


def _header_lines(raw: bytes) -> list[tuple[bytes, bytes]]:
    collector = _HeadCollector()
    try:
        httptools.HttpRequestParser(collector).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError as exc:
        raise BadMessage("no HTTP method has this name; names are in capitals", status=501) from exc
    except httptools.HttpParserError as exc:
        raise BadMessage(f"the request is not valid HTTP: {exc}") from exc
    if not collector.is_complete:
        raise BadMessage("the request is not valid HTTP: its head does not end with an empty line")
    return collector.headers


def _check_length(headers: Mapping[str, str], minor: int) -> None:
    coding = headers.get("transfer-encoding")
    if coding is not None and coding.lower() != "chunked":
        raise BadMessage(f"transfer coding '{coding}' is not understood; send chunked", status=501)
    if coding is not None and (minor == 0 or "content-length" in headers):
        # RFC 9112 §6.1 and §6.3: the ways to smuggle a request past a proxy.
        raise BadMessage("a body with a transfer coding cannot have a length as well")
    if not _LENGTH.fullmatch(headers.get("content-length", "0")):
        raise BadMessage("the Content-Length must be a number of bytes")


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


# RFC 9112 §3; empty lines may come before it, §2.2.
_REQUEST_LINE = re.compile(
    rb"(?:\r\n)*(?P<method>%b) (?P<target>[^\x00-\x20\x7f]+) HTTP/(?P<version>[0-9]\.[0-9])\r\n"
    % TOKEN
)
_ABSOLUTE_FORM = re.compile(r"https?://(?P<authority>[^/?#]*)", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_ONCE = frozenset(
    {"host", "content-length", "transfer-encoding", "inference-header-content-length"}
)


def _authority(target: str) -> str | None:
    """Give ``host:port`` of a target in the absolute form.

    RFC 9112 §3.2.2: this form must be understood although only proxies are sent it.
    """
    found = _ABSOLUTE_FORM.match(target)
    return found["authority"] if found else None


def _origin_form(target: str) -> str:
    found = _ABSOLUTE_FORM.match(target)
    if found is None:
        return target
    rest = target[found.end() :]
    return rest if rest.startswith("/") else "/" + rest


def unquote_component(component: str) -> str:
    """Decode one component of a path; what is not UTF-8 is kept readable."""
    return unquote(component) if "%" in component else component


def check_final(status: object) -> None:
    """Hold what somebody's code has chosen against what a whole answer may have (RFC 9110 §15).

    Raises:
        ValueError: It is no number, or none of 200 to 599.
    """
    if status not in _FINAL:
        raise ValueError(f"an answer cannot have the status {status!r}; 200 to 599 it can")


def check_header(name: str, value: str) -> None:
    """Hold a header of an answer against what fits on its line (RFC 9110 §5).

    Raises:
        ValueError: The name is no token, or the value would break out of the line.
    """
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError(f"the value of header {name!r} holds a line break")
    if not _is_name(name):
        raise ValueError(f"no header can have the name {name!r}")


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
        check_header(name, value)
        lines.append(f"{name}: {value}")
    if close:
        lines.append("Connection: close")
    if status in WITHOUT_BODY:
        pass  # RFC 9110 §8.6, RFC 9112 §6.1: neither says anything here
    elif content_length is None:
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {content_length}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1", "replace")


@lru_cache(maxsize=256)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


WITHOUT_BODY = frozenset({100, 101, 204, 304})
"""Statuses whose answers end with their head."""
_FINAL = range(200, 600)
_NAME = re.compile(TOKEN.decode())

REASONS = {
    100: "Continue",
    101: "Switching Protocols",
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    205: "Reset Content",
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
