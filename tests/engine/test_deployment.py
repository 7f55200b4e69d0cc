import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import FP32
from modelport.engine.options import EngineOptions
from modelport.errors import (
    InvalidInference,
    InvalidRequest,
    Kind,
    LoadFailed,
    ModelFailed,
    Overloaded,
    TimedOut,
    Unavailable,
)
from modelport.messages import Response
from modelport.runtimes.base import Batch, Outcome
from modelport.specs import (
    DynamicBatching,
    Histogram,
    MetricControl,
    ModelInput,
    ModelMetrics,
    ModelOutput,
    Parameter,
    QueuePolicy,
    Reshape,
)
from modelport.tensors import Tensor

from .conftest import (
    Bench,
    FakeSink,
    Gate,
    Later,
    a_moment,
    answer,
    batching,
    config_of,
    doubling,
    first_of,
    request,
    sinks_are_over,
    until,
)

EVERYWHERE = pytest.mark.parametrize("execution", ["inline", "thread", "auto"])


async def over(*sinks: FakeSink) -> None:
    for sink in sinks:
        await sink.over.wait()


# One request.


@EVERYWHERE
def test_request_is_answered(bench: Bench, execution: Any) -> None:
    async def main() -> None:
        deployment, _ = bench.deploy(doubling, execution=execution)
        for value in range(100):
            sink, _ = bench.submit(deployment, value)
            await over(sink)
            assert sink.values == [[2.0 * value]]
        assert deployment.in_flight == 0
        assert deployment.statistics.success_count == 100

    bench.run(main())


def test_inline_request_is_answered_before_submit_returns(bench: Bench) -> None:
    async def main() -> None:
        deployment, _ = bench.deploy(doubling, execution="inline")
        sink, ticket = bench.submit(deployment, 3)
        assert sink.values == [[6.0]]
        ticket.cancel()
        ticket.resume()
        assert deployment.statistics.fail.count == 0

    bench.run(main())


def test_fast_model_comes_to_the_loop_and_leaves_it_when_it_is_slow(bench: Bench) -> None:
    seconds = [0.0]

    def run(batch: Batch) -> Sequence[Outcome]:
        bench.clock.advance(seconds[0])
        return doubling(batch)

    async def main() -> None:
        deployment, (runtime,) = bench.deploy(run, execution="auto")
        for _ in range(34):
            sink, _ = bench.submit(deployment)
            await over(sink)
        loop_thread = threading.current_thread().name
        assert runtime.threads == ["tried_0"] * 32 + [loop_thread] * 2
        seconds[0] = 0.1
        for _ in range(2):
            sink, _ = bench.submit(deployment)
            await over(sink)
        assert runtime.threads[34:] == [loop_thread, "tried_0"]
        assert sinks_are_over([sink])

    bench.run(main())


def test_request_that_does_not_fit_is_refused_and_counts_nowhere(bench: Bench) -> None:
    async def main() -> None:
        deployment, (runtime,) = bench.deploy()
        with pytest.raises(InvalidInference):
            bench.submit(deployment, rows=9)
        with pytest.raises(InvalidRequest, match="unexpected inference output"):
            bench.submit(deployment, outputs=("z",))
        assert runtime.batches == []
        assert deployment.in_flight == 0
        assert deployment.statistics.fail.count == 0

    bench.run(main())


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@EVERYWHERE
@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("too small"), Kind.MODEL_FAILED, "ValueError: too small"),
        (ModelFailed("no", code=Kind.INVALID), Kind.INVALID, "no"),
        (SystemExit(1), Kind.MODEL_FAILED, "the model's code raised SystemExit, which would end"),
        (KeyboardInterrupt(), Kind.MODEL_FAILED, "the model's code raised KeyboardInterrupt"),
        (Unspeakable(), Kind.MODEL_FAILED, "Unspeakable: its text could not be made"),
        (FileNotFoundError(2, "No", "/a/b"), Kind.MODEL_FAILED, "FileNotFoundError: No: 'b'"),
    ],
)
def test_what_a_model_raises_fails_the_request_and_nothing_else(
    bench: Bench, execution: Any, raised: BaseException, kind: Kind, text: str
) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        if first_of(batch.works[0]) < 0:
            raise raised
        return doubling(batch)

    async def main() -> None:
        deployment, _ = bench.deploy(run, execution=execution)
        sink, _ = bench.submit(deployment, -1)
        assert (await sink.error_text()).startswith(text)
        assert sink.error is not None
        assert sink.error.kind is kind
        sink, _ = bench.submit(deployment, 1)
        await over(sink)
        assert sink.values == [[2.0]]
        failures = {"REJECTED": 0, "CANCELED": 0, "BACKEND": 1, "OTHER": 0}
        assert deployment.statistics.failures == failures

    bench.run(main())


