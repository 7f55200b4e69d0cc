"""Forests that XGBoost grew, from its native files (``.ubj`` or ``.json``).

A forest that was stopped early answers with its best round, as ``XGBClassifier`` and
``XGBRegressor`` do; with ``backend: "fil"`` all rounds count, as they do there.

XGBoost computes in single precision and takes NaN for a missing value. It walks trees unchecked, so
they are checked when they have been read.
"""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xgboost

from modelport.dtypes import FP32, DataType
from modelport.errors import LoadFailed
from modelport.runtimes.trees import FIL, TreeRuntime, threads_of
from modelport.runtimes.xgboost_file import check_trees, read_ubjson
from modelport.specs import ModelConfig
from modelport.tensors import Array

__all__ = ["XgboostRuntime"]


class XgboostRuntime(TreeRuntime):
    """One booster of XGBoost."""

    default_filename: ClassVar[str] = "model.ubj"
    datatype: ClassVar[DataType] = FP32

    @classmethod
    def open(cls, file: Path, config: ModelConfig) -> "_Booster":
        """Read a native file."""
        try:
            # Given the content, it tells the format by that; given a name, by the ending.
            content = bytearray(file.read_bytes())
            booster = xgboost.Booster(params={"nthread": threads_of(config)}, model_file=content)
            check_trees(read_ubjson(bytes(booster.save_raw("ubj"))))
            return _Booster(booster, uses_all_rounds=config.backend == FIL)
        except (xgboost.core.XGBoostError, OSError, ValueError, KeyError) as exc:
            raise LoadFailed(
                f"XGBoost cannot read '{file.name}': {_reason(exc)}; save the model with "
                "save_model('model.ubj') or 'model.json'"
            ) from exc


class _Booster:
    """What the runtime of forests asks of one."""

    def __init__(self, booster: Any, *, uses_all_rounds: bool) -> None:
        learner = json.loads(booster.save_config())["learner"]
        shape = learner["learner_model_param"]
        self._objective = learner["learner_train_param"]["objective"]
        self._booster = booster
        self._is_linear = learner["gradient_booster"]["name"] == "gblinear"
        best = None if uses_all_rounds else booster.attr("best_iteration")
        self._rounds = (0, 0) if best is None else (0, int(best) + 1)
        self.features = int(booster.num_features())
        self.targets = int(shape["num_target"])
        several = int(shape["num_class"])
        is_binary = self._objective in ("binary:logistic", "binary:logitraw", "binary:hinge")
        self.classes = several or (2 if is_binary and self.targets == 1 else 0)

    def predict(self, rows: Array) -> Array:
        if self._objective == "multi:softmax":
            # It tells the class alone, and probabilities are asked for as well.
            return _softmax(self.margin(rows))
        given = self._predict(rows, "value")
        return _sigmoid(given) if self._objective == "binary:logitraw" else given

    def margin(self, rows: Array) -> Array:
        return self._predict(rows, "margin")

    def leaf(self, rows: Array) -> Array:
        leaves = self._explain(rows, pred_leaf=True)
        return leaves.reshape(len(rows), -1).astype(np.int64)

    def contributions(self, rows: Array) -> Array:
        given = self._explain(rows, pred_contribs=True)
        return given[:, 0] if given.shape[1] == 1 else given

    def _predict(self, rows: Array, kind: str) -> Array:
        if self._is_linear:
            # It has neither rounds nor the quick way to predict.
            linear: Array = self._booster.predict(
                xgboost.DMatrix(rows, nthread=1),
                output_margin=kind == "margin",
                validate_features=False,
            )
            return linear
        given: Array = self._booster.inplace_predict(
            rows, iteration_range=self._rounds, predict_type=kind, validate_features=False
        )
        return given

    def _explain(self, rows: Array, **what: bool) -> Array:
        given: Array = self._booster.predict(
            xgboost.DMatrix(rows, nthread=1),
            iteration_range=self._rounds,
            validate_features=False,
            strict_shape=True,
            **what,
        )
        return given


def _sigmoid(margin: Array) -> Array:
    probability: Array = 1 / (1 + np.exp(-margin))
    return probability


def _softmax(margin: Array) -> Array:
    weights: Array = np.exp(margin - margin.max(axis=1, keepdims=True))
    shares: Array = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _reason(exc: Exception) -> str:
    r"""What XGBoost says, without time, place in its sources and stack.

    >>> _reason(ValueError("[09:15:00] /x/json.h:88: Invalid cast\nStack trace:\n  [bt]"))
    'Invalid cast'
    """
    lines = str(exc).strip().splitlines()
    return _PLACE.sub("", lines[0]).rstrip(": ") if lines else type(exc).__name__


_PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")
