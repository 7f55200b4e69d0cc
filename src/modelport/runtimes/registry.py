"""Which runtime executes what: by backend, by platform, by what the model file is.

Third parties add theirs by the entry point group ``modelport.runtimes``: the entry's name is the
backend, its value ``module:class``.
"""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from msgspec import Struct, field

from modelport.errors import LoadFailed
from modelport.runtimes.base import Runtime
from modelport.runtimes.model_code import importing
from modelport.runtimes.pickles import PICKLE_SUFFIXES
from modelport.runtimes.python_files import PythonModel, models_in_file, typed_functions
from modelport.specs import ModelConfig

__all__ = [
    "RUNTIMES",
    "PythonModel",
    "RuntimeRow",
    "choose_runtime",
    "find_runtime",
    "import_runtime",
    "in_worker",
    "models_in_file",
    "runtime_for_file",
    "runtime_for_files",
    "typed_functions",
]

ENTRY_POINT_GROUP = "modelport.runtimes"


class RuntimeRow(Struct, frozen=True):
    """One runtime that can be had.

    Attributes:
        name: Ours, unique.
        target: ``module:class``, imported on first use.
        backend: What ``backend`` says in a completed configuration: Triton's word where it has
            one, because clients look for it. Two rows may share it.
        aliases: Other values of ``backend`` that mean it, beside ``name`` and ``backend``.
        platforms: Values of ``platform`` that mean it.
        filenames: Model files that mean it where the configuration is silent, the first one being
            what the file is called by default.
        suffixes: Endings of single files that mean it.
        beginnings: Endings that others use too, with what only such a file has near its beginning.
        also: Endings of files that it reads as well, where the configuration names it.
        extra: The extra that brings its framework; "" where it needs none.
    """

    name: str
    target: str
    backend: str
    aliases: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    filenames: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    beginnings: Mapping[str, bytes] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    extra: str = ""


def choose_runtime(config: ModelConfig, version_directory: Path) -> tuple[RuntimeRow, str]:
    """Decide what executes a version of a model.

    The configuration's ``backend`` or ``platform`` decides; where it is silent, the name of the
    model file does. A ``.py`` file is asked itself, without being run: the class
    ``TritonPythonModel`` makes it Triton's kind, ``@modelport.model`` ours.

    Returns:
        The row, and the name of the model file in the directory.

    Raises:
        LoadFailed: If nothing decides, or what decides is not to be had.
    """
    row = _fil_row(config) or find_runtime(config.backend, config.platform)
    filename = config.default_model_filename
    if row is None and filename:
        row = runtime_for_file(Path(filename))
    if row is None:
        found = runtime_for_files(_names(version_directory))
        if found is None:
            raise LoadFailed(_undecided(config, version_directory))
        row, filename = found
    if not filename:
        filename = _usual_filename(row, version_directory)
    if row.backend == "python":
        row = _python_row(row, version_directory / filename)
    return row, filename


def find_runtime(backend: str, platform: str = "") -> RuntimeRow | None:
    """The row for what a configuration says, or ``None`` where it says nothing.

    ``python`` gives the row for Triton's kind of ``model.py``; :func:`choose_runtime` looks into
    the file.

    Raises:
        LoadFailed: If it names a backend that nobody provides.
    """
    if not backend and not platform:
        return None
    for row in RUNTIMES:
        if backend in (row.name, row.backend, *row.aliases):
            return row
        if not backend and platform in row.platforms:
            return row
    row_by_entry_point = _entry_point(backend or platform)
    if row_by_entry_point is not None:
        return row_by_entry_point
    raise LoadFailed(_unknown(backend, platform))


def runtime_for_files(names: Iterable[str]) -> tuple[RuntimeRow, str] | None:
    """The row and the file name that a version directory's content suggests.

    Usual names come first; a file by any other name counts if it is the only one of its kind.
    """
    present = sorted(set(names))
    for row in RUNTIMES:
        for filename in row.filenames:
            if filename in present:
                return row, filename
    for row in RUNTIMES:
        fitting = [name for name in present if name.endswith(row.suffixes)] if row.suffixes else []
        if len(fitting) == 1 and row.backend != "python":
            return row, fitting[0]
    return None


