"""``ModelStreamInfer``: any number of requests on one call, and any number of responses.

Responses of ordinary models go out in the order of their requests: one that is early waits for
those before it. A decoupled model's responses go out as they come, and may overtake. What is in
flight on one stream is bounded, in requests and in bytes; at the bound nothing more is read.
"""

from collections import deque
from functools import partial

from modelport.errors import INTERNAL_ERROR, ModelFailed, ModelportError
from modelport.messages import Arrival, Request, Response, Ticket
from modelport.protocols.base import Buffer, Call, arrival_by_grpc
from modelport.protocols.threads import MOST_ON_LOOP, on_thread
from modelport.protocols.v2.texts import error_text
from modelport.protocols.v2_grpc.infer import (
    Inferences,
    Known,
    bound,
    no_response,
    read_whole,
)
from modelport.protocols.v2_grpc.replies import INTERNAL, end_exiting, error_status
from modelport.wire.v2_classes import takes_long
from modelport.wire.v2_grpc import (
    Message,
    encode_stream_error,
    encode_stream_response,
    has_much_to_read,
)

__all__ = ["MOST_IN_FLIGHT", "MOST_IN_FLIGHT_BYTES", "InferStream"]

MOST_IN_FLIGHT = 1024
"""Requests of one stream that are not answered yet. Enough to fill the largest batches."""
MOST_IN_FLIGHT_BYTES = 64 * 2**20
"""Of the messages of these requests; one larger than this is let in alone."""


class InferStream:
    """The server's side of one stream. See :class:`~modelport.protocols.base.Receiver`."""

    def __init__(self, inferences: Inferences, call: Call) -> None:
        self._inferences = inferences
        self._call = call
        # Those whose responses wait for one another, in the order of their requests.
        self._in_order: deque[_OrderedSink] = deque()
        self._sinks: set[_Sink] = set()
        self._bytes = 0
        # Producers that were told to wait until the client has read.
        self._held: deque[_FreeSink] = deque()
        self._is_full = False
        self._is_reading_on_thread = False
        self._is_stopped = False
        self._is_half_closed = False
        self._is_over = False
        wish = call.metadata.get("triton_grpc_error", "")
        self._ends_at_error = wish.strip().lower() == "true"
        call.on_cancel = self._cancel
        call.on_writable = self._resume
        call.on_drain = self._drain

    # The client's side.

    def message(self, data: Buffer) -> bool:
        """Take one request."""
        if self._is_over:
            return True
        try:
            if has_much_to_read(data, MOST_ON_LOOP):
                self._read_on_thread(data)
            else:
                self._take(self._inferences.read(data), len(data), None)
        except ModelportError as exc:
            # No request: who sends this cannot be told in band which of its requests it was.
            self._end(*error_status(exc))
        return self._is_welcome_else_stop()

    def half_closed(self) -> None:
        """No more requests; the stream ends when all is answered."""
        self._is_half_closed = True
        self._end_if_done()

    def _read_on_thread(self, data: Buffer) -> None:
        self._is_reading_on_thread = True
        leave = on_thread(
            partial(read_whole, data),
            partial(self._take_late, len(data)),
            self._fail_reading,
            partial(self._end, INTERNAL, "the server made a mistake while it read this"),
        )

        def cancel() -> None:
            leave()
            self._cancel()

        self._call.on_cancel = cancel

    def _take_late(self, size: int, read: tuple[Message, Request | ModelportError]) -> None:
        self._is_reading_on_thread = False
        if not self._is_over:
            self._call.on_cancel = self._cancel
            self._take(read[0], size, read[1])
            self._go_on()

    def _fail_reading(self, error: ModelportError) -> None:
        self._is_reading_on_thread = False
        self._end(*error_status(error))

    def _take(self, message: Message, size: int, read: Request | ModelportError | None) -> None:
        try:
            known = self._inferences.resolve(message.head)
        except ModelportError as exc:
            self._admit(_OrderedSink(self, message, size, None)).fail(exc)
            return
        kind = _FreeSink if known.is_decoupled else _OrderedSink
        sink = self._admit(kind(self, message, size, known))
        try:
            request = message.bind() if read is None else bound(read)
            self._inferences.complete(request, self._call)
            ticket = self._inferences.submit(known, request, sink, message.head)
        except ModelportError as exc:
            sink.fail(exc)
            return
        sink.ticket = ticket
        if self._is_over:
            ticket.cancel()
        elif isinstance(sink, _FreeSink) and sink in self._held and not self._is_full:
            self._held.remove(sink)
            ticket.resume()

    def _admit(self, sink: "_Sink") -> "_Sink":
        self._sinks.add(sink)
        self._bytes += sink.size
        if isinstance(sink, _OrderedSink):
            self._in_order.append(sink)
        return sink

    def _is_welcome_else_stop(self) -> bool:
        self._is_stopped = not self._has_room()
        return not self._is_stopped

    def _has_room(self) -> bool:
        return not (
            self._is_full
            or self._is_reading_on_thread
            or len(self._sinks) >= MOST_IN_FLIGHT
            or self._bytes >= MOST_IN_FLIGHT_BYTES
        )

    # The responses' side.

    def arrival(self) -> Arrival:
        """How the last request came."""
        return arrival_by_grpc(self._call, is_stream=True)

    def send(self, pieces: list[Buffer]) -> bool:
        """Send one response; whether another one is welcome."""
        if self._is_over:
            return False
        if not self._call.send(pieces):
            self._is_full = True
        return not self._is_full

    def flush(self) -> None:
        """Send what is next in order and ready."""
        waiting = self._in_order
        while waiting and waiting[0].is_ready and not self._is_over:
            sink = waiting.popleft()
            if sink.error is not None:
                self.fail(sink, sink.error)
            else:
                self.send(sink.pieces)
                self.settled(sink)

    def fail(self, sink: "_Sink", error: ModelportError) -> None:
        """Say an error: as a response, or as the end of the stream if that was wished for."""
        if self._ends_at_error:
            self._end(*error_status(error, sink.message.id))
            return
        message = sink.message
        text = error_text(error, message.id)
        self.send(encode_stream_error(text, message.head.model, message.id))
        self.settled(sink)

    def hold(self, sink: "_FreeSink") -> None:
        """Have a producer go on when the client has read."""
        self._held.append(sink)

    def settled(self, sink: "_Sink") -> None:
        """Forget a request: all of its responses are sent."""
        self._sinks.discard(sink)
        self._bytes -= sink.size
        self._go_on()

    def _resume(self) -> None:
        self._is_full = False
        # Those that fill the client again go behind the others.
        for _ in range(len(self._held)):
            if self._is_full:
                break
            sink = self._held.popleft()
            if sink.ticket is None:
                self._held.append(sink)
            else:
                sink.ticket.resume()
        self._go_on()

    def _go_on(self) -> None:
        if self._is_stopped and self._has_room() and not self._is_over:
            self._is_stopped = False
            self._call.resume()
        self._end_if_done()

    # The end.

    def _drain(self) -> None:
        if not self._is_over and not self._sinks and not self._is_reading_on_thread:
            self._cancel()
            end_exiting(self._call)

    def _end_if_done(self) -> None:
        if self._is_half_closed and not self._sinks and not self._is_reading_on_thread:
            self._end(0, "")

    def _end(self, status: int, text: str) -> None:
        if not self._is_over:
            self._cancel()
            self._call.finish(status, text)

    def _cancel(self) -> None:
        self._is_over = True
        sinks, self._sinks = self._sinks, set()
        self._in_order.clear()
        self._held.clear()
        for sink in sinks:
            if sink.ticket is not None:
                sink.ticket.cancel()


