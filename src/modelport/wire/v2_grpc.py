"""Inference over V2 gRPC: messages to requests, and responses to messages.

A request is read in two steps, because callers are told of an unknown model before they are told
what is wrong with their tensors: a :class:`Head` is all that does not lie in
``raw_input_contents``, and :meth:`Message.bind` puts the two together. The raw bytes become views
on the message. Responses are written as lists of buffers, always with ``raw_output_contents``: many
clients index these without looking whether there are any.

Source: Open Inference Protocol, gRPC; Triton's extensions for streams, classification, sequences,
schedule policy and parameters.
"""

import math
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidInference, InvalidRequest, ModelportError
from modelport.messages import ParameterValue, Request, Response, Tensors
from modelport.tensors import Array, Tensor
from modelport.wire.proto import grpc_service_pb2 as pb
from modelport.wire.protobuf import Malformed, cut, field, tag, varint
from modelport.wire.v2_bytes import decode_bytes, encode_array, string_array
from modelport.wire.v2_regions import RegionInput, Span
from modelport.wire.v2_values import (
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    impossible_shape,
    overflowing_size,
    shape_text,
)

__all__ = [
    "Head",
    "Message",
    "MessageReader",
    "ResponseEncoder",
    "encode_stream_error",
    "encode_stream_response",
    "has_much_to_read",
    "read_message",
]

Buffer = bytes | bytearray | memoryview

_ID = 3
_RAW_INPUTS = 7
_APART = frozenset({_ID, _RAW_INPUTS})
"""The members that differ between requests that are alike otherwise."""


# --- requests -------------------------------------------------------------------------------


class Head:
    """All of a request but its id and the bytes of its tensors. Not changed once it is read.

    Attributes:
        model: Its name.
        version: As it was sent; ``None`` for the highest.
        parts: The inputs.
        outputs: Names of those that are wanted; empty for all.
        classes: How many classes are wanted instead of values, by name of the output.
        spans: Where in shared memory outputs are wanted, by name of the output.
        region_inputs: The inputs that lie in shared memory.
        parameters: For the model.
        reserved: Attributes of :class:`~modelport.messages.Request` that its parameters set.
        wants_empty_final: Whether the end of a stream is to be a response of its own.
        fault: What is wrong with it; said after it is known that there is such a model.
    """

    __slots__ = (
        "classes",
        "fault",
        "model",
        "outputs",
        "parameters",
        "parts",
        "raw_count",
        "region_inputs",
        "reserved",
        "spans",
        "version",
        "wants_empty_final",
    )

    def __init__(self, text: bytes) -> None:
        try:
            message = pb.ModelInferRequest.FromString(text)
        except DecodeError:
            raise Malformed("the message is malformed: it is no ModelInferRequest") from None
        self.model = message.model_name
        self.version = message.model_version or None
        self.parts: Sequence[_Part] = ()
        self.outputs: Sequence[str] = ()
        self.classes: Mapping[str, int] = {}
        self.spans: Mapping[str, Span] = {}
        self.region_inputs: Sequence[RegionInput] = ()
        self.parameters: Mapping[str, ParameterValue] = {}
        self.reserved: Sequence[tuple[str, Any]] = ()
        self.wants_empty_final = False
        self.raw_count = 0
        self.fault: ModelportError | None = None
        try:
            self._bind_parameters(message)
            self.parts = [_Part(entry, self.model) for entry in message.inputs]
            _check_unique("input", [part.name for part in self.parts])
            self._bind_outputs(message)
        except ModelportError as exc:
            self.fault = exc
        self.raw_count = sum(part.is_raw for part in self.parts)
        self.region_inputs = [
            RegionInput(position, part.name, part.datatype, part.shape, part.span)
            for position, part in enumerate(self.parts)
            if part.span is not None
        ]

    @property
    def is_lasting(self) -> bool:
        """Whether it is all that requests like this have in common: their values are elsewhere."""
        is_typed = self.raw_count + len(self.region_inputs) != len(self.parts)
        return self.fault is None and not is_typed

    def _bind_parameters(self, message: pb.ModelInferRequest) -> None:
        if not message.parameters:
            return
        kept: dict[str, ParameterValue] = {}
        reserved: list[tuple[str, Any]] = []
        for key, parameter in message.parameters.items():
            choice = parameter.WhichOneof("parameter_choice")
            value = getattr(parameter, choice) if choice else None
            match key:
                case "sequence_id":
                    reserved.append((key, _sequence_id(choice, value)))
                case "sequence_start" | "sequence_end":
                    _check_choice(key, choice, "bool_param")
                    reserved.append((key, value))
                case "priority":
                    reserved.append((key, _unsigned(key, choice, value, *_INTEGERS)))
                case "timeout":
                    reserved.append(("timeout_us", _unsigned(key, choice, value, "int64_param")))
                case "headers" | "binary_data_output":
                    pass
                case "triton_enable_empty_final_response":
                    _check_choice(key, choice, "bool_param")
                    self.wants_empty_final = bool(value)
                case _:
                    if key.startswith("triton_"):
                        raise _is_reserved(key)
                    if value is None:
                        raise _wrong_choice(key, "int64_param, bool_param, or string_param")
                    kept[key] = value
        self.parameters = kept
        self.reserved = reserved

    def _bind_outputs(self, message: pb.ModelInferRequest) -> None:
        if not message.outputs:
            return
        names = [output.name for output in message.outputs]
        _check_unique("output", names)
        self.outputs = names
        classes: dict[str, int] = {}
        spans: dict[str, Span] = {}
        for output in message.outputs:
            parameters = output.parameters
            if "classification" in parameters:
                classes[output.name] = _class_count(parameters["classification"])
            if "shared_memory_region" in parameters:
                if classes.get(output.name):
                    raise InvalidRequest(
                        "Output can't set both 'shared_memory_region' and 'classification'"
                    )
                spans[output.name] = _span_of(parameters, f"output '{output.name}'")
        self.classes = {name: count for name, count in classes.items() if count}
        self.spans = spans


