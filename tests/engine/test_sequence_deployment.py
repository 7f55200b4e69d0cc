from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import FP32
from modelport.engine.options import EngineOptions
from modelport.engine.sequence_deployment import SequenceDeployment
from modelport.errors import Cancelled, InvalidRequest, ModelFailed, Overloaded
from modelport.messages import Response
from modelport.runtimes.base import Batch, Outcome, Work
from modelport.specs import (
    Control,
    ControlInput,
    Direct,
    InitialState,
    ModelConfig,
    Oldest,
    SequenceBatching,
    State,
)
from modelport.tensors import Array, Tensor

from .conftest import Bench, Execute, FakeRuntime, FakeSink, Gate, config_of

CONTROLS = tuple(
    ControlInput(name=name, control=(Control(kind=f"CONTROL_SEQUENCE_{name}", **how),))
    for name, how in (
        ("START", {"int32_false_true": (0, 1)}),
        ("READY", {"fp32_false_true": (-1.0, 1.0)}),
        ("END", {"bool_false_true": (False, True)}),
        ("CORRID", {"data_type": "TYPE_UINT64"}),
    )
)
STRATEGIES: dict[str, dict[str, Any]] = {
    "direct": {"direct": Direct()},
    "oldest": {"oldest": Oldest(max_candidate_sequences=4)},
}
EVERYWHERE = pytest.mark.parametrize("execution", ["inline", "thread", "auto"])
EITHER = pytest.mark.parametrize("strategy", ["direct", "oldest"])


def sequence_config(
    strategy: str = "oldest", *, max_batch_size: int = 4, decoupled: bool = False, **more: Any
) -> ModelConfig:
    sequences = {"control_input": CONTROLS, **STRATEGIES[strategy], **more}
    sequences.setdefault("max_sequence_idle_microseconds", 1_000_000)
    return config_of(
        max_batch_size=max_batch_size,
        decoupled=decoupled,
        sequence_batching=SequenceBatching(**sequences),
    )


def value_of(work: Work, name: str) -> Any:
    (tensor,) = [t for t in work.request.payload.tensors if t.name == name]
    return tensor.array.ravel().tolist()[0]


class Accumulator:
    """A model that adds up the numbers of each sequence, and remembers what it was told."""

    def __init__(self) -> None:
        self.sums: dict[Any, float] = {}
        self.seen: list[tuple[Any, ...]] = []

    def __call__(self, batch: Batch) -> Sequence[Outcome]:
        return [self._answer(work) for work in batch.works]

    def _answer(self, work: Work) -> Response:
        x, start, ready, end, key = (
            value_of(work, name) for name in ("x", "START", "READY", "END", "CORRID")
        )
        self.seen.append((key, x, start, end) if ready > 0 else ())
        if ready > 0:
            if start:
                self.sums[key] = 0.0
            self.sums[key] += x
        array: Array = np.full((1, 1), self.sums.get(key, -1.0), np.float32)
        if ready > 0 and end:
            del self.sums[key]
        return Response([Tensor("y", FP32, array)])


def deploy(
    bench: Bench, *runs: Execute, config: ModelConfig, initial: Any = None, **options: Any
) -> tuple[SequenceDeployment, list[FakeRuntime]]:
    version = bench.version(*runs, config=config)
    version.initial_states = initial or {}
    runtimes: list[Any] = list(version.instances)
    # While a thread is waited for, the clock jumps to the next timer, and sequences are forgotten.
    needs_thread = any(isinstance(run, Gate) for run in runs)
    options.setdefault("execution", "thread" if needs_thread else "inline")
    deployment = SequenceDeployment(
        version,
        options=EngineOptions(**options),
        completions=bench.completions,
        clock=bench.clock,
    )
    bench._deployments.append(deployment)
    return deployment, runtimes


def step(
    bench: Bench, deployment: Any, id: int | str, value: float, flags: str = "", **more: Any
) -> tuple[FakeSink, Any]:
    """``s`` in ``flags`` starts and ``e`` ends the sequence."""
    return bench.submit(
        deployment,
        value,
        sequence_id=id,
        sequence_start="s" in flags,
        sequence_end="e" in flags,
        **more,
    )


