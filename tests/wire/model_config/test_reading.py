"""What each form may look like, and what is said of what it may not."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from modelport.errors import LoadFailed
from modelport.specs import (
    All,
    DynamicBatching,
    EnsembleScheduling,
    EnsembleStep,
    InstanceGroup,
    Latest,
    ModelConfig,
    ModelInput,
    ModelOutput,
    Parameter,
    PinnedMemory,
    QueuePolicy,
    Reshape,
    VersionPolicy,
)
from modelport.wire.model_config import decode_dict, decode_json, decode_pbtxt, decode_yaml
from modelport.wire.model_config.schema import MOST_CHARACTERS

IMAGE_MODEL = ModelConfig(
    name="resnet",
    platform="onnxruntime_onnx",
    max_batch_size=8,
    input=(
        ModelInput(name="x", data_type="TYPE_FP32", format="FORMAT_NCHW", dims=(3, 224, 224)),
        ModelInput(name="text", data_type="TYPE_STRING", dims=(-1,), optional=True),
    ),
    output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=(1,), reshape=Reshape()),),
    instance_group=(InstanceGroup(kind="KIND_CPU", count=2),),
    dynamic_batching=DynamicBatching(
        preferred_batch_size=(4, 8),
        max_queue_delay_microseconds=100,
        default_queue_policy=QueuePolicy(max_queue_size=16),
    ),
    parameters={"threads": Parameter(string_value="4")},
    metric_tags={"team": "vision"},
)

PBTXT = """
# As people write it: commas or none, colons before braces or none, <> for {}.
name: "resnet"
platform: 'onnxruntime' "_onnx"
max_batch_size: 0x8
input [
  { name: "x", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [ 3, 224, 224 ] },
  { name: "text"; data_type: 13; dims: -1; optional: true }
]
output < name: "y" data_type: TYPE_FP32 dims: 1 reshape { shape: [] } >
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: 4
  preferred_batch_size: 8
  max_queue_delay_microseconds: 100
  default_queue_policy: { max_queue_size: 16 }
}
parameters: { key: "threads" value: { string_value: "4" } }
metric_tags [ { key: "team", value: "vision" } ]
"""

JSON = """{
  "name": "resnet", "platform": "onnxruntime_onnx", "maxBatchSize": "8",
  "input": [
    {"name": "x", "dataType": "FP32", "format": 2, "dims": ["3", 224, 224.0]},
    {"name": "text", "data_type": "BYTES", "dims": [-1], "optional": true, "reshape": null}
  ],
  "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}],
  "instance_group": [{"kind": "KIND_CPU", "count": 2}],
  "dynamicBatching": {
    "preferredBatchSize": [4, 8], "maxQueueDelayMicroseconds": "100",
    "defaultQueuePolicy": {"maxQueueSize": 16}
  },
  "parameters": {"threads": {"string_value": "4"}},
  "metric_tags": {"team": "vision"}
}"""

YAML = """
name: resnet
platform: onnxruntime_onnx
max_batch_size: 0x8
input:
  - {name: x, data_type: FP32, format: FORMAT_NCHW, dims: [3, &side 224, *side]}
  - name: text
    data_type: TYPE_STRING
    dims: [-1]
    optional: yes
output:
  - {name: "y", data_type: FP32, dims: [1], reshape: {}}
instance_group: [{kind: KIND_CPU, count: 2}]
dynamic_batching:
  preferred_batch_size: [4, 8]
  max_queue_delay_microseconds: 100
  default_queue_policy: {max_queue_size: 16}
