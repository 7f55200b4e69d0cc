"""The making of the repository, with the static models alone, which takes milliseconds."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from examples import prepare
from examples.prepare import CannotPrepare, read_stamp

ROOT = prepare.EXAMPLES.parent


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prepare, "BUILDERS", {})
    return tmp_path / "repository"


def contents(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }


def touch_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "fingerprint_of_inputs", lambda: "of other inputs")


def test_every_model_has_a_configuration_and_a_version(out: Path) -> None:
    prepare.prepare(out)
    models = sorted(path.name for path in prepare.MODELS.iterdir())
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == models
    for model in models:
        assert (out / model / "config.pbtxt").is_file()
        assert (out / model / "1").is_dir()


def test_a_second_run_leaves_edits_alone(out: Path) -> None:
    first = prepare.prepare(out)
    (out / "add_sub" / "config.pbtxt").write_text("# edited")
    assert prepare.prepare(out) == first
    assert (out / "add_sub" / "config.pbtxt").read_text() == "# edited"


def test_changed_inputs_make_everything_anew(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare.prepare(out)
    before = contents(out)
    (out / "add_sub" / "config.pbtxt").write_text("# edited")
    touch_inputs(monkeypatch)
    prepare.prepare(out)
    assert contents(out) | {prepare.STAMP: b""} == before | {prepare.STAMP: b""}


def test_a_file_that_has_gone_is_made_again(out: Path) -> None:
    prepare.prepare(out)
    (out / "repeat" / "1" / "model.py").unlink()
    prepare.prepare(out)
    assert (out / "repeat" / "1" / "model.py").is_file()


@pytest.mark.parametrize("moved", [0, 1, 5])
def test_a_run_that_dies_while_models_move_is_started_over(
    out: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    rename = Path.rename
    renamed: list[Path] = []

    def rename_some(source: Path, target: Path) -> Path:
        if len(renamed) == moved:
            raise KeyboardInterrupt
        renamed.append(target)
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_some)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(out)
    stamp = read_stamp(out)
    assert stamp is not None
    assert stamp.fingerprint is None

    stamp = prepare.prepare(out)
    assert stamp.fingerprint is not None
    assert all((out / file).is_file() for file in stamp.files)


def test_a_run_that_dies_while_building_leaves_the_old_repository(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.prepare(out)
    before = contents(out)

    def fail(version: Path) -> str:
        raise MemoryError

    broken = ModuleType("broken")
    broken.build = fail  # type: ignore[attr-defined]  # a stand-in for a module of examples
    monkeypatch.setitem(sys.modules, "broken", broken)
    monkeypatch.setattr(prepare, "BUILDERS", {"digits": "broken"})
    touch_inputs(monkeypatch)
    with pytest.raises(MemoryError):
        prepare.prepare(out)
    assert contents(out) == before
    assert list(out.parent.iterdir()) == [out]


def test_what_a_killed_run_left_aside_is_removed(out: Path) -> None:
    leftover = out.parent / ".repository.staging" / "half"
    leftover.mkdir(parents=True)
    prepare.prepare(out)
    assert not leftover.exists()
    assert not (out / "half").exists()


def test_models_of_others_stay_and_examples_that_are_no_more_go(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = prepare.prepare(out)
    (out / "mine").mkdir()
    (out / "former").mkdir()
    stamp.files.append("former/config.pbtxt")
    prepare.write_stamp(out, stamp)
    touch_inputs(monkeypatch)
    prepare.prepare(out)
    assert (out / "mine").is_dir()
    assert not (out / "former").exists()


def test_a_directory_with_other_things_is_refused(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert prepare.main([str(out)]) == 1
    assert "holds files that were not made here" in capsys.readouterr().err
    assert list(out.iterdir()) == [out / "thesis.txt"]


def test_a_place_that_cannot_be_written_is_told(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert prepare.main([str(tmp_path / "file" / "repository")]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: cannot write {tmp_path}/file/repository: ")
    assert told.endswith("Not a directory")


def test_a_damaged_stamp_is_told(out: Path) -> None:
    prepare.prepare(out)
    (out / prepare.STAMP).write_text("{")
    with pytest.raises(CannotPrepare, match="is damaged; delete"):
        prepare.prepare(out)


def test_a_missing_library_is_told_with_the_command(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "LIBRARIES", ("no-such-library",))
    assert prepare.main([str(out)]) == 1
    assert "no-such-library: pip install 'modelport[examples]'" in capsys.readouterr().err
    assert not out.exists()


def test_a_new_library_version_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepare.fingerprint_of_inputs()
    monkeypatch.setattr(importlib.metadata, "version", lambda library: "999")
    assert prepare.fingerprint_of_inputs() != before


@pytest.mark.slow
def test_findings_are_printed_again_without_loading_a_framework(
    repository: Path, printed: str
) -> None:
    script = (
        "import sys; from examples import prepare; prepare.main(sys.argv[1:]); "
        "print(*{'numpy', 'onnx', 'PIL', 'scipy', 'sklearn', 'skops'} & set(sys.modules), "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(repository)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == f"{repository} is up to date\n\n"
    assert done.stdout == printed


@pytest.mark.slow
def test_it_runs_as_a_script_too(repository: Path, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "prepare.py"), str(repository)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, printed)
