import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from modelport.errors import LoadFailed
from modelport.runtimes.registry import (
    RUNTIMES,
    RuntimeRow,
    choose_runtime,
    find_runtime,
    import_runtime,
    runtime_for_file,
    runtime_for_files,
)
from modelport.specs import ModelConfig, Parameter

OURS = """
    import modelport

    @modelport.model(inputs={}, outputs={"y": "FP32[1]"})
    def tried():
        return 1
"""
TRITONS = "class TritonPythonModel: ..."


def write(directory: Path, *names: str, text: str = "") -> Path:
    for name in names:
        (directory / name).write_text(dedent(text))
    return directory


def chosen(config: ModelConfig, directory: Path) -> tuple[str, str]:
    row, filename = choose_runtime(config, directory)
    return row.name, filename


@pytest.mark.parametrize(
    ("backend", "platform", "name"),
    [
        ("onnxruntime", "", "onnx"),
        ("onnx", "", "onnx"),
        ("", "onnxruntime_onnx", "onnx"),
        ("onnxruntime", "onnxruntime_onnx", "onnx"),
        ("sklearn", "", "sklearn"),
        ("xgboost", "", "xgboost"),
        ("lightgbm", "", "lightgbm"),
        ("openvino", "", "openvino"),
        ("pytorch", "", "torch"),
        ("torch", "", "torch"),
        ("", "pytorch_libtorch", "torch"),
        ("python", "", "triton_python"),
        ("modelport", "", "python"),
    ],
)
def test_backend_or_platform_decides(backend: str, platform: str, name: str) -> None:
    row = find_runtime(backend, platform)
    assert row is not None
    assert row.name == name


def test_silent_configuration_decides_nothing() -> None:
    assert find_runtime("", "") is None


@pytest.mark.parametrize(
    ("backend", "platform", "told"),
    [
        ("tensorrt", "", "there is no plan for it"),
        ("", "tensorflow_savedmodel", "platform 'tensorflow_savedmodel' is known.*tf2onnx"),
        ("vllm", "", "language models come in a later release"),
        (
            "onxruntime",
            "",
            "is not one that this server has; it has onnxruntime, sklearn, .*python",
        ),
        ("", "caffe2_netdef", "platform 'caffe2_netdef' is not one"),
    ],
)
def test_backend_that_is_not_there_is_refused_by_what_is_known_of_it(
    backend: str, platform: str, told: str
) -> None:
    with pytest.raises(LoadFailed, match=told):
        find_runtime(backend, platform)


def test_installed_packages_add_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str, name: str) -> list[EntryPoint]:
        assert group == "modelport.runtimes"
        return [EntryPoint(name, "their_package:Their", group)] if name == "theirs" else []

    module = ModuleType("their_package")
    module.Their = type("Their", (), {})  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.setitem(sys.modules, "their_package", module)
    row = find_runtime("theirs")
    assert row is not None
    assert import_runtime(row).__name__ == "Their"
    with pytest.raises(LoadFailed, match="'nobodys' is not one"):
        find_runtime("nobodys")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["model.onnx"], ("onnx", "model.onnx")),
        (["readme.md", "weights.onnx"], ("onnx", "weights.onnx")),
        (["model.skops", "labels.txt"], ("sklearn", "model.skops")),
        (["model.joblib"], ("sklearn", "model.joblib")),
        (["model.ubj"], ("xgboost", "model.ubj")),
        (["labels.txt"], None),
        (["model.txt"], ("lightgbm", "model.txt")),
        (["model.py", "weights.onnx"], ("triton_python", "model.py")),
        (["a.onnx", "b.onnx"], None),
        (["helpers.py"], None),
        ([], None),
    ],
)
def test_files_suggest_a_runtime(names: list[str], found: tuple[str, str] | None) -> None:
    suggested = runtime_for_files(names)
    assert (None if suggested is None else (suggested[0].name, suggested[1])) == found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("model.plan", "a model file of tensorrt; there is no plan"),
        (
            "model.txt",
            r"no model file that this server can read; it reads \.onnx, \.skops, .*\.txt",
        ),
    ],
)
def test_single_file_that_cannot_be_read_is_refused(name: str, told: str) -> None:
    with pytest.raises(LoadFailed, match=told):
        runtime_for_file(Path(name))


@pytest.mark.parametrize(
    ("name", "text", "runtime"),
    [
        ("iris.json", '{"learner":{"attributes":{}', "xgboost"),
        ("iris.txt", "tree\nversion=v4\n", "lightgbm"),
        ("iris.ubj", "", "xgboost"),
        ("iris.pkl", "", "sklearn"),
    ],
)
def test_single_file_is_told_by_its_ending_or_its_beginning(
    tmp_path: Path, name: str, text: str, runtime: str
) -> None:
    write(tmp_path, name, text=text)
    assert runtime_for_file(tmp_path / name).name == runtime


@pytest.mark.parametrize("name", ["notes.txt", "data.json"])
def test_ending_that_others_use_too_does_not_suffice(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, text="anything")
    with pytest.raises(LoadFailed, match="no model file that this server can read"):
        runtime_for_file(tmp_path / name)


