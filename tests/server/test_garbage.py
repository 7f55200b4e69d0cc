"""What requests were made of goes when they are over, and does not wait for the collector.

Each look of the garbage collector at circles holds everybody up for about 2 ms.
"""

import json
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.served import Served, serving

SAMPLE = Path(__file__).with_name("garbage_sample.py")
EXAMPLES = Path(__file__).parents[2] / "examples" / "models"
SERVICE = "/inference.GRPCInferenceService"
OF_REQUESTS = {"Job", "Request", "Tensors", "HttpExchange", "GrpcCall", "Http2Exchange"}
WITHIN_S = 20

SERVICE_FILE = """
import modelport

@modelport.service
class Adder:
    @modelport.api(batchable=True)
    def add(self, x: list[int]) -> list[int]:
        return [each + 1 for each in x]

    @modelport.api
    async def count(self, upto: int) -> "AsyncGenerator[str, None]":
        for each in range(upto):
            yield str(each)

from collections.abc import AsyncGenerator
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("models")
    for name in ("identity", "repeat"):
        shutil.copytree(EXAMPLES / name, repository / name)
    with serving(
        str(repository), "--execution", "thread", command=(sys.executable, str(SAMPLE))
    ) as served:
        yield served


def post(served: Served, path: str, body: object) -> bytes:
    request = urllib.request.Request(
        served.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: bytes = answer.read()
        return found


def said(served: Served, start: str) -> str:
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        for line in list(served.lines):
            if line.startswith(start):
                served.lines.remove(line)
                return line
        time.sleep(0.02)
    raise AssertionError(f"the server did not say {start!r}: {served.lines}")


def garbage(served: Served, ask: Callable[[], object]) -> set[str]:
    """What only the collector finds after some requests like one that has been answered."""
    ask()
    served.process.send_signal(signal.SIGUSR1)
    said(served, "begun")
    for _ in range(3):
        ask()
    time.sleep(0.1)  # what is still told between threads
    served.process.send_signal(signal.SIGUSR2)
    return set(said(served, "garbage:").split()[1:-1])


def tensor(name: str, datatype: str, value: float) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": [1], "data": [value]}


def test_inference_leaves_none(models: Served) -> None:
    body = {"inputs": [tensor("INPUT0", "FP32", 1.5)]}
    assert (
        not garbage(models, lambda: post(models, "/v2/models/identity/infer", body)) & OF_REQUESTS
    )


def test_refused_requests_leave_none(models: Served) -> None:
    def refused() -> None:
        with pytest.raises(urllib.error.HTTPError):
            post(models, "/v2/models/identity/infer", {"inputs": [tensor("NONE", "FP32", 1)]})

    assert not garbage(models, refused) & OF_REQUESTS


def test_streams_leave_none(models: Served) -> None:
    body = {"text_input": "a word", "count": 3}
    found = garbage(models, lambda: post(models, "/v2/models/repeat/generate_stream", body))
    assert not found & OF_REQUESTS


def test_calls_and_streams_over_grpc_leave_none(models: Served) -> None:
    message = pb.ModelInferRequest(model_name="identity")
    part = message.inputs.add(name="INPUT0", datatype="FP32", shape=[1])
    part.contents.fp32_contents.append(1.5)
    with grpc.insecure_channel(models.grpc_address) as channel:
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
        stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")

        def ask() -> None:
            data = message.SerializeToString()
            infer(data, timeout=30)
            assert len(list(stream(iter([data, data]), timeout=30))) == 2

        assert not garbage(models, ask) & OF_REQUESTS


def test_calls_of_services_leave_none(tmp_path: Path) -> None:
    file = tmp_path / "adder.py"
    file.write_text(SERVICE_FILE)
    with serving(str(file), command=(sys.executable, str(SAMPLE))) as served:

        def ask() -> None:
            assert json.loads(post(served, "/add", {"x": [1, 2]})) == [2, 3]
            assert post(served, "/count", {"upto": 3}) == b"012"

        assert not garbage(served, ask) & OF_REQUESTS
