"""The HTTP/1.1 listener: an ``asyncio.Protocol`` around :mod:`modelport.wire.http`.

This is the one place where the speed of the whole product is decided, and two things make it.
A handler is a plain call with no task and no coroutine around it. And clients send the same few
heads again and again: each is kept with its route, its parameters and the verdict of the door, and
when the next bytes begin with the same bytes, none of that is done again.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from modelport.clock import Clock
from modelport.errors import (
    ModelportError,
    NotFound,
    Overloaded,
    TimedOut,
    Unauthenticated,
)
from modelport.protocols.base import Body, BodyReceiver, Buffer, Headers, Reply, Route, Rpc
from modelport.server.cors import Cors
from modelport.server.pressure import LARGE_ANSWER_BYTES, TURN_NS, Answers, Pressure
from modelport.server.routing import Match, Router
from modelport.wire.http import (
    END_OF_HEAD,
    END_OF_LINE,
    LAST_CHUNK,
    BadMessage,
    ChunkedReader,
    HttpLimits,
    RequestHead,
    body_too_large,
    encode_chunk,
    encode_response_head,
    parse_request_head,
)

__all__ = [
    "BURST_GAP_NS",
    "JOIN_BELOW_BYTES",
    "LEAST_PROGRESS_BYTES",
    "AccessRecord",
    "Bound",
    "Connection",
    "Door",
    "Guest",
    "Holder",
    "HttpExchange",
    "HttpOptions",
    "HttpServer",
]

log = logging.getLogger("modelport.http")

JOIN_BELOW_BYTES = 65_536
"""Answers below this are copied into one buffer; above it they are written as they are."""
HIGH_WATER_BYTES = 32_768
"""Unread answer bytes above which a connection is not served any further."""
PENDING_BYTES = 16_384
"""Pipelined requests that may wait in memory while one is answered."""
BURST_GAP_NS = 200_000
"""Answers to different connections that are closer together than this are written together.

Waking the process at the other end costs several times what the write itself does (15 against 3 µs
on a virtual machine); when many connections are busy at once, their answers go out in one sweep at
the end of the loop's turn, and wake it once. A connection that is alone with its requests gets its
answers at once.
"""
MOST_KNOWN = 1024
"""Heads that are kept. One client sends as many as its bodies have lengths."""
KNOWN_HEAD_BYTES = 2048
HTTP2_HEAD = b"PRI * HTTP/2.0\r\n\r\n"
"""What the preface of HTTP/2 looks like to HTTP/1.1; RFC 9113 §3.4 chose it so."""
MOST_HELD = 64
"""Pieces that one connection holds for the sweep at the most."""
LINGER_S = 30.0
"""How long a client that was refused may go on sending before the connection is closed."""
QUIET_S = 1.0
"""Silence after which it is closed earlier."""
LEAST_PROGRESS_BYTES = 65_536
"""What a client must read of its answer within ``write_timeout_s``: slow is not stuck."""
HALF_CLOSE_GRACE_S = 1.0
"""How long a request goes on after its client has closed its side.

