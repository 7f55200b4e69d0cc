"""What a server keeps of what it has done: nothing, whatever it was asked and however often.

The short form runs always and looks for what is never given back at all; ``MODELPORT_SOAK=1`` runs
200 cycles of loading and unloading and 100 000 requests, and looks at memory, too.
"""

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.served import Served, serving

pytestmark = pytest.mark.slow

IS_SOAK = bool(os.environ.get("MODELPORT_SOAK"))
CYCLES = 200 if IS_SOAK else 6
REQUESTS = 100_000 if IS_SOAK else 2_000
MOST_KB_PER_CYCLE = 50
CONNECTIONS = 8

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.weights = np.ones(1_000_000, np.float32)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        if x[0, 0] < 0:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("x is negative"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x)])
"""
TENSORS = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: -1 }
output { name: "y" data_type: TYPE_FP32 dims: -1 }
"""
MEMBER = f"""
backend: "python" {TENSORS}
dynamic_batching {{ max_queue_delay_microseconds: 100 }}
parameters {{ key: "execution" value {{ string_value: "PLACE" }} }}
"""
ENSEMBLE = f"""
platform: "ensemble" {TENSORS}
ensemble_scheduling {{ step {{
  model_name: "member" model_version: -1
  input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }}
}} }}
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server and its workers hold.

    Attributes:
        resident_kb: Memory of all of them together.
        files: Descriptors of the server.
        workers: Processes that it has.
        shared: Names in shared memory.
    """

    resident_kb: int
    files: int
    workers: int
    shared: frozenset[str]

    @classmethod
    def of(cls, pid: int) -> "Usage":
        workers = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        return cls(
            sum(map(_resident_kb, (pid, *workers))),
            len(os.listdir(f"/proc/{pid}/fd")),
            len(workers),
            frozenset(os.listdir("/dev/shm")),
        )


def _resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


class Caller:
    """Sends requests over one connection."""

    def __init__(self, served: Served) -> None:
        self._connection = http.client.HTTPConnection(served.address, timeout=60)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        self._connection.request("POST", path, json.dumps(body))
        reply = self._connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text else None

    def infer(self, model: str, values: list[float]) -> int:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values}
        status, _ = self.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
        return status

    def control(self, verb: str, model: str) -> None:
        parameters = {"unload_dependents": True} if verb == "unload" else {}
        path = f"/v2/repository/models/{model}/{verb}"
        status, text = self.post(path, {"parameters": parameters})
        assert status == 200, text

    def wait_until_unloaded(self) -> None:
        until = time.monotonic() + 30
        while any(row["state"] != "UNAVAILABLE" for row in self._index()):
            assert time.monotonic() < until
            time.sleep(0.005)

    def _index(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.post("/v2/repository/index", {})[1]
        return rows

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(params=["thread", "process"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    for name, config in (("member", MEMBER), ("ensemble", ENSEMBLE)):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(config.replace("PLACE", request.param))
    (tmp_path / "member" / "1" / "model.py").write_text(MODEL)
    with serving(str(tmp_path), "--model-control-mode", "explicit") as made:
        yield made


def soak(cycle: Callable[[], object], served: Served) -> None:
    """Do the same again and again, and see that the second half leaves nothing behind."""
    pid = served.process.pid
    for _ in range(CYCLES // 2):
        cycle()
    before = Usage.of(pid)
    resident_kb = []
    for _ in range(CYCLES // 2):
        cycle()
        resident_kb.append(Usage.of(pid).resident_kb)
    after = Usage.of(pid)
    assert after.files <= before.files
    assert after.workers == before.workers
    assert after.shared <= before.shared
    if IS_SOAK:
        slope = np.polyfit(range(len(resident_kb)), resident_kb, 1)[0]
        print(f"{slope:.1f} KB per cycle, {resident_kb[0]} to {resident_kb[-1]} KB")
        assert slope <= MOST_KB_PER_CYCLE


def test_loading_and_unloading_leave_nothing(served: Served) -> None:
    caller = Caller(served)

    def cycle() -> None:
        caller.control("load", "ensemble")
        assert caller.infer("ensemble", [1.0] * 1000) == 200
        assert caller.infer("ensemble", [-1.0]) == 500
        caller.control("unload", "ensemble")
        caller.wait_until_unloaded()

    soak(cycle, served)
    caller.close()


def test_requests_leave_nothing(served: Served) -> None:
    callers = [Caller(served) for _ in range(CONNECTIONS)]
    callers[0].control("load", "ensemble")
    share = REQUESTS // CYCLES // CONNECTIONS

    def ask(caller: Caller) -> bool:
        for number in range(share):
            # Answers, errors of the model, refusals, and now and then more than a little.
            values = [1.0] * (20_000 if number % 50 == 0 else 10)
            assert caller.infer("member", values) == 200
            if number % 10 == 0:
                assert caller.infer("ensemble", values[:10]) == 200
                assert caller.infer("member", [-1.0]) == 500
                assert caller.infer("nobody", values[:1]) == 404
        return True

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        soak(lambda: all(pool.map(ask, callers)), served)
    for caller in callers:
        caller.close()
