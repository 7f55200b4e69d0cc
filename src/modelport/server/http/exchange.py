"""One request on one connection of HTTP/1.1, and the way to answer it."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from modelport.protocols.base import BodyReceiver, Buffer, Headers
from modelport.server.http.known_heads import Bound
from modelport.server.http.listener import AccessRecord, HttpServer
from modelport.wire.chunked import LAST_CHUNK, encode_chunk
from modelport.wire.http import WITHOUT_BODY, RequestHead, check_final

__all__ = ["JOIN_BELOW_BYTES", "Asked", "HttpExchange", "size_of"]

log = logging.getLogger("modelport.http")

JOIN_BELOW_BYTES = 65_536
"""Answers below this are copied into one buffer; above it they are written as they are."""


class Asker(Protocol):
    """The connection that a request came over."""

    server: HttpServer
    peer: str


class Carrier(Asker, Protocol):
    """The same, for the exchange that answers on it; its one implementation is the connection."""

    is_closing: bool
    is_full: bool

    def send(self, data: Buffer) -> None:
        """Write, now or at the end of this turn of the loop."""
        ...

    def send_whole(
        self, status: int, headers: Headers, body: Sequence[Buffer], *, close: bool, is_head: bool
    ) -> None:
        """Write an answer of known length."""
        ...

    def hold(self, data: Buffer) -> None:
        """Keep for the end of this turn of the loop, or for what is written before it."""
        ...

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Write pieces of an answer."""
        ...

    def flush(self) -> None:
        """Write what was kept."""
        ...

    def finished(self, exchange: "HttpExchange", *, close: bool) -> None:
        """An answer is whole: close, or go on with the next request."""
        ...

    def abort(self) -> None:
        """Break off."""
        ...

    def hand_over(
        self, exchange: "HttpExchange", headers: Headers, guest: asyncio.Protocol
    ) -> None:
        """Answer 101, and be the guest's from now on."""
        ...

    def hold_body(self) -> None:
        """Read no more of the body that is coming."""
        ...

    def release_body(self, exchange: "HttpExchange") -> None:
        """Read on."""
        ...


class Asked:
    """What was asked: of an exchange all but the answer, alike over HTTP/1.1 and HTTP/2."""

    _connection: Asker
    _bound: Bound
    principal: str
    received_ns: int

    @property
    def head(self) -> RequestHead:
        """As it came."""
        return self._bound.head

    @property
    def server(self) -> HttpServer:
        """That it came to."""
        return self._connection.server

    @property
    def peer(self) -> str:
        """Address of the client; "" where there is none."""
        return self._connection.peer

    @property
    def method(self) -> str:
        """As the route knows it: GET for HEAD."""
        method = self._bound.head.method
        return "GET" if method == "HEAD" else method

    @property
    def path(self) -> str:
        """Still percent-encoded."""
        return self._bound.head.path

    @property
    def query(self) -> str:
        """After the ``?``, still encoded."""
        return self._bound.head.query

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""
        return self._bound.head.headers

    @property
    def original_headers(self) -> Mapping[str, str]:
        """Names as they were sent."""
        return self._bound.head.original_headers

    @property
    def params(self) -> Mapping[str, str]:
        """What the pattern of the route found in the path."""
        return self._bound.params

    @property
    def memo(self) -> Any:
        """What the handler keeps with this head."""
        return self._bound.memo

    @memo.setter
    def memo(self, value: Any) -> None:
        self._bound.memo = value

    def with_request_id(self, status: int, headers: Headers, body: Sequence[Buffer]) -> Headers:
        """Note the answer in the logs, and add the id by which it is found there."""
        request_id = self.headers.get("x-request-id", "")
        if not _is_id(request_id):
            request_id = self.server.new_request_id()
        self.record(status, sum(map(size_of, body)), request_id)
        # What is not offered is nothing that an operator could mend.
        if status >= 500 and status != 501:
            log.error(
                "%s %s answered %d",
                self._bound.head.method,
                self._bound.head.path,
                status,
                extra={"request_id": request_id},
            )
        return (*headers, ("X-Request-Id", request_id))

    def record(self, status: int, body_bytes: int, request_id: str) -> None:
        """Write the line of the access log, if there is one."""
        connection = self._connection
        record = connection.server.record_access
        if record is not None:
            duration_s = (connection.server.clock.now_ns() - self.received_ns) / 1e9
            head = self._bound.head
            record(
                AccessRecord(
                    connection.peer,
                    self.principal,
                    head.method,
                    head.target,
                    status,
                    body_bytes,
                    duration_s,
                    request_id,
                )
            )


