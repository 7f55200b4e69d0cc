"""Shared memory in V2: which part of which region a tensor lies in, and how regions are registered.

Source: Triton, "Shared-Memory Extension".
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from modelport.dtypes import DataType
from modelport.errors import InvalidRequest
from modelport.wire import json
from modelport.wire.v2_document import members_of
from modelport.wire.v2_values import wrong_type

__all__ = [
    "CUDA_HANDLE_BYTES",
    "SHARED_MEMORY_IS_OFF",
    "RegionInput",
    "Registration",
    "Span",
    "decode_cuda_registration",
    "decode_registration",
    "span_of",
]

Buffer = bytes | bytearray | memoryview

SHARED_MEMORY_IS_OFF = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)
CUDA_HANDLE_BYTES = 64


class Span(Struct, frozen=True):
    """A part of a region.

    Attributes:
        region: By its registered name.
        offset: Where it begins in the region.
        byte_size: Of an input exactly; of an output at least.
    """

    region: str
    offset: int
    byte_size: int


class RegionInput(Struct, frozen=True):
    """An input whose data lies in a region.

    Attributes:
        position: Among the tensors of the request.
        name: Of the tensor.
        datatype: As announced.
        shape: As announced.
        span: Where its data is.
    """

    position: int
    name: str
    datatype: DataType
    shape: tuple[int, ...]
    span: Span


class Registration(Struct, frozen=True):
    """What registers a region of the system's shared memory."""

    key: str
    offset: int
    byte_size: int


def span_of(parameters: Mapping[str, Any], where: str) -> Span:
    """Read ``shared_memory_region`` and what belongs to it.

    Args:
        parameters: Of an input or output; have ``shared_memory_region``.
        where: For a person.

    Raises:
        InvalidRequest: If something is missing or of the wrong type.
    """
    region = parameters["shared_memory_region"]
    if type(region) is not str:
        raise wrong_type(
            "shared_memory_region", "string", f"'shared_memory_region' of {where}", region
        )
    if "shared_memory_byte_size" not in parameters:
        raise InvalidRequest(
            "Unable to parse 'shared_memory_byte_size': attempt to access non-existing object "
            f"member 'shared_memory_byte_size'. {where[0].upper()}{where[1:]} must have it."
        )
    return Span(
        region,
        _unsigned(parameters, "shared_memory_offset", where),
        _unsigned(parameters, "shared_memory_byte_size", where),
    )


def decode_registration(body: Buffer) -> Registration:
    """Read what registers a region of the system's shared memory.

    Raises:
        InvalidRequest: If it is malformed, or something is missing or of the wrong type.
    """
    members = _members(body, ("key", "byte_size"))
    key = members["key"]
    if type(key) is not str:
        raise wrong_type("key", "string", "'key' of the request", key)
    where = "the request"
    return Registration(
        key, _unsigned(members, "offset", where), _unsigned(members, "byte_size", where)
    )


def decode_cuda_registration(body: Buffer) -> None:
    """Look whether a request to register a region of GPU memory is one.

    Raises:
        InvalidRequest: If it is malformed, or something is missing or of the wrong type.
    """
    members = _members(body, ("raw_handle", "device_id", "byte_size"))
    handle = members_of(members["raw_handle"], "'raw_handle' of the request").get("b64")
    if type(handle) is not str:
        raise InvalidRequest("Shared memory register request has no 'b64' field in 'raw_handle'")
    try:
        raw = base64.b64decode(handle, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("'b64' of 'raw_handle' is not base64") from None
    if len(raw) != CUDA_HANDLE_BYTES:
        raise InvalidRequest(
            f"'raw_handle' must be {CUDA_HANDLE_BYTES} bytes in base64, got {len(raw)}"
        )
    for key in ("device_id", "byte_size"):
        _unsigned(members, key, "the request")


def _members(body: Buffer, required: tuple[str, ...]) -> dict[str, Any]:
    text = bytes(body)
    json.check_depth(text)
    members = members_of(json.decode(text) if text else {}, "the request")
    for key in required:
        if key not in members:
            raise InvalidRequest(
                f"Shared memory register request has no '{key}' field. "
                f"It needs {', '.join(map(repr, required))}."
            )
    return members


def _unsigned(members: Mapping[str, Any], key: str, where: str) -> int:
    value = members.get(key, 0)
    if type(value) is not int or not 0 <= value < 2**64:
        raise wrong_type(key, "unsigned-integer", f"'{key}' of {where}", value)
    return value
