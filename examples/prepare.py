"""Makes the example model repository: ``python -m examples.prepare OUT_DIR``.

Static files are copied from ``examples/models``; the four trained or generated models are built by
the modules of BUILDERS. A stamp in OUT_DIR tells what everything was made from, so that a second
run compares hashes and loads no framework.

Everything is built aside first. While the models move into place the stamp holds no fingerprint,
and it gets one last: a run that was interrupted at any point is started over by the next one.
Directories of OUT_DIR that are no example's are left alone.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
MODELS = EXAMPLES / "models"
STAMP = ".prepared.json"


class CannotPrepare(Exception):
    """The repository cannot be made; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What OUT_DIR was made from, and what is in it."""

    fingerprint: str | None
    """Hash of all that the models depend on; ``None`` while they are being replaced."""
    files: list[str]
    """Paths below OUT_DIR."""
    measured: dict[str, str]
    """Findings of the builders by model, such as the accuracy on held-out data."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="examples.prepare", description="Make the example model repository."
    )
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    out = parser.parse_args(arguments).out_dir
    try:
        stamp = prepare(out)
    except CannotPrepare as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename is not None else ""
        print(f"error: cannot write {out}: {where}{exc.strerror or exc}", file=sys.stderr)
        return 1
    for model, finding in stamp.measured.items():
        print(f"{model}: {finding}")
    return 0


def prepare(out: Path) -> Stamp:
    """Bring ``out`` up to date and return its stamp.

    Raises:
        CannotPrepare: If a library is missing, or ``out`` holds files but no stamp.
    """
    fingerprint = fingerprint_of_inputs()
    old = read_stamp(out)
    if old is None and out.exists() and any(out.iterdir()):
        raise CannotPrepare(
            f"{out} holds files that were not made here; name a directory that is empty or new"
        )
    if old is not None and is_current(old, out, fingerprint):
        progress(f"{out} is up to date")
        return old
    started = time.monotonic()
    staging = out.parent / f".{out.name}.staging"
    shutil.rmtree(staging, ignore_errors=True)  # left behind by a run that was killed
    try:
        measured = build(staging)
        new = Stamp(fingerprint, sorted(relative_files(staging)), measured)
        publish(staging, out, old, new)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    progress(f"{out} is ready after {time.monotonic() - started:.1f} s")
    return new


def build(staging: Path) -> dict[str, str]:
    """Make every model below ``staging``, a directory that does not exist yet."""
    shutil.copytree(MODELS, staging, ignore=shutil.ignore_patterns("__pycache__"))
    for model in staging.iterdir():
        # An ensemble has a version too, and nothing in it.
        (model / "1").mkdir(exist_ok=True)
    measured = {}
    for model_name, module_name in BUILDERS.items():
        progress(f"building {model_name}")
        builder = importlib.import_module(module_name)
        # The matrices are small: two threads are no faster, and take three times as long
        # where something else runs on this machine (OpenBLAS spins while it waits).
        with one_thread():
            measured[model_name] = builder.build(staging / model_name / "1")
    return measured


def one_thread() -> AbstractContextManager[object]:
    # Not at the top: a run that finds everything up to date has no use for it.
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(limits=1)
    return limits


def publish(staging: Path, out: Path, old: Stamp | None, new: Stamp) -> None:
    """Move the models from ``staging`` to ``out`` and delete those that are examples no more."""
    out.mkdir(parents=True, exist_ok=True)
    before = set(old.files) if old is not None else set()
    write_stamp(out, Stamp(None, sorted(before | set(new.files)), {}))
    arriving = {model.name for model in staging.iterdir()}
    for model_name in arriving | {Path(file).parts[0] for file in before}:
        if (out / model_name).exists():
            shutil.rmtree(out / model_name)
        if model_name in arriving:
            (staging / model_name).rename(out / model_name)
    write_stamp(out, new)


def fingerprint_of_inputs() -> str:
    """Hash sources, data and library versions, without importing a library."""
    digest = hashlib.sha256()
    for path in input_files():
        digest.update(f"{path.relative_to(EXAMPLES).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for library in LIBRARIES:
        try:
            version = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            raise CannotPrepare(
                f"the examples need {library}: pip install 'modelport[examples]'"
            ) from None
        digest.update(f"{library} {version}\n".encode())
    return digest.hexdigest()


def input_files() -> Iterator[Path]:
    yield from sorted(EXAMPLES.glob("*.py"))
    yield from sorted(EXAMPLES.glob("data/*.tsv"))
    yield from (MODELS / path for path in sorted(relative_files(MODELS)))


def relative_files(root: Path) -> Iterator[str]:
    """Paths of the files below ``root``, but for what Python caches beside sources."""
    for path in root.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix()


def is_current(stamp: Stamp, out: Path, fingerprint: str) -> bool:
    """Whether nothing is to do; files may have been edited, but not have gone."""
    return stamp.fingerprint == fingerprint and all((out / file).exists() for file in stamp.files)


def read_stamp(out: Path) -> Stamp | None:
    try:
        return Stamp(**json.loads((out / STAMP).read_text()))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as exc:
        raise CannotPrepare(f"{out / STAMP} is damaged; delete {out} and start again") from exc


def write_stamp(out: Path, stamp: Stamp) -> None:
    """Replace the stamp at once: a reader sees the old one or the new one."""
    beside = out / f"{STAMP}.new"
    beside.write_text(json.dumps(asdict(stamp), indent=1) + "\n")
    beside.replace(out / STAMP)


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


BUILDERS = {
    "linear_regression_model": "examples.linear",
    "iris": "examples.iris",
    "digits": "examples.digits",
    "sentiment": "examples.sentiment",
}
"""Modules with a ``build(version_directory)`` that returns one line on what was measured."""

LIBRARIES = ("numpy", "onnx", "pillow", "scikit-learn", "scipy", "skops")


if __name__ == "__main__":
    # As a script the directory of this file is on the path, and its parent is not.
    sys.path.insert(0, str(EXAMPLES.parent))
    sys.exit(main())
