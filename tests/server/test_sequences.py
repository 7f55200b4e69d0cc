"""Sequences over sockets: hundreds at once, at random, with callers that go away."""

import asyncio
import json
import os
import random
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from grpc import aio

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.served import Served, serving

pytestmark = pytest.mark.slow

SEQUENCES = 500
GRPC_SEQUENCES = int(os.environ.get("MODELPORT_GRPC_SEQUENCES", "60"))
"""Over gRPC the client takes most of the time, so all 500 are for who asks for them."""
STEPS = 50
LIMIT_S = 240
STEP_OF_LOST = 10**6
"""Steps whose caller goes away add a multiple of this, each another power of two."""

CONFIG = """
max_batch_size: 32
input {{ name: "x" data_type: TYPE_INT64 dims: 1 }}
output {{ name: "sum" data_type: TYPE_INT64 dims: 1 }}
instance_group {{ count: 2 }}
sequence_batching {{
  {strategy}
  max_sequence_idle_microseconds: 60000000
  control_input {{ name: "START" control {{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }} }}
  control_input {{ name: "READY" control {{ kind: CONTROL_SEQUENCE_READY int32_false_true: [0, 1] }} }}
  control_input {{
    name: "CORRID" control {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }}
  }}
  {more}
}}
"""  # noqa: E501
HEAD = """
import numpy as np
import triton_python_backend_utils as pb_utils

def value(request, name):
    return int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().flat[0])

def respond(total, *more):
    total = np.array([[total]], np.int64)
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, total) for name in ("sum", *more)])

class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}
"""
BY_ID = """
    def execute(self, requests):
        responses = []
        for request in requests:
            key = value(request, "CORRID")
            assert key == request.correlation_id()
            if value(request, "START"):
                self.sums[key] = 0
            if value(request, "x") == -1:
                import os
                os._exit(1)
            self.sums[key] += value(request, "x")
            responses.append(respond(self.sums[key]))
        return responses
"""
BY_PLACE = """
    def execute(self, requests):
        responses = []
        for place, request in enumerate(requests):
            if value(request, "START"):
                self.sums[place] = 0
            if value(request, "READY"):
                self.sums[place] += value(request, "x")
            responses.append(respond(self.sums.get(place, -1)))
        return responses
"""
BY_STATE = """
    def execute(self, requests):
        return [respond(value(r, "before") + value(r, "x"), "after") for r in requests]
"""
STATE = """
  state { input_name: "before" output_name: "after" data_type: TYPE_INT64 dims: 1 }
"""
PROCESSES = 'parameters { key: "execution" value { string_value: "process" } }'
MODELS = {
    "by_id": (BY_ID, "oldest { max_candidate_sequences: 200 }", "", ""),
    "by_place": (BY_PLACE, "direct { }", "", ""),
    "in_processes": (BY_ID, "oldest { max_candidate_sequences: 200 }", "", PROCESSES),
    "by_state": (BY_STATE, "oldest { max_candidate_sequences: 100 }", STATE, ""),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("sequences")
    for name, (execute, strategy, more, outside) in MODELS.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(HEAD + execute)
        config = CONFIG.format(strategy=strategy, more=more)
        (version.parent / "config.pbtxt").write_text(config + outside)
    with serving(str(repository)) as served:
        yield served


@dataclass
class Caller:
    """One caller with one sequence after another, under one id."""

    server: Served
    model: str
    id: int
    dice: random.Random
    answers: int = 0
    restarts: int = 0
    lost: list[int] = field(default_factory=list)

    async def run(self) -> None:
        total = 0
        is_begun = False
        for number in range(STEPS):
            starts = not is_begun or self.dice.random() < 0.03
            ends = number == STEPS - 1 or self.dice.random() < 0.03
            if starts:
                total = 0
                self.restarts += 1
            if not starts and self.dice.random() < 0.04:
                await self.go_away()
            step = self.dice.randrange(1, 100)
            total += step
            answer = await self.ask(step, starts, ends)
            surely, maybe = answer % STEP_OF_LOST, answer // STEP_OF_LOST
            assert surely == total, f"sequence {self.id}, step {number}: {answer}, not {total}"
            assert maybe & ~sum(self.lost) == 0, f"sequence {self.id}: {answer} is another's"
            self.answers += 1
            is_begun = not ends
            if self.dice.random() < 0.2:
                await asyncio.sleep(self.dice.random() * 0.02)

    async def ask(self, step: int, starts: bool, ends: bool) -> int:
        if not self.connection:
            self.connection = await asyncio.open_connection(*self.server.address.split(":"))
        reader, writer = self.connection
        writer.write(self.request(step, starts, ends))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        assert head.split()[1] == b"200", f"sequence {self.id}: {body}"
        answer: int = body["outputs"][0]["data"][0]
        return answer

    async def go_away(self) -> None:
        """Send a step and leave: whether the model sees it is open, and nothing else is."""
        lost = 1 << len(self.lost)
        self.lost.append(lost)
        _, writer = await asyncio.open_connection(*self.server.address.split(":"))
        writer.write(self.request(lost * STEP_OF_LOST, False, False))
        await writer.drain()
        if self.dice.random() < 0.5:
            await asyncio.sleep(self.dice.random() * 0.02)
        writer.close()

    def request(self, step: int, starts: bool, ends: bool) -> bytes:
        body = json.dumps(
            {
                "parameters": {
                    "sequence_id": self.id,
                    "sequence_start": starts,
                    "sequence_end": ends,
                },
                "inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [step]}],
            }
        ).encode()
        head = f"POST /v2/models/{self.model}/infer HTTP/1.1\r\nHost: localhost\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None


@dataclass
class GrpcCaller(Caller):
    """The same over gRPC, on a channel that it shares with others."""

    channel: aio.Channel | None = None

    async def ask(self, step: int, starts: bool, ends: bool) -> int:
        reply = pb.ModelInferResponse.FromString(await self.call(step, starts, ends))
        answer: int = struct.unpack("<q", reply.raw_output_contents[0])[0]
        return answer

    async def go_away(self) -> None:
        lost = 1 << len(self.lost)
        self.lost.append(lost)
        call = self.call(lost * STEP_OF_LOST, False, False)
        await asyncio.sleep(self.dice.random() * 0.02)
        call.cancel()

    def call(self, step: int, starts: bool, ends: bool) -> aio.UnaryUnaryCall[bytes, bytes]:
        request = pb.ModelInferRequest(
            model_name=self.model, raw_input_contents=[struct.pack("<q", step)]
        )
        request.inputs.add(name="x", datatype="INT64", shape=[1, 1])
        request.parameters["sequence_id"].int64_param = self.id
        request.parameters["sequence_start"].bool_param = starts
        request.parameters["sequence_end"].bool_param = ends
        assert self.channel is not None
        method = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        return method(request.SerializeToString(), timeout=LIMIT_S)


def test_a_process_that_ends_takes_its_sequences_with_it(server: Served) -> None:
    async def main() -> None:
        dice = random.Random(1)
        # Two of them, one for each instance.
        callers = [Caller(server, "in_processes", 9_000 + number, dice) for number in range(2)]
        for caller in callers:
            assert await caller.ask(5, starts=True, ends=False) == 5
        with pytest.raises(AssertionError):
            await callers[0].ask(-1, starts=False, ends=False)
        async with asyncio.timeout(LIMIT_S):
            # It waits for the process, which then knows nothing of it.
            with pytest.raises(AssertionError, match=r"lost with its process|the START flag"):
                await callers[0].ask(1, starts=False, ends=False)
            assert await callers[0].ask(1, starts=True, ends=False) == 1
        assert await callers[0].ask(1, starts=False, ends=True) == 2
        assert await callers[1].ask(6, starts=False, ends=True) == 11
        for caller in callers:
            assert caller.connection is not None
            caller.connection[1].close()

    asyncio.run(main())


@pytest.mark.parametrize("model", MODELS)
def test_hundreds_of_sequences_at_random_each_get_their_own_values(
    server: Served, model: str
) -> None:
    dice = random.Random(model)
    callers = [
        Caller(server, model, number + 1, random.Random(dice.random()))
        for number in range(SEQUENCES)
    ]

    async def main() -> None:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(caller.run() for caller in callers))
        for caller in callers:
            assert caller.connection is not None
            caller.connection[1].close()

    asyncio.run(main())
    assert sum(caller.answers for caller in callers) == SEQUENCES * STEPS
    assert sum(len(caller.lost) for caller in callers) > SEQUENCES
    assert sum(caller.restarts for caller in callers) > SEQUENCES


