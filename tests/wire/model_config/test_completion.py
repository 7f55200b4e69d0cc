"""What may be left out, and what must not contradict the model file."""

from dataclasses import replace

import pytest

from modelport.errors import LoadFailed
from modelport.specs import (
    ControlInput,
    DynamicBatching,
    EnsembleScheduling,
    EnsembleStep,
    InstanceGroup,
    Latest,
    ModelConfig,
    ModelInput,
    ModelOutput,
    Oldest,
    Optimization,
    Parameter,
    PinnedMemory,
    Reshape,
    SequenceBatching,
    Specific,
    State,
    TransactionPolicy,
    VersionPolicy,
)
from modelport.wire.model_config import check, complete, merge


def _input(name: str, *dims: int, data_type: str = "TYPE_FP32") -> ModelInput:
    return ModelInput(name=name, data_type=data_type, dims=dims)


def _output(name: str, *dims: int, data_type: str = "TYPE_FP32") -> ModelOutput:
    return ModelOutput(name=name, data_type=data_type, dims=dims)


FOUND = ModelConfig(
    backend="onnxruntime",
    max_batch_size=4,
    input=(_input("x", 3, -1), _input("mask", -1, data_type="TYPE_BOOL")),
    output=(_output("y", 10), _output("features", 128)),
)
"""A file whose tensors have the shapes [-1, 3, -1], [-1, -1], [-1, 10] and [-1, 128]."""


def test_nothing_given_is_all_found() -> None:
    assert merge(ModelConfig(), FOUND) == FOUND


def test_nothing_found_leaves_what_is_given() -> None:
    given = ModelConfig(name="m", max_batch_size=2, input=(_input("x", 1),), output=())
    assert merge(given, ModelConfig()) == given


def test_what_a_tensor_leaves_out_is_added() -> None:
    given = ModelConfig(
        input=(ModelInput(name="mask", optional=True), ModelInput(name="x", dims=(3, 7))),
        output=(ModelOutput(name="y", label_filename="labels.txt"),),
    )
    merged = merge(given, FOUND)
    assert merged.input == (
        ModelInput(name="mask", data_type="TYPE_BOOL", dims=(-1,), optional=True),
        _input("x", 3, 7),
    )
    assert merged.output == (
        ModelOutput(name="y", data_type="TYPE_FP32", dims=(10,), label_filename="labels.txt"),
    )


def test_inputs_that_are_not_listed_are_added_and_outputs_stay_hidden() -> None:
    merged = merge(ModelConfig(input=FOUND.input[1:], output=FOUND.output[1:]), FOUND)
    assert [tensor.name for tensor in merged.input] == ["mask", "x"]
    assert [tensor.name for tensor in merged.output] == ["features"]


def test_the_operators_batch_size_wins() -> None:
    assert merge(ModelConfig(max_batch_size=64), FOUND).max_batch_size == 64


def test_listing_all_dimensions_means_no_batching() -> None:
    merged = merge(ModelConfig(input=(_input("x", -1, 3, -1),)), FOUND)
    assert merged.max_batch_size == 0
    assert merged.input == (_input("x", -1, 3, -1), _input("mask", -1, -1, data_type="TYPE_BOOL"))
    assert [tensor.dims for tensor in merged.output] == [(-1, 10), (-1, 128)]


def test_listing_all_but_the_first_means_batching() -> None:
    assert merge(ModelConfig(input=(_input("x", 3, -1),)), FOUND).max_batch_size == 4


def test_batching_may_be_asked_of_a_file_that_could() -> None:
    found = ModelConfig(input=(_input("x", -1, 5), _input("n", -1)), output=(_output("y", -1, 2),))
    merged = merge(ModelConfig(max_batch_size=8), found)
    assert [tensor.dims for tensor in merged.input] == [(5,), (1,)]
    assert merged.input[1].reshape == Reshape()
    assert merged.output[0].dims == (2,)


