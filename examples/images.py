"""Pictures of held-out handwritten digits, for the documentation and for trying ``digit_photo``.

``python -m examples.images OUT_DIR`` writes the files of ``examples/data`` again.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from examples.digits import INK, Floats, split

SIDE = 200
MARGIN = 20


def draw(pixels: Floats) -> Image.Image:
    """A digit of ``float32[64]`` as black ink on a white sheet of 200 x 200."""
    grey = np.rint(255 - pixels.reshape(8, 8) * (255 / INK)).astype(np.uint8)
    digit = Image.fromarray(grey).resize(
        (SIDE - 2 * MARGIN, SIDE - 2 * MARGIN), Image.Resampling.BICUBIC
    )
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    sheet.paste(digit, (MARGIN, MARGIN))
    return sheet


def main(out: Path) -> None:
    _, held_out, _, digits = split()
    for name, digit in (("seven.png", 7), ("three.jpg", 3)):
        first = int(np.flatnonzero(digits == digit)[0])
        draw(held_out[first]).save(out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
