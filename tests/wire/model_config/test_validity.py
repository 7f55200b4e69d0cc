"""Configurations that make no sense, and what is said of them."""

from dataclasses import replace
from typing import Any

import pytest

from modelport.errors import LoadFailed
from modelport.specs import (
    All,
    Control,
    ControlInput,
    Direct,
    DynamicBatching,
    EnsembleScheduling,
    EnsembleStep,
    Histogram,
    InitialState,
    InstanceGroup,
    Latest,
    MetricControl,
    MetricFamilyIdentifier,
    ModelConfig,
    ModelInput,
    ModelMetrics,
    ModelOutput,
    Oldest,
    QueuePolicy,
    Reshape,
    SequenceBatching,
    Specific,
    State,
    VersionPolicy,
)
from modelport.wire.model_config import check, complete, problems

GOOD = complete(
    ModelConfig(
        max_batch_size=8,
        input=(
            ModelInput(name="x", data_type="TYPE_FP32", format="FORMAT_NHWC", dims=(-1, -1, 3)),
            ModelInput(name="n", data_type="TYPE_INT64", dims=(1,), reshape=Reshape()),
        ),
        output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=(10,)),),
        dynamic_batching=DynamicBatching(preferred_batch_size=(4, 8)),
        metric_tags={"team": "vision"},
    ),
    name="m",
    backend="onnxruntime",
)

ENSEMBLE = complete(
    ModelConfig(
        input=GOOD.input,
        output=GOOD.output,
        ensemble_scheduling=EnsembleScheduling(
            step=(
                EnsembleStep(
                    model_name="a", input_map={"in": "x", "count": "n"}, output_map={"out": "y"}
                ),
            )
        ),
    ),
    name="e",
)


def _buckets(family: str, *bounds: float) -> ModelMetrics:
    control = MetricControl(
        metric_identifier=MetricFamilyIdentifier(family=family),
        histogram_options=Histogram(buckets=bounds),
    )
    return ModelMetrics(metric_control=(control,))


@pytest.mark.parametrize("config", [GOOD, ENSEMBLE], ids=["model", "ensemble"])
def test_good_ones_pass(config: ModelConfig) -> None:
    check(config, name=config.name)


def _x(**changes: Any) -> dict[str, Any]:
    return {"input": (replace(GOOD.input[0], **changes),)}


def _y(**changes: Any) -> dict[str, Any]:
    return {"output": (replace(GOOD.output[0], **changes),)}


def _batching(**changes: Any) -> dict[str, Any]:
    return {"dynamic_batching": DynamicBatching(**changes)}


def _sequences(**changes: Any) -> dict[str, Any]:
    return {"dynamic_batching": None, "sequence_batching": SequenceBatching(**changes)}


def _control(*controls: Control) -> dict[str, Any]:
    return _sequences(control_input=(ControlInput(name="c", control=controls),))


