import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import BYTES, FP32
from modelport.engine.engine import Engine
from modelport.engine.trace_settings import TraceSettings
from modelport.engine.tracing import MOST_TRACED_VALUES, Entrance, Trace, Traces
from modelport.errors import InvalidInference, InvalidRequest, ModelFailed, Unsupported
from modelport.messages import Arrival, Request, Response, Tensors
from modelport.tensors import Tensor
from modelport.testing.clock import ManualClock

from .conftest import Bench, Gate, a_moment, config_of, doubling, request

ON = TraceSettings(levels=("TIMESTAMPS",), rate=1)
STAGES = [
    "REQUEST_START",
    "QUEUE_START",
    "COMPUTE_START",
    "COMPUTE_INPUT_END",
    "COMPUTE_OUTPUT_START",
    "COMPUTE_END",
    "REQUEST_END",
]


class Kept:
    """Traces under test, and what they have kept."""

    def __init__(self, start: TraceSettings = ON, file: str = "trace.json") -> None:
        self.traces: list[Trace] = []
        self.of = Traces(start, file, self.traces.append, ManualClock(10**9))

    def asks(self, count: int, model: str = "m") -> int:
        """So many requests to a model, of which so many are traced."""
        begun = [self.of.begin(model, 1, request(1)) for _ in range(count)]
        return sum(trace is not None for trace in begun)


def test_settings_are_told_in_tritons_words() -> None:
    assert Kept(TraceSettings()).of.settings() == {
        "trace_level": ["OFF"],
        "trace_rate": "1000",
        "trace_count": "-1",
        "log_frequency": "0",
        "trace_file": "trace.json",
        "trace_mode": "triton",
    }


def test_one_of_so_many_is_traced() -> None:
    kept = Kept(TraceSettings(levels=("TIMESTAMPS",), rate=10))
    assert [kept.asks(1) for _ in range(20)] == ([0] * 9 + [1]) * 2


def test_so_many_are_traced_and_no_more() -> None:
    kept = Kept()
    kept.of.change(None, {"trace_count": ["3"]})
    assert kept.asks(2) == 2
    assert kept.of.settings()["trace_count"] == "1"
    assert kept.asks(10) == 1
    assert kept.of.settings()["trace_count"] == "0"
    kept.of.change(None, {"trace_count": ["1"]})
    assert kept.asks(10) == 1


def test_a_rate_for_all_counts_the_requests_of_all() -> None:
    kept = Kept()
    kept.of.change(None, {"trace_rate": ["4"]})
    assert [kept.asks(1, model) for model in "abcdabcd"] == [0, 0, 0, 1] * 2


def test_a_model_may_have_settings_of_its_own() -> None:
    kept = Kept()
    kept.of.change("m", {"trace_level": ["OFF"], "trace_rate": ["7"]})
    assert (kept.of.concerns("m"), kept.of.concerns("n")) == (False, True)
    assert kept.of.settings("m")["trace_rate"] == "7"
    assert kept.of.settings("n") == kept.of.settings()
    kept.of.change(None, {"trace_rate": ["5"], "log_frequency": ["2"]})
    assert kept.of.settings("m")["trace_rate"] == "7"
    assert kept.of.settings("m")["log_frequency"] == "2"
    kept.of.change("m", {"trace_rate": None, "trace_level": None})
    assert kept.of.settings("m") == kept.of.settings()
    kept.of.change(None, {"trace_rate": None})
    assert kept.of.settings()["trace_rate"] == "1", "as it was at start"


def test_nothing_is_traced_without_a_file_or_a_level() -> None:
    assert not Kept(file="").of.concerns("m")
    assert not Kept(TraceSettings()).of.concerns("m")
    assert not Kept(TraceSettings(levels=("TENSORS",), count=0)).of.concerns("m")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"trace_rate": ["x"]}, InvalidRequest, "Unable to parse 'trace_rate', got: x"),
        ({"trace_rate": ["0"]}, InvalidRequest, "Unable to parse 'trace_rate', got: 0"),
        ({"trace_rate": ["-1"]}, InvalidRequest, "Unable to parse 'trace_rate', got: -1"),
        ({"trace_rate": ["9" * 30]}, InvalidRequest, "Unable to parse 'trace_rate', got: 999"),
        ({"trace_count": ["-2"]}, InvalidRequest, "Unable to parse 'trace_count', got: -2"),
        ({"log_frequency": [""]}, InvalidRequest, "Unable to parse 'log_frequency', got: "),
        ({"trace_rate": ["1", "2"]}, InvalidRequest, "expect only 1 value for 'trace_rate'"),
        ({"trace_level": ["MOST"]}, InvalidRequest, "unknown trace level 'MOST'"),
        ({"colour": ["red"]}, InvalidRequest, "unknown trace setting 'colour'"),
        (
            {"trace_file": ["/etc/passwd"]},
            Unsupported,
            "trace file location can not be updated through network protocol",
        ),
        ({"trace_mode": ["triton"]}, Unsupported, "trace mode can not be updated"),
    ],
)
def test_a_bad_change_changes_nothing(changes: Any, error: Any, text: str) -> None:
    kept = Kept()
    before = kept.of.settings()
    with pytest.raises(error, match=f"^{text}"):
        kept.of.change(None, {"trace_rate": ["9"], **changes})
    assert kept.of.settings() == before


