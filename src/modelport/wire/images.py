"""Encoded images to pixels, with bounds on what a few bytes may grow into.

What comes is whatever a stranger calls an image. So the size is read from its head and held
against a limit before anything is decoded, only well-kept formats are tried, only the first frame
is looked at, and a JPEG may not have more scans than anybody needs. Decoding takes milliseconds
and holds no lock of ours: call it on a thread.

Pixels are those of OpenCV, which the clients of OVMS know: 8 bits for a channel, blue first, and a
resize that takes the four nearest pixels without smoothing. Orientation in EXIF data is left alone,
as OVMS leaves it.

Source: OpenVINO Model Server, "Predict on Binary Inputs".
"""

import importlib
import io
from typing import Any

import numpy as np
from msgspec import Struct

from modelport.errors import InvalidInference, Unsupported
from modelport.tensors import Array

__all__ = ["MODE_BY_CHANNELS", "ImageForm", "decode_image", "is_image"]

FORMAT_BY_MAGIC = {
    b"\xff\xd8\xff": "Jpeg",
    b"\x89PNG\r\n\x1a\n": "Png",
    b"BM": "Bmp",
    b"RIFF": "WebP",
}
"""The formats that are read, by how their files begin."""

MOST_SCANS = 100
"""Progressive JPEGs have about ten. Each costs a pass over the whole image, and can be a few bytes
long: a small file could keep a core busy for minutes."""

LONGEST_SIDE = 2**20
"""In pixels, as in OpenCV. An image of 30 million rows of one pixel each takes seconds, most of
them with everybody else waiting."""

MODE_BY_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageForm(Struct, frozen=True):
    """What an image is to become.

    Attributes:
        height: In pixels; ``None`` for as many as it has.
        width: The same.
        channels: 1 (grey), 3, or 4 (with opacity).
        is_rgb: Red first, in place of blue.
    """

    height: int | None
    width: int | None
    channels: int
    is_rgb: bool = False


def is_image(data: bytes) -> bool:
    """Whether bytes begin as an image does."""
    return data.startswith(tuple(FORMAT_BY_MAGIC))


def decode_image(data: bytes, form: ImageForm, most_pixels: int) -> Array:
    """Decode one image and bring it into a form.

    Args:
        data: A whole file.
        form: Of the result.
        most_pixels: That it may have before it is resized.

    Returns:
        ``uint8[height, width, channels]``.

    Raises:
        InvalidInference: If it is no image that can be decoded, or too large.
        Unsupported: If the library that decodes is not installed.
    """
    library = _library()
    # The text of the library may quote what was sent; what is wrong is said in our words.
    try:
        with _opened(data) as image:
            if max(image.size) > LONGEST_SIDE:
                raise InvalidInference(
                    f"Image parsing failed; the image has {image.width} x {image.height} pixels, "
                    f"and at most {LONGEST_SIDE} in a row or column are accepted"
                )
            if image.width * image.height > most_pixels:
                raise InvalidInference(
                    f"Image parsing failed; the image has {image.width} x {image.height} pixels, "
                    f"and at most {most_pixels} are accepted. Send a smaller one, or raise "
                    "--max-image-pixels."
                )
            if image.format == "JPEG" and data.count(b"\xff\xda") > MOST_SCANS:
                raise InvalidInference(
                    f"Image parsing failed; the JPEG has more than {MOST_SCANS} scans"
                )
            return _pixels(image, form, library)
    except (OSError, ValueError, SyntaxError, EOFError, library.DecompressionBombError):
        raise InvalidInference(
            f"Image parsing failed; the image of {len(data)} bytes is damaged or not complete"
        ) from None


def _opened(data: bytes) -> Any:
    """Read the head of an image.

    By the reader of its format itself: the library's common way also warns, on the server's
    standard error, of images that are large or odd. The large ones are refused by our own limit.
    """
    for magic, name in FORMAT_BY_MAGIC.items():
        if data.startswith(magic):
            plugin = importlib.import_module(f"PIL.{name}ImagePlugin")
            return getattr(plugin, f"{name}ImageFile")(io.BytesIO(data), "")
    raise InvalidInference(
        "Image parsing failed; the bytes are no image that can be read. Accepted are "
        f"{', '.join(map(str.upper, FORMAT_BY_MAGIC.values()))}; got {_shown(data)}."
    )


def _pixels(image: Any, form: ImageForm, library: Any) -> Array:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        # Grey with 16 bits: the library would cut values off at 255.
        deep = np.asarray(image).astype(np.int64)
        image = library.fromarray((deep >> 8).clip(0, 255).astype(np.uint8))
    mode = MODE_BY_CHANNELS[form.channels]
    if image.mode != mode:
        image = image.convert(mode)
    pixels: Array = np.asarray(image)
    if form.channels == 1:
        pixels = pixels[:, :, None]
    elif not form.is_rgb:
        pixels = pixels[:, :, (2, 1, 0, 3)[: form.channels]]
    return _resized(pixels, form.height or image.height, form.width or image.width)


def _resized(pixels: Array, height: int, width: int) -> Array:
    """Take the four nearest pixels, weighted, for each one wanted: OpenCV's INTER_LINEAR.

    The library that decodes would smooth where an image becomes smaller, or cut where this rounds.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    top, bottom, down = _neighbours(pixels.shape[0], height)
    left, right, across = _neighbours(pixels.shape[1], width)
    across = across[:, None]
    rows = []
    # Both axes at once, so that nothing is made that is larger than the result.
    for row in (top[:, None], bottom[:, None]):
        first = pixels[row, left].astype(np.float32)
        first += (pixels[row, right] - first) * across
        rows.append(first)
    above, below = rows
    above += (below - above) * down[:, None, None]
    return np.rint(above, out=above).astype(np.uint8)


def _neighbours(size: int, wanted: int) -> tuple[Array, Array, Array]:
    """For each position wanted, the two nearest there are, and the weight of the second."""
    centres = (np.arange(wanted, dtype=np.float64) + 0.5) * (size / wanted) - 0.5
    before = np.floor(centres).astype(np.intp)
    weight = (centres - before).astype(np.float32)
    return before.clip(0, size - 1), (before + 1).clip(0, size - 1), weight


def _shown(data: bytes) -> str:
    if not data:
        return "no bytes"
    return f"{len(data)} bytes that begin with {data[:8].hex(' ')}"


def _library() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise Unsupported(
            "encoded images need Pillow, which is not installed on the server: "
            "pip install 'modelport[images]'"
        ) from None
    return Image
