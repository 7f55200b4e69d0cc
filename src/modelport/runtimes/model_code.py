"""Imports the Python files of models, each load under a name of its own.

What lies beside a model file can be imported by it, from the version's directory and from the
model's, as Triton does it in a process of each instance's own. In one process a plain path would
make two models share a ``utils.py``, and a reload find the old one. So each load gets a package
with a fresh name, whose path these two directories are, and the modules in it get an ``__import__``
that looks there first. That reaches imports inside functions as well, and touches neither
``sys.path`` nor anybody else's modules.

Names of the standard library go before files beside the model, and these before installed
packages; a mere directory (weights, say) never hides an installed package.

What fails in such a file while a model comes up is told with its line in it.
"""

import builtins
import importlib
import importlib.util
import itertools
import re
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from modelport.errors import LoadFailed
from modelport.runtimes.base import Host, ModelSource, as_model_failure

__all__ = ["Home", "import_model", "importing", "load_failure", "nearest_home"]

_PREFIX = "modelport_model_"
_HOME = "__modelport_home__"
_NO_STAND_INS: Mapping[str, str] = {}


class Home:
    """One load of a model's files.

    Attributes:
        directory: Of the version.
        model_name: For the log.
        host: ``None`` while the configuration is being completed.
        stand_ins: Modules of ours by the names under which the model's code imports them.
    """

    def __init__(
        self,
        directory: Path,
        *,
        model_name: str,
        host: Host | None,
        stand_ins: Mapping[str, str] = _NO_STAND_INS,
    ) -> None:
        self.directory = directory
        self.stand_ins = stand_ins
        self.model_name = model_name
        self.host = host
        self.package = ""
        self._found: dict[str, str] = {}
        self.builtins: dict[str, Any] = {**vars(builtins), "__import__": self._import}

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Stand in for ``__import__`` in the modules of this load."""
        top = name.partition(".")[0]
        if level == 0 and name in self.stand_ins:
            return importlib.import_module(self.stand_ins[name])
        if level == 0 and top not in sys.stdlib_module_names and self._has(top):
            return self._import_beside(name, top, fromlist)
        try:
            if level or _is_imported(name, fromlist):
                return __import__(name, globals, locals, fromlist or (), level)
            with importing:
                return __import__(name, globals, locals, fromlist or (), level)
        except ModuleNotFoundError as exc:
            if level or exc.name != top or not self._has(top, as_directory=True):
                raise
        return self._import_beside(name, top, fromlist)

    def _import_beside(self, name: str, top: str, fromlist: Sequence[str] | None) -> ModuleType:
        module = __import__(f"{self.package}.{name}", None, None, fromlist or ("",), 0)
        return module if fromlist else sys.modules[f"{self.package}.{top}"]

    def _has(self, top: str, *, as_directory: bool = False) -> bool:
        """Whether it lies beside the model: as a module, or at least as a directory.

        Looked up once: models import inside ``execute`` too, and a load is a snapshot anyway.
        """
        found = self._found.get(top)
        if found is None:
            spec = importlib.util.find_spec(f"{self.package}.{top}")
            found = "" if spec is None else "module" if spec.origin else "directory"
            self._found[top] = found
        return found == "module" or (as_directory and found == "directory")

    def forget(self) -> None:
        """Drop the modules; those that still run keep what they have."""
        # A copy at once: other models import while this one goes.
        for name in list(sys.modules):
            if name.startswith(f"{self.package}."):
                del sys.modules[name]
        sys.modules.pop(self.package, None)


def import_model(home: Home, file: Path, model_directory: Path) -> ModuleType:
    """Run a model file as a module of a fresh package.

    Raises:
        Exception: Whatever the file raises; its package is then forgotten.
    """
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    importlib.invalidate_caches()
    name = re.sub(r"\W", "_", home.model_name)
    home.package = f"{_PREFIX}{name}_{next(_numbers)}"
    package = ModuleType(home.package)
    package.__path__ = [str(home.directory), str(model_directory)]
    vars(package)[_HOME] = home
    sys.modules[home.package] = package
    full = f"{home.package}.{file.stem}"
    loader = _Loader(full, str(file), home)
    spec = importlib.util.spec_from_file_location(full, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        loader.exec_module(module)
    except BaseException:
        home.forget()
        raise
    # As the import system leaves it: who walks from the package to the module finds it.
    vars(package)[file.stem] = module
    return module


def _is_imported(name: str, fromlist: Sequence[str] | None) -> bool:
    """Whether nothing is left to be done but to hand the module out."""
    module = sys.modules.get(name)
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        return False
    return all(hasattr(module, each) for each in fromlist or ())


def nearest_home(frame: FrameType | None) -> Home | None:
    """The load whose code is running, on whatever thread: the innermost one on the stack."""
    while frame is not None:
        home = frame.f_globals.get(_HOME)
        if home is not None:
            assert isinstance(home, Home)
            return home
        frame = frame.f_back
    return None


def load_failure(
    source: ModelSource, what: str, exc: BaseException, host: Host | None
) -> LoadFailed:
    """Tell the log where in the model's code it happened, and the operator what.

    Without a host, which nothing has while a configuration is being completed, the last line of the
    model's own that had a part in it is all that is told of the place.
    """
    if host is not None:
        text = "".join(traceback.format_exception(exc)).rstrip()
        host.log("error", f"{what} failed: {text}", model=source.name)
    failure = as_model_failure(exc).text if isinstance(exc, Exception) else f"SystemExit: {exc}"
    for directory in (source.version_directory, source.directory):
        failure = failure.replace(f"{directory}/", "")
    if isinstance(exc, ModuleNotFoundError):
        failure += "; install its package where the server runs, or put it beside the model file"
    return LoadFailed(
        f"model '{source.name}' version {source.version}: {what} failed{_place(exc)}: {failure}"
    )


def _place(exc: BaseException) -> str:
    place = ""
    for frame, line in traceback.walk_tb(exc.__traceback__):
        if _HOME in frame.f_globals:
            place = f" in '{Path(frame.f_code.co_filename).name}' line {line}"
    return place


class _Loader(SourceFileLoader):
    """Reads a source file as it is now, and gives it the ``__import__`` of its load.

    No compiled files are read or written: they are told apart by seconds and size, which is too
    coarse for a file that is edited and reloaded, and a model repository may be read-only.
    """

    def __init__(self, fullname: str, path: str, home: Home) -> None:
        super().__init__(fullname, path)
        self._home = home

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError("compiled files are not used for models")

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[_HOME] = self._home
        vars(module)["__builtins__"] = self._home.builtins
        super().exec_module(module)


class _Finder:
    """Finds the modules inside our packages, and nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX) or path is None:
            return None
        package = sys.modules.get(fullname.partition(".")[0])
        spec = PathFinder.find_spec(fullname, path, target)
        if package is not None and spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(fullname, spec.loader.path, vars(package)[_HOME])
        return spec


# Modules of one package that import each other, begun by two threads at once, wait for each other;
# Python sees that, and hands out one that is not finished: "partially initialized module 'torch'".
# Seen with PyTorch 2.13 and several models that import it, which are loaded side by side.
importing = threading.RLock()
"""Held while installed packages are imported."""
_FINDER = _Finder()
_numbers = itertools.count(1)
