"""Reflection on a stream, without a socket."""

from modelport.testing.memory import MemoryEngine, MemoryGrpcServer
from modelport.wire.proto import reflection_pb2 as pb

LIST = pb.ServerReflectionRequest(list_services="").SerializeToString()


def test_each_question_is_answered_in_either_package() -> None:
    server = MemoryGrpcServer(MemoryEngine())
    for package in ("v1", "v1alpha"):
        service = f"grpc.reflection.{package}.ServerReflection"
        call, receiver = server.open("ServerReflectionInfo", service=service)
        assert receiver.message(LIST)
        assert receiver.message(LIST)
        receiver.half_closed()
        assert call.status == 0
        for sent in call.sent:
            listed = pb.ServerReflectionResponse.FromString(sent).list_services_response
            names = {one.name for one in listed.service}
            assert {f"/{name}" for name in names} == {
                path.rpartition("/")[0] for path in server.rpc_by_path
            }


def test_a_client_that_does_not_read_is_not_read() -> None:
    call, receiver = MemoryGrpcServer(MemoryEngine()).open(
        "ServerReflectionInfo", service="grpc.reflection.v1.ServerReflection"
    )
    call.is_full = True
    assert not receiver.message(LIST)
    call.read_again()
    assert call.resumed == 1


def test_a_client_that_may_ask_more_does_not_hold_up_the_end_of_the_server() -> None:
    call, _ = MemoryGrpcServer(MemoryEngine()).open(
        "ServerReflectionInfo", service="grpc.reflection.v1.ServerReflection"
    )
    call.drain()
    assert call.status == 14


def test_what_is_no_question_ends_the_call() -> None:
    call, receiver = MemoryGrpcServer(MemoryEngine()).open(
        "ServerReflectionInfo", service="grpc.reflection.v1.ServerReflection"
    )
    receiver.message(b"\x0a")
    assert call.status == 3