def test_a_batched_scalar_needs_no_reshape_from_the_operator() -> None:
    found = ModelConfig(input=(_input("n", -1),), output=(_output("y", -1),))
    given = ModelConfig(max_batch_size=8, input=(_input("n", 1),))
    merged = merge(given, found)
    assert merged.input[0].reshape == Reshape()


def test_a_reshape_is_what_the_file_has_to_fit() -> None:
    tensor = replace(_input("x", 3, 8, 8), reshape=Reshape(shape=(3, 64)))
    merged = merge(ModelConfig(input=(tensor,)), FOUND)
    assert merged.input[0] == tensor


def test_scheduling_is_found_only_if_none_is_given() -> None:
    found = replace(FOUND, dynamic_batching=DynamicBatching())
    assert merge(ModelConfig(), found).dynamic_batching == DynamicBatching()
    given = ModelConfig(sequence_batching=SequenceBatching())
    assert merge(given, found).dynamic_batching is None


def test_parameters_of_both_are_kept_and_the_operators_win() -> None:
    def parameters(**texts: str) -> dict[str, Parameter]:
        return {name: Parameter(string_value=text) for name, text in texts.items()}

    given = ModelConfig(parameters=parameters(a="1"))
    found = ModelConfig(parameters=parameters(a="2", b="3"))
    assert merge(given, found).parameters == parameters(a="1", b="3")


