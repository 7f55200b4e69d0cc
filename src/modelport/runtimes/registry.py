"""Which runtime executes what: by backend, by platform, by the name of the model file.

Third parties add theirs by the entry point group ``modelport.runtimes``: the entry's name is the
backend, its value the class.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from modelport.errors import LoadFailed
from modelport.runtimes.base import Runtime

__all__ = ["RUNTIMES", "RuntimeRow", "find_runtime", "runtime_for_files"]


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """One runtime that can be had.

    Attributes:
        backend: As ``backend`` in a model configuration.
        target: ``module:class``, imported on first use.
        platforms: Values of ``platform`` that mean it.
        filenames: Model files that mean it where the configuration is silent, the first one being
            what the file is called by default.
        suffixes: Endings of single files that mean it.
        needs: Module that it cannot do without, and the extra that brings it; "" for none.
    """

    backend: str
    target: str
    platforms: tuple[str, ...] = ()
    filenames: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    needs: str = ""
    extra: str = ""


def find_runtime(backend: str, platform: str = "") -> RuntimeRow | None:
    """The row for what a configuration says, or ``None`` where it says nothing.

    Raises:
        LoadFailed: If it names a backend that nobody provides.
    """
    if not backend and not platform:
        return None
    for row in RUNTIMES:
        if backend in (row.backend, *_ALIASES.get(row.backend, ())):
            return row
        if not backend and platform in row.platforms:
            return row
    row_by_entry_point = _entry_point(backend)
    if row_by_entry_point is not None:
        return row_by_entry_point
    known = ", ".join(sorted(row.backend for row in RUNTIMES))
    named = f"backend '{backend}'" if backend else f"platform '{platform}'"
    raise LoadFailed(f"{named} is not one that this server has; it has {known}")


def runtime_for_files(names: Iterable[str]) -> tuple[RuntimeRow, str] | None:
    """The row and the file name that a version directory's content suggests."""
    present = set(names)
    for row in RUNTIMES:
        for filename in row.filenames:
            if filename in present:
                return row, filename
    return None


def import_runtime(row: RuntimeRow) -> type[Runtime]:
    """Import a runtime's class, and with it its framework.

    Raises:
        LoadFailed: If a module is missing; the text says which command installs it.
    """
    module_name, _, class_name = row.target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if not row.extra:
            raise
        raise LoadFailed(
            f"backend '{row.backend}' needs the Python module '{exc.name}', which is not "
            f"installed; install it with: pip install 'modelport[{row.extra}]'"
        ) from exc
    return cast(type[Runtime], getattr(module, class_name))


def _entry_point(backend: str) -> RuntimeRow | None:
    from importlib.metadata import entry_points

    for entry in entry_points(group="modelport.runtimes", name=backend):
        return RuntimeRow(backend, entry.value)
    return None


_ALIASES = {"onnx": ("onnxruntime",), "triton_python": ("python",)}

RUNTIMES = (
    RuntimeRow(
        "onnx",
        "modelport.runtimes.onnx:OnnxRuntime",
        platforms=("onnxruntime_onnx",),
        filenames=("model.onnx",),
        suffixes=(".onnx",),
        extra="onnx",
    ),
    RuntimeRow(
        "sklearn",
        "modelport.runtimes.sklearn:SklearnRuntime",
        filenames=("model.skops",),
        suffixes=(".skops",),
        extra="sklearn",
    ),
    RuntimeRow(
        "triton_python",
        "modelport.runtimes.triton_python:TritonPythonRuntime",
        filenames=("model.py",),
    ),
    RuntimeRow(
        "python_object",
        "modelport.runtimes.python:PythonRuntime",
        suffixes=(".py",),
    ),
)
