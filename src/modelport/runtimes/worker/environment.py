"""The Python environment that a model brings along: ``EXECUTION_ENV_PATH`` of Triton's backend.

It is a directory, as ``conda create`` and ``python -m venv`` make them, or an archive of one, as
``conda-pack`` makes them. The worker process is then started with its interpreter, whose packages
come before those of the server; Modelport itself and what the environment lacks come from the
server. So both must be the same Python (3.11, say), as compiled packages are made for one.

Source: Triton python backend, README, "Creating Custom Execution Environments".
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from modelport.errors import LoadFailed
from modelport.runtimes.base import ModelSource
from modelport.specs import ENVIRONMENT, ModelConfig

__all__ = ["interpreter_of"]

MODEL_DIRECTORY: Final = "$$TRITON_MODEL_DIRECTORY"
"""Stands for the directory of the model in the parameter."""


def interpreter_of(source: ModelSource, config: ModelConfig) -> str:
    """Give the path of the interpreter that a model's worker process is started with.

    Blocks; an archive is unpacked, once, below the user's cache directory.

    Raises:
        LoadFailed: If the environment is not there, or is of another Python than ours.
    """
    text = config.parameter(ENVIRONMENT)
    if not text:
        return sys.executable
    place = Path(text.replace(MODEL_DIRECTORY, str(source.directory)))
    if place.is_file():
        place = _unpacked(place)
    python = place / "bin" / "python"
    if not python.exists():
        raise LoadFailed(
            f"parameter '{ENVIRONMENT}': there is no Python environment at '{text}'; it has to be "
            "the directory of one, with bin/python in it, or an archive that conda-pack has made. "
            f"{MODEL_DIRECTORY} stands for the directory of the model"
        )
    _check_abi(python)
    return str(python)


def _check_abi(python: Path) -> None:
    command = [str(python), "-I", "-c", "import sys; print(sys.implementation.cache_tag)"]
    try:
        asked = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        tag = asked.stdout.strip()
    except (OSError, subprocess.SubprocessError) as exc:
        raise LoadFailed(
            f"the interpreter of parameter '{ENVIRONMENT}' cannot be started: "
            f"{type(exc).__name__}; was the environment made for this kind of machine?"
        ) from exc
    ours = sys.implementation.cache_tag
    if tag != ours:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise LoadFailed(
            f"the environment of parameter '{ENVIRONMENT}' has the Python "
            f"{tag or 'of no name'}, and the server runs on {ours}; compiled packages are made "
            f"for one of them. Make the environment with Python {version}, or run the server with "
            "that of the environment"
        )


def _unpacked(archive: Path) -> Path:
    """Give the directory that an archive was unpacked to, now or earlier."""
    stat = archive.stat()
    facts = f"{archive.resolve()} {stat.st_mtime_ns} {stat.st_size}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"{archive.name.partition('.')[0]}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    place = cache / "modelport" / "environments" / name
    if place.is_dir():
        return place
    fresh = ""
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = tempfile.mkdtemp(prefix=f"{name}.", dir=place.parent)
        with tarfile.open(archive) as packed:
            # Nothing of it is written to a place outside. Links may point there, as those of
            # python -m venv do; what they point to is what the operator has packed.
            packed.extractall(fresh, filter="tar")
        with contextlib.suppress(OSError):
            # Other instances, or servers, may have been faster; one of them is as good as another.
            os.rename(fresh, place)
    except (OSError, tarfile.TarError, TypeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise LoadFailed(
            f"the archive '{archive.name}' of parameter '{ENVIRONMENT}' cannot be unpacked: "
            f"{reason}; unpack it yourself, and give the directory"
        ) from exc
    finally:
        if fresh:
            shutil.rmtree(fresh, ignore_errors=True)
    return place
