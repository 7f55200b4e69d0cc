"""The health service and reflection, by the stubs that come with grpcio."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

try:
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )
except ImportError:
    pytestmark = pytest.mark.skip(reason="these stubs do not go with this generation's protobuf")

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture
def channel(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as channel:
        yield channel


def test_health_is_checked(channel: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_is_watched(channel: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
    watched.cancel()


def test_a_client_without_stubs_learns_what_to_call(channel: Any) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services()
    method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName("ModelReady")
    call = channel.unary_unary(
        f"/{SERVICE}/ModelReady",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    assert call(GetMessageClass(method.input_type)(name="identity"), timeout=20).ready


def test_a_method_that_there_is_not_is_unimplemented(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"/{SERVICE}/NoSuch")(b"", timeout=20)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_body_that_is_no_message_is_refused_and_the_connection_lives_on(channel: Any) -> None:
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    with pytest.raises(grpc.RpcError) as raised:
        call(b"\x0a\xff", timeout=20)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=20) == b"\x08\x01"
