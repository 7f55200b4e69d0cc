import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from modelport.dtypes import BYTES, DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidRequest, LoadFailed, ModelFailed
from modelport.runtimes.onnx import OnnxRuntime, first_line
from modelport.runtimes.onnx_options import providers_of, session_options
from modelport.runtimes.registry import RUNTIMES
from modelport.specs import (
    Graph,
    InstanceGroup,
    ModelConfig,
    ModelInput,
    Optimization,
    Parameter,
)
from modelport.testing.runtime_suite import (
    Example,
    LoadedModel,
    RuntimeCase,
    RuntimeSuite,
    load_model,
)

Dims = Sequence[int | str | None]
ONNX_TYPE_BY_NAME = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}


def tensor(name: str, dims: Dims, datatype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, datatype, dims)


def save(
    directory: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Sequence[Any] = (),
    *,
    filename: str = "model.onnx",
) -> None:
    graph = helper.make_graph(nodes, "tried", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, directory / filename)


def save_identity(directory: Path, datatype: DataType, dims: Dims = ("n",)) -> ModelConfig:
    kind = ONNX_TYPE_BY_NAME[datatype.name]
    node = helper.make_node("Identity", ["x"], ["y"])
    save(directory, [node], [tensor("x", dims, kind)], [tensor("y", dims, kind)])
    return ModelConfig(input=(ModelInput(name="x", dims=(-1,)),))


def save_add_sub(directory: Path, dims: Dims = ("n", 3)) -> None:
    save(
        directory,
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["gap"]),
        ],
        [tensor("a", dims), tensor("b", dims)],
        [tensor("sum", dims), tensor("gap", dims)],
    )


def save_lookup(directory: Path) -> None:
    """``y = table[x]``: an index out of range fails the run."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [1, 2, 4, 8])
    save(
        directory,
        [helper.make_node("Gather", ["table", "x"], ["y"], axis=0)],
        [tensor("x", ["n", 2], TensorProto.INT64)],
        [tensor("y", ["n", 2])],
        [table],
    )


def add_sub_example(*rows: Sequence[float]) -> Example:
    a = np.array(rows, np.float32)
    b = np.full_like(a, 2)
    return Example({"a": a, "b": b}, {"sum": a + b, "gap": a - b})


class TestAddSub(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        return RuntimeCase(
            runtime=OnnxRuntime,
            filename="model.onnx",
            write=save_add_sub,
            examples=[add_sub_example([1, 2, 3]), add_sub_example([4, 5, 6], [7, 8, 9])],
            break_file=lambda directory: (directory / "model.onnx").write_bytes(b"no graph"),
            identity=save_identity,
            row=RUNTIMES[0],
            framework="onnxruntime",
        )


class TestLookup(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        return RuntimeCase(
            runtime=OnnxRuntime,
            filename="model.onnx",
            write=save_lookup,
            examples=[
                Example({"x": np.array([[0, 3]])}, {"y": np.array([[1, 8]], np.float32)}),
                Example({"x": np.array([[2, 2]])}, {"y": np.array([[4, 4]], np.float32)}),
            ],
            poison={"x": np.array([[0, 99]])},
        )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tried" / "1"


def load(directory: Path, config: ModelConfig | None = None) -> LoadedModel:
    return load_model(OnnxRuntime, directory, config or ModelConfig())


def with_parameters(**parameters: str) -> ModelConfig:
    return ModelConfig(
        parameters={name: Parameter(string_value=text) for name, text in parameters.items()}
    )


def test_dynamic_first_dimensions_make_a_batch(directory: Path) -> None:
    save_add_sub(directory)
    config = load(directory).config
    assert config.max_batch_size == 4
    assert config.dynamic_batching is not None
    assert [entry.dims for entry in config.input] == [(3,), (3,)]
    assert [entry.dims for entry in config.output] == [(3,), (3,)]


def test_fixed_first_dimension_means_no_batch(directory: Path) -> None:
    save_add_sub(directory, [2, 3])
    config = load(directory).config
    assert config.max_batch_size == 0
    assert config.dynamic_batching is None
    assert config.input[0].dims == (2, 3)


def test_configured_dimensions_that_include_the_batch_switch_batching_off(directory: Path) -> None:
    save_add_sub(directory)
    config = load(directory, ModelConfig(input=(ModelInput(name="a", dims=(-1, 3)),))).config
    assert config.max_batch_size == 0


def test_configured_batch_size_stays_and_gets_no_scheduler(directory: Path) -> None:
    """Triton's rule: who sets max_batch_size decides about batching himself."""
    save_add_sub(directory)
    config = load(directory, ModelConfig(max_batch_size=16)).config
    assert config.max_batch_size == 16
    assert config.dynamic_batching is None


