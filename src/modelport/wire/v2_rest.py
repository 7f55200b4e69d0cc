"""Inference over V2 REST: bodies to requests and responses, and back, for both ends.

A body is JSON, or JSON followed by the bytes of tensors with ``Inference-Header-Content-Length``
saying where these begin, or (length 0) the bare bytes of a model's only input. Decoders return
views on the body, encoders return lists of buffers.

Source: Open Inference Protocol, REST; Triton's extensions for binary data, classification,
sequences, schedule policy and parameters.
"""

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Struct, UnsetType

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidInference, InvalidRequest
from modelport.messages import ParameterValue, Request, Response, Tensors
from modelport.specs import ModelConfig, ModelInput
from modelport.tensors import Tensor
from modelport.wire import json
from modelport.wire.json_arrays import LONG_VALUES, LongAnswer, in_pieces
from modelport.wire.ovms_bytes import implied_size, sizes_of, split
from modelport.wire.v2_bytes import decode_bytes, encode_array, encode_strings, string_array
from modelport.wire.v2_document import (
    ONE_TEXT,
    Document,
    Input,
    Output,
    ParsedInput,
    decode_document,
)
from modelport.wire.v2_regions import SHARED_MEMORY_IS_OFF, RegionInput, Span, span_of
from modelport.wire.v2_values import (
    MAX_DIMENSIONS,
    decode_values,
    encode_values,
    impossible_shape,
    overflowing_size,
    wrong_type,
)

__all__ = [
    "HEADER_LENGTH",
    "SHARED_MEMORY_IS_OFF",
    "Buffer",
    "CodecOptions",
    "Form",
    "Inference",
    "ResponseEncoder",
    "announced",
    "bind",
    "bind_parameters",
    "bind_raw",
    "bind_raw_image",
    "check_json_size",
    "decode_infer_request",
    "parse_header_length",
    "split_body",
]

Buffer = bytes | bytearray | memoryview

HEADER_LENGTH = "Inference-Header-Content-Length"


class CodecOptions(Struct, frozen=True, kw_only=True):
    """What an operator can set.

    Attributes:
        is_strict: Refuse what Triton refuses although we could: FP16 and BF16 in JSON.
        max_json_bytes: Of the JSON of one request, and of one tensor read from it.
        max_exact_bytes: Of JSON that only the exact way can read, in one go: NaN, values that are
            wrong; ``None`` for as many as ``max_json_bytes``.
        max_json_depth: Levels of the JSON of one request.
        is_ovms: Accept what OVMS accepts beyond V2: BYTES without lengths before their elements,
            and binary inputs that do not say their size.
    """

    is_strict: bool = False
    max_json_bytes: int = 64 * 2**20
    max_exact_bytes: int | None = None
    max_json_depth: int = json.MAX_DEPTH
    is_ovms: bool = False


class Form:
    """How the caller wants one output.

    Attributes:
        is_binary: As bytes behind the JSON.
        classes: As so many best classes instead of values; 0 for values.
        span: Into shared memory; ``None`` for the answer itself.
    """

    __slots__ = ("classes", "is_binary", "span")

    def __init__(self, is_binary: bool = False, classes: int = 0, span: Span | None = None) -> None:
        self.is_binary = is_binary
        self.classes = classes
        self.span = span


class Inference(Struct, eq=False):
    """A request and how its answer is wanted.

    Attributes:
        request: For the engine.
        is_binary: Whether outputs without a form go behind the JSON as bytes.
        forms: By name of the output; ``None`` where the caller listed no outputs.
        has_classes: Whether any output is wanted as classes.
        has_spans: Whether any output is wanted in shared memory.
        region_inputs: Inputs that lie in shared memory. Their tensors hold nothing until somebody
            has read it.
    """

    request: Request
    is_binary: bool = False
    forms: Mapping[str, Form] | None = None
    has_classes: bool = False
    has_spans: bool = False
    region_inputs: Sequence[RegionInput] = ()


# --- requests, read by the server -----------------------------------------------------------


def parse_header_length(text: str | None) -> int | None:
    """Read ``Inference-Header-Content-Length``; ``None`` where the whole body is JSON.

    Raises:
        InvalidRequest: If it is no integer. Whether the body has so many bytes is seen later.
    """
    if text is None:
        return None
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise _bad_header_length(None, text[:40])
    return int(match[0])


