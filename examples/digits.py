"""The ``digits`` model: a small neural network, trained by scikit-learn and written as ONNX.

The network also serves the image ensembles, whose pixels are a little shifted, slanted or
stretched beside those of the data. So it is trained on jittered copies of each digit, and on a few
printed ones, which the handwritten data lacks.
"""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from examples.linear import model_of

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

INK = 16.0
"""Brightest value of the data; the network sees 0 to 1."""

JITTERED_COPIES = 10
PASSES = 30
REQUIRED_ACCURACY = 0.96


def build(version: Path) -> str:
    seen, held_out, seen_digits, held_out_digits = split()
    rng = np.random.default_rng(0)
    printed, printed_digits = print_digits()
    # Twice: enough to be learnt, too few to matter beside 1437 handwritten ones.
    pixels = np.concatenate([seen, printed, printed])
    digits = np.concatenate([seen_digits, printed_digits, printed_digits])
    copies = [pixels, *(jitter(pixels, rng) for _ in range(JITTERED_COPIES))]
    network = train(np.concatenate(copies), np.tile(digits, len(copies)), passes=PASSES)
    accuracy = float(network.score(held_out / INK, held_out_digits))
    if accuracy < REQUIRED_ACCURACY:
        raise RuntimeError(f"digits: only {accuracy:.1%} of the held-out digits are right")
    onnx.save(to_onnx(network), version / "model.onnx")
    return f"{accuracy:.1%} of {len(held_out)} held-out digits right"


def split() -> tuple[Floats, Floats, Ints, Ints]:
    """Pixels to learn from, pixels held out, and the digits of both."""
    pixels, digits = load_digits(return_X_y=True)
    seen, held_out, seen_digits, held_out_digits = train_test_split(
        pixels.astype(np.float32), digits, test_size=0.2, stratify=digits, random_state=0
    )
    return seen, held_out, seen_digits, held_out_digits


def train(pixels: Floats, digits: Ints, *, passes: int) -> MLPClassifier:
    network = MLPClassifier(
        (128, 64),
        alpha=1e-2,
        batch_size=128,
        learning_rate_init=2e-3,
        max_iter=passes,
        random_state=0,
    )
    with warnings.catch_warnings():
        # The passes are a choice: more of them gain nothing on held-out digits.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(pixels / INK, digits)


def jitter(pixels: Floats, rng: np.random.Generator) -> Floats:
    """A copy of each digit, slightly slanted, stretched and shifted: ``float32[n, 64]``."""
    count = len(pixels)
    transforms = np.eye(2) + rng.normal(0, 0.12, (count, 2, 2))
    shifts = rng.normal(0, 0.35, (count, 2))
    centre = np.array([3.5, 3.5])
    copies = [
        ndimage.affine_transform(image, transform, centre - transform @ centre + shift, order=1)
        for image, transform, shift in zip(
            pixels.reshape(count, 8, 8), transforms, shifts, strict=True
        )
    ]
    return np.array(copies, np.float32).reshape(count, 64)


def print_digits() -> tuple[Floats, Ints]:
    """Digits in Pillow's own typeface, from thin to bold."""
    strokes = (0, 2, 4, 6, 8, 10)
    images = [print_digit(digit, stroke) for digit in range(10) for stroke in strokes]
    return np.array(images, np.float32), np.repeat(np.arange(10), len(strokes))


def print_digit(digit: int, stroke: int) -> Floats:
    sheet = Image.new("L", (240, 240))
    ImageDraw.Draw(sheet).text(
        (120, 120),
        str(digit),
        fill=255,
        font=ImageFont.load_default(120),
        anchor="mm",
        stroke_width=stroke,
    )
    box = sheet.getbbox()
    assert box is not None, "a digit leaves ink"
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    square = Image.new("L", (side, side))
    offset = ((side - (right - left)) // 2, (side - (bottom - top)) // 2)
    square.paste(sheet.crop(box), offset)
    cells: Floats = np.asarray(square.resize((8, 8), Image.Resampling.BOX), np.float32)
    return cells.ravel() * np.float32(INK / cells.max())


def to_onnx(network: MLPClassifier) -> onnx.ModelProto:
    """Write ``network`` as a graph from ``pixels`` to ``label`` and ``probabilities``."""
    nodes = [helper.make_node("Mul", ["pixels", "scale"], ["layer0"])]
    weights = [numpy_helper.from_array(np.array(1 / INK, np.float32), "scale")]
    last = len(network.coefs_) - 1
    for i, (matrix, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"matrix{i}"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"bias{i}"))
        layer = [f"layer{i}", f"matrix{i}", f"bias{i}"]
        if i == last:
            nodes.append(helper.make_node("Gemm", layer, ["logits"]))
        else:
            nodes.append(helper.make_node("Gemm", layer, [f"sum{i}"]))
            nodes.append(helper.make_node("Relu", [f"sum{i}"], [f"layer{i + 1}"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=1))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        ],
        weights,
    )
    return model_of(graph)
