"""``modelport version``: what to quote in a report."""

import platform
import sys
from collections.abc import Sequence

from modelport._version import __version__
from modelport.cli.options import UsageError, asks_for_help

__all__ = ["run"]


def run(argv: Sequence[str]) -> int:
    """Print the version of Modelport and of Python."""
    if asks_for_help(argv):
        print("Usage: modelport version\n\nPrint the version of Modelport and of Python.")
    elif argv:
        raise UsageError(f"takes no arguments, got {argv[0]}; leave it out")
    else:
        print(f"modelport {__version__} (Python {platform.python_version()}, {sys.platform})")
    return 0
