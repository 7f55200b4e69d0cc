"""HTTP/1.1 from the client's side: request heads out, responses in. No socket, no clock.

Heads are read by llhttp (through httptools), which has the security history that a parser needs;
bodies are not fed to it.

Source: RFC 9110, RFC 9112.
"""

import re
from collections.abc import Mapping, Sequence

import httptools

from modelport.errors import Unavailable
from modelport.wire.chunked import END_OF_HEAD, ChunkedReader

__all__ = ["BadResponse", "ResponseHead", "ResponseReader", "encode_request_head"]

STATUS_LINE = b"HTTP/"
"""How every answer begins."""
MOST_HEAD_BYTES = 262_144
MOST_KNOWN = 64
LONGEST_KNOWN = 1024
LONGEST_LENGTH = 18
"""Digits of a Content-Length; more is no number of bytes that anybody has."""
NO_LIMIT = 1 << 62
"""A client has asked for what comes; whoever calls it decides how much it may be."""


class BadResponse(Unavailable):
    """What came is no HTTP, or ended before it was whole; the connection cannot be used again."""


class ResponseHead:
    """Status line and headers.

    Attributes:
        status: A final one.
        headers: Names in lower case; values of repeated ones joined by ", ".
        keep_alive: Whether the connection may be used again after the body.
        content_length: Bytes of a counted body; ``None`` where it comes in chunks or lasts until
            the connection ends.
        coding: What the body is compressed with; "" for a body as it is.
    """

    __slots__ = ("coding", "content_length", "headers", "is_chunked", "keep_alive", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        keep_alive: bool,
        content_length: int | None,
        is_chunked: bool,
        coding: str = "",
    ) -> None:
        self.coding = "" if coding == "identity" else coding
        self.status = status
        self.headers = headers
        self.keep_alive = keep_alive
        self.content_length = content_length
        self.is_chunked = is_chunked

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status}>"

    def with_headers(self, others: Sequence[bytes]) -> "ResponseHead":
        """The same with further headers: names and values, each pair followed by anything."""
        headers = dict(self.headers)
        for at in range(0, len(others), 3):
            name, value = others[at].decode().lower(), others[at + 1].decode().rstrip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return ResponseHead(
            self.status,
            headers,
            self.keep_alive,
            self.content_length,
            self.is_chunked,
            self.coding,
        )


class ResponseReader:
    """Reads one response from pieces of any size.

    Args:
        method: Of the request: the answer to HEAD has no body, whatever it says.
        known: Heads that were read before, by their bytes, for the next reader with the same
            ``known``: a server says the same few again and again.

    Attributes:
        head: Once it has come whole.
        is_complete: Whether the body has as well.
    """

    __slots__ = ("_chunks", "_known", "_missing", "_pending", "_wants_body", "head", "is_complete")

    def __init__(self, method: str, known: dict[bytes, ResponseHead] | None = None) -> None:
        self.head: ResponseHead | None = None
        self.is_complete = False
        self._wants_body = method != "HEAD"
        self._known = known if self._wants_body and known is not None else {}
        self._pending: bytearray | None = None
        self._missing = 0
        self._chunks: ChunkedReader | None = None

    @property
    def missing_bytes(self) -> int:
        """Bytes of a counted body that have not come yet."""
        return self._missing

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and give what of the body was in them.

        Raises:
            BadResponse: If they are no HTTP response, or more than one.
        """
        if self.head is None:
            if self._pending:
                self._pending += data
                data = bytes(self._pending)
            rest = self._take_head(data)
            if rest is None:
                if len(data) > MOST_HEAD_BYTES:
                    raise BadResponse("the headers of the answer are too long")
                self._pending = bytearray(data)
                return b""
            self._pending = None
            data = rest
        return self._take_body(data) if data or self.is_complete else b""

    def feed_end(self) -> None:
        """The connection has ended.

        Raises:
            BadResponse: If the response is not whole.
        """
        head = self.head
        if self.is_complete:
            return
        if head is not None and head.content_length is None and not head.is_chunked:
            self.is_complete = True
            return
        raise BadResponse(
            "the server closed the connection without an answer"
            if head is None and not self._pending
            else "the server closed the connection in the middle of its answer"
        )

    def _take_head(self, data: bytes) -> bytes | None:
        while True:
            end = data.find(END_OF_HEAD)
            if end < 0:
                if data[:5] != STATUS_LINE[: len(data)]:
                    raise BadResponse(_what_it_is(data))
                return None
            end += len(END_OF_HEAD)
            head = self._read_head(data[:end])
            data = data[end:]
            if head.status >= 200:
                break
        self.head = head
        if head.is_chunked:
            self._chunks = ChunkedReader(NO_LIMIT, NO_LIMIT)
        elif head.content_length is not None:
            self._missing = head.content_length
            self.is_complete = not self._missing
        return data

    def _read_head(self, raw: bytes) -> ResponseHead:
        known = self._known
        if not self._wants_body or len(raw) > LONGEST_KNOWN:
            return _parse_head(raw, self._wants_body)
        text, *others = _OTHER_EACH_TIME.split(raw)
        if others:
            text += b"".join(others[2::3])
        head = known.get(text)
        if head is None:
            head = _parse_head(text, True)
            if len(known) >= MOST_KNOWN:
                known.clear()
            known[text] = head
        return head.with_headers(others) if others else head

    def _take_body(self, data: bytes) -> bytes:
        if self._chunks is not None:
            try:
                rest = self._chunks.feed(data)
            except Exception as exc:
                raise BadResponse(f"the answer is not valid HTTP: {exc}") from exc
            body = bytes(self._chunks.body)
            self._chunks.body.clear()
            self.is_complete = self._chunks.is_complete
        elif self.head is not None and self.head.content_length is None:
            return data
        else:
            body, rest = data[: self._missing], data[self._missing :]
            self._missing -= len(body)
            self.is_complete = not self._missing
        if rest:
            raise BadResponse("the server sent more than its answer")
        return body


class _Head:
    """Callbacks for httptools."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        self.is_complete = True


