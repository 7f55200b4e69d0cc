"""No field is read and then silently ignored."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelport.errors import LoadFailed
from modelport.specs import ModelConfig
from modelport.wire.model_config import (
    complete,
    decode_pbtxt,
    left_out,
    refuse_unsupported,
    unsupported,
)
from modelport.wire.model_config.reference import page
from modelport.wire.model_config.schema import dotted, fields_of
from modelport.wire.model_config.support import ACTED_ON, FASTER, GPU_ONLY, HINTS, NOT_YET


def _decided(record: type = ModelConfig, path: str = "") -> Iterator[str]:
    """The paths at which a walk down the schema has to stop: listed, or without fields."""
    for name, field in fields_of(record).items():
        place = dotted(path, name)
        if (
            place in ACTED_ON | HINTS.keys() | FASTER.keys() | GPU_ONLY.keys() | NOT_YET.keys()
            or not field.is_record
        ):
            yield place
        else:
            assert isinstance(field.item, type)
            yield from _decided(field.item, place)


def test_every_field_of_the_schema_stands_in_exactly_one_table() -> None:
    listed = [*ACTED_ON, *HINTS, *FASTER, *GPU_ONLY, *NOT_YET]
    assert len(listed) == len(set(listed))
    assert set(_decided()) == set(listed)


SUPPORTED = """
name: "m" platform: "onnxruntime_onnx" backend: "onnxruntime" max_batch_size: 8
version_policy { specific { versions: [1, 2] } }
input {
  name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, 2, 2] optional: true
  reshape { shape: 12 }
}
output { name: "y" data_type: TYPE_FP32 dims: 1 reshape {} label_filename: "labels.txt" }
instance_group [
  { name: "g" kind: KIND_CPU count: 2 rate_limiter { priority: 1 } host_policy: "x" },
  { kind: KIND_MODEL }, { gpus: 0 } ]
optimization {
  graph { level: 1 } priority: PRIORITY_MAX eager_batching: true
  gather_kernel_buffer_threshold: 3 input_pinned_memory { enable: true }
  cuda { busy_wait_events: true graphs: true graph_spec { batch_size: 1 } }
  execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } }
}
cc_model_filenames { key: "7.5" value: "m" }
dynamic_batching {
  preferred_batch_size: 4 max_queue_delay_microseconds: 1 preserve_ordering: true
  default_queue_policy {
    timeout_action: REJECT default_timeout_microseconds: 1 allow_timeout_override: true
    max_queue_size: 1
  }
  priority_levels: 2 default_priority_level: 2
  priority_queue_policy { key: 1 value { timeout_action: DELAY max_queue_size: 3 } }
}
default_model_filename: "m.onnx"
metric_tags { key: "a" value: "b" }
parameters { key: "a" value { string_value: "b" } }
model_transaction_policy { decoupled: true }
response_cache { enable: true }
model_repository_agents { agents { name: "checksum" parameters { key: "MD5:a" value: "b" } } }
model_metrics { metric_control { histogram_options { buckets: 1 } } }
model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { zero_data: true } } }
"""
SEQUENCES = """
sequence_batching {
  max_sequence_idle_microseconds: 1 iterative_sequence: true
  oldest {
    max_candidate_sequences: 1 preferred_batch_size: 2 max_queue_delay_microseconds: 3
    preserve_ordering: true
  }
  control_input { name: "S" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }
  control_input { name: "E" control { kind: CONTROL_SEQUENCE_END fp32_false_true: [0, 1] } }
  control_input { name: "I" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
  state {
    input_name: "a" output_name: "b" data_type: TYPE_FP32 dims: 1
    use_same_buffer_for_input_output: true use_growable_memory: true
    initial_state { name: "c" data_type: TYPE_FP32 dims: 1 zero_data: true }
  }
  state {
    input_name: "d" output_name: "e" data_type: TYPE_FP32 dims: 1
    initial_state { data_type: TYPE_FP32 dims: 1 data_file: "f" }
  }
}
"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        SUPPORTED,
        SEQUENCES,
        "sequence_batching { direct { max_queue_delay_microseconds: 1 "
        "minimum_slot_utilization: 0.5 } }",
        "version_policy { all {} }",
        "ensemble_scheduling { max_inflight_requests: 2 step { model_name: 'a' model_version: 2 "
        "input_map { key: 'a' "
        "value: 'b' } output_map { key: 'a' value: 'b' } } }",
    ],
)
def test_what_is_acted_on_passes_as_read_and_completed(text: str) -> None:
    config = decode_pbtxt(text)
    refuse_unsupported(config)
    refuse_unsupported(complete(config, name="m"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('runtime: "x"', "runtime: "),
        ("input {} input { is_shape_tensor: true }", "input[1].is_shape_tensor: "),
        ("input { allow_ragged_batch: true }", "input[0].allow_ragged_batch: "),
        ("input { is_non_linear_format_io: true }", "input[0].is_non_linear_format_io: "),
        ("output { is_shape_tensor: true }", "output[0].is_shape_tensor: "),
        ("batch_input {}", "batch_input: "),
        ("batch_output {}", "batch_output: "),
        (
            'ensemble_scheduling { step {} step { model_namespace: "n" } }',
            "ensemble_scheduling.step[1].model_namespace: ",
        ),
        ("instance_group { secondary_devices {} }", "instance_group[0].secondary_devices: "),
        ('instance_group { profile: "0" }', "instance_group[0].profile: "),
        ("instance_group { passive: true }", "instance_group[0].passive: "),
        ("model_operations {}", "model_operations: "),
    ],
)
def test_what_is_not_acted_on_is_refused_by_name(text: str, place: str) -> None:
    config = complete(decode_pbtxt(text), name="m")
    found = list(unsupported(config))
    assert len(found) == 1
    assert found[0].startswith(place)
    with pytest.raises(LoadFailed) as caught:
        refuse_unsupported(config)
    start = 'model "m": the configuration asks for what Modelport does not do yet: '
    assert str(caught.value) == start + found[0]


