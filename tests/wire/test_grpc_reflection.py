"""What reflection says of our services."""

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from modelport.wire.grpc_reflection import answer_question
from modelport.wire.proto import reflection_pb2 as pb
from modelport.wire.protobuf import Malformed

SERVICES = ("a.A", "b.B")


def ask(**question: Any) -> pb.ServerReflectionResponse:
    asked = pb.ServerReflectionRequest(host="h", **question)
    answer = pb.ServerReflectionResponse.FromString(
        answer_question(asked.SerializeToString(), SERVICES)
    )
    assert answer.valid_host == "h"
    assert answer.original_request == asked
    return answer


def files(answer: pb.ServerReflectionResponse) -> list[FileDescriptorProto]:
    found = answer.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(data) for data in found]


def test_services_are_listed() -> None:
    listed = ask(list_services="").list_services_response
    assert [service.name for service in listed.service] == ["a.A", "b.B"]


@pytest.mark.parametrize(
    "question",
    [
        {"file_by_filename": "grpc_service.proto"},
        {"file_containing_symbol": "inference.GRPCInferenceService"},
        {"file_containing_symbol": "inference.GRPCInferenceService.ModelInfer"},
        {"file_containing_symbol": "inference.ModelInferRequest.InferInputTensor"},
    ],
)
def test_a_file_comes_with_what_it_imports(question: dict[str, str]) -> None:
    found = files(ask(**question))
    assert [file.name for file in found] == ["grpc_service.proto", "model_config.proto"]


@pytest.mark.parametrize(
    "service",
    [
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ],
)
def test_a_client_can_make_stubs_of_what_it_gets(service: str) -> None:
    pool = DescriptorPool()
    for file in reversed(files(ask(file_containing_symbol=service))):
        pool.Add(file)
    assert pool.FindServiceByName(service).methods


def test_the_older_file_is_found_by_its_name() -> None:
    (file,) = files(ask(file_by_filename="reflection_v1alpha.proto"))
    assert file.package == "grpc.reflection.v1alpha"


@pytest.mark.parametrize(
    "question",
    [
        {"file_by_filename": "no.proto"},
        {"file_containing_symbol": "no.Such"},
        {"file_containing_symbol": "inference.GRPCInferenceService.NoSuch"},
        {"file_containing_symbol": "grpc.reflection.v1alpha.NoSuch"},
        {"all_extension_numbers_of_type": "no.Such"},
        {"file_containing_extension": pb.ExtensionRequest(containing_type="no.Such")},
    ],
)
def test_what_there_is_not_is_not_found(question: dict[str, Any]) -> None:
    error = ask(**question).error_response
    assert error.error_code == 5
    assert error.error_message


def test_no_message_has_extensions() -> None:
    name = "inference.ModelInferRequest"
    none = ask(all_extension_numbers_of_type=name).all_extension_numbers_response
    assert (none.base_type_name, list(none.extension_number)) == (name, [])


def test_a_question_that_is_not_known_is_said_to_be() -> None:
    assert ask().error_response.error_code == 12


def test_what_is_no_question_is_malformed() -> None:
    with pytest.raises(Malformed):
        answer_question(b"\x0a", SERVICES)
