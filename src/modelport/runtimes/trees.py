"""Models of decision trees: what the runtimes of the libraries that grow them share.

A subclass opens a file as a :class:`Booster`, and everything else happens here. Unless the
configuration says otherwise a model takes one input, ``features``, and has the outputs of its kind:

=============  ===========================
classifier     ``label``, ``probabilities``
anything else  ``prediction``
=============  ===========================

With ``backend: "fil"`` names, parameters and shapes are those of Triton's backend for forests:
``input__0`` and ``output__0`` in FP32, and ``treeshap_output`` where it is listed.

Source: Triton FIL backend, "FIL Backend Model Configuration".
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from modelport.dtypes import INT64, DataType
from modelport.errors import InvalidRequest, LoadFailed
from modelport.runtimes.arrays import Arrays, TensorRuntime
from modelport.runtimes.base import LoadContext, ModelSource
from modelport.runtimes.parameters import tell_of_unknown
from modelport.specs import DynamicBatching, ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Array

__all__ = ["FIL", "MAX_BATCH_SIZE", "Booster", "TreeRuntime", "threads_of"]

MAX_BATCH_SIZE = 1024
"""Where the configuration gives none: trees are walked for many rows at once, rows are small."""

FIL = "fil"
"""Triton's backend for forests."""


class Booster(Protocol):
    """A forest that has been read from a file. ``rows`` are ``[batch, features]``.

    Attributes:
        features: How many there are.
        classes: How many there are; 0 where it is no classifier.
        targets: Columns of a prediction that is no classifier's.
    """

    features: int
    classes: int
    targets: int

    def predict(self, rows: Array) -> Array:
        """Give what the objective says: ``[batch]`` or ``[batch, classes or targets]``.

        Of two classes the probability of the second, ``[batch]``.
        """
        ...

    def margin(self, rows: Array) -> Array:
        """Give the sums of the leaves: ``[batch]`` or ``[batch, classes or targets]``."""
        ...

    def leaf(self, rows: Array) -> Array:
        """Give the leaf in which each row ends in each tree: ``[batch, trees]``."""
        ...

    def contributions(self, rows: Array) -> Array:
        """Give SHAP values and the bias.

        Returns:
            ``[batch, features + 1]``, of several classes ``[batch, classes, features + 1]``.
        """
        ...


class TreeRuntime(TensorRuntime):
    """One forest; a subclass has ``open`` and ``datatype``."""

    default_filename: ClassVar[str]
    datatype: ClassVar[DataType]
    """What the library computes in: of the features, and of what is no label."""
    own_parameters: ClassVar[frozenset[str]] = frozenset()
    """What the configuration may say beside what all of them understand."""

    def __init__(self) -> None:
        self._booster: Booster | None = None
        self._answer_by_output: dict[str, Callable[[_Rows], Array]] = {}
        self._input = ""

    @classmethod
    def open(cls, file: Path, config: ModelConfig) -> Booster:
        """Read a model file.

        Raises:
            LoadFailed: If it is none.
        """
        raise NotImplementedError  # pragma: no cover - every subclass has its own

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Ask the forest for its features and classes."""
        booster = cls._read(source, config)
        is_fil = config.backend == FIL
        datatype = _FIL_DATATYPE if is_fil else cls.datatype.config_name
        is_new = config.max_batch_size == 0 and all(len(each.dims) < 2 for each in config.input)
        has_scheduler = config.dynamic_batching is not None or config.sequence_batching is not None
        return ModelConfig(
            max_batch_size=MAX_BATCH_SIZE if is_new else config.max_batch_size,
            input=(_input(config, booster, datatype),),
            output=tuple(
                _output(each, booster, config, datatype, is_batching=is_new or _is_batching(config))
                for each in _outputs(config, booster)
            ),
            dynamic_batching=DynamicBatching() if is_new and not has_scheduler else None,
        )

    def load(self, context: LoadContext) -> None:
        """Read the file, and find what each output is made of."""
        config = context.config
        own = self.own_parameters | (_FIL_PARAMETERS.keys() if config.backend == FIL else set())
        tell_of_unknown(context, "a model of trees", own | _KNOWN, prefixes=("method.",))
        _check_parameters(config)
        booster = self._read(context.source, config)
        if len(config.input) != 1:
            names = ", ".join(each.name for each in config.input)
            raise LoadFailed(f"a forest has one input, a row of features; there are {names}")
        _check_width(config.input[0], booster)
        self._input = config.input[0].name
        self._answer_by_output = {
            output.name: _answer(output, booster, config) for output in config.output
        }
        self.prepare(config)
        self._booster = booster

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Walk the trees; outputs that need the same walk share it."""
        booster = self._booster
        assert booster is not None
        table = inputs[self._input]
        if table.shape[-1] != booster.features:
            # Reached where the configuration has -1 for the number of features.
            raise InvalidRequest(
                f"input '{self._input}' has {table.shape[-1]} features, and the model was "
                f"trained on {booster.features}"
            )
        rows = _Rows(booster, table)
        return {name: self._answer_by_output[name](rows) for name in outputs}

    def is_ready(self) -> bool:
        """Whether the forest is there."""
        return self._booster is not None

    def unload(self) -> None:
        """Let the forest go."""
        self._booster = None

    @classmethod
    def _read(cls, source: ModelSource, config: ModelConfig) -> Booster:
        file = source.file(config, cls.default_filename)
        if not file.is_file():
            raise LoadFailed(f"there is no '{file.name}' in version directory {file.parent.name}")
        return cls.open(file, config)


