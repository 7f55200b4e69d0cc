"""What is read can be written, in every form, and reads back as the same."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.specs import ModelConfig, OneOf, Single, Within
from modelport.wire.model_config import (
    decode_dict,
    decode_json,
    decode_pbtxt,
    decode_yaml,
    encode_json,
    encode_pbtxt,
    from_proto,
    to_proto,
)
from modelport.wire.model_config.schema import ONE_OF_BY_RECORD, Field, Item, fields_of
from modelport.wire.proto import model_config_pb2

EVERY_FIELD = """
name: "everything"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
runtime: "lib.so"
version_policy { specific { versions: [1, 9223372036854775807] } }
max_batch_size: 16
input {
  name: "pixels" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, -1, -1]
  reshape { shape: [3, -1, -1] }
  is_shape_tensor: true allow_ragged_batch: true optional: true is_non_linear_format_io: true
}
output {
  name: "label" data_type: TYPE_STRING dims: 1 reshape { shape: 1 }
  label_filename: "labels.txt" is_shape_tensor: true is_non_linear_format_io: true
}
batch_input {
  kind: BATCH_ITEM_SHAPE_FLATTEN target_name: "size" data_type: TYPE_INT32 source_input: "pixels"
}
batch_output { target_name: "label" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "pixels" }
optimization {
  graph { level: -1 }
  priority: PRIORITY_MIN
  cuda {
    graphs: true busy_wait_events: true output_copy_stream: true
    graph_spec {
      batch_size: 4
      input { key: "pixels" value { dim: [3, 2, 2] } }
      graph_lower_bound { batch_size: 1 input { key: "pixels" value { dim: [3, 1, 1] } } }
    }
  }
  execution_accelerators {
    gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision" value: "FP16" } }
    cpu_execution_accelerator { name: "openvino" parameters { key: "a" value: "b" } }
  }
  input_pinned_memory { enable: true }
  output_pinned_memory { enable: false }
  gather_kernel_buffer_threshold: 7
  eager_batching: true
}
dynamic_batching {
  preferred_batch_size: [4, 8] max_queue_delay_microseconds: 18446744073709551615
  preserve_ordering: true priority_levels: 2 default_priority_level: 1
  default_queue_policy {
    timeout_action: DELAY default_timeout_microseconds: 5 allow_timeout_override: true
    max_queue_size: 3
  }
  priority_queue_policy {
    key: 2
    value {
      timeout_action: DELAY default_timeout_microseconds: 6 allow_timeout_override: true
      max_queue_size: 1
    }
  }
}
instance_group {
  name: "group" kind: KIND_GPU count: 2 gpus: [0, 1]
  rate_limiter { resources { name: "memory" global: true count: 4 } priority: 2 }
  secondary_devices { kind: KIND_NVDLA device_id: 1 }
  profile: ["0", "1"] passive: true host_policy: "gpu_0"
}
default_model_filename: "best.onnx"
cc_model_filenames { key: "7.5" value: "turing.onnx" }
metric_tags { key: "team" value: "vision" }
parameters { key: "execution" value { string_value: "thread" } }
model_warmup {
  name: "zeros" batch_size: 1 count: 2
  inputs { key: "pixels" value { data_type: TYPE_FP32 dims: [3, 2, 2] zero_data: true } }
  inputs { key: "other" value { data_type: TYPE_FP32 dims: 2 input_data_file: "raw" } }
  inputs { key: "third" value { data_type: TYPE_FP32 dims: 2 random_data: true } }
}
model_operations { op_library_filename: "ops.so" }
model_transaction_policy { decoupled: true }
model_repository_agents { agents { name: "checksum" parameters { key: "MD5" value: "0" } } }
response_cache { enable: true }
model_metrics {
  metric_control {
    metric_identifier { family: "nv_inference_first_response_histogram_ms" }
    histogram_options { buckets: [0.1, 1, 10] }
  }
}
"""

SEQUENCES = """
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  direct { max_queue_delay_microseconds: 100 minimum_slot_utilization: 0.1 }
  control_input {
    name: "START"
    control { kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 0.1] }
    control { kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1] }
    control { kind: CONTROL_SEQUENCE_READY bool_false_true: [false, true] }
    control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }
  }
  state {
    input_name: "in" output_name: "out" data_type: TYPE_INT32 dims: 1
    initial_state { name: "zero" data_type: TYPE_INT32 dims: 1 zero_data: false }
    initial_state { name: "file" data_type: TYPE_INT32 dims: 1 data_file: "state" }
    use_same_buffer_for_input_output: true use_growable_memory: true
  }
  iterative_sequence: true
}
"""

OLDEST = """
sequence_batching {
  oldest {
    max_candidate_sequences: 4 preferred_batch_size: 2 max_queue_delay_microseconds: 9
    preserve_ordering: true
  }
}
"""

ENSEMBLE = """
platform: "ensemble"
version_policy { all { } }
ensemble_scheduling {
  step {
    model_name: "first" model_version: 7 model_namespace: "there"
    input_map { key: "x" value: "image" }
    output_map { key: "y" value: "label" }
  }
  max_inflight_requests: 3
}
"""

LATEST = 'name: "l" version_policy { latest { num_versions: 2 } }'

SAMPLES = {
    "every field": EVERY_FIELD,
    "sequences": SEQUENCES,
    "oldest": OLDEST,
    "ensemble": ENSEMBLE,
    "latest": LATEST,
    "empty": "",
}


def _item(item: Item) -> st.SearchStrategy[object]:
    match item:
        case Within(least, most):
            return st.integers(least, most).filter(bool)
        case OneOf(names):
            return st.sampled_from(names)
        case Single():
            return st.floats(width=32, allow_nan=False).map(_shortest)
    if item is str:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    if item is bool:
        return st.booleans()
    return st.floats(allow_nan=False) if item is float else _record(item)


def _shortest(value: float) -> float:
    from modelport.wire.model_config.schema import single

    return single(value)


def _field(field: Field) -> st.SearchStrategy[object]:
    match field.container:
        case "list":
            return st.lists(_item(field.item), max_size=2).map(tuple)
        case "map":
            return st.dictionaries(_item(field.key), _item(field.item), max_size=2)
    return _item(field.item)


@st.composite
def _record(draw: st.DrawFn, record: type) -> object:
    known = fields_of(record)
    names = set(draw(st.lists(st.sampled_from(list(known)), max_size=5))) if known else set()
    for group in ONE_OF_BY_RECORD.get(record, ()):
        names -= set(group[1:] if group[0] in names else group[2:] if group[1] in names else ())
    return record(**{known[name].attribute: draw(_field(known[name])) for name in sorted(names)})


configs: st.SearchStrategy[ModelConfig] = _record(ModelConfig)  # type: ignore[assignment]


@given(configs)
@settings(max_examples=60, deadline=None)
def test_any_configuration_survives_every_form(config: ModelConfig) -> None:
    plain = encode_json(config)
    assert decode_dict(plain) == config
    assert decode_json(json.dumps(plain)) == config
    assert decode_pbtxt(encode_pbtxt(config)) == config
    wire = to_proto(config).SerializeToString()
    assert from_proto(model_config_pb2.ModelConfig.FromString(wire)) == config


@pytest.mark.parametrize("text", SAMPLES.values(), ids=list(SAMPLES))
def test_samples_survive_every_form(text: str) -> None:
    config = decode_pbtxt(text)
    text_of_json = json.dumps(encode_json(config))
    assert decode_json(text_of_json) == config
    assert decode_yaml(text_of_json) == config
    assert decode_pbtxt(encode_pbtxt(config)) == config


def test_the_samples_have_every_field() -> None:
    """So that nothing is left to luck in the tests above."""
    given_paths = {path for text in SAMPLES.values() for path in _given(decode_pbtxt(text))}
    assert given_paths == set(_all_paths(ModelConfig, ""))


def _given(record: object, path: str = "") -> Iterator[str]:
    for name, field in fields_of(type(record)).items():
        value = getattr(record, field.attribute)
        if value is None or (value == field.default() and field.item is not bool):
            continue
        yield f"{path}{name}"
        if field.is_record:
            values = value.values() if field.container == "map" else value
            for each in [value] if field.container == "one" else values:
                yield from _given(each, f"{path}{name}.")


# First values of enumerations are defaults; they cannot be told from a field that is not given.
_INVISIBLE = {"instance_group.secondary_devices.kind", "batch_output.kind"}


def _all_paths(record: type, path: str) -> Iterator[str]:
    for name, field in fields_of(record).items():
        if f"{path}{name}" in _INVISIBLE:
            continue
        yield f"{path}{name}"
        if field.is_record:
            assert isinstance(field.item, type)
            yield from _all_paths(field.item, f"{path}{name}.")


def _fuzz() -> ModuleType:
    path = Path(__file__).parents[3] / "fuzz" / "model_config.py"
    spec = importlib.util.spec_from_file_location("fuzz_model_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_configurations_are_read_or_refused() -> None:
    fuzz = _fuzz()
    check: Callable[[bytes], None] = fuzz.check
    for seed in fuzz.SEEDS:
        check(seed)
    for data in islice(fuzz.mutations(seed=1), 300):
        check(data)


@given(st.binary(max_size=60))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _fuzz().check(data)