def runtime_for_file(path: Path) -> RuntimeRow:
    """The row for a single model file, by its ending; a ``.py`` file that exists is looked into.

    Raises:
        LoadFailed: If no runtime reads such files; the text says what could be done.
    """
    for row in RUNTIMES:
        if row.suffixes and path.name.endswith(row.suffixes):
            return _python_row(row, path) if row.backend == "python" else row
    for row in RUNTIMES:
        if _begins_like(path, row.beginnings):
            return row
    suffix = path.suffix.lower()
    if suffix in _LATER_SUFFIXES:
        backend = _LATER_SUFFIXES[suffix]
        raise LoadFailed(f"'{path.name}' is a model file of {backend}; {_LATER[backend]}")
    known = ", ".join(
        dict.fromkeys(
            suffix for row in RUNTIMES for suffix in (*row.suffixes, *sorted(row.beginnings))
        )
    )
    raise LoadFailed(f"'{path.name}' is no model file that this server can read; it reads {known}")


def import_runtime(row: RuntimeRow) -> type[Runtime]:
    """Import a runtime's class, and with it its framework.

    Raises:
        LoadFailed: If a module is missing; the text says which command installs it.
    """
    module_name, _, class_name = row.target.partition(":")
    try:
        with importing:
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if not row.extra or missing == "modelport" or missing.startswith("modelport."):
            raise LoadFailed(
                f"backend '{row.backend}' could not be imported: no module '{missing}'"
            ) from exc
        raise LoadFailed(
            f"backend '{row.backend}' needs the Python module '{missing}', which is not "
            f"installed; install it with: pip install 'modelport[{row.extra}]'"
        ) from exc
    except ImportError as exc:
        raise LoadFailed(
            f"backend '{row.backend}' could not be imported ({exc.msg}); reinstall it with: "
            f"pip install --force-reinstall 'modelport[{row.extra or 'all'}]'"
        ) from exc
    return cast(type[Runtime], getattr(module, class_name))


def in_worker(runtime: type[Runtime]) -> type[Runtime]:
    """Give the class whose instances run this one, each in a process of its own."""
    from modelport.runtimes.worker import worker_runtime

    return cast(type[Runtime], worker_runtime(runtime))


def _usual_filename(row: RuntimeRow, directory: Path) -> str:
    """What the file is called by default, or the only file that can be meant."""
    names = _names(directory)
    present = [name for name in row.filenames if name in names]
    if present:
        return present[0]
    suffixes = (*row.suffixes, *row.beginnings, *row.also)
    fitting = [name for name in names if suffixes and name.endswith(suffixes)]
    if len(fitting) == 1:
        return fitting[0]
    return row.filenames[0] if row.filenames else ""


def _begins_like(path: Path, beginnings: Mapping[str, bytes]) -> bool:
    beginning = beginnings.get(path.suffix.lower())
    if beginning is None or not path.is_file():
        return False
    with path.open("rb") as file:
        return beginning in file.read(_BEGINNING_BYTES)


def _fil_row(config: ModelConfig) -> RuntimeRow | None:
    """The row that reads what a configuration for Triton's backend for forests is about."""
    if config.backend != "fil":
        return None
    model_type = config.parameter("model_type", "xgboost")
    name = _RUNTIME_BY_MODEL_TYPE.get(model_type)
    if name is None:
        known = ", ".join(_RUNTIME_BY_MODEL_TYPE)
        raise LoadFailed(
            f"parameter 'model_type' is '{model_type}'; forests are read from {known}. Save the "
            "model from its own library, or export it to ONNX"
        )
    return next(row for row in RUNTIMES if row.name == name)


def _python_row(row: RuntimeRow, path: Path) -> RuntimeRow:
    if not path.is_file():
        return row
    kinds = {model.runtime for model in models_in_file(path)}
    # A file with neither may have been named with one of its functions: whoever loads it knows.
    # A file with both is Triton's: its author serves it with Triton, too.
    name = "triton_python" if "triton_python" in kinds else "python"
    return next(row for row in RUNTIMES if row.name == name)


def _names(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except OSError:
        return []


def _entry_point(backend: str) -> RuntimeRow | None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINT_GROUP, name=backend):
        return RuntimeRow(backend, entry.value, backend)
    return None


def _undecided(config: ModelConfig, directory: Path) -> str:
    names = sorted(_names(directory))
    for name in names:
        backend = _LATER_SUFFIXES.get(Path(name).suffix.lower())
        if backend:
            return f"'{name}' is a model file of {backend}; {_LATER[backend]}"
    usual = ", ".join(dict.fromkeys(name for row in RUNTIMES for name in row.filenames))
    found = ", ".join(names[:5]) or "nothing"
    return (
        f"cannot tell what executes model '{config.name}' version {directory.name}: its "
        f"configuration gives no backend, and its directory has none of {usual} (found: {found})"
    )


