"""What a TARGET of ``modelport serve`` is, and where the models in it lie.

Five kinds: a repository of model directories, one model directory, one model file, Python code,
and the list of models that OpenVINO Model Server reads. To the rest of the repository they all
look alike: a source lists names, and places a name.
"""

import contextlib
import errno
import importlib.util
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct, field

from modelport.errors import InvalidRequest, LoadFailed
from modelport.repository.layout import (
    check_name,
    is_model_directory,
    model_names,
    read_text,
    sign,
    why_unreadable,
)
from modelport.runtimes.registry import RUNTIMES, models_in_file, runtime_for_file, typed_functions
from modelport.specs import ModelConfig
from modelport.wire.model_config import decode_ovms, is_ovms

__all__ = [
    "DirectorySource",
    "FileSource",
    "OvmsSource",
    "Place",
    "RepositorySource",
    "Source",
    "has_model",
    "list_names",
    "look_at",
    "recognise",
]


class Place(Struct, frozen=True):
    """Where one model lies.

    Attributes:
        directory: Of the model; for a single file the directory that it lies in.
        config: What the kind of source tells of the model, before any configuration is read.
        file: The only file that belongs to the model; ``None`` where it has a directory.
        attribute: The object in ``file`` that is the model; "" where the file is.
    """

    directory: Path
    config: ModelConfig = field(default_factory=ModelConfig)
    file: Path | None = None
    attribute: str = ""


class Source(Protocol):
    """Something that models come from. Its methods read the disk, so not on the event loop."""

    def names(self, known: Container[str] = ()) -> list[str]:
        """List the models that are there now; ``known`` ones need not be looked into again."""
        ...

    def find(self, name: str) -> Place | None:
        """Place a model; ``None`` if it is not there (any more). ``name`` has been checked."""
        ...

    def fault(self, name: str) -> str:
        """Say why nobody could read a model that is listed; "" for nothing. Quick."""
        ...

    def stamps(self) -> dict[str, object]:
        """Give each model that is there something that is another as soon as a file of it is.

        Raises:
            OSError: If nobody can tell what is there, as when a disk is away.
        """
        ...


def _stamps(source: Source) -> dict[str, object]:
    stamps: dict[str, object] = {}
    for name in source.names():
        place = source.find(name)
        if place is None:
            continue
        try:
            signature: object = sign(place.file or place.directory)
        except LoadFailed as exc:
            signature = exc.text
        stamps[name] = (place, signature)
    return stamps


class RepositorySource(Struct, frozen=True):
    """A directory of model directories, in Triton's layout.

    A directory without versions counts too if a model file lies right in it.
    """

    root: Path

    def names(self, known: Container[str] = ()) -> list[str]:
        """List the model directories."""
        return model_names(self.root, _MODEL_FILES, known)

    def find(self, name: str) -> Place | None:
        """Place a model directory."""
        directory = self.root / name
        is_model = directory.is_dir() and is_model_directory(directory, _MODEL_FILES)
        return Place(directory) if is_model else None

    def fault(self, name: str) -> str:
        """Say why a model directory cannot be looked into."""
        return _fault(self.root / name)

    def stamps(self) -> dict[str, object]:
        """Stamp the model directories."""
        self.root.stat()
        return _stamps(self)


class DirectorySource(Struct, frozen=True):
    """One model directory; it is the model's name."""

    name: str
    directory: Path

    def names(self, known: Container[str] = ()) -> list[str]:
        """Name the one model."""
        return [self.name]

    def find(self, name: str) -> Place | None:
        """Place the one model."""
        return Place(self.directory) if name == self.name and self.directory.is_dir() else None

    def fault(self, name: str) -> str:
        """Say why the directory cannot be looked into."""
        return _fault(self.directory) if name == self.name else ""

    def stamps(self) -> dict[str, object]:
        """Stamp the one model."""
        return _stamps(self)


