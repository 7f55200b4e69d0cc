"""Models that bring their Python environment along."""

import os
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from modelport.errors import LoadFailed
from modelport.repository.options import ControlMode
from modelport.runtimes.base import ModelSource
from modelport.runtimes.worker.environment import interpreter_of
from modelport.specs import ENVIRONMENT, ModelConfig, Parameter
from tests.runtimes.worker.conftest import CONFIG, Bench

SAYS_WHERE = """
def execute(self, requests):
    import brought_along
    with open(os.path.join(os.path.dirname(__file__), "prefix"), "w") as file:
        file.write(sys.prefix)
    return [y([brought_along.NUMBER]) for request in requests]
"""


def asks_for(path: str) -> str:
    return CONFIG + f'parameters {{ key: "{ENVIRONMENT}" value {{ string_value: "{path}" }} }}\n'


def make_environment(directory: Path, number: int) -> None:
    """An environment with a package that the server does not have."""
    venv.EnvBuilder(symlinks=True).create(directory)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "brought_along.py").write_text(f"NUMBER = {number}\n")


def interpreter(directory: Path, path: str) -> str:
    source = ModelSource(name="m", directory=directory, version_directory=directory, version=1)
    return interpreter_of(
        source, ModelConfig(parameters={ENVIRONMENT: Parameter(string_value=path)})
    )


def test_model_runs_in_the_environment_beside_it(bench: Bench) -> None:
    bench.write("m", SAYS_WHERE, asks_for("$$TRITON_MODEL_DIRECTORY/its own"))
    bench.write("other", "def execute(self, requests): return [y([1]) for r in requests]", CONFIG)
    make_environment(bench.directory / "m" / "its own", 7)

    async def test() -> None:
        assert await bench.ask("m", [1]) == [[7]]
        prefix = (bench.directory / "m" / "1" / "prefix").read_text()
        assert prefix == str(bench.directory / "m" / "its own")
        assert await bench.ask("other", [1]) == [[1]]
        assert not bench.deployment("other").workers()

    bench.run(test)


def test_environment_may_be_packed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    make_environment(tmp_path / "environment", 8)
    bench.write("m", SAYS_WHERE, asks_for("$$TRITON_MODEL_DIRECTORY/packed.tar.gz"))
    packed = bench.directory / "m" / "packed.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "environment", ".")

    async def test() -> None:
        assert await bench.ask("m", [1]) == [[8]]

    bench.run(test)
    (unpacked,) = (cache / "modelport" / "environments").iterdir()
    kept = unpacked.stat().st_mtime_ns
    assert interpreter(packed.parent, str(packed)) == str(unpacked / "bin" / "python")
    assert unpacked.stat().st_mtime_ns == kept, "unpacked once"


def test_archive_that_leads_out_of_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("mine")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "file", "../../../../stolen")
    with pytest.raises(LoadFailed, match=r"archive 'evil\.tar' of parameter"):
        interpreter(tmp_path, str(tmp_path / "evil.tar"))
    assert not (tmp_path / "stolen").exists()
    assert list((tmp_path / "cache" / "modelport" / "environments").iterdir()) == []


def test_what_is_no_environment_of_ours_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="there is no Python environment at '/nowhere'"):
        interpreter(tmp_path, "/nowhere")
    (tmp_path / "file").write_text("no archive")
    with pytest.raises(LoadFailed, match="cannot be unpacked: file could not be opened"):
        interpreter(tmp_path, str(tmp_path / "file"))
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho cpython-27\n")
    with pytest.raises(LoadFailed, match="cannot be started: PermissionError"):
        interpreter(tmp_path, str(tmp_path))
    os.chmod(python, 0o700)
    ours = sys.implementation.cache_tag
    with pytest.raises(
        LoadFailed, match=f"has the Python cpython-27, and the server runs on {ours}"
    ):
        interpreter(tmp_path, str(tmp_path))


def test_clients_do_not_say_what_interpreter_is_started(bench: Bench) -> None:
    bench.mode = ControlMode.EXPLICIT
    bench.write("m", "def execute(self, requests): return [y([1]) for r in requests]", CONFIG)
    sent = f'{{"parameters": {{"{ENVIRONMENT}": {{"string_value": "/tmp"}}}}}}'

    async def test() -> None:
        with pytest.raises(LoadFailed, match="code comes from the operator only"):
            await bench.engine.load("m", config=sent)
        await bench.engine.load("m")
        assert await bench.ask("m", [1]) == [[1]]

    bench.run(test)
