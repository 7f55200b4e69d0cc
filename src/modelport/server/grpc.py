"""gRPC methods on HTTP/2 streams: from rows of ``Rpc`` to calls, and from answers to trailers."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelport.errors import (
    INTERNAL_ERROR,
    InvalidRequest,
    ModelportError,
    Overloaded,
    TimedOut,
    TooLarge,
    Unsupported,
)
from modelport.protocols.base import Buffer, Receiver, Rpc
from modelport.protocols.threads import on_thread
from modelport.server.deadlines import Deadlines
from modelport.server.http import AccessRecord, Door, HttpServer
from modelport.server.http2 import Http2Connection
from modelport.server.http2_exchange import Answering
from modelport.server.pressure import Answers
from modelport.wire import compression
from modelport.wire.grpc import (
    ACCEPTED_CODINGS,
    LARGEST_MESSAGE,
    OK_TRAILERS,
    PREFIX,
    RESPONSE_HEAD,
    Folded,
    MessageReader,
    Status,
    check_coding,
    choose_coding,
    encode_end,
    parse_timeout,
    response_head,
)
from modelport.wire.header_blocks import Block
from modelport.wire.http import RequestHead
from modelport.wire.http2_heads import parse_trailer_fields

__all__ = ["GrpcCall", "GrpcOptions", "GrpcServer"]

log = logging.getLogger("modelport.grpc")

COMPRESS_FROM_BYTES = 1024
"""Smaller messages gain nothing."""
PREFIX_BYTES = 5
UNKNOWN_ANSWER_BYTES = 65_536
"""What is expected of a method that has not answered yet: thousands of first calls may come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcOptions:
    """What calls may be like.

    Attributes:
        max_message_bytes: Of one message that comes, also after decompression.
        compression_level: Of messages that go to clients which take them compressed, 1 to 9;
            ``None`` compresses none.
    """

    max_message_bytes: int = LARGEST_MESSAGE
    compression_level: int | None = None


class GrpcServer:
    """The methods of a server; see :class:`modelport.server.http2_server.Calls`.

    Args:
        rpcs: The methods, each path once.
        door: Who may call.
        http: The listener that the calls come to.
        deadlines: Of all calls.
        options: Limits.

    Raises:
        ValueError: Two methods have one path.
    """

    def __init__(
        self,
        rpcs: Iterable[Rpc],
        door: Door,
        http: HttpServer,
        deadlines: Deadlines,
        options: GrpcOptions,
    ) -> None:
        self._rpc_by_path: dict[str, Rpc] = {}
        for rpc in rpcs:
            if rpc.path in self._rpc_by_path:
                raise ValueError(f"two methods want the calls of {rpc.path}")
            self._rpc_by_path[rpc.path] = rpc
        self.door = door
        self.http = http
        self.deadlines = deadlines
        self.options = options

    def understand(self, head: RequestHead, answers: Answers) -> "_BoundCall":
        """Look up the method of a call, and hear the door."""
        rpc = self._rpc_by_path.get(head.path)
        if rpc is None:
            text = f"the method {head.path[:200]} is not known here"
            return _BoundCall(self, head, answers, None, (Status.UNIMPLEMENTED, text))
        headers = head.headers
        answers.bytes = answers.bytes or UNKNOWN_ANSWER_BYTES
        bound = _BoundCall(self, head, answers, rpc, None)
        try:
            bound.principal = self.door.admit(head, rpc)
        except ModelportError as exc:
            bound.refusal = rpc.errors(exc)
            return bound
        try:
            bound.coding = check_coding(headers.get("grpc-encoding"))
            if "grpc-timeout" in headers:
                bound.timeout_ns = parse_timeout(headers["grpc-timeout"])
        except Unsupported as exc:
            bound.refusal = (Status.UNIMPLEMENTED, str(exc))
            bound.refusal_trailers = (("grpc-accept-encoding", ACCEPTED_CODINGS),)
        except InvalidRequest as exc:
            bound.refusal = (Status.INTERNAL, str(exc))
        if self.options.compression_level is not None:
            bound.answer_coding = choose_coding(headers.get("grpc-accept-encoding"))
            if bound.answer_coding is not None:
                bound.response_head = response_head(bound.answer_coding)
        return bound


class _BoundCall:
    """The fields that begin a call with all that follows from them; kept for equal ones."""

    answer_coding: str | None = None
    coding: str | None = None
    principal = ""
    refusal_trailers: Sequence[tuple[str, str]] = ()
    response_head = RESPONSE_HEAD
    timeout_ns: int | None = None

    def __init__(
        self,
        calls: GrpcServer,
        head: RequestHead,
        answers: Answers,
        rpc: Rpc | None,
        refusal: tuple[int, str] | None,
    ) -> None:
        self.answers = answers
        self.calls = calls
        self.head = head
        self.max_bytes = calls.options.max_message_bytes
        self.refusal = refusal
        self.rpc = rpc
        self.memo: Any = None

    def open(self, connection: Http2Connection) -> "GrpcCall":
        """Begin a call."""
        return GrpcCall(connection, self)


