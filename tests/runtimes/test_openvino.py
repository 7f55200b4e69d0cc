from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from openvino import opset13 as ops
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from modelport.dtypes import BF16, BYTES, FP32, INT64, DataType
from modelport.errors import InvalidRequest, LoadFailed
from modelport.runtimes.openvino import OpenvinoRuntime
from modelport.runtimes.registry import find_runtime
from modelport.specs import InstanceGroup, ModelConfig, ModelInput, ModelOutput, Parameter
from modelport.testing.runtime_suite import (
    Example,
    LoadedModel,
    RuntimeCase,
    RuntimeSuite,
    load_model,
)

DIGITS = load_digits()
PIXELS = DIGITS.data.astype(np.float32)
EXACT = {"INFERENCE_PRECISION_HINT": Parameter(string_value="f32")}
"""By itself OpenVINO computes in bfloat16 on processors that have it."""


@pytest.fixture(scope="module")
def digits() -> Any:
    return LogisticRegression(max_iter=2000).fit(PIXELS / 16, DIGITS.target)


def graph_of(model: Any, batch: int = -1) -> Any:
    """The same model as OpenVINO has it."""
    pixels = ops.parameter([batch, 64], openvino.Type.f32, name="pixels")
    pixels.output(0).set_names({"pixels"})
    scaled = ops.multiply(pixels, np.float32(1 / 16))
    logits = ops.matmul(scaled, ops.constant(model.coef_.astype(np.float32)), False, True)
    logits = ops.add(logits, ops.constant(model.intercept_.astype(np.float32)))
    probabilities = ops.softmax(logits, axis=1)
    probabilities.output(0).set_names({"probabilities"})
    label = ops.topk(logits, np.int64(1), 1, "max", "value", "i64")
    label.output(1).set_names({"label"})
    return openvino.Model(
        [ops.result(label.output(1)), ops.result(probabilities)], [pixels], "digits"
    )


def save(directory: Path, graph: Any, filename: str = "model.xml") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, directory / filename, compress_to_fp16=False)


def write_identity(directory: Path, datatype: DataType) -> ModelConfig:
    kinds = {"BOOL": "boolean", "BYTES": "string"}
    kind = kinds.get(datatype.name) or datatype.name.lower().replace("uint", "u").replace(
        "int", "i"
    ).replace("fp", "f")
    x = ops.parameter([-1], getattr(openvino.Type, kind), name="x")
    y = ops.result(x, name="y")
    # It is one tensor, with the names of both ends.
    y.output(0).set_names({"x", "y"})
    save(directory, openvino.Model([y], [x], "identity"))
    return ModelConfig(
        input=(ModelInput(name="x", dims=(-1,)),), output=(ModelOutput(name="y", dims=(-1,)),)
    )


class TestIr(RuntimeSuite):
    @pytest.fixture
    def case(self, digits: Any) -> RuntimeCase:
        def example(rows: slice) -> Example:
            return Example(
                {"pixels": PIXELS[rows]},
                {
                    "label": digits.predict(PIXELS[rows] / 16).reshape(-1, 1),
                    "probabilities": digits.predict_proba(PIXELS[rows] / 16).astype(np.float32),
                },
            )

        return RuntimeCase(
            runtime=OpenvinoRuntime,
            filename="model.xml",
            write=lambda directory: save(directory, graph_of(digits)),
            examples=[example(slice(0, 1)), example(slice(70, 73))],
            config=ModelConfig(parameters=EXACT),
            break_file=lambda directory: (directory / "model.xml").write_bytes(b"<net half"),
            identity=write_identity,
            row=find_runtime("openvino"),
            framework="openvino",
            tolerance=1e-3,
        )


