"""The JSON that ``GET /v2/models/m/config`` and a ``model.py`` see."""

from modelport.specs import (
    Control,
    ControlInput,
    DynamicBatching,
    Histogram,
    MetricControl,
    ModelConfig,
    ModelInput,
    ModelMetrics,
    Parameter,
    QueuePolicy,
    RateLimiter,
    Resource,
    SequenceBatching,
)
from modelport.wire.model_config import complete, encode_json, encode_pbtxt


def test_scalars_and_containers_are_printed_and_absent_records_are_not() -> None:
    config = ModelConfig(input=(ModelInput(name="x", data_type="TYPE_INT64", dims=(-1,)),))
    assert encode_json(config) == {
        "name": "",
        "platform": "",
        "backend": "",
        "runtime": "",
        "max_batch_size": 0,
        "input": [
            {
                "name": "x",
                "data_type": "TYPE_INT64",
                "format": "FORMAT_NONE",
                "dims": [-1],
                "is_shape_tensor": False,
                "allow_ragged_batch": False,
                "optional": False,
                "is_non_linear_format_io": False,
            }
        ],
        "output": [],
        "batch_input": [],
        "batch_output": [],
        "instance_group": [],
        "default_model_filename": "",
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {},
        "model_warmup": [],
    }


def test_a_completed_python_model_looks_as_triton_prints_it() -> None:
    config = complete(
        ModelConfig(
            max_batch_size=4,
            dynamic_batching=DynamicBatching(default_queue_policy=QueuePolicy(max_queue_size=2)),
            parameters={"k": Parameter(string_value="v")},
        ),
        name="add",
        backend="python",
    )
    plain = encode_json(config)
    assert plain["version_policy"] == {"latest": {"num_versions": 1}}
    assert plain["platform"] == ""
    assert plain["backend"] == "python"
    assert plain["default_model_filename"] == "model.py"
    assert plain["parameters"] == {"k": {"string_value": "v"}}
    assert plain["instance_group"] == [
        {
            "name": "add_0",
            "kind": "KIND_CPU",
            "count": 1,
            "gpus": [],
            "secondary_devices": [],
            "profile": [],
            "passive": False,
            "host_policy": "",
        }
    ]
    assert plain["optimization"] == {
        "priority": "PRIORITY_DEFAULT",
        "input_pinned_memory": {"enable": True},
        "output_pinned_memory": {"enable": True},
        "gather_kernel_buffer_threshold": 0,
        "eager_batching": False,
    }
    assert plain["dynamic_batching"] == {
        "preferred_batch_size": [4],
        "max_queue_delay_microseconds": 0,
        "preserve_ordering": False,
        "priority_levels": 0,
        "default_priority_level": 0,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": 0,
            "allow_timeout_override": False,
            "max_queue_size": 2,
        },
        "priority_queue_policy": {},
    }


def test_64_bit_integers_are_numbers_and_keys_of_maps_are_texts() -> None:
    batching = DynamicBatching(
        max_queue_delay_microseconds=2**64 - 1, priority_queue_policy={2: QueuePolicy()}
    )
    plain = encode_json(ModelConfig(dynamic_batching=batching))["dynamic_batching"]
    assert isinstance(plain, dict)
    assert plain["max_queue_delay_microseconds"] == 18446744073709551615
    assert list(plain["priority_queue_policy"]) == ["2"]


def test_what_json_has_no_number_for_is_a_text_as_in_protobufs_json() -> None:
    buckets = (1.0, float("inf"), float("-inf"), float("nan"))
    control = MetricControl(histogram_options=Histogram(buckets=buckets))
    plain = encode_json(ModelConfig(model_metrics=ModelMetrics(metric_control=(control,))))
    assert plain["model_metrics"] == {
        "metric_control": [
            {"histogram_options": {"buckets": [1.0, "Infinity", "-Infinity", "NaN"]}}
        ]
    }


def test_pbtxt_is_written_in_the_order_people_read_and_without_defaults() -> None:
    config = ModelConfig(
        name="m",
        backend="python",
        max_batch_size=2,
        input=(ModelInput(name="ä", data_type="TYPE_FP32", dims=(1, -1)),),
        sequence_batching=SequenceBatching(
            control_input=(
                ControlInput(name="END", control=(Control(kind="CONTROL_SEQUENCE_END"),)),
            )
        ),
    )
    assert encode_pbtxt(config) == (
        'name: "m"\n'
        'backend: "python"\n'
        "max_batch_size: 2\n"
        "input {\n"
        '  name: "ä"\n'
        "  data_type: TYPE_FP32\n"
        "  dims: [1, -1]\n"
        "}\n"
        "sequence_batching {\n"
        "  control_input {\n"
        '    name: "END"\n'
        "    control {\n"
        "      kind: CONTROL_SEQUENCE_END\n"
        "    }\n"
        "  }\n"
        "}\n"
    )


def test_a_keyword_has_its_own_name_again() -> None:
    from modelport.specs import InstanceGroup

    limiter = RateLimiter(resources=(Resource(name="r", is_global=True, count=1),))
    group = encode_json(ModelConfig(instance_group=(InstanceGroup(rate_limiter=limiter),)))
    assert group["instance_group"][0]["rate_limiter"] == {  # type: ignore[index]
        "resources": [{"name": "r", "global": True, "count": 1}],
        "priority": 0,
    }
