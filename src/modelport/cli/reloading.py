"""``modelport serve --reload``: serve in a process of its own, and start it anew when code changes.

For development only: the server is away for as long as it takes to start.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["changed", "serve_again", "snapshot"]

LOOK_EVERY_S = 0.4
STOP_WITHIN_S = 10.0
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
MOST_FILES = 5000
"""Beyond this a folder is no project, and looking at it takes too long."""

Snapshot = dict[Path, int]


def serve_again(argv: Sequence[str], targets: Sequence[str]) -> int:
    """Serve until asked to stop, each time with the code as it is.

    Args:
        argv: Of the server.
        targets: Whose folders are looked at.

    Returns:
        The exit status of the last server.
    """
    arguments = [each for each in argv if not each.startswith("--reload")]
    command = [sys.executable, "-m", "modelport", "serve", *arguments]
    environment = os.environ | {"MODELPORT_RELOAD": "false"}
    folders = folders_of(targets)
    is_stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal is_stopping
        is_stopping = True
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)

    seen = snapshot(folders)
    server = subprocess.Popen(command, env=environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while not is_stopping:
        time.sleep(LOOK_EVERY_S)
        now = snapshot(folders)
        names = changed(seen, now)
        if not names or is_stopping:
            continue
        seen = now
        print(
            f"{', '.join(sorted(names)[:3])} changed: starting again", file=sys.stderr, flush=True
        )
        _end(server)
        server = subprocess.Popen(command, env=environment)
    return _end(server)


def folders_of(targets: Sequence[str]) -> list[Path]:
    """Give the folders that the code of targets lies in; a module's is the current one."""
    folders = set()
    for target in targets:
        path = Path(target.rpartition(":")[0] or target)
        if not path.exists():
            path = Path(target)
        if path.is_dir():
            folders.add(path.resolve())
        else:
            folders.add(path.resolve().parent if path.is_file() else Path.cwd())
    return sorted(folders)


def snapshot(folders: Sequence[Path]) -> Snapshot:
    """Note when each Python file was changed."""
    found: Snapshot = {}
    for folder in folders:
        for path in _python_files(folder):
            try:
                found[path] = path.stat().st_mtime_ns
            except OSError:
                continue
            if len(found) >= MOST_FILES:
                return found
    return found


def changed(before: Snapshot, after: Snapshot) -> set[str]:
    """Name the files that are new, gone or other than they were."""
    return {
        path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    }


def _python_files(folder: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(folder):
        names[:] = [each for each in names if not each.startswith(".") and each not in SKIPPED]
        if "pyvenv.cfg" in files:
            names.clear()
            continue
        yield from (Path(directory, each) for each in files if each.endswith(".py"))


def _end(server: "subprocess.Popen[bytes]") -> int:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        return server.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()
