import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import FP32
from modelport.engine.engine import Engine, EngineOptions
from modelport.engine.pipeline import MAX_OPEN_BRANCHES, Pipeline
from modelport.engine.trace_settings import TraceSettings
from modelport.engine.tracing import Trace, Traces
from modelport.errors import (
    InvalidInference,
    Kind,
    LoadFailed,
    ModelFailed,
    ModelportError,
    Overloaded,
    Unavailable,
)
from modelport.messages import Request, Response, Tensors
from modelport.repository.loading import ModelVersion
from modelport.runtimes.base import Batch, Outcome
from modelport.specs import (
    EnsembleScheduling,
    EnsembleStep,
    Execution,
    ModelConfig,
    ModelInput,
    ModelOutput,
    Reshape,
    TransactionPolicy,
)
from modelport.tensors import Tensor

from .conftest import Bench, Execute, FakeRuntime, Gate, a_moment, answer, first_of, until


def step(model: str, taken: str, given: str, version: int = -1) -> EnsembleStep:
    """A step that takes and gives ensemble tensors, by one-letter names."""
    return EnsembleStep(
        model_name=model,
        model_version=version,
        input_map={f"x{index or ''}": name for index, name in enumerate(taken)},
        output_map={f"y{index or ''}": name for index, name in enumerate(given)},
    )


def model(name: str, *, inputs: int = 1, outputs: int = 1, decoupled: bool = False) -> ModelConfig:
    """A member, with inputs x, x1, ... and outputs y, y1, ..."""
    return ModelConfig(
        name=name,
        max_batch_size=8,
        input=tuple(
            ModelInput(name=f"x{index or ''}", data_type="TYPE_FP32", dims=(1,))
            for index in range(inputs)
        ),
        output=tuple(
            ModelOutput(name=f"y{index or ''}", data_type="TYPE_FP32", dims=(1,))
            for index in range(outputs)
        ),
        model_transaction_policy=TransactionPolicy(decoupled=True) if decoupled else None,
    )


def sum_of(batch: Batch) -> Sequence[Outcome]:
    """Adds its inputs, plus one."""
    outcomes: list[Outcome] = []
    for work in batch.works:
        arrays = [tensor.array for tensor in work.request.payload.tensors]
        outcomes.append(Response([Tensor("y", FP32, np.sum(arrays, axis=0) + np.float32(1))]))
    return outcomes


class Kitchen:
    """An engine that serves one ensemble ``e`` and its members."""

    def __init__(self, bench: Bench, *, execution: Execution = "thread") -> None:
        self.bench = bench
        self.engine = Engine(EngineOptions(execution=execution), bench.clock)
        self.runtimes: dict[str, FakeRuntime] = {}

    def serve(self, config: ModelConfig, run: Execute = sum_of, *, version: int = 1) -> FakeRuntime:
        """Serve a member, or another one in its place."""
        loaded = self.bench.version(run, config=config, version=version)
        runtime: Any = loaded.instances[0]
        self.engine.attach([loaded])
        self.runtimes[config.name] = runtime
        return self.runtimes[config.name]

    def ensemble(
        self,
        *steps: EnsembleStep,
        outputs: str = "y",
        name: str = "e",
        decoupled: bool = False,
        reshape: Reshape | None = None,
        optional: str = "",
        most: int = 0,
    ) -> Pipeline:
        config = ModelConfig(
            name=name,
            max_batch_size=8,
            input=(
                ModelInput(name="x", data_type="TYPE_FP32", dims=(1,), reshape=reshape),
                *(
                    ModelInput(name=each, data_type="TYPE_FP32", dims=(1,), optional=True)
                    for each in optional
                ),
            ),
            output=tuple(
                ModelOutput(name=output, data_type="TYPE_FP32", dims=(1,)) for output in outputs
            ),
            ensemble_scheduling=EnsembleScheduling(step=steps, max_inflight_requests=most),
            model_transaction_policy=TransactionPolicy(decoupled=True) if decoupled else None,
        )
        self.engine.attach([ModelVersion(name, 1, config, "{}")])
        served = self.engine.resolve(name)
        assert isinstance(served, Pipeline)
        return served

    async def ask(self, value: float = 0.0, **attributes: Any) -> dict[str, float]:
        sink, _ = self.bench.submit(self.engine.resolve("e"), value, **attributes)
        await sink.over.wait()
        if sink.error is not None:
            raise sink.error
        (response,) = sink.heard
        return {tensor.name: float(tensor.array[0, 0]) for tensor in response.outputs}

    async def close(self) -> None:
        self.bench.loop.selector.patience_s = 1.0
        await self.engine.close()


