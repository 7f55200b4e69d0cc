"""scikit-learn models in skops's format, which runs no code while it is read, or as pickles.

Pickles run code while they are read, and are refused unless the operator allows them. Whatever they
hold is taken if it has the methods of an estimator (``XGBClassifier``, ``LGBMRegressor``, ...).

A model file tells nearly everything: how many features, which classes, what it can do. What it
does not tell (how wide an output is) is found by asking the model once, with a row of zeros or an
empty text.

Unless the configuration says otherwise a model takes one input, ``features`` or ``text``, and has
the outputs of its kind, each from one method:

============================================  =======================================
classifier                                    ``label``, ``probabilities`` if it has any
clusterer, outlier detector                   ``label``
regressor                                     ``prediction``
transformer                                   ``output``
============================================  =======================================
"""

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector

from modelport.dtypes import BOOL, BYTES, DATATYPE_BY_CONFIG_NAME, FP32, INT64, DataType
from modelport.errors import InvalidRequest, LoadFailed, ModelFailed, ModelportError
from modelport.runtimes.arrays import Arrays, TensorRuntime
from modelport.runtimes.base import LoadContext, ModelSource
from modelport.runtimes.sklearn_files import first_line, read_model
from modelport.specs import DynamicBatching, ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Array

__all__ = ["SklearnRuntime"]

MAX_BATCH_SIZE = 1024
"""Where the configuration gives none. Estimators are vectorised, tables are long, rows are small:
1024 rows of 100 features are 0.4 MB."""


class SklearnRuntime(TensorRuntime):
    """One estimator or pipeline."""

    default_filename: ClassVar[str] = "model.skops"

    def __init__(self) -> None:
        self._model: Any = None
        self._inputs: tuple[ModelInput, ...] = ()
        self._widens = True
        self._method_by_output: dict[str, str] = {}

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Ask the model for its features, classes and methods.

        The first dimension of everything is the batch, unless the configuration gives an input
        two dimensions.
        """
        model = _read(source, config)
        inputs = _inputs(model, config)
        outputs = _outputs(model, config, inputs)
        is_batching = all(len(entry.dims) == 1 for entry in inputs)
        if not is_batching:
            outputs = [_with_rows(output) for output in outputs]
        is_new = is_batching and config.max_batch_size == 0
        has_scheduler = config.dynamic_batching is not None or config.sequence_batching is not None
        return ModelConfig(
            max_batch_size=MAX_BATCH_SIZE if is_new else config.max_batch_size,
            input=tuple(inputs),
            output=tuple(outputs),
            dynamic_batching=DynamicBatching() if is_new and not has_scheduler else None,
        )

    def load(self, context: LoadContext) -> None:
        """Read the model, and find the method behind each output."""
        config = context.config
        model = _read(context.source, config)
        self._method_by_output = {
            output.name: _method(model, output.name, config) for output in config.output
        }
        self._inputs = config.input
        self._widens = _takes_doubles(model, self._method_by_output.values(), config.input)
        self.prepare(config)
        self._model = model

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Call the method of each output that is wanted."""
        try:
            rows = _rows(self._inputs, inputs, self._widens)
            return {
                name: _called(self._model, self._method_by_output[name], rows) for name in outputs
            }
        except Exception as exc:
            raise _translated(exc) from exc

    def is_ready(self) -> bool:
        """Whether the model is there."""
        return self._model is not None

    def unload(self) -> None:
        """Let the model go."""
        self._model = None


def _read(source: ModelSource, config: ModelConfig) -> Any:
    file = source.file(config, SklearnRuntime.default_filename)
    return read_model(file, allow_pickle=source.allow_pickle)


def _inputs(model: Any, config: ModelConfig) -> list[ModelInput]:
    """The configured inputs with what they leave out; or one that takes all features."""
    features = getattr(model, "n_features_in_", None)
    default = "TYPE_FP32" if features is not None else "TYPE_STRING"
    if not config.input:
        name = "text" if features is None else "features"
        return [ModelInput(name=name, data_type=default, dims=(features or 1,))]
    several = len(config.input) > 1
    inputs = []
    for entry in config.input:
        data_type = default if entry.data_type == "TYPE_INVALID" else entry.data_type
        dims = entry.dims or ((1,) if several else (features or 1,))
        inputs.append(ModelInput(name=entry.name, data_type=data_type, dims=dims))
    width = sum(entry.dims[-1] for entry in inputs)
    if features is not None and width != features and all(e.dims[-1] > 0 for e in inputs):
        raise LoadFailed(
            f"the inputs have {width} features together, and the model was fitted on {features}"
        )
    return inputs


def _outputs(model: Any, config: ModelConfig, inputs: Sequence[ModelInput]) -> list[ModelOutput]:
    """The configured outputs with what they leave out; or those of the model's kind."""
    given = config.output or tuple(ModelOutput(name=name) for name in _usual_outputs(model))
    methods = {output.name: _method(model, output.name, config) for output in given}
    if all(output.dims and output.data_type != "TYPE_INVALID" for output in given):
        return list(given)
    sample = _sample(inputs, _takes_doubles(model, methods.values(), inputs))
    outputs = []
    for output in given:
        try:
            array = _called(model, methods[output.name], sample)
        except Exception as exc:
            raise LoadFailed(
                f"the model could not be tried with {_described(inputs)}, to see what output "
                f"'{output.name}' is like ({type(exc).__name__}: {first_line(exc)}); list input "
                "and output in a config.pbtxt"
            ) from exc
        outputs.append(
            ModelOutput(
                name=output.name,
                data_type=_datatype(array).config_name
                if output.data_type == "TYPE_INVALID"
                else output.data_type,
                dims=output.dims or array.shape[1:],
            )
        )
    return outputs


