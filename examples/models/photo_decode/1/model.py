"""Encoded image to pixels, for bytes that a stranger sent."""

import io

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 16_000_000
"""A telephone's photo; some hundred bytes of PNG can claim a thousand times that."""


class TritonPythonModel:
    """``encoded`` BYTES [1] to ``image`` UINT8 [height, width, 3]."""

    def execute(self, requests):
        return [respond(request) for request in requests]


def respond(request):
    (encoded,) = pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy().ravel()
    try:
        image = decode(encoded)
    except ValueError as exc:
        error = pb_utils.TritonError(str(exc), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    return pb_utils.InferenceResponse([pb_utils.Tensor("image", image)])


def decode(encoded):
    """The picture as ``uint8[height, width, 3]``, upright, on white where it is transparent.

    Raises:
        ValueError: If the bytes are no complete PNG or JPEG, or hold more than MAX_PIXELS.
    """
    try:
        picture = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if picture.width * picture.height <= MAX_PIXELS:
            return flatten(ImageOps.exif_transpose(picture))
    except Image.UnidentifiedImageError:
        size = len(encoded)
        raise ValueError(f'input "encoded": {size} bytes that are no PNG or JPEG file') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # From twice Pillow's own limit the error, below that a warning, which may be fatal too.
        raise ValueError(too_large("far more")) from None
    except (OSError, SyntaxError, ValueError) as exc:
        # Pillow reports a broken PNG as SyntaxError, a broken JPEG as OSError.
        raise ValueError(f'input "encoded": the image is damaged ({exc})') from exc
    raise ValueError(too_large(f"{picture.width} x {picture.height}"))


def flatten(picture):
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("RGB"))
    coloured = picture.convert("RGBA")
    paper = Image.new("RGBA", coloured.size, "white")
    return np.asarray(Image.alpha_composite(paper, coloured).convert("RGB"))


def too_large(found):
    return f'input "encoded": {found} pixels, at most {MAX_PIXELS} are taken; send it smaller'