ON_GPU = """
instance_group { kind: KIND_CPU } instance_group { kind: KIND_GPU gpus: 0 }
optimization {
  cuda { graphs: true graph_spec { batch_size: 1 } }
  execution_accelerators {
    gpu_execution_accelerator { name: "tensorrt" } cpu_execution_accelerator { name: "openvino" }
  }
}
cc_model_filenames { key: "7.5" value: "m" }
"""
ON_CPU = ON_GPU.replace("KIND_GPU gpus: 0", "KIND_CPU")


def test_what_concerns_gpus_is_refused_only_of_models_that_are_on_one() -> None:
    config = decode_pbtxt(ON_GPU)
    places = [text.partition(":")[0] for text in unsupported(config)]
    assert sorted(places) == sorted(GPU_ONLY)
    assert list(unsupported(decode_pbtxt(ON_CPU))) == []


def test_what_only_makes_models_faster_is_left_out_and_told() -> None:
    on_gpu = decode_pbtxt(ON_GPU.partition("cc_model")[0])
    assert sorted(text.partition(":")[0] for text in left_out(on_gpu)) == sorted(FASTER)
    [text] = left_out(decode_pbtxt(ON_CPU))
    assert text.startswith("optimization.execution_accelerators.cpu_execution_accelerator: ")


def test_all_of_it_is_told_at_once() -> None:
    config = decode_pbtxt('runtime: "x" model_operations {} batch_input {}')
    assert len(list(unsupported(config))) == 3


def test_the_reference_page_is_current() -> None:
    """If this fails: make docs."""
    written = Path(__file__).parents[3] / "docs" / "reference" / "model-configuration.md"
    assert written.read_text(encoding="utf-8") == page()


def test_every_refusal_says_what_to_do() -> None:
    for path, text in {**NOT_YET, **GPU_ONLY}.items():
        assert any(word in text for word in ("remove", "use ", "set ", "let ")), path
