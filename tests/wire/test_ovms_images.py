"""Encoded images as inputs: shapes, layouts, precisions, bounds."""

import io
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
    with pytest.raises(InvalidInference, match="take 60210 bytes when they are decoded"):
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
