import asyncio
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import BF16, DataType, bf16_from_float32, float32_from_bf16
from modelport.errors import InvalidRequest, LoadFailed, ModelFailed, ModelportError
from modelport.runtimes.base import Batch
from modelport.runtimes.python import PythonRuntime
from modelport.specs import ModelConfig
from modelport.testing.fakes import FakeWork, work_of
from modelport.testing.runtime_suite import (
    Example,
    LoadedModel,
    RuntimeCase,
    RuntimeSuite,
    load_model,
    run,
)

BATCHED = """
    import modelport

    @modelport.model(
        inputs={"x": "FP32[-1, 2]"},
        outputs={"double": "FP32[-1, 2]", "sum": "FP32[-1, 1]"},
        max_batch_size=8,
    )
    def tried(x):
        if (x < 0).any():
            raise ValueError("x must not be negative")
        return 2 * x, x.sum(axis=1, keepdims=True)
"""
ASYNC = BATCHED.replace("def tried", "async def tried")
SINGLE = """
    import modelport

    @modelport.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"})
    class Tried:
        def __init__(self):
            self.factor = 3

        def predict(self, x):
            return self.factor * x
"""
STREAM = """
    import modelport

    closed = []

    @modelport.model(
        inputs={"text": "BYTES[1]", "fail_at": "INT32[1]"}, outputs={"word": "BYTES[1]"}
    )
    def tried(text, fail_at=(99,)):
        try:
            for number, word in enumerate(text[0].split()):
                if number == fail_at[0]:
                    raise RuntimeError(f"word {number} is too much")
                yield word
        finally:
            closed.append(True)
"""
ASYNC_STREAM = STREAM.replace("def tried", "async def tried")


def write(directory: Path, text: str, filename: str = "model.py") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / filename).write_text(dedent(text))


def batched_example(*rows: list[float]) -> Example:
    x = np.array(rows, np.float32)
    return Example({"x": x}, {"double": 2 * x, "sum": x.sum(axis=1, keepdims=True)})


def write_identity(directory: Path, datatype: DataType) -> ModelConfig:
    write(
        directory,
        f"""
        import modelport

        @modelport.model(inputs={{"x": "{datatype}[-1]"}}, outputs={{"y": "{datatype}[-1]"}})
        def tried(x):
            return x.copy()
        """,
    )
    return ModelConfig()


class TestFunction(RuntimeSuite):
    SOURCE = BATCHED

    @pytest.fixture
    def case(self) -> RuntimeCase:
        return RuntimeCase(
            runtime=PythonRuntime,
            filename="model.py",
            write=lambda directory: write(directory, self.SOURCE),
            examples=[batched_example([1, 2]), batched_example([3, 4], [5, 6])],
            poison={"x": np.array([[-1, 0]], np.float32)},
            break_file=lambda directory: write(directory, "def broken(:"),
            identity=write_identity,
        )


class TestCoroutineFunction(TestFunction):
    SOURCE = ASYNC


