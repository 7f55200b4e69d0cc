import base64
import json
from typing import Any

import pytest

from modelport.errors import InvalidRequest
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.stats import ModelStatistics
from modelport.wire.v2_admin import (
    LoadRequest,
    decode_index_request,
    decode_load_request,
    decode_unload_request,
    model_metadata,
    statistics,
)


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_load_may_carry_a_configuration_and_files() -> None:
    data = b"\x00\xffcode"
    request = decode_load_request(
        body(
            {
                "parameters": {
                    "config": '{"max_batch_size":"16"}',
                    "file:1/model.py": base64.b64encode(data).decode(),
                }
            }
        ),
        "m",
    )
    assert request.config == '{"max_batch_size":"16"}'
    assert request.files == {"1/model.py": data}


@pytest.mark.parametrize("text", [b"", b"{}", b'{"parameters":{}}', b'{"other":1}'])
def test_a_load_may_ask_for_nothing_special(text: bytes) -> None:
    assert decode_load_request(text, "m") == LoadRequest()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"parameters": {"x": "y"}}, "unrecognized load parameter 'x'."),
        ({"parameters": {"config": 1}}, "invalid value type for load parameter 'config', expected "
                                        "string_param."),
        ({"parameters": {"file:1/a": {}}}, "invalid value type for load parameter 'file:1/a'"),
        ({"parameters": {"file:1/a": "%%"}}, "invalid value for load parameter 'file:1/a'"),
        ({"parameters": {"file:1/a": "é"}}, "invalid value for load parameter 'file:1/a'"),
    ],
)  # fmt: skip
def test_bad_loads_say_that_nothing_was_loaded(value: Any, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_load_request(body(value), "m")
    assert str(caught.value).startswith(text)
    assert "failed to load 'm'" in str(caught.value)


def test_bodies_are_objects() -> None:
    for decode in (decode_index_request, decode_unload_request):
        for text in (b"[]", b"1", b"{", b"\xff"):
            with pytest.raises(InvalidRequest):
                decode(text)
    with pytest.raises(InvalidRequest, match=r"^failed to get request params"):
        decode_unload_request(b'{"parameters":[]}')


def test_an_unload_may_take_dependents_along() -> None:
    assert decode_unload_request(b"") is False
    assert decode_unload_request(b'{"parameters":{"unload_dependents":true}}') is True
    with pytest.raises(InvalidRequest, match="non-boolean as boolean"):
        decode_unload_request(b'{"parameters":{"unload_dependents":"yes"}}')


def test_an_index_may_list_only_what_is_ready() -> None:
    assert decode_index_request(b"") is False
    assert decode_index_request(b"{}") is False
    assert decode_index_request(b'{"ready":true}') is True
    with pytest.raises(InvalidRequest, match=r"^Invalid value for 'ready': expected a boolean$"):
        decode_index_request(b'{"ready":1}')


CONFIG = ModelConfig(
    name="m",
    backend="python",
    max_batch_size=8,
    input=(ModelInput(name="I", data_type="TYPE_STRING", dims=(1,), optional=True),),
    output=(ModelOutput(name="O", data_type="TYPE_FP32", dims=(-1, 2)),),
)


def test_metadata_has_the_batch_dimension_and_a_platform() -> None:
    assert model_metadata(CONFIG, [1, 3]) == {
        "name": "m",
        "versions": ["1", "3"],
        "platform": "python",
        "inputs": [{"name": "I", "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": "O", "datatype": "FP32", "shape": [-1, -1, 2]}],
    }
    ensemble = ModelConfig(name="e", platform="ensemble", input=CONFIG.input)
    metadata = model_metadata(ensemble, [])
    assert metadata["platform"] == "ensemble"
    assert metadata["inputs"][0]["shape"] == [1]


def test_statistics_have_all_their_members() -> None:
    counted = ModelStatistics()
    counted.record_execution(1_000, 4, 1, 2, 3)
    counted.record_execution(2_000, 2, 1, 2, 3)
    counted.record_success(4, 10, 4, 1, 2, 3)
    counted.record_failure(7, "BACKEND")
    counted.record_response(0, 7)
    shown = statistics("m", 2, counted)
    assert (shown["name"], shown["version"]) == ("m", "2")
    assert (shown["inference_count"], shown["execution_count"]) == (4, 2)
    assert shown["last_inference"] > 10**12
    assert shown["inference_stats"] == {
        "success": {"count": 1, "ns": 10},
        "fail": {"count": 1, "ns": 7},
        "queue": {"count": 1, "ns": 4},
        "compute_input": {"count": 1, "ns": 1},
        "compute_infer": {"count": 1, "ns": 2},
        "compute_output": {"count": 1, "ns": 3},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert [row["batch_size"] for row in shown["batch_stats"]] == [2, 4]
    assert shown["batch_stats"][1]["compute_infer"] == {"count": 1, "ns": 2}
    nothing, one = {"count": 0, "ns": 0}, {"count": 1, "ns": 7}
    assert shown["response_stats"]["0"] == {
        "compute_infer": one,
        "compute_output": {"count": 1, "ns": 0},
        "success": one,
        "fail": nothing,
        "empty_response": nothing,
        "cancel": nothing,
    }
    assert shown["memory_usage"] == []