def split_body(body: Buffer, header_length: int | None, options: CodecOptions) -> bytes | bytearray:
    """Cut the JSON off the beginning of a body.

    Raises:
        InvalidRequest: If the body is shorter than ``header_length``, or the JSON too long.
    """
    if header_length is None:
        text = bytes(body) if type(body) is memoryview else body
    elif 0 < header_length <= len(body):
        text = bytes(memoryview(body)[:header_length])
    else:
        raise _bad_header_length(len(body), str(header_length))
    if len(text) > options.max_json_bytes:
        check_json_size(len(text), options)
    return text


def check_json_size(size: int, options: CodecOptions) -> None:
    """Refuse JSON that is too long to be parsed.

    Raises:
        InvalidRequest: If it is longer than ``options`` say.
    """
    if size > options.max_json_bytes:
        raise InvalidRequest(
            f"request JSON size of {size} bytes exceeds the maximum allowed input size of "
            f"{options.max_json_bytes} bytes. Use --http-max-input-size to increase the limit, "
            "or send tensors as binary data."
        )


def decode_infer_request(
    body: Buffer, header_length: int | None, model: str, options: CodecOptions
) -> Inference:
    """Read a request that is not raw; binary inputs become views on the body.

    Args:
        body: Whole.
        header_length: Bytes of JSON at its beginning; ``None`` where it is nothing else.
        model: For the texts of errors.
        options: What is accepted.

    Raises:
        InvalidInference: If a name occurs twice.
        InvalidRequest: If the JSON is none, a member or a value is of the wrong type, or the
            document and the bytes behind it do not fit together. What is wrong with the bytes of
            one tensor is its ``fault`` instead.
    """
    text = split_body(body, header_length, options)
    document = decode_document(text, options.max_json_depth, options.max_exact_bytes)
    return bind(document, body, len(text), model, options)


def bind(
    document: Document, body: Buffer, start: int, model: str, options: CodecOptions
) -> Inference:
    """Make a request of a document and of the bytes behind it, which begin at ``start``."""
    tensors: list[Tensor] = []
    region_inputs: list[RegionInput] = []
    position = start
    for part in document.inputs:
        datatype = DATATYPE_BY_NAME.get(part.datatype)
        if datatype is None:
            raise InvalidRequest(
                f"invalid datatype for input {part.name}. Got '{part.datatype[:40]}', accepted "
                f"are {', '.join(DATATYPE_BY_NAME)}."
            )
        if len(part.shape) > MAX_DIMENSIONS:
            # Before anything counts its elements: a product of many dimensions takes seconds.
            raise impossible_shape(part.shape, part.name)
        if options.is_ovms and (sizes := _ovms_sizes(part, datatype, len(body) - position)):
            tensors.append(_from_ovms_bytes(part, datatype, body, position, sizes, model))
            position += sum(sizes)
        elif part.parameters is UNSET:
            tensors.append(_from_json(part, datatype, document, options))
        else:
            source = _source_of(part)
            where = f"input '{part.name}'"
            if source == "data":
                tensors.append(_from_json(part, datatype, document, options))
            elif source == "binary_data_size":
                size = _unsigned(part.parameters, source, where)
                tensors.append(_from_bytes(part, datatype, body, position, size, model))
                position += size
            else:
                span = span_of(part.parameters, where)
                region_inputs.append(
                    RegionInput(len(tensors), part.name, datatype, part.shape, span)
                )
                tensors.append(Tensor(part.name, datatype, _NOTHING, part.shape))
        if datatype is dtypes.BYTES and _content_type(part, document) == "base64":
            _decode_base64(tensors[-1])
    if position != len(body):
        raise InvalidRequest(
            f"unexpected additional input data for model '{model}'. The inputs take "
            f"{position - start} bytes after the JSON, and {len(body) - start} were sent."
        )
    if len(tensors) > 1:
        _check_unique("input", [part.name for part in document.inputs], document.id)
    request = Request(Tensors(tensors), id=document.id)
    inference = Inference(request)
    inference.region_inputs = region_inputs
    parameters = document.parameters
    if parameters is not UNSET:
        if "binary_data_output" in parameters:
            inference.is_binary = _boolean(parameters, "binary_data_output", "the parameters")
        bind_parameters(parameters, request)
    if document.outputs is not UNSET and document.outputs:
        _bind_outputs(document.outputs, inference)
    return inference