def _parse_head(raw: bytes, wants_body: bool) -> ResponseHead:
    collector = _Head()
    parser = httptools.HttpResponseParser(collector)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as exc:
        if not raw.startswith(STATUS_LINE):
            raise BadResponse(_what_it_is(raw)) from exc
        if parser.get_status_code() == 101:
            raise BadResponse("the server switches to another protocol, unasked") from exc
        raise BadResponse(f"the answer is not valid HTTP: {exc}") from exc
    if not collector.is_complete:
        raise BadResponse("the answer is not valid HTTP: its head does not end with an empty line")
    headers = collector.headers
    status = parser.get_status_code()
    transfer = headers.get("transfer-encoding", "identity").strip().lower()
    if transfer not in ("chunked", "identity"):
        raise BadResponse(
            f"the answer has the Transfer-Encoding {transfer[:40]!r}, which nobody asked for"
        )
    is_chunked = transfer == "chunked"
    coding = headers.get("content-encoding", "identity").strip().lower()
    length = headers.get("content-length")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (
        parser.get_http_version() == "1.1" or "keep-alive" in connection
    )
    if not wants_body or status in (204, 304) or status < 200:
        return ResponseHead(status, headers, keep_alive, 0, False)
    if is_chunked:
        return ResponseHead(status, headers, keep_alive, None, True, coding)
    if length is None:
        return ResponseHead(status, headers, False, None, False, coding)
    first = length.partition(",")[0].strip()
    if not first.isascii() or not first.isdigit() or len(first) > LONGEST_LENGTH:
        raise BadResponse("the Content-Length of the answer is not a number of bytes")
    return ResponseHead(status, headers, keep_alive, int(first), False, coding)


def _what_it_is(data: bytes) -> str:
    """Say what answers there, if it is no HTTP/1."""
    if data[:1] in (b"\x15", b"\x16") and data[1:2] in (b"\x03", b""):
        return "it speaks TLS; call it with https://"
    if data[3:4] == b"\x04" and data[5:9] == bytes(4):
        # SETTINGS, which a server of HTTP/2 says first: RFC 9113 §3.4.
        return "it speaks HTTP/2 alone, as ports of gRPC do; REST is answered on another port"
    return f"it speaks no HTTP; it says {data[:40]!r}"


def encode_request_head(
    method: str, target: str, headers: Sequence[tuple[str, str]], content_length: int | None
) -> bytes:
    """Write the request line and headers.

    Args:
        method: In capitals.
        target: Path and query, encoded.
        headers: With ``Host``; without those that say how long the body is.
        content_length: ``None`` for a body in chunks, -1 for no body at all.

    Raises:
        ValueError: If a part would break out of its line.
    """
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    if content_length is None:
        lines.append("Transfer-Encoding: chunked")
    elif content_length >= 0:
        lines.append(f"Content-Length: {content_length}")
    text = "\r\n".join(lines)
    if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1 or "\0" in text:
        raise ValueError("a header or the path of the request holds a line break")
    if " " in method or " " in target:
        raise ValueError("the path of the request holds a blank; it must be percent-encoded")
    return text.encode("latin-1") + END_OF_HEAD


_OTHER_EACH_TIME = re.compile(
    rb"\r\n(date|x-bentoml-request-id|x-bentoml-trace-id|x-request-id): ?([!-~][ -~]*)"
    rb"(?=\r\n[^ \t])",
    re.IGNORECASE,
)
"""Headers that would make every head a new one, and say nothing about how to read the message."""
