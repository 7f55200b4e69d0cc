"""The ``iris`` model: a scikit-learn pipeline in skops' format, which holds no code."""

from pathlib import Path

import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def build(version: Path) -> str:
    iris = load_iris()
    # Trained on names, so that predict() answers with a species rather than a number.
    species = iris.target_names[iris.target]
    seen, held_out, seen_species, held_out_species = train_test_split(
        iris.data, species, test_size=0.2, stratify=species, random_state=0
    )
    pipeline: Pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    pipeline.fit(seen, seen_species)
    skops.io.dump(pipeline, version / "model.skops")
    accuracy = pipeline.score(held_out, held_out_species)
    return f"{accuracy:.1%} of {len(held_out)} held-out flowers right"
