"""``POST /v1/models/{model}[/versions/{version}]:predict``."""

from functools import partial

from modelport.errors import ModelFailed, ModelportError, NotFound, Unsupported
from modelport.messages import Arrival, Response
from modelport.protocols.base import Exchange, arrival_by_http
from modelport.protocols.threads import MOST_VALUES_ON_LOOP, off_loop
from modelport.protocols.v1.ports import EnginePort
from modelport.protocols.v1.replies import JSON_HEADERS, V1Options, asked_version, fail, not_served
from modelport.protocols.v2.images import submit_images
from modelport.protocols.v2.ports import DeploymentPort
from modelport.specs import ModelConfig
from modelport.wire.compression import check_coding, decompress
from modelport.wire.v1 import Prediction, decode_predict_request, encode_predict_response

__all__ = ["PredictHandler"]

MOST_ENCODED_ON_LOOP = 2**20
"""Bytes of outputs that become JSON on the event loop."""


class PredictHandler:
    """Answers predictions."""

    def __init__(self, engine: EnginePort, options: V1Options) -> None:
        self._engine = engine
        self._options = options

    def __call__(self, exchange: Exchange) -> None:
        """Decode, submit, and leave the rest to the sink."""
        try:
            coding = check_coding(exchange.headers.get("content-encoding"))
            deployment = self._find(exchange)
            decode = partial(self._decode, exchange, coding, deployment.config)
            if len(exchange.body) > MOST_VALUES_ON_LOOP or coding is not None:
                off_loop(exchange, decode, partial(self._submit, exchange), fail)
                return
            self._submit(exchange, decode())
        except ModelportError as exc:
            fail(exchange, exc)

    def _find(self, exchange: Exchange) -> DeploymentPort:
        name, version = exchange.params["model"], asked_version(exchange)
        try:
            deployment = self._engine.resolve(name, version)
        except NotFound as exc:
            raise not_served(self._engine, exc, name, version) from None
        if deployment.is_decoupled:
            raise Unsupported(
                f"model '{name}' gives any number of responses, and :predict has one; call "
                f"/v2/models/{name}/generate_stream"
            )
        return deployment

    def _decode(self, exchange: Exchange, coding: str | None, config: ModelConfig) -> Prediction:
        body = exchange.body
        if coding is not None:
            body = decompress(body, coding, self._options.max_body_bytes)
        return decode_predict_request(
            body,
            config,
            most_depth=self._options.max_json_depth,
            most_bytes=self._options.max_json_bytes,
        )

    def _submit(self, exchange: Exchange, prediction: Prediction) -> None:
        # Looked up again: the version may have been replaced while the body was read.
        deployment = self._find(exchange)
        request = prediction.request
        request.received_ns = exchange.received_ns
        request.principal = exchange.principal
        forwarded = self._options.forwarded_of(exchange)
        if forwarded:
            request.parameters = {**request.parameters, **forwarded}
        sink = _Sink(exchange, deployment.name, prediction.is_row)
        images = self._options.image_inputs(deployment.config)
        if images is not None and images.concerns(request.payload.tensors):
            ticket = submit_images(images, partial(self._find, exchange), request, sink)
        else:
            ticket = deployment.submit(request, sink)
        if not sink.is_over:
            exchange.on_disconnect = ticket.cancel


class _Sink:
    """Writes the one response."""

    def __init__(self, exchange: Exchange, model: str, is_row: bool) -> None:
        self._exchange = exchange
        self._model = model
        self._is_row = is_row
        self.is_over = False

    def arrival(self) -> Arrival:
        """How the request came."""
        return arrival_by_http(self._exchange)

    def push(self, response: Response, final: bool) -> bool:
        """Answer with the response."""
        self.is_over = True
        exchange = self._exchange
        encode = partial(encode_predict_response, response, is_row=self._is_row)
        if sum(tensor.array.nbytes for tensor in response.outputs) > MOST_ENCODED_ON_LOOP:
            off_loop(exchange, encode, self._respond, fail)
            return False
        try:
            self._respond(encode())
        except ModelportError as exc:
            fail(exchange, exc)
        return False

    def end(self) -> None:
        """There was none."""
        if not self.is_over:
            self.fail(ModelFailed(f"model '{self._model}' gave no response"))

    def fail(self, error: ModelportError) -> None:
        """Answer with the error."""
        self.is_over = True
        fail(self._exchange, error)

    def _respond(self, pieces: list[bytes | bytearray | memoryview]) -> None:
        self._exchange.on_disconnect = None
        self._exchange.respond(200, JSON_HEADERS, pieces)
