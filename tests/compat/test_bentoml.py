"""The unmodified clients of BentoML against our server; see ``test_tritonclient``."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_tritonclient import python_of
from tests.served import Served, clean_environment, serving

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHECKS = sorted((HERE / "bentoml_client").glob("check_*.py"))

pytestmark = [pytest.mark.compat, pytest.mark.slow]


@pytest.fixture(scope="module", params=[1, 2], ids=["in_the_server", "in_workers"])
def service_server(request: pytest.FixtureRequest) -> Iterator[Served]:
    environment = {"PROBE_WORKERS": str(request.param)}
    with serving(f"{HERE / 'services.py'}:Probe", environment=environment) as served:
        yield served


@pytest.mark.parametrize("check", CHECKS, ids=lambda path: path.stem.removeprefix("check_"))
def test_the_official_client_is_served(check: Path, service_server: Served) -> None:
    python = python_of("bentoml")
    done = subprocess.run(
        [str(python), "-m", "pytest", "-c", str(HERE / "client" / "pytest.ini"), str(check)],
        cwd=ROOT,
        env=clean_environment()
        | {"SERVICE_URL": service_server.url, "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"bentoml's client:\n{done.stdout}"
