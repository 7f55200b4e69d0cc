import os
from pathlib import Path

import pytest

from modelport.errors import InvalidRequest, LoadFailed
from modelport.repository import layout
from tests.repository.conftest import lock


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["resnet", "a.b-c_d", "модель", "x..y", "two words"])
def test_a_directory_name_is_a_model_name(name: str) -> None:
    layout.check_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/etc", "a\\b", "a\0b", "a\nb", "..\\up"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="must not contain path traversal characters"):
        layout.check_name(name)


@pytest.mark.parametrize("filename", ["", "labels.txt", "sub/labels.txt", "a..b"])
def test_a_file_below_the_model_is_fine(filename: str) -> None:
    layout.check_filename("label_filename", filename)


@pytest.mark.parametrize("filename", ["/etc/passwd", "../labels", "sub/../../x", "a\\b", "a\0"])
def test_a_file_elsewhere_is_refused(filename: str) -> None:
    with pytest.raises(LoadFailed, match="leads out of the model's directory"):
        layout.check_filename("label_filename", filename)


def test_versions_are_positive_integers_without_leading_zeros(tmp_path: Path) -> None:
    for name in (
        "1",
        "12",
        "3",
        "0",
        "01",
        "-1",
        "1.5",
        "v1",
        "١",
        "9" * 20,
        str(2**63),
        str(2**63 - 1),
    ):
        (tmp_path / name).mkdir()
    write(tmp_path / "4")
    (tmp_path / "5").symlink_to("5")
    assert layout.list_versions(tmp_path) == (1, 3, 12, 2**63 - 1)
    assert layout.list_versions(tmp_path / "missing") == ()


def test_models_are_directories_that_look_like_one(tmp_path: Path) -> None:
    write(tmp_path / "versioned/1/anything")
    write(tmp_path / "configured/config.json")
    write(tmp_path / "flat/model.onnx")
    write(tmp_path / "data/digits.csv")
    write(tmp_path / ".git/1/x")
    write(tmp_path / "__pycache__/1/x")
    write(tmp_path / "loose.onnx")
    (tmp_path / "linked").symlink_to(tmp_path / "versioned")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "below_a_file").symlink_to("loose.onnx/1")
    assert layout.model_names(tmp_path) == ["configured", "linked", "versioned"]
    assert "flat" in layout.model_names(tmp_path, ["model.onnx"])
    assert layout.model_names(tmp_path / "missing") == []


def test_a_directory_that_nobody_may_read_is_a_model_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for those that file systems make."""
    for name in ("locked", "listed", "lost+found", "open", "data"):
        write(tmp_path / name / "rows.csv")
    write(tmp_path / "open/1/model.onnx")
    lock(monkeypatch, tmp_path / "locked", tmp_path / "lost+found")
    lock(monkeypatch, tmp_path / "listed", may_list=True)
    assert layout.model_names(tmp_path) == ["listed", "locked", "open"]
    assert layout.why_unreadable(tmp_path / "locked") == "permission denied"
    assert layout.why_unreadable(tmp_path / "listed") == "permission denied"
    assert layout.why_unreadable(tmp_path / "open") == ""
    assert layout.why_unreadable(tmp_path / "missing") == ""


@pytest.mark.parametrize("name", ["config.pbtxt", "config.json", "config.yaml", "config.yml"])
def test_any_form_of_configuration_is_found(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert layout.find_config(tmp_path) == path
    assert layout.find_config(tmp_path, "fast") == path


def test_there_may_be_no_configuration(tmp_path: Path) -> None:
    assert layout.find_config(tmp_path) is None


def test_two_configurations_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "config.pbtxt")
    write(tmp_path / "config.yaml")
    with pytest.raises(LoadFailed, match=r"has config\.pbtxt and config\.yaml; keep one"):
        layout.find_config(tmp_path)


def test_a_configuration_that_is_no_file_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").mkdir()
    with pytest.raises(LoadFailed, match=r"^config\.pbtxt is no file$"):
        layout.find_config(tmp_path)
    (tmp_path / "config.pbtxt").rmdir()
    (tmp_path / "config.json").symlink_to("missing")
    with pytest.raises(LoadFailed, match=r"^config\.json is no file$"):
        layout.find_config(tmp_path)


def test_an_alternative_configuration_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "config.pbtxt")
    path = write(tmp_path / "configs/fast.pbtxt")
    assert layout.find_config(tmp_path, "fast") == path


def test_labels_are_lines(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("cat\r\n\nδog\u2028x\n\n\n".encode())
    assert layout.read_labels(tmp_path, "labels.txt") == ("cat", "", "δog\u2028x")


def test_labels_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "labels.txt", "a\nb\nc\n")
    monkeypatch.setattr(layout, "MOST_LABELS", 2)
    with pytest.raises(LoadFailed, match=r"'labels\.txt' has 3 lines, and at most 2"):
        layout.read_labels(tmp_path, "labels.txt")
    monkeypatch.setattr(layout, "MOST_LABEL_BYTES", 4)
    with pytest.raises(LoadFailed, match="larger than the 4 bytes"):
        layout.read_labels(tmp_path, "labels.txt")


def test_a_missing_file_is_told_without_its_place_on_the_machine(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        layout.read_labels(tmp_path, "labels.txt")
    assert caught.value.text == "label file 'labels.txt' cannot be read: no such file or directory"


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_bytes(b"name: \xff")
    with pytest.raises(LoadFailed, match=r"config\.pbtxt is not UTF-8: byte 6"):
        layout.read_text(tmp_path / "config.pbtxt", "config.pbtxt")


def test_a_signature_stands_while_nothing_changes(tmp_path: Path) -> None:
    write(tmp_path / "config.pbtxt", "x")
    write(tmp_path / "1/model.py", "x")
    before = layout.sign(tmp_path)
    write(tmp_path / "1/__pycache__/model.cpython-311.pyc")
    assert layout.sign(tmp_path) == before
    assert [entry[0] for entry in before] == ["1/model.py", "config.pbtxt"]


@pytest.mark.parametrize("change", ["content", "time", "new", "gone"])
def test_a_signature_tells_of_changes(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "1/model.py", "x")
    before = layout.sign(tmp_path)
    match change:
        case "content":
            path.write_text("xy")
        case "time":
            os.utime(path, ns=(1, 1))
        case "new":
            write(tmp_path / "1/extra")
        case "gone":
            path.unlink()
    assert layout.sign(tmp_path) != before


def test_a_signature_may_leave_versions_out(tmp_path: Path) -> None:
    write(tmp_path / "config.pbtxt", "x")
    write(tmp_path / "1/model.py", "x")
    write(tmp_path / "shared/1/x", "x")
    names = [entry[0] for entry in layout.sign(tmp_path, without=["1"])]
    assert names == ["config.pbtxt", "shared/1/x"]
