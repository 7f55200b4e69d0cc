"""What the example models answer, each run by the framework or runtime that it is written for."""

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import skops.io
from PIL import Image

from examples import digits, images, prepare, sentiment
from modelport.errors import Kind, ModelFailed
from modelport.messages import Response
from modelport.runtimes.base import LoadContext, ModelSource
from modelport.runtimes.triton_python import TritonPythonRuntime
from modelport.specs import ModelConfig
from modelport.tensors import Array
from modelport.testing.fakes import FakeHost, FakeWork, work_of
from modelport.testing.runtime_suite import run
from modelport.wire import model_config

pytestmark = pytest.mark.slow

DATA = prepare.EXAMPLES / "data"
README = (prepare.EXAMPLES / "README.md").read_text()


class PythonModel:
    """A ``model.py`` of the repository, loaded as the server loads it."""

    def __init__(self, directory: Path) -> None:
        source = ModelSource(
            name=directory.name, directory=directory, version_directory=directory / "1", version=1
        )
        config = configuration(directory.name)
        self.runtime = TritonPythonRuntime()
        self.runtime.load(
            LoadContext(
                source=source,
                config=config,
                config_json=json.dumps(model_config.encode_json(config)),
                instance_name=f"{directory.name}_0_0",
                host=FakeHost(),
            )
        )

    def ask(self, **inputs: Array) -> list[Array]:
        """The outputs of one request, in the order of the configuration."""
        (outcome,) = run(self.runtime, [work_of(inputs)])
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Response)
        return [tensor.array for tensor in outcome.outputs]


def configuration(name: str) -> ModelConfig:
    text = (prepare.MODELS / name / "config.pbtxt").read_text()
    config = model_config.complete(model_config.decode_pbtxt(text), name=name)
    model_config.check(config, name=name)
    model_config.refuse_unsupported(config)
    return config


def texts(*values: bytes) -> Array:
    return np.array(values, np.object_)


@pytest.fixture(scope="module")
def models(repository: Path) -> dict[str, PythonModel]:
    return {
        path.parents[1].name: PythonModel(path.parents[1])
        for path in repository.glob("*/1/model.py")
    }


@pytest.fixture(scope="module")
def digits_model(repository: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(repository / "digits" / "1" / "model.onnx")


@pytest.mark.parametrize("name", sorted(path.name for path in prepare.MODELS.iterdir()))
def test_every_configuration_is_one_that_we_serve(name: str) -> None:
    assert configuration(name).name == name


# digits


def test_digits_tells_96_percent_of_the_held_out_ones(
    printed: str, digits_model: onnxruntime.InferenceSession
) -> None:
    _, held_out, _, expected = digits.split()
    label, probabilities = digits_model.run(["label", "probabilities"], {"pixels": held_out})
    accuracy = float(np.mean(label[:, 0] == expected))
    assert accuracy >= 0.96
    assert f"digits: {accuracy:.1%} of 360 held-out digits right" in printed
    assert (label.dtype, label.shape) == (np.int64, (360, 1))
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (360, 10))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_the_onnx_file_answers_as_scikit_learn_does() -> None:
    seen, held_out, seen_digits, _ = digits.split()
    network = digits.train(seen, seen_digits, passes=3)
    exported = digits.to_onnx(network).SerializeToString()
    session = onnxruntime.InferenceSession(exported)
    label, probabilities = session.run(["label", "probabilities"], {"pixels": held_out})
    np.testing.assert_array_equal(label[:, 0], network.predict(held_out / digits.INK))
    expected = network.predict_proba(held_out / digits.INK)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


# The image ensembles, whose steps the tests put together themselves


def enlarged(pixels: Array) -> Array:
    return np.kron(pixels.reshape(8, 8), np.ones((25, 25))) * (255 / 16)


def as_rgb(grey: Array) -> Array:
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


