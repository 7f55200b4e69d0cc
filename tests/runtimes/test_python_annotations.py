"""Functions, classes and methods whose annotations make them models."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from modelport.errors import InvalidRequest, LoadFailed, ModelFailed
from modelport.repository.sources import recognise
from modelport.runtimes.python import PythonRuntime
from modelport.specs import ModelConfig
from modelport.testing.runtime_suite import (
    Example,
    LoadedModel,
    RuntimeCase,
    RuntimeSuite,
    load_model,
    run,
)

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
SCALE = """
    from typing import Annotated
    import numpy as np
    import modelport

    @modelport.model(max_batch_size=8)
    def scale(x: Annotated[np.ndarray, "FP32[-1, 2]"]) -> Annotated[np.ndarray, "FP32[-1, 2]"]:
        if (x < 0).any():
            raise ValueError("below zero")
        return 3 * x
"""


def write(directory: Path, text: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.py").write_text(dedent(text))


class TestScale(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        return RuntimeCase(
            runtime=PythonRuntime,
            filename="model.py",
            write=lambda directory: write(directory, SCALE),
            examples=[Example({"x": rows}, {"output": 3 * rows}) for rows in (ROWS, ROWS[:1])],
            poison={"x": -ROWS - 1},
            break_file=lambda directory: write(directory, "def half("),
        )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tried" / "1"


def load(directory: Path, text: str, attribute: str = "") -> LoadedModel:
    write(directory, f"import numpy as np\nimport modelport\n{dedent(text)}")
    return load_model(PythonRuntime, directory, ModelConfig(), attribute=attribute)


def texts(*elements: bytes) -> Any:
    return np.array(elements, object)


def test_values_come_and_go_as_python_has_them(directory: Path) -> None:
    model = load(
        directory,
        """
        @modelport.model
        def repeat(text: str, times: int = 2, *, loud: bool = False) -> str:
            assert type(text) is str and type(times) is int and type(loud) is bool
            return (text.upper() if loud else text) * times
        """,
    )
    assert [each.optional for each in model.config.input] == [False, True, True]
    snow = texts("☃".encode())
    assert model.ask({"text": snow})["output"].tolist() == ["☃☃".encode()]
    answer = model.ask({"text": texts(b"a"), "times": np.array([3]), "loud": np.array([True])})
    assert answer["output"].tolist() == [b"AAA"]


def test_lists_and_json_come_and_go(directory: Path) -> None:
    model = load(
        directory,
        """
        @modelport.model
        def count(words: list[str], options: dict[str, int]) -> dict[str, int]:
            return {word: len(word) + options["more"] for word in words}
        """,
    )
    answer = model.ask({"words": texts(b"one", b"three"), "options": texts(b'{"more": 1}')})
    assert answer["output"].tolist() == [b'{"one": 4, "three": 6}']


@pytest.mark.parametrize(
    "result",
    [
        "@dataclass\nclass Found:\n    label: str\n    scores: list[float]\n",
        "class Found(NamedTuple):\n    label: str\n    scores: list[float]\n",
        "class Found(TypedDict):\n    label: str\n    scores: list[float]\n",
    ],
    ids=["dataclass", "namedtuple", "typeddict"],
)
def test_fields_of_a_result_are_outputs(directory: Path, result: str) -> None:
    model = load(
        directory,
        "from dataclasses import dataclass\nfrom typing import NamedTuple, TypedDict\n"
        + result
        + "@modelport.model\ndef find(x: float) -> Found:\n"
        + "    return Found(label=str(x), scores=[x, 2 * x])\n",
    )
    answer = model.ask({"x": np.array([1.5])})
    assert answer["label"].tolist() == [b"1.5"]
    assert answer["scores"].tolist() == [1.5, 3.0]


def test_tuples_are_outputs_by_number(directory: Path) -> None:
    model = load(
        directory,
        """
        @modelport.model
        def halves(x: int) -> tuple[int, float]:
            return x // 2, x / 2
        """,
    )
    answer = model.ask({"x": np.array([3])})
    assert {name: array.tolist() for name, array in answer.items()} == {
        "output__0": [1],
        "output__1": [1.5],
    }


def test_function_without_a_declaration_is_a_model_by_its_name(directory: Path) -> None:
    model = load(directory, "def double(x: float) -> float:\n    return 2 * x\n", "double")
    assert model.ask({"x": np.array([4.0])})["output"].tolist() == [8.0]


def test_annotations_may_be_postponed(directory: Path) -> None:
    write(
        directory,
        """
        from __future__ import annotations
        import modelport

        @modelport.model
        def double(x: Later) -> Later:
            return 2 * x

        Later = float
        """,
    )
    model = load_model(PythonRuntime, directory, ModelConfig())
    assert model.ask({"x": np.array([4.0])})["output"].tolist() == [8.0]


def test_generator_streams_what_it_yields(directory: Path) -> None:
    model = load(
        directory,
        """
        from collections.abc import AsyncIterator

        @modelport.model
        async def words(text: str) -> AsyncIterator[str]:
            for word in text.split():
                yield word
        """,
    )
    assert model.config.is_decoupled
    work = model.work({"text": texts(b"one two")})
    run(model.instance, [work])
    sent = [each.outputs[0].array.tolist() for each in work.sent if each is not None]  # type: ignore[union-attr]  # responses all of them
    assert sent == [[b"one"], [b"two"]]


class TestClasses:
    COUNTER = """
        class Counter:
            def __init__(self):
                self.count = 0

            @modelport.model
            def add(self, n: int) -> int:
                self.count += n
                return self.count

            @modelport.model(name="less")
            async def subtract(self, n: int) -> int:
                self.count -= n
                return self.count

            def close(self):
                self.count = None
    """

    def test_methods_are_models(self, directory: Path) -> None:
        model = load(directory, self.COUNTER, "Counter.add")
        assert [entry.name for entry in model.config.input] == ["n"]
        assert model.ask({"n": np.array([2])})["output"].tolist() == [2]
        assert model.ask({"n": np.array([3])})["output"].tolist() == [5]
        model.instance.unload()

    def test_coroutine_methods_are_models(self, directory: Path) -> None:
        model = load(directory, self.COUNTER, "Counter.subtract")
        assert model.ask({"n": np.array([2])})["output"].tolist() == [-2]

    def test_file_tells_its_methods_unrun(self, directory: Path) -> None:
        write(directory, "import modelport\nraise SystemExit\n" + dedent(self.COUNTER))
        source = recognise(str(directory / "model.py"))
        assert source.names() == ["add", "less"]
        place = source.find("less")
        assert place is not None
        assert place.attribute == "Counter.subtract"

    def test_target_may_name_a_method(self, directory: Path) -> None:
        write(directory, "import modelport\n" + dedent(self.COUNTER))
        source = recognise(f"{directory / 'model.py'}:Counter.add")
        assert source.names() == ["add"]

    def test_annotated_class_is_called(self, directory: Path) -> None:
        model = load(
            directory,
            """
            @modelport.model
            class Scale:
                def __init__(self, factor: int = 3):
                    self.factor = factor

                def __call__(self, x: float) -> float:
                    return self.factor * x
            """,
        )
        assert [entry.name for entry in model.config.input] == ["x"]
        assert model.ask({"x": np.array([2.0])})["output"].tolist() == [6.0]


class TestFailures:
    SHOUT = """
        @modelport.model
        def shout(text: str, options: dict) -> str:
            return text.upper()
    """

    @pytest.mark.parametrize(
        ("text", "options", "told"),
        [
            ([b"a", b"b"], [b"{}"], "input 'text' is one value, and 2 were given"),
            ([b"\xff"], [b"{}"], "'text' holds bytes that are no UTF-8"),
            ([b"a"], [b"{"], "'options' does not fit: Invalid JSON"),
        ],
    )
    def test_wrong_input_is_the_callers_fault(
        self, directory: Path, text: list[bytes], options: list[bytes], told: str
    ) -> None:
        model = load(directory, self.SHOUT)
        with pytest.raises(InvalidRequest, match=told):
            model.ask({"text": texts(*text), "options": texts(*options)})

    def test_result_that_is_no_json_is_the_models_fault(self, directory: Path) -> None:
        model = load(
            directory,
            "@modelport.model\ndef odd(x: int) -> dict:\n    return {'x': object()}\n",
        )
        with pytest.raises(ModelFailed, match="'output' cannot be told as JSON: a object is not"):
            model.ask({"x": np.array([1])})

    @pytest.mark.parametrize(
        ("text", "attribute", "told"),
        [
            ("@modelport.model\ndef f(x): ...\n", "", "'f' is not declared: argument 'x' has no"),
            ("def f(x: int): ...\n", "f", "model 'f' is not declared: its result has no annot"),
            ("f = 3\n", "f", r"'model\.py' has no model 'f'; put @modelport\.model above"),
            ("x = 1\n", "", r"'model\.py' declares no model; put @modelport\.model above"),
            (
                "def double(x: float) -> float:\n    return 2 * x\n",
                "",
                "or name the function: modelport serve model.py:double",
            ),
            ("class A: ...\n", "A.f", r"has no model 'A\.f'"),
        ],
    )
    def test_what_is_no_model_is_told(
        self, directory: Path, text: str, attribute: str, told: str
    ) -> None:
        with pytest.raises(LoadFailed, match=told):
            load(directory, text, attribute)

    def test_file_without_models_is_no_target(self, directory: Path) -> None:
        text = "def f(x: int) -> int: ...\ndef g(x) -> int: ...\ndef _h(x: int) -> int: ..."
        write(directory, text)
        with pytest.raises(LoadFailed, match=r"has no model in it.*: model\.py:f$"):
            recognise(str(directory / "model.py"))
        assert recognise(f"{directory / 'model.py'}:f").names() == ["f"]


class TestValuesThatAreReadAsAnnotated:
    POINTS = """
        from dataclasses import dataclass
        from typing import NamedTuple
        from pydantic import BaseModel

        @dataclass
        class Point:
            x: float
            y: float = 0

        class Box(BaseModel):
            corners: list[Point]

        class Pair(NamedTuple):
            left: int
            right: int

        @modelport.model
        def measure(point: Point, box: Box, pair: Pair | None = None) -> dict[str, float]:
            assert type(point) is Point and type(box.corners[0]) is Point
            return {"x": point.x, "y": point.y, "n": len(box.corners), "p": pair.right}
    """

    def test_records_are_made_of_json(self, directory: Path) -> None:
        model = load(directory, self.POINTS)
        answer = model.ask(
            {
                "point": texts(b'{"x": 1.5}'),
                "box": texts(b'{"corners": [{"x": 1}, {"x": 2}]}'),
                "pair": texts(b"[3, 4]"),
            }
        )
        assert answer["output"].tolist() == [b'{"x": 1.5, "y": 0, "n": 2, "p": 4}']

    @pytest.mark.parametrize(
        ("point", "told"),
        [
            (b'{"y": 1}', "input 'point' does not fit: at ..x: Field required"),
            (b'{"x": "far"}', "at ..x: Input should be a valid number"),
            (b"{", "input 'point' does not fit: Invalid JSON"),
        ],
    )
    def test_what_does_not_fit_is_the_callers_fault(
        self, directory: Path, point: bytes, told: str
    ) -> None:
        model = load(directory, self.POINTS)
        with pytest.raises(InvalidRequest, match=told):
            model.ask({"point": texts(point), "box": texts(b'{"corners": []}')})

    CHOICES = """
        import enum
        from typing import Annotated, Literal
        from pydantic import Field

        class Color(enum.Enum):
            RED = "red"
            BLUE = "blue"

        @modelport.model
        def paint(
            mode: Literal["fast", "exact"],
            colors: list[Color],
            share: Annotated[float, Field(ge=0, le=1)] = 0.5,
        ) -> tuple[list[Color], str]:
            assert all(type(color) is Color for color in colors)
            return colors[::-1], mode
    """

    def test_choices_and_bounds_are_of_their_type_and_checked(self, directory: Path) -> None:
        model = load(directory, self.CHOICES)
        assert [(each.data_type, each.dims) for each in model.config.input] == [
            ("TYPE_STRING", (1,)),
            ("TYPE_STRING", (-1,)),
            ("TYPE_FP64", (1,)),
        ]
        given = {"mode": texts(b"fast"), "colors": texts(b"red", b"blue")}
        answer = model.ask(given)
        assert answer["output__0"].tolist() == [b"blue", b"red"]
        assert answer["output__1"].tolist() == [b"fast"]
        with pytest.raises(InvalidRequest, match="'mode' does not fit: Input should be 'fast' or"):
            model.ask(given | {"mode": texts(b"slow")})
        with pytest.raises(InvalidRequest, match=r"'colors' does not fit: at \$\[1\]: Input"):
            model.ask(given | {"colors": texts(b"red", b"green")})
        with pytest.raises(InvalidRequest, match="'share' does not fit: Input should be less than"):
            model.ask(given | {"share": np.array([1.5])})

    def test_a_model_of_pydantic_has_outputs_by_its_fields(self, directory: Path) -> None:
        model = load(
            directory,
            """
            from datetime import date
            from pydantic import BaseModel

            class Found(BaseModel):
                label: str
                when: date
                tags: set[str]

            @modelport.model
            def find(x: int) -> Found:
                return Found(label="a", when="2026-11-21", tags={"t"})
            """,
        )
        answer = {name: array.tolist() for name, array in model.ask({"x": np.array([1])}).items()}
        assert answer == {"label": [b"a"], "when": [b'"2026-11-21"'], "tags": [b'["t"]']}

    def test_one_field_of_json_is_told_without_its_name(self, directory: Path) -> None:
        model = load(
            directory,
            """
            from typing import TypedDict

            class Found(TypedDict):
                scores: dict[str, float]

            @modelport.model
            def find(x: float) -> Found:
                return {"scores": {"a": x}}
            """,
        )
        assert model.ask({"x": np.array([1.5])})["scores"].tolist() == [b'{"a": 1.5}']

    @pytest.mark.parametrize(
        ("signature", "told"),
        [
            ("x: Thing) -> int", "argument 'x' of model 'f' is annotated as Thing, which is no"),
            ("x: dict[str, Thing]) -> int", "argument 'x' of model 'f' is annotated as dict"),
            ("x: int) -> Thing", "output 'output' of model 'f' is annotated as Thing"),
        ],
    )
    def test_what_nothing_can_be_read_as_is_refused_at_load(
        self, directory: Path, signature: str, told: str
    ) -> None:
        text = f"class Thing: ...\n@modelport.model\ndef f({signature}: ...\n"
        with pytest.raises(LoadFailed, match=told):
            load(directory, text)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("Iterator", "return iter(text.split())"),
        ("Iterable", "return text.split()"),
        ("AsyncIterator", "return spelled(text)"),
    ],
)
def test_function_that_hands_on_a_stream_is_one(directory: Path, kind: str, body: str) -> None:
    """A decorator of its author's hides that a function is a generator."""
    model = load(
        directory,
        f"""
        from collections.abc import AsyncIterator, Iterable, Iterator

        async def spelled(text):
            for word in text.split():
                yield word

        @modelport.model
        def words(text: str) -> {kind}[str]:
            {body}
        """,
    )
    assert model.config.is_decoupled
    work = model.work({"text": texts(b"one two")})
    run(model.instance, [work])
    sent = [each.outputs[0].array.tolist() for each in work.responses]
    assert sent == [[b"one"], [b"two"]]