def test_levels_may_be_both() -> None:
    kept = Kept()
    kept.of.change(None, {"trace_level": ["TENSORS", "TIMESTAMPS"]})
    assert kept.of.settings()["trace_level"] == ["TIMESTAMPS", "TENSORS"]
    kept.of.change(None, {"trace_level": ["OFF", "TENSORS"]})
    assert kept.of.settings()["trace_level"] == ["OFF"]


# In the engine.


@contextmanager
def traced(bench: Bench, kept: Kept, *runs: Any, **how: Any) -> Iterator[Entrance]:
    deployment, _ = bench.deploy(*runs, **how)
    engine = Engine(clock=bench.clock)
    engine._served[deployment.name] = {1: deployment}
    engine._rebuild_routes()
    plain: Any = engine.resolve("tried")
    assert plain is deployment
    engine.trace(kept.of)
    entrance: Any = engine.resolve("tried")
    yield entrance
    kept.of.change(None, {"trace_level": ["OFF"]})
    plain = engine.resolve("tried")
    assert plain is deployment
    assert not deployment.is_traced


@pytest.mark.parametrize("execution", ["inline", "thread"])
def test_the_stages_of_a_request_are_noted(bench: Bench, execution: Any) -> None:
    async def main() -> None:
        kept = Kept()
        with traced(bench, kept, doubling, execution=execution) as entrance:
            assert entrance.name == "tried"
            assert entrance.config.max_batch_size == 8
            assert (entrance.is_ready(), entrance.is_decoupled) == (True, False)
            for value in (1.0, 2.0):
                sink, _ = bench.submit(entrance, value)
                await sink.over.wait()
                assert sink.values == [[2 * value]]
        first, second = kept.traces
        assert [name for name, _ in first.timestamps] == STAGES
        assert (first.id, second.id, first.model, first.version) == (1, 2, "tried", 1)
        assert second.request_id == "2.0"
        assert entrance.statistics.success_count == 2

    bench.run(main())


RECEIVED = ["RECV_START", "RECV_END"]
SENT = ["INFER_RESPONSE_COMPLETE", "SEND_START", "SEND_END"]