class _Part:
    """One input, as far as the head tells.

    Attributes:
        size: Bytes that its shape asks for; -1 for BYTES, and where no bytes can be right.
        values: The tensor itself where its values are typed, or lie elsewhere.
        span: Where in shared memory they lie; ``None`` where they do not.
    """

    __slots__ = ("datatype", "name", "shape", "size", "span", "values")

    def __init__(self, entry: pb.ModelInferRequest.InferInputTensor, model: str) -> None:
        self.name = entry.name
        self.shape = tuple(entry.shape)
        self.datatype = DATATYPE_BY_NAME.get(entry.datatype, _UNKNOWN)
        self.size = -1
        self.values: Tensor | None = None
        self.span: Span | None = None
        _check_shape(self.shape, self.name)
        if "shared_memory_region" in entry.parameters:
            if entry.HasField("contents"):
                raise InvalidRequest(
                    "unexpected 'content' provided when using shared memory for input tensor "
                    f"'{self.name}' for model '{model}'"
                )
            self.span = _span_of(entry.parameters, f"input '{self.name}'")
            self.values = Tensor(self.name, self.datatype, _NO_BYTES, self.shape)
        elif entry.HasField("contents"):
            self.values = _typed(self, entry.contents, model)
        elif self.datatype.item_bytes:
            self.size = math.prod(self.shape) * self.datatype.item_bytes

    @property
    def is_raw(self) -> bool:
        """Whether its values are one of the raw inputs."""
        return self.values is None

    def read(self, data: bytes | memoryview, start: int, end: int, model: str) -> Tensor:
        """Make the tensor of its bytes."""
        if self.datatype is _UNKNOWN:
            return _of_unknown_datatype(self)
        return decode_bytes(self.name, self.datatype, self.shape, data, start, end - start, model)