RENDERINGS: dict[str, Callable[[Array], Array]] = {
    "ink on paper": lambda pixels: np.asarray(images.draw(pixels)),
    "chalk on slate": lambda pixels: as_rgb(enlarged(pixels)),
    "dark blocks": lambda pixels: as_rgb(255 - enlarged(pixels)),
    "8 x 8": lambda pixels: as_rgb(pixels.reshape(8, 8) * 15),
    "faint, in a corner": lambda pixels: as_rgb(
        np.pad(200 - enlarged(pixels) / 4, ((10, 150), (30, 400)), constant_values=200)
    ),
}


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_digits_are_told_from_images(
    models: dict[str, PythonModel],
    digits_model: onnxruntime.InferenceSession,
    rendering: str,
) -> None:
    _, held_out, _, expected = digits.split()
    found = []
    for pixels in held_out[:100]:
        (resized,) = models["digit_resize"].ask(image=RENDERINGS[rendering](pixels))
        assert resized.dtype == np.float32
        assert resized.shape == (1, 64)
        (probabilities,) = digits_model.run(["probabilities"], {"pixels": resized})
        label, confidence = models["digit_label"].ask(probabilities=probabilities)
        assert label.shape == confidence.shape == (1, 1)
        assert confidence[0, 0] == probabilities.max()
        found.append(int(label[0, 0]))
    assert np.mean(found == expected[:100]) >= 0.95


@pytest.mark.parametrize(("file", "digit"), [("seven.png", b"7"), ("three.jpg", b"3")])
def test_the_photos_show_what_their_names_say(
    models: dict[str, PythonModel],
    digits_model: onnxruntime.InferenceSession,
    file: str,
    digit: bytes,
) -> None:
    (image,) = models["photo_decode"].ask(encoded=texts((DATA / file).read_bytes()))
    assert image.dtype == np.uint8
    assert image.shape == (200, 200, 3)
    (pixels,) = models["digit_resize"].ask(image=image)
    (probabilities,) = digits_model.run(["probabilities"], {"pixels": pixels})
    label, confidence = models["digit_label"].ask(probabilities=probabilities)
    assert label.tolist() == [[digit]]
    assert confidence[0, 0] > 0.9


def test_a_blank_image_has_no_ink(models: dict[str, PythonModel]) -> None:
    (pixels,) = models["digit_resize"].ask(image=np.full((40, 30, 3), 250, np.uint8))
    assert pixels.tolist() == [[0.0] * 64]


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 3)])
def test_an_image_without_pixels_is_refused(
    models: dict[str, PythonModel], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ModelFailed, match="has no pixels") as caught:
        models["digit_resize"].ask(image=np.zeros(shape, np.uint8))
    assert caught.value.kind is Kind.INVALID


def png_header(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def gif() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "GIF")
    return file.getvalue()


NO_PHOTOS = {
    "nothing": (b"", "no PNG or JPEG"),
    "text": (b"seven", "no PNG or JPEG"),
    "another format": (gif(), "no PNG or JPEG"),
    "half a PNG": ((DATA / "seven.png").read_bytes()[:2000], "damaged"),
    "half a JPEG": ((DATA / "three.jpg").read_bytes()[:1500], "damaged"),
    "a PNG with garbled pixels": (
        (DATA / "seven.png").read_bytes().replace(b"IDAT", b"IDAT" + bytes(9)),
        "damaged",
    ),
    "a large claim": (png_header(5000, 5000), "5000 x 5000 pixels, at most 16000000"),
    "a claim that Pillow warns of": (png_header(12000, 12000), "at most 16000000"),
    "a decompression bomb": (png_header(60000, 60000), "at most 16000000"),
}


@pytest.mark.parametrize("case", NO_PHOTOS)
def test_what_is_no_photo_is_refused(models: dict[str, PythonModel], case: str) -> None:
    encoded, reason = NO_PHOTOS[case]
    with pytest.raises(ModelFailed, match=reason) as caught:
        models["photo_decode"].ask(encoded=texts(encoded))
    assert caught.value.kind is Kind.INVALID


def test_a_transparent_photo_lies_on_white(models: dict[str, PythonModel]) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (2, 1), (0, 0, 0, 0)).save(file, "PNG")
    (image,) = models["photo_decode"].ask(encoded=texts(file.getvalue()))
    assert image.tolist() == [[[255, 255, 255]] * 2]


