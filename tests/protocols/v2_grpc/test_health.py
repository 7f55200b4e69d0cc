"""The health service of gRPC, without a socket."""

import asyncio

import pytest

from modelport.protocols.v2_grpc import health
from modelport.testing.memory import MemoryCall, MemoryEngine, MemoryGrpcServer
from modelport.wire.proto import health_pb2 as pb
from tests.waiting import until

Status = pb.HealthCheckResponse.ServingStatus


def request(service: str) -> bytes:
    return pb.HealthCheckRequest(service=service).SerializeToString()


def call(method: str, service: str, engine: MemoryEngine) -> MemoryCall:
    return MemoryGrpcServer(engine).call(method, request(service), service="grpc.health.v1.Health")


def told(call: MemoryCall) -> list[str]:
    answers = [pb.HealthCheckResponse.FromString(sent) for sent in call.sent]
    return [Status.Name(answer.status) for answer in answers]


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
def test_a_service_is_serving_while_it_is_ready(service: str) -> None:
    assert told(call("Check", service, MemoryEngine())) == ["SERVING"]
    assert told(call("Check", service, MemoryEngine(ready=False))) == ["NOT_SERVING"]


def test_a_service_that_there_is_not_is_not_found() -> None:
    checked = call("Check", "nobody", MemoryEngine())
    assert checked.status == 5
    assert checked.text.startswith("unknown service 'nobody'")


def test_a_client_that_watches_is_told_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_EVERY_S", 0.001)

    async def main() -> None:
        engine = MemoryEngine(ready=False)
        watched = call("Watch", "", engine)
        assert told(watched) == ["NOT_SERVING"]
        await asyncio.sleep(0.01)
        engine.ready = True
        await until(lambda: len(watched.sent) == 2)
        assert told(watched) == ["NOT_SERVING", "SERVING"]
        assert watched.status is None
        watched.cancel()
        engine.ready = False
        await asyncio.sleep(0.01)
        assert len(watched.sent) == 2

    asyncio.run(main())


def test_a_client_that_watches_is_told_that_the_server_goes_down() -> None:
    async def main() -> None:
        engine = MemoryEngine()
        watched = call("Watch", "", engine)
        engine.ready = False
        watched.drain()
        assert told(watched) == ["SERVING", "NOT_SERVING"]
        assert (watched.status, watched.text) == (14, "Server exiting")

    asyncio.run(main())


def test_a_service_that_there_is_not_may_still_be_watched() -> None:
    async def main() -> None:
        watched = call("Watch", "nobody", MemoryEngine())
        assert told(watched) == ["SERVICE_UNKNOWN"]
        assert watched.status is None
        watched.cancel()

    asyncio.run(main())
