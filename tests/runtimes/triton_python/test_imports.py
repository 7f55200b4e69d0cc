import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modelport.errors import LoadFailed
from modelport.runtimes.triton_python import TritonPythonRuntime
from modelport.testing.runtime_suite import LoadedModel, load_model

from .conftest import X_TO_Y, Serve, write_model

X = np.array([1], np.float32)


def answer(model: LoadedModel) -> object:
    return model.ask({"x": X})["y"].tolist()


def test_file_beside_the_model_is_imported(serve: Serve) -> None:
    model = serve(
        """
        from parts import first
        import parts.second
        import parts.second as second
        from everything import VALUE

        def execute(self, requests):
            return [y([self.first.VALUE, self.parts.second.VALUE, self.second.VALUE, self.VALUE])
                    for request in requests]
        """,
        files={
            "everything.py": "from parts.second import *",
            "parts/__init__.py": "from . import first",
            "parts/first.py": "from shared import VALUE",
            "parts/second.py": "from .first import VALUE as other\nVALUE = other + 1",
            "../shared.py": "VALUE = 10",
        },
    )
    assert answer(model) == [10, 11, 11, 11]


def test_relative_import_works_as_in_triton(serve: Serve) -> None:
    model = serve(
        """
        from .parts import VALUE

        def execute(self, requests): return [y([self.VALUE]) for request in requests]
        """,
        files={"parts.py": "VALUE = 3"},
    )
    assert answer(model) == [3]


def test_import_inside_a_function_on_another_thread_works(serve: Serve) -> None:
    model = serve(
        """
        def execute(self, requests):
            found = []
            def look():
                from late import VALUE
                found.append(VALUE)
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return [y(found) for request in requests]
        """,
        files={"late.py": "VALUE = 4"},
    )
    assert answer(model) == [4]


def test_models_do_not_see_each_other_s_files(serve: Serve) -> None:
    methods = """
    import helper
    def execute(self, requests): return [y([self.helper.VALUE]) for request in requests]
    """
    one = serve(methods, name="one", files={"helper.py": "VALUE = 1"})
    two = serve(methods, name="two", files={"helper.py": "VALUE = 2"})
    assert (answer(one), answer(two)) == ([1], [2])
    with pytest.raises(LoadFailed, match="ModuleNotFoundError: No module named 'helper'"):
        serve(methods, name="three")
    assert "helper" not in sys.modules


def test_reload_finds_the_changed_files_however_quick(serve: Serve, tmp_path: Path) -> None:
    """Compiled files are told apart by size and second; both are the same here."""
    methods = """
    from helper import VALUE
    def execute(self, requests): return [y([self.VALUE, {value}]) for request in requests]
    """
    before = serve(methods.format(value=1), files={"helper.py": "VALUE = 1"})
    os.utime(tmp_path / "m" / "1" / "helper.py", (1, 1))
    after = serve(methods.format(value=2), files={"helper.py": "VALUE = 2"})
    os.utime(tmp_path / "m" / "1" / "helper.py", (1, 1))
    assert answer(before) == [1, 1]
    assert answer(after) == [2, 2]
    assert not list(tmp_path.rglob("__pycache__"))


def test_unload_forgets_the_modules_and_leaves_the_path_alone(tmp_path: Path) -> None:
    modules, path = set(sys.modules), list(sys.path)
    directory = tmp_path / "m" / "1"
    write_model(directory, "import helper\nexecute = print", {"helper.py": ""})
    model = load_model(TritonPythonRuntime, directory, X_TO_Y)
    assert {name.partition(".")[2] for name in set(sys.modules) - modules} >= {"model", "helper"}
    model.instance.unload()
    assert not [name for name in set(sys.modules) - modules if name.endswith("helper")]
    assert sys.path == path