async def values(*sinks: FakeSink) -> list[float]:
    for sink in sinks:
        await sink.over.wait()
        assert sink.error is None, sink.error
    return [sink.values[0][0] for sink in sinks]


@EVERYWHERE
@EITHER
def test_a_sequence_is_remembered(bench: Bench, strategy: str, execution: Any) -> None:
    async def main() -> None:
        model = Accumulator()
        deployment, _ = deploy(bench, model, config=sequence_config(strategy), execution=execution)
        for _ in range(20):
            sinks = [
                step(bench, deployment, 7, 1, "s")[0],
                step(bench, deployment, 7, 2)[0],
                step(bench, deployment, 7, 3, "e")[0],
            ]
            assert await values(*sinks) == [1, 3, 6]
        assert model.seen[:3] == [(7, 1, 1, False), (7, 2, 0, False), (7, 3, 0, True)]
        assert deployment.in_flight == 0
        assert deployment.statistics.success_count == 60
        assert deployment.statistics.pending == 0

    bench.run(main())


@EITHER
def test_what_makes_no_sequence_is_refused(bench: Bench, strategy: str) -> None:
    async def main() -> None:
        deployment, _ = deploy(bench, Accumulator(), config=sequence_config(strategy))
        for none in (0, ""):
            with pytest.raises(InvalidRequest, match="must specify a non-zero or non-empty corr"):
                step(bench, deployment, none, 1, "s")
        text = "inference request for sequence 5 to model 'tried' must specify the START flag on"
        with pytest.raises(InvalidRequest, match=text):
            step(bench, deployment, 5, 1)
        with pytest.raises(InvalidRequest, match="must specify batch-size 1 due to requirements"):
            step(bench, deployment, 5, 1, "s", rows=2)
        with pytest.raises(InvalidRequest, match="'five'"):
            step(bench, deployment, "five", 1, "s")
        assert await values(step(bench, deployment, 5, 1, "s")[0]) == [1]
        assert await values(step(bench, deployment, 5, 1, "e")[0]) == [2]
        with pytest.raises(InvalidRequest, match=text):
            step(bench, deployment, 5, 1)

    bench.run(main())


def test_a_sequence_is_its_callers_own(bench: Bench) -> None:
    async def main() -> None:
        deployment, _ = deploy(bench, Accumulator(), config=sequence_config())
        sink, _ = step(bench, deployment, 5, 1, "s", principal="ann")
        assert await values(sink) == [1]
        with pytest.raises(InvalidRequest, match="START flag"):
            step(bench, deployment, 5, 1, principal="bob")
        with pytest.raises(InvalidRequest, match="in use by another caller"):
            step(bench, deployment, 5, 1, "s", principal="bob")
        assert await values(step(bench, deployment, 5, 1, principal="ann")[0]) == [2]

    bench.run(main())


def test_a_sequence_that_is_silent_too_long_must_start_again(bench: Bench) -> None:
    async def main() -> None:
        deployment, _ = deploy(bench, Accumulator(), config=sequence_config(max_batch_size=1))
        assert await values(step(bench, deployment, 1, 4, "s")[0]) == [4]
        bench.clock.advance(0.9)
        assert await values(step(bench, deployment, 1, 4)[0]) == [8]
        bench.clock.advance(1.0)
        with pytest.raises(InvalidRequest, match=r"idle for more than 1 s"):
            step(bench, deployment, 1, 4)
        assert await values(step(bench, deployment, 1, 3, "s")[0]) == [3]

    bench.run(main())


def test_a_silent_sequence_makes_room_for_another(bench: Bench) -> None:
    async def main() -> None:
        config = sequence_config("direct", max_batch_size=1)
        deployment, _ = deploy(bench, Accumulator(), config=config)
        first, _ = step(bench, deployment, 1, 4, "s")
        assert await values(first) == [4]
        began_ns = bench.clock.now_ns()
        second, _ = step(bench, deployment, 2, 5, "s")
        assert await values(second) == [5]
        assert bench.clock.now_ns() - began_ns >= 1_000_000_000

    bench.run(main())


