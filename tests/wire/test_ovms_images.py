"""Encoded images as inputs: shapes, layouts, precisions, bounds."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelport import dtypes
from modelport.errors import InvalidInference
from modelport.specs import ModelConfig, ModelInput, Parameter
from modelport.tensors import Tensor
from modelport.wire.ovms_images import ImageInputs, ImageLimits

PIXELS = np.random.default_rng(7).integers(0, 256, (6, 4, 3), np.uint8)


def encoded(pixels: Any = PIXELS) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def sent(*images: bytes, shape: tuple[int, ...] | None = None, name: str = "image") -> Tensor:
    array = np.empty(len(images), object)
    array[:] = images
    return Tensor(name, dtypes.BYTES, array.reshape(shape or (len(images),)))


def model(
    *dims: int,
    kind: str = "TYPE_FP32",
    layout: str = "FORMAT_NONE",
    batch: int = 0,
    **parameters: str,
) -> ModelConfig:
    options: Any = {"data_type": kind, "format": layout}
    return ModelConfig(
        name="m",
        max_batch_size=batch,
        input=(ModelInput(name="image", dims=dims, **options),),
        parameters={key: Parameter(string_value=value) for key, value in parameters.items()},
    )


def decode(config: ModelConfig, *tensors: Tensor, **limits: int) -> Any:
    inputs = ImageInputs(config, ImageLimits(**limits))
    assert inputs.concerns(tensors)
    return inputs.decode(tensors)[0]


def test_an_image_becomes_pixels_from_0_to_255_blue_first() -> None:
    tensor = decode(model(-1, 6, 4, 3), sent(encoded()))
    assert (tensor.datatype, tensor.shape) == (dtypes.FP32, (1, 6, 4, 3))
    assert tensor.array.dtype == np.float32
    np.testing.assert_array_equal(tensor.array[0], PIXELS[:, :, ::-1])


@pytest.mark.parametrize(
    ("kind", "numpy"),
    [
        ("UINT8", "u1"), ("UINT16", "u2"), ("UINT32", "u4"), ("UINT64", "u8"), ("INT16", "i2"),
        ("INT32", "i4"), ("INT64", "i8"), ("FP16", "f2"), ("FP32", "f4"), ("FP64", "f8"),
    ],
)  # fmt: skip
def test_pixels_have_the_precision_of_the_input(kind: str, numpy: str) -> None:
    tensor = decode(model(-1, 6, 4, 3, kind=f"TYPE_{kind}"), sent(encoded()))
    assert tensor.array.dtype == np.dtype(numpy)
    np.testing.assert_array_equal(tensor.array[0], PIXELS[:, :, ::-1])


def test_bfloat16_holds_every_value() -> None:
    tensor = decode(model(-1, 6, 4, 3, kind="TYPE_BF16"), sent(encoded()))
    wide = dtypes.float32_from_bf16(tensor.array)
    np.testing.assert_array_equal(wide[0], PIXELS[:, :, ::-1])


@pytest.mark.parametrize("kind", ["TYPE_INT8", "TYPE_BOOL", "TYPE_STRING"])
def test_what_cannot_hold_pixels_takes_no_images(kind: str) -> None:
    inputs = ImageInputs(model(-1, 6, 4, 3, kind=kind), ImageLimits())
    assert not inputs.concerns([sent(encoded())])


@pytest.mark.parametrize("dims", [(-1,), (6, 4, 3), (1, 1, 1, 6, 4, 3)])
def test_an_input_of_other_dimensions_takes_no_images(dims: tuple[int, ...]) -> None:
    assert not ImageInputs(model(*dims), ImageLimits()).concerns([sent(encoded())])


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (model(6, 4, 3, batch=8), (1, 6, 4, 3)),
        (model(3, 6, 4, batch=8), (1, 3, 6, 4)),
        (model(3, 3, 3, batch=8), (1, 3, 3, 3)),
        (model(1, 6, 4, 3), (1, 6, 4, 3)),
        (model(-1, -1, -1, 3), (1, 6, 4, 3)),
        (model(-1, 3, -1, -1), (1, 3, 6, 4)),
        (model(-1, -1, -1, -1), (1, 6, 4, 3)),
        (model(-1, -1, -1, -1, layout="FORMAT_NCHW"), (1, 3, 6, 4)),
        (model(-1, 12, 8, 3), (1, 12, 8, 3)),
        (model(-1, 6, 4, 1), (1, 6, 4, 1)),
        (model(-1, 6, 4, 4), (1, 6, 4, 4)),
        (model(3, 4, 3, batch=8, layout="FORMAT_NCHW"), (1, 3, 4, 3)),
        (model(3, 4, 3, batch=8, layout="NHWC"), (1, 3, 4, 3)),
        (model(-1, 1, 6, 4, 3), (1, 1, 6, 4, 3)),
    ],
)
def test_images_are_laid_out_as_the_model_wants(
    config: ModelConfig, shape: tuple[int, ...]
) -> None:
    assert decode(config, sent(encoded())).shape == shape


def test_channels_first_is_the_same_picture() -> None:
    tensor = decode(model(-1, 3, 6, 4), sent(encoded()))
    np.testing.assert_array_equal(tensor.array[0].transpose(1, 2, 0), PIXELS[:, :, ::-1])
    assert tensor.array.flags.c_contiguous


def test_the_model_can_ask_for_red_first() -> None:
    tensor = decode(model(-1, 6, 4, 3, color_format="RGB"), sent(encoded()))
    np.testing.assert_array_equal(tensor.array[0], PIXELS)


def test_images_of_any_sizes_make_a_batch() -> None:
    tensor = decode(model(6, 4, 3, batch=8), sent(encoded(), encoded(PIXELS[:2]), encoded()))
    assert tensor.shape == (3, 6, 4, 3)
    np.testing.assert_array_equal(tensor.array[0], tensor.array[2])


def test_five_dimensions_hold_one_image_each_or_batches() -> None:
    images = [encoded() for _ in range(4)]
    assert decode(model(-1, -1, 6, 4, 3), sent(*images)).shape == (4, 1, 6, 4, 3)
    assert decode(model(-1, 2, 6, 4, 3), sent(*images)).shape == (2, 2, 6, 4, 3)
    with pytest.raises(InvalidInference, match="3 images do not fill it"):
        decode(model(-1, 2, 6, 4, 3), sent(*images[:3]))


def test_one_column_is_as_good_as_a_row() -> None:
    tensor = decode(model(6, 4, 3, batch=8), sent(encoded(), encoded(), shape=(2, 1)))
    assert tensor.shape == (2, 6, 4, 3)


def test_other_inputs_are_left_alone() -> None:
    other = Tensor("other", dtypes.FP32, np.zeros(3, np.float32))
    inputs = ImageInputs(model(-1, 6, 4, 3), ImageLimits())
    assert inputs.decode([other, sent(encoded())])[0] is other
    assert not inputs.concerns([other])


@pytest.mark.parametrize(
    ("config", "tensor", "text"),
    [
        (model(6, 4, 3, batch=2), sent(*[b""] * 3), "batch-size must be <= 2 for 'm', got 3"),
        (model(6, 4, 3, batch=2), sent(b"no"), "Image parsing failed; the bytes are no image"),
        (model(1, 6, 4, 3), sent(encoded(), encoded()), "2 images do not fill it"),
        (model(-1, 6, 4, 3), sent(), "no image was sent for input 'image'"),
        (
            model(-1, 6, 4, 3),
            sent(*[encoded()] * 2, shape=(1, 2)),
            "must be [N] for N images, got [1, 2]",
        ),
        (model(-1, 6, 4, 7), sent(encoded()), "not configured to accept NHWC layout"),
        (
            model(-1, 6, 4, 7, layout="FORMAT_NHWC"),
            sent(encoded()),
            "Invalid number of channels: input 'image' takes 7",
        ),
        (
            model(-1, -1, -1, 3),
            sent(encoded(), encoded(PIXELS[:2])),
            "image 1 of input 'image' is 4 x 2, and those before it 4 x 6",
        ),
    ],
)
def test_what_does_not_fit_is_told(config: ModelConfig, tensor: Tensor, text: str) -> None:
    with pytest.raises(InvalidInference) as error:
        decode(config, tensor)
    assert text in str(error.value)


def test_many_small_images_may_not_grow_into_a_large_tensor() -> None:
    dot = encoded(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(InvalidInference, match="takes 60210 bytes when it is decoded"):
        decode(model(-1, 45, 1, 3, kind="TYPE_UINT8"), sent(*[dot] * 446), tensor_bytes=60_209)


def test_the_size_of_an_image_is_bounded() -> None:
    with pytest.raises(InvalidInference, match="has 4 x 6 pixels, and at most 23"):
        decode(model(-1, 6, 4, 3), sent(encoded()), pixels=23)


@pytest.mark.parametrize(
    ("parameters", "is_ovms", "is_on"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"ovms": "true"}, False, True),
        ({"ovms": "True"}, False, True),
        ({"ovms": "false"}, True, False),
    ],
)
def test_a_model_may_say_for_itself(parameters: dict[str, str], is_ovms: bool, is_on: bool) -> None:
    options: dict[str, Any] = dict(parameters)
    config = model(-1, 6, 4, 3, **options)
    assert (ImageInputs.of(config, ImageLimits(), is_ovms=is_ovms) is not None) == is_on


# --- other layouts, mean and scale ---------------------------------------------------------------

ROWS = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)


def numbers(array: Any, datatype: dtypes.DataType = dtypes.FP32) -> Tensor:
    return Tensor("image", datatype, array)


@pytest.mark.parametrize("batch", [0, 8])
def test_arrays_may_come_in_the_layout_of_clients(batch: int) -> None:
    dims = (3, 4, 5) if batch else (-1, 3, 4, 5)
    config = model(*dims, batch=batch, layout="FORMAT_NONE")
    config = replace(config, parameters={"layout": Parameter(string_value="NHWC:NCHW")})
    tensor = decode(config, numbers(ROWS))
    np.testing.assert_array_equal(tensor.array, ROWS.transpose(0, 3, 1, 2))
    assert tensor.shape == (2, 3, 4, 5)
    assert tensor.array.flags.c_contiguous
    # What is laid out as the model has it already stays so.
    again = decode(config, tensor)
    np.testing.assert_array_equal(again.array, tensor.array)
    # And what fits in no way is for the engine to refuse.
    other = decode(config, numbers(ROWS[:, :3]))
    assert other.shape == (2, 3, 5, 3)


def test_and_the_other_way_round() -> None:
    config = replace(model(-1, 4, 5, 3), parameters={"layout": Parameter(string_value="NCHW:NHWC")})
    tensor = decode(config, numbers(np.ascontiguousarray(ROWS.transpose(0, 3, 1, 2))))
    np.testing.assert_array_equal(tensor.array, ROWS)


def test_without_a_pair_of_layouts_arrays_are_left_alone() -> None:
    inputs = ImageInputs(model(-1, 3, 4, 5), ImageLimits())
    assert not inputs.concerns([numbers(ROWS)])


@pytest.mark.parametrize("dims", [(-1, 6, 4, 3), (-1, 3, 6, 4)])
def test_mean_and_scale_are_of_channels(dims: tuple[int, ...]) -> None:
    config = model(*dims, ovms_mean="1,2,3", ovms_scale="2,4,8")
    expected = (PIXELS[:, :, ::-1].astype(np.float32) - [1, 2, 3]) / [2, 4, 8]
    last = (0, 2, 3, 1) if dims[1] == 3 else (0, 1, 2, 3)
    image = decode(config, sent(encoded()))
    np.testing.assert_allclose(image.array.transpose(last)[0], expected)
    assert image.array.dtype == np.float32
    blue_first = PIXELS[None, :, :, ::-1].astype(np.float32)
    if dims[1] == 3:
        blue_first = blue_first.transpose(0, 3, 1, 2)
    blue_first.flags.writeable = False
    array = decode(config, numbers(blue_first))
    np.testing.assert_array_equal(array.array, image.array)


@pytest.mark.parametrize("kind", ["TYPE_FP16", "TYPE_FP64", "TYPE_BF16"])
def test_one_mean_is_for_all_channels_in_every_precision(kind: str) -> None:
    config = model(-1, 6, 4, 3, kind=kind, ovms_mean="1", ovms_scale="0.5")
    entry = config.input[0]
    image = decode(config, sent(encoded()))
    assert image.datatype is entry.datatype
    values = image.array
    if kind == "TYPE_BF16":
        values = dtypes.float32_from_bf16(values)
    expected = (PIXELS[None, :, :, ::-1].astype(np.float64) - 1) * 2
    np.testing.assert_allclose(values, expected, rtol=0.01)
    again = decode(config, Tensor("image", entry.datatype, image.array))
    assert (again.datatype, again.shape) == (entry.datatype, image.shape)


def test_as_many_means_as_channels_are_needed() -> None:
    config = model(-1, 6, 4, 3, ovms_mean="1,2")
    with pytest.raises(InvalidInference, match="has 3, and the configuration of the model a mean"):
        decode(config, sent(encoded()))


@pytest.mark.parametrize("kind", ["TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_BF16"])
def test_arrays_may_come_in_the_precision_that_is_asked_for(kind: str) -> None:
    config = model(-1, 6, 4, 3, kind=kind, ovms_precision="UINT8", ovms_mean="1")
    array = np.arange(72, dtype=np.uint8).reshape(1, 6, 4, 3)
    tensor = decode(config, numbers(array, dtypes.UINT8))
    assert tensor.datatype is config.input[0].datatype
    bf16 = tensor.datatype is dtypes.BF16
    values = dtypes.float32_from_bf16(tensor.array) if bf16 else tensor.array
    assert np.array_equal(values, array.astype(np.float32) - 1)


def test_a_precision_changes_nothing_else() -> None:
    config = model(-1, 6, 4, 3, ovms_precision="UINT8")
    own = numbers(np.ones((1, 6, 4, 3), np.float32))
    assert np.array_equal(decode(config, own).array, own.array)
    other = numbers(np.ones((1, 6, 4, 3), np.int16), dtypes.INT16)
    assert decode(config, other) is other
    whole = model(-1, 6, 4, 3, kind="TYPE_INT32", ovms_precision="UINT8")
    sent = numbers(np.ones((1, 6, 4, 3), np.uint8), dtypes.UINT8)
    assert decode(whole, sent) is sent


def test_an_array_may_not_grow_beyond_the_limit() -> None:
    config = model(-1, 6, 4, 3, ovms_precision="UINT8")
    sent = numbers(np.zeros((1, 6, 4, 3), np.uint8), dtypes.UINT8)
    with pytest.raises(InvalidInference, match="takes 288 bytes when it is decoded"):
        decode(config, sent, tensor_bytes=100)


def test_arrays_that_are_wrong_anyway_are_left_to_the_engine() -> None:
    config = model(-1, 6, 4, 3, ovms_mean="1")
    for tensor in (numbers(ROWS), numbers(ROWS.astype(np.float64), dtypes.FP64)):
        np.testing.assert_array_equal(decode(config, tensor).array, tensor.array)


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "expected"), [(-1, 5), (7, 7), (2, 5)])
def test_texts_become_rows_that_end_with_zeros(width: int, expected: int) -> None:
    config = model(width, kind="TYPE_UINT8", batch=8)
    tensor = decode(config, sent(b"four", b"", b"\xff"))
    assert (tensor.datatype, tensor.shape) == (dtypes.UINT8, (3, expected))
    assert [bytes(row).rstrip(b"\0") for row in tensor.array] == [b"four", b"", b"\xff"]


def test_no_texts_are_no_rows() -> None:
    assert decode(model(-1, -1, kind="TYPE_UINT8"), sent()).shape == (0, 1)


def test_one_long_text_may_not_make_all_others_as_long() -> None:
    with pytest.raises(InvalidInference, match="takes 3300 bytes when it is"):
        decode(model(-1, -1, kind="TYPE_UINT8"), sent(b"x" * 1099, b"", b""), tensor_bytes=3000)