@EVERYWHERE
@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ([], "model 'tried' was given 1 requests and answered 0"),
        ([Response([]), Response([])], "model 'tried' was given 1 requests and answered 2"),
        ("a", "model 'tried' answered with a str"),
        (["a"], "the model answered with a str, not with a response"),
    ],
)
def test_wrong_number_of_outcomes_fails_the_batch(
    bench: Bench, execution: Any, outcomes: Any, text: str
) -> None:
    async def main() -> None:
        deployment, _ = bench.deploy(lambda batch: outcomes, execution=execution)
        sink, _ = bench.submit(deployment)
        assert await sink.error_text() == text
        assert deployment.in_flight == 0

    bench.run(main())


@pytest.mark.parametrize("is_final", [True, False])
def test_caller_whose_response_cannot_be_handed_on_hears_that_it_failed(
    bench: Bench, caplog: pytest.LogCaptureFixture, is_final: bool
) -> None:
    """Else it would wait for ever."""

    class Unable(FakeSink):
        def push(self, response: Response, final: bool) -> bool:
            if final:
                raise TypeError("cannot be encoded")
            return True

        def end(self) -> None:
            raise TypeError("cannot be encoded")

    def run(batch: Batch) -> None:
        (work,) = batch.works
        work.send(Response([]), final=is_final)
        if not is_final:
            work.send(None, final=True)

    async def main() -> None:
        deployment, _ = bench.deploy(run, config=config_of(decoupled=True))
        sink = Unable()
        deployment.submit(request(1), sink)
        assert await sink.error_text() == "internal error; the log of the server tells more"
        assert sink.error is not None
        assert sink.error.kind is Kind.MODEL_FAILED
        assert deployment.in_flight == 0

    bench.run(main())
    assert "could not be handed on" in caplog.text


