from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelport.errors import LoadFailed
from modelport.repository.loading import Choice, LoadOptions, ModelVersion, bring_up
from modelport.repository.reading import read_model
from modelport.repository.sources import OvmsSource, RepositorySource
from modelport.runtimes.base import ModelSource
from modelport.specs import ModelConfig

from .conftest import FakeRuntime

Bench = Any
AFFINE = """\
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "X", "data_type": "TYPE_FP32", "dims": [10]})
        config.add_output({"name": "Y", "data_type": "TYPE_FP32", "dims": [10]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        return []
"""
BARE = "class TritonPythonModel:\n    def execute(self, requests): ...\n"


@pytest.fixture
def bring(bench: Bench) -> Callable[..., ModelVersion]:
    """Bring a model of the bench up; its real runtime unless ``options`` say otherwise."""

    def bring_it(name: str = "m", options: LoadOptions | None = None) -> ModelVersion:
        reading = read_model([RepositorySource(bench.root)], name)
        assert reading is not None
        version = max(reading.directory_by_version)
        return bring_up(reading, version, {}, bench.host, options or LoadOptions())

    return bring_it


def test_a_model_py_without_configuration_completes_itself(
    bench: Bench, bring: Callable[..., ModelVersion]
) -> None:
    bench.write("m/1/model.py", AFFINE)
    loaded = bring()
    assert [tensor.name for tensor in loaded.config.input] == ["X"]
    assert [tensor.name for tensor in loaded.config.output] == ["Y"]
    assert (loaded.config.backend, loaded.config.default_model_filename) == ("python", "model.py")
    assert loaded.instance_names == ["m_0_0"]
    loaded.unload()


def test_a_model_listed_for_ovms_is_held_to_the_shape_that_is_asked_for(bench: Bench) -> None:
    bench.write("m/1/model.py", AFFINE.replace('"dims": [10]', '"dims": [-1, -1]'))
    for shape, expected in (("(1,10)", (1, 10)), ("(-1,5)", (-1, 5))):
        entry = {"config": {"name": "m", "base_path": "m", "shape": {"X": shape}}}
        bench.write("config.json", {"model_config_list": [entry]})
        reading = read_model([OvmsSource(bench.root / "config.json")], "m")
        assert reading is not None
        loaded = bring_up(reading, 1, {}, bench.host, LoadOptions())
        assert loaded.config.input[0].dims == expected
        loaded.unload()


def test_a_model_py_that_tells_nothing_is_refused_with_the_remedy(
    bench: Bench, bring: Callable[..., ModelVersion]
) -> None:
    bench.write("m/1/model.py", BARE)
    with pytest.raises(LoadFailed) as caught:
        bring()
    assert "neither inputs nor outputs" in caught.value.text
    assert "auto_complete_config, or in a config.pbtxt" in caught.value.text


def test_default_batch_size_of_the_operator_reaches_the_runtime(
    bench: Bench, bring: Callable[..., ModelVersion]
) -> None:
    bench.model("m")
    seen: list[int] = []

    class Asking(FakeRuntime):
        @classmethod
        def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
            seen.append(source.default_max_batch_size)
            return super().complete(source, config)

    def choose(config: ModelConfig, directory: Path) -> Choice:
        return Choice(Asking, "fake", "model.fake")

    bring(options=LoadOptions(choose=choose, default_max_batch_size=32))
    bring(options=LoadOptions(choose=choose))
    assert seen == [32, 4]


