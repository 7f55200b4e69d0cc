"""The ``linear_regression_model``: y = 2.5 x + 0.5 as the smallest useful ONNX graph."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

SLOPE = 2.5
INTERCEPT = 0.5

OPSET = 17
IR_VERSION = 9
"""Old enough for every onnxruntime since 1.16."""


def build(version: Path) -> str:
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["input__0", "slope"], ["scaled"]),
            helper.make_node("Add", ["scaled", "intercept"], ["output__0"]),
        ],
        "linear_regression_model",
        [helper.make_tensor_value_info("input__0", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("output__0", TensorProto.FLOAT, ["batch", 1])],
        [
            helper.make_tensor("slope", TensorProto.FLOAT, [], [SLOPE]),
            helper.make_tensor("intercept", TensorProto.FLOAT, [], [INTERCEPT]),
        ],
    )
    onnx.save(model_of(graph), version / "model.onnx")
    return f"y = {SLOPE} x + {INTERCEPT}"


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    """Wrap ``graph`` in the versions that the examples are written for, and check it."""
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model