def bind_raw(body: Buffer, config: ModelConfig) -> Inference:
    """Make a request of the bare bytes of a model's only input; all outputs go back as bytes.

    Raises:
        InvalidRequest: If the model has several inputs, or the shape does not follow from the
            number of bytes.
    """
    name = config.name
    spec = _only_input(config)
    batch = (1,) if config.max_batch_size > 0 else ()
    if spec.datatype is dtypes.BYTES:
        if any(dim != 1 for dim in spec.dims):
            raise InvalidRequest(
                f"For BYTE datatype raw input '{spec.name}', the model must have input shape [1]. "
                f"It has {list(spec.dims)}; send the elements as JSON or as binary data."
            )
        body = encode_strings([bytes(body)])
        shape = batch + spec.dims
    else:
        shape = batch + _deduced_shape(spec.name, spec.dims, spec.datatype, len(body))
    tensor = decode_bytes(spec.name, spec.datatype, shape, body, 0, len(body), name)
    return Inference(Request(Tensors([tensor])), is_binary=True)


def bind_raw_image(body: Buffer, config: ModelConfig) -> Inference:
    """Make a request of the bare bytes of one encoded image; outputs go back as JSON.

    Raises:
        InvalidRequest: If the model has several inputs.
    """
    spec = _only_input(config)
    image = string_array([bytes(body)], (1,), spec.name)
    return Inference(Request(Tensors([Tensor(spec.name, dtypes.BYTES, image)])))


def _only_input(config: ModelConfig) -> ModelInput:
    if len(config.input) != 1:
        raise InvalidRequest(
            "Raw request must only have 1 input (found 1) to be deduced but got "
            f"{len(config.input)} inputs in '{config.name}' model configuration"
        )
    return config.input[0]


def _deduced_shape(
    name: str, dims: tuple[int, ...], datatype: DataType, size: int
) -> tuple[int, ...]:
    if dims.count(-1) > 1:
        raise InvalidRequest(
            f"The shape of the raw input '{name}' can not be deduced because there are more than "
            f"one variable-sized dimension. It is {list(dims)}; send the shape with the data."
        )
    row = math.prod(dim for dim in dims if dim != -1) * datatype.item_bytes
    rest = size // row if row else 0
    return tuple(rest if dim == -1 else dim for dim in dims)


def _from_json(
    part: Input, datatype: DataType, document: Document, options: CodecOptions
) -> Tensor:
    data: msgspec.Raw | list[Any] | UnsetType = part.data
    if data is UNSET:
        if isinstance(part, ParsedInput):
            data = part.values
        if data is UNSET:
            raise InvalidRequest(f"{_ONE_SOURCE} But no field is set (input '{part.name}').")
    if (
        datatype is dtypes.BYTES
        and isinstance(data, msgspec.Raw)
        and bytes(memoryview(data)[:1]) == b'"'
        and _content_type(part, document) in ONE_TEXT
    ):
        data = [json.decode(bytes(data))]
    if options.is_strict and datatype.name in _NOT_IN_TRITON_JSON:
        raise InvalidRequest(
            f"receiving {datatype.name} data via JSON is not supported. Please use the binary "
            f"data format for input {part.name}"
        )
    try:
        array = decode_values(data, datatype, part.shape, part.name, options.max_exact_bytes)
    except InvalidRequest:
        # That the tensor would be too large is said before what else is wrong with it.
        _check_tensor_size(part, math.prod(part.shape) * datatype.item_bytes, options)
        raise
    if array.nbytes > options.max_json_bytes:
        _check_tensor_size(part, array.nbytes, options)
    return Tensor(part.name, datatype, array, part.shape)


def _from_bytes(
    part: Input, datatype: DataType, body: Buffer, position: int, size: int, model: str
) -> Tensor:
    missing = position + size - len(body)
    if missing > 0:
        raise InvalidRequest(
            f"unexpected size for input '{part.name}', expecting {missing} additional bytes for "
            f"model '{model}'"
        )
    return decode_bytes(part.name, datatype, part.shape, body, position, size, model)