def threads_of(config: ModelConfig) -> int:
    """How many threads one call takes: as configured, else the cores shared by the instances.

    Raises:
        LoadFailed: If the parameter is no number.
    """
    text = config.parameter("nthread") or config.parameter("num_threads")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise LoadFailed(f"parameter 'nthread' is '{text}'; it has to be a number from 1")
        return int(text)
    instances = sum(max(group.count, 1) for group in config.instance_group) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // instances)


class _Rows:
    """Rows of one batch, and what has been computed of them so far."""

    __slots__ = ("_computed", "booster", "table")

    def __init__(self, booster: Booster, table: Array) -> None:
        self.booster = booster
        self.table = table
        self._computed: dict[str, Array] = {}

    def computed(self, method: str) -> Array:
        found = self._computed.get(method)
        if found is None:
            compute: Callable[[Array], Array] = getattr(self.booster, method)
            found = self._computed[method] = compute(self.table)
        return found


def _label(threshold: float) -> Callable[[_Rows], Array]:
    def answer(rows: _Rows) -> Array:
        predicted = rows.computed("predict")
        if predicted.ndim == 2:
            best: Array = predicted.argmax(axis=1, keepdims=True)
            return best
        return (predicted > threshold).astype(np.int64).reshape(-1, 1)

    return answer


def _probabilities(rows: _Rows) -> Array:
    predicted = rows.computed("predict")
    if predicted.ndim == 2:
        return predicted
    return np.stack((1 - predicted, predicted), axis=1)


def _columns(method: str) -> Callable[[_Rows], Array]:
    def answer(rows: _Rows) -> Array:
        predicted = rows.computed(method)
        return predicted.reshape(-1, 1) if predicted.ndim == 1 else predicted

    return answer


def _answer(output: ModelOutput, booster: Booster, config: ModelConfig) -> Callable[[_Rows], Array]:
    """Find what an output is made of, by its name, a parameter, or what FIL's parameters say."""
    method = config.parameter(f"method.{output.name}") or _METHOD_BY_OUTPUT.get(output.name, "")
    if config.backend == FIL and output.name not in _METHOD_BY_OUTPUT:
        method = _fil_method(config, booster, output)
    if method not in _METHODS:
        raise LoadFailed(
            f"output '{output.name}' is made of nothing; use one of {', '.join(_METHOD_BY_OUTPUT)},"
            f" or set the parameter 'method.{output.name}' to one of {', '.join(_METHODS)}"
        )
    if method in ("label", "probabilities"):
        if not booster.classes:
            raise LoadFailed(
                f"output '{output.name}' needs a classifier, and this model's objective is none; "
                "'prediction' is what it gives"
            )
        return _label(_threshold(config)) if method == "label" else _probabilities
    return _columns(method)