class TestClass(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        x = np.array([1, 2, 3], np.float32)
        return RuntimeCase(
            runtime=PythonRuntime,
            filename="model.py",
            write=lambda directory: write(directory, SINGLE),
            examples=[Example({"x": x}, {"y": 3 * x})],
            break_file=lambda directory: write(directory, "raise RuntimeError('not today')"),
        )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tried" / "1"


def load(directory: Path, text: str, **options: Any) -> LoadedModel:
    write(directory, text)
    return load_model(PythonRuntime, directory, ModelConfig(), **options)


def words(*texts: str) -> list[list[bytes]]:
    return [[text.encode()] for text in texts]


def streamed(work: FakeWork) -> list[list[bytes]]:
    return [response.outputs[0].array.tolist() for response in work.responses]


def text_work(text: str, **options: Any) -> FakeWork:
    arrays = {"text": np.array([text.encode()], object)}
    return work_of(arrays | options.pop("arrays", {}), **options)


def test_declaration_becomes_the_configuration(directory: Path) -> None:
    config = load(
        directory,
        """
        import modelport

        @modelport.model(
            inputs={"x": "INT8[-1, 3]", "bias": "FP32[-1, 1]"},
            outputs={"y": "FP64[-1, 3]"},
            max_batch_size=16, max_delay=0.002, instances=2, execution="thread",
        )
        def tried(x, bias=0):
            return x + bias
        """,
    ).config
    assert config.max_batch_size == 16
    assert [(each.name, each.data_type, each.dims, each.optional) for each in config.input] == [
        ("x", "TYPE_INT8", (3,), False),
        ("bias", "TYPE_FP32", (1,), True),
    ]
    assert config.dynamic_batching is not None
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert config.instance_group[0].count == 2
    assert config.parameter("execution") == "thread"
    assert not config.is_decoupled


def test_optional_input_that_is_absent_takes_its_default(directory: Path) -> None:
    model = load(
        directory,
        """
        import modelport

        @modelport.model(inputs={"x": "FP32[1]", "bias": "FP32[1]"}, outputs={"y": "FP32[1]"})
        def tried(x, bias=10):
            return x + bias
        """,
    )
    x = np.ones(1, np.float32)
    assert model.ask({"x": x})["y"].tolist() == [11]
    assert model.ask({"x": x, "bias": x})["y"].tolist() == [2]


def test_requests_with_and_without_an_optional_input_are_answered_apart(directory: Path) -> None:
    model = load(
        directory,
        """
        import modelport

        @modelport.model(
            inputs={"x": "FP32[-1, 1]", "bias": "FP32[-1, 1]"},
            outputs={"y": "FP32[-1, 1]"},
            max_batch_size=4,
        )
        def tried(x, bias=10):
            return x + bias
        """,
    )
    x = np.ones((1, 1), np.float32)
    outcomes = run(model.instance, [model.work({"x": x}), model.work({"x": x, "bias": x})])
    assert [outcome.outputs[0].array.tolist() for outcome in outcomes] == [[[11]], [[2]]]  # type: ignore[union-attr]  # both answered


def test_parameters_of_the_request_reach_the_function(directory: Path) -> None:
    model = load(
        directory,
        """
        import modelport

        @modelport.model(
            inputs={"x": "FP32[-1, 1]"}, outputs={"y": "FP32[-1, 1]"}, max_batch_size=4
        )
        def tried(x, parameters):
            return x * parameters.get("factor", 1)
        """,
    )
    x = np.ones((1, 1), np.float32)
    works = [work_of({"x": x}), work_of({"x": x}, parameters={"factor": 5})]
    outcomes = run(model.instance, works)
    assert [outcome.outputs[0].array.tolist() for outcome in outcomes] == [[[1]], [[5]]]  # type: ignore[union-attr]  # both answered


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        ("{'n': 3, 'text': 'three'}", ([3], [b"three"])),
        ("(3, b'three')", ([3], [b"three"])),
        ("[[3], ['three']]", ([3], [b"three"])),
        ("{'n': np.int8(3), 'text': np.array(['three']), 'more': 1}", ([3], [b"three"])),
    ],
)
def test_results_are_dicts_or_tuples_of_what_numpy_understands(
    directory: Path, returned: str, answer: tuple[list[int], list[bytes]]
) -> None:
    model = load(
        directory,
        f"""
        import modelport
        import numpy as np

        @modelport.model(inputs={{}}, outputs={{"n": "INT64[1]", "text": "BYTES[1]"}})
        def tried():
            return {returned}
        """,
    )
    arrays = model.ask({})
    assert (arrays["n"].tolist(), arrays["text"].tolist()) == answer


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("None", "declared INT64, and the model gave object"),
        ("1.5", "declared INT64, and the model gave float64"),
        ("{'m': 1}", "output 'n' is declared, and the model did not give it"),
    ],
)
def test_result_that_is_not_as_declared_is_the_models_failure(
    directory: Path, returned: str, told: str
) -> None:
    model = load(
        directory,
        f"""
        import modelport

        @modelport.model(inputs={{}}, outputs={{"n": "INT64[1]"}})
        def tried():
            return {returned}
        """,
    )
    with pytest.raises(ModelFailed, match=told):
        model.ask({})


def test_wrong_number_of_results_is_told_with_the_outputs(directory: Path) -> None:
    model = load(
        directory,
        """
        import modelport

        @modelport.model(inputs={}, outputs={"a": "FP32[1]", "b": "FP32[1]"})
        def tried():
            return 1, 2, 3
        """,
    )
    with pytest.raises(
        ModelFailed, match=r"gave a tuple of 3; its outputs are a, b: return a dict"
    ):
        model.ask({})


def test_rows_that_are_not_the_batch_are_the_models_failure(directory: Path) -> None:
    model = load(directory, BATCHED.replace("return 2 * x", "return 2 * x[:1]"))
    with pytest.raises(ModelFailed, match=r"'double' has shape \[1, 2\].* batch, which was 3"):
        model.ask({"x": np.ones((3, 2), np.float32)})


