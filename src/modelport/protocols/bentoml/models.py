"""Models of tensors as endpoints: arrays by the names of inputs, as nested lists."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from modelport.dtypes import BF16, BYTES, bf16_from_float32, float32_from_bf16
from modelport.errors import InvalidArguments, InvalidRequest, ModelportError, NotFound
from modelport.messages import Arrival, Request, Response, Tensors, Ticket
from modelport.protocols.base import Buffer, Exchange, arrival_by_http
from modelport.protocols.bentoml.ports import DeploymentPort, EnginePort
from modelport.protocols.bentoml.replies import JSON_HEADERS, encode_error
from modelport.protocols.threads import MOST_VALUES_ON_LOOP, off_loop
from modelport.specs import ModelInput, ModelOutput
from modelport.tensors import Tensor
from modelport.wire import json
from modelport.wire.compression import check_coding, decompress
from modelport.wire.json_arrays import in_pieces

__all__ = ["ModelHandler", "ModelMethod", "is_listed"]

MOST_UNFOLDED_BYTES = 64 << 20
"""Of a body that came compressed, where the operator sets no limit."""
SERVICE = "service"
"""Backend of the models that are endpoints already."""


def is_listed(deployment: DeploymentPort) -> bool:
    """Whether a model appears as an endpoint of its own."""
    config = deployment.config
    return config.backend != SERVICE and not config.is_decoupled


class ModelMethod:
    """What a model says of its tensors, in the form of ``/schema.json``.

    Args:
        deployment: Of the model.
    """

    def __init__(self, deployment: DeploymentPort) -> None:
        self._config = deployment.config

    @property
    def input_schema(self) -> dict[str, Any]:
        """One tensor for each input."""
        entries = self._config.input
        return {
            "title": "Input",
            "type": "object",
            "properties": {entry.name: self._tensor(entry) for entry in entries},
            "required": [entry.name for entry in entries if not entry.optional],
        }

    @property
    def output_schema(self) -> dict[str, Any]:
        """The one output, or an object of them."""
        entries = self._config.output
        if len(entries) == 1:
            return self._tensor(entries[0])
        return {
            "type": "object",
            "properties": {entry.name: self._tensor(entry) for entry in entries},
            "required": [entry.name for entry in entries],
        }

    def _tensor(self, entry: ModelInput | ModelOutput) -> dict[str, Any]:
        dims = ((-1,) if self._config.max_batch_size > 0 else ()) + entry.dims
        if entry.datatype is BYTES:
            said: dict[str, Any] = {"type": "string"}
            for _ in dims:
                said = {"type": "array", "items": said}
            return said
        dtype = "float32" if entry.datatype is BF16 else entry.datatype.numpy.name
        return {
            "type": "tensor",
            "format": "numpy-array",
            "dtype": dtype,
            # Sizes that are not fixed are left to the model; a client reshapes to what it reads.
            **({"shape": list(dims)} if list(dims).count(-1) <= 1 else {}),
        }


class ModelHandler:
    """Answers ``POST /<model>`` where nothing else does.

    Args:
        engine: Runs the calls.
        max_json_bytes: Of a body; ``None`` for the server's limit alone.
    """

    def __init__(self, engine: EnginePort, max_json_bytes: int | None = None) -> None:
        self._engine = engine
        self._max_json_bytes = max_json_bytes

    def __call__(self, exchange: Exchange) -> None:
        """Make tensors of the body, submit, and leave the rest to the sink."""
        body = exchange.body
        try:
            deployment = self._find(exchange)
            coding = check_coding(exchange.headers.get("content-encoding"))
            if len(body) > MOST_VALUES_ON_LOOP or coding is not None:
                json.check_size(len(body), self._max_json_bytes)
                most = self._max_json_bytes or MOST_UNFOLDED_BYTES
                # Looked up again afterwards: the version may have been replaced meanwhile.
                off_loop(
                    exchange,
                    lambda: _tensors_of(
                        deployment, body if coding is None else decompress(body, coding, most)
                    ),
                    lambda tensors: self._submit(exchange, self._find(exchange), tensors),
                    _fail,
                )
            else:
                self._submit(exchange, deployment, _tensors_of(deployment, body))
        except ModelportError as exc:
            _fail(exchange, exc)

    def _find(self, exchange: Exchange) -> DeploymentPort:
        name = exchange.params["model"]
        deployment = self._engine.resolve(name, None)
        if not is_listed(deployment):
            raise NotFound(f"model '{name}' is not called by this path")
        return deployment

    def _submit(
        self, exchange: Exchange, deployment: DeploymentPort, tensors: Sequence[Tensor]
    ) -> None:
        request = Request(Tensors(tensors))
        request.received_ns = exchange.received_ns
        request.principal = exchange.principal
        sink = _Sink(exchange)
        ticket = deployment.submit(request, sink)
        if not sink.is_over:
            sink.submitted(ticket)


class _Sink:
    """Answers with the one response of a model."""

    __slots__ = ("_exchange", "is_over")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.is_over = False

    def arrival(self) -> Arrival:
        """How the request came."""
        return arrival_by_http(self._exchange)

    def submitted(self, ticket: Ticket) -> None:
        """The call is not over: it is cancelled if the client leaves."""
        self._exchange.on_disconnect = ticket.cancel

    def push(self, response: Response, final: bool) -> bool:
        """Write the answer."""
        if not self.is_over:
            self.is_over = True
            outputs = response.outputs
            if sum(tensor.array.nbytes for tensor in outputs) > MOST_VALUES_ON_LOOP:
                off_loop(self._exchange, lambda: _encoded_outputs(outputs), self._respond, _fail)
            else:
                self._respond(_encoded_outputs(outputs))
        return True

    def _respond(self, body: list[Buffer]) -> None:
        self._exchange.respond(200, JSON_HEADERS, body)

    def end(self) -> None:
        """Answer that there was nothing."""
        self.fail(ModelportError("the model ended without a response"))

    def fail(self, error: ModelportError) -> None:
        """Answer with the error."""
        if not self.is_over:
            self.is_over = True
            _fail(self._exchange, error)


def _tensors_of(deployment: DeploymentPort, body: Buffer) -> Sequence[Tensor]:
    values = json.decode(body) if len(body) else {}
    if not isinstance(values, dict):
        raise InvalidArguments("the body should be an object of tensors by their names")
    config = deployment.config
    entry_by_name = {entry.name: entry for entry in config.input}
    tensors = []
    for name, value in values.items():
        entry = entry_by_name.get(name)
        if entry is None:
            known = ", ".join(entry_by_name)
            raise InvalidRequest(f"model '{deployment.name}' has no input '{name}'; it has {known}")
        tensors.append(_tensor(entry, value))
    return tensors


def _tensor(entry: ModelInput, value: Any) -> Tensor:
    datatype = entry.datatype
    try:
        if datatype is BYTES:
            array = np.array(_encoded(value), dtype=object)
            if any(not isinstance(each, bytes) for each in array.flat):
                raise ValueError("its elements should be text")
        elif not _is_kind(np.array(value), "f" if datatype is BF16 else datatype.numpy.kind):
            # NumPy would make numbers of text, and whole ones of others, without a word.
            raise ValueError("its elements are of another kind")
        elif datatype is BF16:
            array = bf16_from_float32(np.array(value, dtype=np.float32))
        else:
            array = np.array(value, dtype=datatype.numpy)
    except (ValueError, TypeError, OverflowError) as exc:
        raise InvalidRequest(f"input '{entry.name}' cannot be read as {datatype}: {exc}") from None
    return Tensor(entry.name, datatype, array)


def _is_kind(array: np.ndarray[Any, Any], kind: str) -> bool:
    return not array.size or array.dtype.kind in _KINDS[kind]


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    return value.encode() if isinstance(value, str) else value


def _encoded_outputs(outputs: Sequence[Tensor]) -> list[Buffer]:
    tensor_by_name = {tensor.name: tensor for tensor in outputs}
    if len(tensor_by_name) == 1:
        return list(_pieces(outputs[-1]))
    pieces: list[Buffer] = []
    before = b"{"
    for name, tensor in tensor_by_name.items():
        pieces.append(b"%b%b:" % (before, json.encode(name)))
        pieces += _pieces(tensor)
        before = b","
    return [*pieces, b"}"] if pieces else [b"{}"]


def _pieces(tensor: Tensor) -> Iterable[bytes]:
    """Write the values of an output: in several pieces if they are many."""
    array = tensor.array
    if tensor.datatype is BYTES:
        return (json.encode(_decoded(array.tolist())),)
    if tensor.datatype is BF16:
        array = float32_from_bf16(array)
    return in_pieces(array, lambda part: json.encode(part.tolist()))


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _fail(exchange: Exchange, error: ModelportError) -> None:
    reply = encode_error(error)
    exchange.respond(reply.status, reply.headers, reply.body)


_KINDS = {"b": "b", "u": "ui", "i": "ui", "f": "uif"}
"""Kinds of arrays that JSON may give, by NumPy's kind of what they are wanted as."""