class FileSource(Struct, frozen=True):
    """One file, which holds one model or, if it is Python, several.

    Attributes:
        path: Of the file.
        backend: Of its runtime.
        attribute_by_name: The models, and the object that each of them is; "" for the whole file.
    """

    path: Path
    backend: str
    attribute_by_name: dict[str, str]

    def names(self, known: Container[str] = ()) -> list[str]:
        """Name the models of the file."""
        return sorted(self.attribute_by_name)

    def find(self, name: str) -> Place | None:
        """Place a model of the file."""
        attribute = self.attribute_by_name.get(name)
        if attribute is None or not self.path.is_file():
            return None
        config = ModelConfig(backend=self.backend, default_model_filename=self.path.name)
        return Place(self.path.parent, config, self.path, attribute)

    def fault(self, name: str) -> str:
        """Say nothing: it was read already."""
        return ""

    def stamps(self) -> dict[str, object]:
        """Stamp the models of the file. Which these are does not change while it is served."""
        return _stamps(self)


class OvmsSource:
    """The models that a ``config.json`` of OpenVINO Model Server lists.

    Args:
        path: Of the file, absolute.

    Raises:
        LoadFailed: If it cannot be read. Once it could be, what was read last counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""
        self._place_by_name: dict[str, Place] = {}
        self._place_by_name = self._read()

    def __repr__(self) -> str:
        return f"<OvmsSource {self._path.name} models={len(self._place_by_name)}>"

    def names(self, known: Container[str] = ()) -> list[str]:
        """Name the models of the list."""
        return sorted(self._place_by_name)

    def find(self, name: str) -> Place | None:
        """Place a model of the list as it is now."""
        with contextlib.suppress(LoadFailed):
            self._place_by_name = self._read()
        place = self._place_by_name.get(name)
        return place if place is not None and place.directory.is_dir() else None

    def fault(self, name: str) -> str:
        """Say why the directory that the list gives cannot be looked into."""
        place = self._place_by_name.get(name)
        if place is None:
            return ""
        if not place.directory.is_dir():
            return f"its base_path in {self._path.name} is no directory that there is"
        return _fault(place.directory)

    def stamps(self) -> dict[str, object]:
        """Read the list again, and stamp its models.

        Raises:
            LoadFailed: If it cannot be read.
        """
        self._place_by_name = self._read()
        return _stamps(self)

    def _read(self) -> dict[str, Place]:
        name = self._path.name
        text = read_text(self._path, name)
        if text == self._text:
            # It is read for every model that is looked for.
            return self._place_by_name
        try:
            models = decode_ovms(text)
            for model in models:
                check_name(model.name)
        except (LoadFailed, InvalidRequest) as exc:
            raise LoadFailed(f"{name}: {exc.text}") from exc
        self._text = text
        # As OVMS has it: what is relative begins where the list lies.
        return {
            model.name: Place(self._path.parent / model.base_path, model.config) for model in models
        }


def _fault(directory: Path) -> str:
    why = why_unreadable(directory)
    return f"the model directory cannot be read: {why}" if why else ""


def list_names(sources: Sequence[Source]) -> list[str]:
    """Name the models of all of them."""
    return sorted({name for source in sources for name in source.names()})


def has_model(sources: Sequence[Source], name: str) -> bool:
    """Whether any of them has a model of this name now."""
    try:
        return any(source.find(name) is not None for source in sources)
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            return False
        raise


def look_at(sources: Sequence[Source]) -> dict[str, object]:
    """Stamp the models of all of them; see ``Source.stamps``.

    Raises:
        OSError: If nobody can tell what is there.
    """
    stamps: dict[str, list[object]] = {}
    for source in sources:
        for name, stamp in source.stamps().items():
            stamps.setdefault(name, []).append(stamp)
    return dict(stamps)


def recognise(target: str) -> Source:
    """Tell what a target is. No code of it is run, and no framework imported.

    Args:
        target: A path, ``path.py:object`` or ``module:object``.

    Raises:
        LoadFailed: If it does not exist, cannot be read, or is nothing that could be served; the
            text says what was looked for.
    """
    path = Path(target)
    try:
        if path.is_dir():
            return _recognise_directory(target, path.resolve())
        if path.is_file():
            return _recognise_file(path.resolve())
    except OSError as exc:
        reason = (exc.strerror or type(exc).__name__).lower()
        raise LoadFailed(f"'{target}' cannot be read: {reason}") from exc
    module, colon, attribute = target.rpartition(":")
    if not colon:
        module, attribute = target, ""
    file = _python_file(module)
    is_attribute = all(part.isidentifier() for part in attribute.split("."))
    if file is not None and (not colon or is_attribute):
        return _python_source(target, file, attribute)
    if colon and is_attribute:
        raise LoadFailed(f"'{target}': there is no Python file or module '{module}'")
    raise LoadFailed(
        f"'{target}' does not exist; give a model repository, a model directory, a model file, "
        "a .py file or module:object"
    )


def _recognise_directory(target: str, directory: Path) -> Source:
    why = why_unreadable(directory)
    if why:
        raise LoadFailed(f"'{target}' cannot be read: {why}")
    if is_model_directory(directory, _MODEL_FILES):
        return DirectorySource(directory.name, directory)
    # An empty directory is a repository whose models have yet to come.
    if model_names(directory, _MODEL_FILES) or not any(directory.iterdir()):
        return RepositorySource(directory)
    raise LoadFailed(
        f"'{target}' is neither a model repository nor a model: no directory in it, nor itself, "
        "has a config.pbtxt, config.json or config.yaml, a version directory such as 1/, or one "
        f"of {', '.join(sorted(_MODEL_FILES))}"
    )


def _recognise_file(path: Path) -> Source:
    if path.suffix == ".py":
        return _python_source(path.name, path, "")
    if path.suffix == ".json" and is_ovms(read_text(path, path.name)):
        return OvmsSource(path)
    return FileSource(path, runtime_for_file(path).backend, {_file_model_name(path): ""})


def _python_source(target: str, path: Path, attribute: str) -> Source:
    models = models_in_file(path)
    backend = runtime_for_file(path).backend
    if attribute:
        # An object that was not declared in the file itself may still be a model.
        own_name = attribute.rpartition(".")[2]
        names = [model.name for model in models if model.attribute == attribute] or [own_name]
        return FileSource(path, backend, dict.fromkeys(names, attribute))
    if any(model.runtime == "triton_python" for model in models):
        return FileSource(path, backend, {_file_model_name(path): ""})
    if not models:
        typed = [f"{path.name}:{name}" for name in typed_functions(path)]
        raise LoadFailed(
            f"'{target}' has no model in it; put @modelport.model above a function or class, "
            "define a class TritonPythonModel, or name a function that has annotations: "
            f"{' or '.join(typed[:3]) or f'{path.name}:function'}"
        )
    names = [model.name for model in models]
    for name in names:
        check_name(name)
        if names.count(name) > 1:
            raise LoadFailed(f"'{target}' declares two models of the name '{name}'; rename one")
    return FileSource(path, backend, {model.name: model.attribute for model in models})


def _python_file(name: str) -> Path | None:
    """Find the file of ``path.py`` or of an importable module."""
    path = Path(name)
    if path.is_file():
        return path.resolve()
    if not _MODULE.fullmatch(name):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.has_location or not spec.origin:
        return None
    return Path(spec.origin).resolve() if spec.origin.endswith(".py") else None


def _file_model_name(path: Path) -> str:
    """Name a single file's model: by its stem, or by its directory if it is called ``model``."""
    if path.stem != "model":
        return path.stem
    parent = path.parent
    # <model>/<version>/model.py
    return parent.parent.name if parent.name.isdecimal() and parent.parent.name else parent.name


_MODEL_FILES: Final = frozenset(filename for row in RUNTIMES for filename in row.filenames)
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