A client that is gone and one that only said "I have sent everything" look the same until
something is written to them.
"""


class Door(Protocol):
    """Decides who may come in, from the head alone and the same each time."""

    def admit(self, head: RequestHead, route: Route | Rpc) -> str:
        """Give the principal that asks.

        Raises:
            Unauthenticated: No key or a wrong one.
            Forbidden: Not from there, or not with this key.
        """
        ...


class Guest(Protocol):
    """What holds a connection: the listener's own, or a protocol that it was handed over to."""

    def check_time(self, now_ns: int) -> None:
        """Called about once a second: end what takes too long."""
        ...

    def close_if_idle(self) -> None:
        """The server is draining: end what has nothing under way."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


class Holder(Protocol):
    """A connection that holds answers for the end of this turn of the loop."""

    def flush(self) -> None:
        """Write what is held."""
        ...


class HttpOptions(Struct, frozen=True, kw_only=True):
    """How patient and how large the listener is. Durations in seconds."""

    limits: HttpLimits = field(default_factory=HttpLimits)
    idle_timeout_s: float = 75.0
    head_timeout_s: float = 30.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    max_connections: int = 10_000


class AccessRecord(Struct, frozen=True):
    """One line of the access log."""

    peer: str
    principal: str
    method: str
    target: str
    status: int
    body_bytes: int
    duration_s: float
    request_id: str


class HttpServer:
    """What all connections share.

    Args:
        router: Which request goes where.
        door: Who may come in.
        errors: How to say what concerns no route.
        clock: For timeouts and durations.
        options: Limits and patience.
        record_access: Called after each answer, if given.
        cors: Which web pages may call; none if not given.

    Attributes:
        http2: Makes who takes over a connection that begins as HTTP/2 does; ``None`` refuses it.
    """

    def __init__(
        self,
        router: Router,
        door: Door,
        errors: Callable[[ModelportError], Reply],
        clock: Clock,
        options: HttpOptions,
        record_access: Callable[[AccessRecord], None] | None = None,
        cors: Cors | None = None,
    ) -> None:
        self.router = router
        self.door = door
        self.errors = errors
        self.clock = clock
        self.options = options
        self.record_access = record_access
        self.cors = cors or Cors()
        self.connections: set[Guest] = set()
        self.known: dict[bytes, Bound] = {}
        self.pressure = Pressure(clock)
        # Whether nothing is to be noted or said beside an ordinary answer.
        self.is_plain = record_access is None
        self._is_draining = False
        self.last_sent_ns = 0
        self.last_sender: Holder | None = None
        self.http2: Callable[[], asyncio.Protocol] | None = None
        self._holding: list[Holder] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._id_prefix = secrets.token_hex(4)
        self._ids = itertools.count(1)

    @property
    def is_draining(self) -> bool:
        """Whether connections are to be closed after their answer."""
        return self._is_draining

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._is_draining = value
        self.is_plain = self.record_access is None and not value

    def __call__(self) -> "Connection":
        """Make the protocol of a new connection."""
        return Connection(self)

    def open(self) -> None:
        """Begin to watch the time."""
        self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)

    def drain(self) -> None:
        """Answer what has come, close what is idle, and each other connection after its answer."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.close_if_idle()

    def close(self) -> None:
        """End every connection, answered or not."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.abort()

    def flush_soon(self, connection: Holder) -> None:
        """Have what ``connection`` holds written at the end of this turn of the loop."""
        if not self._holding:
            asyncio.get_running_loop().call_soon(self._flush)
        self._holding.append(connection)

    def _flush(self) -> None:
        holding, self._holding = self._holding, []
        for connection in holding:
            connection.flush()
            self.last_sender = connection
        self.last_sent_ns = self.clock.now_ns()

    def look_up(self, head: RequestHead) -> "Bound":
        """Find the route of a request, and hear the door."""
        answer_headers = self.cors.answer_headers(head)
        answers = self.pressure.answers(head.path)
        most = self.options.limits.body_bytes
        preflight = self.cors.preflight(head)
        if preflight is not None:
            return Bound(head, None, {}, "", most, preflight, answers, answer_headers)
        match = self.router.match(head.method, head.path)
        route = match.route
        if route is None:
            return Bound(head, None, {}, "", most, self._no_route(match), answers, answer_headers)
        most = route.max_body_bytes or most
        principal, refusal = "", None
        try:
            principal = self.door.admit(head, route)
            if head.content_length > most:
                raise body_too_large(head.content_length, most)
        except ModelportError as exc:
            refusal = route.errors(exc)
            if isinstance(exc, Unauthenticated):
                headers = (*refusal.headers, ("WWW-Authenticate", "Bearer"))
                refusal = Reply(refusal.status, headers, refusal.body)
        return Bound(head, route, match.params, principal, most, refusal, answers, answer_headers)

    def _no_route(self, match: Match) -> Reply:
        if not match.methods:
            return self.errors(NotFound("Not Found"))
        reply = self.errors(NotFound("Method Not Allowed"))
        allow = ("Allow", ", ".join(match.methods))  # RFC 9110 §15.5.6
        return Reply(405, (*reply.headers, allow), reply.body)

    def new_request_id(self) -> str:
        """An id that ties an answer to the log."""
        return f"{self._id_prefix}-{next(self._ids):x}"

    def _sweep(self) -> None:
        now_ns = self.clock.now_ns()
        for connection in list(self.connections):
            connection.check_time(now_ns)
        self._sweeper = asyncio.get_running_loop().call_later(1.0, self._sweep)


class Bound:
    """A head with all that follows from it: kept for the next request with the same bytes."""

    __slots__ = (
        "answer_headers",
        "answers",
        "end",
        "handler",
        "head",
        "headers",
        "is_kept",
        "is_streamed",
        "max_body",
        "memo",
        "params",
        "principal",
        "raw",
        "refusal",
        "route",
        "size",
    )

    def __init__(
        self,
        head: RequestHead,
        route: Route | None,
        params: Mapping[str, str],
        principal: str,
        max_body: int,
        refusal: Reply | None,
        answers: Answers,
        answer_headers: Headers = (),
    ) -> None:
        self.answers = answers
        self.head = head
        self.raw = head.raw
        self.size = len(head.raw)
        self.route = route
        self.params = params
        self.principal = principal
        self.max_body = max_body
        self.refusal = refusal
        self.answer_headers = answer_headers
        self.headers = head.headers
        self.memo: Any = None
        # Whether neither side asks for anything out of the ordinary: then the request ends at
        # ``end``, and the answer needs no look at the head.
        self.is_kept = head.keep_alive and head.method != "HEAD" and not answer_headers
        self.handler = route.handler if route is not None and refusal is None else None
        is_plain = not head.is_chunked and not head.expects_continue and self.handler is not None
        self.end = self.size + head.content_length if is_plain else 0
        self.is_streamed = (
            self.handler is not None and route is not None and route.body is Body.STREAM
        )


class HttpExchange:
    """One request on one connection; see :class:`modelport.protocols.base.Exchange`."""

    # Defaults of the class, not slots: an answer that is given at once sets none of these.
    principal = ""
    is_over = False
    is_started = False
    on_disconnect: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    reserved_bytes = 0
    receiver: BodyReceiver | None = None
    is_coming = False
    _status = 0
    _sent_bytes = 0
    _is_chunked = False

    def __init__(
        self, connection: "Connection", bound: Bound, body: Buffer, received_ns: int
    ) -> None:
        self._connection = connection
        self._bound = bound
        self.body = body
        self.received_ns = received_ns
        if bound.principal:
            self.principal = bound.principal

    @property
    def head(self) -> RequestHead:
        """As it came."""
        return self._bound.head

    @property
    def server(self) -> HttpServer:
        """That it came to."""
        return self._connection.server

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

    def receive(self, receiver: BodyReceiver) -> None:
        """Have the body given on, now or as it comes."""
        self.receiver = receiver
        if not self.is_coming:
            if len(self.body):
                receiver.data(self.body)
            receiver.complete()

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
            prefix = _PREFIXES.get(headers) if headers.__class__ is tuple else None
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
        if server.record_access is not None or status >= 400:
            headers = self.with_request_id(status, headers, body)
        bound = self._bound
        if bound.answer_headers:
            headers = (*headers, *bound.answer_headers)
        close = close or not bound.head.keep_alive or server.is_draining or connection.is_closing
        if status == 200:
            bound.answers.bytes = sum(map(_size, body))
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
        connection = self._connection
        self._status = status
        self._sent_bytes = 0
        # RFC 9112 §6.1: an HTTP/1.0 client does not know chunks; the end of the connection is the
        # end of the answer.
        self._is_chunked = self._bound.head.minor == 1
        close = connection.server.is_draining or not self._bound.head.keep_alive
        head = encode_response_head(
            status,
            (*headers, *self._bound.answer_headers),
            None,
            close=close or not self._is_chunked,
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
            if self._bound.head.method != "HEAD":
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
        if self._is_chunked and self._bound.head.method != "HEAD":
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

    def with_request_id(self, status: int, headers: Headers, body: Sequence[Buffer]) -> Headers:
        """Note the answer in the logs, and add the id by which it is found there."""
        request_id = self.headers.get("x-request-id", "")
        if not _is_plain(request_id):
            request_id = self._connection.server.new_request_id()
        self.record(status, sum(map(_size, body)), request_id)
        if status >= 500:
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


class Connection(asyncio.Protocol):
    """One connection: at most one request is answered at a time, in the order they came."""

    __slots__ = (
        "_body",
        "_bound",
        "_exchange",
        "_held",
        "_is_advancing",
        "_is_half_closed",
        "_is_reading_paused",
        "_now_ns",
        "_pending",
        "_since_ns",
        "_transport",
        "_unread_bytes",
        "is_closing",
        "is_full",
        "peer",
        "server",
    )

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.peer = ""
        self.is_full = False
        self.is_closing = False
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._bound: Bound | None = None
        self._exchange: HttpExchange | None = None
        self._body: _CountedBody | _ChunkedBody | _StreamedBody | None = None
        self._pending = bytearray()
        self._held: list[Buffer] = []
        self._is_advancing = False
        self._is_reading_paused = False
        self._is_half_closed = False
        self._since_ns = 0
        self._unread_bytes = 0
        self._now_ns = server.clock.now_ns

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast(asyncio.Transport, transport)
        server = self.server
        self._since_ns = server.clock.now_ns()
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        server.connections.add(self)
        if len(server.connections) > server.options.max_connections:
            error = Overloaded("too many connections are open; try again later")
            self._refuse(server.errors(error), linger_s=QUIET_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or we have closed."""
        server = self.server
        server.connections.discard(self)
        server.pressure.emptied(self)
        if server.last_sender is self:
            server.last_sender = None
        self.is_closing = True
        self._body = None
        self._pending.clear()
        self._held.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.is_over = True
            if exchange.reserved_bytes:
                server.pressure.release(exchange.reserved_bytes)
            if exchange.on_disconnect is not None:
                exchange.on_disconnect()

    def eof_received(self) -> bool:
        """The client will send no more; it may still want its answer."""
        self._is_half_closed = True
        if self._pending and self._exchange is None and not self.is_full:
            self._advance_pending()
        exchange = self._exchange
        if exchange is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(HALF_CLOSE_GRACE_S, self._give_up_half_closed, exchange)
        waits = exchange is not None or (self.is_full and bool(self._pending))
        if waits and self._transport.can_write_eof():  # TLS has no half of a connection
            return True
        self.flush()
        return False

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self.is_full = True
        self.server.pressure.filled(self)
        self._since_ns = self.server.clock.now_ns()
        self._unread_bytes = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.is_full = False
        self.server.pressure.emptied(self)
        exchange = self._exchange
        if exchange is not None:
            if exchange.on_writable is not None:
                exchange.on_writable()
        elif self._pending:
            self._advance_pending()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._body is not None:
            self._feed_body(data)
        elif self._exchange is not None or self.is_full or self.is_closing:
            self._keep_for_later(data)
        elif self._pending:
            # Look for the end of the head in what is new only: a client may send byte by byte.
            unseen = max(0, len(self._pending) - 3)
            self._pending += data
            if (
                self._pending.find(END_OF_HEAD, unseen) >= 0
                or len(self._pending) >= self.server.options.limits.head_bytes
            ):
                self._advance_pending()
        else:
            bound = self._bound
            if bound is None or not data.startswith(bound.raw):
                bound = self.server.known.get(data[: data.find(END_OF_HEAD) + 4])
            if bound is not None and len(data) == bound.end:
                # One whole request with a known head and nothing else: nearly all of them.
                self._bound = bound
                self._is_advancing = True
                self._handle(bound, data[bound.size :])
                self._is_advancing = False
                if self._is_half_closed and self._exchange is None:
                    self._close()
            else:
                self._advance(data)

    # From bytes to handlers.

    def _keep_for_later(self, data: bytes) -> None:
        if self.is_closing:
            self._since_ns = self.server.clock.now_ns()
            return
        self._pending += data
        if len(self._pending) > PENDING_BYTES and not self._is_reading_paused:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _advance_pending(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._transport.resume_reading()
        self._advance(data)

    def _advance(self, data: bytes) -> None:
        """Serve the requests in ``data`` until one waits for its answer or is not whole."""
        self._is_advancing = True
        until_ns = self._now_ns() + TURN_NS
        try:
            while data:
                if self._exchange is not None or self.is_full:
                    self._pending += data
                    return
                if self._now_ns() > until_ns:
                    # Thousands of them fit into one read: the other connections come in between.
                    self._pending += data
                    asyncio.get_running_loop().call_soon(self._go_on)
                    return
                if self.is_closing:
                    return
                bound = self._bound
                if bound is None or not data.startswith(bound.raw):
                    bound = self._bind(data)
                    if bound is None:
                        return
                data = self._begin(bound, data)
        finally:
            self._is_advancing = False
        if self._is_half_closed and self._exchange is None and not self._pending:
            self._close()

    def _bind(self, data: bytes) -> Bound | None:
        """Read a new head and look up all that follows from it."""
        limits = self.server.options.limits
        # RFC 9112 §2.2: empty lines before a request are passed over.
        start = 0
        while data.startswith(END_OF_LINE, start):
            start += 2
        if start == len(data):
            return None
        end = data.find(END_OF_HEAD, start, limits.head_bytes)
        try:
            if end < 0:
                self._check_partial_head(data, start)
                self._since_ns = self.server.clock.now_ns()
                self._pending += data
                return None
            raw = data[: end + 4]
            bound = self.server.known.get(raw)
            if bound is not None:
                self._bound = bound
                return bound
            if raw == HTTP2_HEAD and self._bound is None and self.server.http2 is not None:
                self._give_to(self.server.http2(), data)
                return None
            head = parse_request_head(raw)
        except BadMessage as exc:
            reply = self.server.errors(exc)
            self._refuse(Reply(exc.status, reply.headers, reply.body))
            return None
        self._bound = bound = self.server.look_up(head)
        known = self.server.known
        if len(raw) <= KNOWN_HEAD_BYTES:
            if len(known) >= MOST_KNOWN:
                known.clear()
            known[raw] = bound
        return bound

    def _check_partial_head(self, data: bytes, start: int) -> None:
        limits = self.server.options.limits
        if len(data) >= limits.head_bytes:
            raise BadMessage(
                f"the request line and headers are longer than {limits.head_bytes} bytes",
                status=431,
            )
        # Answer what can be no request at once instead of waiting for its end: a TLS client on
        # this port, bare line feeds.
        first = data[start : start + 1]
        if not first.isalpha() and data[start:] != b"\r":
            raise BadMessage("this is not HTTP; if the client speaks TLS, this port does not")
        if b"\n\n" in data or b"\n\r\n" in data.replace(b"\r\n\r\n", b""):
            raise BadMessage("the lines of the request must end in CRLF")

    def _begin(self, bound: Bound, data: bytes) -> bytes:
        """Take one request off ``data`` and give back the rest."""
        head = bound.head
        size = bound.size
        if head.is_chunked or head.expects_continue:
            return self._begin_slowly(bound, data)
        end = size + head.content_length
        if len(data) < end:
            if bound.refusal is not None:
                return self._refuse_early(bound)
            if bound.is_streamed:
                return self._begin_stream(bound, data[size:])
            self._body = _CountedBody(bound, head.content_length)
            self._since_ns = self.server.clock.now_ns()
            self._body.feed(memoryview(data)[size:])
            return b""
        self._handle(bound, data[size:end])
        return data[end:] if len(data) > end else b""

    def _begin_stream(self, bound: Bound, data: bytes) -> bytes:
        """Call the handler before the body has come."""
        self._since_ns = now_ns = self._now_ns()
        exchange = HttpExchange(self, bound, b"", now_ns)
        exchange.is_coming = True
        self._exchange = exchange
        self._body = _StreamedBody(bound, exchange, self.server.options.limits)
        self._run(exchange, bound)
        return self._take_body(data)

    def _begin_slowly(self, bound: Bound, data: bytes) -> bytes:
        head = bound.head
        if bound.refusal is not None:
            # The rest of the request cannot be told from the next one without reading it all.
            return self._refuse_early(bound)
        rest = data[bound.size :]
        if head.expects_continue and not rest:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._since_ns = self.server.clock.now_ns()
        if bound.is_streamed:
            return self._begin_stream(bound, rest)
        if head.is_chunked:
            reader = ChunkedReader(self.server.options.limits, bound.max_body)
            self._body = _ChunkedBody(bound, reader)
        else:
            self._body = _CountedBody(bound, head.content_length)
        return self._take_body(rest)

    def _refuse_early(self, bound: Bound) -> bytes:
        self._refuse(cast(Reply, bound.refusal), bound)
        return b""

    def _feed_body(self, data: bytes) -> None:
        rest = self._take_body(data)
        if rest:
            if self._exchange is None and not self.is_full and not self.is_closing:
                self._advance(rest)
            else:
                self._keep_for_later(rest)

    def _take_body(self, data: bytes) -> bytes:
        """Give bytes to the body that is being received; the rest is the next request's."""
        body = self._body
        if body is None:
            return data
        self._since_ns = self.server.clock.now_ns()
        try:
            rest = body.feed(data)
        except ModelportError as exc:
            self._body = None
            self._let_go()
            errors = body.bound.route.errors if body.bound.route else self.server.errors
            self._refuse(errors(exc), body.bound)
            return b""
        except Exception:
            log.exception("the body of a request could not be taken")
            self._body = None
            self._let_go()
            errors = body.bound.route.errors if body.bound.route else self.server.errors
            error = ModelportError("internal error; the log of the server tells more")
            self._refuse(_with_text(errors(error), 500), body.bound)
            return b""
        if body.is_complete and self._body is body:
            self._body = None
            if isinstance(body, _StreamedBody):
                self._complete(body)
            else:
                self._handle(body.bound, body.take())
        return rest

    def _complete(self, body: "_StreamedBody") -> None:
        """A body that was given on as it came has come whole."""
        exchange = body.exchange
        exchange.is_coming = False
        self._since_ns = exchange.received_ns = self._now_ns()
        if exchange.receiver is None or exchange.is_over:
            return
        try:
            exchange.receiver.complete()
        except ModelportError as exc:
            self._answer_error(exchange, cast(Route, body.bound.route).errors(exc))
        except Exception:
            log.exception("the body of a request could not be used")
            error = ModelportError("internal error; the log of the server tells more")
            reply = cast(Route, body.bound.route).errors(error)
            self._answer_error(exchange, _with_text(reply, 500))

    def _let_go(self) -> None:
        """Have a handler that waits for the rest of a body know that it will not come."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.is_over = True
            if exchange.on_disconnect is not None:
                exchange.on_disconnect()

    def _handle(self, bound: Bound, body: Buffer) -> None:
        self._since_ns = now_ns = self._now_ns()
        self._exchange = exchange = HttpExchange(self, bound, body, now_ns)
        expected_bytes = bound.answers.bytes
        if expected_bytes < LARGE_ANSWER_BYTES:
            self._run(exchange, bound)
        else:
            self._run_with_room(exchange, bound, expected_bytes)

    def _run_with_room(self, exchange: HttpExchange, bound: Bound, expected_bytes: int) -> None:
        """Run a request whose last answer was large, when there is room for another."""
        pressure = self.server.pressure

        def go_on() -> None:
            if exchange.is_over:
                pressure.release(expected_bytes)
            else:
                exchange.reserved_bytes = expected_bytes
                self._run(exchange, bound)

        def refuse() -> None:
            if not exchange.is_over:
                text = "too many answers wait to be read by their clients; try again later"
                errors = cast(Route, bound.route).errors
                self._answer_error(exchange, errors(Overloaded(text)))

        if pressure.reserve(expected_bytes):
            go_on()
        else:
            pressure.wait(expected_bytes, go_on, refuse)

    def _run(self, exchange: HttpExchange, bound: Bound) -> None:
        handler = bound.handler
        if handler is None:
            refusal = cast(Reply, bound.refusal)
            exchange.respond(refusal.status, refusal.headers, refusal.body)
            return
        try:
            handler(exchange)
        except ModelportError as exc:
            self._answer_error(exchange, cast(Route, bound.route).errors(exc))
        except Exception:
            route = cast(Route, bound.route)
            log.exception("the handler of %s %s failed", route.method, route.pattern)
            error = ModelportError("internal error; the log of the server tells more")
            self._answer_error(exchange, _with_text(route.errors(error), 500))

    def _answer_error(self, exchange: HttpExchange, reply: Reply) -> None:
        if exchange.is_started:
            exchange.abort()
        else:
            exchange.respond(reply.status, reply.headers, reply.body)

    # From answers to bytes.

    def send_whole(
        self, status: int, headers: Headers, body: Sequence[Buffer], *, close: bool, is_head: bool
    ) -> None:
        """Write an answer of known length."""
        length = sum(map(_size, body))
        head = _response_head(status, headers, length, close)
        if is_head or length == 0:
            self.send(head)
        elif length < JOIN_BELOW_BYTES:
            self.send(b"".join([head, *body]))
        else:
            self.flush()
            self._transport.writelines([head, *body])

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Write pieces of a streamed answer."""
        self.send(buffers[0] if len(buffers) == 1 else b"".join(buffers))

    def send(self, data: Buffer) -> None:
        """Write, now or at the end of this turn of the loop."""
        server = self.server
        held = self._held
        if held:
            held.append(data)
            if len(held) > MOST_HELD:
                self.flush()
            return
        now_ns = self._now_ns()
        if server.last_sender is not self and now_ns - server.last_sent_ns < BURST_GAP_NS:
            self.hold(data)
        else:
            server.last_sent_ns = now_ns
            server.last_sender = self
            self._transport.write(data)

    def hold(self, data: Buffer) -> None:
        """Keep for the end of this turn of the loop, or for what is written before it."""
        if not self._held:
            self.server.flush_soon(self)
        self._held.append(data)

    def flush(self) -> None:
        """Write what is held; before anything is written past it."""
        held = self._held
        if held:
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))
            held.clear()

    def finished(self, exchange: HttpExchange, *, close: bool) -> None:
        """An exchange is over: close, or go on with what the client sent meanwhile."""
        self._exchange = None
        if exchange.is_coming:
            self._drop_rest()
            return
        if exchange.reserved_bytes:
            self.server.pressure.release(exchange.reserved_bytes)
        if close:
            self._close()
            return
        if self._is_advancing:
            return
        self._since_ns = self.server.clock.now_ns()
        if self._pending and not self.is_full:
            # Not from here: the caller may be in the middle of something.
            asyncio.get_running_loop().call_soon(self._go_on)
        elif self._is_half_closed:
            self._close()

    def _drop_rest(self) -> None:
        """Close after an answer to a request whose body is still coming and not wanted."""
        self._body = None
        self.is_closing = True
        self._half_close()
        self._since_ns = now_ns = self.server.clock.now_ns()
        self._linger(now_ns + round(LINGER_S * 1e9))

    def _go_on(self) -> None:
        if self._pending and self._exchange is None and not self.is_full and not self.is_closing:
            self._advance_pending()

    def hand_over(self, exchange: HttpExchange, headers: Headers, guest: asyncio.Protocol) -> None:
        """Let another protocol have the connection."""
        if self._exchange is not exchange:
            guest.connection_lost(None)  # the client has left meanwhile
            return
        exchange.record(101, 0, self.server.new_request_id())
        self.flush()
        self._transport.write(encode_response_head(101, headers, None, close=False))
        exchange.on_disconnect = None
        self._give_to(guest, bytes(self._pending))

    def _give_to(self, guest: asyncio.Protocol, data: bytes) -> None:
        transport = self._transport
        if self._is_reading_paused:
            transport.resume_reading()
        # Whoever still knows this connection finds it lost.
        self.connection_lost(None)
        transport.set_protocol(guest)
        guest.connection_made(transport)
        if data:
            guest.data_received(data)
        if self._is_half_closed:
            transport.close()

    def _refuse(
        self, reply: Reply, bound: Bound | None = None, *, linger_s: float = LINGER_S
    ) -> None:
        """Answer and close: what else the client sends cannot be understood or is not wanted."""
        self.is_closing = True
        self._pending.clear()
        headers = reply.headers
        if bound is not None:
            exchange = HttpExchange(self, bound, b"", self._since_ns)
            headers = exchange.with_request_id(reply.status, headers, reply.body)
            headers = (*headers, *bound.answer_headers)
        is_head = bound is not None and bound.head.method == "HEAD"
        self.send_whole(reply.status, headers, reply.body, close=True, is_head=is_head)
        self._half_close()
        self._since_ns = now_ns = self.server.clock.now_ns()
        self._linger(now_ns + round(linger_s * 1e9))

    def _half_close(self) -> None:
        # A close with unread input is a reset, which can overtake the answer: half-close first.
        with contextlib.suppress(OSError, NotImplementedError, RuntimeError):
            self.flush()
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def _linger(self, until_ns: int) -> None:
        """Read what the client still sends, and close when it has done or at ``until_ns``.

        Many clients look for an answer only when they have sent their whole request.
        """
        now_ns = self.server.clock.now_ns()
        if now_ns < until_ns and now_ns - self._since_ns < QUIET_S * 1e9:
            asyncio.get_running_loop().call_later(QUIET_S, self._linger, until_ns)
        else:
            self._close()

    # Time and ends.

    def unread_bytes(self) -> int:
        """Bytes of answers that are still in memory because the client has not read them."""
        return self._transport.get_write_buffer_size()

    def check_time(self, now_ns: int) -> None:
        """Close the connection if its client takes too long for what it is doing."""
        options = self.server.options
        waited_s = (now_ns - self._since_ns) / 1e9
        if self.is_full:
            unread_bytes = self._transport.get_write_buffer_size()
            if self._unread_bytes - unread_bytes >= LEAST_PROGRESS_BYTES:
                self._unread_bytes = unread_bytes
                self._since_ns = now_ns
            elif waited_s > options.write_timeout_s:
                self.abort()
        elif self.is_closing:
            # Closed, but the client does not take the end of its answer.
            if waited_s > max(options.write_timeout_s, LINGER_S):
                self.abort()
        elif self._body is not None:
            if waited_s > options.body_timeout_s:
                self._time_out("the body of the request did not come in time")
        elif self._exchange is not None:
            return
        elif self._pending:
            if waited_s > options.head_timeout_s:
                self._time_out("the head of the request did not come in time")
        elif waited_s > options.idle_timeout_s:
            self._close()

    def _time_out(self, text: str) -> None:
        self._body = None
        self._let_go()
        reply = self.server.errors(TimedOut(text))
        self._refuse(Reply(408, reply.headers, reply.body))

    def _give_up_half_closed(self, exchange: HttpExchange | None) -> None:
        if exchange is not None and exchange is self._exchange and not exchange.is_started:
            self._close()

    def close_if_idle(self) -> None:
        """Close unless a request is being received or answered."""
        if self._exchange is None and self._body is None and not self._pending:
            self._close()

    def _close(self) -> None:
        self.is_closing = True
        self._since_ns = self.server.clock.now_ns()
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection and what was not sent yet."""
        self.is_closing = True
        self._transport.abort()


class _CountedBody:
    """A body of known length, put together in one place.

    The first tensor of a binary request begins behind the JSON part: the buffer is shifted so that
    this byte lies on a 64-byte boundary, which vector instructions and runtimes like.
    """

    __slots__ = ("_filled", "_view", "bound", "is_complete")

    def __init__(self, bound: Bound, length: int) -> None:
        self.bound = bound
        header = bound.head.headers.get("inference-header-content-length", "")
        align_at = int(header) if header.isascii() and header.isdigit() and len(header) < 10 else 0
        buffer: Any = np.empty(length + 64, np.uint8)
        start = -(buffer.ctypes.data + align_at) % 64
        self._view = memoryview(buffer)[start : start + length]
        self._filled = 0
        self.is_complete = length == 0

    def feed(self, data: bytes | memoryview) -> bytes:
        start = self._filled
        end = start + len(data)
        view = self._view
        if end <= len(view):
            view[start:end] = data
            self._filled = end
            self.is_complete = end == len(view)
            return b""
        taken = len(view) - start
        view[start:] = data[:taken]
        self._filled = len(view)
        self.is_complete = True
        return bytes(data[taken:])

    def take(self) -> Buffer:
        # Writable: the buffer is this request's alone, and a model may use it as it likes.
        return self._view


class _ChunkedBody:
    """A body in chunks."""

    __slots__ = ("_reader", "bound")

    def __init__(self, bound: Bound, reader: ChunkedReader) -> None:
        self.bound = bound
        self._reader = reader

    @property
    def is_complete(self) -> bool:
        return self._reader.is_complete

    def feed(self, data: bytes) -> bytes:
        return self._reader.feed(data)

    def take(self) -> Buffer:
        return memoryview(self._reader.body).toreadonly()


class _StreamedBody:
    """A body that is given on as it comes."""

    __slots__ = ("_missing", "_reader", "bound", "exchange", "is_complete")

    def __init__(self, bound: Bound, exchange: HttpExchange, limits: HttpLimits) -> None:
        self.bound = bound
        self.exchange = exchange
        head = bound.head
        # Nothing is kept of it, so many chunks cost no more than many pieces do.
        limits = replace(limits, chunks=max(limits.chunks, bound.max_body))
        self._reader = ChunkedReader(limits, bound.max_body) if head.is_chunked else None
        self._missing = head.content_length
        self.is_complete = self._reader is None and self._missing == 0

    def feed(self, data: bytes) -> bytes:
        reader = self._reader
        if reader is not None:
            rest = reader.feed(data)
            self.is_complete = reader.is_complete
            piece = bytes(reader.body)
            reader.body.clear()
        else:
            piece, rest = data[: self._missing], data[self._missing :]
            self._missing -= len(piece)
            self.is_complete = self._missing == 0
        receiver = self.exchange.receiver
        if piece and receiver is not None and not self.exchange.is_over:
            receiver.data(piece)
        return rest


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def _with_text(reply: Reply, status: int) -> Reply:
    return Reply(status, reply.headers, reply.body)


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= 128 and text.isascii() and text.isprintable()


_PREFIXES: dict[Headers, bytes] = {}
"""Heads of ordinary answers up to the digits of the length, by their headers."""


def _response_head(status: int, headers: Headers, length: int, close: bool) -> bytes:
    """Write a response head; those without request-specific headers are written once."""
    if close or headers.__class__ is not tuple or status != 200:
        return encode_response_head(status, headers, length, close=close)
    prefix = _PREFIXES.get(headers)
    if prefix is None:
        whole = encode_response_head(status, headers, 0, close=False)
        prefix = whole[: -len(b"0\r\n\r\n")]
        if len(_PREFIXES) < 64:
            _PREFIXES[headers] = prefix
    return b"%b%d\r\n\r\n" % (prefix, length)