def test_outcomes_that_cannot_be_read_fail_those_that_have_none_yet(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    class Lazy(list[Outcome]):
        def __iter__(self) -> Iterator[Outcome]:
            yield self[0]
            raise ValueError("torn")

    async def main() -> None:
        config = config_of(dynamic=batching(delay_us=10))
        deployment, _ = bench.deploy(lambda batch: Lazy(doubling(batch)), config=config)
        sinks = [bench.submit(deployment, value)[0] for value in (1, 2, 3)]
        await over(*sinks)
        assert sinks[0].values == [[2.0]]
        assert [str(sink.error) for sink in sinks[1:]] == ["ValueError: torn"] * 2
        assert deployment.in_flight == 0

    bench.run(main())
    assert "could not be read" in caplog.text


@EVERYWHERE
def test_sink_that_raises_costs_nobody_else_the_answer(
    bench: Bench, execution: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Raising(FakeSink):
        def push(self, response: Response, final: bool) -> bool:
            raise RuntimeError("cannot write")

    async def main() -> None:
        config = config_of(dynamic=batching(delay_us=10))
        deployment, _ = bench.deploy(config=config, execution=execution)
        raising = Raising()
        deployment.submit(request(1), raising)
        sink, _ = bench.submit(deployment, 2)
        await over(sink, raising)
        assert sink.values == [[4.0]]
        assert "internal error" in str(raising.error)
        assert deployment.in_flight == 0

    bench.run(main())
    assert "cannot write" in caplog.text


@pytest.mark.parametrize("named", ["processes", "fast"])
def test_execution_that_is_not_offered_is_refused(bench: Bench, named: Any) -> None:
    async def main() -> None:
        parameters = {"execution": Parameter(string_value=named)}
        with pytest.raises(LoadFailed, match=f"execution of model 'tried' is '{named}'; offered"):
            bench.deploy(config=config_of(parameters=parameters))

    bench.run(main())


def test_model_may_say_where_it_runs(bench: Bench) -> None:
    async def main() -> None:
        parameters = {"execution": Parameter(string_value="inline")}
        deployment, _ = bench.deploy(config=config_of(parameters=parameters), execution="thread")
        sink, _ = bench.submit(deployment, 1)
        assert sink.is_over

    bench.run(main())


# Batches.


def test_instance_is_reserved_first_and_the_batch_is_cut_last(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, (runtime,) = bench.deploy(gate, config=config_of(dynamic=batching()))
        sinks = [bench.submit(deployment, 0)[0]]
        await gate.reached()
        sinks += [bench.submit(deployment, value)[0] for value in range(1, 12)]
        assert deployment.statistics.pending == 11
        gate.open()
        await over(*sinks)
        assert runtime.batches == [[0], [*range(1, 9)], [9, 10, 11]]
        assert [sink.values for sink in sinks] == [[[2.0 * value]] for value in range(12)]
        assert bench.ends == [str(value) for value in range(12)]

    bench.run(main())


def test_without_dynamic_batching_every_request_runs_by_itself(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, (runtime,) = bench.deploy(gate)
        sinks = [bench.submit(deployment, value)[0] for value in range(5)]
        gate.open()
        await over(*sinks)
        assert runtime.batches == [[0], [1], [2], [3], [4]]

    bench.run(main())


@EVERYWHERE
def test_delay_gathers_company(bench: Bench, execution: Any) -> None:
    async def main() -> None:
        config = config_of(dynamic=batching(delay_us=500))
        deployment, (runtime,) = bench.deploy(config=config, execution=execution)
        began_ns = bench.clock.now_ns()
        first, _ = bench.submit(deployment, 0)
        await asyncio.sleep(200e-6)
        second, _ = bench.submit(deployment, 1)
        assert not first.is_over
        await over(first, second)
        assert runtime.batches == [[0, 1]]
        assert bench.clock.now_ns() - began_ns == pytest.approx(500_000, rel=0.01)

    bench.run(main())


def test_preferred_size_goes_at_once_and_full_batch_too(bench: Bench) -> None:
    async def main() -> None:
        config = config_of(dynamic=batching(delay_us=10**6, preferred=(3,)))
        deployment, (runtime,) = bench.deploy(config=config, execution="inline")
        began_ns = bench.clock.now_ns()
        sinks = [bench.submit(deployment, value)[0] for value in range(3)]
        assert sinks_are_over(sinks)
        sinks = [bench.submit(deployment, value, rows=4)[0] for value in range(2)]
        assert sinks_are_over(sinks)
        assert runtime.batches == [[0, 1, 2], [0, 1]]
        assert bench.clock.now_ns() == began_ns

    bench.run(main())


def test_failing_request_of_a_batch_fails_alone(bench: Bench) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        return [
            ModelFailed("negative") if first_of(work) < 0 else answer(work) for work in batch.works
        ]

    async def main() -> None:
        gate = Gate(run)
        deployment, (runtime,) = bench.deploy(gate, config=config_of(dynamic=batching()))
        bench.submit(deployment, 0)
        await gate.reached()
        good, bad, fine = (bench.submit(deployment, value)[0] for value in (1, -1, 2))
        gate.open()
        await over(good, bad, fine)
        assert runtime.batches[1] == [1, -1, 2]
        assert good.values == [[1.0]]
        assert str(bad.error) == "negative"
        assert fine.values == [[2.0]]
        statistics = deployment.statistics
        assert (statistics.success_count, statistics.fail.count) == (3, 1)
        assert (statistics.inference_count, statistics.execution_count) == (3, 2)

    bench.run(main())


def test_requests_of_different_shapes_are_batched_apart(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        config = config_of(dims=(-1,), dynamic=batching())
        deployment, (runtime,) = bench.deploy(gate, config=config)
        sinks = [bench.submit(deployment, 0)[0]]
        await gate.reached()
        for value, width in ((1, 2), (2, 2), (3, 3), (4, 2)):
            sink = bench.sink(value)
            made = request(value)
            made.payload.tensors = [Tensor("x", FP32, np.full((1, width), value, np.float32))]
            deployment.submit(made, sink)
            sinks.append(sink)
        gate.open()
        await over(*sinks)
        assert runtime.batches == [[0], [1, 2], [3], [4]]

    bench.run(main())


def test_ordering_is_preserved_across_instances_where_it_is_asked_for(bench: Bench) -> None:
    async def main() -> None:
        gates = [Gate(), Gate()]
        config = config_of(max_batch_size=1, dynamic=batching(ordered=True))
        deployment, runtimes = bench.deploy(*gates, config=config)
        sinks = [bench.submit(deployment, value)[0] for value in range(4)]
        for gate in gates:
            await gate.reached()
        first = next(i for i, runtime in enumerate(runtimes) if runtime.batches[0] == [0])
        # The other instance overtakes, and is kept waiting with all its answers.
        gates[1 - first].open()
        await until(lambda: len(runtimes[1 - first].batches) == 3)
        await a_moment()
        assert bench.ends == []
        assert deployment.in_flight == 4
        gates[first].open()
        await over(*sinks)
        assert bench.ends == ["0", "1", "2", "3"]

    bench.run(main())


@pytest.mark.parametrize("goes", ["cancelled", "failed"])
def test_order_does_not_wait_for_who_has_gone(bench: Bench, goes: str) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        if first_of(batch.works[0]) == 0 and goes == "failed":
            raise ValueError("gone")
        return doubling(batch)

    async def main() -> None:
        gates = [Gate(run), Gate(run)]
        config = config_of(max_batch_size=1, dynamic=batching(ordered=True))
        deployment, runtimes = bench.deploy(*gates, config=config)
        (_, ticket), (second, _) = bench.submit(deployment, 0), bench.submit(deployment, 1)
        for gate in gates:
            await gate.reached()
        first = next(i for i, runtime in enumerate(runtimes) if runtime.batches[0] == [0])
        gates[1 - first].open()
        await until(lambda: runtimes[1 - first].executing == 0)
        await a_moment()
        assert not second.is_over
        if goes == "cancelled":
            ticket.cancel()
        else:
            gates[first].open()
        await over(second)
        gates[first].open()

    bench.run(main())


def test_long_queue_of_a_model_on_the_loop_does_not_recurse(bench: Bench) -> None:
    """Whoever hears of the first answer sends two thousand more requests."""

    async def main() -> None:
        config = config_of(max_batch_size=1, dynamic=batching(delay_us=10))
        deployment, _ = bench.deploy(config=config, execution="inline", max_queue_size=3000)
        sinks: list[FakeSink] = []

        def send_more() -> None:
            sinks.extend(bench.submit(deployment, value)[0] for value in range(1, 2001))

        first = bench.sink(0)
        first.on_end = send_more
        deployment.submit(request(0), first)
        await over(first, *sinks)
        assert bench.ends == [str(value) for value in range(2001)]

    bench.run(main())


def test_long_queue_of_a_model_on_the_loop_leaves_others_their_turn(bench: Bench) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        bench.clock.advance(300e-6)
        return doubling(batch)

    async def main() -> None:
        config = config_of(max_batch_size=1, dynamic=batching(delay_us=10))
        deployment, _ = bench.deploy(run, config=config, execution="inline")
        sinks: list[FakeSink] = []

        def send_more() -> None:
            sinks.extend(bench.submit(deployment, value)[0] for value in range(1, 41))

        first = bench.sink(0)
        first.on_end = send_more
        deployment.submit(request(0), first)
        turns = [len(bench.ends)]
        while turns[-1] < 41:
            await asyncio.sleep(0)
            turns.append(len(bench.ends))
        assert max(after - before for before, after in pairwise(turns)) <= 4
        assert bench.ends == [str(value) for value in range(41)]

    bench.run(main())


# The queue's limits.


def test_full_queue_refuses(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        config = config_of(dynamic=batching(max_queue_size=2))
        deployment, _ = bench.deploy(gate, config=config)
        sinks = [bench.submit(deployment, 0)[0]]
        await gate.reached()
        sinks += [bench.submit(deployment, value)[0] for value in (1, 2)]
        with pytest.raises(
            Overloaded, match=r"^Exceeds maximum queue size; 2 requests wait"
        ) as full:
            bench.submit(deployment, 3)
        assert full.value.retry_after_s == 1
        assert deployment.in_flight == 3
        gate.open()
        await over(*sinks)
        assert deployment.statistics.failures["REJECTED"] == deployment.statistics.fail.count == 1

    bench.run(main())


def test_operators_bound_holds_where_the_model_has_none(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, _ = bench.deploy(gate, max_queue_size=1)
        assert EngineOptions().max_queue_size == 10_000
        bench.submit(deployment)
        await gate.reached()
        _, ticket = bench.submit(deployment)
        with pytest.raises(Overloaded):
            bench.submit(deployment)
        ticket.cancel()
        bench.submit(deployment)
        gate.open()

    bench.run(main())


def levels(count: int = 3, default: int = 2, **policies: QueuePolicy) -> Any:
    """Batches of one, so that the order shows; ``l1=...`` is the policy of level 1."""
    by_level = {int(name[1:]): policy for name, policy in policies.items() if name != "rest"}
    dynamic = DynamicBatching(
        priority_levels=count,
        default_priority_level=default,
        default_queue_policy=policies.get("rest"),
        priority_queue_policy=by_level,
    )
    return config_of(max_batch_size=1, dynamic=dynamic)


def test_higher_priority_overtakes(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, (runtime,) = bench.deploy(gate, config=levels())
        sinks = [bench.submit(deployment, 0)[0]]
        await gate.reached()
        for value, priority in ((1, 3), (2, 0), (3, 1), (4, 1), (5, 9)):
            sinks.append(bench.submit(deployment, value, priority=priority)[0])
        gate.open()
        await over(*sinks)
        assert runtime.batches == [[0], [3], [4], [2], [5], [1]]

    bench.run(main())


def test_full_level_refuses_and_the_others_do_not(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        config = levels(l3=QueuePolicy(max_queue_size=1))
        deployment, _ = bench.deploy(gate, config=config)
        sinks = [bench.submit(deployment, 0)[0]]
        await gate.reached()
        sinks.append(bench.submit(deployment, 1, priority=3)[0])
        with pytest.raises(Overloaded, match=r"queue size; 1 requests of priority 3 wait for"):
            bench.submit(deployment, 2, priority=3)
        sinks.append(bench.submit(deployment, 3, priority=1)[0])
        gate.open()
        await over(*sinks)

    bench.run(main())


def test_request_that_waits_too_long_is_rejected_or_delayed_by_its_level(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        config = levels(
            rest=QueuePolicy(default_timeout_microseconds=1_000_000),
            l2=QueuePolicy(
                timeout_action="DELAY",
                default_timeout_microseconds=2_000_000,
                allow_timeout_override=True,
            ),
        )
        deployment, (runtime,) = bench.deploy(gate, config=config)
        running, _ = bench.submit(deployment, 0)
        await gate.reached()
        rejected, _ = bench.submit(deployment, 1, priority=1)
        late, _ = bench.submit(deployment, 2, priority=2)
        sooner, _ = bench.submit(deployment, 3, priority=2, timeout_us=500_000)
        assert await rejected.error_text() == (
            "Request timeout expired; it had waited 1000 ms in the queue"
        )
        in_time, _ = bench.submit(deployment, 4, priority=2)
        bench.loop.selector.patience_s = 5.0
        gate.open()
        await over(running, late, sooner, in_time)
        # Only who asked for less had stepped back by then.
        assert runtime.batches == [[0], [2], [4], [3]]
        assert deployment.statistics.failures["REJECTED"] == 1

    bench.run(main())


def timeouts(**more: Any) -> Any:
    return config_of(dynamic=batching(default_timeout_microseconds=2_000_000, **more))


def test_request_that_waits_too_long_is_rejected(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, (runtime,) = bench.deploy(gate, config=timeouts())
        began_ns = bench.clock.now_ns()
        running, _ = bench.submit(deployment, 0)
        await gate.reached()
        waiting, _ = bench.submit(deployment, 1)
        text = await waiting.error_text()
        assert text == "Request timeout expired; it had waited 2000 ms in the queue"
        assert isinstance(waiting.error, TimedOut)
        assert bench.clock.now_ns() - began_ns == pytest.approx(2e9, rel=0.01)
        gate.open()
        await over(running)
        assert runtime.batches == [[0]]
        statistics = deployment.statistics
        assert statistics.failures["REJECTED"] == 1
        assert (statistics.success_count, statistics.pending) == (1, 0)

    bench.run(main())


def test_shorter_timeout_expires_first_though_it_came_last(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, _ = bench.deploy(gate, config=timeouts(allow_timeout_override=True))
        began_ns = bench.clock.now_ns()

        def passed_s() -> float:
            return (bench.clock.now_ns() - began_ns) / 1e9

        bench.submit(deployment, 0)
        await gate.reached()
        long, _ = bench.submit(deployment, 1)
        middle, _ = bench.submit(deployment, 2, timeout_us=1_000_000)
        short, _ = bench.submit(deployment, 3, timeout_us=500_000)
        greedy, _ = bench.submit(deployment, 4, timeout_us=9_000_000)
        await over(short)
        assert passed_s() == pytest.approx(0.5, rel=0.01)
        await over(middle)
        assert passed_s() == pytest.approx(1, rel=0.01)
        # Who asks for more than the model's default does not get it.
        await over(long, greedy)
        assert passed_s() == pytest.approx(2, rel=0.01)
        gate.open()

    bench.run(main())


def test_timeout_of_a_request_counts_only_where_the_model_allows_it(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, _ = bench.deploy(gate, config=timeouts())
        bench.submit(deployment, 0)
        await gate.reached()
        sink, _ = bench.submit(deployment, 1, timeout_us=1)
        assert "waited 2000 ms" in await sink.error_text()
        gate.open()

    bench.run(main())


def test_late_request_does_not_run_though_no_timer_has_rung(bench: Bench) -> None:
    """The loop may have been too busy for its timers."""

    async def main() -> None:
        gate = Gate()
        config = config_of(dynamic=batching(allow_timeout_override=True))
        deployment, (runtime,) = bench.deploy(gate, config=config)
        bench.submit(deployment, 0)
        await gate.reached()
        fine, _ = bench.submit(deployment, 1)
        late, _ = bench.submit(deployment, 2, timeout_us=1000)
        bench.clock.advance(0.1)
        gate.open()
        while runtime.executing:
            time.sleep(0)  # noqa: ASYNC251 - the loop does nothing else meanwhile
        await over(fine, late)
        assert runtime.batches == [[0], [1]]
        assert isinstance(late.error, TimedOut)

    bench.run(main())


def test_deadline_ends_a_request_that_waits_and_one_that_runs(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, (runtime,) = bench.deploy(gate)
        deadline_ns = bench.clock.now_ns() + 10**9
        running, ticket = bench.submit(deployment, 0, deadline_ns=deadline_ns)
        waiting, _ = bench.submit(deployment, 1, deadline_ns=deadline_ns)
        await gate.reached()
        await over(running, waiting)
        assert bench.clock.now_ns() == pytest.approx(deadline_ns, rel=0.01)
        for sink in (running, waiting):
            assert str(sink.error) == "the deadline of the request passed"
        # The model sees it, and until it has looked the request is not over.
        assert ticket.is_cancelled
        assert deployment.in_flight == 1
        gate.open()
        await deployment.drain()
        assert runtime.batches == [[0]]
        assert deployment.statistics.failures == {
            "REJECTED": 1,
            "CANCELED": 1,
            "BACKEND": 0,
            "OTHER": 0,
        }

    bench.run(main())


@EVERYWHERE
def test_deadline_that_has_passed_is_refused(bench: Bench, execution: Any) -> None:
    async def main() -> None:
        deployment, (runtime,) = bench.deploy(execution=execution)
        with pytest.raises(TimedOut):
            bench.submit(deployment, deadline_ns=bench.clock.now_ns())
        assert runtime.batches == []
        assert deployment.in_flight == 0
        assert deployment.statistics.failures["REJECTED"] == 1

    bench.run(main())


def test_deadline_of_an_answered_request_leaves_nothing_behind(bench: Bench) -> None:
    async def main() -> None:
        deployment, _ = bench.deploy()
        sink, ticket = bench.submit(deployment, deadline_ns=bench.clock.now_ns() + 10**12)
        await over(sink)
        assert ticket.deadline.cancelled()

    bench.run(main())


# Callers that go away.


def test_cancelled_request_that_waits_never_runs_and_hears_nothing(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, (runtime,) = bench.deploy(gate)
        first, _ = bench.submit(deployment, 0)
        await gate.reached()
        gone, ticket = bench.submit(deployment, 1)
        last, _ = bench.submit(deployment, 2)
        ticket.cancel()
        ticket.cancel()
        assert deployment.statistics.pending == 1
        assert deployment.in_flight == 2
        gate.open()
        await over(first, last)
        assert runtime.batches == [[0], [2]]
        assert not gone.is_over
        assert deployment.statistics.failures["CANCELED"] == deployment.statistics.fail.count == 1

    bench.run(main())


def test_cancelled_request_that_runs_is_told_to_the_model_and_hears_nothing(bench: Bench) -> None:
    seen: list[bool] = []

    def run(batch: Batch) -> Sequence[Outcome]:
        seen.append(batch.works[0].is_cancelled)
        return doubling(batch)

    async def main() -> None:
        gate = Gate(run)
        deployment, _ = bench.deploy(gate)
        sink, ticket = bench.submit(deployment, 0)
        await gate.reached()
        ticket.cancel()
        assert deployment.in_flight == 1, "the model is still at it"
        gate.open()
        await deployment.drain()
        assert seen == [True]
        assert not sink.is_over
        assert deployment.statistics.failures["CANCELED"] == 1
        assert deployment.statistics.success_count == 0

    bench.run(main())


def test_cancelling_after_the_end_changes_nothing(bench: Bench) -> None:
    async def main() -> None:
        deployment, _ = bench.deploy()
        sink, ticket = bench.submit(deployment, 0)
        await over(sink)
        ticket.cancel()
        assert deployment.statistics.fail.count == 0

    bench.run(main())


# Shapes.


def test_reshape_is_done_for_every_runtime(bench: Bench) -> None:
    shapes: list[tuple[int, ...]] = []

    def run(batch: Batch) -> Sequence[Outcome]:
        shapes.extend(work.request.payload.tensors[0].array.shape for work in batch.works)
        return doubling(batch)

    reshape = Reshape(shape=())
    config = replace(
        config_of(),
        input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(1,), reshape=reshape),),
        output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=(1,), reshape=reshape),),
    )

    async def main() -> None:
        for execution in ("inline", "thread"):
            deployment, _ = bench.deploy(run, config=config, execution=execution)
            sink, _ = bench.submit(deployment, 3, rows=2)
            await over(sink)
            assert sink.heard[0].outputs[0].shape == (2, 1)
            wrong, _ = bench.deploy(
                lambda _: [Response([Tensor("y", FP32, np.zeros(()))])], config=config
            )
            sink, _ = bench.submit(wrong, 3)
            assert "its reshape expects [-1]" in await sink.error_text()

    bench.run(main())
    assert shapes == [(2,), (2,)]


# The end.


def test_drain_waits_for_what_is_in_flight(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, _ = bench.deploy(gate)
        await deployment.drain()
        sinks = [bench.submit(deployment, value)[0] for value in range(3)]
        draining = asyncio.ensure_future(deployment.drain())
        for _ in range(3):
            await gate.reached()
            await a_moment()
            assert not draining.done()
            gate.let_go()
        await draining
        assert sinks_are_over(sinks)

    bench.run(main())


def test_drain_waits_for_an_instance_whose_caller_has_its_answer_already(bench: Bench) -> None:
    """A model may answer through its sender and then go on."""
    answered = threading.Semaphore(0)
    go_on = threading.Event()

    def run(batch: Batch) -> Sequence[Outcome]:
        batch.works[0].send(answer(batch.works[0]), final=True)
        answered.release()
        assert go_on.wait(10)
        return [None]

    async def main() -> None:
        deployment, _ = bench.deploy(run)
        sink, _ = bench.submit(deployment)
        await over(sink)
        assert deployment.in_flight == 0
        draining = asyncio.ensure_future(deployment.drain())
        await a_moment()
        assert not draining.done()
        go_on.set()
        await draining

    bench.run(main())


def test_closing_fails_the_rest_once_and_tells_the_model(bench: Bench) -> None:
    seen: list[bool] = []

    def run(batch: Batch) -> Sequence[Outcome]:
        seen.append(batch.works[0].is_cancelled)
        return doubling(batch)

    async def main() -> None:
        gate = Gate(run)
        deployment, (runtime,) = bench.deploy(gate)
        sinks = [bench.submit(deployment, value)[0] for value in range(3)]
        await gate.reached()
        deployment.close()
        for sink in sinks:
            assert sink.is_over
            assert isinstance(sink.error, Unavailable)
            assert str(sink.error) == "Server exiting"
        assert deployment.statistics.pending == 0
        with pytest.raises(Unavailable, match="'tried' version 1 is not at ready state"):
            bench.submit(deployment)
        deployment.close()
        gate.open()
        await deployment.wait_closed()
        await deployment.drain()
        assert seen == [True]
        assert runtime.batches == [[0]]

    bench.run(main())


@EVERYWHERE
def test_closing_ends_asynchronous_requests(bench: Bench, execution: Any) -> None:
    async def main() -> None:
        later = Later()
        deployment, (runtime,) = bench.deploy(later, execution=execution)
        sinks = [bench.submit(deployment, value)[0] for value in range(3)]
        await until(lambda: len(later.waiting) == 3)
        deployment.close()
        assert sinks_are_over(sinks)
        await deployment.wait_closed()
        await deployment.drain()
        assert runtime.executing == 0
        assert deployment.in_flight == 0

    bench.run(main())


def test_inline_model_is_not_executed_after_closing(bench: Bench) -> None:
    async def main() -> None:
        deployment, (runtime,) = bench.deploy(execution="inline")
        deployment.close()
        with pytest.raises(Unavailable):
            bench.submit(deployment)
        assert runtime.batches == []

    bench.run(main())


def test_deployment_is_ready_while_all_its_instances_are(bench: Bench) -> None:
    async def main() -> None:
        deployment, runtimes = bench.deploy(doubling, doubling)
        assert deployment.is_ready()
        runtimes[1].is_up = False
        assert not deployment.is_ready()
        assert repr(deployment) == (
            "<Deployment tried v1 in_flight=0 <JobQueue waiting=0 of 100> <Instances free=2/2>>"
        )

    bench.run(main())


def test_streams_are_counted_place_by_place(bench: Bench) -> None:
    def run(batch: Batch) -> None:
        (work,) = batch.works
        for _ in range(int(first_of(work))):
            bench.clock.advance(0.001)
            work.send(answer(work), final=False)
        if work.rows == 2:
            raise ValueError("no")
        work.send(None, final=True)

    async def main() -> None:
        deployment, _ = bench.deploy(run, config=config_of(decoupled=True), execution="inline")
        for value, rows in ((2, 1), (1, 1), (1, 2)):
            sink, _ = bench.submit(deployment, value, rows)
            await over(sink)
        told = deployment.statistics.response_stats
        assert list(told) == ["0", "1", "2"]
        names = ("success", "fail", "empty_response", "cancel")
        counts = [[getattr(one, name).count for name in names] for one in told.values()]
        assert counts == [[3, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0]]
        assert told["0"].success.ns == told["0"].compute_infer.ns == 3_000_000

    bench.run(main())


def test_endless_streams_are_counted_up_to_a_place(bench: Bench) -> None:
    def run(batch: Batch) -> None:
        (work,) = batch.works
        for _ in range(1000):
            work.send(answer(work), final=False)
        work.send(None, final=True)

    async def main() -> None:
        deployment, _ = bench.deploy(run, config=config_of(decoupled=True))
        sink, _ = bench.submit(deployment, 1)
        await over(sink)
        assert len(deployment.statistics.response_stats) == 256

    bench.run(main())


def test_a_stream_that_nobody_reads_any_more_is_counted(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate(lambda batch: None)
        deployment, _ = bench.deploy(gate, config=config_of(decoupled=True))
        _, ticket = bench.submit(deployment, 1)
        await gate.reached()
        ticket.cancel()
        gate.open()
        assert deployment.statistics.response_stats["0"].cancel.count == 1

    bench.run(main())


def test_model_may_set_the_buckets_of_first_responses(bench: Bench) -> None:
    async def main() -> None:
        control = MetricControl(histogram_options=Histogram(buckets=(0.5, 20)))
        config = config_of(model_metrics=ModelMetrics(metric_control=(control,)))
        own, _ = bench.deploy(config=config)
        assert own.statistics.first_response_histogram.bounds == (500_000, 20_000_000)
        usual, _ = bench.deploy()
        assert usual.statistics.first_response_histogram.bounds[0] == 100_000_000

    bench.run(main())
