"""The JSON of an inference request as a typed document, before its tensors are looked at.

The typed decoder is fast and says of a wrong type only that it is wrong; then the text is parsed
again and walked member by member for the text that existing clients know. Bare NaN takes that
way too, and comes through it.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from modelport.errors import InvalidRequest
from modelport.wire import json
from modelport.wire.v2_values import wrong_type

__all__ = [
    "ONE_TEXT",
    "Document",
    "Input",
    "Output",
    "ParsedInput",
    "decode_document",
    "member",
    "members_of",
    "optional",
    "parse_tensors",
]

T = TypeVar("T")
Parameters = dict[str, Any]
Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Input(msgspec.Struct, gc=False):
    """One of ``inputs``; its values are still text."""

    name: str
    datatype: str
    shape: tuple[Dimension, ...]
    parameters: Parameters | UnsetType = UNSET
    data: msgspec.Raw | UnsetType = UNSET


class ParsedInput(Input, gc=False):
    """One of ``inputs`` that came the slow way; its values are parsed."""

    values: list[Any] | UnsetType = UNSET


class Output(msgspec.Struct, gc=False):
    """One of ``outputs``."""

    name: str
    parameters: Parameters | UnsetType = UNSET


class Document(msgspec.Struct, gc=False):
    """An inference request."""

    inputs: list[Input]
    id: str = ""
    outputs: list[Output] | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET


class _LongInput(msgspec.Struct, gc=False):
    """One of ``inputs`` of a long text: all that could be long is still text."""

    name: str
    datatype: str
    shape: msgspec.Raw
    parameters: msgspec.Raw | UnsetType = UNSET
    data: msgspec.Raw | UnsetType = UNSET


class _LongDocument(msgspec.Struct, gc=False):
    inputs: list[_LongInput]
    id: str = ""
    outputs: msgspec.Raw | UnsetType = UNSET
    parameters: msgspec.Raw | UnsetType = UNSET


_decode = msgspec.json.Decoder(Document).decode
_decode_long = msgspec.json.Decoder(_LongDocument).decode
_decode_shape = msgspec.json.Decoder(tuple[Dimension, ...]).decode
_decode_parameters = msgspec.json.Decoder(Parameters).decode
_decode_outputs = msgspec.json.Decoder(list[Output]).decode

LONG_BYTES = 1 << 20
"""From here on a document is looked at member by member: only its values may be very long."""


def decode_document(
    text: bytes | bytearray, most_depth: int = json.MAX_DEPTH, most_exact: int | None = None
) -> Document:
    """Read the JSON of an inference request.

    Args:
        text: The JSON.
        most_depth: Levels of it.
        most_exact: Bytes of a text that may be parsed again, with everybody else waiting, because
            the fast way does not take it; ``None`` for any number.

    Raises:
        InvalidRequest: If it is malformed, nested too deeply, or a member is missing or of the
            wrong type.
        TooLarge: If the text would have to be parsed again, and is longer than ``most_exact``.
    """
    json.check_depth(text, most_depth)
    try:
        return _decode(text) if len(text) < LONG_BYTES else _long_document(text, most_exact)
    except (msgspec.DecodeError, UnicodeDecodeError):
        json.check_size(len(text), most_exact)
        return _document(json.decode(text, most_depth))


def _long_document(text: bytes | bytearray, most_exact: int | None) -> Document:
    document = _decode_long(text)

    def read(raw: msgspec.Raw | UnsetType, decode: Callable[[msgspec.Raw], T]) -> T | UnsetType:
        if raw is UNSET:
            return UNSET
        json.check_size(len(raw), most_exact)
        return decode(raw)

    inputs = []
    for each in document.inputs:
        json.check_size(len(each.shape), most_exact)
        shape = _decode_shape(each.shape)
        parameters = read(each.parameters, _decode_parameters)
        inputs.append(Input(each.name, each.datatype, shape, parameters, each.data))
    return Document(
        inputs,
        document.id,
        read(document.outputs, _decode_outputs),
        read(document.parameters, _decode_parameters),
    )


def _document(value: Any) -> Document:
    members = members_of(value, "the request")
    outputs = optional(members, "outputs", "array", "the request", UNSET)
    return Document(
        inputs=parse_tensors(members, "inputs", "the request"),
        id=optional(members, "id", "string", "the request", ""),
        outputs=outputs
        if outputs is UNSET
        else [_output(one, f"outputs[{index}]") for index, one in enumerate(outputs)],
        parameters=_parameters(members, "the request"),
    )


def parse_tensors(members: dict[str, Any], key: str, where: str) -> list[Input]:
    """Take ``inputs``, or a response's ``outputs``, out of a parsed object.

    Raises:
        InvalidRequest: If something is missing or of the wrong type.
    """
    parts = member(members, key, "array", where)
    common = _content_type(members)
    return [_input(one, f"{key}[{index}]", common) for index, one in enumerate(parts)]


def _input(value: Any, where: str, content_type: object) -> Input:
    members = members_of(value, where)
    data = members.get("data")
    if type(data) is str and (_content_type(members) or content_type) in ONE_TEXT:
        members = {**members, "data": [data]}
    shape = member(members, "shape", "array", where)
    for dim in shape:
        if type(dim) is not int or not 0 <= dim < 2**63:
            raise wrong_type("shape", "unsigned-integer", f"each dimension of {where}.shape", dim)
    return ParsedInput(
        name=member(members, "name", "string", where),
        datatype=member(members, "datatype", "string", where),
        shape=tuple(shape),
        parameters=_parameters(members, where),
        values=optional(members, "data", "array", where, UNSET),
    )


def _content_type(members: dict[str, Any]) -> object:
    parameters = members.get("parameters")
    kind = parameters.get("content_type") if type(parameters) is dict else None
    return kind if type(kind) is str else None


def _output(value: Any, where: str) -> Output:
    members = members_of(value, where)
    return Output(
        name=member(members, "name", "string", where), parameters=_parameters(members, where)
    )


def _parameters(members: dict[str, Any], where: str) -> Parameters | UnsetType:
    if "parameters" not in members:
        return UNSET
    parameters: Any = members["parameters"]
    if type(parameters) is not dict:
        raise InvalidRequest(
            "failed to get request params.: attempt to get members for non-object. "
            f"'parameters' of {where} must be an object."
        )
    return parameters


def members_of(value: Any, where: str) -> dict[str, Any]:
    """Take a parsed value for an object.

    Raises:
        InvalidRequest: If it is none.
    """
    if type(value) is not dict:
        raise InvalidRequest(
            f"attempt to get members for non-object. {where[0].upper()}{where[1:]} must be a "
            "JSON object."
        )
    return value


def member(members: dict[str, Any], key: str, wanted: str, where: str) -> Any:
    """Take a member that must be there, of the type that ``wanted`` names.

    Raises:
        InvalidRequest: If it is not there, or of another type.
    """
    if key not in members:
        raise InvalidRequest(
            f"Unable to parse '{key}': attempt to access non-existing object member '{key}'. "
            f"{where[0].upper()}{where[1:]} must have it."
        )
    value = members[key]
    if type(value) is not _TYPES[wanted]:
        raise wrong_type(key, wanted, f"'{key}' of {where}", value)
    return value


def optional(members: dict[str, Any], key: str, wanted: str, where: str, default: Any) -> Any:
    """Take a member, or the default where it is not there.

    Raises:
        InvalidRequest: If it is of another type than ``wanted`` names.
    """
    return member(members, key, wanted, where) if key in members else default


ONE_TEXT = ("str", "base64")
"""Content types with which MLServer takes a text for a list of one."""

_TYPES: dict[str, type] = {
    "array": list,
    "boolean": bool,
    "object": dict,
    "string": str,
}
