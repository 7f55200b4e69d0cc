"""Calls that have no end of their own do not hold up the end of the server."""

import contextlib
import queue
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from modelport.wire.proto import health_pb2, reflection_pb2
from tests.protocols.test_v2_grpc_cancelled import numbers
from tests.served import serving

pytestmark = pytest.mark.slow

WITHIN_S = 25
"""Less than the exit timeout."""
LIST = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()


class Open:
    """One message, and then nothing until it is closed."""

    def __init__(self, message: bytes) -> None:
        self._messages: queue.Queue[bytes | None] = queue.Queue()
        self._messages.put(message)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._messages.get, None)

    def close(self) -> None:
        self._messages.put(None)


def read(call: grpc.Call) -> Iterator[bytes]:
    """What still comes, up to the end of the call, whichever it is."""
    with contextlib.suppress(grpc.RpcError):
        yield from call


def test_a_server_ends_while_clients_keep_calls_open() -> None:
    identity = Path(__file__).parents[2] / "examples" / "models" / "identity"
    with serving(str(identity)) as served, grpc.insecure_channel(served.grpc_address) as channel:
        infer = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        requests = Open(numbers(2))
        questions = Open(LIST)
        calls = [
            infer(iter(requests), timeout=WITHIN_S),
            ask(iter(questions), timeout=WITHIN_S),
            watch(b"", timeout=WITHIN_S),
        ]
        first = [next(call) for call in calls]
        assert pb.ModelStreamInferResponse.FromString(first[0]).infer_response.outputs
        served.process.terminate()
        assert served.process.wait(WITHIN_S) == 0
        last = list(read(calls[2]))
        assert [health_pb2.HealthCheckResponse.FromString(one).status for one in last] == [
            health_pb2.HealthCheckResponse.NOT_SERVING
        ]
        for call in calls:
            assert list(read(call)) == []
            assert (call.code(), call.details()) == (
                grpc.StatusCode.UNAVAILABLE,
                "Server exiting",
            )
        requests.close()
        questions.close()
