"""Stars for a review: the trained text pipeline behind Triton's Python backend interface."""

from pathlib import Path

import numpy as np
import skops.io
import triton_python_backend_utils as pb_utils

MAX_CHARACTERS = 20_000
"""Far more than any review; the cost of a text grows with its length."""

NEUTRAL = 2
"""Column of the three stars; the bad ones stand before it, the good ones after it."""


class TritonPythonModel:
    """Reads ``text``, gives the likeliest ``label`` and that label's probability as ``score``."""

    def initialize(self, args):
        version = Path(args["model_repository"]) / args["model_version"]
        # Loads types of scikit-learn, scipy and numpy only, and raises for anything else.
        self.pipeline = skops.io.load(version / "sentiment.skops")

    def execute(self, requests):
        """Answer all requests with one call of the pipeline; a bad text fails its own request."""
        texts, slices, errors = [], [], []
        for request in requests:
            try:
                decoded = decode(pb_utils.get_input_tensor_by_name(request, "text").as_numpy())
            except ValueError as exc:
                decoded = []
                errors.append(pb_utils.TritonError(str(exc), pb_utils.TritonError.INVALID_ARG))
            else:
                errors.append(None)
            slices.append(slice(len(texts), len(texts) + len(decoded)))
            texts += decoded
        labels, scores = self.rate(texts)
        return [
            pb_utils.InferenceResponse(error=error)
            if error is not None
            else pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor("label", labels[rows]),
                    pb_utils.Tensor("score", scores[rows]),
                ]
            )
            for rows, error in zip(slices, errors, strict=True)
        ]

    def rate(self, texts):
        """Labels as ``object[n, 1]`` and scores as ``float32[n, 1]`` of ``n`` texts."""
        if not texts:
            return np.empty((0, 1), np.object_), np.empty((0, 1), np.float32)
        probabilities = self.pipeline.predict_proba(texts)
        columns = choose(probabilities)
        stars = self.pipeline.classes_[columns]
        labels = [f"{n} star{'s' if n > 1 else ''}".encode() for n in stars]
        scores = probabilities[np.arange(len(texts)), columns]
        return np.array(labels, np.object_)[:, None], scores.astype(np.float32)[:, None]


def decode(tensor):
    """The texts of a BYTES tensor; raises ``ValueError`` for what is not readable text."""
    texts = []
    for row, raw in enumerate(tensor.ravel()):
        try:
            text = raw.decode() if isinstance(raw, bytes) else str(raw)
        except UnicodeDecodeError as exc:
            raise ValueError(f'input "text", row {row}: expected UTF-8, {exc.reason}') from exc
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f'input "text", row {row}: {len(text)} characters, at most {MAX_CHARACTERS} '
                "are taken; send the review in parts"
            )
        # Telephones write don’t, the training sentences don't.
        texts.append(text.replace("\u2019", "'"))
    return texts


def choose(probabilities):
    """One column per row of ``float[n, 5]``: bad, middling or good first, then the stars in it.

    Praise whose probability is split between four and five stars stays praise, even where three
    stars are the single likeliest label.
    """
    bad = probabilities[:, :NEUTRAL]
    good = probabilities[:, NEUTRAL + 1 :]
    side = np.argmax([bad.sum(1), probabilities[:, NEUTRAL], good.sum(1)], axis=0)
    columns = [bad.argmax(1), np.full(len(side), NEUTRAL), NEUTRAL + 1 + good.argmax(1)]
    return np.choose(side, columns)
