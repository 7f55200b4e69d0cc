"""``POST /v2/models/{model}[/versions/{version}]/infer``: the hot path.

All that follows from the head of a request alone is found out once and kept with it, and what
follows from a model's configuration is kept with the deployment.
"""

from collections.abc import Callable, Mapping
from functools import partial

from msgspec.structs import replace

from modelport.errors import ModelFailed, ModelportError, Unsupported
from modelport.messages import Arrival, Request, Response, Ticket
from modelport.protocols.base import Exchange, arrival_by_http
from modelport.protocols.threads import MOST_ON_LOOP, off_loop, on_thread
from modelport.protocols.v2.images import submit_images
from modelport.protocols.v2.ports import DeploymentPort, EnginePort, HoldPort
from modelport.protocols.v2.shared_memory import (
    MOST_COPIED_ON_LOOP,
    LateRelease,
    hold,
    read_inputs,
    write_outputs,
)
from modelport.protocols.v2_rest.options import RestOptions
from modelport.protocols.v2_rest.replies import JSON_HEADERS, fail
from modelport.specs import ModelConfig
from modelport.wire.compression import check_coding, choose_coding, compress, decompress
from modelport.wire.images import is_image
from modelport.wire.json_arrays import LongAnswer
from modelport.wire.v2_classes import classify_outputs, takes_long
from modelport.wire.v2_regions import Span
from modelport.wire.v2_rest import (
    HEADER_LENGTH,
    Buffer,
    Inference,
    ResponseEncoder,
    bind_raw,
    bind_raw_image,
    decode_infer_request,
    parse_header_length,
)
from modelport.wire.v2_template import TemplateReader

__all__ = ["InferHandler"]

MOST_COMPRESSED_ON_LOOP = 65_536
"""Bytes of an answer above which compressing it would hold up the others: about 1 ms."""

_BINARY_TYPE = ("Content-Type", "application/octet-stream")


class InferHandler:
    """Answers inference requests with one response each."""

    def __init__(self, engine: EnginePort, options: RestOptions) -> None:
        self._engine = engine
        self._options = options

    def __call__(self, exchange: Exchange) -> None:
        """Decode, submit, and leave the rest to the sink."""
        try:
            head: _Head | None = exchange.memo
            if head is None:
                head = exchange.memo = _Head(exchange, self._options)
            deployment = self._engine.resolve(head.model, head.version)
            known = _known_of(deployment, self._options)
            if known.is_decoupled:
                raise _no_decoupled()
            body = exchange.body
            template = head.template
            if (len(body) > MOST_ON_LOOP and _is_slow(body, head)) or head.coding is not None:
                decode = partial(self._decode, head, body, deployment.config, known)
                off_loop(exchange, decode, partial(self._submit_late, exchange, head), fail)
                return
            if template is None:
                inference = self._decode(head, body, deployment.config, known)
            else:
                inference = template.decode(body, deployment.name, known.codec)
            self._submit(exchange, head, deployment, known, inference)
        except ModelportError as exc:
            fail(exchange, exc)

    def _decode(
        self, head: "_Head", body: Buffer, config: ModelConfig, known: "_Known"
    ) -> Inference:
        if head.coding is not None:
            body = decompress(body, head.coding, self._options.max_body_bytes)
        if head.header_length == 0:
            if known.images is not None and is_image(bytes(body[:16])):
                image = bind_raw_image(body, config)
                if known.images.concerns(image.request.payload.tensors):
                    return image
            return bind_raw(body, config)
        return decode_infer_request(body, head.header_length, config.name, known.codec)

    def _submit(
        self,
        exchange: Exchange,
        head: "_Head",
        deployment: DeploymentPort,
        known: "_Known",
        inference: Inference,
    ) -> None:
        request = inference.request
        request.received_ns = exchange.received_ns
        principal = exchange.principal
        if principal:
            request.principal = principal
        if head.forwarded:
            request.parameters = {**request.parameters, **head.forwarded}
        sink = _InferSink(exchange, deployment, known.encoder, inference, head.accepted)
        if inference.region_inputs or inference.has_spans:
            self._submit_from_regions(exchange, head, deployment, inference, sink)
            return
        try:
            if known.images is None:
                ticket = deployment.submit(request, sink)
            else:
                ticket = self._hand_over(head, deployment, known, request, sink)
        except ModelportError as exc:
            fail(exchange, exc, request.id)
            return
        if not sink.is_over:
            exchange.on_disconnect = ticket.cancel

    def _hand_over(
        self,
        head: "_Head",
        deployment: DeploymentPort,
        known: "_Known",
        request: Request,
        sink: "_InferSink",
    ) -> Ticket:
        images = known.images
        if images is not None and images.concerns(request.payload.tensors):
            find = partial(self._engine.resolve, head.model, head.version)
            return submit_images(images, find, request, sink)
        return deployment.submit(request, sink)

    def _submit_from_regions(
        self,
        exchange: Exchange,
        head: "_Head",
        deployment: DeploymentPort,
        inference: Inference,
        sink: "_InferSink",
    ) -> None:
        """Read the inputs that lie in shared memory; the regions are kept until the answer."""
        request, inputs = inference.request, inference.region_inputs
        held = sink.held = hold(self._options.regions, inputs, sink.spans())
        read = partial(read_inputs, held, request, inputs, deployment.name)

        def submit(_: None) -> None:
            # Looked up again: the version may have been replaced while the inputs were read.
            current = self._engine.resolve(head.model, head.version)
            known = _known_of(current, self._options)
            ticket = self._hand_over(head, current, known, request, sink)
            if not sink.is_over:
                exchange.on_disconnect = partial(_leave, ticket, held)

        if sum(each.span.byte_size for each in inputs) > MOST_COPIED_ON_LOOP:
            late = LateRelease(held, read)
            leave = on_thread(late.work, submit, sink.fail, exchange.abort)
            exchange.on_disconnect = partial(_leave_reading, leave, late)
            return
        try:
            submit(read())
        except ModelportError as exc:
            sink.fail(exc)

    def _submit_late(self, exchange: Exchange, head: "_Head", inference: Inference) -> None:
        # Looked up again: the version may have been replaced while the body was read.
        deployment = self._engine.resolve(head.model, head.version)
        known = _known_of(deployment, self._options)
        if known.is_decoupled:
            raise _no_decoupled()
        self._submit(exchange, head, deployment, known, inference)