parameters: {threads: 4}
metric_tags: {team: vision}
"""


@pytest.mark.parametrize(
    ("decode", "text"),
    [(decode_pbtxt, PBTXT), (decode_json, JSON), (decode_yaml, YAML)],
    ids=["pbtxt", "json", "yaml"],
)
def test_the_same_model_in_every_form(decode: Callable[[str], ModelConfig], text: str) -> None:
    assert decode(text) == IMAGE_MODEL


def test_json_may_come_as_bytes_with_a_byte_order_mark() -> None:
    assert decode_json(b'\xef\xbb\xbf{"name": "m"}') == ModelConfig(name="m")


@pytest.mark.parametrize("text", ["", "\n", "# nothing"])
def test_empty_pbtxt_and_yaml_are_an_empty_configuration(text: str) -> None:
    assert decode_pbtxt(text) == decode_yaml(text) == ModelConfig()


@pytest.mark.parametrize(
    ("pbtxt", "plain", "config"),
    [
        (
            "version_policy { latest { num_versions: 0 } }",
            {"version_policy": {"latest": {"num_versions": 0}}},
            ModelConfig(version_policy=VersionPolicy(latest=Latest(num_versions=1))),
        ),
        (
            "version_policy { all {} }",
            {"version_policy": {"all": {}}},
            ModelConfig(version_policy=VersionPolicy(all=All())),
        ),
        (
            'ensemble_scheduling { step { model_name: "a" } }',
            {"ensemble_scheduling": {"step": [{"model_name": "a", "model_version": 0}]}},
            ModelConfig(
                ensemble_scheduling=EnsembleScheduling(
                    step=(EnsembleStep(model_name="a", model_version=-1),)
                )
            ),
        ),
        (
            "optimization { input_pinned_memory {} }",
            {"optimization": {"input_pinned_memory": {}}},
            None,
        ),
    ],
)
def test_a_zero_is_what_was_not_given(
    pbtxt: str, plain: dict[str, object], config: ModelConfig | None
) -> None:
    """proto3 cannot tell them apart, so JSON must not either."""
    assert decode_pbtxt(pbtxt) == decode_dict(plain)
    if config is None:
        optimization = decode_pbtxt(pbtxt).optimization
        assert optimization is not None
        assert optimization.input_pinned_memory == PinnedMemory(enable=False)
    else:
        assert decode_dict(plain) == config


@pytest.mark.parametrize(
    ("value", "text"),
    [("v", "v"), (True, "true"), (False, "false"), (3, "3"), (0.5, "0.5")],
)
def test_parameters_may_be_plain_values(value: object, text: str) -> None:
    parameters = {"k": Parameter(string_value=text)}
    assert decode_dict({"parameters": {"k": value}}).parameters == parameters


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", True), ("No", False), ("TRUE", True), ("false", False)],
)
def test_yaml_booleans(text: str, value: bool) -> None:
    assert decode_yaml(f"input: [{{optional: {text}}}]").input[0].optional is value


@pytest.mark.parametrize("text", ["2024-01-01", "1:30", "=", "y", "v1", "1.2.3"])
def test_yaml_words_stay_words(text: str) -> None:
    assert decode_yaml(f"name: {text}").name == text


def test_priorities_are_numbers_in_every_form() -> None:
    expected = {2: QueuePolicy(max_queue_size=1)}
    for config in (
        decode_pbtxt(
            "dynamic_batching { priority_queue_policy { key: 2 value { max_queue_size: 1 } } }"
        ),
        decode_json(
            '{"dynamic_batching": {"priority_queue_policy": {"2": {"max_queue_size": 1}}}}'
        ),
        decode_yaml("dynamic_batching: {priority_queue_policy: {2: {max_queue_size: 1}}}"),
    ):
        assert config.dynamic_batching is not None
        assert config.dynamic_batching.priority_queue_policy == expected


PBTXT_ERRORS = [
    ('nme: "x"', 'line 1, column 1: there is no field "nme" in ModelConfig; did you mean "name"?'),
    (
        'name: "m"\ninput [ { data_typ: TYPE_FP32 } ]',
        'line 2, column 11: there is no field "data_typ" in ModelInput; did you mean "data_type"?',
    ),
    (
        "input { data_type: TYPE_F32 }",
        'line 1, column 20: "TYPE_F32" is no value of DataType; did you mean "TYPE_FP32"?',
    ),
    ("zzz: 1", 'there is no field "zzz" in ModelConfig; there are: name, platform, backend,'),
    ("input {} input { data_type: 99 }", "input[1].data_type: 99 is no value of this field"),
    ("input { data_type: 99999999999 }", "a number does not fit its field: "),
    ('max_batch_size: "x"', 'line 1, column 17: expected an integer, got "x"'),
    ("max_batch_size: 1.5", "line 1, column 17: expected an integer, got 1.5"),
    ("max_batch_size: 99999999999", "99999999999 is too large or too small for this field"),
    ("name: x", "line 1, column 7: expected a text in quotes, got x"),
    ('name: "a" name: "b"', "line 1, column 17: name is given twice; keep one"),
    ("input { dims: [ 1, 2 }", 'line 1, column 22: no protobuf text: Expected ",".'),
    ("input {", 'no protobuf text: Expected "}".'),
    ('name: "a', "line 1, column 7: a text has no closing quote"),
    ('name: "\\377"', "no protobuf text: Couldn't parse string"),
    ("\x00", "no protobuf text: Expected identifier or number, got \\x00."),
    (
        "dynamic_batching {} ensemble_scheduling {}",
        "dynamic_batching and ensemble_scheduling exclude one another; keep one",
    ),
    ('name: "\ud800"', "character 7: half a character (a lone surrogate)"),
    ('name: "' + "\\" * 200 + '"', "hundreds of backslashes in a row are no configuration"),
    (" " * (MOST_CHARACTERS + 1), "262145 characters are more than the 262144 it may have"),
]

JSON_ERRORS = [
    ("{", "line 1, column 2: no JSON: "),
    ("[]", "model configuration: expected an object with fields, got a list"),
    ("null", "expected an object with fields, got nothing"),
    ("[" * 100_000, "nested too deeply"),
    ('{"max_batch_size": ' + "9" * 5000 + "}", "a number has too many digits"),
    ('{"nme": 1}', 'model configuration: there is no field "nme"; did you mean "name"?'),
    ('{"input": [{}, {"data_typ": 1}]}', 'input[1]: there is no field "data_typ"; did you mean'),
    ('{"input": [{"data_type": "FP33"}]}', '"FP33" is no value of this field; there are: TYPE_'),
    ('{"input": [{"data_type": true}]}', "true is no value of this field; there are: TYPE_"),
    ('{"input": [{"data_type": 15}]}', "15 is no value of this field"),
    ('{"instance_group": [{"kind": "KIND_CPUS"}]}', 'did you mean "KIND_CPU"?'),
    ('{"input": {"name": "x"}}', "input: expected a list, got an object; put it in [ ]"),
    ('{"input": ["x"]}', 'input[0]: expected an object with fields, got "x"'),
    ('{"input": [{"dims": [1, "x"]}]}', 'input[0].dims[1]: expected an integer, got "x"'),
    ('{"input": [{"dims": ["010"]}]}', 'input[0].dims[0]: expected an integer, got "010"'),
    ('{"input": [{"optional": 1}]}', "input[0].optional: expected true or false, got 1"),
    ('{"max_batch_size": true}', "max_batch_size: expected an integer, got true"),
    ('{"max_batch_size": 1e400}', "max_batch_size: expected an integer, got inf"),
    (
        '{"max_batch_size": 2147483648}',
        "expected an integer from -2147483648 to 2147483647, got 2147483648",
    ),
    ('{"name": 3}', "name: expected a text, got 3; put it in quotes"),
    ('{"name": "\\ud800"}', 'name: "\\ud800" has half a character'),
    ('{"name": "a", "name": "b"}', "model configuration, name: given twice; keep one"),
    ('{"maxBatchSize": 1, "max_batch_size": 2}', "max_batch_size: given twice, in two spellings"),
    ('{"parameters": {"a": "x", "a": "y"}}', 'parameters["a"]: given twice; keep one'),
    ('{"parameters": ["a"]}', "parameters: expected an object of names and values, got a list"),
    ('{"metric_tags": {"a": 1}}', 'metric_tags["a"]: expected a text, got 1'),
    (
        '{"dynamic_batching": {"priority_queue_policy": {"1": {}, "high": {}}}}',
        'dynamic_batching.priority_queue_policy["high"]: expected an integer, got "high"',
    ),
    ('{"version_policy": {"all": {}, "latest": {}}}', "version_policy: latest and all exclude"),
    (
        '{"sequence_batching": {"direct": {"minimum_slot_utilization": 1e39}}}',
        "minimum_slot_utilization: 1e+39 is too large for single precision",
    ),
]

YAML_ERRORS = [
    ("a: b: c", "line 1, column 5: no YAML: mapping values are not allowed here"),
    ("name: *a", "line 1, column 7: no YAML: found undefined alias 'a'"),
    ("{", "no YAML: "),
    ("\x01", "no YAML: a forbidden character"),
    ("[" * 1000, "no YAML: nested too deeply"),
    ("- a", "expected an object with fields, got a list"),
    ("name: no", "name: expected a text, got false; put it in quotes"),
    ("max_batch_size: 010", 'max_batch_size: expected an integer, got "010"'),
    ("name: m\nname: n", 'line 2, column 1: "name" is given twice; keep one'),
    ("name: !!binary aGk=", 'the tag "tag:yaml.org,2002:binary" has no meaning here; remove it'),
    ("x: !!python/object:os.system {}", "has no meaning here; remove it"),
    ("[a]: 1", "a name has to be a text, not a list"),
    ("name: &a [*a]", "nested too deeply; mind the aliases"),
    (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(
            f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
            for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "too many values, or nested too deeply; mind the aliases",
    ),
]


@pytest.mark.parametrize(("text", "message"), PBTXT_ERRORS)
def test_pbtxt_errors_say_what_and_where(text: str, message: str) -> None:
    _refused(decode_pbtxt, text, message)


@pytest.mark.parametrize(("text", "message"), JSON_ERRORS)
def test_json_errors_say_what_and_where(text: str, message: str) -> None:
    _refused(decode_json, text, message)


@pytest.mark.parametrize(("text", "message"), YAML_ERRORS)
def test_yaml_errors_say_what_and_where(text: str, message: str) -> None:
    _refused(decode_yaml, text, message)


def test_json_in_another_encoding_is_refused() -> None:
    with pytest.raises(LoadFailed, match=r"byte 10: no UTF-8; write the file in that encoding"):
        decode_json(b'{"name": "\xe4"}')


def _refused(decode: Callable[[str], ModelConfig], text: str, message: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        decode(text)
    assert str(caught.value).startswith("model configuration")
    assert message in str(caught.value)


def test_importing_and_json_load_neither_protobuf_nor_yaml() -> None:
    """They cost tens of milliseconds, which a server without such files need not spend."""
    code = (
        "import sys; from modelport.wire import model_config as m; from modelport.specs import *;"
        "m.encode_json(m.complete(m.merge(m.decode_json('{}'), ModelConfig()), name='m'));"
        "print('yaml' in sys.modules, 'google.protobuf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