def _unknown(backend: str, platform: str) -> str:
    named = f"backend '{backend}'" if backend else f"platform '{platform}'"
    later = _LATER.get(backend or _PLATFORMS_OF_OTHERS.get(platform, ""))
    if later:
        return f"{named} is known, but not offered: {later}"
    known = ", ".join(dict.fromkeys(row.backend for row in RUNTIMES))
    return (
        f"{named} is not one that this server has; it has {known}, and whatever installed "
        f"packages add under the entry point group '{ENTRY_POINT_GROUP}'"
    )


_LATER = {
    "vllm": "language models come in a later release",
    "tensorrt": "there is no plan for it; export the model to ONNX instead",
    "tensorrtllm": "there is no plan for it; language models come in a later release",
    "tensorflow": "there is no plan for it; convert the model with tf2onnx to ONNX instead",
    "dali": "there is no plan for it; write the steps in a model.py with backend 'python'",
}
"""Backends that people will name, and what we can say about them."""


_PLATFORMS_OF_OTHERS = {
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
}

_LATER_SUFFIXES = {
    ".plan": "tensorrt",
    ".graphdef": "tensorflow",
    ".savedmodel": "tensorflow",
}

_RUNTIME_BY_MODEL_TYPE = {
    "xgboost": "xgboost",
    "xgboost_json": "xgboost",
    "xgboost_ubj": "xgboost",
    "lightgbm": "lightgbm",
}
"""What Triton's backend for forests calls the files that it reads."""

_BEGINNING_BYTES = 256

RUNTIMES = (
    RuntimeRow(
        "onnx",
        "modelport.runtimes.onnx:OnnxRuntime",
        backend="onnxruntime",
        platforms=("onnxruntime_onnx",),
        filenames=("model.onnx",),
        suffixes=(".onnx",),
        extra="onnx",
    ),
    RuntimeRow(
        "sklearn",
        "modelport.runtimes.sklearn:SklearnRuntime",
        backend="sklearn",
        aliases=("scikit-learn", "skops"),
        filenames=("model.skops", *(f"model{suffix}" for suffix in PICKLE_SUFFIXES)),
        suffixes=(".skops", *PICKLE_SUFFIXES),
        extra="sklearn",
    ),
    RuntimeRow(
        "xgboost",
        "modelport.runtimes.xgboost:XgboostRuntime",
        backend="xgboost",
        aliases=("fil",),
        filenames=(
            "model.ubj",
            "model.xgb",
            "model.bst",
            "model.json",
            "xgboost.ubj",
            "xgboost.json",
            "xgboost.model",
        ),
        suffixes=(".ubj", ".xgb", ".bst"),
        beginnings={".json": b'"learner"', ".model": b"learner"},
        extra="xgboost",
    ),
    RuntimeRow(
        "lightgbm",
        "modelport.runtimes.lightgbm:LightgbmRuntime",
        backend="lightgbm",
        filenames=("model.txt", "model.lgb"),
        suffixes=(".lgb", ".lightgbm"),
        beginnings={".txt": b"tree\nversion="},
        extra="lightgbm",
    ),
    RuntimeRow(
        "openvino",
        "modelport.runtimes.openvino:OpenvinoRuntime",
        backend="openvino",
        filenames=("model.xml",),
        suffixes=(".xml",),
        also=(".onnx", ".tflite"),
        extra="openvino",
    ),
    RuntimeRow(
        "torch",
        "modelport.runtimes.torch:TorchRuntime",
        backend="pytorch",
        aliases=("libtorch",),
        platforms=("pytorch_libtorch",),
        filenames=("model.pt", "model.pt2"),
        suffixes=(".pt", ".pt2", ".pth"),
        extra="torch",
    ),
    RuntimeRow(
        "triton_python",
        "modelport.runtimes.triton_python:TritonPythonRuntime",
        backend="python",
        filenames=("model.py",),
        suffixes=(".py",),
    ),
    RuntimeRow(
        "python",
        "modelport.runtimes.python:PythonRuntime",
        backend="python",
        aliases=("modelport",),
        filenames=("model.py",),
        suffixes=(".py",),
    ),
)
