"""The unmodified client of Triton, in two generations, against our server.

Each generation has an environment of its own in ``.venv-compat``, because it pins old libraries;
``make compat`` makes them. What the clients do stands in ``client/check_*.py`` and is run there.
"""

import subprocess
from pathlib import Path

import pytest

from tests.served import clean_environment

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHECKS = sorted((HERE / "client").glob("check_*.py"))

pytestmark = [pytest.mark.compat, pytest.mark.slow]


@pytest.mark.parametrize("check", CHECKS, ids=lambda path: path.stem.removeprefix("check_"))
@pytest.mark.parametrize("generation", ["current", "older"])
def test_the_official_client_is_served(
    generation: str, check: Path, addresses: dict[str, str]
) -> None:
    python = python_of(generation)
    done = subprocess.run(
        [str(python), "-m", "pytest", "-c", str(HERE / "client" / "pytest.ini"), str(check)],
        cwd=ROOT,
        env=clean_environment() | addresses | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"tritonclient, {generation}:\n{done.stdout}"


def python_of(generation: str) -> Path:
    environment = ROOT / ".venv-compat" / generation
    if not (environment / ".made").exists():
        log = environment.with_suffix(".log")
        why = log.read_text().strip().splitlines()[-1:] if log.exists() else ["run make compat"]
        pytest.skip(f"no environment .venv-compat/{generation}: {''.join(why)}")
    return environment / "bin" / "python"
