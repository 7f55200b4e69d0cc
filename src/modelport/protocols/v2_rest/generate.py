"""``generate`` and ``generate_stream``: any model by one flat JSON object."""

from functools import partial

from modelport.errors import InvalidRequest, ModelportError
from modelport.messages import Arrival, Request, Response, Ticket
from modelport.protocols.base import Buffer, Exchange, Headers, arrival_by_http
from modelport.protocols.threads import MOST_ON_LOOP, off_loop
from modelport.protocols.v2.ports import DeploymentPort, EnginePort
from modelport.protocols.v2.texts import error_text
from modelport.protocols.v2_rest.options import RestOptions
from modelport.protocols.v2_rest.replies import (
    JSON_HEADERS,
    error_body,
    fail,
    status_of,
)
from modelport.wire.v2_generate import (
    decode_generate_request,
    encode_event,
    encode_generate_response,
)

__all__ = ["GenerateHandler"]

_EVENT_HEADERS: Headers = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache"),
)


class GenerateHandler:
    """Answers with one object, or with a stream of them."""

    def __init__(self, engine: EnginePort, options: RestOptions, *, is_stream: bool) -> None:
        self._engine = engine
        self._options = options
        self._make_sink = _StreamSink if is_stream else _OneSink

    def __call__(self, exchange: Exchange) -> None:
        """Decode, submit, and leave the rest to the sink."""
        try:
            coding = exchange.headers.get("content-encoding", "identity").strip().lower()
            if coding not in ("identity", ""):
                raise InvalidRequest("Unsupported content-encoding, only 'identity' is supported.")
            deployment = self._find(exchange)
            decode = partial(
                decode_generate_request, exchange.body, deployment.config, self._options.codec
            )
            if len(exchange.body) > MOST_ON_LOOP:
                off_loop(exchange, decode, partial(self._submit_late, exchange), fail)
                return
            self._submit(exchange, deployment, decode())
        except ModelportError as exc:
            fail(exchange, exc)

    def _find(self, exchange: Exchange) -> DeploymentPort:
        params = exchange.params
        return self._engine.resolve(params["model"], params.get("version"))

    def _submit(self, exchange: Exchange, deployment: DeploymentPort, request: Request) -> None:
        request.received_ns = exchange.received_ns
        request.principal = exchange.principal
        forwarded = self._options.forwarded_of(exchange)
        if forwarded:
            request.parameters = {**request.parameters, **forwarded}
        sink = self._make_sink(exchange, deployment, request)
        try:
            ticket = deployment.submit(request, sink)
        except ModelportError as exc:
            fail(exchange, exc, request.id)
            return
        sink.submitted(ticket)

    def _submit_late(self, exchange: Exchange, request: Request) -> None:
        # Looked up again: the version may have been replaced while the body was read.
        self._submit(exchange, self._find(exchange), request)


class _Sink:
    """What both sinks have in common: whom they answer, and how to write a response."""

    __slots__ = ("_deployment", "_exchange", "_request", "_ticket", "is_over")

    def __init__(self, exchange: Exchange, deployment: DeploymentPort, request: Request) -> None:
        self._exchange = exchange
        self._deployment = deployment
        self._request = request
        self._ticket: Ticket | None = None
        self.is_over = False

    def arrival(self) -> Arrival:
        """How the request came."""
        return arrival_by_http(self._exchange)

    def submitted(self, ticket: Ticket) -> None:
        """Learn the ticket. By then, all may be over."""
        if self.is_over:
            ticket.cancel()
        else:
            self._ticket = ticket
            self._exchange.on_disconnect = ticket.cancel
            self._exchange.on_writable = ticket.resume

    def _encoded(self, response: Response) -> list[Buffer]:
        deployment = self._deployment
        version = str(deployment.version)
        return encode_generate_response(response, deployment.name, version, self._request.id)

    def _give_up(self) -> None:
        self.is_over = True
        if self._ticket is not None:
            self._ticket.cancel()


class _OneSink(_Sink):
    """Waits until it is certain that there is exactly one response."""

    __slots__ = ("_response",)

    def __init__(self, exchange: Exchange, deployment: DeploymentPort, request: Request) -> None:
        super().__init__(exchange, deployment, request)
        self._response: Response | None = None

    def push(self, response: Response, final: bool) -> bool:
        """Keep the first response; a second one is one too many."""
        if self.is_over:
            return False
        if self._response is not None:
            self.fail(_not_exactly_one())
            return False
        self._response = response
        if final:
            self.end()
        return True

    def end(self) -> None:
        """Answer, now that there will be no more."""
        if self.is_over:
            return
        if self._response is None:
            self.fail(_not_exactly_one())
            return
        try:
            pieces = self._encoded(self._response)
        except ModelportError as exc:
            self.fail(exc)
            return
        self.is_over = True
        self._exchange.respond(200, JSON_HEADERS, pieces)

    def fail(self, error: ModelportError) -> None:
        """Answer with the error."""
        if not self.is_over:
            self._give_up()
            fail(self._exchange, error, self._request.id)


class _StreamSink(_Sink):
    """Writes each response as an event, as soon as it is there.

    The status is decided by what comes first; an error after that is an event like the others.
    """

    __slots__ = ("_is_started",)

    def __init__(self, exchange: Exchange, deployment: DeploymentPort, request: Request) -> None:
        super().__init__(exchange, deployment, request)
        self._is_started = False

    def push(self, response: Response, final: bool) -> bool:
        """Send one event.

        Returns:
            Whether the client keeps up.
        """
        if self.is_over:
            return False
        try:
            event = encode_event(self._encoded(response))
        except ModelportError as exc:
            self.fail(exc)
            return False
        self._start(200)
        keeps_up = self._exchange.write(event)
        if final:
            self.end()
        return keeps_up

    def end(self) -> None:
        """End the stream; one without any response is empty."""
        if not self.is_over:
            self._start(200)
            self.is_over = True
            self._exchange.finish()

    def fail(self, error: ModelportError) -> None:
        """Send the error as the last event."""
        if self.is_over:
            return
        self._start(status_of(error))
        self._exchange.write(encode_event(error_body(error_text(error, self._request.id))))
        self._give_up()
        self._exchange.finish()

    def _start(self, status: int) -> None:
        if not self._is_started:
            self._is_started = True
            self._exchange.start(status, _EVENT_HEADERS)


def _not_exactly_one() -> ModelportError:
    return InvalidRequest(
        "generate expects model to produce exactly 1 response, use generate stream for model that "
        "generates various number of responses"
    )
