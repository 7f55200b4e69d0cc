import asyncio
import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import BYTES, FP32
from modelport.engine.regions import Regions
from modelport.errors import ModelFailed, ModelportError
from modelport.messages import Request, Response
from modelport.protocols.v2_rest import RestOptions
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryDeployment, MemoryEngine, MemoryExchange, MemoryServer

INFER = "/v2/models/m/infer"
BASE = "/v2/systemsharedmemory"
CONFIG = ModelConfig(
    name="m",
    input=(ModelInput(name="I", data_type="TYPE_FP32", dims=(-1,)),),
    output=(ModelOutput(name="O", data_type="TYPE_FP32", dims=(-1,)),),
)


def double(request: Request) -> list[Response | ModelportError]:
    return [
        Response([Tensor("O", t.datatype, t.array if t.datatype is BYTES else t.array * 2)])
        for t in request.payload.tensors
    ]


class Bench:
    """A server with 64 bytes of shared memory, in which the first 8 hold 1.0 and 2.0."""

    def __init__(self, directory: Path, answer: Any = double) -> None:
        self.file = directory / "mine"
        self.file.write_bytes(np.array([1, 2], "<f4").tobytes() + bytes(56))
        self.regions = Regions(directory)
        self.deployment = MemoryDeployment(CONFIG, answer)
        engine = MemoryEngine([self.deployment])
        self.server = MemoryServer(engine, RestOptions(regions=self.regions))

    def post(self, path: str, body: Any = b"") -> MemoryExchange:
        return self.server.send("POST", path, body)

    def get(self, path: str) -> MemoryExchange:
        return self.server.send("GET", path)

    def register(self, name: str = "r", **changes: Any) -> MemoryExchange:
        asked = {"key": "/mine", "offset": 0, "byte_size": 64, **changes}
        given = {key: value for key, value in asked.items() if value is not None}
        return self.post(f"{BASE}/region/{name}/register", given)

    def infer(self, span: Any, output: Any = None, **tensor: Any) -> MemoryExchange:
        given = {"name": "I", "datatype": "FP32", "shape": [2], **tensor}
        body: dict[str, Any] = {"inputs": [{**given, "parameters": shared(*span)}]}
        if output is not None:
            body["outputs"] = [{"name": "O", "parameters": shared(*output)}]
        return self.post(INFER, body)


def shared(region: str, byte_size: int, offset: int = 0) -> dict[str, Any]:
    return {
        "shared_memory_region": region,
        "shared_memory_byte_size": byte_size,
        "shared_memory_offset": offset,
    }


def error_of(exchange: MemoryExchange) -> tuple[int, str]:
    return exchange.status, exchange.json["error"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    assert made.register().status == 200
    return made


def test_tensors_come_from_and_go_to_shared_memory(bench: Bench) -> None:
    exchange = bench.infer(("r", 8), ("r", 16, 32))
    assert exchange.status == 200
    assert exchange.json == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "O", "datatype": "FP32", "shape": [2]}],
    }
    assert bench.file.read_bytes()[32:40] == np.array([2, 4], "<f4").tobytes()


def test_only_the_input_may_come_from_shared_memory(bench: Bench) -> None:
    assert bench.infer(("r", 8)).json["outputs"][0]["data"] == [2.0, 4.0]


def test_only_the_output_may_go_to_shared_memory(bench: Bench) -> None:
    tensor = {"name": "I", "datatype": "FP32", "shape": [1], "data": [4]}
    outputs = [{"name": "O", "parameters": shared("r", 4, 8)}]
    for _ in range(3):
        # The second one is read by the example of the first.
        exchange = bench.post(INFER, {"inputs": [tensor], "outputs": outputs})
        assert exchange.json["outputs"] == [{"name": "O", "datatype": "FP32", "shape": [1]}]
        assert bench.file.read_bytes()[8:12] == np.array([8], "<f4").tobytes()
        bench.file.write_bytes(bytes(64))


def test_text_comes_with_its_lengths(bench: Bench) -> None:
    bench.file.write_bytes(b"\2\0\0\0ab\0\0\0\0" + bytes(54))
    exchange = bench.infer(("r", 10), ("r", 20, 40), datatype="BYTES")
    assert exchange.status == 200
    assert bench.file.read_bytes()[40:50] == b"\2\0\0\0ab\0\0\0\0"


@pytest.mark.parametrize(
    ("span", "output", "status", "text"),
    [
        (("x", 8), None, 404, "Unable to find shared memory region: 'x'"),
        (("r", 8), ("x", 8), 404, "Unable to find shared memory region: 'x'"),
        (("r", 8, 65), None, 400, "Invalid offset for shared memory region: 'r'"),
        (("r", 8, 60), None, 400, "Invalid offset + byte size for shared memory region: 'r'"),
        (("r", 8, 2**64 - 1), None, 400, "Invalid offset for shared memory region: 'r'"),
        (("r", 8), ("r", 65), 400, "Invalid offset + byte size for shared memory region: 'r'"),
        (("r", 12), None, 400, "input byte size mismatch for input 'I' for model 'm'. Expected 8"),
        (
            ("r", 8),
            ("r", 7),
            400,
            "shared memory size specified with the request for output 'O' (7 bytes) should be at "
            "least 8 bytes to hold the results",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_kept(
    bench: Bench, span: Any, output: Any, status: int, text: str
) -> None:
    before = bench.file.read_bytes()
    got, error = error_of(bench.infer(span, output))
    assert (got, error.removeprefix("[request id: <id_unknown>] ")[: len(text)]) == (status, text)
    assert bench.file.read_bytes() == before
    assert_not_held(bench)


def assert_not_held(bench: Bench) -> None:
    held = bench.regions.hold(["r"])
    (region,) = held._by_name.values()
    assert region.users == 1
    held.release()


def test_an_error_of_the_model_lets_the_regions_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda request: [ModelFailed("no")])
    bench.register()
    assert error_of(bench.infer(("r", 8), ("r", 8))) == (500, "no")
    assert_not_held(bench)


def test_a_region_is_kept_until_the_answer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda request: None)
    bench.register()
    exchange = bench.infer(("r", 8), ("r", 8, 16))
    assert not exchange.is_finished
    assert bench.post(f"{BASE}/region/r/unregister").status == 200
    assert bench.get(f"{BASE}/status").json == []
    (sink,) = bench.deployment.sinks
    sink.push(Response([Tensor("O", FP32, np.array([5, 6], np.float32))]), True)
    assert exchange.status == 200
    assert bench.file.read_bytes()[16:24] == np.array([5, 6], "<f4").tobytes()


def test_a_client_that_goes_away_lets_the_regions_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda request: None)
    bench.register()
    exchange = bench.infer(("r", 8), ("r", 8))
    assert exchange.on_disconnect is not None
    exchange.on_disconnect()
    assert bench.deployment.tickets[0].is_cancelled
    assert_not_held(bench)