class HttpExchange(Asked):
    """One request on one connection; see :class:`modelport.protocols.base.Exchange`."""

    # Defaults of the class, not slots: an answer that is given at once sets none of these.
    principal = ""
    is_over = False
    is_started = False
    on_disconnect: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    begun_ns = 0
    reserved_bytes = 0
    receiver: BodyReceiver | None = None
    is_coming = False
    _status = 0
    _sent_bytes = 0
    _is_chunked = False
    _has_body = True

    _connection: Carrier

    def __init__(self, connection: Carrier, bound: Bound, body: Buffer, received_ns: int) -> None:
        self._connection = connection
        self._bound = bound
        self.body = body
        self.received_ns = received_ns
        if bound.principal:
            self.principal = bound.principal

    def lose(self) -> None:
        """The client has left."""
        self.is_over = True
        on_disconnect, self.on_disconnect = self.on_disconnect, None
        self.on_writable = None
        if on_disconnect is not None:
            on_disconnect()

    def receive(self, receiver: BodyReceiver) -> None:
        """Have the body given on, now or as it comes."""
        self.receiver = receiver
        if not self.is_coming:
            if len(self.body):
                receiver.data(self.body)
            receiver.complete()

    def hold_body(self) -> None:
        """Read no more from the client."""
        if self.is_coming and not self.is_over:
            self._connection.hold_body()

    def release_body(self) -> None:
        """Read on."""
        self._connection.release_body(self)

    def respond(
        self, status: int, headers: Headers, body: Sequence[Buffer], *, close: bool = False
    ) -> None:
        """Answer whole."""
        if self.is_over:
            return
        connection = self._connection
        server = connection.server
        if (
            status == 200
            and len(body) == 1
            and self._bound.is_kept
            and server.is_plain
            and not close
        ):
            payload = body[0]
            prefix = (
                server.answer_heads.prefix_by_headers.get(headers)
                if headers.__class__ is tuple
                else None
            )
            if (
                prefix is not None
                and isinstance(payload, bytes)
                and len(payload) < JOIN_BELOW_BYTES
                and not connection.is_closing
            ):
                self.is_over = self.is_started = True
                self._bound.answers.bytes = len(payload)
                connection.send(b"%b%d\r\n\r\n%b" % (prefix, len(payload), payload))
                connection.finished(self, close=False)
                return
        check_final(status)
        if server.record_access is not None or status >= 400:
            headers = self.with_request_id(status, headers, body)
        bound = self._bound
        if bound.answer_headers:
            headers = (*headers, *bound.answer_headers)
        close = close or not bound.head.keep_alive or server.is_draining or connection.is_closing
        if status == 200:
            bound.answers.bytes = sum(map(size_of, body))
        connection.send_whole(
            status, headers, body, close=close, is_head=bound.head.method == "HEAD"
        )
        self.is_over = True
        self.is_started = True
        connection.finished(self, close=close)

    def start(self, status: int, headers: Headers) -> None:
        """Begin an answer whose length is not known yet."""
        if self.is_over:
            return
        check_final(status)
        connection = self._connection
        self._status = status
        self._sent_bytes = 0
        # RFC 9112 §6.1: an HTTP/1.0 client does not know chunks; the end of the connection is the
        # end of the answer.
        self._is_chunked = self._bound.head.minor == 1
        self._has_body = self._bound.head.method != "HEAD" and status not in WITHOUT_BODY
        close = connection.server.is_draining or not self._bound.head.keep_alive
        more = self._bound.answer_headers
        head = connection.server.answer_heads.encode_chunked(
            status, (*headers, *more) if more else headers, close=close or not self._is_chunked
        )
        if not self._is_chunked:
            head = head.replace(b"Transfer-Encoding: chunked\r\n", b"")
        self.is_started = True
        # Goes out with the first piece, or at the end of this turn of the loop.
        connection.hold(head)

    def write(self, data: Buffer) -> bool:
        """Send a piece of the answer at once."""
        connection = self._connection
        if self.is_over:
            return False
        if len(data):
            if self._has_body:
                connection.write(encode_chunk(data) if self._is_chunked else [data])
                if not self._sent_bytes:
                    # Somebody waits for the first piece as for no other.
                    connection.flush()
            self._sent_bytes += len(data)
        return not connection.is_full

    def finish(self) -> None:
        """End the answer that ``start`` began."""
        if self.is_over:
            return
        self.is_over = True
        connection = self._connection
        if self._is_chunked and self._has_body:
            connection.write([LAST_CHUNK])
        close = (
            not self._is_chunked
            or not self._bound.head.keep_alive
            or connection.server.is_draining
            or connection.is_closing
        )
        if connection.server.record_access is not None:
            self.record(self._status, self._sent_bytes, connection.server.new_request_id())
        connection.finished(self, close=close)

    def abort(self) -> None:
        """Break the answer off so that the client sees that it is not whole."""
        if not self.is_over:
            self.is_over = True
            self._connection.abort()

    def upgrade(self, headers: Headers, guest: asyncio.Protocol) -> None:
        """Answer 101 and hand the connection over, at the end of this turn of the loop.

        The guest is then called as by any transport, first with what the client has sent since.
        The exchange is over; it does not hear of the client's leaving any more.
        """
        if not self.is_over and not self.is_started:
            self.is_over = self.is_started = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._connection.hand_over, self, headers, guest)


def size_of(buffer: Buffer) -> int:
    """Bytes of a buffer, whatever its items are."""
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def _is_id(text: str) -> bool:
    return 0 < len(text) <= 128 and text.isascii() and text.isprintable()