class TestChoice:
    @pytest.mark.parametrize(
        ("model_type", "filename", "chosen_row"),
        [
            ("xgboost_ubj", "xgboost.ubj", "xgboost"),
            ("xgboost_json", "xgboost.json", "xgboost"),
            ("xgboost", "xgboost.model", "xgboost"),
            ("lightgbm", "model.txt", "lightgbm"),
            ("lightgbm", "leaves.txt", "lightgbm"),
        ],
    )
    def test_fil_reads_what_its_model_type_says(
        self, tmp_path: Path, model_type: str, filename: str, chosen_row: str
    ) -> None:
        write(tmp_path, filename)
        parameters = {"model_type": Parameter(string_value=model_type)}
        config = ModelConfig(backend="fil", parameters=parameters)
        assert chosen(config, tmp_path) == (chosen_row, filename)

    def test_openvino_reads_onnx_where_the_configuration_says_so(self, tmp_path: Path) -> None:
        write(tmp_path, "model.onnx")
        assert chosen(ModelConfig(backend="openvino"), tmp_path) == ("openvino", "model.onnx")
        assert chosen(ModelConfig(), tmp_path) == ("onnx", "model.onnx")

    def test_fil_with_a_model_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        parameters = {"model_type": Parameter(string_value="treelite_checkpoint")}
        with pytest.raises(LoadFailed, match="'treelite_checkpoint'; forests are read from xgb"):
            choose_runtime(ModelConfig(backend="fil", parameters=parameters), tmp_path)

    def test_file_decides_where_the_configuration_is_silent(self, tmp_path: Path) -> None:
        write(tmp_path, "model.onnx")
        assert chosen(ModelConfig(), tmp_path) == ("onnx", "model.onnx")

    def test_configured_file_name_decides(self, tmp_path: Path) -> None:
        write(tmp_path, "model.onnx", "other.skops")
        config = ModelConfig(default_model_filename="other.skops")
        assert chosen(config, tmp_path) == ("sklearn", "other.skops")

    def test_backend_decides_before_file_names(self, tmp_path: Path) -> None:
        write(tmp_path, "model.onnx", "model.skops")
        assert chosen(ModelConfig(backend="sklearn"), tmp_path) == ("sklearn", "model.skops")

    def test_only_file_of_its_kind_may_have_any_name(self, tmp_path: Path) -> None:
        write(tmp_path, "resnet.onnx", "labels.txt")
        assert chosen(ModelConfig(backend="onnxruntime"), tmp_path) == ("onnx", "resnet.onnx")

    @pytest.mark.parametrize(
        ("text", "name"),
        [(OURS, "python"), (TRITONS, "triton_python"), (OURS + TRITONS, "triton_python")],
    )
    @pytest.mark.parametrize("backend", ["", "python"])
    def test_python_file_is_asked_what_it_is(
        self, tmp_path: Path, backend: str, text: str, name: str
    ) -> None:
        write(tmp_path, "model.py", text=dedent(text.replace(TRITONS, "    " + TRITONS)))
        assert chosen(ModelConfig(backend=backend), tmp_path) == (name, "model.py")

    def test_python_file_without_a_declaration_may_have_functions(self, tmp_path: Path) -> None:
        write(tmp_path, "model.py", text="x = 1")
        assert chosen(ModelConfig(backend="python"), tmp_path) == ("python", "model.py")

    def test_nothing_decides(self, tmp_path: Path) -> None:
        directory = tmp_path / "3"
        directory.mkdir()
        write(directory, "weights.bin")
        with pytest.raises(LoadFailed) as failed:
            choose_runtime(ModelConfig(name="resnet"), directory)
        usual = dict.fromkeys(name for row in RUNTIMES for name in row.filenames)
        assert {"model.onnx", "model.skops", "model.txt", "model.py"} <= set(usual)
        assert str(failed.value) == (
            "cannot tell what executes model 'resnet' version 3: its configuration gives no "
            f"backend, and its directory has none of {', '.join(usual)} (found: weights.bin)"
        )

    @pytest.mark.parametrize(("name", "told"), [("model.plan", "model file of tensorrt")])
    def test_file_of_another_kind_is_told_by_its_kind(
        self, tmp_path: Path, name: str, told: str
    ) -> None:
        write(tmp_path, name)
        with pytest.raises(LoadFailed, match=told):
            choose_runtime(ModelConfig(), tmp_path)


class TestImport:
    def test_missing_framework_is_told_with_its_command(self) -> None:
        row = RuntimeRow("x", "framework_that_is_not_there:Runtime", "x", extra="x")
        with pytest.raises(LoadFailed, match=r"'framework_that_is_not_there'.*'modelport\[x\]'"):
            import_runtime(row)

    def test_missing_module_of_a_third_party_names_no_extra(self) -> None:
        row = RuntimeRow("x", "framework_that_is_not_there:Runtime", "x")
        with pytest.raises(LoadFailed, match=r"no module 'framework_that_is_not_there'$"):
            import_runtime(row)

    def test_framework_that_does_not_import_is_told_as_such(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "broken_framework.py").write_text("raise ImportError('libfoo.so is missing')")
        monkeypatch.syspath_prepend(tmp_path)
        row = RuntimeRow("x", "broken_framework:Runtime", "x", extra="x")
        with pytest.raises(LoadFailed, match=r"\(libfoo.so is missing\); reinstall it with"):
            import_runtime(row)

    @pytest.mark.parametrize("row", RUNTIMES, ids=lambda row: row.name)
    def test_every_row_is_a_runtime(self, row: RuntimeRow) -> None:
        if row.name == "torch":
            pytest.importorskip("torch", reason="PyTorch is not installed; it is large")
        runtime = import_runtime(row)
        for method in ("complete", "load", "execute", "is_ready", "unload"):
            assert callable(getattr(runtime, method))
        assert runtime.default_filename == row.filenames[0]


def test_names_of_rows_are_unique() -> None:
    names = [row.name for row in RUNTIMES]
    assert len(set(names)) == len(names)
