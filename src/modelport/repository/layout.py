"""What lies in a model repository: models, versions, configurations, labels.

::

    <repository>/<model>/config.pbtxt        or config.json, config.yaml, config.yml, or none
                         configs/<alt>.pbtxt chosen by --model-config-name
                         labels.txt          named by the configuration
                         <version>/model.*   a positive integer without leading zeros

Reads directories and small files; knows nothing of what the files mean. Every text that leaves
here names files relative to the model, never where they lie on this machine.

**What may be reached.** Names that a client or a configuration gives are checked as text: they are
relative, and no part of them is ``..``. Symbolic links are followed, also out of the repository:
nobody but the operator can put one there, and mounted volumes and blob stores are full of them.
"""

import os
import re
from collections.abc import Collection, Container, Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from modelport.errors import InvalidRequest, LoadFailed

__all__ = [
    "ModelFiles",
    "Signature",
    "check_filename",
    "check_name",
    "find_config",
    "is_model_directory",
    "is_name",
    "list_files",
    "list_versions",
    "model_names",
    "read_labels",
    "read_text",
    "sign",
    "why_unreadable",
]

Signature = tuple[tuple[str, int, int], ...]
"""Relative path, modification time in nanoseconds and size of every file, sorted."""

MOST_LABELS: Final = 1_000_000
MOST_LABEL_BYTES: Final = 64 << 20
"""A label file is read into memory whole; the largest public ones have some 22 000 lines."""

MOST_CONFIG_BYTES: Final = 4 << 20
"""Read before its own reader may refuse it for being long."""

MOST_SIGNED_FILES: Final = 100_000


class ModelFiles(Struct, frozen=True):
    """What a model directory holds, as seen at one moment.

    Attributes:
        config: Path of the configuration; ``None`` if there is none.
        versions: In rising order.
        shared: Signature of everything outside the version directories.
        signature_by_version: Of the files of each version.
    """

    config: Path | None
    versions: tuple[int, ...]
    shared: Signature
    signature_by_version: dict[int, Signature]


def check_name(name: str) -> None:
    """Let a model name pass that can only be one directory's name.

    Raises:
        InvalidRequest: If it could lead anywhere else.
    """
    if not is_name(name):
        raise InvalidRequest(
            f"invalid model name '{_printable(name)}', model name must not contain path traversal "
            "characters; it is one directory's name, without '/' and '\\'"
        )


def is_name(name: str) -> bool:
    """Whether this can be the name of a model, so of a directory."""
    return name not in ("", ".", "..") and _UNSAFE.search(name) is None


def check_filename(field: str, filename: str) -> None:
    """Let a file name of a configuration pass that stays inside its directory.

    Raises:
        LoadFailed: If it could lead out of it.
    """
    parts = filename.split("/")
    if "\\" in filename or "\0" in filename or filename.startswith("/") or ".." in parts:
        raise LoadFailed(
            f"{field} '{_printable(filename)}' leads out of the model's directory; "
            "give a path below it, without '..'"
        )


def model_names(
    root: Path, model_files: Collection[str] = (), known: Container[str] = ()
) -> list[str]:
    """List the models of a repository directory, sorted; ``known`` ones are not looked into."""
    return sorted(
        entry.name
        for entry in _entries(root)
        if _is_directory(entry) and (entry.name in known or is_model_directory(entry, model_files))
    )


def is_model_directory(
    directory: os.DirEntry[str] | Path, model_files: Collection[str] = ()
) -> bool:
    """Whether a directory looks like a model.

    It does if it has a configuration, a version, or one of ``model_files``; also if nobody may
    look: that a model is there is told, and why it cannot be loaded, instead of passing it over.
    """
    name = directory.name
    if name.startswith((".", "__")) or name in _OF_FILE_SYSTEMS or _UNSAFE.search(name):
        return False
    if why_unreadable(directory):
        return True
    return any(
        entry.name in _CONFIGS
        or entry.name == "configs"
        or entry.name in model_files
        or (_is_version(entry.name) and _is_directory(entry))
        for entry in _entries(directory)
    )


def why_unreadable(directory: os.DirEntry[str] | Path) -> str:
    """Say why a directory that is there cannot be looked into; "" if it can."""
    try:
        # The one needs the right to list, the other the right to enter.
        with os.scandir(directory):
            os.stat(os.path.join(directory, "."))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as exc:
        return _reason(exc)
    return ""


def list_versions(directory: Path) -> tuple[int, ...]:
    """List a model's versions in rising order; other directories are not looked at.

    ``01`` is not a version: two directories must not mean the same number. Nor is what no request
    could ask for, because 64 bits do not hold it.
    """
    return tuple(
        sorted(
            int(entry.name)
            for entry in _entries(directory)
            if _is_version(entry.name) and _is_directory(entry)
        )
    )