def test_a_photo_taken_sideways_is_turned(models: dict[str, PythonModel]) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: turn by a quarter
    Image.new("RGB", (20, 10)).save(file, "JPEG", exif=exif)
    (image,) = models["photo_decode"].ask(encoded=texts(file.getvalue()))
    assert image.shape == (20, 10, 3)


# sentiment


def stars(models: dict[str, PythonModel], *reviews: str) -> list[int]:
    encoded = texts(*(review.encode() for review in reviews))[:, None]
    label, score = models["sentiment"].ask(text=encoded)
    assert label.shape == score.shape == (len(reviews), 1)
    assert score.dtype == np.float32
    assert np.all((score > 0) & (score <= 1))
    assert set(label.ravel()) <= {b"1 star", b"2 stars", b"3 stars", b"4 stars", b"5 stars"}
    return [int(each[:1]) for each in label.ravel()]


def test_held_out_praise_and_contempt_are_told_apart(models: dict[str, PythonModel]) -> None:
    held_out = sentiment.read("sentiment_heldout.tsv")
    found = np.array(stars(models, *held_out.texts))
    meant = np.array(held_out.stars)
    praise, contempt = found[meant > 3], found[meant < 3]
    assert len(praise) >= 20
    assert len(contempt) >= 20
    assert np.mean(np.concatenate([praise > 3, contempt < 3])) >= 0.9


@pytest.mark.parametrize(
    ("review", "least", "most"),
    [
        ("I absolutely love this product, it's wonderful!", 4, 5),
        ("Best purchase I\u2019ve made this year!", 4, 5),
        ("Great quality, highly recommended", 4, 5),
        ("This is the worst thing I have ever bought", 1, 2),
        ("Terrible service, I want my money back", 1, 2),
        ("Awful. Complete waste of money.", 1, 2),
        ("It's okay, nothing special.", 2, 4),
    ],
)
def test_plain_reviews_get_the_stars_that_anyone_expects(
    models: dict[str, PythonModel], review: str, least: int, most: int
) -> None:
    assert least <= stars(models, review)[0] <= most


def test_no_held_out_sentence_was_trained_on() -> None:
    trained = {text.lower() for text in sentiment.read("sentiment.tsv").texts}
    assert trained.isdisjoint(
        text.lower() for text in sentiment.read("sentiment_heldout.tsv").texts
    )


def test_the_sentences_cover_all_stars_without_repeating_themselves() -> None:
    reviews = sentiment.read("sentiment.tsv")
    assert set(reviews.stars) == {1, 2, 3, 4, 5}
    assert min(reviews.stars.count(n) for n in range(1, 6)) >= 200
    assert len(set(reviews.texts)) == len(reviews.texts)


def test_a_bad_text_fails_its_own_request_alone(models: dict[str, PythonModel]) -> None:
    works = [
        work_of({"text": texts(b"I love it")[:, None]}),
        work_of({"text": texts(b"caf\xe9")[:, None]}),
        work_of({"text": texts(b"x" * 20_001)[:, None]}),
        work_of({"text": texts(b"I hate it", b"I love it")[:, None]}, rows=2),
        work_of({"text": texts()[:, None]}, rows=0),
    ]
    good, not_utf8, too_long, both, none = run(models["sentiment"].runtime, works)
    assert isinstance(not_utf8, ModelFailed)
    assert "expected UTF-8" in str(not_utf8)
    assert isinstance(too_long, ModelFailed)
    assert "20001 characters, at most 20000" in str(too_long)
    assert not_utf8.kind is too_long.kind is Kind.INVALID
    answered = [outcome for outcome in (good, both, none) if isinstance(outcome, Response)]
    labels = [response.outputs[0].array for response in answered]
    assert [array.shape for array in labels] == [(1, 1), (2, 1), (0, 1)]
    assert labels[0][0] == labels[1][1] != labels[1][0]


# The others


def test_the_line_goes_through_the_right_points(repository: Path) -> None:
    session = onnxruntime.InferenceSession(
        repository / "linear_regression_model" / "1" / "model.onnx"
    )
    x = np.array([[0], [1], [-2], [1e6]], np.float32)
    (y,) = session.run(["output__0"], {"input__0": x})
    assert y.dtype == np.float32
    assert y.tolist() == [[0.5], [3.0], [-4.5], [2500000.5]]


