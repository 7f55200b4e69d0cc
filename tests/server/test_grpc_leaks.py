"""What calls leave behind, answered or cancelled: nothing.

The bounded form runs always; ``MODELPORT_SOAK=1`` makes 100 000 calls and cancels 1 000 streams.
"""

import os
import random
import re
import shutil
import statistics
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.served import Served, serving

pytestmark = pytest.mark.slow

IS_SOAK = bool(os.environ.get("MODELPORT_SOAK"))
CALLS = 100_000 if IS_SOAK else 2_000
STREAMS = 1_000 if IS_SOAK else 60
AT_ONCE = 64
STREAMS_AT_ONCE = 16
SAMPLES = 20
BYTES_PER_CALL = 1.024
"""1 KB for a thousand."""
STREAM_BYTES = 2_000_000
"""What the allocator may take in steps; it does not grow with their number."""
SLACK_BYTES = 0 if IS_SOAK else 4_000_000
"""A short run does not tell what is lost from what is warm now."""
SERVICE = "/inference.GRPCInferenceService"
EXAMPLES = Path(__file__).parents[2] / "examples" / "models"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("models")
    for name in ("identity", "repeat"):
        shutil.copytree(EXAMPLES / name, repository / name)
    with serving(str(repository)) as served:
        yield served


def test_calls_leave_no_memory_and_no_request(served: Served) -> None:
    message = pb.ModelInferRequest(model_name="identity")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[10])
    message.raw_input_contents.append(np.arange(10, dtype=np.float32).tobytes())
    data = message.SerializeToString()
    with grpc.insecure_channel(served.grpc_address) as channel:
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")

        def call(count: int) -> None:
            under_way: list[grpc.Future] = []
            for _ in range(count):
                under_way.append(infer.future(data, timeout=60))
                if len(under_way) == AT_ONCE:
                    settle(under_way)
            settle(under_way)

        call(CALLS // 4)  # what is kept for good is made
        samples = [resident_bytes(served)]
        for _ in range(SAMPLES):
            call(CALLS // SAMPLES)
            samples.append(resident_bytes(served))
    report("calls", samples, CALLS)
    assert lost_bytes(samples) <= BYTES_PER_CALL * CALLS + SLACK_BYTES, samples
    assert waiting(served) == 0


def settle(under_way: "list[grpc.Future]") -> None:
    for call in under_way:
        assert call.result()
    under_way.clear()


def test_streams_cancelled_anywhere_leave_no_memory_and_no_request(served: Served) -> None:
    source = random.Random(5)
    with grpc.insecure_channel(served.grpc_address) as channel:
        stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")

        def cancel(count: int) -> None:
            calls = []
            for _ in range(count):
                calls.append((stream(repeats(source)), source.randrange(40)))
                if len(calls) == STREAMS_AT_ONCE:
                    leave(calls)
            leave(calls)

        cancel(STREAMS)  # what is kept for good is made
        samples = [resident_bytes(served)]
        for _ in range(SAMPLES):
            cancel(STREAMS // SAMPLES)
            samples.append(resident_bytes(served))
        until_nothing_waits(served)
        # The models are free again, all of their instances.
        answers = stream(repeats(source, requests=1, words=3))
        assert len(list(answers)) == 3
    report("streams", samples, STREAMS)
    assert lost_bytes(samples) <= STREAM_BYTES + SLACK_BYTES, samples


def leave(calls: list[tuple[grpc.Call, int]]) -> None:
    """Read some responses of each, then break it off."""
    for call, responses in calls:
        for _ in range(responses):
            if next(call, None) is None:
                break
    for call, _ in calls:
        call.cancel()
    calls.clear()


def repeats(source: random.Random, *, requests: int = 3, words: int = 0) -> Iterator[bytes]:
    """Give requests for a word at a time."""
    for _ in range(requests):
        text = b"word " * (words or source.randint(1, 400))
        message = pb.ModelInferRequest(model_name="repeat")
        message.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        message.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
        yield message.SerializeToString()


def lost_bytes(samples: list[int]) -> float:
    """How much more there is at the end than at the beginning, by the line through all of them."""
    line = statistics.linear_regression(range(len(samples)), samples)
    return line.slope * (len(samples) - 1)


def report(what: str, samples: list[int], count: int) -> None:
    kb = lost_bytes(samples) / 1024
    print(f"{count} {what}: {kb:.0f} KB more, {kb / count * 1000:.2f} KB for a thousand")


def until_nothing_waits(served: Served) -> None:
    until = time.monotonic() + 20
    while waiting(served):
        assert time.monotonic() < until, "requests are left in the engine"
        time.sleep(0.02)


def waiting(served: Served) -> int:
    """Requests that the server holds, by its own metrics."""
    url = served.metrics_url or f"{served.url}/metrics"
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    found = re.findall(
        r"^(?:nv_inference_pending_request_count|modelport_busy_instances)\{.*\} (\S+)$", text, re.M
    )
    assert found
    return sum(int(float(value)) for value in found)


def resident_bytes(served: Served) -> int:
    pages = Path(f"/proc/{served.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096
