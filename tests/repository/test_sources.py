import errno
import json
from pathlib import Path

import pytest

from modelport.errors import LoadFailed
from modelport.repository import sources
from modelport.repository.sources import (
    DirectorySource,
    FileSource,
    OvmsSource,
    RepositorySource,
    recognise,
)

TRITON = "class TritonPythonModel:\n    def execute(self, requests): ...\n"
DECLARED = """\
import modelport

@modelport.model(name="double", inputs={}, outputs={})
def twice(x): ...

@modelport.model(inputs={}, outputs={})
def half(x): ...
"""


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_directory_of_models_is_a_repository(tmp_path: Path) -> None:
    write(tmp_path / "a/1/model.onnx")
    write(tmp_path / "b/config.pbtxt")
    write(tmp_path / "README.md")
    source = recognise(str(tmp_path))
    assert isinstance(source, RepositorySource)
    assert source.names() == ["a", "b"]
    place = source.find("a")
    assert place is not None
    assert place.directory == tmp_path / "a"
    assert source.find("README.md") is None
    assert source.find("c") is None


def test_an_empty_directory_is_a_repository_to_be_filled(tmp_path: Path) -> None:
    source = recognise(str(tmp_path))
    assert source.names() == []
    write(tmp_path / "a/model.onnx")
    assert source.names() == ["a"]


def test_a_directory_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(LoadFailed, match="cannot be read: permission denied"):
        recognise(str(tmp_path))


@pytest.mark.parametrize("file", ["1/model.onnx", "config.yaml", "model.skops"])
def test_a_model_directory_is_a_model_of_its_name(tmp_path: Path, file: str) -> None:
    write(tmp_path / "resnet" / file)
    source = recognise(f"{tmp_path}/resnet/")
    assert isinstance(source, DirectorySource)
    assert source.names() == ["resnet"]
    place = source.find("resnet")
    assert place is not None
    assert place.directory == tmp_path / "resnet"
    assert place.file is None
    assert source.find("other") is None


@pytest.mark.parametrize(
    ("file", "name", "backend"),
    [
        ("iris.skops", "iris", "sklearn"),
        ("resnet-50.onnx", "resnet-50", "onnxruntime"),
        ("digits/model.onnx", "digits", "onnxruntime"),
        ("digits/12/model.onnx", "digits", "onnxruntime"),
    ],
)
def test_a_model_file_is_a_model_of_its_stem(
    tmp_path: Path, file: str, name: str, backend: str
) -> None:
    path = write(tmp_path / file)
    source = recognise(str(path))
    assert source.names() == [name]
    place = source.find(name)
    assert place is not None
    assert (place.directory, place.file) == (path.parent, path)
    assert place.config.backend == backend
    assert place.config.default_model_filename == path.name
    path.unlink()
    assert source.find(name) is None


def test_a_triton_model_py_is_named_by_its_file_or_its_directory(tmp_path: Path) -> None:
    assert recognise(str(write(tmp_path / "affine.py", TRITON))).names() == ["affine"]
    assert recognise(str(write(tmp_path / "affine/1/model.py", TRITON))).names() == ["affine"]
    assert recognise(str(write(tmp_path / "plus/model.py", TRITON))).names() == ["plus"]


def test_python_code_is_every_model_that_it_declares(tmp_path: Path) -> None:
    source = recognise(str(write(tmp_path / "models.py", DECLARED)))
    assert source.names() == ["double", "half"]
    place = source.find("double")
    assert place is not None
    assert place.attribute == "twice"


def test_one_object_of_a_file_or_module_may_be_picked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "picked_models.py", DECLARED)
    by_path = recognise(f"{path}:twice")
    assert by_path.names() == ["double"]
    monkeypatch.syspath_prepend(tmp_path)
    assert recognise("picked_models:half").names() == ["half"]
    assert recognise("picked_models").names() == ["double", "half"]
    assert isinstance(by_path, FileSource)
    assert by_path.path == path


def test_looking_at_code_does_not_run_it(tmp_path: Path) -> None:
    path = write(tmp_path / "loud.py", f"raise SystemExit\n{TRITON}")
    assert recognise(str(path)).names() == ["loud"]


@pytest.mark.parametrize(
    ("target", "texts"),
    [
        ("missing", ["'missing' does not exist", "model repository", "module:object"]),
        ("no.such.module:thing", ["no Python file or module 'no.such.module'"]),
        ("notes", ["neither a model repository nor a model", "config.pbtxt", "1/", "model.onnx"]),
        ("notes/todo.txt", ["todo.txt", ".onnx", ".skops"]),
        ("plain.py", ["plain.py", "TritonPythonModel", "@modelport.model"]),
        ("broken.py", ["broken.py", "line 1"]),
        ("twins.py", ["two models of the name 'a'"]),
    ],
)
def test_what_is_not_recognised_says_what_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, texts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "notes/todo.txt")
    write(tmp_path / "plain.py", "x = 1\n")
    write(tmp_path / "broken.py", "def (\n")
    twin = '@modelport.model(name="a")\ndef f{}(x): ...\n'
    write(tmp_path / "twins.py", "import modelport\n" + twin.format(1) + twin.format(2))
    with pytest.raises(LoadFailed) as caught:
        recognise(target)
    for text in texts:
        assert text in caught.value.text


# The list of OVMS.


def test_the_list_of_ovms_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    entries = [
        {"config": {"name": "near", "base_path": "there"}},
        {"config": {"name": "far", "base_path": "/nowhere"}},
    ]
    path = write(tmp_path / "config.json", json.dumps({"model_config_list": entries}))
    source = recognise(str(path))
    assert isinstance(source, OvmsSource)
    assert repr(source) == "<OvmsSource config.json models=2>"
    assert source.names() == ["far", "near"]
    place = source.find("near")
    assert place is not None
    assert place.directory == tmp_path / "there"
    assert place.config.parameter("ovms") == "true"
    assert source.find("far") is None
    assert list(source.stamps()) == ["near"]


def test_a_list_of_ovms_says_which_of_its_directories_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / "here/1/model.onnx")
    entries = [{"config": {"name": n, "base_path": n}} for n in ("here", "gone")]
    source = recognise(str(write(tmp_path / "config.json", listed(*entries))))
    assert source.fault("gone") == "its base_path in config.json is no directory that there is"
    assert source.fault("here") == source.fault("unknown") == ""


def test_a_list_of_ovms_is_read_again_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for each model that is looked for: a thousand took ten seconds."""
    write(tmp_path / "m/1/model.onnx")
    path = write(tmp_path / "config.json", listed({"config": {"name": "m", "base_path": "m"}}))
    source = recognise(str(path))
    with monkeypatch.context() as patch:
        patch.setattr(sources, "decode_ovms", None)
        assert source.find("m") is not None
    write(path, listed({"config": {"name": "n", "base_path": "m"}}))
    assert (source.find("m"), source.names()) == (None, ["n"])
    write(path, listed({"config": {"name": "n/..", "base_path": "m"}}))
    assert source.find("n") is not None, "what was read last counts"
    with pytest.raises(LoadFailed, match=r"^config\.json: invalid model name"):
        source.stamps()


def listed(*entries: object) -> str:
    return json.dumps({"model_config_list": entries})


def test_a_list_of_ovms_that_cannot_be_read_is_an_error_that_says_where(tmp_path: Path) -> None:
    text = '{"model_config_list": [{"config": {"name": "m"}}]}'
    path = write(tmp_path / "config.json", text)
    with pytest.raises(
        LoadFailed,
        match=r"^config\.json: model_config_list\[0\]\.config\.base_path: must be a text",
    ):
        recognise(str(path))
