"""What every runtime has to do, as a suite of pytest tests.

Ours run it, and so can one's own: subclass :class:`RuntimeSuite` and give it a
:class:`RuntimeCase`.

::

    class TestMyRuntime(RuntimeSuite):
        @pytest.fixture
        def case(self) -> RuntimeCase:
            return RuntimeCase(
                runtime=MyRuntime,
                filename="model.mine",
                write=lambda directory: (directory / "model.mine").write_text("x * 2"),
                examples=[Example({"x": np.ones((1, 1))}, {"y": np.full((1, 1), 2.0)})],
            )
"""

# The names of the tests are their docstrings.
# ruff: noqa: D102

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import BF16, BOOL, BYTES, DATATYPE_BY_NAME, DataType
from modelport.engine.reshape import Reshaping
from modelport.errors import Cancelled, LoadFailed, ModelportError
from modelport.messages import Response
from modelport.runtimes.base import (
    Batch,
    LoadContext,
    ModelSource,
    Outcome,
    RemoteRuntime,
    Runtime,
)
from modelport.runtimes.registry import RuntimeRow, import_runtime, in_worker
from modelport.specs import ModelConfig, Parameter
from modelport.tensors import Array
from modelport.testing.fakes import FakeHost, FakeWork, work_of
from modelport.wire import model_config

__all__ = ["Example", "LoadedModel", "RuntimeCase", "RuntimeSuite", "load_model", "run"]

