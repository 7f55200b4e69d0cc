"""The unmodified client of OVMS against our server; see ``test_tritonclient.py``."""

import subprocess
from pathlib import Path

import pytest

from tests.compat.test_tritonclient import python_of
from tests.served import Served, clean_environment

CHECKS = Path(__file__).parent / "ovms_client"
ROOT = CHECKS.parents[2]

pytestmark = [pytest.mark.compat, pytest.mark.slow]


def test_the_official_client_is_served(ovms_server: Served) -> None:
    done = subprocess.run(
        [str(python_of("ovms")), "-m", "pytest", "-c", str(CHECKS / "pytest.ini"), str(CHECKS)],
        cwd=ROOT,
        env=clean_environment() | {"OVMS_ADDRESS": ovms_server.address, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"ovmsclient:\n{done.stdout}"