class Message:
    """A request as it was sent.

    Attributes:
        head: Most of it.
        id: The caller's own.
    """

    __slots__ = ("_data", "_places", "head", "id")

    def __init__(
        self, head: Head, id: str, data: bytes | memoryview, places: Sequence[tuple[int, int, int]]
    ) -> None:
        self.head = head
        self.id = id
        self._data = data
        # Of the raw inputs.
        self._places = places

    def bind(self) -> Request:
        """Put the request together; raw inputs are views on the message.

        Raises:
            InvalidInference: If a name occurs twice.
            InvalidRequest: If anything in it is of the wrong type, or its inputs and the data do
                not fit together. What is wrong with the bytes of one tensor is its ``fault``.
            Unsupported: If data is said to lie in shared memory.
        """
        head = self.head
        if head.fault is not None:
            raise head.fault
        places = self._places
        if len(places) != head.raw_count or len(head.parts) != head.raw_count:
            self._check_sources()
        data = self._data
        tensors: list[Tensor] = []
        remaining = iter(places)
        for part in head.parts:
            values = part.values
            if values is None:
                _, start, end = next(remaining)
                if end - start == part.size and part.datatype is not dtypes.BOOL:
                    array = np.ndarray(part.shape, part.datatype.numpy, data, start)
                    values = Tensor(part.name, part.datatype, array, part.shape)
                else:
                    values = part.read(data, start, end, head.model)
            tensors.append(values)
        request = Request(
            Tensors(tensors), id=self.id, outputs=head.outputs, parameters=head.parameters
        )
        for name, value in head.reserved:
            setattr(request, name, value)
        return request

    def _check_sources(self) -> None:
        head = self.head
        count = len(self._places)
        if count:
            for part in head.parts:
                if part.values is not None and part.span is None:
                    raise InvalidRequest(
                        "contents field must not be specified when using raw_input_contents for "
                        f"'{part.name}' for model '{head.model}'"
                    )
        raw = [part.name for part in head.parts if part.is_raw]
        if len(raw) > count:
            raise InvalidRequest(
                f"unable to find data for input tensor '{raw[count]}' for model '{head.model}' in "
                f"request. {len(raw)} inputs have no contents, and raw_input_contents has {count} "
                "entries."
            )
        if len(raw) < count:
            raise InvalidRequest(
                f"unexpected additional input data for model '{head.model}': raw_input_contents "
                f"has {count} entries for {len(raw)} inputs"
            )


def read_message(data: Buffer) -> Message:
    """Read a ``ModelInferRequest``.

    Raises:
        Malformed: If it is none.
    """
    view = _viewed(data)
    text, places = cut(view, _APART)
    return _message(Head(text), view, places)


def has_much_to_read(data: Buffer, limit: int) -> bool:
    """Whether a large message takes long to read: typed values, or many strings.

    Args:
        data: The message.
        limit: Bytes above which it is large.

    Raises:
        Malformed: If it is no message.
    """
    if len(data) <= limit // _TYPED_COST:
        return False
    text, places = cut(_viewed(data), _APART)
    if len(text) > limit // _TYPED_COST:
        return True
    return b"BYTES" in text and sum(end - start for _, start, end in places) > limit