Write = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs of a model, and what it answers.

    For a model with batching the first axis of every array is the batch, and at least two examples
    of the same shape behind it let batches be tried.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeCase:
    """One model to try a runtime with.

    Attributes:
        runtime: The class.
        filename: What ``write`` calls the model file.
        write: Puts the model into a version directory.
        examples: At least one.
        config: The operator's configuration.
        completes: Whether the file alone tells inputs and outputs.
        poison: Inputs that the model refuses, shaped like the examples' ones.
        break_file: Puts a model file there that cannot be loaded.
        identity: Puts a model there that gives input ``x`` back as output ``y``, with one
            dimension of any size and no batch, and returns the configuration it needs.
        refused: Datatypes that ``identity`` cannot be made with.
        row: The registry's, for a runtime whose framework may be missing.
        framework: Module without which the runtime cannot be imported.
        tolerance: Relative, of floats.
    """

    runtime: type[Runtime]
    filename: str
    write: Write
    examples: Sequence[Example]
    config: ModelConfig = field(default_factory=ModelConfig)
    completes: bool = True
    poison: Mapping[str, Array] | None = None
    break_file: Write | None = None
    identity: Callable[[Path, DataType], ModelConfig] | None = None
    refused: frozenset[DataType] = frozenset()
    row: RuntimeRow | None = None
    framework: str = ""
    tolerance: float = 1e-5


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An instance that was brought up as the repository would do it."""

    instance: Runtime
    config: ModelConfig
    host: FakeHost

    def ask(
        self,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str] = (),
        datatypes: Mapping[str, DataType] | None = None,
    ) -> dict[str, Array]:
        """Send one request; give its answer's arrays by name.

        Raises:
            ModelportError: What the model answered.
        """
        work = self.work(inputs, outputs=outputs, datatypes=datatypes)
        outcome = run(self.instance, [work])[0]
        if isinstance(outcome, Response):
            outcome = Reshaping(self.config).outputs(outcome)
        return arrays_of(outcome)

    def work(
        self,
        inputs: Mapping[str, Array],
        *,
        outputs: Sequence[str] = (),
        datatypes: Mapping[str, DataType] | None = None,
    ) -> FakeWork:
        """Make a request of it, with as many rows as the inputs have."""
        rows = 1
        if self.config.max_batch_size > 0:
            rows = next(iter(inputs.values())).shape[0]
        work = work_of(inputs, rows=rows, outputs=outputs, datatypes=datatypes)
        work.request.payload = Reshaping(self.config).inputs(work.request.payload)
        return work


def load_model(
    runtime: type[Runtime],
    version_directory: Path,
    config: ModelConfig,
    *,
    name: str = "tried",
    attribute: str = "",
    allow_pickle: bool = False,
    completes: bool = True,
) -> LoadedModel:
    """Complete a configuration and load one instance, as the repository does.

    Args:
        runtime: The class.
        version_directory: ``.../<model>/<version>``.
        config: The operator's.
        name: Of the model.
        attribute: Of a ``module:object`` target.
        allow_pickle: Whether model files may run code while they are read.
        completes: Whether to ask the file for what the configuration leaves out.
    """
    source = ModelSource(
        name=name,
        directory=version_directory.parent,
        version_directory=version_directory,
        version=1,
        attribute=attribute,
        allow_pickle=allow_pickle,
    )
    if completes:
        config = model_config.merge(config, runtime.complete(source, config))
    config = model_config.complete(
        config,
        name=name,
        backend="tried",
        default_model_filename=config.default_model_filename or runtime.default_filename,
    )
    model_config.check(config)
    host = FakeHost()
    instance = runtime()
    instance.load(
        LoadContext(
            source=source,
            config=config,
            config_json=json.dumps(model_config.encode_json(config)),
            instance_name=f"{name}_0_0",
            host=host,
        )
    )
    return LoadedModel(instance, config, host)


def run(instance: Runtime, works: Sequence[FakeWork]) -> list[Outcome]:
    """Execute a batch to its end.

    Returns:
        One outcome per work; where the model answered through ``send``, the first thing it sent.
    """
    batch = Batch(works, sum(work.rows for work in works))
    answered = instance.execute(batch)
    outcomes: Sequence[Outcome] | None
    if inspect.isawaitable(answered):
        outcomes = asyncio.run(_awaited(answered))
    else:
        outcomes = answered
    if outcomes is None:
        outcomes = [None] * len(works)
    assert len(outcomes) == len(works), "one outcome per work"
    return [
        work.sent[0] if outcome is None and work.sent else outcome
        for work, outcome in zip(works, outcomes, strict=True)
    ]


async def _awaited(answered: Awaitable[Sequence[Outcome] | None]) -> Sequence[Outcome] | None:
    return await answered


def arrays_of(outcome: Outcome) -> dict[str, Array]:
    """The arrays of an answer by name.

    Raises:
        ModelportError: If the answer is one.
    """
    if isinstance(outcome, ModelportError):
        raise outcome
    assert isinstance(outcome, Response), f"expected a response, got {outcome!r}"
    for tensor in outcome.outputs:
        assert tensor.array.dtype == tensor.datatype.numpy, f"{tensor}: {tensor.array.dtype}"
    return {tensor.name: tensor.array for tensor in outcome.outputs}


class RuntimeSuite:
    """The tests. A subclass gives the fixture ``case``."""

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        """A version directory without a model."""
        directory = tmp_path / "tried" / "1"
        directory.mkdir(parents=True)
        return directory

    @pytest.fixture
    def case(self) -> RuntimeCase:
        """The model to try."""
        raise NotImplementedError("a subclass of RuntimeSuite gives the fixture 'case'")

    @pytest.fixture
    def model(self, case: RuntimeCase, directory: Path) -> Any:
        """The case's model, loaded."""
        case.write(directory)
        loaded = _load(case, directory)
        yield loaded
        loaded.instance.unload()

    def test_file_tells_its_inputs_and_outputs(self, case: RuntimeCase, directory: Path) -> None:
        if not case.completes:
            pytest.skip("model files of this kind do not tell")
        case.write(directory)
        source = _source(directory)
        config = ModelConfig(default_model_filename=case.filename)
        found = case.runtime.complete(source, config)
        example = case.examples[0]
        assert {entry.name for entry in found.input} >= set(example.inputs)
        assert {entry.name for entry in found.output} >= set(example.outputs)
        for entry in found.input:
            if entry.name in example.inputs and entry.datatype is not BF16:
                assert entry.datatype.numpy == example.inputs[entry.name].dtype, entry

    def test_answers(self, case: RuntimeCase, model: LoadedModel) -> None:
        for example in case.examples:
            _assert_same(model.ask(example.inputs), example.outputs, case)

    def test_parameter_that_nobody_knows_is_no_reason_to_refuse_it(
        self, case: RuntimeCase, directory: Path
    ) -> None:
        """As in Triton, where people keep settings of other backends, and notes."""
        case.write(directory)
        unknown = {"nobody_knows_this": Parameter(string_value="1")}
        config = replace(case.config, parameters={**case.config.parameters, **unknown})
        loaded = _load(replace(case, config=config), directory)
        try:
            example = case.examples[0]
            _assert_same(loaded.ask(example.inputs), example.outputs, case)
        finally:
            loaded.instance.unload()

    def test_answers_only_what_was_asked_for(self, case: RuntimeCase, model: LoadedModel) -> None:
        example = case.examples[0]
        for name, expected in example.outputs.items():
            answer = model.ask(example.inputs, outputs=[name])
            assert list(answer) == [name]
            _assert_same(answer, {name: expected}, case)

    def test_batch_gives_the_same_as_each_alone(
        self, case: RuntimeCase, model: LoadedModel
    ) -> None:
        _need_batching(model)
        works = [model.work(example.inputs) for example in case.examples]
        outcomes = run(model.instance, works)
        for outcome, example in zip(outcomes, case.examples, strict=True):
            _assert_same(arrays_of(outcome), example.outputs, case)

    def test_each_of_a_batch_gets_only_what_it_asked_for(
        self, case: RuntimeCase, model: LoadedModel
    ) -> None:
        _need_batching(model)
        example = case.examples[0]
        first, *_ = example.outputs
        works = [model.work(example.inputs, outputs=[first]), model.work(example.inputs)]
        asked, unasked = run(model.instance, works)
        assert list(arrays_of(asked)) == [first]
        _assert_same(arrays_of(unasked), example.outputs, case)

    def test_failing_request_fails_alone(self, case: RuntimeCase, model: LoadedModel) -> None:
        if case.poison is None:
            pytest.skip("this model stands everything")
        with pytest.raises(ModelportError) as failed:
            model.ask(case.poison)
        assert str(failed.value)
        _need_batching(model)
        example = case.examples[0]
        works = [model.work(example.inputs), model.work(case.poison), model.work(example.inputs)]
        before, poisoned, after = run(model.instance, works)
        assert isinstance(poisoned, ModelportError)
        _assert_same(arrays_of(before), example.outputs, case)
        _assert_same(arrays_of(after), example.outputs, case)

    def test_goes_on_after_a_failure(self, case: RuntimeCase, model: LoadedModel) -> None:
        if case.poison is None:
            pytest.skip("this model stands everything")
        run(model.instance, [model.work(case.poison)])
        assert model.instance.is_ready()
        _assert_same(model.ask(case.examples[0].inputs), case.examples[0].outputs, case)

    def test_cancelled_request_does_not_harm_the_others(
        self, case: RuntimeCase, model: LoadedModel
    ) -> None:
        example = case.examples[0]
        cancelled = model.work(example.inputs)
        cancelled.is_cancelled = True
        if model.config.max_batch_size == 0:
            (outcome,) = run(model.instance, [cancelled])
        else:
            outcome, other = run(model.instance, [cancelled, model.work(example.inputs)])
            _assert_same(arrays_of(other), example.outputs, case)
        # A model may be too quick, or too deep in foreign code, to notice.
        assert outcome is None or isinstance(outcome, Response | Cancelled)

    def test_answers_do_not_share_memory_that_changes(
        self, case: RuntimeCase, model: LoadedModel
    ) -> None:
        """What a model returns is given away: its next run must not write there."""
        first = model.ask(case.examples[0].inputs)
        for example in case.examples:
            model.ask(example.inputs)
        _assert_same(first, case.examples[0].outputs, case)

    def test_instances_are_independent(self, case: RuntimeCase, directory: Path) -> None:
        case.write(directory)
        one, other = _load(case, directory), _load(case, directory)
        one.instance.unload()
        assert other.instance.is_ready()
        _assert_same(other.ask(case.examples[0].inputs), case.examples[0].outputs, case)
        other.instance.unload()

    def test_is_ready_between_load_and_unload(self, case: RuntimeCase, directory: Path) -> None:
        case.write(directory)
        loaded = _load(case, directory)
        assert loaded.instance.is_ready()
        loaded.instance.unload()
        assert not loaded.instance.is_ready()

    def test_unloads_twice(self, case: RuntimeCase, model: LoadedModel) -> None:
        model.instance.unload()
        model.instance.unload()

    def test_does_all_of_that_in_a_worker_process(self, case: RuntimeCase, directory: Path) -> None:
        """Any model may be asked to run in a process of its own."""
        if sys.platform != "linux":
            pytest.skip("worker processes need Linux")
        if issubclass(case.runtime, RemoteRuntime) or "<locals>" in case.runtime.__qualname__:
            pytest.skip("it runs there anyway, or cannot be imported there")
        case.write(directory)
        here = _load(case, directory)
        here.instance.unload()
        there = load_model(in_worker(case.runtime), directory, here.config, completes=False)
        try:
            self.test_answers(case, there)
            self.test_answers_only_what_was_asked_for(case, there)
            self.test_cancelled_request_does_not_harm_the_others(case, there)
            self.test_answers_do_not_share_memory_that_changes(case, there)
            if there.config.max_batch_size > 0:
                self.test_batch_gives_the_same_as_each_alone(case, there)
                self.test_each_of_a_batch_gets_only_what_it_asked_for(case, there)
            if case.poison is not None:
                self.test_goes_on_after_a_failure(case, there)
            if case.poison is not None and there.config.max_batch_size > 0:
                self.test_failing_request_fails_alone(case, there)
        finally:
            there.instance.unload()

    def test_missing_file_is_told_without_its_path(
        self, case: RuntimeCase, directory: Path
    ) -> None:
        with pytest.raises(LoadFailed) as failed:
            _load(case, directory)
        assert case.filename in str(failed.value)
        assert str(directory.parent.parent) not in str(failed.value)

    def test_broken_file_is_told_without_its_path(self, case: RuntimeCase, directory: Path) -> None:
        if case.break_file is None:
            pytest.skip("no file is broken for this runtime")
        case.break_file(directory)
        with pytest.raises(LoadFailed) as failed:
            _load(case, directory)
        assert case.filename in str(failed.value)
        assert str(directory.parent.parent) not in str(failed.value)

    def test_missing_framework_is_told_with_the_command_that_installs_it(
        self, case: RuntimeCase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if case.row is None or not case.framework:
            pytest.skip("this runtime needs nothing")
        for name in [name for name in sys.modules if name.partition(".")[0] == case.framework]:
            monkeypatch.setitem(sys.modules, name, None)
        module = case.row.target.partition(":")[0]
        for name in [name for name in sys.modules if name.startswith(module)]:
            monkeypatch.delitem(sys.modules, name)
        with pytest.raises(LoadFailed, match=rf"pip install 'modelport\[{case.row.extra}\]'"):
            import_runtime(case.row)

    @pytest.mark.parametrize("name", sorted(DATATYPE_BY_NAME))
    def test_datatype_passes_through_unchanged(
        self, case: RuntimeCase, directory: Path, name: str
    ) -> None:
        datatype = DATATYPE_BY_NAME[name]
        if case.identity is None or datatype in case.refused:
            pytest.skip("no identity of this datatype")
        config = case.identity(directory, datatype)
        loaded = load_model(case.runtime, directory, config, completes=case.completes)
        assert loaded.config.input[0].datatype is datatype
        for values in (extremes(datatype), extremes(datatype)[:0]):
            answer = loaded.ask({"x": values}, datatypes={"x": datatype})
            assert answer["y"].dtype == values.dtype
            assert answer["y"].shape == values.shape
            assert answer["y"].tolist() == values.tolist() or _same_bits(answer["y"], values)
        loaded.instance.unload()


def extremes(datatype: DataType) -> Array:
    """Values of a datatype that are easily lost: ends of its range, NaN, text beyond ASCII."""
    if datatype is BYTES:
        values = np.empty(4, object)
        values[:] = [b"", b"plain", "snow ☃".encode(), b"a\0b"]
        return values
    if datatype is BOOL:
        return np.array([True, False, True])
    if datatype is BF16:
        # 1, -0, infinity, a quiet NaN, the largest
        return np.array([0x3F80, 0x8000, 0x7F80, 0x7FC0, 0x7F7F], np.uint16)
    if datatype.numpy.kind == "f":
        info = np.finfo(datatype.numpy)
        return np.array([0, -1.5, info.max, info.tiny, np.inf, np.nan], datatype.numpy)
    limits = np.iinfo(datatype.numpy)
    return np.array([limits.min, 0, 1, limits.max], datatype.numpy)


def _same_bits(one: Array, other: Array) -> bool:
    return one.dtype != object and one.tobytes() == other.tobytes()


def _source(directory: Path) -> ModelSource:
    return ModelSource(
        name="tried", directory=directory.parent, version_directory=directory, version=1
    )


def _load(case: RuntimeCase, directory: Path) -> LoadedModel:
    config = replace(
        case.config, default_model_filename=case.config.default_model_filename or case.filename
    )
    return load_model(case.runtime, directory, config, completes=case.completes)


def _need_batching(model: LoadedModel) -> None:
    if model.config.max_batch_size == 0:
        pytest.skip("this model takes one request at a time")


def _assert_same(
    answer: Mapping[str, Array], expected: Mapping[str, Array], case: RuntimeCase
) -> None:
    assert list(answer) == list(expected)
    for name, values in expected.items():
        given = answer[name]
        assert given.shape == values.shape, name
        assert given.dtype == values.dtype, name
        if values.dtype.kind == "f":
            np.testing.assert_allclose(given, values, rtol=case.tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(given, values, err_msg=name)
