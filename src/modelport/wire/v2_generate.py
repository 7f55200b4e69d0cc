"""The generate extension: one flat JSON object in, flat objects or a stream of events out.

A member named like an input of the model becomes that input; the others, and all in
``parameters``, become parameters of the request. Nothing is announced: datatype and shape are
those of the configuration.

Source: Triton's generate extension; Open Inference Protocol, "Generate".
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from modelport import dtypes
from modelport.errors import InvalidInference, InvalidRequest
from modelport.messages import ParameterValue, Request, Response, Tensors
from modelport.specs import ModelConfig, ModelInput
from modelport.tensors import Tensor
from modelport.wire import json
from modelport.wire.v2_rest import CodecOptions, bind_parameters, check_json_size
from modelport.wire.v2_values import array_of, encode_values, wrong_type

__all__ = ["decode_generate_request", "encode_event", "encode_generate_response"]

Buffer = bytes | bytearray | memoryview


def decode_generate_request(body: Buffer, config: ModelConfig, options: CodecOptions) -> Request:
    """Read a request for the model of ``config``.

    Raises:
        InvalidInference: If an input occurs twice.
        InvalidRequest: If the body is no JSON object, a value does not fit its input, or a
            parameter is no scalar.
    """
    check_json_size(len(body), options)
    members = json.decode_pairs(body, options.max_json_depth)
    if type(members) is not json.Pairs:
        raise InvalidRequest(
            "failed to get request members: attempt to get members for non-object. "
            "The body must be a JSON object."
        )
    inputs = {entry.name: entry for entry in config.input}
    tensors: dict[str, Tensor] = {}
    parameters: dict[str, ParameterValue] = {}
    request = Request(Tensors(()))
    # What is wrong is told of the member that stands first, as in Triton.
    for key, value in members:
        if key in inputs:
            if key in tensors:
                raise InvalidInference(
                    f"input '{key}' already exists in request", request_id=request.id
                )
            tensors[key] = _input(inputs[key], value, config, options)
        elif key == "id":
            if type(value) is not str:
                raise wrong_type("id", "string", "'id'", value)
            request.id = value
        elif key == "parameters":
            parameters |= _bound(_nested_parameters(value), request)
        else:
            parameters |= _bound({key: value}, request)
    request.parameters = parameters
    request.payload.tensors = list(tensors.values())
    return request


def encode_generate_response(
    response: Response, model: str, version: str, id: str = ""
) -> list[Buffer]:
    """Write a response as one flat object; arrays of one element as that element.

    Raises:
        InvalidRequest: If an output cannot be said in JSON.
    """
    start = b'"id":%b,' % json.encode(id) if id else b""
    pieces: list[Buffer] = [b"{%b%b" % (start, _names(model, version))]
    for tensor in response.outputs:
        if tensor.name in _FIXED:
            return _encode_members(response, model, version, id)
        pieces += (_key(tensor.name), _value(tensor))
    if response.parameters:
        return _encode_members(response, model, version, id)
    pieces.append(b"}")
    return pieces


_FIXED = frozenset({"id", "model_name", "model_version"})


@lru_cache(256)
def _names(model: str, version: str) -> bytes:
    return b'"model_name":%b,"model_version":%b' % (orjson.dumps(model), orjson.dumps(version))


@lru_cache(1024)
def _key(name: str) -> bytes:
    return b",%b:" % orjson.dumps(name)


def _value(tensor: Tensor) -> bytes:
    array = tensor.array
    if array.size != 1:
        return encode_values(array, tensor.datatype, tensor.name)
    # A token of a stream, most of the time: one by one, these two kinds are quicker by hand.
    item = array.item()
    if item.__class__ is int and tensor.datatype is not dtypes.BF16:
        return b"%d" % item
    if item.__class__ is bytes:
        try:
            return orjson.dumps(item.decode())
        except UnicodeDecodeError:
            pass  # encode_values says what is wrong
    return encode_values(array, tensor.datatype, tensor.name)[1:-1]


def _encode_members(response: Response, model: str, version: str, id: str) -> list[Buffer]:
    """Write one whose parameters or outputs may be named like what stands before them."""
    members: dict[str, bytes] = {}
    if id:
        members["id"] = json.encode(id)
    members["model_name"] = orjson.dumps(model)
    members["model_version"] = orjson.dumps(version)
    for key, value in response.parameters.items():
        members[key] = json.encode(value)
    for tensor in response.outputs:
        members[tensor.name] = _value(tensor)
    pieces: list[Buffer] = []
    before = b"{"
    for key, text in members.items():
        pieces += (before, orjson.dumps(key), b":", text)
        before = b","
    pieces.append(b"}")
    return pieces


def encode_event(pieces: Sequence[Buffer]) -> bytes:
    """Wrap one object as a server-sent event. Its JSON has no line breaks."""
    return b"data: %b\n\n" % b"".join(pieces)


def _bound(parameters: Mapping[str, Any], request: Request) -> Mapping[str, ParameterValue]:
    """Act on reserved parameters; gives those that are for the model."""
    request.parameters = {}
    bind_parameters(parameters, request)
    return request.parameters


def _nested_parameters(value: Any) -> dict[str, ParameterValue]:
    if type(value) is not json.Pairs:
        raise InvalidRequest("Expected JSON object for keyword: 'parameters'")
    for key, parameter in value:
        if type(parameter) not in (bool, int, float, str):
            raise InvalidRequest(
                f"Converting keyword: 'parameters': parameter '{key}' has invalid type. "
                "It should be either 'int', 'bool', or 'string'."
            )
    return dict(value)


def _input(entry: ModelInput, value: Any, config: ModelConfig, options: CodecOptions) -> Tensor:
    datatype = entry.datatype
    if options.is_strict and datatype in (dtypes.FP16, dtypes.BF16):
        raise InvalidRequest(
            f"receiving {datatype} data via JSON is not supported. Please use the binary data "
            f"format for input {entry.name}"
        )
    values = value if type(value) is list else [value]
    if datatype is dtypes.BYTES and any(type(one) is not str for one in values):
        raise InvalidRequest(
            "Unable to parse JSON bytes array: attempt to access JSON non-string as string. "
            f"Input '{entry.name}' takes a string or a list of strings."
        )
    shape = _shape(entry, len(values), is_batching=config.max_batch_size > 0)
    return Tensor(entry.name, datatype, array_of(values, datatype, shape, entry.name))


def _shape(entry: ModelInput, count: int, *, is_batching: bool) -> tuple[int, ...]:
    shape = _filled(tuple(entry.dims), count, is_batching)
    if shape is None:
        raise InvalidRequest(
            f"The schema can not convert input '{entry.name}' to tensor with proper shape. "
            f"Its shape is {list(entry.dims)}, and {count} values do not fill it."
        )
    return shape


@lru_cache(256)
def _filled(dims: tuple[int, ...], count: int, is_batching: bool) -> tuple[int, ...] | None:
    """Fill the batch and all open dimensions with 1, and the innermost open one with the rest."""
    dims = (1, *dims) if is_batching else dims
    innermost = max((axis for axis, dim in enumerate(dims) if dim == -1), default=None)
    known = math.prod(dim for dim in dims if dim != -1)
    fits = count == known
    if innermost is not None:
        fits = count % known == 0 if known else count == 0
    if not fits:
        return None
    rest = count // known if known else 0
    return tuple(
        (rest if axis == innermost else 1) if dim == -1 else dim for axis, dim in enumerate(dims)
    )