def _state(**changes: Any) -> dict[str, Any]:
    state = State(input_name="s", output_name="t", data_type="TYPE_FP32", dims=(1,))
    return _sequences(state=(replace(state, **changes),))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is missing"),
        ({"name": "n"}, 'name is "n", but the directory is called "m"; they have to be the same'),
        ({"max_batch_size": -1, "dynamic_batching": None}, "max_batch_size is -1; it cannot be"),
        (
            {"sequence_batching": SequenceBatching()},
            "dynamic_batching and sequence_batching exclude one another; keep one",
        ),
        (
            {"version_policy": VersionPolicy(latest=Latest(), all=All())},
            "version_policy.latest and version_policy.all exclude one another; keep one",
        ),
        (
            {"version_policy": VersionPolicy(specific=Specific())},
            "version_policy.specific.versions is empty; list the versions to serve",
        ),
        (
            {"version_policy": VersionPolicy(specific=Specific(versions=(1, 0)))},
            "version_policy.specific.versions has 0; versions are at least 1",
        ),
        ({"input": GOOD.input * 2}, 'input "x" is listed twice; names have to differ'),
        ({"output": GOOD.output * 2}, 'output "y" is listed twice; names have to differ'),
        (_x(name=""), "input[0].name is missing"),
        (_x(data_type="TYPE_INVALID"), 'input "x": data_type is missing, for example TYPE_FP32'),
        (_y(dims=()), 'output "y": dims is missing; a scalar has dims [1] and an empty reshape'),
        (_x(dims=(3, 0, 1)), 'input "x": dims has 0; sizes are at least 1, or -1 for any'),
        (_y(dims=(-2,)), 'output "y": dims has -2; sizes are at least 1, or -1 for any'),
        (_x(dims=(3, 4)), 'input "x": format FORMAT_NHWC needs 3 dims, there are 2'),
        (
            _y(reshape=Reshape(shape=(2, 4))),
            'output "y": dims [10] cannot be reshaped to [2, 4]; both need the same number of',
        ),
        (
            _x(reshape=Reshape(shape=(-1, 3, -1))),
            'input "x": dims [-1, -1, 3] cannot be reshaped to [-1, 3, -1]',
        ),
        (
            _x(reshape=Reshape(shape=(0,))),
            'input "x": reshape has a size that is neither at least 1 nor -1',
        ),
        (
            {"instance_group": (InstanceGroup(count=4000), InstanceGroup(count=97))},
            "instance_group asks for 4097 instances; at most 4096 are made",
        ),
        (
            {"instance_group": (InstanceGroup(count=-1),)},
            "instance_group[0].count is -1; it cannot be below 0",
        ),
        (
            {"instance_group": (InstanceGroup(kind="KIND_CPU", gpus=(0,)),)},
            "instance_group[0].gpus has no meaning for KIND_CPU; remove it",
        ),
        (
            _batching(preferred_batch_size=(4, 16)),
            "dynamic_batching.preferred_batch_size has 16, more than max_batch_size, 8",
        ),
        (
            _batching(preferred_batch_size=(0,)),
            "dynamic_batching.preferred_batch_size has 0; sizes are at least 1",
        ),
        (
            _batching(priority_levels=2),
            "default_priority_level is 0; with priority_levels 2 it has to be from 1 to 2",
        ),
        (_batching(default_priority_level=1), "default_priority_level needs priority_levels"),
        (
            _batching(
                priority_levels=1,
                default_priority_level=1,
                priority_queue_policy={2: QueuePolicy()},
            ),
            "priority_queue_policy[2] is for a level that priority_levels, 1, does not have",
        ),
        (
            _batching(preserve_ordering=True, priority_levels=2, default_priority_level=1),
            "preserve_ordering and dynamic_batching.priority_levels 2 exclude one another",
        ),
        (
            _batching(
                preserve_ordering=True,
                default_queue_policy=QueuePolicy(
                    timeout_action="DELAY", default_timeout_microseconds=1
                ),
            ),
            "default_queue_policy.timeout_action DELAY exclude one another: who is delayed",
        ),
        (
            {"model_metrics": _buckets("nv_other", 1)},
            'metric_control[0] is for "nv_other"; the only family with buckets of its own is ',
        ),
        (
            {"model_metrics": _buckets("nv_inference_first_response_histogram_ms", 2, 1)},
            "metric_control[0].histogram_options.buckets are [2, 1]; they rise, from above 0",
        ),
        (
            _sequences(direct=Direct(), oldest=Oldest()),
            "sequence_batching.direct and sequence_batching.oldest exclude one another",
        ),
        (
            _sequences(oldest=Oldest(preferred_batch_size=(9,))),
            "sequence_batching.oldest.preferred_batch_size has 9, more than max_batch_size, 8",
        ),
        (
            _sequences(oldest=Oldest()),
            "sequence_batching.oldest.max_candidate_sequences is 0; it is how many sequences",
        ),
        (
            _control(Control(int32_false_true=(0, 1)), Control(int32_false_true=(0, 1))),
            'sequence_batching.control_input "c" has 2 controls; a tensor carries one',
        ),
        (
            _control(Control(int32_false_true=(0,))),
            "CONTROL_SEQUENCE_START needs two values, for false and for true, in one of",
        ),
        (
            _control(Control(int32_false_true=(0, 1), bool_false_true=(False, True))),
            "CONTROL_SEQUENCE_START needs two values, for false and for true, in one of",
        ),
        (
            _control(Control(kind="CONTROL_SEQUENCE_CORRID", data_type="TYPE_FP32")),
            "data_type is TYPE_FP32; ids are TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32",
        ),
        (
            _control(
                Control(
                    kind="CONTROL_SEQUENCE_CORRID",
                    data_type="TYPE_INT32",
                    int32_false_true=(0, 1),
                )
            ),
            "CONTROL_SEQUENCE_CORRID has a data_type and no values",
        ),
        (_state(data_type="TYPE_INVALID"), 'state "s": data_type is missing, for example'),
        (_state(dims=()), 'state "s": dims is missing'),
        (_state(dims=(0,)), 'state "s": dims has 0; sizes are at least 1, or -1 for any'),
        (_state(output_name=""), "sequence_batching has a tensor without a name"),
        (_state(input_name="x"), 'input "x" is listed twice, in input or in sequence_batching'),
        (
            _state(initial_state=(InitialState(),)),
            'state "s": initial_state has either zero_data or data_file',
        ),
        (
            _state(initial_state=(InitialState(zero_data=True),) * 2),
            'state "s" has 2 initial states; keep one',
        ),
        (
            _state(initial_state=(InitialState(zero_data=True, data_type="TYPE_INT8"),)),
            'state "s": initial_state is TYPE_INT8, and the state TYPE_FP32',
        ),
        (
            _state(dims=(-1,), initial_state=(InitialState(zero_data=True),)),
            "initial_state has dims [], and the state [-1]; an initial state gives the size of",
        ),
        (
            _state(initial_state=(InitialState(zero_data=True, dims=(3,)),)),
            "initial_state has dims [3], and the state [1]",
        ),
        (
            _state(initial_state=(InitialState(data_file="../x", dims=(1,)),)),
            'state "s": data_file is "../x"; it has to lie inside the model\'s directory',
        ),
        (
            _sequences(direct=Direct(minimum_slot_utilization=1.5)),
            "minimum_slot_utilization is 1.5; it is a share from 0 to 1",
        ),
        (
            _sequences(control_input=(ControlInput(control=(Control(), Control())),)),
            "sequence_batching.control_input has CONTROL_SEQUENCE_START twice",
        ),
        ({"platform": "ensemble"}, 'platform is "ensemble", but ensemble_scheduling is missing'),
        ({"default_model_filename": "../m.onnx"}, "has to lie inside the model's directory"),
        ({"default_model_filename": "..\\m.onnx"}, "has to lie inside the model's directory"),
        ({"default_model_filename": "C:\\m.onnx"}, "has to lie inside the model's directory"),
        ({"default_model_filename": "a\0"}, 'default_model_filename is "a\\x00"; it has to lie'),
        (_y(label_filename="/etc/passwd"), 'output "y": label_filename is "/etc/passwd"; it has'),
        ({"cc_model_filenames": {"7.5": "/m"}}, 'cc_model_filenames["7.5"] is "/m"; it has'),
        ({"metric_tags": {"a-b": "c"}}, 'metric_tags has "a-b"; a Prometheus label starts with'),
        ({"metric_tags": {"version": "c"}}, 'metric_tags has "version"; a Prometheus label'),
        ({"metric_tags": {"reason": "c"}}, 'metric_tags has "reason"; a Prometheus label'),
        ({"metric_tags": {"__name__": "c"}}, 'metric_tags has "__name__"; a Prometheus label'),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        check(replace(GOOD, **changes), name="m")
    assert message in str(caught.value)


