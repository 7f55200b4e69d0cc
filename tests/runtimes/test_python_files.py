from pathlib import Path
from textwrap import dedent

import pytest

from modelport.errors import LoadFailed
from modelport.runtimes.python_files import PythonModel, models_in_file

DECLARATION = "inputs={}, outputs={'y': 'FP32[1]'}"


def found(tmp_path: Path, text: str) -> list[tuple[str, str, str]]:
    path = tmp_path / "resize.py"
    path.write_text(dedent(text))
    return [(model.name, model.attribute, model.runtime) for model in models_in_file(path)]


@pytest.mark.parametrize(
    "imported",
    [
        "import modelport\n@modelport.model(...)",
        "import modelport as mp\n@mp.model(...)",
        "from modelport import model\n@model(...)",
        "from modelport import model as served\n@served(...)",
        "try:\n    import modelport\nexcept ImportError:\n    raise\n@modelport.model(...)",
    ],
)
@pytest.mark.parametrize("kind", ["def tried(): ...", "async def tried(): ...", "class tried: ..."])
def test_decorator_is_found_however_it_was_imported(
    tmp_path: Path, imported: str, kind: str
) -> None:
    text = imported.replace("...", DECLARATION) + "\n" + kind
    assert found(tmp_path, text) == [("tried", "tried", "python")]


@pytest.mark.parametrize(
    "text",
    [
        "@model()\ndef tried(): ...",
        "from other import model\n@model()\ndef tried(): ...",
        "import modelport\n@modelport.chat()\ndef tried(): ...",
        "import modelport\ndef outer():\n    @modelport.model()\n    def tried(): ...",
        "x = 1",
        "",
    ],
)
def test_other_things_are_no_models(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


def test_models_keep_their_order_and_take_the_name_given(tmp_path: Path) -> None:
    text = """
        import modelport

        @modelport.model(inputs={}, outputs={})
        def first(): ...

        @modelport.model(name="renamed", inputs={}, outputs={})
        class Second: ...

        third = modelport.model(inputs={}, outputs={})(print)
    """
    assert found(tmp_path, text) == [
        ("first", "first", "python"),
        ("renamed", "Second", "python"),
        ("third", "third", "python"),
    ]


def test_model_may_depend_on_a_condition(tmp_path: Path) -> None:
    text = """
        import modelport
        if modelport:
            @modelport.model(inputs={}, outputs={})
            def one(): ...
        else:
            class TritonPythonModel: ...
    """
    assert [name for name, _, _ in found(tmp_path, text)] == ["one", "resize"]


@pytest.mark.parametrize(
    "text",
    [
        "class TritonPythonModel:\n    def execute(self, requests): ...",
        "from implementation import TritonPythonModel",
        "from implementation import Model as TritonPythonModel",
        "TritonPythonModel = make()",
    ],
)
def test_class_of_triton_is_named_after_its_file(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == [("resize", "TritonPythonModel", "triton_python")]


def test_nothing_of_the_file_is_run(tmp_path: Path) -> None:
    assert found(tmp_path, "raise SystemExit('run')\nclass TritonPythonModel: ...") != []


def test_broken_file_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"^'resize\.py' line 2: "):
        found(tmp_path, "x = 1\ndef broken(:\n")


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_bytes(b"\0\xff")
    with pytest.raises(LoadFailed, match=r"'model\.py'"):
        models_in_file(path)
    with pytest.raises(LoadFailed, match=r"'gone\.py' cannot be read: no such file"):
        models_in_file(tmp_path / "gone.py")


def test_models_are_values() -> None:
    assert PythonModel("a", "b", "python") == PythonModel("a", "b", "python")
