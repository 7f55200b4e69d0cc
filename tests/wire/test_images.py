"""Encoded images to pixels: the values, and what a stranger may not do with them."""

import io
import struct
import sys
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modelport.errors import InvalidInference, Unsupported
from modelport.wire.images import ImageForm, decode_image, is_image

MOST = 1_000_000
AS_IT_IS = ImageForm(None, None, 3)


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, channels: int = 3) -> Any:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(7).integers(0, 256, shape, np.uint8)


def bilinear(pixels: Any, height: int, width: int) -> Any:
    """OpenCV's INTER_LINEAR, by its definition: centres of pixels, the four nearest."""

    def axis(size: int, wanted: int) -> tuple[Any, Any, Any]:
        at = (np.arange(wanted) + 0.5) * size / wanted - 0.5
        low = np.floor(at).astype(int)
        weight = at - low
        return low.clip(0, size - 1), (low + 1).clip(0, size - 1), weight

    top, bottom, down = axis(pixels.shape[0], height)
    left, right, across = axis(pixels.shape[1], width)
    wide = pixels.astype(float)
    rows = wide[top] * (1 - down)[:, None, None] + wide[bottom] * down[:, None, None]
    return rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_pixels_come_as_they_are_blue_first(kind: str) -> None:
    pixels = noise(5, 7)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(pixels, kind, **options)
    assert is_image(data)
    found = decode_image(data, AS_IT_IS, MOST)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels[:, :, ::-1])
    np.testing.assert_array_equal(decode_image(data, ImageForm(5, 7, 3, True), MOST), pixels)


def test_a_jpeg_is_what_the_library_decodes() -> None:
    data = encoded(noise(16, 16), "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data, AS_IT_IS, MOST), expected[:, :, ::-1])


@pytest.mark.parametrize(("height", "width"), [(3, 5), (8, 8), (40, 9), (64, 64), (1, 1)])
def test_resizing_is_that_of_opencv(height: int, width: int) -> None:
    pixels = noise(21, 17)
    found = decode_image(encoded(pixels), ImageForm(height, width, 3, True), MOST)
    expected = bilinear(pixels, height, width)
    assert found.shape == (height, width, 3)
    assert np.abs(found - expected).max() <= 0.501


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("source", [1, 3, 4])
def test_channels_are_those_of_the_model(channels: int, source: int) -> None:
    found = decode_image(encoded(noise(4, 4, source)), ImageForm(4, 4, channels), MOST)
    assert found.shape == (4, 4, channels)
    if source == channels == 1:
        np.testing.assert_array_equal(found[:, :, 0], noise(4, 4, 1))
    if channels == 4 and source != 4:
        assert (found[:, :, 3] == 255).all()


def test_sixteen_bits_keep_their_brightness() -> None:
    deep = (noise(4, 4, 1).astype(np.uint16) << 8) | 99
    found = decode_image(encoded(deep), ImageForm(4, 4, 1), MOST)
    np.testing.assert_array_equal(found[:, :, 0], noise(4, 4, 1))


def test_orientation_is_left_alone_as_by_ovms() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(4, 9), "JPEG", exif=exif)
    assert decode_image(data, AS_IT_IS, MOST).shape == (4, 9, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", b"GIF89a" + bytes(100), b"<svg></svg>", b"%PDF-1.7", bytes(1000)],
)
def test_what_is_no_image_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(InvalidInference, match=r"^Image parsing failed; the bytes are no image"):
        decode_image(data, AS_IT_IS, MOST)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_half_an_image_is_damaged(kind: str) -> None:
    data = encoded(noise(64, 64), kind)
    for part in (len(data) // 2, 60):
        with pytest.raises(InvalidInference, match=r"^Image parsing failed"):
            decode_image(data[:part], AS_IT_IS, MOST)


@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "BMP", "WEBP"]), st.data())
def test_no_bytes_raise_anything_else(garbage: bytes, kind: str, data: st.DataObject) -> None:
    image = bytearray(encoded(noise(9, 9), kind))
    start = data.draw(st.integers(0, len(image)))
    image[start : start + len(garbage)] = garbage
    try:
        pixels = decode_image(bytes(image), AS_IT_IS, 10_000)
    except InvalidInference:
        return
    assert pixels.shape[0] * pixels.shape[1] <= 10_000


# What a few bytes may grow into.


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "size", [(1001, 1000), (10_000, 10_000), (30_000, 30_000), (2**31 - 1, 1), (1, 2**31 - 1)]
)
def test_a_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    """And without a warning of the library, which would write where callers have no business."""
    started_s = time.process_time()
    with pytest.raises(InvalidInference, match=r"^Image parsing failed"):
        decode_image(png(*size), AS_IT_IS, MOST)
    assert time.process_time() - started_s < 0.5


def test_what_is_too_large_is_told_with_its_limit() -> None:
    with pytest.raises(InvalidInference, match=r"has 1001 x 1000 pixels, and at most 1000000"):
        decode_image(png(1001, 1000), AS_IT_IS, MOST)


@pytest.mark.parametrize("size", [(2**20 + 1, 1), (1, 2**20 + 1)])
def test_a_side_is_as_long_as_opencv_lets_it_be(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInference, match="and at most 1048576 in a row or column"):
        decode_image(png(*size), AS_IT_IS, 2**30)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_resizing_makes_nothing_larger_than_its_result(shape: tuple[int, int]) -> None:
    data = encoded(np.zeros((*shape, 3), np.uint8))
    tracemalloc.start()
    decode_image(data, ImageForm(500, 500, 3), MOST)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 20 * 500 * 500 * 3


def test_only_the_first_frame_is_looked_at() -> None:
    frames = [Image.fromarray(np.full((300, 300, 3), index, np.uint8)) for index in range(200)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    started_s = time.process_time()
    found = decode_image(file.getvalue(), AS_IT_IS, MOST)
    assert time.process_time() - started_s < 0.5
    assert (found == 0).all()


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(noise(64, 64), "JPEG", progressive=True)
    assert 1 < data.count(b"\xff\xda") < 20
    decode_image(data, AS_IT_IS, MOST)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    with pytest.raises(InvalidInference, match="more than 100 scans"):
        decode_image(data[:start] + scan * 200 + b"\xff\xd9", AS_IT_IS, MOST)


def test_a_photo_of_a_phone_with_a_second_picture_in_it_is_read() -> None:
    frames = [Image.fromarray(noise(8, 8)), Image.fromarray(noise(4, 4))]
    file = io.BytesIO()
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:])
    assert decode_image(file.getvalue(), AS_IT_IS, MOST).shape == (8, 8, 3)


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(Unsupported, match=r"pip install 'modelport\[images\]'"):
        decode_image(png(1, 1), AS_IT_IS, MOST)
