"""Model files that came with a load request instead of lying in a repository.

They are written to a private directory that no client can name, and it goes away with the last
version that was loaded from it. What they may be is decided twice: here by their names, and in
:mod:`.loading` by what would execute them.
"""

import threading
import weakref
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from modelport.errors import InvalidRequest, LoadFailed

__all__ = ["DATA_BACKENDS", "Upload", "check_paths", "refuse_code"]

MOST_FILES: Final = 1000
LONGEST_PATH: Final = 500

DATA_SUFFIXES: Final = frozenset(
    (
        *("csv", "json", "labels", "pbtxt", "txt", "yaml", "yml"),
        *("bin", "data", "model", "npy", "onnx", "ort", "safetensors", "skops", "ubj", "weights"),
        *("pdiparams", "pdmodel", "tflite", "xml"),
    )
)
"""Endings of files that are read as data. All others may be code, or lead to some."""

DATA_BACKENDS: Final = frozenset({"onnxruntime", "openvino", "sklearn", "xgboost", "lightgbm"})
"""Backends whose model files are data, as long as no pickle is allowed. A backend that is not
listed counts as code: it is for the operator to say otherwise."""


class Upload:
    """A directory of uploaded files, removed when its last holder lets go. Thread-safe.

    Who makes it is the first holder.

    Args:
        files: By path below the model's directory; the paths have been checked.

    Raises:
        OSError: If the disk is full, or the like. Nothing is left behind then.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        import shutil
        import tempfile

        self.directory = Path(tempfile.mkdtemp(prefix="modelport-upload-"))
        # Also when the process ends with holders left.
        self._remove = weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        self._lock = threading.Lock()
        self._holders = 1
        try:
            for name, data in files.items():
                path = self.directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                # Fails if it is there, so that two spellings of one path cannot hide one another.
                with path.open("xb") as file:
                    file.write(data)
        except BaseException:
            self._remove()
            raise

    def hold(self) -> None:
        """Need the files, until ``release``."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Need them no more; called once by each holder."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._remove()


def check_paths(model: str, names: Mapping[str, bytes]) -> None:
    """Let paths pass that stay inside the model's directory.

    Raises:
        InvalidRequest: If one could lead anywhere else, or there are too many.
    """
    if len(names) > MOST_FILES:
        raise InvalidRequest(
            f"failed to load '{model}', {len(names)} files were sent, and at most {MOST_FILES} "
            "are taken"
        )
    for name in names:
        path = PurePosixPath(name)
        is_plain = name and name == str(path) and name.isprintable() and "\\" not in name
        if not is_plain or path.is_absolute() or ".." in path.parts or len(name) > LONGEST_PATH:
            shown = name[:200].encode("unicode_escape").decode("ascii")
            raise InvalidRequest(
                f"failed to load '{model}', the file path '{shown}' does not stay inside the model "
                "directory; give <version>/<file>, relative, without '..' and '//', of at most "
                f"{LONGEST_PATH} characters"
            )


def refuse_code(model: str, names: Mapping[str, bytes]) -> None:
    """Refuse files that are, or may be, code.

    Raises:
        LoadFailed: If there is one; the text names it.
    """
    for name in names:
        if PurePosixPath(name).suffix.lower().lstrip(".") not in DATA_SUFFIXES:
            raise LoadFailed(
                f"failed to load '{model}', the file '{name}' may hold code, and code comes from "
                "the operator only. Put it into the model repository, or start the server with "
                "--allow-code-overrides; without that, files may end in "
                f"{', '.join(sorted(f'.{suffix}' for suffix in DATA_SUFFIXES))}"
            )
