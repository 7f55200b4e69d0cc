"""An ONNX graph without a memory, served as one that follows sequences."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelport.dtypes import FP32
from modelport.engine.engine import Engine, EngineOptions
from modelport.engine.executor import call_on_thread
from modelport.errors import ModelportError
from modelport.messages import Request, Response, Tensors
from modelport.repository.options import RepositoryOptions
from modelport.repository.repository import Repository
from modelport.repository.sources import RepositorySource
from modelport.tensors import Tensor

CONFIG = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "sum" data_type: TYPE_FP32 dims: 2 }
sequence_batching {
  direct { }
  control_input { name: "READY" control { kind: CONTROL_SEQUENCE_READY fp32_false_true: [0, 1] } }
  state {
    input_name: "before" output_name: "after" data_type: TYPE_FP32 dims: 2
    initial_state { name: "first" data_type: TYPE_FP32 dims: 2 data_file: "first" }
  }
}
"""


class Answer:
    """Waits for the one response."""

    def __init__(self) -> None:
        self.heard: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def push(self, response: Response, final: bool) -> bool:
        self.heard.set_result(response)
        return True

    def end(self) -> None:
        raise AssertionError("ended without a response")

    def fail(self, error: ModelportError) -> None:
        self.heard.set_exception(error)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A graph that gives ``before + READY * x``, as its output and as its next state."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "READY"], ["counted"]),
            helper.make_node("Add", ["before", "counted"], ["sum"]),
            helper.make_node("Identity", ["sum"], ["after"]),
        ],
        "sum",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("READY", TensorProto.FLOAT, ["n", 1]),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["n", 2]),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["n", 2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    directory = tmp_path / "total"
    (directory / "1").mkdir(parents=True)
    (directory / "initial_state").mkdir()
    onnx.save(model, str(directory / "1" / "model.onnx"))
    (directory / "config.pbtxt").write_text(CONFIG)
    (directory / "initial_state" / "first").write_bytes(np.array([100, 200], "<f4").tobytes())
    return tmp_path


def test_an_onnx_graph_follows_sequences(repository: Path) -> None:
    async def main() -> None:
        engine = Engine(EngineOptions())
        options = RepositoryOptions()
        source = RepositorySource(repository)
        await engine.open(Repository([source], options, engine.host, engine, call_on_thread))
        deployment = engine.resolve("total")
        assert [tensor.name for tensor in deployment.config.input] == ["x"]
        assert [tensor.name for tensor in deployment.config.output] == ["sum"]

        def ask(id: int, value: float, **flags: bool) -> "asyncio.Future[Response]":
            array = np.full((1, 2), value, np.float32)
            request = Request(Tensors([Tensor("x", FP32, array)]))
            request.sequence_id = id
            request.sequence_start = flags.get("starts", False)
            request.sequence_end = flags.get("ends", False)
            answer = Answer()
            deployment.submit(request, answer)
            return answer.heard

        async def sums(*answers: "asyncio.Future[Response]") -> list[Any]:
            responses = await asyncio.gather(*answers)
            assert all([t.name for t in one.outputs] == ["sum"] for one in responses)
            return [one.outputs[0].array.ravel().tolist() for one in responses]

        assert await sums(*(ask(id, id, starts=True) for id in (1, 2, 3))) == [
            [101, 201],
            [102, 202],
            [103, 203],
        ]
        assert await sums(ask(3, 10), ask(1, 20)) == [[113, 213], [121, 221]]
        assert await sums(ask(2, 0, ends=True)) == [[102, 202]]
        assert await sums(ask(1, 5, starts=True)) == [[105, 205]]
        await engine.close()

    asyncio.run(main())
