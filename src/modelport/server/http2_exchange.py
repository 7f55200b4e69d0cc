"""Requests and their answers on HTTP/2 streams: what REST and gRPC have in common, and REST."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from modelport.errors import ModelportError
from modelport.protocols.base import BodyReceiver, Buffer, Headers, Reply, Route
from modelport.server.http import Asked, Bound, encode_error, internal_error
from modelport.server.http.bodies import aligned_view
from modelport.server.http.known_heads import max_body_setting
from modelport.server.pressure import Answers
from modelport.wire.chunked import body_too_large
from modelport.wire.header_blocks import Block
from modelport.wire.http import WITHOUT_BODY, RequestHead, check_final
from modelport.wire.http2 import ErrorCode, MalformedHead, Stream
from modelport.wire.http2_heads import encode_response_fields, parse_trailer_fields

if TYPE_CHECKING:
    from modelport.server.http2 import Http2Connection

__all__ = ["Answering", "Http2Exchange"]

log = logging.getLogger("modelport.http2")


class Answering(Stream):
    """What REST requests and gRPC calls have in common.

    Attributes:
        reserved_bytes: Room that is set aside for the answer.
    """

    reserved_bytes = 0

    @property
    def answers(self) -> Answers:
        """What is known of the answers to requests like this one."""
        raise NotImplementedError

    def run(self) -> None:
        """Execute it; called at most once, when there is room for the answer."""
        raise NotImplementedError

    def check_time(self, now_ns: int) -> None:
        """End it if its client takes too long to send it."""

    def drain(self) -> None:
        """The server is draining: end it if it would not end by itself."""

    def refuse(self, error: ModelportError) -> None:
        """Answer with an error of the server's own."""
        raise NotImplementedError


class Http2Exchange(Answering, Asked):
    """One REST request on a stream; see :class:`modelport.protocols.base.Exchange`."""

    on_disconnect: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    begun_ns = 0
    received_ns = 0
    body: Buffer = b""
    is_started = False
    is_answered = False
    _body: "_Body | None" = None
    _has_run = False
    _status = 0
    _sent_bytes = 0
    _since_ns = 0

    _connection: "Http2Connection"

    def __init__(self, connection: "Http2Connection", bound: Bound) -> None:
        self._connection = connection
        self._bound = bound
        self.principal = bound.principal

    # From the endpoint.

    def receive_head(self, block: Block, is_end: bool) -> None:
        """Begin, or take the trailers, of which nothing is made."""
        if self._since_ns:
            parse_trailer_fields(block)
            self._end_body()
            return
        bound = self._bound
        self._since_ns = self.received_ns = self.begun_ns = self.server.clock.now_ns()
        head = bound.head
        if is_end:
            if head.content_length:
                raise MalformedHead("the body is shorter than content-length")
            self._run_when_fit()
        elif bound.refusal is not None:
            self._answer(bound.refusal)
        else:
            self._body = _Body(head, bound.max_body, max_body_setting(bound.route))
            if head.expects_continue:
                self._connection.endpoint.send_block(self, encode_response_fields(100, ()))

    def receive_data(self, data: bytes, start: int, stop: int, is_end: bool) -> None:
        """Take a piece of the body."""
        body = self._body
        if body is None:
            return
        self._since_ns = self.server.clock.now_ns()
        try:
            body.feed(data, start, stop)
        except ModelportError as exc:
            self._body = None
            route = self._bound.route
            self._answer(encode_error(route.errors if route else self.server.errors, exc))
            return
        if is_end:
            self._end_body()

    def place(self) -> memoryview | None:
        """Where the rest of a body of known length goes."""
        body = self._body
        return None if body is None else body.place

    def receive_placed(self, count: int, is_end: bool) -> None:
        """Take a piece of the body that lies in its place."""
        body = self._body
        assert body is not None
        self._since_ns = self.server.clock.now_ns()
        body.filled(count)
        if is_end:
            self._end_body()

    def _end_body(self) -> None:
        body, self._body = self._body, None
        if body is None:
            return
        if not body.is_complete:
            connection = self._connection
            connection.endpoint.reset(self, ErrorCode.PROTOCOL_ERROR)
            return
        self.body = body.take()
        self._run_when_fit()

    def _run_when_fit(self) -> None:
        self.received_ns = self._since_ns
        self._connection.begin(self)

    @property
    def answers(self) -> Answers:
        """What is known of the answers of this route."""
        return self._bound.answers

    def run(self) -> None:
        """Call the handler, or answer without one."""
        bound = self._bound
        self._has_run = True
        handler = bound.handler
        if handler is None:
            self._answer(cast(Reply, bound.refusal))
            return
        try:
            handler(self)
        except ModelportError as exc:
            self._answer(encode_error(cast(Route, bound.route).errors, exc))
        except Exception:
            route = cast(Route, bound.route)
            log.exception("the handler of %s %s failed", route.method, route.pattern)
            self._answer(internal_error(route.errors))

    def receive_reset(self, code: int) -> None:
        """The client does not want the answer any more."""
        on_disconnect = self.on_disconnect
        self._release()
        if on_disconnect is not None and not self.is_answered:
            self.is_answered = True
            on_disconnect()

    def flushed(self) -> None:
        """The client has caught up."""
        if self.on_writable is not None and not self.is_answered and not self.is_over:
            self.on_writable()

    def check_time(self, now_ns: int) -> None:
        """End it if its body does not come."""
        options = self.server.options
        if self._body is not None and now_ns - self._since_ns > options.body_timeout_s * 1e9:
            self._body = None
            self._connection.endpoint.reset(self, ErrorCode.CANCEL)

    def refuse(self, error: ModelportError) -> None:
        """Answer with an error of the server's own."""
        route = self._bound.route
        self._answer(encode_error(route.errors if route else self.server.errors, error))

    # From the handler.

    def _answer(self, reply: Reply) -> None:
        if self.is_started:
            self.abort()
        else:
            self.respond(reply.status, reply.headers, reply.body)

    def receive(self, receiver: BodyReceiver) -> None:
        """Give the body on, which has come whole: over HTTP/2 none is given on as it comes."""
        if len(self.body):
            receiver.data(self.body)
        receiver.complete()

    def hold_body(self) -> None:
        """Do nothing: the body has come whole."""

    def release_body(self) -> None:
        """Do nothing."""

    def respond(
        self, status: int, headers: Headers, body: Sequence[Buffer], *, close: bool = False
    ) -> None:
        """Answer whole. The connection stays, whatever ``close`` says: others are using it."""
        if self.is_answered or self.is_over:
            return
        check_final(status)
        bound, server, endpoint = self._bound, self.server, self._connection.endpoint
        if server.record_access is not None or status >= 400:
            headers = self.with_request_id(status, headers, body)
        pieces = [_flat(piece) for piece in body]
        size = sum(map(len, pieces))
        if status == 200:
            bound.answers.bytes = size
        block = _response_block(status, headers, bound.answer_headers, size)
        self.is_answered = self.is_started = True
        is_bare = not size or bound.head.method == "HEAD" or status in WITHOUT_BODY
        endpoint.send_block(self, block, is_end=is_bare)
        if not is_bare:
            endpoint.send_data(self, pieces, size, is_end=True)
        self._release()
        self._connection.wake()

    def start(self, status: int, headers: Headers) -> None:
        """Begin an answer whose length is not known yet."""
        if self.is_answered or self.is_over:
            return
        check_final(status)
        block = encode_response_fields(status, (*headers, *self._bound.answer_headers))
        self.is_started = True
        self._status = status
        self._connection.endpoint.send_block(self, block)
        self._connection.wake()

    def write(self, data: Buffer) -> bool:
        """Send a piece of it."""
        if self.is_answered or self.is_over:
            return False
        piece = _flat(data)
        if len(piece) and self._bound.head.method != "HEAD" and self._status not in WITHOUT_BODY:
            self._connection.endpoint.send_data(self, [piece], len(piece))
            self._connection.wake()
        self._sent_bytes += len(piece)
        return self._connection.has_room(self)

    def finish(self) -> None:
        """End the answer that ``start`` began."""
        if self.is_answered or self.is_over:
            return
        self.is_answered = True
        if self.server.record_access is not None:
            self.record(self._status, self._sent_bytes, self.server.new_request_id())
        self._connection.endpoint.send_data(self, (), 0, is_end=True)
        self._release()
        self._connection.wake()

    def abort(self) -> None:
        """Break the answer off so that the client sees that it is not whole."""
        if not self.is_answered and not self.is_over:
            self.is_answered = True
            self._connection.endpoint.reset(self, ErrorCode.INTERNAL_ERROR)
            self._release()
            self._connection.wake()

    def _release(self) -> None:
        """Forget what only mattered before the answer."""
        self.on_disconnect = self.on_writable = None
        reserved_bytes, self.reserved_bytes = self.reserved_bytes, 0
        if reserved_bytes:
            self._connection.keep_reserved(reserved_bytes)
            self._connection.wake()