def list_files(directory: Path) -> list[str]:
    """List the names in a version directory, sorted; none if there is no such directory."""
    return sorted(entry.name for entry in _entries(directory))


def find_config(directory: Path, config_name: str = "") -> Path | None:
    """Find a model's configuration.

    Args:
        directory: Of the model.
        config_name: Picks ``configs/<config_name>.pbtxt`` (or another form) where there is one.

    Raises:
        LoadFailed: If there are two, so that nobody knows which one counts, or it is no file.
    """
    if config_name:
        for suffix in _SUFFIXES:
            custom = directory / "configs" / f"{config_name}{suffix}"
            if custom.is_file():
                return custom
    found = [name for name in _CONFIGS if (path := directory / name).exists() or path.is_symlink()]
    if len(found) > 1:
        raise LoadFailed(f"the model has {' and '.join(found)}; keep one of them")
    if found and not (directory / found[0]).is_file():
        raise LoadFailed(f"{found[0]} is no file")
    return directory / found[0] if found else None


def read_text(path: Path, title: str) -> str:
    """Read a small text file; ``title`` is what errors call it.

    Raises:
        LoadFailed: If it cannot be read, is too long, or is not UTF-8.
    """
    return _read(path, title, MOST_CONFIG_BYTES)


def read_labels(directory: Path, filename: str) -> tuple[str, ...]:
    """Read the labels of an output, one a line; blank lines at the end do not count.

    Raises:
        LoadFailed: If the file is missing, leads out of the model's directory, or is too large.
    """
    check_filename("label_filename", filename)
    text = _read(directory / filename, f"label file '{filename}'", MOST_LABEL_BYTES)
    # Not splitlines: a label may hold the other characters that it takes for ends of lines.
    labels = [line.removesuffix("\r") for line in text.split("\n")]
    while labels and not labels[-1]:
        labels.pop()
    if len(labels) > MOST_LABELS:
        raise LoadFailed(
            f"label file '{filename}' has {len(labels)} lines, and at most {MOST_LABELS} are read"
        )
    return tuple(labels)


def sign(directory: Path, *, without: Iterable[str] = ()) -> Signature:
    """Tell by times and sizes whether anything below a directory has changed.

    Args:
        directory: Of a model, of a version, or a single file.
        without: Names directly below ``directory`` that are left out.
    """
    if not directory.is_dir():
        return tuple(_signed(directory, directory.name))
    left_out = set(without)
    signed: list[tuple[str, int, int]] = []
    for folder, folders, names in os.walk(directory, followlinks=False):
        is_top = folder == str(directory)
        folders[:] = sorted(
            name for name in folders if not _is_litter(name) and not (is_top and name in left_out)
        )
        for name in names:
            path = Path(folder, name)
            if not _is_litter(name):
                signed.extend(_signed(path, path.relative_to(directory).as_posix()))
        # A folder that a link stands for is not entered; its own time still counts.
        for name in folders:
            path = Path(folder, name)
            if path.is_symlink():
                signed.extend(_signed(path, path.relative_to(directory).as_posix()))
        if len(signed) > MOST_SIGNED_FILES:
            raise LoadFailed(f"the model has more than {MOST_SIGNED_FILES} files")
    return tuple(sorted(signed))


def _signed(path: Path, name: str) -> Iterator[tuple[str, int, int]]:
    try:
        status = path.stat()
    except OSError:
        return
    yield name, status.st_mtime_ns, status.st_size


def _is_litter(name: str) -> bool:
    """Whether loading a model may itself have made this file."""
    return name == "__pycache__" or name.endswith(".pyc")


def _entries(directory: os.DirEntry[str] | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether it is one, or a link to one; a link that leads nowhere, or in a circle, is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _read(path: Path, title: str, most_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as exc:
        raise LoadFailed(f"{title} cannot be read: {_reason(exc)}") from exc
    if len(data) > most_bytes:
        raise LoadFailed(f"{title} is larger than the {most_bytes} bytes that are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise LoadFailed(f"{title} is not UTF-8: byte {exc.start} is not") from exc


def _is_version(name: str) -> bool:
    return _VERSION.fullmatch(name) is not None and int(name) < 2**63


def _reason(exc: OSError) -> str:
    return (exc.strerror or type(exc).__name__).lower()


def _printable(name: str) -> str:
    return name[:200].encode("unicode_escape").decode("ascii")


_VERSION: Final = re.compile(r"[1-9][0-9]{0,18}")
_UNSAFE: Final = re.compile(r"[/\\\x00-\x1f\x7f]")
_OF_FILE_SYSTEMS: Final = frozenset({"lost+found", "System Volume Information"})
"""Directories that file systems keep in their root, and nobody may read."""
_SUFFIXES: Final = (".pbtxt", ".json", ".yaml", ".yml")
_CONFIGS: Final = tuple(f"config{suffix}" for suffix in _SUFFIXES)