class Remote:
    """A sink whose request came over the network."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.on_push: Any = None

    def arrival(self) -> Arrival:
        return Arrival(("RECV_START", "RECV_END", "SEND_START", "SEND_END"), 3, 5)

    def push(self, response: Response, final: bool) -> bool:
        if self.on_push is not None:
            self.on_push()
        if final:
            self.over.set()
        return True

    def end(self) -> None:
        self.over.set()

    def fail(self, error: Exception) -> None:
        self.over.set()


def test_receiving_and_sending_are_noted_where_they_happen(bench: Bench) -> None:
    async def main() -> None:
        kept = Kept()
        with traced(bench, kept, doubling, lambda batch: [ModelFailed("no")]) as entrance:
            sinks = [Remote(), Remote()]
            for sink in sinks:
                entrance.submit(request(1), sink)
                await sink.over.wait()
                await a_moment()
            with pytest.raises(InvalidInference):
                entrance.submit(request(1, rows=9), Remote())
        for trace in kept.traces[:2]:
            assert [name for name, _ in trace.timestamps] == [*RECEIVED, *STAGES, *SENT]
            assert trace.timestamps[:2] == [("RECV_START", 3), ("RECV_END", 5)]
        refused = [name for name, _ in kept.traces[2].timestamps]
        assert refused == [*RECEIVED, *STAGES[:2], STAGES[-1]]

    bench.run(main())


def test_a_client_that_goes_away_while_it_is_answered_has_one_trace(bench: Bench) -> None:
    async def main() -> None:
        kept = Kept()
        with traced(bench, kept, doubling, execution="thread") as entrance:
            sink = Remote()
            ticket = entrance.submit(request(1), sink)
            sink.on_push = ticket.cancel
            await sink.over.wait()
            await a_moment()
        (trace,) = kept.traces
        assert [name for name, _ in trace.timestamps] == [*RECEIVED, *STAGES, *SENT]

    bench.run(main())


def test_times_rise(bench: Bench) -> None:
    def slowly(batch: Any) -> Any:
        bench.clock.advance(0.01)
        return doubling(batch)

    async def main() -> None:
        kept = Kept()
        kept.of.now_ns = bench.clock.now_ns
        with traced(bench, kept, slowly, execution="inline") as entrance:
            bench.submit(entrance, 1)
        times = [at_ns for _, at_ns in kept.traces[0].timestamps]
        assert times == sorted(times)
        assert times[5] - times[2] == 10_000_000

    bench.run(main())


def test_requests_that_fail_are_traced_too(bench: Bench) -> None:
    async def main() -> None:
        kept = Kept()
        with traced(bench, kept, lambda batch: [ModelFailed("no")]) as entrance:
            sink, _ = bench.submit(entrance, 1)
            assert await sink.error_text() == "no"
            with pytest.raises(InvalidInference):
                bench.submit(entrance, rows=9)
        first, second = kept.traces
        assert [name for name, _ in first.timestamps] == STAGES
        assert [name for name, _ in second.timestamps] == [*STAGES[:2], STAGES[-1]]

    bench.run(main())


def test_streams_end_once(bench: Bench) -> None:
    def run(batch: Any) -> None:
        (work,) = batch.works
        for value in (1, 2):
            array = np.full((1, 1), value, np.float32)
            work.send(Response([Tensor("y", FP32, array)]), final=False)
        work.send(None, final=True)

    async def main() -> None:
        kept = Kept(TraceSettings(levels=("TIMESTAMPS", "TENSORS"), rate=1))
        config = config_of(decoupled=True)
        with traced(bench, kept, run, config=config) as entrance:
            sink, _ = bench.submit(entrance, 1)
            await sink.over.wait()
            await a_moment()
        (trace,) = kept.traces
        assert [tensor.activity for tensor in trace.tensors] == [
            "TENSOR_QUEUE_INPUT",
            "TENSOR_BACKEND_OUTPUT",
            "TENSOR_BACKEND_OUTPUT",
        ]
        assert [name for name, _ in trace.timestamps].count("REQUEST_END") == 1

    bench.run(main())


def test_requests_whose_caller_goes_away_are_traced_too(bench: Bench) -> None:
    async def main() -> None:
        kept = Kept()
        gate = Gate(doubling)
        with traced(bench, kept, gate, execution="thread") as entrance:
            sink, first = bench.submit(entrance, 1)
            _, second = bench.submit(entrance, 2)
            await gate.reached()
            second.cancel()
            second.cancel()
            first.cancel()
            gate.open()
            await a_moment()
        waited, ran = kept.traces
        assert [name for name, _ in waited.timestamps] == [*STAGES[:2], STAGES[-1]]
        assert [name for name, _ in ran.timestamps] == [*STAGES[:2], STAGES[-1]]
        assert sink.values == []

    bench.run(main())


def test_tensors_are_shown_and_cut() -> None:
    kept = Kept(TraceSettings(levels=("TENSORS",), rate=1))
    many = np.arange(MOST_TRACED_VALUES + 1, dtype=np.float32)
    text = np.array([b"a"], object)
    made = Request(Tensors([Tensor("x", FP32, many), Tensor("t", BYTES, text)]))
    trace = kept.of.begin("m", 1, made)
    assert trace is not None
    x, t = trace.tensors
    assert (x.shape, len(x.data)) == ((MOST_TRACED_VALUES + 1,), MOST_TRACED_VALUES)
    assert (t.datatype, t.data) == ("BYTES", (b"a",))
    assert trace.timestamps == []


def test_a_request_of_a_model_is_traced_while_the_one_that_it_is_made_for_is(bench: Bench) -> None:
    """Also after that one was answered, as long as something of it is to be noted."""

    async def main() -> None:
        kept = Kept()
        deployment, _ = bench.deploy(doubling)
        outer = request(1)
        sink = Remote()
        trace = kept.of.begin("asks", 1, outer, sink)
        assert trace is not None
        gate = Gate(doubling)
        asking, _ = bench.deploy(gate, execution="thread")
        kept.of.submit(trace, asking, outer, sink)
        kept.of.answered(trace)
        inner = request(2)
        inner.trace_id = outer.trace_id
        assert kept.of.asker(inner) is trace
        trace.submit_step(deployment, inner, Remote())
        await a_moment()
        assert [name for name, _ in trace.steps[0].timestamps][-1] == "REQUEST_END"
        kept.of.end(trace)
        late = request(3)
        late.trace_id = outer.trace_id
        assert kept.of.asker(late) is None
        assert kept.of.asker(request(4)) is None
        assert not kept.of._open_by_id
        gate.open()

    bench.run(main())
