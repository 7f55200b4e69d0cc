"""Forests that LightGBM grew, from its text files.

LightGBM computes in double precision and takes NaN for a missing value.

It reads trees in parallel, and an exception in there ends the process: a file that was copied by
half would take the server with it (LightGBM 4.7). So it is given the text without the table of
where each tree begins, and reads one tree after the other. It also follows the numbers of nodes
and features in a file unchecked, so these are checked here first.
"""

from pathlib import Path
from typing import Any, ClassVar

import lightgbm
import numpy as np

from modelport.dtypes import FP64, DataType
from modelport.errors import LoadFailed
from modelport.runtimes.trees import TreeRuntime, threads_of
from modelport.specs import ModelConfig
from modelport.tensors import Array

__all__ = ["LightgbmRuntime"]


class LightgbmRuntime(TreeRuntime):
    """One booster of LightGBM."""

    default_filename: ClassVar[str] = "model.txt"
    datatype: ClassVar[DataType] = FP64

    @classmethod
    def open(cls, file: Path, config: ModelConfig) -> "_Booster":
        """Read a text file."""
        try:
            text = file.read_text(encoding="utf-8")
            header, trees = _parse(text)
            _check(header, trees)
            sequential = text.replace(f"tree_sizes={header['tree_sizes']}\n", "", 1)
            booster = lightgbm.Booster(model_str=sequential)
        except (lightgbm.basic.LightGBMError, OSError, ValueError, KeyError) as exc:
            reason = f"'{exc.args[0]}' is missing" if isinstance(exc, KeyError) else str(exc)
            raise LoadFailed(
                f"LightGBM cannot read '{file.name}': {reason}; save the model with "
                "booster.save_model('model.txt')"
            ) from exc
        return _Booster(booster, header.get("objective", ""), config)


class _Booster:
    """What the runtime of forests asks of one."""

    def __init__(self, booster: Any, objective: str, config: ModelConfig) -> None:
        self._booster = booster
        self._threads = threads_of(config)
        self.features = int(booster.num_feature())
        self.targets = int(booster.num_model_per_iteration())
        kind = objective.partition(" ")[0]
        self.classes = {"binary": 2, "multiclass": self.targets, "multiclassova": self.targets}.get(
            kind, 0
        )

    def predict(self, rows: Array) -> Array:
        return self._predict(rows)

    def margin(self, rows: Array) -> Array:
        return self._predict(rows, raw_score=True)

    def leaf(self, rows: Array) -> Array:
        return self._predict(rows, pred_leaf=True).astype(np.int64)

    def contributions(self, rows: Array) -> Array:
        given = self._predict(rows, pred_contrib=True)
        return given.reshape(len(rows), self.targets, -1) if self.targets > 1 else given

    def _predict(self, rows: Array, **what: bool) -> Array:
        if not len(rows):
            # It refuses tables without rows.
            return self._predict(np.zeros((1, self.features)), **what)[:0]
        given: Array = self._booster.predict(rows, num_threads=self._threads, **what)
        return given


def _parse(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Cut a file into its header and its trees, each as what stands before and behind a ``=``."""
    if not text.startswith("tree\n"):
        raise ValueError("it does not begin like a model")
    body, end, _ = text.partition("\nend of trees")
    if not end:
        raise ValueError("it has no end; the file has been cut off")
    header, *trees = body.split("\nTree=")
    return _pairs(header), [_pairs(f"Tree={tree}") for tree in trees]


def _pairs(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in lines if equals}


def _check(header: dict[str, str], trees: list[dict[str, str]]) -> None:
    """Refuse trees that lead out of themselves or in circles."""
    if len(header["tree_sizes"].split()) != len(trees):
        raise ValueError("its header announces another number of trees than it has")
    features = int(header["max_feature_idx"]) + 1
    if len(trees) % max(1, int(header["num_tree_per_iteration"])):
        raise ValueError("its last round has not a tree for every class")
    for tree in trees:
        leaves = int(tree["num_leaves"])
        if len(tree["leaf_value"].split()) != leaves:
            raise ValueError(f"tree {tree['Tree']} has not as many leaves as it says")
        if leaves < 2:
            continue
        nodes = np.arange(leaves - 1)
        split = np.array(tree["split_feature"].split(), np.int64)
        fits = split.shape == nodes.shape and bool(((split >= 0) & (split < features)).all())
        for side in ("left_child", "right_child"):
            child = np.array(tree[side].split(), np.int64)
            # A leaf is counted from -1 downwards; a node comes after the one that it hangs on.
            fits = fits and child.shape == nodes.shape
            fits = fits and bool((((child > nodes) & (child < leaves - 1)) | (child < 0)).all())
            fits = fits and bool((child >= -leaves).all())
        if not fits or not _fit_categories(tree, leaves - 1):
            raise ValueError(f"tree {tree['Tree']} has nodes that lead nowhere")


def _fit_categories(tree: dict[str, str], nodes: int) -> bool:
    """Whether nodes that ask for categories have some: their threshold is a number of a set."""
    thresholds = np.array(tree["threshold"].split(), np.float64)
    kinds = np.array(tree["decision_type"].split(), np.int64)
    if len(thresholds) != nodes or len(kinds) != nodes:
        return False
    sets = int(tree["num_cat"])
    asked = thresholds[(kinds & _IS_CATEGORICAL) != 0]
    if not bool(((asked >= 0) & (asked < sets)).all()):
        return False
    if not sets:
        return True
    bounds = np.array(tree["cat_boundaries"].split(), np.int64)
    words = len(tree["cat_threshold"].split())
    return (
        len(bounds) == sets + 1
        and bool((np.diff(bounds) >= 0).all())
        and bounds[0] == 0
        and bounds[-1] == words
    )


_IS_CATEGORICAL = 1
"""In the ``decision_type`` of a node."""
