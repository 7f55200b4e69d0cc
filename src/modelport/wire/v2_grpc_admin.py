"""Everything of V2 gRPC that is not inference: requests read, answers written.

Source: Open Inference Protocol, gRPC; Triton's extensions for statistics, model repository and
model configuration; the gRPC Health Checking Protocol.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message

from modelport.errors import InvalidRequest, Unsupported
from modelport.specs import ModelConfig
from modelport.wire.model_config import to_proto
from modelport.wire.proto import grpc_service_pb2 as pb
from modelport.wire.protobuf import Malformed
from modelport.wire.v2_admin import LoadRequest, unknown_load_parameter, wrong_load_parameter
from modelport.wire.v2_regions import CUDA_HANDLE_BYTES, Registration

__all__ = [
    "decode",
    "decode_cuda_registration",
    "decode_index_request",
    "decode_load_request",
    "decode_registration",
    "decode_unload_request",
    "encode",
    "encode_index",
    "encode_model_config",
]

Buffer = bytes | bytearray | memoryview
M = TypeVar("M", bound=Message)


def decode(kind: type[M], data: Buffer) -> M:
    """Read a message.

    Raises:
        Malformed: If it is none of this kind.
    """
    try:
        return kind.FromString(bytes(data))
    except DecodeError:
        raise Malformed(f"the message is malformed: it is no {kind.DESCRIPTOR.name}") from None


def encode(kind: type[Message], members: Mapping[str, Any]) -> bytes:
    """Write a message whose members are said as JSON would."""
    return ParseDict(dict(members), kind()).SerializeToString()


def encode_model_config(config: ModelConfig) -> bytes:
    """Write the answer to ``ModelConfig``."""
    return pb.ModelConfigResponse(config=to_proto(config)).SerializeToString()


def encode_index(rows: Sequence[Mapping[str, str]]) -> bytes:
    """Write the answer to ``RepositoryIndex``."""
    return encode(pb.RepositoryIndexResponse, {"models": rows})


def decode_index_request(data: Buffer) -> bool:
    """Read an index request: whether only what is ready is wanted.

    Raises:
        Malformed: If it is none.
        Unsupported: If it asks for one of several repositories.
    """
    message = decode(pb.RepositoryIndexRequest, data)
    _refuse_repository(message.repository_name)
    return message.ready


def decode_load_request(data: Buffer) -> tuple[str, LoadRequest]:
    """Read a load request.

    Returns:
        The name of the model, and what is asked for.

    Raises:
        InvalidRequest: If it is malformed, or has a parameter that is unknown or of another type.
        Unsupported: If it names one of several repositories.
    """
    message = decode(pb.RepositoryModelLoadRequest, data)
    _refuse_repository(message.repository_name)
    model = message.model_name
    config: str | None = None
    files: dict[str, bytes] = {}
    for key, parameter in message.parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if key == "config":
            if choice != "string_param":
                raise wrong_load_parameter(key, "string_param", model)
            config = parameter.string_param
        elif key.startswith("file:"):
            if choice != "bytes_param":
                raise wrong_load_parameter(key, "bytes_param", model)
            files[key.removeprefix("file:")] = parameter.bytes_param
        else:
            raise unknown_load_parameter(key, model)
    return model, LoadRequest(config=config, files=files)


def decode_unload_request(data: Buffer) -> tuple[str, bool]:
    """Read an unload request.

    Returns:
        The name of the model, and whether what was loaded only for it goes with it.

    Raises:
        InvalidRequest: If it is malformed, or a parameter is of the wrong type.
        Unsupported: If it names one of several repositories.
    """
    message = decode(pb.RepositoryModelUnloadRequest, data)
    _refuse_repository(message.repository_name)
    parameter = message.parameters.get("unload_dependents")
    if parameter is None:
        return message.model_name, False
    if parameter.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest(
            "invalid value type for unload parameter 'unload_dependents', expected bool_param."
        )
    return message.model_name, parameter.bool_param


def decode_registration(data: Buffer) -> tuple[str, Registration]:
    """Read what registers a region of the system's shared memory, with its name.

    Raises:
        Malformed: If it is no such message.
    """
    message = decode(pb.SystemSharedMemoryRegisterRequest, data)
    return message.name, Registration(message.key, message.offset, message.byte_size)


def decode_cuda_registration(data: Buffer) -> str:
    """Read what registers a region of GPU memory; only its name is of use.

    Raises:
        InvalidRequest: If it is malformed, or its handle is not one.
    """
    message = decode(pb.CudaSharedMemoryRegisterRequest, data)
    if len(message.raw_handle) != CUDA_HANDLE_BYTES:
        raise InvalidRequest(
            f"'raw_handle' must be {CUDA_HANDLE_BYTES} bytes, got {len(message.raw_handle)}"
        )
    return message.name


def _refuse_repository(name: str) -> None:
    if name:
        raise Unsupported(
            f"'repository_name' specification is not supported. Leave '{name[:80]}' out."
        )
