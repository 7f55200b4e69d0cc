"""Reading the settings of this process, for ``serve`` and ``config``."""

import os
from collections.abc import Sequence

from modelport.cli.options import UsageError
from modelport.server.config import Resolved, SettingsError, load

__all__ = ["read_settings"]


def read_settings(argv: Sequence[str]) -> Resolved:
    """Resolve the settings from this process's arguments, environment and files.

    Raises:
        UsageError: With every problem found.
    """
    try:
        return load(argv, os.environ, _read)
    except SettingsError as exc:
        raise UsageError(str(exc)) from exc


def _read(path: str) -> str:
    with open(os.path.expanduser(path), encoding="utf-8") as file:
        return file.read()