def test_bf16_comes_and_goes_as_float32(directory: Path) -> None:
    model = load(
        directory,
        """
        import modelport

        @modelport.model(inputs={"x": "BF16[-1]"}, outputs={"y": "BF16[-1]"})
        def tried(x):
            return x * 1.5
        """,
    )
    bits = bf16_from_float32(np.array([1, -2], np.float32))
    answer = model.ask({"x": bits}, datatypes={"x": BF16})
    assert float32_from_bf16(answer["y"]).tolist() == [1.5, -3]


def test_errors_of_ours_keep_their_kind(directory: Path) -> None:
    """So a model can tell a caller that the request is wrong."""
    model = load(
        directory,
        """
        import modelport
        from modelport.errors import InvalidRequest

        @modelport.model(inputs={}, outputs={"y": "FP32[1]"})
        def tried():
            raise InvalidRequest("send something better")
        """,
    )
    with pytest.raises(InvalidRequest, match="send something better"):
        model.ask({})
    assert model.host.lines == []


def test_exception_is_told_by_type_and_text_and_logged_with_its_place(directory: Path) -> None:
    model = load(directory, BATCHED)
    with pytest.raises(ModelFailed) as failed:
        model.ask({"x": np.array([[-1, 0]], np.float32)})
    assert str(failed.value) == "ValueError: x must not be negative"
    ((level, message, name),) = model.host.lines
    assert (level, name) == ("error", "tried")
    assert "model.py" in message


def test_coroutines_of_one_instance_run_beside_one_another(directory: Path) -> None:
    """The first waits until the second has come: one after another they would hang."""
    model = load(
        directory,
        """
        import asyncio
        import modelport

        class Both:
            count = 0
            event = asyncio.Event()

        @modelport.model(inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1]"})
        async def tried(x):
            Both.count += 1
            if Both.count == 2:
                Both.event.set()
            await Both.event.wait()
            return x
        """,
    )
    x = np.ones(1, np.float32)
    works = [work_of({"x": x}), work_of({"x": x})]
    outcomes = run(model.instance, works)
    assert all(not isinstance(outcome, ModelportError) for outcome in outcomes)


@pytest.mark.parametrize("source", [STREAM, ASYNC_STREAM], ids=["generator", "async generator"])
class TestStreams:
    def test_generator_is_a_decoupled_model(self, directory: Path, source: str) -> None:
        config = load(directory, source).config
        assert config.is_decoupled
        assert config.dynamic_batching is None

    def test_every_item_is_a_response_and_the_end_has_none(
        self, directory: Path, source: str
    ) -> None:
        model = load(directory, source)
        work = text_work("one two three")
        assert execute(model, [work]) is None
        assert streamed(work) == words("one", "two", "three")
        assert work.sent[-1] is None
        assert work.is_ended

    def test_requests_have_streams_of_their_own(self, directory: Path, source: str) -> None:
        works = [text_work("one two"), text_work("three")]
        execute(load(directory, source), works)
        assert [streamed(work) for work in works] == [words("one", "two"), words("three")]

    def test_nothing_yielded_is_an_end(self, directory: Path, source: str) -> None:
        work = text_work("")
        execute(load(directory, source), [work])
        assert work.sent == [None]
        assert work.is_ended

    def test_error_in_midstream_ends_it(self, directory: Path, source: str) -> None:
        work = text_work("one two", arrays={"fail_at": np.array([1], np.int32)})
        execute(load(directory, source), [work])
        assert streamed(work) == words("one")
        error = work.sent[-1]
        assert isinstance(error, ModelFailed)
        assert str(error) == "RuntimeError: word 1 is too much"
        assert work.is_ended

    def test_generator_is_closed_when_the_caller_has_gone(
        self, directory: Path, source: str
    ) -> None:
        model = load(directory, source)
        work = text_work("one two three four")
        work.cancels_after = 2
        execute(model, [work])
        assert streamed(work) == words("one", "two")
        assert work.is_ended
        instance = model.instance
        assert isinstance(instance, PythonRuntime)
        call = instance._call
        assert call is not None
        assert call.__globals__["closed"] == [True]

    def test_item_that_is_not_as_declared_ends_the_stream(
        self, directory: Path, source: str
    ) -> None:
        work = text_work("one")
        execute(load(directory, source.replace("yield word", "yield 5")), [work])
        assert isinstance(work.sent[-1], ModelFailed)