class GrpcCall(Answering):
    """One call on a stream; see :class:`modelport.protocols.base.Call`."""

    begun_ns = 0
    received_ns = 0
    deadline_ns: int | None = None
    on_cancel: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None
    is_finished = False
    _is_started = False
    _is_delivering = False
    _is_unfolding = False
    _has_half_closed = False
    _is_resumed = False
    _leave_unfolding: Callable[[], None] | None = None
    _message: Buffer | Folded | None = None
    _reader: MessageReader | None = None
    _receiver: Receiver | None = None
    _sent_bytes = 0
    _waiting: deque[Buffer | Folded] | None = None

    def __init__(self, connection: Http2Connection, bound: _BoundCall) -> None:
        self._connection = connection
        self._bound = bound

    def __repr__(self) -> str:
        state = "finished" if self.is_finished else "started" if self._is_started else "open"
        return f"<GrpcCall {self.path} {state} queued={self.queued_bytes}>"

    @property
    def path(self) -> str:
        """``/package.Service/Method``."""
        return self._bound.head.path

    @property
    def metadata(self) -> Mapping[str, str]:
        """Names in lower case."""
        return self._bound.head.headers

    @property
    def principal(self) -> str:
        """Who asks."""
        return self._bound.principal

    @property
    def memo(self) -> Any:
        """What the handler keeps with these fields; given to the next call with the same ones."""
        return self._bound.memo

    @memo.setter
    def memo(self, value: Any) -> None:
        self._bound.memo = value

    # From the endpoint.

    def receive_head(self, block: Block, is_end: bool) -> None:
        """Begin the call, or end what the client sends: trailers say nothing in gRPC."""
        if self.begun_ns:
            parse_trailer_fields(block)
            self._end_request()
            return
        bound = self._bound
        self.begun_ns = self.received_ns = now_ns = self._connection.server.clock.now_ns()
        if bound.refusal is not None:
            self.finish(*bound.refusal, bound.refusal_trailers)
            return
        if bound.timeout_ns is not None:
            self.deadline_ns = deadline_ns = now_ns + bound.timeout_ns
            bound.calls.deadlines.add(self, deadline_ns)
        rpc = bound.rpc
        if rpc is not None and rpc.stream is not None:
            with_receiver = rpc.stream
            self._guard(lambda: self._receive_with(with_receiver(self)))
        if is_end and not self.is_finished:
            self._end_request()

    def _receive_with(self, receiver: Receiver) -> None:
        if not self.is_finished:
            self._receiver = receiver

    def receive_data(self, data: bytes, start: int, stop: int, is_end: bool) -> None:
        """Take messages, whole or in part."""
        if self.is_finished:
            return
        bound = self._bound
        reader = self._reader
        if reader is None:
            # One whole message and the end: nearly all of the calls there are.
            if is_end and stop - start >= PREFIX_BYTES and self._receiver is None:
                flag, size = PREFIX.unpack_from(data, start)
                if not flag and size == stop - start - PREFIX_BYTES and size <= bound.max_bytes:
                    self._begin(data[start + PREFIX_BYTES : stop])
                    return
            reader = self._reader = MessageReader(bound.max_bytes, bound.coding)
        self._take(lambda: reader.feed(data, start, stop), is_end)

    def place(self) -> memoryview | None:
        """Where the rest of a large message goes."""
        reader = self._reader
        return None if reader is None or self.is_finished else reader.place

    def receive_placed(self, count: int, is_end: bool) -> None:
        """Take a part of a large message that lies in its place."""
        reader = self._reader
        assert reader is not None
        self._take(lambda: reader.filled(count), is_end)

    def _take(self, read: Callable[[], list[Buffer | Folded]], is_end: bool) -> None:
        self.received_ns = self._connection.server.clock.now_ns()
        try:
            messages = read()
        except ModelportError as exc:
            self._cancel()
            self.finish(*_own_refusal(exc))
            return
        if self._receiver is not None:
            if messages:
                self._deliver(messages)
        elif messages:
            if len(messages) > 1 or self._message is not None:
                self.finish(Status.UNIMPLEMENTED, "the method takes one message, more were sent")
                return
            self._message = messages[0]
        if is_end and not self.is_finished:
            self._end_request()

    def _end_request(self) -> None:
        """The client has sent all it wants to."""
        if self.is_finished:
            return
        reader = self._reader
        if reader is not None and not reader.is_between_messages:
            self._cancel()
            self.finish(Status.INTERNAL, "the call ends in the middle of a message")
        elif self._receiver is not None:
            self._has_half_closed = True
            if not (self._waiting or self._is_delivering or self._is_unfolding):
                self._guard(self._receiver.half_closed)
        elif self._message is None:
            self.finish(Status.UNIMPLEMENTED, "the method takes one message, none was sent")
        else:
            message, self._message = self._message, None
            self._begin(message)

    def _begin(self, message: Buffer | Folded) -> None:
        if isinstance(message, Folded):
            self._unfold(message, self._begin)
            return
        connection = self._connection
        bound = self._bound
        if bound.answers.bytes < 16_384 and not connection.is_clogged:
            self._run(message)
        else:
            self._message = message
            connection.begin(self)

    @property
    def answers(self) -> Answers:
        """What is known of the answers of this method."""
        return self._bound.answers

    def run(self) -> None:
        """Call the method: there is room for its answer."""
        message, self._message = self._message, None
        assert message is not None
        assert not isinstance(message, Folded)
        self._run(message)

    def _run(self, message: Buffer) -> None:
        rpc = self._bound.rpc
        assert rpc is not None
        assert rpc.unary is not None
        try:
            rpc.unary(self, message)
        except ModelportError as exc:
            self.finish(*rpc.errors(exc))
        except Exception:
            self._fail()

    def _guard(self, run: Callable[[], object]) -> None:
        try:
            run()
        except ModelportError as exc:
            self._cancel()
            rpc = self._bound.rpc
            assert rpc is not None
            self.finish(*rpc.errors(exc))
        except Exception:
            self._cancel()
            self._fail()

    def _fail(self) -> None:
        log.exception("the handler of %s failed", self.path)
        self.finish(Status.INTERNAL, INTERNAL_ERROR)

    def _unfold(self, folded: Folded, then: Callable[[Buffer], None]) -> None:
        """Have a message unfolded beside the loop, which takes seconds if it is large."""
        self._is_unfolding = True

        def go_on(message: Buffer) -> None:
            self._is_unfolding = False
            self._leave_unfolding = None
            then(message)
            self._connection.wake()

        def fail(error: ModelportError) -> None:
            self._cancel()
            self.finish(*_own_refusal(error))

        self._leave_unfolding = on_thread(folded.unfold, go_on, fail, self._fail)

    def _deliver(self, messages: Iterable[Buffer | Folded]) -> None:
        """Give the receiver what has come, as far as it is welcome."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.extend(messages)
        if not self._is_delivering and not self.is_holding:
            self._guard(self._deliver_waiting)

    def _deliver_waiting(self) -> None:
        waiting = self._waiting
        self._is_delivering = True
        try:
            while waiting and self._receiver is not None:
                self._is_resumed = False
                message = waiting.popleft()
                if isinstance(message, Folded):
                    self.is_holding = True
                    self._unfold(message, self._deliver_unfolded)
                    return
                is_welcome = self._receiver.message(message)
                if not is_welcome and not self._is_resumed:
                    self.is_holding = True
                    return
        finally:
            self._is_delivering = False
        if self._has_half_closed and self._receiver is not None:
            self._receiver.half_closed()

    def _deliver_unfolded(self, message: Buffer) -> None:
        if self._waiting is not None:
            self._waiting.appendleft(message)
            self.resume()

    def resume(self) -> None:
        """Messages are welcome again."""
        if self._is_delivering:
            self._is_resumed = True
        elif self.is_holding and not self._is_unfolding:
            self._connection.endpoint.grant(self)
            if self._waiting:
                self._guard(self._deliver_waiting)
            elif self._has_half_closed and self._receiver is not None:
                self._guard(self._receiver.half_closed)
            self._connection.wake()

    def receive_reset(self, code: int) -> None:
        """The client does not want the call any more, or has gone."""
        if not self.is_finished:
            self._record(Status.CANCELLED)
        self._cancel()
        self._let_go()

    def flushed(self) -> None:
        """The client has caught up."""
        if self.on_writable is not None and not self.is_finished and not self.is_over:
            self.on_writable()

    # Time.

    def expire(self) -> None:
        """The client waits no longer."""
        if not self.is_finished:
            self._cancel()
            self.finish(Status.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def check_time(self, now_ns: int) -> None:
        """End a call of which the one message does not come; a stream may be silent."""
        rpc = self._bound.rpc
        if self.is_finished or self.is_remote_done or rpc is None or rpc.unary is None:
            return
        timeout_s = self._connection.server.options.body_timeout_s
        if now_ns - self.received_ns > timeout_s * 1e9:
            self.refuse(TimedOut("the message of the call did not come in time"))

    def drain(self) -> None:
        """Ask a call that has no end of its own whether it can end."""
        if self.on_drain is not None and not self.is_finished:
            self._guard(self.on_drain)

    def refuse(self, error: ModelportError) -> None:
        """End the call with an error of the server's own."""
        rpc = self._bound.rpc
        self._cancel()
        self.finish(*(rpc.errors(error) if rpc is not None else _own_refusal(error)))

    def _cancel(self) -> None:
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is not None and not self.is_finished:
            try:
                on_cancel()
            except Exception:
                log.exception("cancelling a call of %s failed", self.path)

    # From the handler.

    def send(self, message: Sequence[Buffer]) -> bool:
        """Send one message."""
        if self.is_finished or self.is_over:
            return False
        connection = self._connection
        endpoint = connection.endpoint
        bound = self._bound
        if not self._is_started:
            self._is_started = True
            endpoint.send_block(self, bound.response_head)
        size = sum(map(_size_of, message))
        if bound.answer_coding is not None and size >= COMPRESS_FROM_BYTES:
            message = self._compressed(message, bound.answer_coding)
            size = sum(map(len, message))
            prefix = PREFIX.pack(1, size)
        else:
            prefix = PREFIX.pack(0, size)
            if size > 1024:
                message = [_flat(piece) for piece in message]
        self._sent_bytes += size
        endpoint.send_data(self, (prefix, *message), size + PREFIX_BYTES)
        connection.wake()
        return self.queued_bytes < 65_536 and not connection.is_full

    def _compressed(self, message: Sequence[Buffer], coding: str) -> Sequence[Buffer]:
        level = self._bound.calls.options.compression_level or 1
        return compression.compress(message, coding, level=level)

    def finish(
        self, status: int = 0, text: str = "", trailers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """End the call."""
        if self.is_finished or self.is_over:
            return
        is_started = self._is_started
        if is_started and not status and not trailers:
            block = OK_TRAILERS
        else:
            # Before it counts as finished: a failure here must not leave the caller waiting.
            block = encode_end(status, text, trailers, is_alone=not is_started)
        self.is_finished = True
        self._connection.endpoint.send_block(self, block, is_end=True)
        self._record(status)
        self._let_go()
        self._connection.wake()

    def answer(self, message: Sequence[Buffer]) -> None:
        """Send the one message of an answer, and end the call well."""
        bound = self._bound
        if bound.answer_coding is None and not self._is_started and not self.is_finished:
            size = sum(map(_size_of, message))
            pieces = (PREFIX.pack(0, size), *message)
            head = bound.response_head
            connection = self._connection
            if connection.endpoint.send_whole(self, head, pieces, size + PREFIX_BYTES, OK_TRAILERS):
                self._is_started = True
                self._sent_bytes = size
                self._record(0)
                self._let_go()
                connection.wake()
                return
        self.send(message)
        self.finish()

    def _let_go(self) -> None:
        """Forget what the call held."""
        bound = self._bound
        self.is_finished = True
        if self.deadline_ns is not None:
            bound.calls.deadlines.remove(self, self.deadline_ns)
        if self.reserved_bytes:
            reserved_bytes, self.reserved_bytes = self.reserved_bytes, 0
            self._connection.keep_reserved(reserved_bytes)
            self._connection.wake()
        if self._is_started:
            bound.answers.bytes = self._sent_bytes
        if self._receiver is not None:
            self._receiver = None
            self._waiting = None
        if self._leave_unfolding is not None:
            self._leave_unfolding()
            self._leave_unfolding = None
        self.on_cancel = self.on_writable = self.on_drain = None

    def _record(self, status: int) -> None:
        server = self._connection.server
        if server.record_access is None:
            return
        head = self._bound.head
        server.record_access(
            AccessRecord(
                self._connection.peer,
                self.principal,
                "GRPC",
                head.target,
                int(status),
                self._sent_bytes,
                (server.clock.now_ns() - self.begun_ns) / 1e9,
                server.new_request_id(),
            )
        )


def _size_of(piece: Buffer) -> int:
    return piece.nbytes if piece.__class__ is memoryview else len(piece)


def _flat(piece: Buffer) -> Buffer:
    if isinstance(piece, memoryview) and (piece.itemsize != 1 or piece.ndim != 1):
        return piece.cast("B")
    return piece


def _own_refusal(error: ModelportError) -> tuple[int, str]:
    """Say what is wrong with a message before its method sees it."""
    match error:
        case TooLarge():
            return Status.RESOURCE_EXHAUSTED, str(error)
        case Overloaded():
            return Status.UNAVAILABLE, str(error)
        case _:
            return Status.INTERNAL, str(error)
