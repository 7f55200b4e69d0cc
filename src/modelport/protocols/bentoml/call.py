"""Calls of endpoints: arguments in, a result or a stream out."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from modelport.errors import ModelportError, TimedOut, WorkerDied
from modelport.exceptions import BentoMLException
from modelport.messages import Arguments, Request, Response, Ticket
from modelport.protocols.base import Exchange, Headers, without_framing
from modelport.protocols.bentoml.meter import Meter
from modelport.protocols.bentoml.ports import EnginePort, Prepared, ServedEndpoint
from modelport.protocols.bentoml.replies import encode_error, error_text, new_request_id
from modelport.protocols.bentoml.upload import BodyReader
from modelport.protocols.threads import MOST_VALUES_ON_LOOP, off_loop
from modelport.wire import bentoml, json, multipart
from modelport.wire.bentoml import BodyKind, ItemFormat
from modelport.wire.compression import CODINGS, decompress
from modelport.wire.http import check_final, check_header

__all__ = ["EndpointHandler", "FileSender"]

FILE_PIECE_BYTES = 262_144
MOST_UNFOLDED_BYTES = 64 << 20
"""Of JSON that came compressed, where the operator sets no limit."""


class EndpointHandler:
    """Answers ``POST <route>``.

    Args:
        engine: Runs the calls.
        endpoint: Which one.
        max_json_bytes: Of JSON, which is read in one go; ``None`` for the server's limit alone.
    """

    def __init__(
        self, engine: EnginePort, endpoint: ServedEndpoint, max_json_bytes: int | None = None
    ) -> None:
        self._engine = engine
        self._max_json_bytes = max_json_bytes
        self.endpoint = endpoint
        self._method = endpoint.method
        self._timeout_ns = round(endpoint.timeout_s * 1e9)
        self._is_stream = endpoint.method.is_stream
        self._wants_context = endpoint.method.context_name is not None or endpoint.is_task
        self._is_bare = self._method.is_root and self._method.root_kind in ("text", "bytes", "file")
        self._has_files = bool(self._method.file_fields)
        self.meter = Meter(endpoint.route, endpoint.service, endpoint.model, endpoint.max_rows)
        self._server = ("Server", f"BentoML Service/{endpoint.service}")

    def __call__(self, exchange: Exchange) -> None:
        """Read the arguments, submit, and leave the rest to the sink."""
        try:
            kind = exchange.memo
            if kind is None:
                kind = exchange.memo = self._kind(exchange.headers)
            if kind is BodyKind.JSON and not self._is_bare and not self._has_files:
                body = exchange.body
                if len(body) > MOST_VALUES_ON_LOOP:
                    json.check_size(len(body), self._max_json_bytes)
                    off_loop(
                        exchange,
                        lambda: self._method.bind_json(body),
                        lambda bound: self._bound(exchange, bound, None),
                        self._failed,
                    )
                else:
                    self._submit(exchange, self._method.bind_json(body), None)
                return
            if kind is BodyKind.PICKLE:
                text = f"{bentoml.PICKLE} is not allowed in main server"
                raise BentoMLException(text, error_code=415)
            if isinstance(kind, str):
                self._unfold(exchange, kind)
                return
            BodyReader(exchange, self.endpoint, kind, self._bound, self._failed).begin()
        except ModelportError as exc:
            self._failed(exchange, exc)

    def _kind(self, headers: Mapping[str, str]) -> BodyKind | str:
        """Say how a body is to be read; JSON that is compressed has the name of its coding."""
        kind = bentoml.body_kind(headers.get("content-type", ""))
        coding = headers.get("content-encoding", "").strip().lower()
        if coding in ("", "identity"):
            return kind
        if kind is not BodyKind.JSON or self._is_bare or self._has_files:
            what = "only JSON may be compressed as a whole here; send the body as it is"
        elif coding in CODINGS:
            return coding
        else:
            what = f"{', '.join(CODINGS)} and identity are accepted"
        raise BentoMLException(f"Content-Encoding '{coding[:40]}': {what}", error_code=415)

    def _unfold(self, exchange: Exchange, coding: str) -> None:
        most = self._max_json_bytes or MOST_UNFOLDED_BYTES
        off_loop(
            exchange,
            lambda: self._method.bind_json(decompress(exchange.body, coding, most)),
            lambda values: self._bound(exchange, values, None),
            self._failed,
        )

    def _bound(self, exchange: Exchange, values: dict[str, Any], folder: Any) -> None:
        try:
            self._submit(exchange, values, folder)
        except ModelportError as exc:
            self._failed(exchange, exc)

    def _failed(self, exchange: Exchange, error: ModelportError) -> None:
        reply = encode_error(error)
        self.meter.answered(reply.status, exchange.received_ns)
        exchange.respond(reply.status, (*reply.headers, *self.own_headers()), reply.body)

    def own_headers(self) -> Headers:
        """What every answer of an endpoint has."""
        return (self._server, ("X-Bentoml-Request-Id", new_request_id()))

    def _submit(self, exchange: Exchange, values: dict[str, Any], folder: Any) -> None:
        """Send a call to the engine; ``folder`` is the call's own from here on."""
        endpoint = self.endpoint
        context = None
        if self._wants_context:
            folder = folder or endpoint.new_folder(exchange.principal)
            context = endpoint.make_context(exchange, folder)
        wanted = ItemFormat.RAW
        encode = self._method.encode
        if self._is_stream:
            wanted = bentoml.item_format(exchange.headers.get("accept", ""))
            if wanted is not ItemFormat.RAW:
                encode = _RecordEncoder(encode, wanted)
        arguments = Arguments(values, context=context, encode=encode, scope=folder)
        try:
            if endpoint.max_rows:
                rows, arguments.batch_key = self._method.batch_of(values)
                arguments.rows = min(max(rows, 1), endpoint.max_rows)
            request = Request(arguments, received_ns=exchange.received_ns)
            request.principal = exchange.principal
            sink: _Sink
            if self._is_stream:
                sink = _StreamSink(exchange, self, context, folder, wanted)
            else:
                request.deadline_ns = exchange.received_ns + self._timeout_ns
                sink = _OneSink(exchange, self, context, folder)
            deployment = self._engine.resolve(endpoint.model, None)
            self.meter.in_progress += 1
            try:
                ticket = deployment.submit(request, sink)
            except BaseException:
                self.meter.in_progress -= 1
                raise
        except BaseException:
            if folder is not None:
                folder.close()
            raise
        if not sink.is_over:
            sink.submitted(ticket)


