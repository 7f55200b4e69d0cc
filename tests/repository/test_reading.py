import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelport.errors import LoadFailed
from modelport.repository.reading import Override, Reading, read_model
from modelport.repository.sources import RepositorySource, recognise


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(root: Path, name: str = "m", **options: Any) -> Reading:
    reading = read_model([RepositorySource(root)], name, **options)
    assert reading is not None
    return reading


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.pbtxt", 'backend: "python" max_batch_size: 8'),
        ("config.json", '{"backend": "python", "max_batch_size": 8}'),
        ("config.yaml", "backend: python\nmax_batch_size: 8\n"),
        ("config.yml", "{backend: python, maxBatchSize: 8}"),
    ],
)
def test_every_form_of_configuration_says_the_same(tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path / "m" / file, text)
    config = read(tmp_path).config
    assert (config.name, config.backend, config.max_batch_size) == ("m", "python", 8)


def test_a_model_without_configuration_has_its_name(tmp_path: Path) -> None:
    write(tmp_path / "m/1/model.py")
    reading = read(tmp_path)
    assert reading.config.name == "m"
    assert reading.directory_by_version == {1: tmp_path / "m/1"}


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_model([RepositorySource(tmp_path)], "m") is None


def test_a_name_in_two_repositories_is_refused(tmp_path: Path) -> None:
    for root in ("a", "b"):
        write(tmp_path / root / "m/1/model.py")
    sources = [RepositorySource(tmp_path / "a"), RepositorySource(tmp_path / "b")]
    with pytest.raises(LoadFailed, match=r"'m' is not unique: 2 of the repositories"):
        read_model(sources, "m")


def test_a_fault_in_a_configuration_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "m/config.json", '{"max_batch_size": "many"}')
    with pytest.raises(LoadFailed, match=r"^config\.json: .*max_batch_size"):
        read(tmp_path)


def test_an_alternative_configuration_may_be_picked(tmp_path: Path) -> None:
    write(tmp_path / "m/config.pbtxt", "max_batch_size: 1")
    write(tmp_path / "m/configs/fast.pbtxt", "max_batch_size: 32")
    assert read(tmp_path, config_name="fast").config.max_batch_size == 32
    assert read(tmp_path, config_name="other").config.max_batch_size == 1


def test_an_override_replaces_the_fields_that_it_gives(tmp_path: Path) -> None:
    write(
        tmp_path / "m/config.json",
        json.dumps({"max_batch_size": 8, "backend": "python", "parameters": {"k": "v"}}),
    )
    config = read(
        tmp_path, override=Override('{"maxBatchSize": 0, "metric_tags": {"a": "b"}}')
    ).config
    assert config.max_batch_size == 0
    assert config.backend == "python"
    assert config.parameter("k") == "v"
    assert config.metric_tags == {"a": "b"}
    emptied = Override('{"parameters": {}, "backend": null}')
    assert read(tmp_path, override=emptied).config.parameters == {}


def test_the_version_policy_picks_directories(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write(tmp_path / f"m/{version}/model.py")
    write(tmp_path / "m/config.json", '{"version_policy": {"latest": {"num_versions": 2}}}')
    assert list(read(tmp_path).directory_by_version) == [2, 3]


def test_a_model_file_beside_the_configuration_is_version_one(tmp_path: Path) -> None:
    write(tmp_path / "m/model.onnx")
    assert read(tmp_path).directory_by_version == {1: tmp_path / "m"}
    write(tmp_path / "n/net.bin")
    write(tmp_path / "n/config.json", '{"default_model_filename": "net.bin"}')
    assert read(tmp_path, "n").directory_by_version == {1: tmp_path / "n"}


def test_a_configuration_alone_is_no_version_unless_it_is_an_ensemble(tmp_path: Path) -> None:
    write(tmp_path / "m/config.pbtxt", 'backend: "python"')
    write(tmp_path / "m/labels.txt", "a")
    assert read(tmp_path).directory_by_version == {}
    write(tmp_path / "e/config.pbtxt", 'platform: "ensemble"')
    reading = read(tmp_path, "e")
    assert reading.is_ensemble
    assert reading.directory_by_version == {1: tmp_path / "e"}


def test_each_version_has_a_signature_of_its_own_and_of_what_is_shared(tmp_path: Path) -> None:
    write(tmp_path / "m/config.json", '{"version_policy": {"all": {}}}')
    write(tmp_path / "m/1/model.py")
    write(tmp_path / "m/2/model.py")
    before = read(tmp_path).signature_by_version
    assert read(tmp_path).signature_by_version == before
    write(tmp_path / "m/2/model.py", "changed")
    after = read(tmp_path).signature_by_version
    assert after[1] == before[1]
    assert after[2] != before[2]
    write(tmp_path / "m/labels.txt", "a")
    assert read(tmp_path).signature_by_version[1] != after[1]
    assert read(tmp_path, override=Override("{}")).signature_by_version[1] != after[1]


def test_of_a_single_file_only_itself_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "iris.skops", "x")
    sources = [recognise(str(path))]
    first = read_model(sources, "iris")
    write(tmp_path / "other.skops")
    second = read_model(sources, "iris")
    assert first == second
    write(path, "xy")
    assert read_model(sources, "iris") != first


def test_a_model_without_configuration_needs_no_reader(tmp_path: Path) -> None:
    write(tmp_path / "m/1/model.py")
    code = (
        "import sys; from pathlib import Path\n"
        "from modelport.repository.repository import Repository\n"
        "from modelport.repository.reading import read_model\n"
        "from modelport.repository.sources import recognise\n"
        "assert read_model([recognise(sys.argv[1])], 'm')\n"
        "heavy = {'yaml', 'google.protobuf', 'onnxruntime', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