def test_configured_batch_size_is_refused_where_the_graph_has_none(directory: Path) -> None:
    save_add_sub(directory, [2, 3])
    with pytest.raises(LoadFailed, match=r"max_batch_size is 8, but the first dimension of 'a'"):
        load(directory, ModelConfig(max_batch_size=8))


def test_one_value_per_row_has_a_dimension_that_the_graph_does_not_see(directory: Path) -> None:
    save(
        directory,
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [tensor("x", ["n", 2])],
        [tensor("y", ["n"])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = load(directory)
    assert model.config.output[0].dims == (1,)
    answer = model.ask({"x": np.array([[1, 2], [3, 4]], np.float32)})
    assert answer["y"].tolist() == [[3], [7]]


def test_scalar_input_has_a_dimension_that_the_graph_does_not_see(directory: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    save(directory, [node], [tensor("x", [])], [tensor("y", [])])
    model = load(directory)
    assert model.config.max_batch_size == 0
    assert model.ask({"x": np.array([2.5], np.float32)})["y"].tolist() == [2.5]


def test_graph_may_lie_in_a_directory_with_its_weights(directory: Path) -> None:
    save_add_sub(directory / "model.onnx")
    example = add_sub_example([1, 2, 3])
    assert load(directory).ask(example.inputs)["sum"].tolist() == [[3, 4, 5]]


def test_wrong_shape_is_the_callers_fault_and_names_the_axis(directory: Path) -> None:
    """The engine looks first; a symbol used twice in a graph is known to the graph alone."""
    save_add_sub(directory)
    wrong = np.zeros((1, 4), np.float32)
    with pytest.raises(InvalidRequest, match=r"dimensions for input: [ab] .* Got: 4 Expected: 3"):
        load(directory).ask({"a": wrong, "b": wrong})


def test_text_that_is_no_utf_8_is_the_callers_fault(directory: Path) -> None:
    save_identity(directory, BYTES)
    model = load(directory)
    with pytest.raises(InvalidRequest, match="input 'x' holds bytes that are no UTF-8"):
        model.ask({"x": np.array([[b"\xff"]], object)})


def test_failing_node_is_told_without_sources_of_onnx_runtime(directory: Path) -> None:
    save_lookup(directory)
    with pytest.raises(InvalidRequest) as failed:
        load(directory).ask({"x": np.array([[0, 99]])})
    assert "idx=99 must be within" in str(failed.value)
    assert ".cc" not in str(failed.value)


def test_failing_runs_write_nothing_to_standard_error(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_lookup(directory)
    with pytest.raises(InvalidRequest):
        load(directory).ask({"x": np.array([[0, 99]])})
    assert capfd.readouterr().err == ""


def test_output_that_the_graph_lacks_is_refused(directory: Path) -> None:
    save_add_sub(directory)
    config = ModelConfig(
        max_batch_size=1, input=(ModelInput(name="c", data_type="TYPE_FP32", dims=(3,)),)
    )
    with pytest.raises(LoadFailed, match=r"has 'c', and the graph only \['a', 'b', 'gap', 'sum'\]"):
        load_model(OnnxRuntime, directory, config, completes=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("intra_op_thread_count", "2"),
        ("inter_op_thread_count", "0"),
        ("execution_mode", "1"),
        ("execution_mode", "sequential"),
        ("enable_mem_arena", "0"),
        ("enable_mem_pattern", "false"),
        ("memory.enable_memory_arena_shrinkage", "cpu:0"),
        ("session.use_device_allocator_for_initializers", "1"),
        ("execution", "thread"),
    ],
)
def test_known_parameters_are_taken(directory: Path, name: str, text: str) -> None:
    save_add_sub(directory)
    example = add_sub_example([1, 2, 3])
    model = load(directory, with_parameters(**{name: text}))
    assert model.ask(example.inputs)["gap"].tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("intra_op_thread_count", "many", "a number of threads"),
        ("inter_op_thread_count", "-1", "a number of threads"),
        ("execution_mode", "2", r"0 \(sequential\) or 1 \(parallel\)"),
        ("enable_mem_arena", "maybe", "0 or 1"),
    ],
)
def test_wrong_values_of_parameters_are_refused(
    directory: Path, name: str, text: str, accepted: str
) -> None:
    save_add_sub(directory)
    with pytest.raises(LoadFailed, match=f"parameter '{name}' is '{text}'; .* {accepted}"):
        load(directory, with_parameters(**{name: text}))


def test_unknown_parameters_are_passed_over_and_told_of(directory: Path) -> None:
    save_add_sub(directory)
    loaded = load(directory, with_parameters(intra_op_threads="2", ovms="true", execution="thread"))
    assert loaded.host.lines == [
        (
            "warning",
            "parameter 'intra_op_threads' means nothing to ONNX Runtime and is passed over; did "
            "you mean 'intra_op_thread_count'?",
            "tried",
        )
    ]


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (-1, "ORT_ENABLE_BASIC"),
        (0, "ORT_ENABLE_ALL"),
        (1, "ORT_ENABLE_EXTENDED"),
        (2, "ORT_DISABLE_ALL"),
    ],
)
def test_graph_levels_are_those_of_triton(directory: Path, level: int, name: str) -> None:
    save_add_sub(directory)
    config = ModelConfig(optimization=Optimization(graph=Graph(level=level)))
    assert session_options(config).graph_optimization_level.name == name
    load(directory, config)


