"""Feed anything to the readers of model configurations.

The invariant: whatever the bytes, each reader gives a ``ModelConfig`` or raises ``LoadFailed`` with
a text that can be sent, and nothing else. What was read can be written in every form and reads back
as the same, and completing, checking and refusing never raise anything else either.

    python -m fuzz.model_config [RUNS]           with a plain mutator of its own
    python -m fuzz.model_config --atheris ...    guided by coverage, with libFuzzer's options;
                                                 needs `pip install atheris`
"""

import json
from collections.abc import Callable, Iterator

from fuzz import harness
from modelport.errors import LoadFailed
from modelport.specs import ModelConfig
from modelport.wire import model_config

SEEDS = (
    b'name: "m" platform: "onnxruntime_onnx" max_batch_size: 8\n'
    b'input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, -1 ] } ]\n'
    b'output { name: "y" data_type: TYPE_STRING dims: 1 reshape { shape: [] } }\n'
    b"dynamic_batching { preferred_batch_size: [ 4 ] priority_queue_policy { key: 1 value {} } }\n"
    b'instance_group [ { count: 2 kind: KIND_CPU } ] # two\nparameters { key: "k" value: '
    b'{ string_value: "a\\tb" } } version_policy: { specific: { versions: [ 1, 3 ] } }\n',
    b'sequence_batching { oldest { max_candidate_sequences: 4 } control_input < name: "START" '
    b"control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1.5e-3 ] } > state { "
    b'initial_state { zero_data: true name: "s" dims: 0x10 } } }\n',
    b'{"name": "m", "maxBatchSize": "8", "input": [{"name": "x", "data_type": "FP32", "dims": '
    b'[3, "-1"], "reshape": {"shape": []}}], "parameters": {"k": "v", "n": {"string_value": '
    b'"\\u00e9"}}, "optimization": {"cuda": {"graph_spec": [{"input": {"x": {"dim": [1]}}}]}}, '
    b'"metric_tags": {"a": "b"}, "model_metrics": {"metric_control": [{"histogram_options": '
    b'{"buckets": [0.1, 1e3, "Infinity"]}}]}, "version_policy": {"all": {}}}',
    b"name: m\nmax_batch_size: 8\ninput:\n- &t {name: x, data_type: FP32, dims: [-1, 0x10]}\n"
    b"- *t\nparameters: {threads: 4, fast: yes, rate: 1.5e+3}\nensemble_scheduling:\n  step:\n"
    b"  - model_name: a\n    model_version: -1\n    input_map: {A: a}\n    output_map: {B: b}\n",
)

WORDS = (
    b"{", b"}", b"[", b"]", b"<", b">", b":", b",", b";", b'"', b"'", b"\\", b"\n", b" ", b"#",
    b"- ", b"&a ", b"*a", b"<<: ", b"!!int ", b"!!bool ", b"!!timestamp ", b"%", b"? ", b"| ",
    b"null", b"true", b"nan", b"inf", b"-0", b"1e999", b"99999999999999999999", b"-1", b"0x",
    b"\\ud800", b"\\377", b"\\x00", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"2024-13-45", b"1:61", b"[foo.bar/a.b]", b"TYPE_", b"name", b"dims", b"input", b"parameters",
)  # fmt: skip


def check(data: bytes) -> None:
    """Hold the invariant on one input.

    Raises:
        Exception: Whatever broke it.
    """
    text = data.decode("utf-8", "surrogateescape")
    _check(lambda: model_config.decode_json(data))
    _check(lambda: model_config.decode_yaml(text))
    _check(lambda: model_config.decode_pbtxt(text))


def mutations(seed: int) -> Iterator[bytes]:
    """Give inputs without end."""
    return harness.mutations(seed, SEEDS, WORDS)


def _check(read: Callable[[], ModelConfig]) -> None:
    try:
        config = read()
    except LoadFailed as exc:
        str(exc).encode()
        return
    plain = model_config.encode_json(config)
    text = json.dumps(plain)
    # Compared as written, because a NaN is not equal to itself.
    assert model_config.encode_json(model_config.decode_json(text)) == plain
    pbtxt = model_config.encode_pbtxt(config)
    assert model_config.encode_json(model_config.decode_pbtxt(pbtxt)) == plain
    complete = model_config.complete(config, name="m")
    for found in (*model_config.problems(complete), *model_config.unsupported(complete)):
        found.encode()
    try:
        model_config.merge(config, complete)
    except LoadFailed as exc:
        str(exc).encode()


if __name__ == "__main__":
    harness.main(check, mutations)