def test_iris_is_a_file_without_code_that_names_the_species(repository: Path) -> None:
    file = repository / "iris" / "1" / "model.skops"
    assert skops.io.get_untrusted_types(file=file) == []
    pipeline = skops.io.load(file)
    features = np.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]], np.float32)
    assert pipeline.predict(features).tolist() == ["setosa", "virginica"]
    labels = (repository / "iris" / "labels.txt").read_text().split()
    assert pipeline.classes_.tolist() == labels


def test_add_sub_adds_and_subtracts(models: dict[str, PythonModel]) -> None:
    left, right = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
    total, difference = models["add_sub"].ask(INPUT0=left, INPUT1=right)
    assert total.tolist() == [5, 5, 5, 5]
    assert difference.tolist() == [-3, -1, 1, 3]


@pytest.mark.parametrize("values", [[], [1.5, -2.0]])
def test_identity_gives_back_what_it_got(
    models: dict[str, PythonModel], values: list[float]
) -> None:
    (output,) = models["identity"].ask(INPUT0=np.array(values, np.float32))
    assert output.tolist() == values


def streamed(models: dict[str, PythonModel], work: FakeWork) -> list[bytes]:
    run(models["repeat"].runtime, [work])
    assert work.is_ended
    return [response.outputs[0].array.item() for response in work.responses]


@pytest.mark.parametrize(
    ("count", "expected"), [(None, b"one two"), (0, b""), (2, b"one two one two")]
)
def test_repeat_streams_word_by_word(
    models: dict[str, PythonModel], count: int | None, expected: bytes
) -> None:
    inputs = {"text_input": texts(b" one two ")}
    if count is not None:
        inputs["count"] = np.array([count], np.int32)
    assert streamed(models, work_of(inputs)) == expected.split()


def test_repeat_stops_when_nobody_listens(models: dict[str, PythonModel]) -> None:
    work = work_of({"text_input": texts(b"one two three four")})
    work.cancels_after = 2
    assert streamed(models, work) == [b"one", b"two"]


@pytest.mark.parametrize("count", [-1, 1001])
def test_repeat_refuses_a_count_out_of_range(models: dict[str, PythonModel], count: int) -> None:
    work = work_of({"text_input": texts(b"one"), "count": np.array([count], np.int32)})
    assert streamed(models, work) == []
    (error,) = work.sent
    assert isinstance(error, ModelFailed)
    assert f"expected 0 to 1000, got {count}" in str(error)


# The README


def readme_calls() -> list[tuple[str, dict[str, Any]]]:
    calls = re.findall(r"v2/models/(\w+)/(?:infer|generate_stream)[^']*?-d '([^']*)'", README)
    return [(model, json.loads(body)) for model, body in calls]


def test_the_readme_calls_name_inputs_that_the_models_have() -> None:
    calls = readme_calls()
    for model, body in calls:
        known = {tensor.name: tensor for tensor in configuration(model).input}
        if "inputs" not in body:
            assert body.keys() <= known.keys()
            continue
        for tensor in body["inputs"]:
            declared = known[tensor["name"]]
            assert tensor["datatype"] == declared.datatype.name
            batch = [1] if configuration(model).max_batch_size else []
            assert len(tensor["shape"]) == len(batch) + len(declared.dims)
            assert np.size(tensor["data"]) == np.prod(tensor["shape"])
    shown = {model for model, _ in calls}
    assert shown | {"digit_photo"} >= {path.name for path in prepare.MODELS.iterdir()} - {
        "photo_decode",
        "digit_resize",
        "digit_label",
    }


def test_the_readme_pictures_a_three(digits_model: onnxruntime.InferenceSession) -> None:
    body = dict(readme_calls())["digits"]
    pixels = np.array(body["inputs"][0]["data"], np.float32).reshape(1, 64)
    (label,) = digits_model.run(["label"], {"pixels": pixels})
    assert label.item() == 3
