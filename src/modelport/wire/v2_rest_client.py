"""Inference over V2 REST from the caller's end: requests to bodies, bodies to responses.

The other direction of :mod:`modelport.wire.v2_rest`, with the same forms of data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from modelport.dtypes import DATATYPE_BY_NAME
from modelport.errors import Kind, ModelportError
from modelport.messages import ParameterValue, Request, Response
from modelport.tensors import Tensor
from modelport.wire import json
from modelport.wire.v2_bytes import decode_bytes, encode_array
from modelport.wire.v2_document import (
    Input,
    ParsedInput,
    members_of,
    optional,
    parse_tensors,
)
from modelport.wire.v2_rest import Buffer, Form, announced
from modelport.wire.v2_values import decode_values, encode_values

__all__ = ["Answer", "BadAnswer", "decode_infer_response", "encode_infer_request"]


class BadAnswer(ModelportError):
    """The server's answer is not what the protocol says: the peer's fault, not the caller's."""

    kind = Kind.UNKNOWN


class Answer(msgspec.Struct, frozen=True):
    """A response and what stood beside it.

    Attributes:
        response: Arrays of binary outputs are views on the body.
        model: That answered.
        version: Of the model.
        id: Of the request; "" where it had none.
    """

    response: Response
    model: str
    version: str
    id: str


def encode_infer_request(
    request: Request,
    *,
    is_binary: bool = True,
    forms: Mapping[str, Form] | None = None,
    is_binary_output: bool = False,
) -> tuple[int | None, list[Buffer]]:
    """Write a request.

    Args:
        request: Its ``outputs`` are asked for, all if it names none.
        is_binary: Whether inputs go behind the JSON as bytes.
        forms: How listed outputs are wanted; those without one as values in JSON.
        is_binary_output: Whether all outputs are wanted as bytes, where none are listed.

    Returns:
        The length of the JSON where bytes follow it, else ``None``; and the body's pieces.

    Raises:
        InvalidRequest: If an input cannot be said in JSON.
    """
    data: list[Buffer] = []
    inputs: list[bytes] = []
    for tensor in request.payload.tensors:
        if is_binary:
            raw = encode_array(tensor.array, tensor.datatype)
            inputs.append(announced(tensor) + b',"parameters":{"binary_data_size":%d}}' % len(raw))
            data.append(raw)
        else:
            values = encode_values(tensor.array, tensor.datatype, tensor.name)
            inputs.append(announced(tensor) + b',"data":' + values + b"}")
    members = [b'"inputs":[' + b",".join(inputs) + b"]"]
    if request.id:
        members.insert(0, b'"id":' + json.encode(request.id))
    parameters = _parameters(request)
    if request.outputs:
        members.append(b'"outputs":' + json.encode(_outputs(request.outputs, forms or {})))
    elif is_binary_output:
        parameters["binary_data_output"] = True
    if parameters:
        members.append(b'"parameters":' + json.encode(parameters))
    text = b"{" + b",".join(members) + b"}"
    if not is_binary:
        return None, [text]
    return len(text), [text, *(raw for raw in data if len(raw))]


def decode_infer_response(body: Buffer, header_length: int | None) -> Answer:
    """Read a response.

    Raises:
        BadAnswer: If it is none.
    """
    size = len(body) if header_length is None else header_length
    if not 0 < size <= len(body):
        raise BadAnswer(f"the answer has {len(body)} bytes, and says that {size} of them are JSON")
    try:
        document = _document(bytes(memoryview(body)[:size]))
        outputs = _decode_outputs(document.outputs, body, size)
    except BadAnswer:
        raise
    except ModelportError as exc:
        raise BadAnswer(f"the answer is not what V2 says: {exc}") from exc
    parameters: Mapping[str, ParameterValue] = (
        {} if document.parameters is UNSET else document.parameters
    )
    return Answer(
        Response(outputs, parameters), document.model_name, document.model_version, document.id
    )


class _Document(msgspec.Struct, gc=False):
    outputs: list[Input]
    model_name: str = ""
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Any] | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Document).decode


def _document(text: bytes) -> _Document:
    json.check_depth(text)
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The exact way reads bare NaN, and says what is wrong.
        members = members_of(json.decode(text), "the answer")
        return _Document(
            outputs=parse_tensors(members, "outputs", "the answer"),
            model_name=optional(members, "model_name", "string", "the answer", ""),
            model_version=optional(members, "model_version", "string", "the answer", ""),
            id=optional(members, "id", "string", "the answer", ""),
            parameters=optional(members, "parameters", "object", "the answer", UNSET),
        )


def _decode_outputs(parts: Sequence[Input], body: Buffer, position: int) -> list[Tensor]:
    readable = body if type(body) is bytes else memoryview(body).toreadonly()
    outputs: list[Tensor] = []
    for part in parts:
        datatype = DATATYPE_BY_NAME.get(part.datatype)
        if datatype is None:
            raise BadAnswer(f"output '{part.name}' has the unknown datatype '{part.datatype[:40]}'")
        size = None if part.parameters is UNSET else part.parameters.get("binary_data_size")
        if size is None:
            data = part.values if isinstance(part, ParsedInput) else part.data
            if data is UNSET:
                raise BadAnswer(f"output '{part.name}' has neither data nor binary_data_size")
            array = decode_values(data, datatype, part.shape, part.name)
            outputs.append(Tensor(part.name, datatype, array, part.shape))
            continue
        if type(size) is not int or not 0 <= size <= len(body) - position:
            raise BadAnswer(
                f"output '{part.name}' has {len(body) - position} bytes left, "
                f"and says that it has {str(size)[:40]}"
            )
        tensor = decode_bytes(
            part.name, datatype, part.shape, readable, position, size, "the server's"
        )
        if tensor.fault is not None:
            raise BadAnswer(str(tensor.fault))
        outputs.append(tensor)
        position += size
    if position != len(body):
        raise BadAnswer(f"{len(body) - position} bytes follow the last output")
    return outputs


def _parameters(request: Request) -> dict[str, ParameterValue]:
    parameters = dict(request.parameters)
    if request.sequence_id:
        parameters["sequence_id"] = request.sequence_id
        parameters["sequence_start"] = request.sequence_start
        parameters["sequence_end"] = request.sequence_end
    if request.priority:
        parameters["priority"] = request.priority
    if request.timeout_us:
        parameters["timeout"] = request.timeout_us
    return parameters


def _outputs(names: Sequence[str], forms: Mapping[str, Form]) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    for name in names:
        form = forms.get(name, _PLAIN)
        parameters: dict[str, ParameterValue] = {"binary_data": form.is_binary}
        if form.classes:
            parameters["classification"] = form.classes
        outputs.append({"name": name, "parameters": parameters})
    return outputs


_PLAIN = Form()
