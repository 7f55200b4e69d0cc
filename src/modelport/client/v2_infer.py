"""Inference over V2 REST as a caller sees it: tensors to a body, a body to tensors. No I/O."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelport.client.v2 import BadReply, Reply
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import ModelportError
from modelport.tensors import Tensor
from modelport.wire.v2_bytes import decode_bytes, encode_array
from modelport.wire.v2_values import decode_values, encode_values

__all__ = ["Call", "Outcome", "decode_outcome", "encode_call", "tensor_of"]

_HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Call:
    """One inference request.

    Attributes:
        inputs: In any order.
        outputs: Names of those wanted; empty for all.
        id: Comes back with the response; ``None`` for none.
        parameters: What the model is told beside its inputs.
        is_binary: Whether tensors travel as bytes behind the JSON, both ways.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[str] = ()
    id: str | None = None
    parameters: Mapping[str, Any] | None = None
    is_binary: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One inference response.

    Attributes:
        document: The JSON part without its outputs: model, version, id, parameters.
        outputs: In the server's order.
    """

    document: Mapping[str, Any]
    outputs: Sequence[Tensor]


def tensor_of(
    name: str, datatype: DataType, shape: tuple[int, ...], values: Sequence[Any]
) -> Tensor:
    """Make a tensor of Python values, flat or nested, as strictly as a server reads them.

    Raises:
        InvalidRequest: If a value does not fit the datatype, or their number the shape.
    """
    return Tensor(name, datatype, decode_values(list(values), datatype, shape, name))


def encode_call(call: Call) -> tuple[dict[str, str], list[bytes | memoryview]]:
    """Give the headers and the body, in pieces.

    Raises:
        InvalidRequest: If a BYTES element is no text and the form is JSON.
    """
    parameters = dict(call.parameters or {})
    if call.is_binary and not call.outputs:
        parameters["binary_data_output"] = True
    tail: list[bytes | memoryview] = []
    inputs = []
    for tensor in call.inputs:
        head = {
            "name": tensor.name,
            "datatype": tensor.datatype.name,
            "shape": list(tensor.shape),
        }
        if call.is_binary:
            data = memoryview(encode_array(tensor.array, tensor.datatype)).cast("B")
            tail.append(data)
            inputs.append(_dump(head | {"parameters": {"binary_data_size": data.nbytes}}))
        else:
            values = encode_values(tensor.array, tensor.datatype, tensor.name)
            inputs.append(_dump(head)[:-1] + b',"data":' + values + b"}")
    members = [b'"inputs":[' + b",".join(inputs) + b"]"]
    if call.id is not None:
        members.append(b'"id":' + _dump(call.id))
    if parameters:
        members.append(b'"parameters":' + _dump(parameters))
    if call.outputs:
        wanted = {"parameters": {"binary_data": True}} if call.is_binary else {}
        members.append(b'"outputs":' + _dump([{"name": name} | wanted for name in call.outputs]))
    document = b"{" + b",".join(members) + b"}"
    if not call.is_binary:
        return {"Content-Type": "application/json"}, [document]
    headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(document))}
    return headers, [document, *tail]


def decode_outcome(reply: Reply) -> Outcome:
    """Read a response; arrays of binary outputs are views on its body.

    Raises:
        BadReply: If it is not as V2 says.
    """
    try:
        length = int(reply.header_by_name.get(_HEADER_LENGTH.lower(), len(reply.body)))
        document = json.loads(reply.body[:length])
        offset = length
        outputs = []
        for part in document.pop("outputs", ()):
            tensor, offset = _output(part, reply.body, offset)
            outputs.append(tensor)
    except (AttributeError, KeyError, TypeError, ValueError, ModelportError) as exc:
        raise BadReply(f"the response is not as V2 says: {type(exc).__name__}: {exc}") from exc
    return Outcome(document, outputs)


def _output(part: Mapping[str, Any], body: bytes, offset: int) -> tuple[Tensor, int]:
    name, datatype = str(part["name"]), DATATYPE_BY_NAME[part["datatype"]]
    shape = tuple(int(size) for size in part["shape"])
    size = part.get("parameters", {}).get("binary_data_size")
    if size is None:
        return tensor_of(name, datatype, shape, part["data"]), offset
    if not 0 <= size <= len(body) - offset:
        raise ValueError(f'output "{name}" has {len(body) - offset} bytes left of {size}')
    tensor = decode_bytes(name, datatype, shape, body, offset, size, "")
    if tensor.fault is not None:
        raise tensor.fault
    return tensor, offset + size


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