def _fil_method(config: ModelConfig, booster: Booster, output: ModelOutput) -> str:
    if not _flag(config, "output_class") and not _flag(config, "is_classifier"):
        return "predict"
    if not booster.classes:
        raise LoadFailed(
            "parameter 'output_class' (or 'is_classifier') is true, and the objective of this "
            "model is no classifier's; set it to false"
        )
    if not _flag(config, "predict_proba"):
        return "label"
    # Of two classes FIL tells the second one's alone; earlier versions told both.
    return "predict" if booster.classes == 2 and output.dims in ((), (1,)) else "probabilities"


def _input(config: ModelConfig, booster: Booster, datatype: str) -> ModelInput:
    given = config.input[0] if config.input else ModelInput(name=_usual_input(config))
    return ModelInput(
        name=given.name,
        data_type=datatype if given.data_type == "TYPE_INVALID" else given.data_type,
        dims=given.dims or (booster.features,),
    )


def _outputs(config: ModelConfig, booster: Booster) -> tuple[ModelOutput, ...]:
    if config.output:
        return config.output
    if config.backend == FIL:
        return (ModelOutput(name="output__0"),)
    names = ("label", "probabilities") if booster.classes else ("prediction",)
    return tuple(ModelOutput(name=name) for name in names)


def _output(
    output: ModelOutput,
    booster: Booster,
    config: ModelConfig,
    datatype: str,
    *,
    is_batching: bool,
) -> ModelOutput:
    """An output with what the configuration leaves out: seen by asking for a row of zeros."""
    answer = _answer(output, booster, config)
    tried = answer(_Rows(booster, np.zeros((1, booster.features), _INPUT)))
    if output.data_type != "TYPE_INVALID":
        datatype = output.data_type
    elif tried.dtype.kind in "iu" and config.backend != FIL:
        datatype = INT64.config_name
    dims = tried.shape[1:] if is_batching else (-1, *tried.shape[1:])
    return ModelOutput(name=output.name, data_type=datatype, dims=output.dims or dims)


def _usual_input(config: ModelConfig) -> str:
    return "input__0" if config.backend == FIL else "features"


def _is_batching(config: ModelConfig) -> bool:
    return config.max_batch_size > 0


def _check_width(entry: ModelInput, booster: Booster) -> None:
    width = entry.dims[-1]
    if width not in (-1, booster.features):
        raise LoadFailed(
            f"input '{entry.name}' has {width} features, and the model was trained on "
            f"{booster.features}"
        )


def _check_parameters(config: ModelConfig) -> None:
    for name, parameter in config.parameters.items():
        allowed = _FIL_PARAMETERS.get(name)
        if config.backend == FIL and allowed and parameter.string_value.lower() not in allowed:
            raise LoadFailed(
                f"parameter '{name}' is '{parameter.string_value}'; it has to be one of "
                f"{', '.join(allowed)}"
            )


def _threshold(config: ModelConfig) -> float:
    text = config.parameter("threshold", "0.5")
    try:
        return float(text)
    except ValueError:
        raise LoadFailed(
            f"parameter 'threshold' is '{text}'; it has to be a number, above which the second of "
            "two classes is meant"
        ) from None


def _flag(config: ModelConfig, name: str) -> bool:
    return config.parameter(name).lower() in ("true", "1")


_INPUT = np.float32
_FIL_DATATYPE = "TYPE_FP32"
_METHOD_BY_OUTPUT: Mapping[str, str] = {
    "label": "label",
    "probabilities": "probabilities",
    "prediction": "predict",
    "margin": "margin",
    "leaf": "leaf",
    "contributions": "contributions",
    "treeshap_output": "contributions",
}
_METHODS = ("label", "probabilities", "predict", "margin", "leaf", "contributions")
_FLAGS = ("true", "false", "1", "0")
_FIL_PARAMETERS: Mapping[str, Sequence[str]] = {
    "model_type": ("xgboost", "xgboost_json", "xgboost_ubj", "lightgbm"),
    "output_class": _FLAGS,
    "is_classifier": _FLAGS,
    "predict_proba": _FLAGS,
    "xgboost_allow_unknown_field": _FLAGS,
    # How FIL lays trees out and walks them. What they answer does not depend on it.
    "use_experimental_optimizations": (),
    "storage_type": (),
    "algo": (),
    "blocks_per_sm": (),
    "threads_per_tree": (),
    "transfer_threshold": (),
    "chunk_size": (),
    "layout": (),
    "cuda_stream_count": (),
}
_KNOWN = frozenset({"nthread", "num_threads", "threshold"})
