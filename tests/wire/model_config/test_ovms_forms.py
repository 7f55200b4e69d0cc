"""What a configuration of OVMS asks of a model's inputs, held against the inputs it has."""

import json
from typing import Any

import pytest

from modelport.errors import LoadFailed
from modelport.specs import ModelConfig, ModelInput, Parameter, Reshape
from modelport.wire.model_config import decode_ovms, hold_to_forms
from modelport.wire.model_config.ovms_forms import parse_channels


def held(said: dict[str, Any], *inputs: ModelInput, batch: int = 0) -> ModelConfig:
    entry = {"config": {"name": "m", "base_path": "m", **said}}
    (listed,) = decode_ovms(json.dumps({"model_config_list": [entry]}))
    parameters = listed.config.parameters
    return hold_to_forms(
        ModelConfig(name="m", max_batch_size=batch, input=inputs, parameters=parameters)
    )


def pixels(*dims: int, kind: Any = "TYPE_FP32", name: str = "image") -> ModelInput:
    return ModelInput(name=name, data_type=kind, dims=dims)


@pytest.mark.parametrize(
    ("shape", "dims", "expected"),
    [
        ("(1,3,224,224)", (1, 3, -1, -1), (1, 3, 224, 224)),
        ("(1,3,224,224)", (1, 3, 224, 224), (1, 3, 224, 224)),
        ("1, 3, 224, 224", (-1, 3, -1, -1), (1, 3, 224, 224)),
        ("[8]", (-1,), (8,)),
        ("(8,)", (-1,), (8,)),
        ("(-1,3,100:200,?)", (-1, 3, -1, -1), (-1, 3, -1, -1)),
        ("auto", (-1, 3, -1, -1), (-1, 3, -1, -1)),
        ({"image": "(1,3,8,8)"}, (-1, 3, -1, -1), (1, 3, 8, 8)),
        ({"image": "auto"}, (-1, 3, -1, -1), (-1, 3, -1, -1)),
    ],
)
def test_a_shape_is_set_where_the_model_has_any(
    shape: Any, dims: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert held({"shape": shape}, pixels(*dims)).input[0].dims == expected


def test_the_first_number_of_a_shape_is_the_largest_batch() -> None:
    config = held({"shape": "(16,3,8,8)"}, pixels(3, -1, -1), batch=4)
    assert (config.max_batch_size, config.input[0].dims) == (16, (3, 8, 8))
    config = held({"shape": "(-1,3,8,8)"}, pixels(3, -1, -1), batch=4)
    assert (config.max_batch_size, config.input[0].dims) == (4, (3, 8, 8))


@pytest.mark.parametrize(("size", "expected"), [(16, 16), ("8", 8), ("1:32", 32), ("auto", 4)])
def test_a_batch_size_is_the_largest_batch(size: Any, expected: int) -> None:
    assert held({"batch_size": size}, pixels(3, 8, 8), batch=4).max_batch_size == expected


def test_a_batch_size_that_the_model_has_anyway_changes_nothing() -> None:
    config = held({"batch_size": 2}, pixels(2, 3, 8, 8))
    assert (config.max_batch_size, config.input[0].dims) == (0, (2, 3, 8, 8))


@pytest.mark.parametrize(
    ("said", "inputs", "batch", "text"),
    [
        ({"shape": "(1,3,8,8)"}, [pixels(1, 3, 9, 9)], 0, "is [1, 3, 9, 9], which cannot be"),
        ({"shape": "(1,3)"}, [pixels(1, 3, 9, 9)], 0, "export it with the shape that you need"),
        ({"shape": "(3,8,8)"}, [pixels(3, 8, 8)], 4, "is [-1, 3, 8, 8], which cannot be [3, 8, 8]"),
        ({"shape": "(1,)"}, [], 0, "the model has 0 inputs"),
        ({"shape": "(1,)"}, [pixels(1, name="a"), pixels(1, name="b")], 0, "'a' TYPE_FP32[1], 'b'"),
        ({"shape": {"z": "(1,)"}}, [pixels(1)], 0, "there is no input 'z'; it has 'image'"),
        ({"batch_size": 3}, [pixels(2, 3)], 0, "export it with a batch size of 3"),
        ({"mean": 1}, [pixels(1, 3, 9)], 0, "mean: is for images, and the model has no input of"),
        ({"scale": 2}, [pixels(1, 3, 9, 9, kind="TYPE_UINT8")], 0, "scale: is for images"),
        (
            {"shape": {"a": "(1,1)", "b": "(2,1)"}},
            [pixels(1, name="a"), pixels(1, name="b")],
            4,
            "the inputs must have the same batch size",
        ),
    ],
)
def test_what_the_model_cannot_have_is_told_when_it_is_loaded(
    said: dict[str, Any], inputs: list[ModelInput], batch: int, text: str
) -> None:
    with pytest.raises(LoadFailed) as error:
        held(said, *inputs, batch=batch)
    assert text in str(error.value)
    assert str(error.value).startswith("model 'm'")


def test_an_input_with_another_shape_inside_keeps_it() -> None:
    entry = ModelInput(name="x", data_type="TYPE_FP32", dims=(-1,), reshape=Reshape(shape=(-1, 1)))
    with pytest.raises(LoadFailed, match="cannot be"):
        held({"shape": "(8)"}, entry)


@pytest.mark.parametrize("value", ["[1,2.5,3]", [1, 2.5, 3], "(1, 2.5, 3)"])
def test_means_are_numbers_for_channels(value: Any) -> None:
    config = held({"mean": value, "scale": 255}, pixels(1, 3, -1, -1))
    assert parse_channels(config.parameter("ovms_mean")) == (1, 2.5, 3)
    assert parse_channels(config.parameter("ovms_scale")) == (255,)


def test_an_operator_who_writes_them_by_hand_is_told_what_is_wrong() -> None:
    parameters = {"ovms_mean": Parameter(string_value="a")}
    with pytest.raises(LoadFailed, match="the parameter ovms_mean must be numbers"):
        hold_to_forms(ModelConfig(name="m", input=(pixels(1, 3, 2, 2),), parameters=parameters))


def test_a_model_of_another_repository_is_left_alone() -> None:
    config = ModelConfig(name="m", parameters={"shape": Parameter(string_value="anything")})
    assert hold_to_forms(config) is config


@pytest.mark.parametrize("said", ["u8", "UINT8", {"image": "uint8"}])
def test_a_precision_is_one_that_images_may_be_sent_in(said: Any) -> None:
    config = held({"precision": said}, pixels(1, 2, 2, 3))
    assert config.parameter("ovms_precision") == "UINT8"
    assert config.input[0].data_type == "TYPE_FP32"


def test_a_precision_that_the_model_has_anyway_is_fine() -> None:
    assert held({"precision": "u8"}, pixels(4, kind="TYPE_UINT8")).input


def test_a_precision_is_for_images_of_floating_point_numbers() -> None:
    with pytest.raises(LoadFailed, match="precision: UINT8 can only be made floating-point"):
        held({"precision": "u8"}, pixels(4))
    config = ModelConfig(
        name="m",
        input=(pixels(1, 2, 2, 3),),
        parameters={"ovms_precision": Parameter(string_value="x")},
    )
    with pytest.raises(LoadFailed, match="the parameter ovms_precision must be one of UINT8, FP16"):
        hold_to_forms(config)
