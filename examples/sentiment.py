"""The ``sentiment`` model: stars for a review, learnt from sentences written for this example.

Words and pieces of words, weighted by how rare they are, go into a logistic regression. Features
are hashed, not listed, which keeps the file small and quick to load.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skops.io
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline

DATA = Path(__file__).resolve().parent / "data"

FEATURES = 2**16
"""Of each kind; a quarter of that already costs held-out sentences by collisions."""

WORD = (
    r"(?:(?:not|never|no|nothing|without|hardly|cannot|\w+n't)\s+"
    r"(?:(?:a|an|the|any|very|really|that|so|too|be|been|have|had|ever|at|all|to|it|this)\s+)*)?"
    r"\w[\w']*|!"
)
"""One feature. A negation and the word it turns around are one, or "not good" would count as good
too."""


@dataclass(frozen=True, slots=True)
class Reviews:
    """Sentences and the stars that their writer meant, 1 to 5."""

    texts: list[str]
    stars: list[int]


def build(version: Path) -> str:
    pipeline = train(read("sentiment.tsv"))
    skops.io.dump(pipeline, version / "sentiment.skops")
    held_out = read("sentiment_heldout.tsv")
    polar = [n for n, stars in enumerate(held_out.stars) if stars != 3]
    probabilities = pipeline.predict_proba([held_out.texts[n] for n in polar])
    right = (probabilities[:, 3:].sum(1) > probabilities[:, :2].sum(1)) == (
        np.array([held_out.stars[n] for n in polar]) > 3
    )
    return f"{right.mean():.1%} of {len(polar)} held-out sentences told as praise or contempt"


def read(name: str) -> Reviews:
    """The labelled sentences of ``examples/data/<name>``."""
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return Reviews([row["text"] for row in rows], [int(row["stars"]) for row in rows])


def train(reviews: Reviews) -> Pipeline:
    features = FeatureUnion(
        [("words", words()), ("pieces", pieces())],
        # Pieces carry over to unseen forms of a word, but do not see what is negated.
        transformer_weights={"words": 1.0, "pieces": 0.5},
    )
    classifier = LogisticRegression(C=10, class_weight="balanced", max_iter=500)
    return make_pipeline(features, classifier).fit(reviews.texts, reviews.stars)


def words() -> Pipeline:
    hashing = HashingVectorizer(
        token_pattern=WORD,
        ngram_range=(1, 2),
        n_features=FEATURES,
        alternate_sign=False,
        binary=True,
        norm=None,
    )
    return make_pipeline(hashing, TfidfTransformer())


def pieces() -> Pipeline:
    hashing = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(3, 5),
        n_features=FEATURES,
        alternate_sign=False,
        norm=None,
    )
    return make_pipeline(hashing, TfidfTransformer(sublinear_tf=True))