def test_a_tensor_of_unknown_shape_contradicts_nothing() -> None:
    found = ModelConfig(input=(ModelInput(name="x"),))
    given = ModelConfig(input=(_input("x", 1, 2, 3),))
    assert merge(given, found).input == given.input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ModelConfig(name="m", input=(_input("images", 3, -1),)),
            'model "m": unexpected input "images"; the model file has x, mask',
        ),
        (
            ModelConfig(output=(_output("z", 1),)),
            'unexpected output "z"; the model file has y, features',
        ),
        (
            ModelConfig(input=(_input("x", 3, -1, data_type="TYPE_INT8"),)),
            'input "x": data_type is TYPE_INT8 in the configuration and TYPE_FP32 in the model '
            "file; set the latter, or leave data_type out",
        ),
        (
            ModelConfig(output=(_output("y", 11),)),
            'output "y": the configuration says [11], the model file has [10]',
        ),
        (
            ModelConfig(output=(_output("y", -1),)),
            'output "y": the configuration says [-1], the model file has [10]',
        ),
        (
            ModelConfig(max_batch_size=4, input=(_input("x", -1, 3, -1),)),
            'input "x": the configuration says [-1, 3, -1], the model file has [3, -1]',
        ),
        (
            ModelConfig(input=(_input("x", 1, 1, 1, 1),)),
            'input "x": the configuration says [1, 1, 1, 1], the model file has [3, -1]',
        ),
        (
            ModelConfig(backend="openvino"),
            'backend is "openvino" in the configuration and "onnxruntime" in the model file',
        ),
    ],
)
def test_contradictions_name_both_sides(given: ModelConfig, message: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        merge(given, FOUND)
    assert message in str(caught.value)


@pytest.mark.parametrize("dims", [(1, 5), ()])
def test_a_file_that_cannot_batch_is_not_asked_to(dims: tuple[int, ...]) -> None:
    fixed = ModelInput(name="x", data_type="TYPE_FP32", dims=dims or (1,))
    found = ModelConfig(input=(fixed if dims else replace(fixed, reshape=Reshape()),))
    with pytest.raises(LoadFailed, match="no variable first dimension to batch along"):
        merge(ModelConfig(max_batch_size=8), found)


def test_a_model_is_not_decoupled_against_its_will() -> None:
    given = ModelConfig(model_transaction_policy=TransactionPolicy(decoupled=False))
    found = ModelConfig(model_transaction_policy=TransactionPolicy(decoupled=True))
    assert merge(ModelConfig(), found).is_decoupled
    with pytest.raises(LoadFailed, match="decoupled is false in the configuration and true in"):
        merge(given, found)


def test_an_empty_configuration_is_completed() -> None:
    config = complete(ModelConfig(), name="m", backend="onnxruntime")
    assert config == ModelConfig(
        name="m",
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        version_policy=VersionPolicy(latest=Latest(num_versions=1)),
        optimization=Optimization(
            input_pinned_memory=PinnedMemory(enable=True),
            output_pinned_memory=PinnedMemory(enable=True),
        ),
        instance_group=(InstanceGroup(name="m_0", kind="KIND_CPU", count=1),),
        default_model_filename="model.onnx",
    )


def test_completing_twice_changes_nothing() -> None:
    config = ModelConfig(max_batch_size=4, dynamic_batching=DynamicBatching())
    once = complete(config, name="m", backend="python")
    assert complete(once, name="m", backend="onnxruntime") == once
    check(once, name="m")


def test_what_is_given_stays() -> None:
    given = ModelConfig(
        name="m",
        platform="own",
        backend="python",
        version_policy=VersionPolicy(specific=Specific(versions=(2,))),
        max_batch_size=8,
        optimization=Optimization(
            input_pinned_memory=PinnedMemory(enable=False),
            output_pinned_memory=PinnedMemory(enable=False),
        ),
        dynamic_batching=DynamicBatching(preferred_batch_size=(2,)),
        instance_group=(InstanceGroup(name="g", kind="KIND_MODEL", count=3),),
        default_model_filename="other.py",
    )
    assert complete(given, name="n", backend="x", default_model_filename="y") == given


def test_the_backend_follows_from_the_old_platform_names() -> None:
    config = complete(ModelConfig(platform="onnxruntime_onnx"), name="m", backend="python")
    assert config.backend == "onnxruntime"


def test_the_caller_knows_the_file_of_its_own_backends() -> None:
    config = complete(ModelConfig(), name="m", backend="sklearn", default_model_filename="m.skops")
    assert (config.backend, config.default_model_filename) == ("sklearn", "m.skops")


def test_instance_groups_are_numbered_and_run_on_the_cpu() -> None:
    groups = (InstanceGroup(count=2), InstanceGroup(name="b", gpus=(0,)))
    config = complete(ModelConfig(instance_group=groups), name="m")
    assert config.instance_group == (
        InstanceGroup(name="m_0", kind="KIND_CPU", count=2),
        InstanceGroup(name="b", kind="KIND_CPU", count=1),
    )


def test_sequences_get_their_idle_time_and_sizes() -> None:
    given = SequenceBatching(oldest=Oldest(max_candidate_sequences=2))
    config = complete(ModelConfig(max_batch_size=4, sequence_batching=given), name="m")
    assert config.sequence_batching == SequenceBatching(
        max_sequence_idle_microseconds=1_000_000,
        oldest=Oldest(max_candidate_sequences=2, preferred_batch_size=(4,)),
    )


def test_an_ensemble_has_no_backend_and_no_instances() -> None:
    steps = (EnsembleStep(model_name="a", model_version=0),)
    given = ModelConfig(ensemble_scheduling=EnsembleScheduling(step=steps))
    config = complete(given, name="e")
    assert (config.platform, config.backend, config.default_model_filename) == ("ensemble", "", "")
    assert config.instance_group == ()
    assert config.ensemble_scheduling is not None
    assert config.ensemble_scheduling.step[0].model_version == -1


def test_what_the_sequence_batcher_gives_and_takes_is_not_the_callers() -> None:
    """An ONNX graph lists its control inputs and states like everything else."""
    given = ModelConfig(
        sequence_batching=SequenceBatching(
            control_input=(ControlInput(name="START"),),
            state=(State(input_name="before", output_name="after"),),
        )
    )
    found = ModelConfig(
        input=(_input("x", 1), _input("START", 1), _input("before", 1)),
        output=(_output("after", 1), _output("y", 1)),
    )
    merged = merge(given, found)
    assert [each.name for each in merged.input] == ["x"]
    assert [each.name for each in merged.output] == ["y"]