def test_with_auto_complete_off_the_file_is_not_asked(
    bench: Bench, bring: Callable[..., ModelVersion]
) -> None:
    bench.write("m/1/model.py", AFFINE)
    with pytest.raises(LoadFailed, match="auto-complete is off"):
        bring(options=LoadOptions(auto_complete=False))


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"m/1/readme": ""}, "model.onnx"),
        ({"m/1/readme": "", "m/config.pbtxt": 'backend: "python"'}, "has no 'model.py'; it has "),
        ({"m/1/model.py": AFFINE, "m/config.pbtxt": 'backend: "quantum"'}, "backend 'quantum'"),
        (
            {"m/1/model.py": AFFINE, "m/config.pbtxt": "instance_group { kind: KIND_GPU }"},
            "wants a GPU, and",
        ),
        ({"m/1/model.py": AFFINE, "m/config.pbtxt": 'name: "n"'}, 'the directory is called "m"'),
        (
            {"m/1/model.py": AFFINE, "m/config.pbtxt": "model_operations {}"},
            "model_operations",
        ),
        (
            {
                "m/1/model.py": AFFINE,
                "m/config.pbtxt": 'output { name: "Y" label_filename: "none.txt" }',
            },
            "label file 'none.txt' cannot be read",
        ),
        (
            {"m/1/model.py": AFFINE, "m/config.pbtxt": "max_batch_size: -1"},
            "max_batch_size is -1; it cannot be below 0",
        ),
        (
            {
                "m/1/model.py": AFFINE,
                "m/config.pbtxt": 'input [{ name: "X" dims: 1 }, { name: "X" dims: 2 }]',
            },
            'input "X" is listed twice; names have to differ',
        ),
        ({"m/1/model.py": "raise SystemExit(0)\n" + BARE}, "SystemExit"),
        ({"m/1/model.py": "import no_such_module\n" + BARE}, "no_such_module"),
    ],
)
def test_what_stands_in_the_way_is_told(
    bench: Bench, bring: Callable[..., ModelVersion], files: dict[str, str], text: str
) -> None:
    for path, content in files.items():
        bench.write(path, content)
    with pytest.raises(LoadFailed) as caught:
        bring()
    assert text in caught.value.text


def test_a_model_file_that_is_a_link_to_nowhere_is_told(
    bench: Bench, bring: Callable[..., ModelVersion]
) -> None:
    bench.write("m/config.pbtxt", 'backend: "python"')
    (bench.root / "m/1").mkdir()
    (bench.root / "m/1/model.py").symlink_to("missing")
    with pytest.raises(LoadFailed, match=r"'model\.py' is a link that leads nowhere$"):
        bring()


def test_a_version_directory_that_is_empty_says_what_belongs_there(
    bench: Bench, bring: Callable[..., ModelVersion]
) -> None:
    (bench.root / "m/1").mkdir(parents=True)
    with pytest.raises(LoadFailed, match=r"model\.onnx.*nothing"):
        bring()


def test_paths_of_this_machine_stay_here(bench: Bench, bring: Callable[..., ModelVersion]) -> None:
    body = "    def initialize(self, args):\n        raise OSError({!r})\n"
    told = f"open {bench.root}/m/1/w.bin and /opt/lib/x.so, see http://host/a/b"
    bench.write("m/1/model.py", AFFINE + body.format(told))
    with pytest.raises(LoadFailed) as caught:
        bring()
    assert "open w.bin and x.so, see http://host/a/b" in caught.value.text
    assert str(bench.root) not in caught.value.text


class _Instance:
    def __init__(self, log: list[str], name: str, *, fails: bool = False) -> None:
        self.log, self.name, self.fails = log, name, fails

    def unload(self) -> None:
        self.log.append(self.name)
        if self.fails:
            raise ValueError(self.name)


def test_unloading_goes_through_all_instances_once() -> None:
    log: list[str] = []
    instances: list[Any] = [_Instance(log, "a"), _Instance(log, "b", fails=True)]
    version = ModelVersion("m", 1, ModelConfig(), "{}", instances=instances)
    with pytest.raises(ValueError, match="b"):
        version.unload()
    version.unload()
    assert log == ["b", "a"]


def test_a_loaded_version_says_what_it_is(tmp_path: Path) -> None:
    assert repr(ModelVersion("m", 3, ModelConfig(), "{}")) == "<ModelVersion m v3 instances=0>"