class TestOnnx(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        model = MLPClassifier((8,), max_iter=30, tol=1, random_state=0)
        model.fit(PIXELS / 16, DIGITS.target)
        first, second = (weights.astype(np.float32) for weights in model.coefs_)
        bias, other = (weights.astype(np.float32) for weights in model.intercepts_)
        constants = {"w1": first, "b1": bias, "w2": second, "b2": other}
        make = onnx.helper.make_node
        graph = onnx.helper.make_graph(
            [
                make("Gemm", ["x", "w1", "b1"], ["h"]),
                make("Relu", ["h"], ["r"]),
                make("Gemm", ["r", "w2", "b2"], ["z"]),
                make("Softmax", ["z"], ["y"], axis=1),
            ],
            "digits",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 64])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        saved = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
        )

        def example(rows: slice) -> Example:
            scaled = PIXELS[rows] / 16
            return Example({"x": scaled}, {"y": model.predict_proba(scaled).astype(np.float32)})

        return RuntimeCase(
            runtime=OpenvinoRuntime,
            filename="model.onnx",
            write=lambda directory: onnx.save(saved, directory / "model.onnx"),
            examples=[example(slice(0, 1)), example(slice(70, 73))],
            config=ModelConfig(parameters=EXACT),
            break_file=lambda directory: (directory / "model.onnx").write_bytes(b"no graph"),
            tolerance=1e-3,
        )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tried" / "1"


def load(directory: Path, graph: Any, config: ModelConfig | None = None) -> LoadedModel:
    save(directory, graph)
    return load_model(OpenvinoRuntime, directory, config or ModelConfig())


def described(entries: Sequence[ModelInput] | Sequence[ModelOutput]) -> list[str]:
    return [f"{each.name} {each.datatype}{list(each.dims)}" for each in entries]


def given(**texts: str) -> dict[str, Parameter]:
    return {name: Parameter(string_value=text) for name, text in texts.items()}


def test_file_tells_everything(directory: Path, digits: Any) -> None:
    config = load(directory, graph_of(digits)).config
    assert described(config.input) == [f"pixels {FP32}[64]"]
    assert described(config.output) == [f"label {INT64}[1]", f"probabilities {FP32}[10]"]
    assert config.max_batch_size == 4
    assert config.dynamic_batching is not None


def test_fixed_batch_is_no_batch(directory: Path, digits: Any) -> None:
    config = load(directory, graph_of(digits, batch=1)).config
    assert config.max_batch_size == 0
    assert described(config.input) == [f"pixels {FP32}[1, 64]"]


def test_fixed_batch_is_reshaped_where_the_configuration_wants_batches(
    directory: Path, digits: Any
) -> None:
    config = ModelConfig(max_batch_size=32, parameters=EXACT)
    loaded = load(directory, graph_of(digits, batch=1), config)
    answer = loaded.ask({"pixels": PIXELS[:30]})
    assert answer["label"][:, 0].tolist() == digits.predict(PIXELS[:30] / 16).tolist()


def test_batch_that_is_part_of_the_graph_is_refused(directory: Path) -> None:
    x = ops.parameter([1, 4], openvino.Type.f32, name="x")
    y = ops.reshape(x, np.array([2, 2]), False)
    graph = openvino.Model([ops.result(y)], [x], "fixed")
    with pytest.raises(LoadFailed, match="max_batch_size is 8, but the first dimension of"):
        load(directory, graph, ModelConfig(max_batch_size=8))


def test_weights_that_are_missing_are_told(directory: Path, digits: Any) -> None:
    save(directory, graph_of(digits))
    (directory / "model.bin").unlink()
    with pytest.raises(LoadFailed, match=r"needs its weights .* no 'model\.bin'"):
        load_model(OpenvinoRuntime, directory, ModelConfig())


def test_ir_may_have_any_name(directory: Path, digits: Any) -> None:
    save(directory, graph_of(digits), "resnet50.xml")
    config = ModelConfig(default_model_filename="resnet50.xml")
    assert load_model(OpenvinoRuntime, directory, config).instance.is_ready()