class _Body:
    """The body of a request, with its length known before or not."""

    def __init__(self, head: RequestHead, max_bytes: int, setting: str) -> None:
        self._expected = head.content_length if "content-length" in head.headers else None
        self._max_bytes = max_bytes
        self._setting = setting
        self._filled = 0
        self._view: memoryview | None = None
        self._pieces = bytearray()
        if self._expected is not None:
            self._view = aligned_view(head, self._expected)

    @property
    def is_complete(self) -> bool:
        return self._expected is None or self._filled == self._expected

    def feed(self, data: bytes, start: int, stop: int) -> None:
        end = self._filled + stop - start
        if end > self._max_bytes:
            raise body_too_large(end, self._max_bytes, self._setting)
        if self._view is None:
            self._pieces += memoryview(data)[start:stop]
        elif end > len(self._view):
            raise ModelportError("the body is longer than content-length")
        else:
            self._view[self._filled : end] = memoryview(data)[start:stop]
        self._filled = end

    @property
    def place(self) -> memoryview | None:
        view = self._view
        # Behind its end comes what is too much, which ``feed`` refuses.
        return None if view is None else view[self._filled :] or None

    def filled(self, count: int) -> None:
        self._filled += count

    def take(self) -> Buffer:
        return memoryview(self._pieces).toreadonly() if self._view is None else self._view


def _flat(piece: Buffer) -> Buffer:
    if isinstance(piece, memoryview) and (piece.itemsize != 1 or piece.ndim != 1):
        return piece.cast("B")
    return piece


MOST_BLOCKS = 64
_BLOCKS: dict[tuple[int, Headers], bytes] = {}
"""Heads of ordinary answers without their length."""


def _response_block(status: int, headers: Headers, more: Headers, size: int) -> bytes:
    if headers.__class__ is tuple and status == 200 and not more:
        block = _BLOCKS.get((status, headers))
        if block is None:
            block = encode_response_fields(status, headers)
            if len(_BLOCKS) >= MOST_BLOCKS:
                _BLOCKS.clear()  # headers that differ each time must not crowd the others out
            _BLOCKS[(status, headers)] = block
    else:
        block = encode_response_fields(status, (*headers, *more))
    if status in WITHOUT_BODY:
        return block
    length = b"%d" % size
    # content-length, a literal with the indexed name 28: RFC 7541 §6.2.2.
    return b"%b\x0f\x0d%c%b" % (block, len(length), length)
