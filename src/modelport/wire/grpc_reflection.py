"""Server reflection: questions about the services and messages that we have, and the answers.

The two packages of the protocol, ``grpc.reflection.v1`` and ``v1alpha``, have the same messages.

Source: the gRPC Server Reflection Protocol.
"""

from collections.abc import Sequence

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from modelport.wire.proto import grpc_service_pb2, health_pb2
from modelport.wire.proto import reflection_pb2 as pb
from modelport.wire.proto.pool import POOL
from modelport.wire.v2_grpc_admin import decode

__all__ = ["answer_question"]

Buffer = bytes | bytearray | memoryview

_DESCRIBED = (grpc_service_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, pb.DESCRIPTOR)
"""What is asked about; importing these puts them into the pool."""


def answer_question(data: Buffer, services: Sequence[str]) -> bytes:
    """Answer one question.

    Args:
        data: A ``ServerReflectionRequest``.
        services: Full names of all that can be called.

    Returns:
        A ``ServerReflectionResponse``; what cannot be answered is an error in it.

    Raises:
        Malformed: If ``data`` is no such message.
    """
    asked = decode(pb.ServerReflectionRequest, data)
    answer = _answer(asked, services)
    answer.valid_host = asked.host
    answer.original_request.CopyFrom(asked)
    return answer.SerializeToString()


def _answer(
    asked: pb.ServerReflectionRequest, services: Sequence[str]
) -> pb.ServerReflectionResponse:
    kind = asked.WhichOneof("message_request")
    try:
        match kind:
            case "list_services":
                named = [pb.ServiceResponse(name=name) for name in services]
                listed = pb.ListServiceResponse(service=named)
                return pb.ServerReflectionResponse(list_services_response=listed)
            case "file_by_filename":
                return _files(_file_named(asked.file_by_filename))
            case "file_containing_symbol":
                return _files(_file_with(asked.file_containing_symbol))
            case "all_extension_numbers_of_type":
                # There are none; but the type has to exist.
                name = asked.all_extension_numbers_of_type
                POOL.FindMessageTypeByName(name)
                none = pb.ExtensionNumberResponse(base_type_name=name)
                return pb.ServerReflectionResponse(all_extension_numbers_response=none)
            case "file_containing_extension":
                return _failed(_NOT_FOUND, "no message here has extensions")
            case _:
                return _failed(_UNIMPLEMENTED, "the question is not known")
    except KeyError:
        return _failed(_NOT_FOUND, f"not found: {getattr(asked, str(kind))[:200]}")


def _file_named(name: str) -> list[bytes]:
    if name == _OLDER_FILE:
        return [_older_file()]
    return _with_imports(POOL.FindFileByName(name))


def _file_with(symbol: str) -> list[bytes]:
    if symbol.startswith(f"{_OLDER_PACKAGE}."):
        # What is not in the one package is not in the other.
        _find(symbol.replace(_OLDER_PACKAGE, _PACKAGE, 1))
        return [_older_file()]
    return _with_imports(_find(symbol))


def _find(symbol: str) -> FileDescriptor:
    try:
        return POOL.FindFileContainingSymbol(symbol)
    except KeyError:
        # The pool knows services, and not their methods.
        service, _, method = symbol.rpartition(".")
        POOL.FindServiceByName(service).methods_by_name[method]
        return POOL.FindFileContainingSymbol(service)


def _with_imports(file: FileDescriptor) -> list[bytes]:
    files = [file.serialized_pb]
    for imported in file.dependencies:
        files += [one for one in _with_imports(imported) if one not in files]
    return files


def _older_file() -> bytes:
    file = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    file.name = _OLDER_FILE
    file.package = _OLDER_PACKAGE
    for message in file.message_type:
        for member in message.field:
            if member.type_name:
                member.type_name = _older_name(member.type_name)
    for service in file.service:
        for method in service.method:
            method.input_type = _older_name(method.input_type)
            method.output_type = _older_name(method.output_type)
    return file.SerializeToString()


def _older_name(name: str) -> str:
    return name.replace(f".{_PACKAGE}.", f".{_OLDER_PACKAGE}.")


def _files(files: list[bytes]) -> pb.ServerReflectionResponse:
    described = pb.FileDescriptorResponse(file_descriptor_proto=files)
    return pb.ServerReflectionResponse(file_descriptor_response=described)


def _failed(code: int, text: str) -> pb.ServerReflectionResponse:
    error = pb.ErrorResponse(error_code=code, error_message=text)
    return pb.ServerReflectionResponse(error_response=error)


_NOT_FOUND = 5
_UNIMPLEMENTED = 12

_PACKAGE = "grpc.reflection.v1"
_OLDER_PACKAGE = "grpc.reflection.v1alpha"
_OLDER_FILE = "reflection_v1alpha.proto"