class _RecordEncoder:
    """Writes items as records of NDJSON or events of SSE."""

    def __init__(self, encode: Callable[[Any], Prepared], wanted: ItemFormat) -> None:
        self._encode = encode
        self._wanted = wanted

    def __call__(self, value: Any) -> Prepared:
        item = self._encode(value)
        item.body = bentoml.encode_item(item.body, self._wanted, is_text=item.is_text)
        return item


class _Sink:
    """What both sinks have in common."""

    __slots__ = ("_context", "_exchange", "_folder", "_handler", "_ticket", "is_over")

    def __init__(
        self, exchange: Exchange, handler: EndpointHandler, context: Any, folder: Any
    ) -> None:
        self._exchange = exchange
        self._handler = handler
        self._context = context
        self._folder = folder
        self._ticket: Ticket | None = None
        self.is_over = False

    def submitted(self, ticket: Ticket) -> None:
        """Learn the ticket; the call is not over."""
        self._ticket = ticket
        self._exchange.on_disconnect = self._left
        self._exchange.on_writable = ticket.resume

    def _left(self) -> None:
        """The client has gone."""
        self._over()
        if self._ticket is not None:
            self._ticket.cancel()

    def _over(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._handler.meter.in_progress -= 1
        if self._folder is not None:
            # A call that never began has nobody else to clean up after it.
            self._folder.close_unclaimed()

    def _headers(self, prepared: Prepared | None) -> Headers:
        rows: Headers = prepared.headers if prepared is not None else ()
        rows = (*rows, *self._handler.own_headers())
        if self._context is not None:
            rows = _overridden(rows, self._context.response.extra_headers)
        return rows

    def _fail(self, error: ModelportError) -> None:
        lost = getattr(self._exchange, "lost", None)
        if lost is not None and isinstance(error, WorkerDied):
            # The work of a task: what its interruption means is for its author's policy to say.
            self._answered(503)
            lost(error)
            return
        if isinstance(error, TimedOut):
            error = TimedOut(_timed_out(self._handler.endpoint))
        reply = encode_error(error)
        headers = (*reply.headers, *self._handler.own_headers())
        self._answered(reply.status)
        self._exchange.respond(reply.status, headers, reply.body)

    def _answered(self, status: int) -> None:
        self._handler.meter.answered(status, self._exchange.received_ns)


class _OneSink(_Sink):
    """Answers with the one result."""

    __slots__ = ()

    def push(self, response: Response, final: bool) -> bool:
        """Write the answer."""
        if self.is_over:
            return False
        self._answer(response.value)
        # Last: if the answer cannot be sent, ``fail`` still has to give one.
        self._over()
        return True

    def _answer(self, prepared: Prepared) -> None:
        endpoint = self._handler.endpoint
        if prepared.app is not None:
            endpoint.run_app(self._exchange, prepared.app)
            self._answered(prepared.app.status_code)
            return
        status = prepared.status or 200
        context = self._context
        if context is not None and context.response.status_code is not None:
            status = context.response.status_code
        check_final(status)
        headers = self._headers(prepared)
        if prepared.parts:
            boundary = secrets.token_hex(16)
            content_type = f"multipart/form-data; boundary={boundary}"
            headers = (("Content-Type", content_type), *headers)
            self._exchange.respond(status, headers, _parts(boundary, prepared.parts))
        elif prepared.file is not None:
            FileSender(self._exchange, prepared.file).begin(status, headers)
        else:
            self._exchange.respond(status, headers, [prepared.body])
        self._answered(status)
        if context is not None and context.response.background:
            endpoint.run_later(context.response.background)

    def end(self) -> None:
        """Answer that there was nothing, which no function does."""
        self.fail(ModelportError("the endpoint ended without a result"))

    def fail(self, error: ModelportError) -> None:
        """Answer with the error."""
        if not self.is_over:
            self._over()
            self._fail(error)


class _StreamSink(_Sink):
    """Writes each item when it is there; nothing goes out before the first, not even a status."""

    __slots__ = ("_is_started", "_status", "_timer", "_wanted")

    def __init__(
        self,
        exchange: Exchange,
        handler: EndpointHandler,
        context: Any,
        folder: Any,
        wanted: ItemFormat,
    ) -> None:
        super().__init__(exchange, handler, context, folder)
        self._wanted = wanted
        self._is_started = False
        self._status = 200
        loop = asyncio.get_running_loop()
        # The timeout of a stream is that of its first item.
        self._timer = loop.call_later(handler.endpoint.timeout_s, self._time_out)

    def push(self, response: Response, final: bool) -> bool:
        """Send one item.

        Returns:
            Whether the client keeps up.
        """
        if self.is_over:
            return False
        self._start()
        keeps_up = self._exchange.write(response.value.body)
        if final:
            self.end()
        return keeps_up

    def end(self) -> None:
        """End the stream well."""
        if not self.is_over:
            self._start()
            self._over()
            self._answered(self._status)
            self._exchange.finish()

    def fail(self, error: ModelportError) -> None:
        """End it so that the caller sees that it is not whole."""
        if self.is_over:
            return
        self._over()
        if not self._is_started:
            self._fail(error)
            return
        # Its caller saw another status, but it is a failure all the same.
        self._answered(500)
        if self._wanted is ItemFormat.RAW:
            self._exchange.abort()
        else:
            self._exchange.write(bentoml.encode_error_record(error_text(error), self._wanted))
            self._exchange.finish()

    def _start(self) -> None:
        if self._is_started:
            return
        media_type = (
            _MEDIA_TYPE.get(self._wanted) or self._handler.endpoint.method.result.media_type
        )
        headers = (("Content-Type", media_type), ("Cache-Control", "no-cache"))
        if self._context is not None and self._context.response.status_code is not None:
            self._status = self._context.response.status_code
        check_final(self._status)
        self._exchange.start(self._status, _overridden(headers, self._headers(None)))
        self._is_started = True
        self._timer.cancel()

    def _over(self) -> None:
        self._timer.cancel()
        super()._over()

    def _time_out(self) -> None:
        ticket = self._ticket
        self.fail(TimedOut(""))
        if ticket is not None:
            ticket.cancel()


class FileSender:
    """Sends a file piece by piece, as fast as the client reads."""

    def __init__(self, exchange: Exchange, file: Any) -> None:
        self._exchange = exchange
        self._file = file

    def begin(self, status: int, headers: Headers) -> None:
        """Answer with this status and these headers, and close the file in the end."""
        exchange = self._exchange
        exchange.on_disconnect = self._file.close
        exchange.on_writable = self._go_on
        try:
            exchange.start(status, headers)
        except ValueError:
            self._file.close()
            raise
        self._go_on()

    def _go_on(self) -> None:
        file = self._file
        while not file.closed:
            piece = file.read(FILE_PIECE_BYTES)
            if not piece:
                file.close()
                self._exchange.on_writable = None
                self._exchange.finish()
                return
            if not self._exchange.write(piece):
                return


def _overridden(rows: Headers, by: Any) -> Headers:
    """Add headers, each in place of one of the same name; of cookies there may be many."""
    by = without_framing(by)
    for name, value in by:
        # Also what is only kept for now: a task's author is to hear of it, not who fetches it.
        check_header(name, value)
    names = {name.lower() for name, _ in by} - {"set-cookie"}
    return (*(row for row in rows if row[0].lower() not in names), *by)


def _parts(boundary: str, parts: Any) -> list[Any]:
    return multipart.encode_parts(
        boundary,
        [
            (
                multipart.encode_part(
                    boundary,
                    part.name,
                    filename=part.filename or None,
                    content_type=part.content_type,
                ),
                part.data,
            )
            for part in parts
        ],
    )


def _timed_out(endpoint: ServedEndpoint) -> str:
    return f"Not able to process the request in {endpoint.timeout_s:g} seconds"


_MEDIA_TYPE = {
    ItemFormat.NDJSON: "application/x-ndjson",
    ItemFormat.SSE: "text/event-stream; charset=utf-8",
}