def test_unknown_graph_level_is_refused(directory: Path) -> None:
    save_add_sub(directory)
    with pytest.raises(LoadFailed, match=r"optimization.graph.level is 7"):
        load(directory, ModelConfig(optimization=Optimization(graph=Graph(level=7))))


def test_instances_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    threads = [
        session_options(ModelConfig(), instances=count).intra_op_num_threads
        for count in (1, 2, 3, 100)
    ]
    assert threads == [8, 4, 2, 1]


def test_instances_of_all_groups_are_counted(directory: Path) -> None:
    from modelport.runtimes import onnx

    groups = (InstanceGroup(count=2), InstanceGroup())
    assert onnx._instances(ModelConfig(instance_group=groups)) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Parsing failed.", "Parsing failed."),
        ("[ONNXRuntimeError] : 1 : FAIL : one\n two\n three", "one; two"),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : /x/core/y.cc:36 Foo::Bar(int) bad input",
            "bad input",
        ),
        ("", "no reason given"),
    ],
)
def test_first_line_leaves_out_codes_and_places(text: str, told: str) -> None:
    assert first_line(text) == told


def test_every_datatype_has_an_onnx_type() -> None:
    assert set(ONNX_TYPE_BY_NAME) == set(DATATYPE_BY_NAME)


def test_failure_in_the_framework_is_the_models(directory: Path) -> None:
    """Reshaping to what the data cannot fill is found out only while the graph runs."""
    save(
        directory,
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x", ["n"]), tensor("shape", ["k"], TensorProto.INT64)],
        [tensor("y", [None, None])],
    )
    model = load(directory, ModelConfig(input=(ModelInput(name="x", dims=(-1,)),)))
    with pytest.raises((ModelFailed, InvalidRequest)) as failed:
        model.ask({"x": np.zeros(4, np.float32), "shape": np.array([3, 3])})
    assert "/" not in str(failed.value).split("ONNX Runtime: ")[1].split()[0]


def test_gpu_is_reached_through_cuda_with_its_own_options() -> None:
    texts = {"gpu_mem_limit": "1000000", "intra_op_thread_count": "1"}
    config = ModelConfig(
        parameters={name: Parameter(string_value=text) for name, text in texts.items()}
    )
    assert providers_of(config, "GPU", 3) == (
        ("CUDAExecutionProvider", {"gpu_mem_limit": "1000000", "device_id": "3"}),
        ("CPUExecutionProvider", {}),
    )
    assert providers_of(config, "CPU", 0) == (("CPUExecutionProvider", {}),)


def test_options_of_cuda_do_no_harm_on_a_cpu(directory: Path) -> None:
    save_add_sub(directory, ["n", 3])
    config = ModelConfig(parameters={"gpu_mem_limit": Parameter(string_value="1000000")})
    assert load(directory, config).instance.is_ready()


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="ONNX Runtime has CUDA here",
)
def test_gpu_without_cuda_is_told() -> None:
    assert OnnxRuntime.gpus().count == 0
    assert "onnxruntime-gpu" in OnnxRuntime.gpus().why_none