def _content_type(part: Input, document: Document) -> object:
    """How MLServer's clients say what the elements of an input are."""
    for parameters in (part.parameters, document.parameters):
        if parameters is not UNSET and "content_type" in parameters:
            return parameters["content_type"]
    return None


def _decode_base64(tensor: Tensor) -> None:
    """Put bytes in the place of their base64. What lies in shared memory is not there yet."""
    if tensor.fault is not None or tensor.array is _NOTHING:
        return
    elements: list[bytes] = []
    for index, element in enumerate(tensor.array.ravel().tolist()):
        try:
            elements.append(base64.b64decode(element, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidRequest(
                f"input '{tensor.name}' has the content_type base64, and its element {index} is "
                "not base64. Correct it, or leave the content_type out to send the text itself."
            ) from None
    tensor.array = string_array(elements, tensor.shape, tensor.name)


def _ovms_sizes(part: Input, datatype: DataType, left: int) -> list[int] | None:
    """The sizes of the elements behind the JSON, as OVMS has them; ``None`` for what V2 has too."""
    if part.data is not UNSET or (isinstance(part, ParsedInput) and part.values is not UNSET):
        return None
    parameters = {} if part.parameters is UNSET else part.parameters
    if "shared_memory_region" in parameters:
        return None
    if "binary_data_size" in parameters:
        return sizes_of(parameters["binary_data_size"], part.name)
    return [implied_size(datatype, part.shape, left)] if left > 0 else None


def _from_ovms_bytes(
    part: Input,
    datatype: DataType,
    body: Buffer,
    position: int,
    sizes: Sequence[int],
    model: str,
) -> Tensor:
    size = sum(sizes)
    if datatype is dtypes.BYTES and position + size <= len(body):
        data = bytes(memoryview(body)[position : position + size])
        elements = split(data, sizes, math.prod(part.shape))
        if elements is not None:
            return Tensor(part.name, datatype, string_array(elements, part.shape, part.name))
    return _from_bytes(part, datatype, body, position, size, model)


def _source_of(part: Input) -> str:
    """Where the values of an input with parameters are: ``data``, or one of ``_SOURCES``."""
    parameters = part.parameters
    assert parameters is not UNSET
    sources = [key for key in _SOURCES if key in parameters]
    if part.data is not UNSET or (isinstance(part, ParsedInput) and part.values is not UNSET):
        sources.insert(0, "data")
    if len(sources) > 1:
        raise InvalidRequest(
            f"{_ONE_SOURCE} But set {', '.join(map(repr, sources))} (input '{part.name}')."
        )
    if not sources:
        raise InvalidRequest(f"{_ONE_SOURCE} But no field is set (input '{part.name}').")
    return sources[0]


def _check_unique(kind: str, names: Sequence[str], request_id: str) -> None:
    if len(set(names)) != len(names):
        name = next(name for index, name in enumerate(names) if name in names[:index])
        raise InvalidInference(f"{kind} '{name}' already exists in request", request_id=request_id)


def bind_parameters(parameters: Mapping[str, Any], request: Request) -> None:
    """Act on the reserved parameters of a request, and leave it the others for its model.

    Raises:
        InvalidRequest: If a value is of the wrong type, or a name is nobody's to use.
    """
    kept: dict[str, ParameterValue] = {}
    where = "the parameters"
    for key, value in parameters.items():
        match key:
            case "sequence_id":
                request.sequence_id = (
                    value if type(value) is str else _unsigned(parameters, key, where)
                )
            case "sequence_start":
                request.sequence_start = _boolean(parameters, key, where)
            case "sequence_end":
                request.sequence_end = _boolean(parameters, key, where)
            case "priority":
                request.priority = _unsigned(parameters, key, where)
            case "timeout":
                request.timeout_us = _unsigned(parameters, key, where)
            case "headers" | "binary_data_output":
                pass
            case _:
                kept[key] = _model_parameter(key, value)
    if kept:
        request.parameters = kept


def _model_parameter(key: str, value: Any) -> ParameterValue:
    if key.startswith("triton_"):
        raise InvalidRequest(
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not "
            f"be specified. Got '{key[:80]}'."
        )
    if type(value) not in (bool, int, float, str):
        raise InvalidRequest(
            f"parameter '{key}' has invalid type. It should be either 'int', 'bool', or 'string'."
        )
    checked: ParameterValue = value
    return checked


def _bind_outputs(outputs: Sequence[Output], inference: Inference) -> None:
    # Asking for binary outputs as a whole counts only where none is listed.
    inference.is_binary = False
    names = [output.name for output in outputs]
    if len(names) > 1:
        _check_unique("output", names, inference.request.id)
    inference.request.outputs = names
    forms = {output.name: _form(output) for output in outputs}
    inference.forms = forms
    inference.has_classes = any(form.classes for form in forms.values())
    inference.has_spans = any(form.span for form in forms.values())


def _form(output: Output) -> Form:
    parameters = output.parameters
    if parameters is UNSET:
        return Form()
    where = f"output '{output.name}'"
    classes = (
        _unsigned(parameters, "classification", where) if "classification" in parameters else 0
    )
    is_binary = _boolean(parameters, "binary_data", where) if "binary_data" in parameters else False
    if "shared_memory_region" in parameters:
        if classes:
            raise InvalidRequest(
                "Output can't set both 'shared_memory_region' and 'classification'"
            )
        if is_binary:
            raise InvalidRequest("Output can't set both 'shared_memory_region' and 'binary_data'")
        return Form(is_binary, classes, span_of(parameters, where))
    return Form(is_binary, classes)


def _boolean(parameters: Mapping[str, Any], key: str, where: str) -> bool:
    value = parameters[key]
    if type(value) is not bool:
        raise wrong_type(key, "boolean", f"'{key}' of {where}", value)
    return value


def _unsigned(parameters: Mapping[str, Any], key: str, where: str) -> int:
    value = parameters[key]
    if type(value) is not int or not 0 <= value < 2**64:
        raise wrong_type(key, "unsigned-integer", f"'{key}' of {where}", value)
    return value


def _bad_header_length(body_bytes: int | None, got: str) -> InvalidRequest:
    limit = "N" if body_bytes is None else str(body_bytes)
    return InvalidRequest(
        f"inference header size should be in range (0, {limit}), got: {got}. "
        f"'{HEADER_LENGTH}' counts the bytes of JSON before the tensors' bytes."
    )


def _check_tensor_size(part: Input, byte_size: int, options: CodecOptions) -> None:
    limit = options.max_json_bytes
    if byte_size >= 2**63:
        raise overflowing_size(part.shape, part.name)
    if byte_size > limit:
        raise InvalidRequest(
            f"JSON input '{part.name}' has a byte_size ({byte_size} bytes) that exceeds the "
            f"maximum allowed value of {limit} bytes. Use --http-max-input-size to increase the "
            "limit."
        )


_NOTHING = np.empty(0, np.uint8)

_LENGTH = re.compile(r"[-+]?[0-9]{1,19}")

_SOURCES = ("binary_data_size", "shared_memory_region")

_ONE_SOURCE = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in "
    "'parameters', 'shared_memory_region' in 'parameters'."
)

_NOT_IN_TRITON_JSON = frozenset({"FP16", "BF16"})


# --- responses, written by the server -------------------------------------------------------


class ResponseEncoder:
    """Writes the responses of one version of one model.

    What does not change from answer to answer is written once: the names before the outputs, and
    name, datatype and shape of each output that was seen lately.
    """

    _MOST_KEPT = 64

    def __init__(self, model: str, version: str, *, is_strict: bool = False) -> None:
        self._names = b'"model_name":%b,"model_version":%b' % (
            orjson.dumps(model),
            orjson.dumps(version),
        )
        self._start = b"{" + self._names + b',"outputs":['
        self._is_strict = is_strict
        self._kept: dict[tuple[str, DataType, tuple[int, ...]], bytes] = {}

    def encode(
        self,
        response: Response,
        id: str = "",
        is_binary: bool = False,
        forms: Mapping[str, Form] | None = None,
    ) -> tuple[int | None, list[Buffer]]:
        """Write one response.

        Returns:
            The length of the JSON where bytes follow it, else ``None``; and the body's pieces.
            Those that are views on the outputs must not outlive them.

        Raises:
            InvalidRequest: If an output cannot be said in JSON.
            LongAnswer: If writing it takes so long that others should go on meanwhile; have
                ``encode_long`` do it, on a thread.
        """
        outputs = response.outputs
        if forms is not None:
            # Models may answer more than they were asked for.
            outputs = [tensor for tensor in outputs if tensor.name in forms]
        if len(outputs) == 1 and not is_binary and forms is None and not self._is_strict:
            # One output in JSON: one piece, put together in one go.
            tensor = outputs[0]
            head = self._kept.get((tensor.name, tensor.datatype, tensor.shape))
            if head is None:
                # Long ones are never kept, so that only what is new here can be one.
                if tensor.array.size > LONG_VALUES:
                    raise LongAnswer
                head = self._announced(tensor)
            values = encode_values(tensor.array, tensor.datatype, tensor.name)
            bare = not id and not response.parameters
            start = self._start if bare else self._beginning(response, id)
            return None, [b'%b%b,"data":%b}]}' % (start, head, values)]
        return self._encode_all(response, outputs, id, is_binary, forms)

    def encode_long(
        self,
        response: Response,
        id: str = "",
        is_binary: bool = False,
        forms: Mapping[str, Form] | None = None,
    ) -> tuple[int | None, list[Buffer]]:
        """Write a response of any length, like ``encode``; safe on any thread.

        Raises:
            InvalidRequest: If an output cannot be said in JSON.
        """
        outputs = [one for one in response.outputs if forms is None or one.name in forms]
        return self._encode_all(response, outputs, id, is_binary, forms, is_long=True)

    def _encode_all(
        self,
        response: Response,
        outputs: Sequence[Tensor],
        id: str,
        is_binary: bool,
        forms: Mapping[str, Form] | None,
        *,
        is_long: bool = False,
    ) -> tuple[int | None, list[Buffer]]:
        parts: list[Buffer] = [self._beginning(response, id)]
        left = LONG_VALUES
        data: list[Buffer] = []
        separator = b""
        for tensor in outputs:
            form = None if forms is None else forms.get(tensor.name)
            parts.append(separator + self._announced(tensor))
            separator = b"},"
            if form is not None and form.span is not None:
                continue
            if is_binary if form is None else form.is_binary:
                raw = encode_array(tensor.array, tensor.datatype)
                parts.append(b',"parameters":{"binary_data_size":%d}' % len(raw))
                if len(raw):
                    data.append(raw)
            else:
                left -= tensor.array.size
                if left < 0 and not is_long:
                    raise LongAnswer
                parts += self._values(tensor)
        parts.append(b"}]}" if separator else b"]}")
        if not data:
            return None, parts
        length = sum(map(len, parts))
        parts.extend(data)
        return length, parts

    def _beginning(self, response: Response, id: str) -> bytes:
        if not id and not response.parameters:
            return self._start
        start = self._names
        if id:
            start = b'"id":' + json.encode(id) + b"," + start
        if response.parameters:
            start = start + b',"parameters":' + json.encode(dict(response.parameters))
        return b"{" + start + b',"outputs":['

    def _announced(self, tensor: Tensor) -> bytes:
        key = (tensor.name, tensor.datatype, tensor.shape)
        text = self._kept.get(key)
        if text is None:
            text = announced(tensor)
            if tensor.array.size <= LONG_VALUES:
                if len(self._kept) >= self._MOST_KEPT:
                    self._kept.clear()
                self._kept[key] = text
        return text

    def _values(self, tensor: Tensor) -> Iterable[bytes]:
        if self._is_strict and tensor.datatype.name in _NOT_IN_TRITON_JSON:
            raise InvalidRequest(
                f"sending {tensor.datatype.name} data via JSON is not supported. Please use the "
                f"binary data format for output {tensor.name}"
            )
        array = tensor.array
        if array.size <= LONG_VALUES:
            return (b',"data":' + encode_values(array, tensor.datatype, tensor.name),)
        encode = partial(encode_values, datatype=tensor.datatype, name=tensor.name)
        return chain((b',"data":',), in_pieces(array.ravel(), encode))


def announced(tensor: Tensor) -> bytes:
    """Write all of a tensor but its data, as an object that is still open."""
    head = {
        "name": tensor.name,
        "datatype": tensor.datatype.name,
        "shape": [int(dim) for dim in tensor.shape],
    }
    return json.encode(head)[:-1]