def large(tmp_path: Path) -> tuple[Bench, dict[str, Any]]:
    bench = Bench(tmp_path)
    size = 20 * 2**20
    bench.file.write_bytes(np.arange(size // 4, dtype="<f4").tobytes())
    assert bench.register(byte_size=size).status == 200
    shape = [size // 4]
    tensor = {"name": "I", "datatype": "FP32", "shape": shape, "parameters": shared("r", size)}
    outputs = [{"name": "O", "parameters": shared("r", size)}]
    return bench, {"inputs": [tensor], "outputs": outputs}


def test_large_inputs_are_read_beside_the_loop(tmp_path: Path) -> None:
    bench, body = large(tmp_path)

    async def main() -> None:
        exchange = bench.post(INFER, body)
        assert not exchange.is_finished
        await exchange.finished.wait()
        assert exchange.status == 200
        assert np.fromfile(bench.file, "<f4", 4).tolist() == [0, 2, 4, 6]
        assert_not_held(bench)

    asyncio.run(main())


def test_a_client_may_go_away_while_its_inputs_are_read(tmp_path: Path) -> None:
    bench, body = large(tmp_path)

    async def main() -> None:
        exchange = bench.post(INFER, body)
        assert exchange.on_disconnect is not None
        exchange.on_disconnect()
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(main())
    assert bench.deployment.requests == []
    assert_not_held(bench)


def test_regions_are_registered_and_told(bench: Bench) -> None:
    region = {"name": "r", "key": "/mine", "offset": 0, "byte_size": 64}
    assert bench.get(f"{BASE}/status").json == [region]
    assert bench.get(f"{BASE}/region/r/status").json == [region]
    assert bench.register("s", offset=8, byte_size=8).status == 200
    assert [one["name"] for one in bench.get(f"{BASE}/status").json] == ["r", "s"]
    assert bench.post(f"{BASE}/region/s/unregister").status == 200
    assert bench.post(f"{BASE}/region/s/unregister").status == 200
    assert error_of(bench.get(f"{BASE}/region/s/status"))[0] == 404
    assert bench.post(f"{BASE}/unregister").status == 200
    assert bench.get(f"{BASE}/status").json == []


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({}, 400, "shared memory region 'r' already in manager"),
        ({"name": "s", "key": None}, 400, "Shared memory register request has no 'key' field"),
        ({"name": "s", "key": "/no"}, 500, "Unable to open shared memory region: '/no'"),
        ({"name": "s", "key": "/"}, 500, "Unable to open shared memory region: '/'"),
        ({"name": "s", "byte_size": 65}, 500, "Invalid shared memory region: '/mine'"),
    ],
)
def test_what_cannot_be_registered_says_why(
    bench: Bench, changes: Any, status: int, text: str
) -> None:
    """With Triton's statuses: what cannot be opened is a failure inside to it."""
    answered, error = error_of(bench.register(**changes))
    assert (answered, error[: len(text)]) == (status, text)


def test_gpu_memory_is_refused(bench: Bench) -> None:
    base = "/v2/cudasharedmemory"
    handle = {"b64": base64.b64encode(bytes(64)).decode()}
    asked = {"raw_handle": handle, "device_id": 0, "byte_size": 4}
    text = "failed to register CUDA shared memory region: 'g', GPUs not supported"
    assert error_of(bench.post(f"{base}/region/g/register", asked)) == (400, text)
    assert error_of(bench.post(f"{base}/region/g/register", {}))[0] == 400
    assert bench.get(f"{base}/status").json == []
    assert error_of(bench.get(f"{base}/region/g/status"))[0] == 404
    assert bench.post(f"{base}/unregister").status == 200
    assert bench.post(f"{base}/region/g/unregister").status == 200


def test_inference_through_shared_memory_is_off_by_default() -> None:
    server = MemoryServer(MemoryEngine([MemoryDeployment(CONFIG, double)]))
    given = {"name": "I", "datatype": "FP32", "shape": [2]}
    for body in (
        {"inputs": [{**given, "parameters": shared("r", 8)}]},
        {
            "inputs": [{**given, "data": [1, 2]}],
            "outputs": [{"name": "O", "parameters": shared("r", 8)}],
        },
    ):
        status, error = error_of(server.send("POST", INFER, body))
        assert (status, error[:35]) == (501, "Client shared memory is disabled. S")