class MessageReader:
    """Reads requests, and recognises heads that it has seen before by their bytes.

    A client that sends one request after another sends the same head before other raw bytes. Used
    by one thread at a time.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self._last_size = 0

    def read(self, data: Buffer) -> Message:
        """Read a request like :func:`read_message`."""
        view = _viewed(data)
        if view.__class__ is bytes:
            size = self._last_size
            head = self._heads.get(view[:size])
            if head is not None:
                # What was once a whole head is one here too, if nothing but raw inputs follows it.
                only = _only_raw(view, size)
                if only is not None:
                    return Message(head, "", view, only)
        text, places = cut(view, _APART)
        head = self._heads.get(text)
        if head is None:
            head = Head(text)
            if len(text) <= _LONGEST_KEPT and head.is_lasting:
                if len(self._heads) >= _MOST_KEPT:
                    self._heads.clear()
                self._heads[text] = head
        if view[: len(text)] == text:
            self._last_size = len(text)
        return _message(head, view, places)


def _message(
    head: Head, data: bytes | memoryview, places: Sequence[tuple[int, int, int]]
) -> Message:
    ids = [place for place in places if place[0] == _ID]
    if not ids:
        return Message(head, "", data, places)
    try:
        # A member that is there twice has its last value.
        id = [str(data[start:end], "utf-8") for _, start, end in ids][-1]
    except UnicodeDecodeError:
        raise Malformed("the message is malformed: its id is not UTF-8") from None
    return Message(head, id, data, [place for place in places if place[0] != _ID])


def _viewed(data: Buffer) -> bytes | memoryview:
    # Whoever may write to the message may write to its tensors: a model that does needs no copy.
    return data if isinstance(data, bytes) else memoryview(data)


def _only_raw(data: bytes, position: int) -> list[tuple[int, int, int]] | None:
    """Find the raw inputs behind a head; ``None`` where something else is there as well."""
    places: list[tuple[int, int, int]] = []
    end = len(data)
    while position < end:
        if data[position] != _RAW_TAG or position + 1 == end:
            return None
        length = data[position + 1]
        if length >= 0x80:
            # Long enough that finding it the long way does not matter.
            return None
        start = position + 2
        position = start + length
        places.append((_RAW_INPUTS, start, position))
    return places if position == end else None


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if any(dim < 0 for dim in shape):
        raise InvalidRequest(
            f"invalid shape for input '{name}': shape {shape_text(shape)} contains one or more "
            "invalid dimensions"
        )
    if len(shape) > MAX_DIMENSIONS or math.prod(shape) > MAX_ELEMENTS:
        raise impossible_shape(shape, name)


def _check_unique(kind: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        name = next(name for index, name in enumerate(names) if name in names[:index])
        raise InvalidInference(f"{kind} '{name}' already exists in request")


def _of_unknown_datatype(part: _Part) -> Tensor:
    # The engine says which datatype it expects, after it has looked at the shape.
    fault = InvalidInference(f"input '{part.name}' has a datatype that there is not")
    return Tensor(part.name, _UNKNOWN, _NO_BYTES, part.shape, fault)


# Typed contents.


def _typed(part: _Part, contents: pb.InferTensorContents, model: str) -> Tensor:
    name, datatype, shape = part.name, part.datatype, part.shape
    if datatype is _UNKNOWN:
        return _of_unknown_datatype(part)
    filled = [member for member in _MEMBERS if len(getattr(contents, member.name))]
    if len(filled) > 1:
        raise InvalidRequest(
            f"unexpected explicit tensor data for input tensor '{name}' for model '{model}', "
            f"binary data was already supplied. Set one of {filled[0].name} and {filled[1].name}."
        )
    if filled and datatype not in filled[0].datatypes:
        proper = _MEMBER_BY_DATATYPE.get(datatype)
        remedy = f"use {proper.name}" if proper else "send it in raw_input_contents"
        raise InvalidRequest(
            f"unexpected explicit tensor data for input tensor '{name}' for model '{model}' of "
            f"type '{filled[0].datatypes[-1]}', expected datatype '{datatype}'; {remedy}"
        )
    wanted = math.prod(shape)
    if not filled:
        if wanted:
            raise InvalidRequest(
                f"unable to find data for input tensor '{name}' for model '{model}' in request."
            )
        return Tensor(name, datatype, np.empty(shape, datatype.numpy))
    values = getattr(contents, filled[0].name)
    if len(values) != wanted:
        if wanted * datatype.item_bytes > MAX_ELEMENTS:
            raise overflowing_size(shape, name)
        return Tensor(name, datatype, _NO_BYTES, shape, _wrong_count(part, len(values), model))
    if datatype is dtypes.BYTES:
        return Tensor(name, datatype, string_array(list(values), shape, name))
    return Tensor(name, datatype, _numbers(values, datatype, name).reshape(shape))


def _wrong_count(part: _Part, count: int, model: str) -> InvalidInference:
    wanted = math.prod(part.shape)
    if part.datatype is dtypes.BYTES:
        return InvalidInference(
            f"expected {wanted} string elements for inference input '{part.name}' for model "
            f"'{model}', got {count}"
        )
    size = part.datatype.item_bytes
    return InvalidInference(
        f"input byte size mismatch for input '{part.name}' for model '{model}'. Expected "
        f"{wanted * size}, got {count * size}"
    )


def _numbers(values: Iterable[Any], datatype: DataType, name: str) -> Array:
    if datatype not in _NARROW:
        return np.array(values, datatype.numpy)
    wide = np.array(values, np.int64)
    limits = np.iinfo(datatype.numpy)
    wrong = (wide < limits.min) | (wide > limits.max)
    if wrong.any():
        raise InvalidRequest(
            f"value {wide[wrong][0]} of input '{name}' is out of the range of {datatype}, "
            f"{limits.min} to {limits.max}"
        )
    return wide.astype(datatype.numpy)


# Parameters.


def _sequence_id(choice: str | None, value: Any) -> int | str:
    if choice == "int64_param":
        # Triton's C++ client sends ids above 2^63 through the signed member.
        return int(value) & 0xFFFF_FFFF_FFFF_FFFF
    if choice not in ("string_param", "uint64_param"):
        raise _wrong_choice("sequence_id", "int64_param or string_param")
    identity: int | str = value
    return identity


def _class_count(parameter: pb.InferParameter) -> int:
    choice = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, choice) if choice else None
    return _unsigned("classification", choice, value, "int64_param")


def _span_of(parameters: Mapping[str, pb.InferParameter], where: str) -> Span:
    region = parameters["shared_memory_region"]
    _check_choice("shared_memory_region", region.WhichOneof("parameter_choice"), "string_param")
    if "shared_memory_byte_size" not in parameters:
        raise InvalidRequest(
            f"parameter 'shared_memory_byte_size' is missing: {where} lies in shared memory"
        )
    return Span(
        region.string_param,
        _size_of(parameters, "shared_memory_offset"),
        _size_of(parameters, "shared_memory_byte_size"),
    )


def _size_of(parameters: Mapping[str, pb.InferParameter], key: str) -> int:
    if key not in parameters:
        return 0
    parameter = parameters[key]
    choice = parameter.WhichOneof("parameter_choice")
    return _unsigned(key, choice, parameter.int64_param, "int64_param")


def _unsigned(key: str, choice: str | None, value: Any, *accepted: str) -> int:
    _check_choice(key, choice, *accepted)
    if value < 0:
        raise InvalidRequest(f"invalid value {value} for '{key}' parameter, expected 0 or more")
    number: int = value
    return number


def _check_choice(key: str, choice: str | None, *accepted: str) -> None:
    if choice not in accepted:
        raise _wrong_choice(key, " or ".join(accepted))


def _wrong_choice(key: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"invalid value type for '{key}' parameter, expected {expected}.")


def _is_reserved(key: str) -> InvalidRequest:
    return InvalidRequest(
        "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following "
        "keys starting with 'triton_' are allowed: triton_enable_empty_final_response. Got "
        f"'{key[:80]}'."
    )


# --- responses ------------------------------------------------------------------------------


class ResponseEncoder:
    """Writes the responses of one version of one model.

    What does not change from answer to answer is written once: the names before the outputs, and
    name, datatype and shape of each output that was seen lately.
    """

    _MOST_KEPT = 64

    def __init__(self, model: str, version: str) -> None:
        self._names = field(1, _utf8(model)) + field(2, _utf8(version))
        self._kept: dict[tuple[str, DataType, tuple[int, ...]], tuple[bytes, bytes]] = {}

    def encode(
        self,
        response: Response,
        id: str = "",
        wanted: Sequence[str] = (),
        *,
        elsewhere: Collection[str] = (),
        is_final: bool | None = None,
    ) -> list[Buffer]:
        """Write one response.

        Args:
            response: As the model gave it.
            id: Of the request.
            wanted: Names of the outputs that were asked for; empty for all. Models may answer
                more.
            elsewhere: Names of the outputs whose data do not go with the response.
            is_final: What ``triton_final_response`` says; ``None`` leaves it out.

        Returns:
            The pieces of a ``ModelInferResponse``; large outputs are views on their arrays.
        """
        outputs = response.outputs
        if wanted:
            outputs = [tensor for tensor in outputs if tensor.name in wanted]
        head = self._names
        if id:
            head += field(3, _utf8(id))
        if response.parameters:
            head += b"".join(_parameter(*entry) for entry in response.parameters.items())
        if is_final is not None:
            head += _FINAL[is_final]
        if len(outputs) == 1 and not elsewhere:
            # The most frequent answer: one piece, put together in one go.
            tensor = outputs[0]
            announced, raw_head = self._announced(tensor)
            if raw_head and tensor.array.nbytes <= _MOST_JOINED:
                return [head + announced + raw_head + tensor.array.tobytes()]
        return self._pieces(head, outputs, elsewhere)

    def encode_empty_final(self, id: str) -> bytes:
        """Write the response without outputs that ends a stream."""
        return self._names + (field(3, _utf8(id)) if id else b"") + _FINAL[True]

    def _pieces(
        self, head: bytes, outputs: Sequence[Tensor], elsewhere: Collection[str]
    ) -> list[Buffer]:
        parts = [head]
        parts += [self._announced(tensor)[0] for tensor in outputs]
        pieces: list[Buffer] = []
        for tensor in outputs:
            # Empty, but there: clients find the data of the others by their place.
            raw = b"" if tensor.name in elsewhere else encode_array(tensor.array, tensor.datatype)
            parts.append(_RAW_OUTPUT + varint(len(raw)))
            if len(raw) <= _MOST_JOINED:
                parts.append(bytes(raw))
            else:
                pieces += [b"".join(parts), raw]
                parts = []
        if parts:
            pieces.append(b"".join(parts))
        return pieces

    def _announced(self, tensor: Tensor) -> tuple[bytes, bytes]:
        """All of an output but its data, and what stands before that if its size is known."""
        key = (tensor.name, tensor.datatype, tensor.shape)
        known = self._kept.get(key)
        if known is None:
            if len(self._kept) >= self._MOST_KEPT:
                self._kept.clear()
            known = self._kept[key] = _announced(tensor)
        return known


def encode_stream_response(pieces: Sequence[Buffer]) -> list[Buffer]:
    """Wrap the pieces of a ``ModelInferResponse`` as one response of a stream."""
    first, *rest = pieces
    size = sum(map(len, pieces))
    return [b"".join((_INFER_RESPONSE, varint(size), first)), *rest]


def encode_stream_error(text: str, model: str, id: str) -> list[Buffer]:
    """Write an error as one response of a stream; it still says whose it is."""
    failed = field(1, _utf8(model)) + (field(3, _utf8(id)) if id else b"") + _FINAL[True]
    return [field(1, _utf8(text)) + field(2, failed)]


def _announced(tensor: Tensor) -> tuple[bytes, bytes]:
    dims = b"".join(varint(int(dim)) for dim in tensor.shape)
    body = field(1, _utf8(tensor.name)) + field(2, tensor.datatype.name.encode())
    if dims:
        body += field(3, dims)
    size = math.prod(tensor.shape) * tensor.datatype.item_bytes
    raw_head = b"" if tensor.datatype is dtypes.BYTES else _RAW_OUTPUT + varint(size)
    return field(5, body), raw_head


def _parameter(key: str, value: ParameterValue) -> bytes:
    return field(4, field(1, _utf8(key)) + field(2, _choice(value)))


def _choice(value: ParameterValue) -> bytes:
    if isinstance(value, bool):
        return b"\x08\x01" if value else b"\x08\x00"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return tag(2, 0) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, int) and 0 <= value < 2**64:
        return tag(5, 0) + varint(value)
    if isinstance(value, float):
        return tag(4, 1) + struct.pack("<d", value)
    return field(3, _utf8(str(value)))


def _utf8(text: str) -> bytes:
    # Texts of models may hold halves of surrogate pairs, which no client could decode.
    return text.encode(errors="replace")


# --- tables ---------------------------------------------------------------------------------


class _Member:
    """One member of ``InferTensorContents``, and the datatypes that it carries."""

    __slots__ = ("datatypes", "name")

    def __init__(self, name: str, *datatypes: DataType) -> None:
        self.name = name
        self.datatypes = datatypes


_MEMBERS = (
    _Member("bool_contents", dtypes.BOOL),
    _Member("int_contents", dtypes.INT8, dtypes.INT16, dtypes.INT32),
    _Member("int64_contents", dtypes.INT64),
    _Member("uint_contents", dtypes.UINT8, dtypes.UINT16, dtypes.UINT32),
    _Member("uint64_contents", dtypes.UINT64),
    _Member("fp32_contents", dtypes.FP32),
    _Member("fp64_contents", dtypes.FP64),
    _Member("bytes_contents", dtypes.BYTES),
)
_MEMBER_BY_DATATYPE = {datatype: member for member in _MEMBERS for datatype in member.datatypes}
_NARROW = frozenset({dtypes.INT8, dtypes.INT16, dtypes.UINT8, dtypes.UINT16})
"""Those whose member has room for more than they have."""

_UNKNOWN = DataType("<invalid>", "TYPE_INVALID", np.dtype("u1"), 0)
_NO_BYTES = np.empty(0, np.uint8)
_INTEGERS = ("int64_param", "uint64_param")

_TYPED_COST = 8
"""Reading a byte of typed values costs about so many times a byte of strings."""
_LONGEST_KEPT = 4096
_MOST_KEPT = 256
_RAW_TAG = tag(_RAW_INPUTS)[0]

_RAW_OUTPUT = tag(6)
_INFER_RESPONSE = tag(2)
_MOST_JOINED = 4096
"""Bytes of an output that are copied into the piece before them rather than sent as their own."""
_FINAL = {value: _parameter("triton_final_response", value) for value in (False, True)}
