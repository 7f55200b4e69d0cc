"""Reads scikit-learn models from skops files; from pickles only where the operator allows it.

Source: skops documentation, "Secure persistence with skops".
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import joblib
import skops.io

from modelport.errors import LoadFailed
from modelport.runtimes.pickles import PICKLE_SUFFIXES, pickle_refusal

__all__ = ["first_line", "read_model"]


def read_model(file: Path, *, allow_pickle: bool) -> Any:
    """Read a fitted model.

    Args:
        file: In skops's format, or a pickle by its ending.
        allow_pickle: Whether the operator trusts it to run code.

    Raises:
        LoadFailed: If it is something else, or holds types that nobody can vouch for.
    """
    is_pickle = file.suffix.lower() in PICKLE_SUFFIXES
    if is_pickle and not allow_pickle:
        raise LoadFailed(pickle_refusal(file.name))
    if not file.is_file():
        raise LoadFailed(f"there is no '{file.name}' in version directory {file.parent.name}")
    model = _unpickled(file) if is_pickle else _from_skops(file, allow_pickle=allow_pickle)
    _forget_feature_names(model)
    return model


def _unpickled(file: Path) -> Any:
    """Read a pickle, compressed or not. Runs whatever code it holds."""
    try:
        return joblib.load(file)
    except Exception as exc:
        text = first_line(exc).replace(f"{file.parent}/", "")
        raise LoadFailed(
            f"'{file.name}' cannot be read as a pickle ({type(exc).__name__}: {text}); it needs "
            "the packages, in about the versions, that it was written with"
        ) from exc


def _from_skops(file: Path, *, allow_pickle: bool) -> Any:
    try:
        untrusted = skops.io.get_untrusted_types(file=file)
        if not allow_pickle:
            _check_trust(file, set(untrusted) - _HARMLESS)
        return skops.io.load(file, trusted=untrusted)
    except LoadFailed:
        raise
    except Exception as exc:
        text = first_line(exc).replace(f"{file.parent}/", "")
        raise LoadFailed(
            f"'{file.name}' cannot be read as a skops file ({type(exc).__name__}: {text}); save "
            "the model with skops.io.dump"
        ) from exc


def _check_trust(file: Path, untrusted: Collection[str]) -> None:
    if untrusted:
        raise LoadFailed(
            f"'{file.name}' holds types that skops does not trust: {', '.join(sorted(untrusted))}. "
            "A forged file could use them to run code or to crash the server. Export the model "
            "to ONNX with skl2onnx, which holds only numbers; for files that nobody but you could "
            "have written there is --allow-pickle-models"
        )


def _forget_feature_names(model: Any) -> None:
    """Let a model that was fitted on a data frame take arrays without warning at every call.

    The order of the columns is what counts, and a request's arrays have it.
    """
    for estimator in (model, *(step for _, step in getattr(model, "steps", ()))):
        getattr(estimator, "__dict__", {}).pop("feature_names_in_", None)


def first_line(exc: Exception) -> str:
    """What is worth telling of an exception; scikit-learn explains at length."""
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else "no reason given"


_HARMLESS = frozenset(
    (
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        *(
            f"sklearn.gaussian_process.kernels.{kernel}"
            for kernel in (
                "CompoundKernel",
                "ConstantKernel",
                "DotProduct",
                "ExpSineSquared",
                "Exponentiation",
                "Matern",
                "Product",
                "RBF",
                "RationalQuadratic",
                "Sum",
                "WhiteKernel",
            )
        ),
    )
)
"""Types that skops 0.16 leaves to us, and that are plain Python without code to run on reading.

Trees are not among them, and cannot be: compiled code follows the indices in them unchecked, and
reads an array as long as they say while it builds them, so that checking afterwards is too late."""
