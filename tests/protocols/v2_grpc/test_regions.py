"""Tensors in shared memory, without a socket."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.engine.regions import Hold, Regions
from modelport.errors import Cancelled, ModelFailed
from modelport.messages import Request, Response
from modelport.protocols.v2 import shared_memory
from modelport.protocols.v2.options import V2Options
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryCall, MemoryDeployment, MemoryEngine, MemoryGrpcServer
from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.v2_grpc.messages import CONFIG, DECOUPLED, TWO, later, response
from tests.waiting import until


def double(request: Request) -> list[Response]:
    return [Response([Tensor("O", t.datatype, t.array * 2) for t in request.payload.tensors])]


class CountingRegions(Regions):
    """Regions that know for how many requests they are held."""

    held = 0

    def hold(self, names: Iterable[str]) -> Hold:
        found = super().hold(names)
        self.held += 1
        return found

    def release(self, regions: Iterable[Any]) -> None:
        super().release(regions)
        # A release after the first one has nothing left to release.
        self.held -= bool(list(regions))


class Bench:
    """A server with 64 bytes of shared memory, in which the first 8 hold 1.0 and 2.0."""

    def __init__(self, directory: Path, answer: Any = double) -> None:
        self.file = directory / "mine"
        self.file.write_bytes(TWO.tobytes() + bytes(56))
        self.regions = CountingRegions(directory)
        self.m = MemoryDeployment(CONFIG, answer)
        self.d = MemoryDeployment(DECOUPLED, answer)
        self.server = MemoryGrpcServer(
            MemoryEngine([self.m, self.d]), V2Options(regions=self.regions)
        )
        self.regions.register("r", "/mine", 0, 64)

    def ask(self, method: str, **members: Any) -> MemoryCall:
        data = getattr(pb, f"{method}Request")(**members).SerializeToString()
        return self.server.call(method, data)

    def infer(self, input: Any = None, output: Any = None, **members: Any) -> MemoryCall:
        return self.server.call("ModelInfer", message(input, output, **members))

    def is_in_use(self) -> bool:
        """Whether a request holds the region."""
        return self.regions.held > 0


def shared(region: str, byte_size: int, offset: int = 0) -> dict[str, pb.InferParameter]:
    return {
        "shared_memory_region": pb.InferParameter(string_param=region),
        "shared_memory_byte_size": pb.InferParameter(int64_param=byte_size),
        "shared_memory_offset": pb.InferParameter(int64_param=offset),
    }


def message(input: Any = None, output: Any = None, model: str = "m") -> bytes:
    request = pb.ModelInferRequest(model_name=model)
    if input is None:
        request.inputs.add(name="I", datatype="FP32", shape=[2])
        request.raw_input_contents.append(TWO.tobytes())
    else:
        count = input[1] // 4
        request.inputs.add(name="I", datatype="FP32", shape=[count], parameters=shared(*input))
    if output is not None:
        request.outputs.add(name="O", parameters=shared(*output))
    return request.SerializeToString()


def answer_of(call: MemoryCall) -> pb.ModelInferResponse:
    assert (call.status, call.text) == (0, "")
    return pb.ModelInferResponse.FromString(call.sent[0])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_tensors_come_from_and_go_to_shared_memory(bench: Bench) -> None:
    for _ in range(2):
        got = answer_of(bench.infer(("r", 8), ("r", 16, 32)))
        assert [output.name for output in got.outputs] == ["O"]
        assert got.raw_output_contents == [b""]
        assert bench.file.read_bytes()[32:40] == (TWO * 2).tobytes()
        assert not bench.is_in_use()


def test_only_the_input_may_come_from_shared_memory(bench: Bench) -> None:
    assert answer_of(bench.infer(("r", 8))).raw_output_contents == [(TWO * 2).tobytes()]
    assert not bench.is_in_use()


def test_only_the_output_may_go_to_shared_memory(bench: Bench) -> None:
    assert answer_of(bench.infer(None, ("r", 8, 8))).raw_output_contents == [b""]
    assert bench.file.read_bytes()[8:16] == (TWO * 2).tobytes()


def test_an_input_in_shared_memory_takes_no_raw_input(bench: Bench) -> None:
    request = pb.ModelInferRequest.FromString(message())
    request.inputs.insert(0, pb.ModelInferRequest.InferInputTensor(
        name="S", datatype="FP32", shape=[2], parameters=shared("r", 8)))  # fmt: skip
    bench.server.call("ModelInfer", request.SerializeToString())
    first, second = bench.m.requests[0].payload.tensors
    assert (first.name, first.array.tolist()) == ("S", [1, 2])
    assert (second.name, second.array.tolist()) == ("I", [1, 2])


@pytest.mark.parametrize(
    ("input", "output", "status", "text"),
    [
        (("x", 8), None, 5, "Unable to find shared memory region: 'x'"),
        (("r", 8), ("x", 8), 5, "Unable to find shared memory region: 'x'"),
        (("r", 8, 65), None, 3, "Invalid offset for shared memory region: 'r'"),
        (("r", 8, 60), None, 3, "Invalid offset + byte size for shared memory region: 'r'"),
        (
            ("r", 8),
            ("r", 4),
            3,
            "shared memory size specified with the request for output 'O' (4 bytes) should be at "
            "least 8 bytes to hold the results",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    bench: Bench, input: Any, output: Any, status: int, text: str
) -> None:
    call = bench.infer(input, output)
    assert call.text.startswith(text)
    assert call.status == status
    assert not bench.is_in_use()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"shared_memory_region": pb.InferParameter(int64_param=1)},
            "invalid value type for 'shared_memory_region' parameter, expected string_param.",
        ),
        (
            {"shared_memory_byte_size": pb.InferParameter(string_param="8")},
            "invalid value type for 'shared_memory_byte_size' parameter, expected int64_param.",
        ),
        (
            {"shared_memory_byte_size": None},
            "parameter 'shared_memory_byte_size' is missing: input 'I' lies in shared memory",
        ),
        (
            {"shared_memory_offset": pb.InferParameter(int64_param=-1)},
            "invalid value -1 for 'shared_memory_offset' parameter, expected 0 or more",
        ),
    ],
)
def test_a_place_that_is_said_wrongly_is_refused(
    bench: Bench, changes: dict[str, Any], text: str
) -> None:
    given = {key: value for key, value in (shared("r", 8) | changes).items() if value is not None}
    entry = {"name": "I", "datatype": "FP32", "shape": [2], "parameters": given}
    call = bench.ask("ModelInfer", model_name="m", inputs=[entry])
    assert (call.status, call.text) == (3, text)


def test_an_output_is_given_as_classes_or_in_shared_memory(bench: Bench) -> None:
    wanted = shared("r", 8) | {"classification": pb.InferParameter(int64_param=1)}
    request = pb.ModelInferRequest.FromString(message())
    request.outputs.add(name="O", parameters=wanted)
    call = bench.server.call("ModelInfer", request.SerializeToString())
    assert call.text == "Output can't set both 'shared_memory_region' and 'classification'"


def test_contents_beside_shared_memory_are_refused(bench: Bench) -> None:
    entry = {
        "name": "I", "datatype": "FP32", "shape": [2], "parameters": shared("r", 8),
        "contents": {"fp32_contents": [1, 2]},
    }  # fmt: skip
    call = bench.ask("ModelInfer", model_name="m", inputs=[entry])
    assert call.text == (
        "unexpected 'content' provided when using shared memory for input tensor 'I' for model 'm'"
    )


def test_a_region_is_kept_until_the_request_is_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path, later)
    for end in ("answer", "fail", "cancel"):
        call = bench.infer(("r", 8), ("r", 8, 8))
        assert bench.is_in_use()
        match end:
            case "answer":
                bench.m.sinks[-1].push(response(), True)
                assert call.status == 0
            case "fail":
                bench.m.sinks[-1].fail(ModelFailed("no"))
                assert call.status == 13
            case "cancel":
                call.cancel()
                assert bench.m.tickets[-1].is_cancelled
                bench.m.sinks[-1].fail(Cancelled("gone"))
                assert call.status is None
        assert not bench.is_in_use()


def test_a_model_that_does_not_take_a_request_lets_go_of_its_region(bench: Bench) -> None:
    bench.server.engine.resolve_error = ModelFailed("no")
    assert bench.infer(("r", 8)).status == 13
    assert not bench.is_in_use()


def test_large_inputs_are_read_on_a_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "MOST_COPIED_ON_LOOP", 4)

    async def main() -> None:
        call = bench.infer(("r", 8), ("r", 8, 8))
        assert call.status is None
        assert bench.is_in_use()
        await call.finished.wait()
        assert bench.file.read_bytes()[8:16] == (TWO * 2).tobytes()
        assert not bench.is_in_use()
        bench.infer(("r", 8)).cancel()
        await until(lambda: not bench.is_in_use())
        assert len(bench.m.requests) == 1

    asyncio.run(main())


def test_a_stream_reads_and_writes_regions_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, later)
    call, receiver = bench.server.open()
    receiver.message(message(("r", 8), ("r", 8, 8)))
    receiver.message(message(("r", 8), ("r", 8, 16), model="d"))
    bench.d.sinks[0].push(response(5, 6), False)
    assert bench.file.read_bytes()[16:24] == np.array([5, 6], "<f4").tobytes()
    bench.d.sinks[0].push(response(7, 8), False)
    assert bench.file.read_bytes()[16:24] == np.array([7, 8], "<f4").tobytes()
    bench.m.sinks[0].push(response(3, 4), True)
    assert bench.is_in_use()
    bench.d.sinks[0].end()
    assert not bench.is_in_use()
    got = [pb.ModelStreamInferResponse.FromString(sent) for sent in call.sent]
    assert [one.infer_response.model_name for one in got] == ["d", "d", "m"]
    assert all(one.infer_response.raw_output_contents == [b""] for one in got)


def test_a_stream_stops_a_model_whose_response_does_not_fit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, later)
    call, receiver = bench.server.open()
    receiver.message(message(("r", 8), ("r", 4, 8), model="d"))
    bench.d.sinks[0].push(response(), False)
    bench.d.sinks[0].push(response(), False)
    (sent,) = call.sent
    assert "(4 bytes)" in pb.ModelStreamInferResponse.FromString(sent).error_message
    assert bench.d.tickets[0].is_cancelled
    assert not bench.is_in_use()


def test_a_producer_in_shared_memory_waits_and_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, later)
    call, receiver = bench.server.open()
    receiver.message(message(("r", 8), model="d"))
    call.is_full = True
    assert not bench.d.sinks[0].push(response(), False)
    call.read_again()
    assert bench.d.tickets[0].resumed == 1


# Registering.


def test_regions_are_registered_told_and_forgotten(bench: Bench) -> None:
    assert bench.ask(
        "SystemSharedMemoryRegister", name="s", key="/mine", offset=8, byte_size=16
    ).status == 0  # fmt: skip

    def status(**members: Any) -> Any:
        call = bench.ask("SystemSharedMemoryStatus", **members)
        return pb.SystemSharedMemoryStatusResponse.FromString(call.sent[0]).regions

    assert set(status()) == {"r", "s"}
    one = status(name="s")["s"]
    assert (one.name, one.key, one.offset, one.byte_size) == ("s", "/mine", 8, 16)
    bench.ask("SystemSharedMemoryUnregister", name="s")
    assert set(status()) == {"r"}
    call = bench.ask("SystemSharedMemoryStatus", name="s")
    assert (call.status, call.text) == (5, "Unable to find system shared memory region: 's'")
    bench.ask("SystemSharedMemoryUnregister")
    assert not status()


def test_a_region_that_is_there_already_is_refused(bench: Bench) -> None:
    call = bench.ask("SystemSharedMemoryRegister", name="r", key="/mine", byte_size=8)
    assert call.status == 6
    assert call.text.startswith("shared memory region 'r' already in manager")


def test_gpu_memory_is_refused(bench: Bench) -> None:
    call = bench.ask("CudaSharedMemoryRegister", name="g", raw_handle=bytes(64), byte_size=8)
    assert (call.status, call.text) == (
        3,
        "failed to register CUDA shared memory region: 'g', GPUs not supported",
    )
    call = bench.ask("CudaSharedMemoryRegister", name="g", raw_handle=b"short")
    assert call.text == "'raw_handle' must be 64 bytes, got 5"
    assert bench.ask("CudaSharedMemoryStatus").sent == [b""]
    assert bench.ask("CudaSharedMemoryStatus", name="g").status == 5
    assert bench.ask("CudaSharedMemoryUnregister", name="g").status == 0