def test_empty_places_are_not_ready_and_nobody_hears_of_them(bench: Bench) -> None:
    async def main() -> None:
        model = Accumulator()
        deployment, _ = deploy(bench, model, config=sequence_config("direct"))
        for id in (1, 2, 3):
            await values(step(bench, deployment, id, id, "s")[0])
        model.seen.clear()
        assert await values(step(bench, deployment, 3, 5)[0]) == [8]
        assert model.seen == [(), (), (3, 5, 0, False)]
        assert deployment.in_flight == 0
        assert deployment.statistics.inference_count == 4

    bench.run(main())


@EITHER
def test_sequences_share_batches_and_never_interleave(bench: Bench, strategy: str) -> None:
    async def main() -> None:
        gate = Gate(Accumulator())
        deployment, (runtime,) = deploy(bench, gate, config=sequence_config(strategy))
        sinks = [step(bench, deployment, 1, 1, "s")[0]]
        await gate.reached()
        for id in (2, 3, 4):
            sinks.append(step(bench, deployment, id, id, "s")[0])
            sinks.append(step(bench, deployment, id, id, "e")[0])
        gate.open()
        assert await values(*sinks) == [1, 2, 4, 3, 6, 4, 8]
        if strategy == "oldest":
            assert runtime.batches == [[1], [2, 3, 4], [2, 3, 4]]
        else:
            assert runtime.batches == [[1], [0, 2, 3, 4], [0, 2, 3, 4]]

    bench.run(main())


