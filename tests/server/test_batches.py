"""One bad request in a batch, in every runtime that can tell it from the others, for real.

Batches of exactly four: an instance waits for that size, and longer than the requests take to come.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import skops.io
from onnx import helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from tests.served import Served, serving

pytestmark = pytest.mark.slow

BATCHING = """
dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 20000000 }
"""
TRITON = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        if x[0, 0] < 0:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("x is negative"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x)])
"""
FUNCTION = """
import modelport


@modelport.model(inputs={"x": "FP32[-1, 1]"}, outputs={"y": "FP32[-1, 1]"}, max_batch_size=8)
def double(x):
    if (x < 0).any():
        raise ValueError("x is negative")
    return 2 * x
"""
TENSORS = """
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""
PROCESS = 'parameters { key: "execution" value { string_value: "process" } }'


class Case(NamedTuple):
    """A model, and inputs of which it refuses one."""

    model: str
    name: str
    datatype: str
    good: list[float]
    bad: list[float]
    told: str


CASES = (
    Case("triton", "x", "FP32", [3], [-1], "x is negative"),
    Case("process", "x", "FP32", [3], [-1], "x is negative"),
    Case("function", "x", "FP32", [3], [-1], "ValueError: x is negative"),
    Case("lookup", "x", "INT64", [3], [99], "indices element out of data bounds"),
    Case("iris", "x", "FP64", [5, 3, 1, 0], [5, 3, 1, float("nan")], "contains NaN"),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("models")

    def write(name: str, config: str, filename: str = "", content: str = "") -> Path:
        directory = root / name / "1"
        directory.mkdir(parents=True)
        if filename:
            (directory / filename).write_text(content)
        (root / name / "config.pbtxt").write_text(f"max_batch_size: 8 {BATCHING} {config}")
        return directory

    write("triton", f'backend: "python" {TENSORS}', "model.py", TRITON)
    write("process", f'backend: "python" {TENSORS} {PROCESS}', "model.py", TRITON)
    write("function", "", "model.py", FUNCTION)
    _save_lookup(write("lookup", 'backend: "onnxruntime"') / "model.onnx")
    iris = load_iris()
    model = LogisticRegression(max_iter=300).fit(iris.data, iris.target)
    skops.io.dump(model, write("iris", "input { name: 'x' data_type: TYPE_FP64 dims: 4 }")
                  / "model.skops")  # fmt: skip
    with serving(str(root)) as made:
        yield made


def _save_lookup(file: Path) -> None:
    table = numpy_helper.from_array(np.arange(10, dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"], axis=0)],
        "lookup",
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1])],
        [table],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, file)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model)
def test_bad_requests_of_two_batches_fail_alone(served: Served, case: Case) -> None:
    base = f"{served.url}/v2/models/{case.model}"

    def ask(values: list[float]) -> Any:
        tensor = {"name": case.name, "datatype": case.datatype, "shape": [1, len(values)]}
        body = json.dumps({"inputs": [{**tensor, "data": values}]}).encode()
        try:
            with urllib.request.urlopen(f"{base}/infer", body, timeout=40) as reply:
                return json.load(reply)["outputs"][0]["data"]
        except urllib.error.HTTPError as refused:
            return json.load(refused)["error"]

    with ThreadPoolExecutor(4) as pool:
        expected = None
        for _ in range(2):
            answers = list(pool.map(ask, [case.good, case.good, case.bad, case.good]))
            *good, bad = answers[0], answers[1], answers[3], answers[2]
            assert case.told in bad
            expected = expected or good[0]
            assert isinstance(expected, list)
            assert good == [expected] * 3
    with urllib.request.urlopen(f"{base}/stats") as reply:
        statistics = json.load(reply)["model_stats"][0]
    assert [row["batch_size"] for row in statistics["batch_stats"]] == [4], "they shared batches"
    assert statistics["inference_stats"]["success"]["count"] == 6
    assert statistics["inference_stats"]["fail"]["count"] == 2