def _leave(ticket: Ticket, held: HoldPort) -> None:
    ticket.cancel()
    held.release()


def _leave_reading(leave: Callable[[], None], late: LateRelease) -> None:
    leave()
    late.release()


def _no_decoupled() -> Unsupported:
    return Unsupported(
        "HTTP end point doesn't support models with decoupled transaction policy. "
        "Call generate_stream instead, or the gRPC stream."
    )


def _is_slow(body: Buffer, head: "_Head") -> bool:
    """Whether reading a large body takes long: long JSON, or many strings. Numbers are views."""
    length = head.header_length
    if not length or length > MOST_ON_LOOP:
        return True
    return b"BYTES" in bytes(memoryview(body)[:length])


class _Head:
    """What the head of a request says, for this and all requests with the same head."""

    __slots__ = (
        "accepted",
        "coding",
        "forwarded",
        "header_length",
        "model",
        "template",
        "version",
    )

    def __init__(self, exchange: Exchange, options: RestOptions) -> None:
        headers = exchange.headers
        self.model = exchange.params["model"]
        self.version = exchange.params.get("version")
        self.coding = check_coding(headers.get("content-encoding"))
        self.accepted = choose_coding(headers.get("accept-encoding"))
        self.header_length = parse_header_length(headers.get(HEADER_LENGTH.lower()))
        self.forwarded: Mapping[str, str] = options.forwarded_of(exchange)
        is_json = self.header_length is None and self.coding is None
        self.template = TemplateReader() if is_json else None