def test_steps_that_are_cancelled_are_left_out(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate(Accumulator())
        deployment, _ = deploy(bench, gate, config=sequence_config())
        first, running = step(bench, deployment, 1, 1, "s")
        await gate.reached()
        _, dropped = step(bench, deployment, 1, 10)
        last, _ = step(bench, deployment, 1, 100)
        dropped.cancel()
        # What runs cannot be taken back: the model has seen it.
        running.cancel()
        gate.open()
        assert await values(last) == [101]
        assert not first.is_over
        assert deployment.in_flight == 0
        assert deployment.statistics.failures["CANCELED"] == 2

    bench.run(main())


def test_what_follows_a_start_that_is_cancelled_fails(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate(Accumulator())
        deployment, _ = deploy(bench, gate, config=sequence_config(max_batch_size=1))
        other, _ = step(bench, deployment, 1, 1, "s")
        await gate.reached()
        _, start = step(bench, deployment, 2, 1, "s")
        second, _ = step(bench, deployment, 2, 1)
        start.cancel()
        assert isinstance(second.error, Cancelled)
        assert "start the sequence again" in str(second.error)
        with pytest.raises(InvalidRequest, match="START flag"):
            step(bench, deployment, 2, 1)
        gate.open()
        assert await values(other) == [1]
        assert deployment.in_flight == 0

    bench.run(main())


def test_a_deadline_that_passes_in_the_queue_leaves_the_step_out(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate(Accumulator())
        deployment, _ = deploy(bench, gate, config=sequence_config())
        first, _ = step(bench, deployment, 1, 1, "s")
        await gate.reached()
        deadline_ns = bench.clock.now_ns() + 10_000_000
        late, _ = step(bench, deployment, 1, 10, deadline_ns=deadline_ns)
        last, _ = step(bench, deployment, 1, 100)
        assert "deadline" in await late.error_text()
        gate.open()
        assert await values(first, last) == [1, 101]

    bench.run(main())


def test_a_step_that_fails_does_not_end_its_sequence(bench: Bench) -> None:
    model = Accumulator()

    def run(batch: Batch) -> Sequence[Outcome]:
        if value_of(batch.works[0], "x") < 0:
            raise ValueError("negative")
        return model(batch)

    async def main() -> None:
        deployment, _ = deploy(bench, run, config=sequence_config())
        assert await values(step(bench, deployment, 1, 1, "s")[0]) == [1]
        failed, _ = step(bench, deployment, 1, -1)
        assert await failed.error_text() == "ValueError: negative"
        assert await values(step(bench, deployment, 1, 1, "e")[0]) == [2]

    bench.run(main())


def test_the_queue_is_bounded(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate(Accumulator())
        deployment, _ = deploy(bench, gate, config=sequence_config(), max_queue_size=2)
        sinks = [step(bench, deployment, 1, 1, "s")[0]]
        await gate.reached()
        sinks += [step(bench, deployment, 1, 1)[0], step(bench, deployment, 1, 1)[0]]
        with pytest.raises(Overloaded, match="Exceeds maximum queue size"):
            step(bench, deployment, 1, 1)
        gate.open()
        assert await values(*sinks) == [1, 2, 3]

    bench.run(main())


def test_closing_fails_what_waits(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate(Accumulator())
        deployment, _ = deploy(bench, gate, config=sequence_config())
        sinks = [step(bench, deployment, 1, 1, "s")[0]]
        await gate.reached()
        sinks.append(step(bench, deployment, 1, 1)[0])
        deployment.close()
        for sink in sinks:
            assert await sink.error_text() == "Server exiting"
        gate.open()
        assert deployment.statistics.pending == 0

    bench.run(main())


# States.

STATE = State(input_name="s_in", output_name="s_out", data_type="TYPE_FP32", dims=(1,))


def keeping(batch: Batch) -> Sequence[Outcome]:
    """A model without a memory of its own: ``y`` and the next state are state + ``x``."""
    outcomes: list[Outcome] = []
    for work in batch.works:
        if value_of(work, "x") < 0:
            outcomes.append(Response([Tensor("y", FP32, np.zeros((1, 1), np.float32))]))
            continue
        total = np.full((1, 1), value_of(work, "x") + value_of(work, "s_in"), np.float32)
        outcomes.append(Response([Tensor("y", FP32, total), Tensor("s_out", FP32, total)]))
    return outcomes


@EITHER
def test_states_go_from_step_to_step(bench: Bench, strategy: str) -> None:
    async def main() -> None:
        config = sequence_config(strategy, state=(STATE,))
        deployment, _ = deploy(bench, keeping, config=config)
        one = [step(bench, deployment, 1, 1, "s")[0], step(bench, deployment, 1, 2)[0]]
        two = [step(bench, deployment, 2, 10, "s")[0], step(bench, deployment, 2, 20, "e")[0]]
        assert await values(*one, *two) == [1, 3, 10, 30]
        assert [tensor.name for tensor in one[0].heard[0].outputs] == ["y"]
        again = step(bench, deployment, 1, 5, "s")[0]
        assert await values(again) == [5], "a START begins with the initial state"

    bench.run(main())


def test_a_step_that_fails_changes_no_state(bench: Bench) -> None:
    async def main() -> None:
        deployment, _ = deploy(bench, keeping, config=sequence_config(state=(STATE,)))
        assert await values(step(bench, deployment, 1, 1, "s")[0]) == [1]
        failed, _ = step(bench, deployment, 1, -1)
        assert "did not give its state 's_out'" in await failed.error_text()
        assert isinstance(failed.error, ModelFailed)
        assert await values(step(bench, deployment, 1, 1)[0]) == [2]

    bench.run(main())


def test_states_begin_with_what_a_file_holds(bench: Bench) -> None:
    async def main() -> None:
        initial = InitialState(name="seven", data_type="TYPE_FP32", dims=(1,), data_file="seven")
        state = State(
            input_name="s_in",
            output_name="s_out",
            data_type="TYPE_FP32",
            dims=(-1,),
            initial_state=(initial,),
        )
        first: Array = np.array([7.0], np.float32)
        deployment, _ = deploy(
            bench, keeping, config=sequence_config(state=(state,)), initial={"s_in": first}
        )
        sinks = [step(bench, deployment, 1, 1, "s")[0], step(bench, deployment, 1, 1)[0]]
        assert await values(*sinks) == [8, 9]

    bench.run(main())


def test_a_state_of_another_shape_fails_the_step(bench: Bench) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        wide = Tensor("s_out", FP32, np.zeros((1, 2), np.float32))
        return [Response([wide, Tensor("y", FP32, np.zeros((1, 1), np.float32))])]

    async def main() -> None:
        deployment, _ = deploy(bench, run, config=sequence_config(state=(STATE,)))
        sink, _ = step(bench, deployment, 1, 1, "s")
        assert "is declared as [1, 1], and the model gave [1, 2]" in await sink.error_text()

    bench.run(main())


# Iterative sequences.


class Countdown:
    """Sees each request as often as its number says, and answers at the end, or on the way."""

    def __init__(self, *, streams: bool) -> None:
        self.left: dict[int, int] = {}
        self.starts: list[tuple[int, int]] = []
        self.streams = streams

    def __call__(self, batch: Batch) -> Sequence[Outcome] | None:
        outcomes = [self._advance(work) for work in batch.works]
        return None if self.streams else outcomes

    def _advance(self, work: Work) -> Outcome:
        key, start = value_of(work, "CORRID"), value_of(work, "START")
        self.starts.append((key, start))
        if start:
            self.left[key] = int(value_of(work, "x"))
        self.left[key] -= 1
        left = self.left[key]
        response = Response([Tensor("y", FP32, np.full((1, 1), left, np.float32))])
        if left > 0:
            work.reschedule()
        if self.streams:
            work.send(response, final=left == 0)
            return None
        return None if left > 0 else response


def iterative(**more: Any) -> ModelConfig:
    return sequence_config(iterative_sequence=True, **more)


@EVERYWHERE
@pytest.mark.parametrize("streams", [False, True])
def test_a_model_may_see_a_request_again(bench: Bench, execution: Any, streams: bool) -> None:
    async def main() -> None:
        model = Countdown(streams=streams)
        config = iterative(decoupled=streams)
        deployment, _ = deploy(bench, model, config=config, execution=execution)
        sinks = [bench.submit(deployment, value)[0] for value in (3, 1, 4)]
        for sink in sinks:
            await sink.over.wait()
            assert sink.error is None
        heard = [[value for (value,) in sink.values] for sink in sinks]
        assert heard == ([[2, 1, 0], [0], [3, 2, 1, 0]] if streams else [[0], [0], [0]])
        assert sorted(key for key, start in model.starts if start) == [1, 2, 3]
        assert len(model.starts) == 8
        assert deployment.in_flight == 0
        assert len(deployment._sequencer) == 0

    bench.run(main())


def test_a_request_nobody_waits_for_does_not_come_again(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate(Countdown(streams=True))
        deployment, (runtime,) = deploy(bench, gate, config=iterative(decoupled=True))
        _, ticket = bench.submit(deployment, 1000)
        await gate.reached()
        ticket.cancel()
        gate.open()
        await deployment.drain()
        assert len(runtime.batches) == 1
        assert len(deployment._sequencer) == 0

    bench.run(main())


def test_only_iterative_sequences_come_again(bench: Bench) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        batch.works[0].reschedule()
        return []

    async def main() -> None:
        deployment, _ = deploy(bench, run, config=sequence_config())
        sink, _ = step(bench, deployment, 1, 1, "s")
        assert "iterative_sequence" in await sink.error_text()
        plain, _ = bench.deploy(run)
        sink, _ = bench.submit(plain, 1)
        assert "iterative_sequence" in await sink.error_text()

    bench.run(main())


def test_ids_are_text_where_the_model_takes_text(bench: Bench) -> None:
    controls = (
        ControlInput(
            name="CORRID",
            control=(Control(kind="CONTROL_SEQUENCE_CORRID", data_type="TYPE_STRING"),),
        ),
    )
    seen: list[Any] = []

    def run(batch: Batch) -> Sequence[Outcome]:
        seen.extend(value_of(work, "CORRID") for work in batch.works)
        y = Tensor("y", FP32, np.zeros((1, 1), np.float32))
        return [Response([y]) for _ in batch.works]

    async def main() -> None:
        deployment, _ = deploy(bench, run, config=sequence_config(control_input=controls))
        await values(step(bench, deployment, "ann", 1, "se")[0])
        await values(step(bench, deployment, 12, 1, "se")[0])
        assert seen == [b"ann", b"12"]

    bench.run(main())


def test_ids_that_the_model_cannot_take_are_refused(bench: Bench) -> None:
    controls = (
        ControlInput(
            name="CORRID",
            control=(Control(kind="CONTROL_SEQUENCE_CORRID", data_type="TYPE_INT32"),),
        ),
    )

    async def main() -> None:
        deployment, _ = deploy(bench, Accumulator(), config=sequence_config(control_input=controls))
        with pytest.raises(InvalidRequest, match="holds up to 2147483647"):
            step(bench, deployment, 2**31, 1, "s")

    bench.run(main())
