import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.served import Served, serving

ROOT = Path(__file__).parents[1]

# How long an example may take says nothing on a machine that is busy.
settings.register_profile("modelport", deadline=None)
settings.load_profile("modelport")

# A shell that runs this in the background has it ignored, and what is started here inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def example_models() -> Path:
    """The example repository, made once and kept in ``build`` for the next run."""
    models = ROOT / "build" / "example-models"
    models.parent.mkdir(exist_ok=True)
    with (models.parent / "example-models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-m", "examples.prepare", str(models)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    return models


@pytest.fixture(scope="session")
def example_server(example_models: Path) -> Iterator[Served]:
    """A server of the example repository."""
    with serving(str(example_models)) as served:
        yield served
