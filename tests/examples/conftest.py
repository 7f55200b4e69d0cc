import subprocess
import sys
from pathlib import Path

import pytest

from examples.prepare import EXAMPLES


@pytest.fixture(scope="session")
def printed_by_repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The whole repository, made once as a user makes it, and what that printed."""
    out = tmp_path_factory.mktemp("examples") / "repository"
    done = subprocess.run(
        [sys.executable, "-m", "examples.prepare", str(out)],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, out


@pytest.fixture(scope="session")
def printed(printed_by_repository: tuple[str, Path]) -> str:
    return printed_by_repository[0]


@pytest.fixture(scope="session")
def repository(printed_by_repository: tuple[str, Path]) -> Path:
    return printed_by_repository[1]
