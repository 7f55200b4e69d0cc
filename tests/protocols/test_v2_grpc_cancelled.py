"""Many calls and streams, cancelled wherever they happen to be: nothing of them may stay."""

import asyncio
import contextlib
import random
import re
import time
from pathlib import Path
from urllib.request import urlopen

import grpc
import numpy as np
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.served import Served, serving

pytestmark = pytest.mark.slow

SERVICE = "/inference.GRPCInferenceService"
WITHIN_S = 30
STREAMS = 400
CALLS = 4_000
MOST_GROWTH_BYTES = 24 * 2**20
"""What an allocator may keep of a crowd; a leak of one stream's buffers would be far more."""


def words(count: int) -> bytes:
    message = pb.ModelInferRequest(model_name="repeat", id="w")
    message.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    message.inputs[0].contents.bytes_contents.append(b"word " * count)
    return message.SerializeToString()


def numbers(size: int) -> bytes:
    message = pb.ModelInferRequest(model_name="identity")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[size])
    message.raw_input_contents.append(np.zeros(size, "<f4").tobytes())
    return message.SerializeToString()


async def cancelled_stream(channel: grpc.aio.Channel, source: random.Random) -> None:
    """Send some requests, read some responses, and leave at any moment."""
    stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(timeout=WITHIN_S)
    for _ in range(source.randrange(4)):
        await stream.write(source.choice((words(300), words(3), numbers(2000))))
    if source.random() < 0.3:
        await stream.done_writing()
    else:
        for _ in range(source.randrange(20)):
            try:
                async with asyncio.timeout(0.05):
                    await stream.read()
            except TimeoutError:
                break
    await asyncio.sleep(source.random() * 0.01)
    stream.cancel()


async def cancelled_call(channel: grpc.aio.Channel, source: random.Random) -> None:
    call = channel.unary_unary(f"{SERVICE}/ModelInfer")(
        numbers(source.choice((1, 5000))), timeout=WITHIN_S
    )
    if source.random() < 0.5:
        await asyncio.sleep(source.random() * 0.005)
        call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call


async def crowd(address: str, seed: int) -> None:
    source = random.Random(seed)
    options = [("grpc.use_local_subchannel_pool", 1)]
    for _ in range(4):
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            for _ in range(STREAMS // 4 // 50):
                await asyncio.gather(*(cancelled_stream(channel, source) for _ in range(50)))
            for _ in range(CALLS // 4 // 200):
                await asyncio.gather(*(cancelled_call(channel, source) for _ in range(200)))


def pending(served: Served) -> dict[str, int]:
    text = urlopen(served.metrics_url, timeout=WITHIN_S).read().decode()
    rows = re.findall(r'nv_inference_pending_request_count\{model="(\w+)".*?\} (\d+)', text)
    return {model: int(count) for model, count in rows}


def resident_bytes(served: Served) -> int:
    statm = Path(f"/proc/{served.process.pid}/statm").read_text()
    return int(statm.split()[1]) * 4096


def test_nothing_stays_of_what_was_cancelled(example_models: Path) -> None:
    with serving(str(example_models)) as served:
        asyncio.run(crowd(served.grpc_address, seed=1))
        settled(served)
        before = resident_bytes(served)
        asyncio.run(crowd(served.grpc_address, seed=2))
        settled(served)
        assert resident_bytes(served) - before < MOST_GROWTH_BYTES
        with grpc.insecure_channel(served.grpc_address) as channel:
            infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
            answer = pb.ModelInferResponse.FromString(infer(numbers(2), timeout=WITHIN_S))
        assert answer.raw_output_contents == [bytes(8)]


def settled(served: Served) -> None:
    """Wait until no model has a request, which must come to pass by itself."""
    assert pending(served)
    until = time.monotonic() + WITHIN_S
    while any(pending(served).values()):
        assert time.monotonic() < until, pending(served)
        time.sleep(0.05)
