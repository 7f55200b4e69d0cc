"""A connection that speaks HTTP/1.1: bytes in, requests to their handlers, answers out.

What makes it quick: a handler is a plain call with no task and no coroutine around it; a head that
is known is recognised by its bytes; answers to many busy connections go out in one sweep.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import cast

from modelport.errors import ModelportError, Overloaded, TimedOut
from modelport.protocols.base import Buffer, Headers, Reply, Route
from modelport.server.bulk import IN_PLACE_FROM_BYTES, change_protocol, receive_in_place
from modelport.server.http.bodies import ChunkedBody, CountedBody, StreamedBody
from modelport.server.http.exchange import (
    JOIN_BELOW_BYTES,
    HttpExchange,
    size_of,
)
from modelport.server.http.failures import encode_error, internal_error
from modelport.server.http.known_heads import Bound, keep
from modelport.server.http.listener import HttpServer
from modelport.server.pressure import LARGE_ANSWER_BYTES
from modelport.wire.chunked import END_OF_HEAD, END_OF_LINE, BadMessage, ChunkedReader
from modelport.wire.http import (
    WITHOUT_BODY,
    check_partial_head,
    encode_response_head,
    parse_request_head,
)

__all__ = [
    "BURST_GAP_NS",
    "HALF_CLOSE_GRACE_S",
    "HIGH_WATER_BYTES",
    "LEAST_PROGRESS_BYTES",
    "LINGER_S",
    "PENDING_BYTES",
    "QUIET_S",
    "Connection",
]

log = logging.getLogger("modelport.http")

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
MOST_HELD = 64
"""Pieces that one connection holds for the sweep at the most."""
HTTP2_HEAD = b"PRI * HTTP/2.0\r\n\r\n"
"""What the preface of HTTP/2 looks like to HTTP/1.1; RFC 9113 §3.4 chose it so."""
MOST_REFUSED = 64
"""Connections above the bound whose clients are told so; further ones are dropped without."""
TLS_BEGINS = b"\x16\x03"
"""How every connection of TLS begins. Source: RFC 8446 §5.1."""
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


class Connection(asyncio.Protocol):
    """One connection: at most one request is answered at a time, in the order they came."""

    __slots__ = (
        "_body",
        "_bound",
        "_exchange",
        "_held",
        "_is_advancing",
        "_is_bulky",
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
        "reads_on",
        "server",
    )

    is_heavy = False
    """What it holds for the end of the turn is small."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.peer = ""
        self.is_full = False
        self.reads_on = False
        self.is_closing = False
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._bound: Bound | None = None
        self._exchange: HttpExchange | None = None
        self._body: CountedBody | ChunkedBody | StreamedBody | None = None
        self._pending = bytearray()
        self._held: list[Buffer] = []
        self._is_advancing = False
        self._is_bulky = False
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
        over = len(server.connections) - server.options.max_connections
        if over > MOST_REFUSED:
            self.abort()
        elif over > 0:
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
            if exchange.reserved_bytes:
                server.pressure.release(exchange.reserved_bytes)
            exchange.lose()

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
        turns = self.server.turns
        now_ns = started_ns = self._now_ns()
        until_ns = turns.until_ns(started_ns)
        try:
            while data:
                if self._exchange is not None or self.is_full:
                    self._pending += data
                    return
                if now_ns > until_ns and now_ns > started_ns:
                    # Thousands of them fit into one read: the other connections come in between.
                    self._pending += data
                    turns.later(self._go_on)
                    return
                if self.is_closing:
                    return
                bound = self._bound
                if bound is None or not data.startswith(bound.raw):
                    bound = self._bind(data)
                    if bound is None:
                        return
                data = self._begin(bound, data)
                now_ns = self._now_ns()
        finally:
            self._is_advancing = False
            turns.spend(now_ns - started_ns)
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
                check_partial_head(data, start, limits)
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
            if data.startswith(TLS_BEGINS, start):
                text = f"refused {self.peer}: the client speaks TLS, and this port does not"
                self.server.seldom.info("TLS", text)
            reply = self.server.errors(exc)
            self._refuse(Reply(exc.status, reply.headers, reply.body))
            return None
        self._bound = bound = self.server.look_up(head)
        keep(self.server.known, raw, bound)
        return bound

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
            self._since_ns = now_ns = self.server.clock.now_ns()
            self._body = CountedBody(bound, head.content_length, now_ns)
            self._body.feed(memoryview(data)[size:])
            if end - len(data) >= IN_PLACE_FROM_BYTES:
                self._receive_in_place()
            return b""
        self._handle(bound, data[size:end])
        return data[end:] if len(data) > end else b""

    def _begin_stream(self, bound: Bound, data: bytes) -> bytes:
        """Call the handler before the body has come."""
        self._since_ns = now_ns = self._now_ns()
        exchange = HttpExchange(self, bound, b"", now_ns)
        exchange.begun_ns = now_ns
        exchange.is_coming = True
        self._exchange = exchange
        self._body = StreamedBody(bound, exchange, self.server.options.limits)
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
        self._since_ns = now_ns = self.server.clock.now_ns()
        if bound.is_streamed:
            return self._begin_stream(bound, rest)
        if head.is_chunked:
            limits = self.server.options.limits
            reader = ChunkedReader(bound.max_body, limits.chunks, limits.head_bytes)
            self._body = ChunkedBody(bound, reader, now_ns)
        else:
            self._body = CountedBody(bound, head.content_length, now_ns)
            if head.content_length - len(rest) >= IN_PLACE_FROM_BYTES:
                self._receive_in_place()
        return self._take_body(rest)

    def _refuse_early(self, bound: Bound) -> bytes:
        self._refuse(cast(Reply, bound.refusal), bound)
        return b""

    def _receive_in_place(self) -> None:
        """Have large bodies received without a copy from now on."""
        if not self._is_bulky and not self._transport.is_closing():
            self._is_bulky = True
            is_reading = not self._is_reading_paused
            receive_in_place(self._transport, self, self.server.bulk_buffer, is_reading=is_reading)

    def place(self) -> memoryview | None:
        """Where what comes next is wanted, if it is much."""
        body = self._body
        if isinstance(body, CountedBody) and body.missing >= IN_PLACE_FROM_BYTES:
            return body.place
        return None

    def received_in_place(self, count: int) -> None:
        """So many bytes lie where ``place`` said."""
        self._since_ns = self._now_ns()
        body = cast(CountedBody, self._body)
        body.filled(count)
        if body.is_complete:
            self._body = None
            self._handle_slow(body)

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
            self._refuse(encode_error(errors, exc), body.bound)
            return b""
        except Exception:
            log.exception("the body of a request could not be taken")
            self._body = None
            self._let_go()
            errors = body.bound.route.errors if body.bound.route else self.server.errors
            self._refuse(internal_error(errors), body.bound)
            return b""
        if body.is_complete and self._body is body:
            self._body = None
            if isinstance(body, StreamedBody):
                self._complete(body)
            else:
                self._handle_slow(body)
        return rest

    def hold_body(self) -> None:
        """Read no more until the body that is coming is released."""
        if not self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = True
            self._transport.pause_reading()

    def release_body(self, exchange: HttpExchange) -> None:
        """Read on; if that brings too much of a next request, reading pauses for that."""
        if (
            self._exchange is exchange
            and self._is_reading_paused
            and not self._transport.is_closing()
        ):
            self._is_reading_paused = False
            # The client was made to wait; that is no time of its own.
            self._since_ns = self.server.clock.now_ns()
            self._transport.resume_reading()

    def _complete(self, body: StreamedBody) -> None:
        """A body that was given on as it came has come whole."""
        exchange = body.exchange
        exchange.is_coming = False
        self._since_ns = exchange.received_ns = self._now_ns()
        if exchange.receiver is None or exchange.is_over:
            return
        try:
            exchange.receiver.complete()
        except ModelportError as exc:
            self._answer_error(exchange, encode_error(cast(Route, body.bound.route).errors, exc))
        except Exception:
            log.exception("the body of a request could not be used")
            self._answer_error(exchange, internal_error(cast(Route, body.bound.route).errors))

    def _let_go(self) -> None:
        """Have a handler that waits for the rest of a body know that it will not come."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lose()

    def _handle(self, bound: Bound, body: Buffer) -> None:
        self._since_ns = now_ns = self._now_ns()
        self._exchange = exchange = HttpExchange(self, bound, body, now_ns)
        expected_bytes = bound.answers.bytes
        if expected_bytes < LARGE_ANSWER_BYTES:
            self._run(exchange, bound)
        else:
            self._run_with_room(exchange, bound, expected_bytes)

    def _handle_slow(self, body: CountedBody | ChunkedBody) -> None:
        """The same for a request whose body did not come with its head."""
        bound = body.bound
        self._since_ns = now_ns = self._now_ns()
        self._exchange = exchange = HttpExchange(self, bound, body.take(), now_ns)
        exchange.begun_ns = body.begun_ns
        self._run_with_room(exchange, bound, bound.answers.bytes)

    def _run_with_room(self, exchange: HttpExchange, bound: Bound, expected_bytes: int) -> None:
        """Run a request, if its last answer was large when there is room for another."""
        if expected_bytes < LARGE_ANSWER_BYTES:
            self._run(exchange, bound)
            return
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
                self._answer_error(exchange, encode_error(errors, Overloaded(text)))

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
            self._answer_error(exchange, encode_error(cast(Route, bound.route).errors, exc))
        except Exception:
            route = cast(Route, bound.route)
            log.exception("the handler of %s %s failed", route.method, route.pattern)
            self._answer_error(exchange, internal_error(route.errors))

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
        length = sum(map(size_of, body))
        head = self.server.answer_heads.encode(status, headers, length, close=close)
        if is_head or length == 0 or status in WITHOUT_BODY:
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
            count = len(held)
            # The transport says that a client does not read only of what it was given. The items of
            # a stream are of one size, about, so the last one stands for all.
            if count > MOST_HELD or count * len(data) > HIGH_WATER_BYTES:
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
        if exchange.on_disconnect is not None:
            # They lead back to the exchange, and a circle has to wait for the garbage collector:
            # 2 ms each time, for everybody.
            exchange.on_disconnect = exchange.on_writable = None
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
        change_protocol(transport, guest, is_reading=self._is_bulky)
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
