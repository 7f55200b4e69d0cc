"""The suite is worth something if it fails for runtimes that do the usual things wrong."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from modelport.errors import LoadFailed, ModelFailed, ModelportError
from modelport.runtimes.arrays import Arrays, TensorRuntime
from modelport.runtimes.base import Batch, LoadContext, ModelSource, Outcome
from modelport.specs import DynamicBatching, ModelConfig, ModelInput, ModelOutput
from modelport.testing.runtime_suite import Example, RuntimeCase, RuntimeSuite, load_model

FILENAME = "factor.txt"


class Multiplying(TensorRuntime):
    """A right one: multiplies by the number in its file."""

    default_filename: ClassVar[str] = FILENAME
    factor: float | None = None

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        cls.read(source, config)
        return ModelConfig(
            max_batch_size=8,
            dynamic_batching=DynamicBatching(),
            input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(1,)),),
            output=(
                ModelOutput(name="y", data_type="TYPE_FP32", dims=(1,)),
                ModelOutput(name="half", data_type="TYPE_FP32", dims=(1,)),
            ),
        )

    @staticmethod
    def read(source: ModelSource, config: ModelConfig) -> float:
        try:
            return float(source.file(config, FILENAME).read_text())
        except (OSError, ValueError) as exc:
            raise LoadFailed(f"'{FILENAME}' holds no number") from exc

    def load(self, context: LoadContext) -> None:
        self.prepare(context.config)
        self.factor = self.read(context.source, context.config)

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        x = inputs["x"]
        if self.factor is None or (x < 0).any():
            raise ModelFailed("negative")
        return {"y": x * self.factor, "half": x * self.factor / 2}

    def is_ready(self) -> bool:
        return self.factor is not None

    def unload(self) -> None:
        self.factor = None


class AnswersAll(Multiplying):
    def execute(self, batch: Batch) -> Sequence[Outcome]:
        for work in batch.works:
            work.request.outputs = ()
        outcomes = super().execute(batch)
        assert isinstance(outcomes, list)
        return outcomes


class FailsTogether(Multiplying):
    def execute(self, batch: Batch) -> Sequence[Outcome]:
        try:
            return self.answer(batch.works, batch)
        except ModelportError as exc:
            return [exc] * len(batch.works)


class MixesRows(Multiplying):
    def execute(self, batch: Batch) -> Sequence[Outcome]:
        outcomes = super().execute(batch)
        assert isinstance(outcomes, list)
        return outcomes[::-1]


class UsesItsBufferAgain(Multiplying):
    buffer = np.zeros((16, 1), np.float32)

    def compute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        computed = super().compute(inputs, outputs)
        rows = self.buffer[: len(computed["y"])]
        rows[:] = computed["y"]
        return {**computed, "y": rows}


class SharesState(Multiplying):
    def unload(self) -> None:
        type(self).factor = None
        self.__dict__.clear()

    def load(self, context: LoadContext) -> None:
        self.prepare(context.config)
        type(self).factor = self.read(context.source, context.config)


class StaysReady(Multiplying):
    def is_ready(self) -> bool:
        return True


class UnloadsOnce(Multiplying):
    def unload(self) -> None:
        del self.factor


class TellsPaths(Multiplying):
    @staticmethod
    def read(source: ModelSource, config: ModelConfig) -> float:
        try:
            return Multiplying.read(source, config)
        except LoadFailed as exc:
            raise LoadFailed(f"{source.version_directory / FILENAME} holds no number") from exc


def example(*values: float) -> Example:
    x = np.array(values, np.float32).reshape(-1, 1)
    return Example({"x": x}, {"y": x * 3, "half": x * np.float32(1.5)})


def case_of(runtime: type[Multiplying]) -> RuntimeCase:
    return RuntimeCase(
        runtime=runtime,
        filename=FILENAME,
        write=lambda directory: (directory / FILENAME).write_text("3"),
        examples=[example(1), example(2, 4)],
        poison={"x": np.array([[-1]], np.float32)},
        break_file=lambda directory: (directory / FILENAME).write_text("three"),
    )


class TestRightOne(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        return case_of(Multiplying)


@pytest.mark.parametrize(
    ("runtime", "test"),
    [
        (AnswersAll, "test_answers_only_what_was_asked_for"),
        (AnswersAll, "test_each_of_a_batch_gets_only_what_it_asked_for"),
        (FailsTogether, "test_failing_request_fails_alone"),
        (MixesRows, "test_batch_gives_the_same_as_each_alone"),
        (UsesItsBufferAgain, "test_answers_do_not_share_memory_that_changes"),
        (SharesState, "test_instances_are_independent"),
        (StaysReady, "test_is_ready_between_load_and_unload"),
        (UnloadsOnce, "test_unloads_twice"),
        (TellsPaths, "test_broken_file_is_told_without_its_path"),
        (TellsPaths, "test_missing_file_is_told_without_its_path"),
    ],
)
def test_wrong_runtime_is_found_out(tmp_path: Path, runtime: type[Multiplying], test: str) -> None:
    """Only that the test fails matters: by an assertion, or by what the runtime raises."""
    directory = tmp_path / "tried" / "1"
    directory.mkdir(parents=True)
    case = case_of(runtime)
    arguments: dict[str, Any] = {"case": case, "directory": directory}
    if "missing" not in test and "broken" not in test:
        case.write(directory)
        arguments["model"] = load_model(
            runtime, directory, ModelConfig(default_model_filename=FILENAME)
        )
    method = getattr(RuntimeSuite(), test)
    wanted = inspect.signature(method).parameters
    with pytest.raises((AssertionError, AttributeError, ModelportError)):
        method(**{name: value for name, value in arguments.items() if name in wanted})