def execute(model: LoadedModel, works: list[FakeWork]) -> object:
    batch = Batch(works, len(works))
    answered = model.instance.execute(batch)

    async def finish() -> object:
        return await answered  # type: ignore[misc]  # looked at below

    return asyncio.run(finish()) if asyncio.iscoroutine(answered) else answered


def test_async_generator_waits_for_the_reader_after_each_item(directory: Path) -> None:
    work = text_work("one two three")
    execute(load(directory, ASYNC_STREAM), [work])
    assert work.drains == 3


def test_class_is_made_at_load_and_closed_at_unload(directory: Path) -> None:
    model = load(
        directory,
        """
        from pathlib import Path
        import modelport

        @modelport.model(inputs={}, outputs={"y": "BYTES[1]"})
        class Tried:
            def __init__(self):
                self.log = Path(__file__).with_name("log")
                self.log.write_text("made")

            def __call__(self):
                return self.log.read_text()

            async def close(self):
                self.log.write_text("closed")
        """,
    )
    assert model.ask({})["y"].tolist() == [b"made"]
    model.instance.unload()
    assert (directory / "log").read_text() == "closed"


def test_reload_sees_changed_code_and_the_old_one_goes_on(directory: Path) -> None:
    source = """
        import modelport
        from beside import factor

        @modelport.model(inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1]"})
        def tried(x):
            return factor * x
    """
    write(directory, "factor = 2", "beside.py")
    old = load(directory, source)
    write(directory, "factor = 3", "beside.py")
    new = load(directory, source)
    x = np.ones(1, np.float32)
    assert (old.ask({"x": x})["y"].item(), new.ask({"x": x})["y"].item()) == (2, 3)


TWO = """
    import modelport

    @modelport.model(inputs={}, outputs={"y": "FP32[1]"})
    def one():
        return 1

    @modelport.model(inputs={}, outputs={"y": "FP32[1]"}, name="other")
    def two():
        return 2

    alias = two
"""


def test_attribute_picks_one_of_several_models(directory: Path) -> None:
    assert load(directory, TWO, attribute="two").ask({})["y"].tolist() == [2]


def test_name_picks_one_of_several_models(directory: Path) -> None:
    write(directory, TWO)
    model = load_model(PythonRuntime, directory, ModelConfig(), name="other")
    assert model.ask({})["y"].tolist() == [2]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (TWO, r"several models \(one, other\), and not exactly one by the name 'tried'"),
        ("x = 1", "declares no model; put @modelport.model"),
        (
            "import nothing_that_exists",
            r"failed in 'model.py' line 1: ModuleNotFoundError: .*; install",
        ),
        ("raise SystemExit(3)", "importing 'model.py' failed in 'model.py' line 1: SystemExit: 3"),
        ("from modelport import nothing", "cannot import name 'nothing'"),
        (BATCHED.replace("def tried(x)", "def tried(z)"), "'x' of model 'tried' is no argument"),
        (BATCHED.replace("def tried(x)", "def tried(x, k)"), "argument 'k' .* is not declared"),
        (BATCHED.replace("def tried(x)", "def tried(x, /)"), "'x' .* is positional-only"),
        (BATCHED.replace("FP32[-1, 2]", "FP32[2]"), "its first dimension is the batch"),
        (SINGLE.replace("def predict", "def guess"), "'Tried' has neither __call__ nor predict"),
        (
            SINGLE.replace("= 3", "= 3 / 0"),
            "making the model failed in 'model.py' line 7: ZeroDivisionError",
        ),
    ],
)
def test_file_that_cannot_be_served_says_why(directory: Path, source: str, told: str) -> None:
    with pytest.raises(LoadFailed, match=told) as failed:
        load(directory, source)
    assert str(directory.parent) not in str(failed.value)


def test_attribute_that_is_not_declared_is_refused(directory: Path) -> None:
    with pytest.raises(LoadFailed, match="has no model 'json'"):
        load(directory, TWO, attribute="json")


def test_function_that_takes_any_argument_takes_all_inputs(directory: Path) -> None:
    model = load(
        directory,
        """
        import modelport

        @modelport.model(inputs={"a": "FP32[1]", "b": "FP32[1]"}, outputs={"y": "FP32[1]"})
        def tried(**arrays):
            return sum(arrays.values())
        """,
    )
    one = np.ones(1, np.float32)
    assert model.ask({"a": one, "b": one})["y"].tolist() == [2]