def cook(bench: Bench, recipe: Callable[[Kitchen], Any], execution: Execution = "thread") -> None:
    async def main() -> None:
        kitchen = Kitchen(bench, execution=execution)
        try:
            await recipe(kitchen)
        finally:
            await kitchen.close()

    bench.run(main())


EVERYWHERE = pytest.mark.parametrize("execution", ["inline", "thread"])


# The graph.


@EVERYWHERE
def test_tensors_flow_from_step_to_step(bench: Bench, execution: Execution) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.serve(model("b"))
        kitchen.serve(model("two", inputs=2))
        # In an order that is not theirs.
        kitchen.ensemble(
            step("two", "uv", "y"), step("a", "t", "u"), step("b", "x", "t"), step("b", "t", "v")
        )
        # t = 6, u = v = 7, y = 15
        assert await kitchen.ask(5) == {"y": 15.0}

    cook(bench, recipe, execution)


def test_steps_that_do_not_need_each_other_run_side_by_side(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gates = {name: Gate(sum_of) for name in "ab"}
        for name, gate in gates.items():
            kitchen.serve(model(name), gate)
        two = kitchen.serve(model("two", inputs=2))
        kitchen.ensemble(step("a", "x", "u"), step("b", "x", "v"), step("two", "uv", "y"))
        asked = asyncio.ensure_future(kitchen.ask(1))
        for gate in gates.values():
            await gate.reached()
        gates["b"].open()
        await a_moment()
        assert two.batches == []
        gates["a"].open()
        assert await asked == {"y": 5.0}

    cook(bench, recipe)


def test_long_chain_on_the_loop_does_not_recurse(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        names = ["x", *(f"t{index}" for index in range(299)), "y"]
        kitchen.ensemble(
            *(
                EnsembleStep(model_name="a", input_map={"x": before}, output_map={"y": after})
                for before, after in pairwise(names)
            )
        )
        assert await kitchen.ask(0) == {"y": 300.0}

    cook(bench, recipe, "inline")


def test_only_requested_outputs_are_given_in_the_order_of_the_model(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.ensemble(step("a", "x", "u"), step("a", "u", "v"), outputs="vu")
        assert list((await kitchen.ask(0)).items()) == [("v", 2.0), ("u", 1.0)]
        assert await kitchen.ask(0, outputs=("u",)) == {"u": 1.0}
        with pytest.raises(ModelportError, match="unexpected inference output 'z'"):
            await kitchen.ask(0, outputs=("z",))
        with pytest.raises(InvalidInference, match="must be <= 8 for 'e'"):
            await kitchen.ask(0, rows=9)

    cook(bench, recipe)


def test_input_of_the_ensemble_may_be_an_output(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.ensemble(step("a", "x", "y"), outputs="yx")
        assert await kitchen.ask(3) == {"y": 4.0, "x": 3.0}

    cook(bench, recipe)


def test_members_are_told_what_the_caller_said(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        requests: list[Request] = []

        def run(batch: Batch) -> Sequence[Outcome]:
            requests.extend(work.request for work in batch.works)
            return sum_of(batch)

        kitchen.serve(model("a", outputs=2), run)
        kitchen.ensemble(step("a", "x", "y"))
        await kitchen.ask(
            7,
            parameters={"p": 1},
            principal="me",
            trace_id="t",
            priority=2,
            timeout_us=9,
            sequence_id="s",
            sequence_start=True,
            sequence_end=True,
        )
        (seen,) = requests
        assert (seen.id, seen.parameters, seen.principal, seen.trace_id) == (
            "7",
            {"p": 1},
            "me",
            "t",
        )
        assert (seen.priority, seen.timeout_us) == (2, 9)
        assert (seen.sequence_id, seen.sequence_start, seen.sequence_end) == ("s", True, True)
        assert seen.outputs == ("y",), "only what the map names is asked for"

    cook(bench, recipe)


def test_statistics_are_the_ensembles_own_and_the_members_own(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        pipeline = kitchen.ensemble(step("a", "x", "u"), step("a", "u", "y"))
        await kitchen.ask(0, rows=3)
        counted = pipeline.statistics
        assert (counted.inference_count, counted.execution_count) == (3, 1)
        assert (counted.success_count, counted.fail.count, counted.pending) == (1, 0, 0)
        member = kitchen.engine.resolve("a").statistics
        assert (member.inference_count, member.success_count) == (6, 2)
        assert pipeline.in_flight == 0
        assert repr(pipeline) == "<Pipeline e v1 in_flight=0>"

    cook(bench, recipe)


# Memory that is shared.


def writing(seen: list[bool]) -> Execute:
    """A model that writes into its input where it may."""

    def run(batch: Batch) -> Sequence[Outcome]:
        outcomes = []
        for work in batch.works:
            array = work.request.payload.tensors[0].array
            seen.append(array.flags.writeable)
            if array.flags.writeable:
                array += 100
            outcomes.append(Response([Tensor("y", FP32, array + 0)]))
        return outcomes

    return run


@EVERYWHERE
def test_what_only_one_step_gets_it_may_write_to(bench: Bench, execution: Execution) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        seen: list[bool] = []
        kitchen.serve(model("a"))
        kitchen.serve(model("w"), writing(seen))
        kitchen.ensemble(step("a", "x", "t"), step("w", "t", "y"))
        assert await kitchen.ask(1) == {"y": 102.0}
        assert seen == [True]

    cook(bench, recipe, execution)


@EVERYWHERE
def test_what_two_steps_get_is_read_only(bench: Bench, execution: Execution) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        seen: list[bool] = []
        kitchen.serve(model("a"))
        kitchen.serve(model("w"), writing(seen))
        kitchen.ensemble(
            step("a", "x", "t"), step("w", "t", "u"), step("w", "t", "v"), outputs="uv"
        )
        assert await kitchen.ask(1) == {"u": 2.0, "v": 2.0}
        assert seen == [False, False]

    cook(bench, recipe, execution)


@EVERYWHERE
def test_what_the_caller_gets_too_is_read_only(bench: Bench, execution: Execution) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        seen: list[bool] = []
        kitchen.serve(model("a"))
        kitchen.serve(model("w"), writing(seen))
        kitchen.ensemble(step("a", "x", "t"), step("w", "t", "u"), outputs="tu")
        assert await kitchen.ask(1) == {"t": 2.0, "u": 2.0}
        assert seen == [False]

    cook(bench, recipe, execution)


def test_outputs_of_one_memory_are_read_only(bench: Bench) -> None:
    def twice(batch: Batch) -> Sequence[Outcome]:
        array = np.zeros((1, 1), np.float32)
        return [Response([Tensor("y", FP32, array), Tensor("y1", FP32, array[:])])]

    async def recipe(kitchen: Kitchen) -> None:
        seen: list[bool] = []
        kitchen.serve(model("twice", outputs=2), twice)
        kitchen.serve(model("w"), writing(seen))
        kitchen.ensemble(
            step("twice", "x", "tu"), step("w", "t", "v"), step("w", "u", "w"), outputs="vw"
        )
        assert await kitchen.ask(0) == {"v": 0.0, "w": 0.0}
        assert seen == [False, False]

    cook(bench, recipe)


# What goes wrong.


@EVERYWHERE
@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("bad"), Kind.MODEL_FAILED, "ValueError: bad"),
        (ModelFailed("no", code=Kind.INVALID), Kind.INVALID, "no"),
        (Overloaded("full", retry_after_s=5), Kind.OVERLOADED, "full"),
    ],
)
def test_failing_step_is_named(
    bench: Bench, execution: Execution, raised: Exception, kind: Kind, text: str
) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        raise raised

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.serve(model("bad"), run)
        last = kitchen.serve(model("c"))
        pipeline = kitchen.ensemble(step("a", "x", "t"), step("bad", "t", "u"), step("c", "u", "y"))
        with pytest.raises(ModelportError) as caught:
            await kitchen.ask()
        assert str(caught.value) == f"in ensemble 'e', step 1 (model 'bad'): {text}"
        assert caught.value.kind is kind
        assert getattr(caught.value, "retry_after_s", 5) == 5
        assert last.batches == []
        assert pipeline.in_flight == 0
        assert pipeline.statistics.failures["OTHER"] == pipeline.statistics.fail.count == 1

    cook(bench, recipe, execution)


def test_failing_step_cancels_those_beside_it(bench: Bench) -> None:
    def bad(batch: Batch) -> Sequence[Outcome]:
        raise ValueError("bad")

    async def recipe(kitchen: Kitchen) -> None:
        gates = {"a": Gate(sum_of), "bad": Gate(bad)}
        for name, gate in gates.items():
            kitchen.serve(model(name), gate)
        kitchen.ensemble(step("a", "x", "u"), step("bad", "x", "v"), outputs="uv")
        asked = asyncio.ensure_future(kitchen.ask())
        for gate in gates.values():
            await gate.reached()
        gates["bad"].open()
        with pytest.raises(ModelportError, match="bad"):
            await asked
        member: Any = kitchen.engine.resolve("a")
        (job,) = member._jobs
        assert job.is_cancelled
        gates["a"].open()
        await member.drain()

    cook(bench, recipe)


def test_output_that_a_member_keeps_back_is_told(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a", outputs=2))
        kitchen.serve(model("b"))
        kitchen.ensemble(step("a", "x", "uv"), step("b", "v", "y"), outputs="uy")
        with pytest.raises(ModelportError, match=r"unexpected deadlock, .*: \['y'\]"):
            await kitchen.ask()

    cook(bench, recipe)


def test_member_that_does_not_exist_is_told(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        pipeline = kitchen.ensemble(step("a", "x", "t"), step("none", "t", "y"))
        with pytest.raises(
            ModelportError, match=r"in ensemble 'e', step 1 \(model 'none'\): Request for unkn"
        ):
            await kitchen.ask()
        assert not pipeline.is_ready()

    cook(bench, recipe)


def test_ensemble_is_ready_while_its_members_are(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        runtime = kitchen.serve(model("a"))
        pipeline = kitchen.ensemble(step("a", "x", "y"))
        assert pipeline.is_ready()
        runtime.is_up = False
        assert not pipeline.is_ready()
        assert pipeline.why_not_ready() == "model 'a', which it needs, is not ready"

    cook(bench, recipe)


def test_shapes_of_its_own_are_refused(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        with pytest.raises(LoadFailed, match="put reshape into the model of the step"):
            kitchen.ensemble(step("a", "x", "y"), reshape=Reshape())

    cook(bench, recipe)


# Callers that go away, and members that do.


def test_cancelling_reaches_the_members_that_run_and_no_other_one_starts(bench: Bench) -> None:
    seen: list[bool] = []

    def run(batch: Batch) -> Sequence[Outcome]:
        seen.extend(work.is_cancelled for work in batch.works)
        return sum_of(batch)

    async def recipe(kitchen: Kitchen) -> None:
        gate = Gate(run)
        kitchen.serve(model("a"), gate)
        last = kitchen.serve(model("b"))
        pipeline = kitchen.ensemble(step("a", "x", "t"), step("b", "t", "y"))
        sink, ticket = bench.submit(pipeline, 1)
        await gate.reached()
        ticket.cancel()
        ticket.cancel()
        assert pipeline.in_flight == 0
        gate.open()
        await kitchen.engine.resolve("a").drain()
        assert seen == [True]
        assert last.batches == []
        assert not sink.is_over
        assert pipeline.statistics.failures["CANCELED"] == pipeline.statistics.fail.count == 1

    cook(bench, recipe)


def test_deadline_of_an_ensemble_is_that_of_its_steps(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gate = Gate(sum_of)
        kitchen.serve(model("a"), gate)
        kitchen.ensemble(step("a", "x", "y"))
        asked = asyncio.ensure_future(kitchen.ask(deadline_ns=bench.clock.now_ns() + 10**6))
        with pytest.raises(ModelportError, match="the deadline of the request passed") as caught:
            await asked
        assert caught.value.kind is Kind.TIMEOUT
        gate.open()

    cook(bench, recipe)


def test_member_may_be_replaced_in_between(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gate = Gate(sum_of)
        kitchen.serve(model("a"), gate)
        old = kitchen.serve(model("b"))
        kitchen.ensemble(step("a", "x", "t"), step("b", "t", "y"))
        asked = asyncio.ensure_future(kitchen.ask(1))
        await gate.reached()
        new = kitchen.serve(model("b"))
        await until(lambda: old.is_unloaded)
        gate.open()
        assert await asked == {"y": 3.0}
        assert (old.batches, new.batches) == ([], [[2.0]])

    cook(bench, recipe)


def test_request_in_flight_finishes_though_ensemble_and_members_are_taken_down(
    bench: Bench,
) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gate = Gate(sum_of)
        kitchen.serve(model("a"), gate)
        last = kitchen.serve(model("b"))
        kitchen.ensemble(step("b", "x", "y"), name="inner")
        kitchen.ensemble(step("a", "x", "t"), step("inner", "t", "y"))
        asked = asyncio.ensure_future(kitchen.ask(1))
        await gate.reached()
        # As the repository does it: ensembles first, each as of the call, then members.
        finishing = [
            asyncio.ensure_future(kitchen.engine.detach(name, 1))
            for name in ("e", "inner", "b", "a")
        ]
        await a_moment()
        assert not any(task.done() for task in finishing)
        with pytest.raises(ModelportError, match="Request for unknown model: 'b'"):
            kitchen.engine.resolve("b")
        gate.open()
        assert await asked == {"y": 3.0}
        await asyncio.gather(*finishing)
        assert last.batches == [[2.0]]

    cook(bench, recipe)


def test_closing_fails_what_is_in_flight_once(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gate = Gate(sum_of)
        kitchen.serve(model("a"), gate)
        pipeline = kitchen.ensemble(step("a", "x", "y"))
        sink, _ = bench.submit(pipeline, 1)
        await gate.reached()
        pipeline.close()
        assert isinstance(sink.error, Unavailable)
        await pipeline.drain()
        with pytest.raises(Unavailable):
            bench.submit(pipeline, 1)
        gate.open()

    cook(bench, recipe)


def test_drain_waits_for_what_is_in_flight(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gate = Gate(sum_of)
        kitchen.serve(model("a"), gate)
        pipeline = kitchen.ensemble(step("a", "x", "y"))
        await pipeline.drain()
        sink, _ = bench.submit(pipeline, 1)
        draining = asyncio.ensure_future(pipeline.drain())
        await gate.reached()
        assert not draining.done()
        gate.open()
        await draining
        assert sink.is_over

    cook(bench, recipe)


# Streams.


def counting(batch: Batch) -> None:
    """Streams 1, 2, ... up to its input."""
    for work in batch.works:
        for value in range(1, round(first_of(work)) + 1):
            work.send(Response([Tensor("y", FP32, np.array([[value]], np.float32))]), final=False)
        work.send(None, final=True)


async def stream_of(kitchen: Kitchen, value: float) -> list[list[float]]:
    sink, _ = kitchen.bench.submit(kitchen.engine.resolve("e"), value)
    await sink.over.wait()
    if sink.error is not None:
        raise sink.error
    return [[float(t.array[0, 0]) for t in response.outputs] for response in sink.heard]


@EVERYWHERE
@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_steps_after_one_that_streams_run_once_for_each_of_its_responses(
    bench: Bench, execution: Execution, count: int
) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(model("two", inputs=2))
        # t = count + 1 responses; beside them u = x + 1, once; y = response + u + 1
        pipeline = kitchen.ensemble(
            step("a", "x", "t"),
            step("count", "t", "c"),
            step("a", "x", "u"),
            step("two", "cu", "y"),
            outputs="cy",
            decoupled=True,
        )
        got = await stream_of(kitchen, count)
        assert got == [[value, value + count + 2] for value in range(1, count + 2)]
        assert pipeline.statistics.success_count == 1
        assert pipeline.in_flight == 0

    cook(bench, recipe, execution)


def test_step_without_any_after_it_streams_through(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.ensemble(step("count", "x", "y"), decoupled=True)
        assert await stream_of(kitchen, 3) == [[1.0], [2.0], [3.0]]
        assert await stream_of(kitchen, 0) == []

    cook(bench, recipe)


def test_last_response_of_a_stream_may_be_its_end(bench: Bench) -> None:
    def run(batch: Batch) -> None:
        for work in batch.works:
            array = np.array([[5]], np.float32)
            work.send(Response([Tensor("y", FP32, array)]), final=True)

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("one", decoupled=True), run)
        kitchen.serve(model("a"))
        kitchen.ensemble(step("one", "x", "t"), step("a", "t", "y"), decoupled=True)
        assert await stream_of(kitchen, 3) == [[6.0]]

    cook(bench, recipe)


def test_responses_keep_the_order_of_the_stream(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gates = [Gate(sum_of), Gate(sum_of)]
        kitchen.serve(model("count", decoupled=True), counting)
        loaded = bench.version(*gates, config=model("a"))
        kitchen.engine.attach([loaded])
        kitchen.ensemble(step("count", "x", "t"), step("a", "t", "y"), decoupled=True)
        asked = asyncio.ensure_future(stream_of(kitchen, 6))
        for gate in gates:
            await gate.reached()
        runtimes: list[Any] = loaded.instances
        first = next(i for i, runtime in enumerate(runtimes) if runtime.batches[0] == [1])
        gates[1 - first].open()
        await until(lambda: len(runtimes[1 - first].batches) == 5)
        gates[first].open()
        assert await asked == [[value + 1.0] for value in range(1, 7)]

    cook(bench, recipe)


def test_nested_ensemble_streams_too(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(model("a"))
        kitchen.ensemble(step("count", "x", "t"), step("a", "t", "y"), name="inner", decoupled=True)
        kitchen.ensemble(step("inner", "x", "t"), step("a", "t", "y"), decoupled=True)
        assert await stream_of(kitchen, 50) == [[value + 2.0] for value in range(1, 51)]

    cook(bench, recipe)


@EVERYWHERE
def test_stream_waits_for_a_caller_that_does_not_read(bench: Bench, execution: Execution) -> None:
    sent = 0

    async def send_all(batch: Batch) -> None:
        nonlocal sent
        (work,) = batch.works
        for value in range(1000):
            work.send(Response([Tensor("y", FP32, np.array([[value]], np.float32))]), final=False)
            sent += 1
            await work.drained()
        work.send(None, final=True)

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), lambda batch: send_all(batch))
        kitchen.serve(model("a"))
        kitchen.ensemble(step("count", "x", "t"), step("a", "t", "y"), decoupled=True)
        sink, ticket = bench.submit(kitchen.engine.resolve("e"), 1)
        sink.welcome = False
        await sink.something.wait()
        for _ in range(100):
            await a_moment()
        assert sent < 64 + MAX_OPEN_BRANCHES + 5
        assert len(sink.heard) == 1
        sink.welcome = True
        while not sink.is_over:
            ticket.resume()
            await a_moment()
        assert sink.values == [[value + 1.0] for value in range(1000)]

    cook(bench, recipe, execution)


def test_failing_branch_ends_the_stream_and_stops_its_model(bench: Bench) -> None:
    def picky(batch: Batch) -> Sequence[Outcome]:
        if first_of(batch.works[0]) == 3:
            raise ValueError("three")
        return sum_of(batch)

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(model("picky"), picky)
        kitchen.ensemble(step("count", "x", "t"), step("picky", "t", "y"), decoupled=True)
        with pytest.raises(ModelportError, match=r"\(model 'picky'\): ValueError: three"):
            await stream_of(kitchen, 100)
        await kitchen.engine.resolve("count").drain()

    cook(bench, recipe)


def test_branch_whose_output_is_kept_back_is_told(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(model("a", outputs=2))
        kitchen.serve(model("b"))
        kitchen.ensemble(
            step("count", "x", "t"), step("a", "t", "uv"), step("b", "v", "y"), decoupled=True
        )
        with pytest.raises(ModelportError, match="unexpected deadlock"):
            await stream_of(kitchen, 2)

    cook(bench, recipe)


@EVERYWHERE
def test_step_after_a_stream_may_stream_too(bench: Bench, execution: Execution) -> None:
    """For each response of the first there are all those of the second, in order."""

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(model("two", inputs=2))
        pipeline = kitchen.ensemble(
            step("count", "x", "t"),
            step("count", "t", "u"),
            step("two", "tu", "y"),
            outputs="tuy",
            decoupled=True,
        )
        expected = [[t, u, t + u + 1] for t in range(1, 31) for u in range(1, t + 1)]
        assert await stream_of(kitchen, 30) == expected
        assert await stream_of(kitchen, 0) == []
        assert pipeline.in_flight == 0

    cook(bench, recipe, execution)


def test_inner_stream_without_responses_leaves_no_gap(bench: Bench) -> None:
    def odd_only(batch: Batch) -> None:
        for work in batch.works:
            if first_of(work) % 2:
                work.send(answer(work), final=False)
            work.send(None, final=True)

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(model("odd", decoupled=True), odd_only)
        kitchen.ensemble(step("count", "x", "t"), step("odd", "t", "y"), decoupled=True)
        assert await stream_of(kitchen, 40) == [[value] for value in range(1, 41, 2)]
        assert await stream_of(kitchen, 1) == [[1]]

    cook(bench, recipe)


@EVERYWHERE
def test_streams_side_by_side_are_joined_one_by_one(bench: Bench, execution: Execution) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(model("ten", decoupled=True), tens)
        kitchen.serve(model("two", inputs=2))
        kitchen.serve(model("a"))
        kitchen.ensemble(
            step("count", "x", "t"),
            step("ten", "x", "u"),
            step("a", "u", "v"),
            step("two", "tv", "y"),
            outputs="uy",
            decoupled=True,
        )
        expected = [[10 * n, n + 10 * n + 2] for n in range(1, 51)]
        assert await stream_of(kitchen, 50) == expected

    cook(bench, recipe, execution)


def tens(batch: Batch) -> None:
    """Streams 10, 20, ... up to ten times its input."""
    for work in batch.works:
        for value in range(1, round(first_of(work)) + 1):
            array = np.array([[10 * value]], np.float32)
            work.send(Response([Tensor("y", FP32, array)]), final=False)
        work.send(None, final=True)


def test_streams_side_by_side_of_different_lengths_are_told(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(model("a"))
        kitchen.serve(model("two", inputs=2))
        kitchen.ensemble(
            step("a", "x", "z"),
            step("count", "x", "t"),
            step("count", "z", "u"),
            step("two", "tu", "y"),
            decoupled=True,
        )
        with pytest.raises(ModelFailed) as caught:
            await stream_of(kitchen, 2)
        assert str(caught.value) == (
            "in ensemble 'e', steps stream side by side and have to give the same number of "
            "responses: step 1 (model 'count') gave 2, step 2 (model 'count') gave 3"
        )

    cook(bench, recipe)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_ensemble_may_say_how_far_a_stream_is_ahead(bench: Bench, most: int) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gate = Gate(sum_of)
        runtime = kitchen.serve(model("count", decoupled=True), counting)
        kitchen.serve(config_with_queue("a"), gate)
        pipeline = kitchen.ensemble(
            step("count", "x", "t"), step("a", "t", "y"), decoupled=True, most=most
        )
        asked = asyncio.ensure_future(stream_of(kitchen, 40))
        await gate.reached()
        for _ in range(20):
            await a_moment()
        member = kitchen.engine.resolve("a")
        assert member.in_flight == most
        gate.open()
        assert await asked == [[value + 1.0] for value in range(1, 41)]
        assert runtime.batches == [[40.0]]
        assert pipeline.in_flight == 0

    cook(bench, recipe)


def config_with_queue(name: str) -> ModelConfig:
    return replace(model(name), max_batch_size=1)


def test_two_streams_wait_for_a_caller_that_does_not_read(bench: Bench) -> None:
    """Neither must run ahead without a bound, and both go on when it reads again."""

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("count", decoupled=True), counting)
        kitchen.ensemble(step("count", "x", "t"), step("count", "t", "y"), decoupled=True, most=2)
        sink, ticket = bench.submit(kitchen.engine.resolve("e"), 60)
        sink.welcome = False
        await sink.something.wait()
        for _ in range(50):
            await a_moment()
        assert len(sink.heard) == 1
        assert kitchen.engine.resolve("count").in_flight <= 4
        while not sink.is_over:
            ticket.resume()
            await a_moment()
        assert sink.values == [[y] for t in range(1, 61) for y in range(1, t + 1)]

    cook(bench, recipe)


# Inputs that need not be there.


def test_steps_do_without_an_optional_input_that_the_caller_left_out(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        member = model("sum", inputs=2)
        member = replace(member, input=(member.input[0], replace(member.input[1], optional=True)))
        runtime = kitchen.serve(member)
        pipeline = kitchen.ensemble(
            step("sum", "xo", "t"), step("sum", "tp", "y"), optional="op", outputs="yo"
        )

        async def ask(**given: float) -> dict[str, float]:
            tensors = [
                Tensor(name, FP32, np.full((1, 1), value, np.float32))
                for name, value in given.items()
            ]
            sink = bench.sink()
            pipeline.submit(Request(Tensors(tensors)), sink)
            await sink.over.wait()
            assert sink.error is None
            return {t.name: float(t.array[0, 0]) for t in sink.heard[0].outputs}

        assert await ask(x=1, o=10, p=100) == {"y": 113, "o": 10}
        assert await ask(x=1, p=100) == {"y": 103}
        assert await ask(x=1) == {"y": 3}
        assert len(runtime.batches) == 6

    cook(bench, recipe)


def test_step_that_cannot_do_without_an_optional_input_is_named(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("two", inputs=2))
        kitchen.ensemble(step("two", "xo", "y"), optional="o")
        text = r"^in ensemble 'e', step 0 \(model 'two'\): expected 2 inputs but got 1"
        with pytest.raises(ModelportError, match=text):
            await kitchen.ask(1)

    cook(bench, recipe)


def test_member_that_began_to_stream_is_told(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.ensemble(step("a", "x", "y"))
        kitchen.serve(model("a", decoupled=True), counting)
        with pytest.raises(ModelportError, match="did not when the ensemble was loaded"):
            await kitchen.ask(3)

    cook(bench, recipe)


def test_ordinary_member_that_gives_no_response_is_told(bench: Bench) -> None:
    def nothing(batch: Batch) -> None:
        for work in batch.works:
            work.send(None, final=True)

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"), nothing)
        kitchen.ensemble(step("a", "x", "y"))
        with pytest.raises(
            ModelportError, match=r"step 0 \(model 'a'\): model 'a' gave no response"
        ):
            await kitchen.ask(3)

    cook(bench, recipe)


def test_cancelling_a_stream_stops_its_model(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        seen: list[bool] = []

        def endless(batch: Batch) -> None:
            (work,) = batch.works
            try:
                while True:
                    work.send(
                        Response([Tensor("y", FP32, np.ones((1, 1), np.float32))]), final=False
                    )
            except ModelportError:
                seen.append(work.is_cancelled)
                work.send(None, final=True)

        kitchen.serve(model("endless", decoupled=True), endless)
        kitchen.ensemble(step("endless", "x", "y"), decoupled=True)
        sink, ticket = bench.submit(kitchen.engine.resolve("e"), 1)
        await sink.something.wait()
        ticket.cancel()
        await kitchen.engine.resolve("endless").drain()
        assert seen == [True]

    cook(bench, recipe)


# Traces.


def traced(kitchen: Kitchen, *models: str) -> list[Trace]:
    """Trace some models from now on; gives where the traces go."""
    kept: list[Trace] = []
    traces = Traces(TraceSettings(rate=1), "trace.json", kept.append, kitchen.bench.clock)
    kitchen.engine.trace(traces)
    for name in models:
        traces.change(name, {"trace_level": ["TIMESTAMPS", "TENSORS"]})
    return kept


@EVERYWHERE
def test_steps_are_traced_with_their_ensemble(bench: Bench, execution: Execution) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.ensemble(step("a", "x", "t"), step("a", "t", "y"), name="inner")
        kitchen.ensemble(step("inner", "x", "t"), step("a", "t", "y"))
        kept = traced(kitchen, "e")
        await kitchen.ask(1, id="mine")
        (whole,) = kept
        inner, last = whole.steps
        assert [(t.model, t.version, t.request_id) for t in (whole, inner, last)] == [
            ("e", 1, "mine"),
            ("inner", 1, "mine"),
            ("a", 1, "mine"),
        ]
        assert inner.parent is last.parent is whole
        assert [trace.model for trace in inner.steps] == ["a", "a"]
        for leaf in (*inner.steps, last):
            names = [name for name, _ in leaf.timestamps]
            assert names[:3] == ["REQUEST_START", "QUEUE_START", "COMPUTE_START"]
            assert names[-2:] == ["COMPUTE_END", "REQUEST_END"]
            assert [tensor.activity for tensor in leaf.tensors] == [
                "TENSOR_QUEUE_INPUT",
                "TENSOR_BACKEND_OUTPUT",
            ]
        ids = {trace.id for trace in (whole, inner, last, *inner.steps)}
        assert len(ids) == 5
        # Who asks the member itself is not traced: only the ensemble is.
        sink, _ = bench.submit(kitchen.engine.resolve("a"), 1)
        await sink.over.wait()
        assert len(kept) == 1

    cook(bench, recipe, execution)


def test_a_member_with_traces_of_its_own_has_them_as_a_step_only_with_its_ensemble(
    bench: Bench,
) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.ensemble(step("a", "x", "y"))
        kept = traced(kitchen, "a")
        await kitchen.ask(1)
        assert kept == []
        sink, _ = bench.submit(kitchen.engine.resolve("a"), 1)
        await sink.over.wait()
        assert [(trace.model, trace.parent) for trace in kept] == [("a", None)]

    cook(bench, recipe)


def test_the_step_that_failed_is_in_the_trace(bench: Bench) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        raise ValueError("bad")

    async def recipe(kitchen: Kitchen) -> None:
        kitchen.serve(model("a"))
        kitchen.serve(model("bad"), run)
        kitchen.ensemble(step("a", "x", "t"), step("bad", "t", "u"), step("a", "u", "y"))
        kept = traced(kitchen, "e")
        with pytest.raises(ModelFailed):
            await kitchen.ask(1)
        (whole,) = kept
        assert [trace.model for trace in whole.steps] == ["a", "bad"]
        assert whole.is_over

    cook(bench, recipe)


def test_traces_end_where_their_caller_goes_away(bench: Bench) -> None:
    async def recipe(kitchen: Kitchen) -> None:
        gate = Gate(sum_of)
        kitchen.serve(model("a"), gate)
        kitchen.ensemble(step("a", "x", "y"))
        kept = traced(kitchen, "e")
        _, ticket = bench.submit(kitchen.engine.resolve("e"), 1)
        await gate.reached()
        ticket.cancel()
        (whole,) = kept
        (inner,) = whole.steps
        gate.open()
        await kitchen.close()
        for trace in (whole, inner):
            names = [name for name, _ in trace.timestamps]
            assert names == ["REQUEST_START", "QUEUE_START", "REQUEST_END"]
        assert (len(kept), len(whole.steps)) == (1, 1)

    cook(bench, recipe)