def _usual_outputs(model: Any) -> list[str]:
    if not hasattr(model, "predict"):
        if hasattr(model, "transform"):
            return ["output"]
        raise LoadFailed(
            f"a {type(model).__name__} can neither predict nor transform, so there is nothing to "
            "ask it"
        )
    if is_classifier(model) and hasattr(model, "predict_proba"):
        return ["label", "probabilities"]
    if is_classifier(model) or is_clusterer(model) or is_outlier_detector(model):
        return ["label"]
    return ["prediction"]


def _method(model: Any, output: str, config: ModelConfig) -> str:
    """The method that an output comes from."""
    method = config.parameter(f"method.{output}") or _METHOD_BY_OUTPUT.get(output, "")
    if method not in _METHODS:
        usual = ", ".join(f"{name} ({of})" for name, of in _METHOD_BY_OUTPUT.items())
        raise LoadFailed(
            f"output '{output}' comes from no method; use a name that implies one: {usual}; or set "
            f"the parameter 'method.{output}' to one of {', '.join(_METHODS)}"
        )
    if not hasattr(model, method):
        raise LoadFailed(f"output '{output}' needs {method}, which this model does not have")
    return method


def _takes_doubles(model: Any, methods: Collection[str], inputs: Sequence[ModelInput]) -> bool:
    """Whether floats are given in double precision, in which most models were fitted.

    Some (KMeans in 1.9) take only the precision that they were fitted in, and do not say which:
    so it is tried.
    """
    for widens in (True, False):
        sample = _sample(inputs, widens)
        try:
            for method in methods:
                getattr(model, method)(sample)
        except Exception:
            continue
        return widens
    # A row of zeros is not for every model. What it says to real rows is told then.
    return True


def _sample(inputs: Sequence[ModelInput], widens: bool) -> Any:
    arrays = {}
    for entry in inputs:
        width = entry.dims[-1] if entry.dims[-1] > 0 else 1
        if entry.datatype is BYTES:
            arrays[entry.name] = np.full((1, width), b"", object)
        else:
            arrays[entry.name] = np.zeros((1, width), entry.datatype.numpy)
    return _rows(inputs, arrays, widens)


def _rows(inputs: Sequence[ModelInput], arrays: Arrays, widens: bool) -> Any:
    """What an estimator takes: a table of numbers or texts, or a list of texts."""
    tables = [
        _texts(entry.name, arrays[entry.name])
        if entry.data_type == "TYPE_STRING"
        else arrays[entry.name]
        for entry in inputs
    ]
    table = tables[0] if len(tables) == 1 else np.concatenate(tables, axis=1)
    if widens and table.dtype.kind == "f":
        return table.astype(np.float64, copy=False)
    # Vectorisers take texts, not rows of them.
    is_text = table.dtype == object and table.shape[1] == 1
    return list(table[:, 0]) if is_text else table


def _texts(name: str, array: Array) -> Array:
    texts = np.empty(array.shape, object)
    try:
        texts.reshape(-1)[:] = [element.decode() for element in array.flat]
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"input '{name}' holds bytes that are no UTF-8") from exc
    return texts


def _called(model: Any, method: str, rows: Any) -> Array:
    result = getattr(model, method)(rows)
    if hasattr(result, "toarray"):
        result = result.toarray()
    if isinstance(result, list):
        raise ModelFailed(f"{method} gives one array per target, which no output can hold")
    array: Array = np.asarray(result)
    return array.reshape(-1, 1) if array.ndim == 1 else array


def _datatype(array: Array) -> DataType:
    """The datatype in which an output is told: single precision, wide integers, text."""
    match array.dtype.kind:
        case "b":
            return BOOL
        case "i" | "u":
            return INT64
        case "f":
            return FP32
        case _:
            return BYTES


def _with_rows(output: ModelOutput) -> ModelOutput:
    dims = output.dims if len(output.dims) > 1 else (-1, *output.dims)
    return ModelOutput(name=output.name, data_type=output.data_type, dims=dims)


def _described(inputs: Sequence[ModelInput]) -> str:
    return " and ".join(
        "empty text"
        if entry.datatype is BYTES
        else f"{entry.dims[-1]} zeros as {DATATYPE_BY_CONFIG_NAME[entry.data_type]}"
        for entry in inputs
    )


def _translated(exc: Exception) -> ModelportError:
    """Values that a model does not accept are the caller's; scikit-learn says so by ValueError."""
    if isinstance(exc, ModelportError):
        return exc
    if isinstance(exc, ValueError):
        return InvalidRequest(first_line(exc))
    return ModelFailed(f"{type(exc).__name__}: {first_line(exc)}")


_METHOD_BY_OUTPUT = {
    "label": "predict",
    "probabilities": "predict_proba",
    "prediction": "predict",
    "decision": "decision_function",
    "output": "transform",
}
_METHODS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "transform",
    "score_samples",
    "apply",
)
"""What an operator may name: methods that take rows and answer rows; nothing else of a model."""