def test_standard_library_goes_before_files_and_packages_before_directories(serve: Serve) -> None:
    model = serve(
        """
        import json, onnx, weights
        def execute(self, requests):
            kinds = [hasattr(self.json, "dumps"), hasattr(self.onnx, "load"),
                     hasattr(self.weights, "__path__")]
            return [y(kinds) for request in requests]
        """,
        files={"json.py": "", "onnx/model.onnx": "", "weights/data.txt": ""},
    )
    assert answer(model) == [1, 1, 1]


def test_missing_module_is_told_by_its_own_name(serve: Serve) -> None:
    with pytest.raises(LoadFailed, match="ModuleNotFoundError: No module named 'no_such_thing'"):
        serve("import no_such_thing")
    with pytest.raises(LoadFailed, match="ModuleNotFoundError: No module named 'no_such_thing'"):
        serve("import helper", files={"helper.py": "import no_such_thing"})


def test_file_knows_where_it_lies(serve: Serve, tmp_path: Path) -> None:
    model = serve(
        """
        import helper

        def execute(self, requests):
            pb_utils.Logger.log_info(__file__)
            self.helper.tell()
            log = pb_utils.Logger.log_info
            thread = threading.Thread(target=lambda: log(pb_utils.get_model_dir()))
            thread.start()
            thread.join()
            return [y(1) for request in requests]
        """,
        files={
            "helper.py": """
                import triton_python_backend_utils as pb_utils
                def tell(): pb_utils.Logger.log_info(pb_utils.get_model_dir())
                """
        },
    )
    answer(model)
    directory = str(tmp_path / "m" / "1")
    assert [line for _, line, _ in model.host.lines] == [
        os.path.join(directory, "model.py"),
        directory,
        directory,
    ]


def test_classes_of_a_model_are_ordinary_classes(serve: Serve) -> None:
    """Dataclasses, type hints and pickle look their module up by its name."""
    model = serve(
        """
        import copy, pickle, typing
        from shapes import Point

        def execute(self, requests):
            point = self.pickle.loads(self.pickle.dumps(self.Point(1)))
            hints = self.typing.get_type_hints(self.Point)
            return [y([point.x, hints == {"x": int}]) for request in requests]
        """,
        files={
            "shapes.py": """
                from __future__ import annotations
                from dataclasses import dataclass
                @dataclass
                class Point:
                    x: int
                """
        },
    )
    assert answer(model) == [1, 1]


def test_name_of_a_model_may_be_anything(serve: Serve) -> None:
    model = serve(
        """
        import helper
        def execute(self, requests): return [y([self.helper.VALUE]) for request in requests]
        """,
        name="a-model.v2 (new)",
        files={"helper.py": "VALUE = 5"},
    )
    assert answer(model) == [5]


def test_model_s_own_copy_of_the_utils_is_not_used(serve: Serve) -> None:
    model = serve(
        "def execute(self, requests): return [y(1) for request in requests]",
        files={"triton_python_backend_utils.py": "raise ImportError('a stub for editors')"},
    )
    assert answer(model) == 1


def test_models_that_are_loaded_side_by_side_import_packages_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads inside packages that import each other get one that is half finished."""
    installed = tmp_path / "installed"
    installed.mkdir()
    names = [f"slowly_imported_{number}" for number in range(4)]
    for name in names:
        text = "import sys, time\nsys.seen.append(__name__)\ntime.sleep(0.02)\n"
        (installed / f"{name}.py").write_text(f"{text}sys.seen.append(__name__)\nDONE = 1\n")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setattr(sys, "seen", [], raising=False)

    def load(name: str) -> LoadedModel:
        directory = tmp_path / name / "1"
        write_model(directory, "def execute(self, requests): return [y([DONE])]")
        file = directory / "model.py"
        file.write_text(f"from {name} import DONE\n{file.read_text()}")
        return load_model(TritonPythonRuntime, directory, X_TO_Y, name=name)

    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(load, names))
    assert [answer(model) for model in models] == [[1]] * 4
    seen: list[str] = sys.seen  # type: ignore[attr-defined]  # put there above
    assert seen[::2] == seen[1::2]
    for model in models:
        model.instance.unload()
    for name in names:
        del sys.modules[name]