@pytest.mark.parametrize(
    "parameters",
    [
        given(INFERENCE_NUM_THREADS="1", NUM_STREAMS="1"),
        given(CPU_THROUGHPUT_STREAMS="auto", CPU_THREADS_NUM="2"),
        given(PERFORMANCE_HINT="THROUGHPUT", TARGET_DEVICE="CPU"),
        given(TARGET_DEVICE="AUTO:CPU"),
        given(HINT_BF16="NO", SKIP_OV_DYNAMIC_BATCHSIZE="YES"),
    ],
)
def test_properties_are_taken_from_parameters(
    directory: Path, digits: Any, parameters: dict[str, Parameter]
) -> None:
    config = ModelConfig(parameters={**EXACT, **parameters})
    answer = load(directory, graph_of(digits), config).ask({"pixels": PIXELS[:5]})
    assert answer["label"][:, 0].tolist() == digits.predict(PIXELS[:5] / 16).tolist()


def test_several_instances_share_the_cores(directory: Path, digits: Any) -> None:
    config = ModelConfig(instance_group=(InstanceGroup(count=64),))
    loaded = load(directory, graph_of(digits), config)
    instance = loaded.instance
    assert isinstance(instance, OpenvinoRuntime)
    compiled = instance._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (given(NUM_STREAMS="many"), "Could not read number of streams from str: MANY|many"),
        (given(TARGET_DEVICE="NPU"), "asks for the device NPU, and OpenVINO has CPU.* here"),
    ],
)
def test_wrong_parameter_is_refused(
    directory: Path, digits: Any, parameters: dict[str, Parameter], told: str
) -> None:
    with pytest.raises(LoadFailed, match=told):
        load(directory, graph_of(digits), ModelConfig(parameters=parameters))


def test_unknown_parameter_is_passed_over_and_told_of(directory: Path, digits: Any) -> None:
    config = ModelConfig(parameters=given(NUM_STREAM="1", CPU_THREADS_NUM="1", ovms="true"))
    [(level, text, _)] = load(directory, graph_of(digits), config).host.lines
    assert level == "warning"
    assert "'NUM_STREAM' means nothing to OpenVINO on CPU and is passed over" in text
    assert "did you mean 'NUM_STREAMS'?" in text


def test_unknown_name_is_refused(directory: Path, digits: Any) -> None:
    config = ModelConfig(output=(ModelOutput(name="odds", data_type="TYPE_FP32", dims=(10,)),))
    with pytest.raises(LoadFailed, match="odds"):
        load(directory, graph_of(digits), config)


def test_shape_that_fails_inside_the_graph_fails_the_request(directory: Path) -> None:
    x = ops.parameter([-1, -1], openvino.Type.f32, name="x")
    product = ops.matmul(x, ops.constant(np.ones((3, 2), np.float32)), False, False)
    graph = openvino.Model([ops.result(product, name="y")], [x], "product")
    loaded = load(directory, graph)
    with pytest.raises((InvalidRequest, Exception), match="OpenVINO"):
        loaded.ask({"x": np.ones((2, 5), np.float32)})
    name = loaded.config.output[0].name
    answer = loaded.ask({"x": np.ones((2, 3), np.float32)})
    assert answer[name].tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize(
    ("text", "told"), [(b"a\0", "ends with a zero byte"), (b"\xff", "no UTF-8")]
)
def test_text_that_would_be_changed_is_refused(directory: Path, text: bytes, told: str) -> None:
    directory.mkdir(parents=True)
    loaded = load_model(OpenvinoRuntime, directory, write_identity(directory, BYTES))
    with pytest.raises(InvalidRequest, match=told):
        loaded.ask({"x": np.array([text], object)})


def test_bfloat16_keeps_its_bits(directory: Path) -> None:
    directory.mkdir(parents=True)
    loaded = load_model(OpenvinoRuntime, directory, write_identity(directory, BF16))
    bits = np.array([0x3F80, 0xC2F7], np.uint16)
    assert loaded.ask({"x": bits}, datatypes={"x": BF16})["y"].tolist() == bits.tolist()
