"""The configuration of OVMS: what is acted on, what changes nothing, what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.errors import LoadFailed
from modelport.specs import All, Latest, Specific, VersionPolicy
from modelport.wire.model_config import decode_ovms, is_ovms


def read(*configs: dict[str, Any], **others: Any) -> Any:
    entries = [{"config": {"name": "m", "base_path": "/models/m", **config}} for config in configs]
    text = json.dumps({"model_config_list": entries, **others})
    assert is_ovms(text)
    return decode_ovms(text)


def refusal(*configs: dict[str, Any], **others: Any) -> str:
    with pytest.raises(LoadFailed) as error:
        read(*configs, **others)
    return str(error.value)


def test_models_have_a_name_and_a_directory() -> None:
    first, second = read({"name": "a"}, {"name": "b", "base_path": "b"})
    assert (first.name, first.base_path) == ("a", "/models/m")
    assert (second.name, second.base_path) == ("b", "b")
    assert first.config.switch("ovms")
    assert first.config.version_policy is None


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"all": {}}, VersionPolicy(all=All())),
        ({"latest": {"num_versions": 2}}, VersionPolicy(latest=Latest(num_versions=2))),
        ({"specific": {"versions": [1, 3]}}, VersionPolicy(specific=Specific(versions=(1, 3)))),
    ],
)
def test_the_policy_is_ours(policy: Any, expected: VersionPolicy) -> None:
    (model,) = read({"model_version_policy": policy})
    assert model.config.version_policy == expected


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("NHWC", "NHWC"),
        ("NCHW", "NCHW"),
        ("NHWC:NCHW", "NHWC:NCHW"),
        ({"input": "NHWC:NCHW"}, "NHWC:NCHW"),
        ("NCHW:NCHW", "NCHW"),
        ("AUTO", ""),
    ],
)
def test_images_are_laid_out_as_the_model_takes_them(layout: Any, expected: str) -> None:
    (model,) = read({"layout": layout, "color_format": "RGB"})
    assert model.config.parameter("layout") == expected
    assert model.config.parameter("color_format") == "RGB"


def test_what_changes_no_answer_is_read_and_left() -> None:
    read(
        {
            "shape": "auto",
            "batch_size": "auto",
            "target_device": "CPU",
            "nireq": 4,
            "plugin_config": {"PERFORMANCE_HINT": "THROUGHPUT"},
            "stateful": False,
        },
        monitoring={"metrics": {"enable": True}},
        mediapipe_config_list=[],
        pipeline_config_list=[],
    )


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"name": ""}, "model_config_list[0].config.name: must be a text that is not empty"),
        ({"base_path": "s3://bucket/m"}, "base_path: models are read from disk"),
        ({"shape": "1x3"}, "model 'm', shape: must be a text such as \"(1,3,224,224)\""),
        ({"shape": [1, 3]}, "shape: must be a text such as"),
        ({"shape": {"a": ""}}, "model 'm', shape of 'a': must be a text such as"),
        ({"batch_size": -1}, "batch_size: must be an integer of 1 or more"),
        ({"batch_size": True}, "batch_size: must be an integer of 1 or more"),
        ({"target_device": "GPU"}, 'target_device: "GPU" is not offered here'),
        ({"stateful": True}, "stateful: true is not offered here; sequences are configured"),
        ({"precision": "i4"}, "model 'm', precision: offered are UINT8, U8, FP16"),
        ({"precision": 8}, "model 'm', precision: offered are UINT8"),
        (
            {"mean": "[1,x,3]"},
            "model 'm', mean: must be a number, or a list of one for each channel",
        ),
        ({"mean": True}, "mean: must be a number"),
        ({"mean": {"a": 1}}, "mean: must be a number"),
        ({"scale": [1, 0]}, "scale: must be a number, or a list of one for each channel, and none"),
        ({"scale": "inf"}, "scale: must be a number"),
        ({"nam": "x"}, "nam: is not offered here, or nothing that the configuration of OVMS has"),
        ({"layout": "NCWH"}, "layout: offered are NHWC, NCHW"),
        ({"color_format": "GRAY"}, "color_format: offered are BGR and RGB"),
        ({"model_version_policy": {"latest": {}}}, "model_version_policy: must be"),
        ({"model_version_policy": {"latest": {"num_versions": True}}}, "model_version_policy: m"),
        ({"model_version_policy": {"all": {}, "latest": {}}}, "model_version_policy: must be"),
        ({"model_version_policy": {"specific": {"versions": [0]}}}, "model_version_policy: must"),
    ],
)
def test_what_would_change_answers_is_refused_by_name(config: dict[str, Any], text: str) -> None:
    assert text in refusal(config)


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ({"mediapipe_config_list": [{}]}, "mediapipe_config_list: graphs of MediaPipe"),
        ({"pipeline_config_list": [{}]}, "pipeline_config_list: pipelines of OVMS"),
        ({"other": 1}, "other: is nothing that the configuration of OVMS has"),
        ({"model_config_list": {}}, "model_config_list: must be a list"),
        ({"model_config_list": [1]}, "model_config_list[0]: must be an object"),
        ({"model_config_list": [{}]}, "model_config_list[0].config: must be an object"),
    ],
)
def test_a_file_that_is_another_is_refused(others: dict[str, Any], text: str) -> None:
    with pytest.raises(LoadFailed) as error:
        decode_ovms(json.dumps({"model_config_list": []} | others))
    assert text in str(error.value)


def test_a_name_is_there_once() -> None:
    assert "the name 'm' is there twice" in refusal({}, {})


def test_half_a_character_is_none() -> None:
    with pytest.raises(LoadFailed, match="not valid json"):
        decode_ovms('{"model_config_list": [], "\\ud800": 1}')


@given(st.text(max_size=80).filter(lambda text: text.strip() != "{}"))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(LoadFailed, match=r"not valid json|must be an object|is nothing that"):
        decode_ovms(text)