def _step(**changes: Any) -> dict[str, Any]:
    assert ENSEMBLE.ensemble_scheduling is not None
    step = replace(ENSEMBLE.ensemble_scheduling.step[0], **changes)
    return {"ensemble_scheduling": EnsembleScheduling(step=(step,))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "python"}, 'ensemble_scheduling has no meaning for "python"; set platform to'),
        ({"platform": "onnx"}, 'ensemble_scheduling has no meaning for "onnx"; set platform to'),
        ({"ensemble_scheduling": EnsembleScheduling()}, "ensemble_scheduling.step is missing"),
        ({"input": ()}, "an ensemble has to list its input and output"),
        ({"instance_group": (InstanceGroup(),)}, "instance_group has no meaning for an ensemble"),
        (_step(model_name=""), "ensemble_scheduling.step[0].model_name is missing"),
        (
            _step(model_version=-2),
            "step[0].model_version is -2; versions are at least 1, -1",
        ),
        (_step(input_map={}), "step[0].input_map is missing; it maps the model's names to the"),
        (_step(output_map={"out": ""}), "step[0].output_map has an empty name"),
    ],
)
def test_ensembles_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    assert message in "; ".join(problems(replace(ENSEMBLE, **changes), name="e"))


def test_everything_that_is_wrong_is_told_at_once() -> None:
    config = replace(GOOD, name="n", max_batch_size=-1, output=(ModelOutput(name="y"),))
    with pytest.raises(LoadFailed) as caught:
        check(config, name="m")
    assert str(caught.value).startswith('model "n": name is "n"')
    assert str(caught.value).count("; ") >= 4
