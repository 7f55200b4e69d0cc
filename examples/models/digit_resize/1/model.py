"""Image to pixels: finds the digit in a picture and scales it the way the digits data is."""

import numpy as np
import triton_python_backend_utils as pb_utils

CELLS = 8
INK = 16.0
"""Brightest value of the digits data."""

FAINT = 0.2
"""Share of the strongest ink below which a pixel is noise or shadow, when the digit is located."""

BLANK = 8.0
"""Differences in grey up to this one, of 255, are an empty sheet."""

ENOUGH = 512
"""Pixels along the shorter side that show any digit; larger images are thinned out to that."""


class TritonPythonModel:
    """``image`` UINT8 [height, width, 3] to ``pixels`` FP32 [1, 64]."""

    def execute(self, requests):
        return [respond(request) for request in requests]


def respond(request):
    image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
    if image.size == 0:
        message = f'input "image": shape {list(image.shape)} has no pixels'
        error = pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", to_pixels(image))])


def to_pixels(image):
    """The digit as ``float32[1, 64]``, 0 paper to 16 ink, upright as it is in the image.

    Dark on bright and bright on dark are the same: ink is what differs from the border. The
    square around the digit is cut into 8 x 8 cells, and each holds the mean of its ink. A blank
    image gives zeros.
    """
    step = max(1, min(image.shape[:2]) // ENOUGH)
    grey = image[::step, ::step].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(border))
    if ink.max() <= BLANK:
        return np.zeros((1, CELLS * CELLS), np.float32)
    inked = ink > FAINT * ink.max()
    top, height = extent(inked.any(axis=1))
    left, width = extent(inked.any(axis=0))
    side = max(height, width)
    rows = cell_weights(top + (height - side) / 2, side, ink.shape[0])
    columns = cell_weights(left + (width - side) / 2, side, ink.shape[1])
    cells = rows @ ink @ columns.T
    return (cells * (INK / cells.max())).astype(np.float32).reshape(1, -1)


def extent(marked):
    """First marked index, and the length from there to the last one."""
    indices = np.flatnonzero(marked)
    return int(indices[0]), int(indices[-1] - indices[0] + 1)


def cell_weights(start, side, length):
    """How much of each pixel lies in each cell: ``float[8, length]``.

    The cells divide ``side`` pixels from ``start``, which may lie outside the image.
    """
    size = side / CELLS
    begins = start + np.arange(CELLS)[:, None] * size
    pixels = np.arange(length)[None, :]
    overlap = np.minimum(begins + size, pixels + 1) - np.maximum(begins, pixels)
    return np.clip(overlap, 0, None) / size