@pytest.mark.parametrize("model", ["by_id", "by_place", "in_processes", "by_state"])
def test_over_grpc_too_each_gets_its_own_values(server: Served, model: str) -> None:
    dice = random.Random(model)

    async def main() -> None:
        # A channel is a connection: calls of many sequences share it, and are cancelled on it.
        channels = [
            aio.insecure_channel(server.grpc_address, [("grpc.use_local_subchannel_pool", 1)])
            for _ in range(5)
        ]
        callers = [
            GrpcCaller(server, model, 10_000 + number, random.Random(dice.random()))
            for number in range(GRPC_SEQUENCES)
        ]
        for number, caller in enumerate(callers):
            caller.channel = channels[number % len(channels)]
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(caller.run() for caller in callers))
        for channel in channels:
            await channel.close()
        assert sum(caller.answers for caller in callers) == GRPC_SEQUENCES * STEPS
        assert sum(len(caller.lost) for caller in callers) > GRPC_SEQUENCES

    asyncio.run(main())


def test_requests_that_come_again_share_batches(counting: Served) -> None:
    """Iterative sequences: each request streams its own countdown, beside the others'."""
    numbers = [1, 2, 7, 30, 100]

    def count_down(number: int) -> list[int]:
        url = f"{counting.url}/v2/models/countdown/generate_stream"
        request = Request(url, json.dumps({"n": number}).encode())
        with urlopen(request, timeout=LIMIT_S) as answer:
            lines = [line for line in answer if line.startswith(b"data: ")]
        return [json.loads(line[len(b"data: ") :])["left"] for line in lines]

    with ThreadPoolExecutor(len(numbers)) as pool:
        heard = list(pool.map(count_down, numbers))
    assert heard == [list(range(number - 1, -1, -1)) for number in numbers]


@pytest.fixture(params=["thread", "process"])
def counting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    version = tmp_path / "countdown" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(HEAD + COUNTDOWN)
    (version.parent / "config.pbtxt").write_text(COUNTDOWN_CONFIG)
    with serving(str(tmp_path), "--execution", request.param) as served:
        yield served


COUNTDOWN_CONFIG = """
max_batch_size: 8
input { name: "n" data_type: TYPE_INT32 dims: 1 }
output { name: "left" data_type: TYPE_INT32 dims: 1 }
model_transaction_policy { decoupled: true }
sequence_batching {
  iterative_sequence: true
  oldest { max_candidate_sequences: 100 }
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }
}
"""
COUNTDOWN = """
    def execute(self, requests):
        for request in requests:
            key = request.correlation_id()
            if value(request, "START"):
                self.sums[key] = value(request, "n")
            self.sums[key] -= 1
            is_last = self.sums[key] == 0
            left = pb_utils.Tensor("left", np.array([[self.sums[key]]], np.int32))
            request.get_response_sender().send(
                pb_utils.InferenceResponse([left]),
                flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0,
            )
            if not is_last:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
"""