class _InferSink:
    """Writes the one response to one exchange."""

    __slots__ = (
        "_accepted",
        "_deployment",
        "_encoder",
        "_exchange",
        "_inference",
        "held",
        "is_over",
    )

    def __init__(
        self,
        exchange: Exchange,
        deployment: DeploymentPort,
        encoder: ResponseEncoder,
        inference: Inference,
        accepted: str | None,
    ) -> None:
        self._exchange = exchange
        self._deployment = deployment
        self._encoder = encoder
        self._inference = inference
        self._accepted = accepted
        self.is_over = False
        self.held: HoldPort | None = None

    def arrival(self) -> Arrival:
        """How the request came."""
        return arrival_by_http(self._exchange)

    def spans(self) -> dict[str, Span]:
        """The outputs that go to shared memory."""
        forms = self._inference.forms or {}
        return {name: form.span for name, form in forms.items() if form.span is not None}

    def push(self, response: Response, final: bool) -> bool:
        """Answer with the response."""
        inference = self._inference
        try:
            if inference.has_classes:
                if takes_long(response, self._classes()):
                    self._finish_off_loop(response)
                    return False
                response = self._classified(response)
            if self.held is not None:
                write_outputs(self.held, response, self.spans())
                self.held.release()
            length, pieces = self._encoder.encode(
                response, inference.request.id, inference.is_binary, inference.forms
            )
        except ModelportError as exc:
            self.fail(exc)
            return False
        except LongAnswer:
            self._finish_off_loop(response, is_classified=True)
            return False
        self.is_over = True
        if length is None and self._accepted is None:
            self._exchange.respond(200, JSON_HEADERS, pieces)
        else:
            self._respond(length, pieces)
        return False

    def _finish_off_loop(self, response: Response, *, is_classified: bool = False) -> None:
        self.is_over = True
        finish = partial(self._finish, response, is_classified=is_classified)
        off_loop(self._exchange, finish, lambda encoded: self._respond(*encoded), fail)

    def _finish(
        self, response: Response, *, is_classified: bool
    ) -> tuple[int | None, list[Buffer]]:
        """Do what takes long of ``push``; on a thread, where nothing of the loop's is touched."""
        inference, held = self._inference, self.held
        try:
            if not is_classified:
                response = self._classified(response)
                if held is not None:
                    write_outputs(held, response, self.spans())
        finally:
            if held is not None:
                held.release()
        return self._encoder.encode_long(
            response, inference.request.id, inference.is_binary, inference.forms
        )

    def end(self) -> None:
        """There was none."""
        if not self.is_over:
            self.fail(ModelFailed(f"model '{self._deployment.name}' gave no response"))

    def fail(self, error: ModelportError) -> None:
        """Answer with the error."""
        self.is_over = True
        if self.held is not None:
            self.held.release()
        fail(self._exchange, error, self._inference.request.id)

    def _classes(self) -> dict[str, int]:
        """How many classes of each output are wanted."""
        forms = self._inference.forms or {}
        return {name: form.classes for name, form in forms.items()}

    def _classified(self, response: Response) -> Response:
        deployment = self._deployment
        return classify_outputs(
            response,
            self._classes(),
            deployment.labels,
            is_batching=deployment.config.max_batch_size > 0,
        )

    def _respond(self, length: int | None, pieces: list[Buffer]) -> None:
        headers = (
            list(JSON_HEADERS) if length is None else [_BINARY_TYPE, (HEADER_LENGTH, str(length))]
        )
        accepted = self._accepted
        if accepted is None:
            self._exchange.respond(200, headers, pieces)
            return
        headers.append(("Content-Encoding", accepted))
        if sum(map(len, pieces)) <= MOST_COMPRESSED_ON_LOOP:
            self._exchange.respond(200, headers, compress(pieces, accepted))
            return

        def respond(folded: list[Buffer]) -> None:
            self._exchange.respond(200, headers, folded)

        off_loop(self._exchange, partial(compress, pieces, accepted), respond, fail)


class _Known:
    """What follows from a configuration alone; kept with the deployment."""

    __slots__ = ("codec", "encoder", "images", "is_decoupled")

    def __init__(self, deployment: DeploymentPort, options: RestOptions) -> None:
        codec = options.codec
        self.images = options.image_inputs(deployment.config)
        self.codec = codec if self.images is None else replace(codec, is_ovms=True)
        self.is_decoupled = deployment.is_decoupled
        self.encoder = ResponseEncoder(
            deployment.name, str(deployment.version), is_strict=codec.is_strict
        )


def _known_of(deployment: DeploymentPort, options: RestOptions) -> _Known:
    known: _Known | None = deployment.memo.get("v2_rest")
    if known is None:
        known = deployment.memo["v2_rest"] = _Known(deployment, options)
    return known
