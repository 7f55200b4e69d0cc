"""Files in load requests: where they go, what they may be, and that nothing of them stays."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelport.errors import InvalidRequest, LoadFailed, PollFailed
from modelport.repository.lifecycle import Phase
from modelport.repository.loading import Choice, LoadOptions
from modelport.repository.options import ControlMode, RepositoryOptions
from modelport.repository.repository import Repository
from modelport.repository.sources import RepositorySource
from modelport.repository.uploads import Upload, check_paths
from tests.repository.conftest import choose_fake
from tests.waiting import until

Run = Callable[[Any], Any]
Bench = Any

TOLD = {"inputs": {"X": "TYPE_FP32"}, "outputs": {"Y": "TYPE_FP32"}}
MODEL = json.dumps(TOLD).encode()
TORN = json.dumps(TOLD | {"fail": "all"}).encode()
FILES = {"1/model.bin": MODEL}


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "spool"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def left_in(spool: Path) -> int:
    return len(list(spool.iterdir()))


def make(bench: Bench, backend: str = "onnxruntime", **options: Any) -> Repository:
    """A repository whose models are all of one backend, executed by the fake."""

    def choose(config: Any, directory: Path) -> Choice:
        choice = choose_fake(config, directory)
        return Choice(choice.runtime, backend, config.default_model_filename or "model.bin")

    root = bench.root / "repository"
    root.mkdir(exist_ok=True)
    return Repository(
        [RepositorySource(root)],
        RepositoryOptions(
            control_mode=ControlMode.EXPLICIT, load=LoadOptions(choose=choose, **options)
        ),
        bench.host,
        bench.listener,
        bench.run_blocking,
    )


def test_a_model_need_not_be_on_disk(bench: Bench, run: Run, spool: Path) -> None:
    async def main() -> None:
        repository = make(bench)
        await repository.open()
        await repository.load("m", config='{"metric_tags": {"a": "b"}}', files=FILES)
        assert bench.listener.live["m", 1].config.metric_tags == {"a": "b"}
        assert [(r.name, r.version, r.state) for r in repository.index()] == [
            ("m", "1", Phase.READY)
        ]
        assert left_in(spool) == 1
        # Nothing new to do, and nothing to look for in the repository.
        await repository.load("m")
        assert bench.listener.told == ["+m v1"]
        await repository.load("m", config="{}", files={"2/model.bin": MODEL})
        assert bench.listener.told == ["+m v1", "+m v2", "-m v1"]
        await repository.unload("m")
        # No directory has it, so that nothing is kept of it, and nothing of the next thousand.
        await until(lambda: repository.index() == [])
        await repository.close()

    run(main())
    assert left_in(spool) == 0


def test_the_files_of_a_load_that_failed_do_not_stay(bench: Bench, run: Run, spool: Path) -> None:
    async def main() -> None:
        repository = make(bench)
        await repository.open()
        with pytest.raises(LoadFailed, match="weights are torn"):
            await repository.load("m", config="{}", files={"1/model.bin": TORN})
        assert left_in(spool) == 0
        await repository.load("m", config="{}", files=FILES)
        with pytest.raises(LoadFailed, match="weights are torn"):
            await repository.load("m", config="{}", files={"1/model.bin": TORN})
        assert ("m", 1) in bench.listener.live, "what served before still does"
        assert left_in(spool) == 1
        await repository.close()

    run(main())


def test_the_next_configuration_brings_the_repository_back(bench: Bench, run: Run) -> None:
    bench.write("repository/m/3/model.bin", MODEL.decode())

    async def main() -> None:
        repository = make(bench)
        await repository.open()
        await repository.load("m", config="{}", files=FILES)
        await repository.load("m", config="{}")
        assert list(bench.listener.live) == [("m", 3)]

    run(main())


def test_files_without_a_configuration_are_refused(bench: Bench, run: Run) -> None:
    async def main() -> None:
        repository = make(bench)
        await repository.open()
        with pytest.raises(PollFailed, match="failed to load 'm', failed to poll from model"):
            await repository.load("m", files=FILES)

    run(main())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../1/model.onnx",
        "1/../../model.onnx",
        "1//model.onnx",
        "./1/model.onnx",
        "1/model.onnx/",
        "1\\..\\model.onnx",
        "1/mo\0del.onnx",
        "1/mo\ndel.onnx",
        "1/" + "a" * 500,
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="failed to load 'm', the file path"):
        check_paths("m", {name: b""})


def test_too_many_files_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="1001 files were sent, and at most 1000"):
        check_paths("m", {f"1/{index}.bin": b"" for index in range(1001)})


@pytest.mark.parametrize(
    "name", ["1/model.py", "1/MODEL.PY", "1/model.pkl", "1/lib.so", "1/model", "1/model.pt"]
)
def test_files_that_may_be_code_are_refused(bench: Bench, run: Run, name: str) -> None:
    async def main() -> None:
        repository = make(bench)
        await repository.open()
        with pytest.raises(LoadFailed, match=r"may hold code.*--allow-code-overrides"):
            await repository.load("m", config="{}", files=FILES | {name: b""})
        assert bench.calls.count("Upload") == 0

    run(main())


def test_what_would_run_the_files_as_code_is_refused_whatever_they_are_called(
    bench: Bench, run: Run, spool: Path
) -> None:
    config = '{"backend": "python", "default_model_filename": "model.bin"}'

    async def main() -> None:
        repository = make(bench, backend="python")
        await repository.open()
        with pytest.raises(LoadFailed, match=r"backend 'python' hold code"):
            await repository.load("m", config=config, files=FILES)
        assert bench.loaded == []

    run(main())
    assert left_in(spool) == 0


def test_the_operator_can_allow_code(bench: Bench, run: Run) -> None:
    async def main() -> None:
        repository = make(bench, backend="python", allow_code_overrides=True)
        await repository.open()
        await repository.load("m", config="{}", files=FILES | {"1/model.py": b"pass"})
        assert bench.listener.told == ["+m v1"]
        await repository.close()

    run(main())


def test_an_upload_that_cannot_be_written_leaves_nothing(spool: Path) -> None:
    with pytest.raises(OSError, match="exists"):
        Upload({"1/a.bin": b"", "1/a.bin/b.bin": b""})
    assert left_in(spool) == 0