class _Sink:
    """What both kinds of sinks know: which request they answer.

    Attributes:
        message: The request.
        size: Bytes of it.
        ticket: ``None`` until the engine has taken it.
    """

    __slots__ = ("_known", "_stream", "message", "size", "ticket")

    def __init__(
        self, stream: InferStream, message: Message, size: int, known: Known | None
    ) -> None:
        self._stream = stream
        self._known = known
        self.message = message
        self.size = size
        self.ticket: Ticket | None = None

    def arrival(self) -> Arrival:
        """How the request came."""
        return self._stream.arrival()

    def push(self, response: Response, final: bool) -> bool:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def fail(self, error: ModelportError) -> None:
        raise NotImplementedError

    def _encoded(self, response: Response, is_final: bool) -> list[Buffer]:
        assert self._known is not None
        message = self.message
        pieces = self._known.encode(response, message.head, message.id, is_final=is_final)
        return encode_stream_response(pieces)


class _OrderedSink(_Sink):
    """Keeps the one response of an ordinary model until it is its turn."""

    __slots__ = ("error", "is_answered", "is_ready", "pieces")

    def __init__(
        self, stream: InferStream, message: Message, size: int, known: Known | None
    ) -> None:
        super().__init__(stream, message, size, known)
        self.is_answered = self.is_ready = False
        self.pieces: list[Buffer] = []
        self.error: ModelportError | None = None

    def push(self, response: Response, final: bool) -> bool:
        """Keep the response."""
        classes = self.message.head.classes
        if classes and takes_long(response, classes):
            self.is_answered = True
            on_thread(partial(self._encoded, response, True), self._keep, self._refuse, self._abort)
            return False
        try:
            self._keep(self._encoded(response, True))
        except ModelportError as exc:
            self._refuse(exc)
        return False

    def _keep(self, pieces: list[Buffer]) -> None:
        self.pieces = pieces
        self.is_answered = self.is_ready = True
        self._stream.flush()

    def _refuse(self, error: ModelportError) -> None:
        self.error = error
        self.is_answered = self.is_ready = True
        self._stream.flush()

    def _abort(self) -> None:
        self._refuse(ModelFailed(INTERNAL_ERROR))

    def end(self) -> None:
        """There was none."""
        if not self.is_answered:
            assert self._known is not None
            self.fail(no_response(self._known))

    def fail(self, error: ModelportError) -> None:
        """Keep the error."""
        if not self.is_answered:
            self._refuse(error)


class _FreeSink(_Sink):
    """Sends the responses of a decoupled model as they come."""

    __slots__ = ()

    def push(self, response: Response, final: bool) -> bool:
        """Send one response."""
        stream = self._stream
        try:
            pieces = self._encoded(response, final)
        except ModelportError as exc:
            stream.fail(self, exc)
            if self.ticket is not None:
                self.ticket.cancel()
            return False
        keeps_up = stream.send(pieces)
        if final:
            stream.settled(self)
        elif not keeps_up:
            stream.hold(self)
        return keeps_up

    def end(self) -> None:
        """Say that it is over, if that was wished for."""
        message = self.message
        if message.head.wants_empty_final:
            assert self._known is not None
            last = self._known.encoder.encode_empty_final(message.id)
            self._stream.send(encode_stream_response([last]))
        self._stream.settled(self)

    def fail(self, error: ModelportError) -> None:
        """Send the error as the last response."""
        self._stream.fail(self, error)
