"""Streams: models that send, callers that stop reading, and the bound between them."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

from modelport.dtypes import BYTES, FP32
from modelport.engine import job as job_module
from modelport.engine.job import MAX_UNREAD_BYTES, MAX_UNREAD_ITEMS, OVERRUN_FACTOR
from modelport.errors import Cancelled, ModelFailed
from modelport.messages import Response
from modelport.runtimes.base import Batch, Outcome, Work
from modelport.tensors import Tensor

from .conftest import (
    Bench,
    FakeSink,
    Gate,
    a_moment,
    batching,
    config_of,
    first_of,
    request,
    until,
)

STREAM = config_of(decoupled=True)
EVERYWHERE = pytest.mark.parametrize("execution", ["inline", "thread", "auto"])


def item(value: float) -> Response:
    return Response([Tensor("y", FP32, np.array([[value]], np.float32))])


class Streaming:
    """A model that sends as many responses as the request's value says, from its thread."""

    def __init__(self, make: Callable[[float], Response] = item) -> None:
        self.make = make
        self.sent = 0
        self.raised: list[Exception] = []
        self.is_done = threading.Event()

    def __call__(self, batch: Batch) -> None:
        for work in batch.works:
            try:
                for value in range(round(first_of(work))):
                    work.send(self.make(value), final=False)
                    self.sent += 1
            except Cancelled as exc:
                self.raised.append(exc)
            finally:
                work.send(None, final=True)
        self.is_done.set()


class AsyncStreaming(Streaming):
    """The same on an event loop; ``waits`` says whether it awaits ``drained``."""

    def __init__(self, *, waits: bool = True, make: Callable[[float], Response] = item) -> None:
        super().__init__(make)
        self.waits = waits

    def __call__(self, batch: Batch) -> Any:
        return self._send_all(batch)

    async def _send_all(self, batch: Batch) -> None:
        for work in batch.works:
            try:
                for value in range(round(first_of(work))):
                    work.send(self.make(value), final=False)
                    self.sent += 1
                    if self.waits:
                        await work.drained()
                    if work.is_cancelled:
                        break
            except Cancelled as exc:
                self.raised.append(exc)
            finally:
                work.send(None, final=True)
        self.is_done.set()


async def settled(count: Callable[[], int], least: int = 1) -> int:
    """Wait until a count has come to ``least`` and stopped to change."""
    before = -1
    while before != count() or before < least:
        before = count()
        for _ in range(20):
            await a_moment()
    return before


async def read_on(sink: FakeSink, ticket: Any) -> None:
    """Read to the end, one response at a time."""
    while not sink.is_over:
        sink.something.clear()
        ticket.resume()
        if not sink.is_over:
            await asyncio.wait({asyncio.ensure_future(sink.something.wait())}, timeout=None)


# Streams as they should be.


@EVERYWHERE
@pytest.mark.parametrize("model", [Streaming, AsyncStreaming])
@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_decoupled_request_has_any_number_of_responses(
    bench: Bench, execution: Any, model: type[Streaming], count: int
) -> None:
    async def main() -> None:
        deployment, _ = bench.deploy(model(), config=STREAM, execution=execution)
        sink, _ = bench.submit(deployment, count)
        await sink.over.wait()
        assert sink.values == [[value] for value in range(count)]
        await deployment.drain()
        statistics = deployment.statistics
        assert (statistics.success_count, statistics.inference_count) == (1, 1)
        assert statistics.execution_count == 1
        assert sum(statistics.first_response_histogram.counts) == (1 if count else 0)

    bench.run(main())


@EVERYWHERE
def test_last_response_may_be_the_end(bench: Bench, execution: Any) -> None:
    def run(batch: Batch) -> None:
        (work,) = batch.works
        work.send(item(1), final=False)
        work.send(item(2), final=True)
        with pytest.raises(ModelFailed, match="Response sender has been closed"):
            work.send(item(3), final=False)

    async def main() -> None:
        deployment, _ = bench.deploy(run, config=STREAM, execution=execution)
        sink, _ = bench.submit(deployment)
        await sink.over.wait()
        assert sink.values == [[1.0], [2.0]]
        assert sink.error is None

    bench.run(main())


@EVERYWHERE
def test_error_ends_a_stream_and_the_model_is_told(bench: Bench, execution: Any) -> None:
    seen: list[bool] = []

    def run(batch: Batch) -> None:
        (work,) = batch.works
        work.send(item(1), final=False)
        work.send(ModelFailed("broken"), final=False)
        while execution != "inline" and not work.is_cancelled:
            pass
        seen.append(work.is_cancelled)
        with pytest.raises(Cancelled):
            work.send(item(2), final=False)
        work.send(None, final=True)

    async def main() -> None:
        deployment, _ = bench.deploy(run, config=STREAM, execution=execution)
        sink, _ = bench.submit(deployment)
        await sink.over.wait()
        assert (sink.values, str(sink.error)) == ([[1.0]], "broken")
        await deployment.drain()
        assert seen == [True]
        assert deployment.statistics.failures["BACKEND"] == 1
        assert deployment.statistics.success_count == 0

    bench.run(main())


def test_streams_go_on_after_execute_has_returned(bench: Bench) -> None:
    works: list[Work] = []

    def run(batch: Batch) -> None:
        works.extend(batch.works)

    async def main() -> None:
        deployment, _ = bench.deploy(run, config=STREAM)
        sinks = [bench.submit(deployment, value)[0] for value in range(3)]
        await until(lambda: len(works) == 3)
        draining = asyncio.ensure_future(deployment.drain())

        def answer_all() -> None:
            for work in reversed(works):
                work.send(item(first_of(work)), final=False)
                work.send(None, final=True)

        await a_moment()
        assert not draining.done()
        threading.Thread(target=answer_all).start()
        await draining
        assert [sink.values for sink in sinks] == [[[0.0]], [[1.0]], [[2.0]]]
        assert bench.ends == ["2", "1", "0"]

    bench.run(main())


@EVERYWHERE
def test_ordinary_model_may_answer_through_its_sender(bench: Bench, execution: Any) -> None:
    def run(batch: Batch) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for work in batch.works:
            value = first_of(work)
            if value < 0:
                work.send(ModelFailed("negative"), final=True)
            elif value % 2:
                work.send(item(value), final=True)
            outcomes.append(None if value < 0 or value % 2 else item(value))
        return outcomes

    async def main() -> None:
        config = config_of(dynamic=batching(delay_us=10))
        deployment, _ = bench.deploy(run, config=config, execution=execution)
        sinks = [bench.submit(deployment, value)[0] for value in (1, 2, -1, 3)]
        for sink in sinks:
            await sink.over.wait()
        assert [sink.values for sink in sinks] == [[[1.0]], [[2.0]], [], [[3.0]]]
        assert str(sinks[2].error) == "negative"
        await deployment.drain()
        assert deployment.statistics.success_count == 3

    bench.run(main())


def test_order_holds_also_for_answers_through_the_sender(bench: Bench) -> None:
    works: list[Work] = []

    def run(batch: Batch) -> Sequence[Outcome]:
        works.extend(batch.works)
        return [None] * len(batch.works)

    async def main() -> None:
        config = config_of(max_batch_size=1, dynamic=batching(ordered=True))
        deployment, _ = bench.deploy(run, config=config)
        sinks = [bench.submit(deployment, value)[0] for value in range(3)]
        await until(lambda: len(works) == 3)
        for work in (works[2], works[1]):
            work.send(item(0), final=True)
        await a_moment()
        assert bench.ends == []
        works[0].send(item(0), final=True)
        for sink in sinks:
            await sink.over.wait()
        assert bench.ends == ["0", "1", "2"]

    bench.run(main())


# Callers that do not read.


def test_thread_blocks_until_its_caller_reads(bench: Bench) -> None:
    async def main() -> None:
        model = Streaming()
        deployment, _ = bench.deploy(model, config=STREAM)
        sink, ticket = bench.submit(deployment, 500)
        sink.welcome = False
        sent = await settled(lambda: model.sent, least=MAX_UNREAD_ITEMS)
        assert MAX_UNREAD_ITEMS <= sent <= MAX_UNREAD_ITEMS + 2
        assert len(sink.heard) == 1
        await read_on(sink, ticket)
        assert sink.values == [[value] for value in range(500)]
        assert model.raised == []

    bench.run(main())


@pytest.mark.parametrize("execution", ["inline", "thread"])
def test_asynchronous_producer_waits_until_its_caller_reads(bench: Bench, execution: Any) -> None:
    async def main() -> None:
        model = AsyncStreaming()
        deployment, _ = bench.deploy(model, config=STREAM, execution=execution)
        sink, ticket = bench.submit(deployment, 500)
        sink.welcome = False
        sent = await settled(lambda: model.sent, least=MAX_UNREAD_ITEMS)
        assert MAX_UNREAD_ITEMS <= sent <= MAX_UNREAD_ITEMS + 2
        assert len(sink.heard) == 1
        await read_on(sink, ticket)
        assert sink.values == [[value] for value in range(500)]

    bench.run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda value: Response([Tensor("y", FP32, np.full(MAX_UNREAD_BYTES // 16, value, "f4"))]),
        # Strings count by what they hold, not by what points at them.
        lambda value: Response(
            [Tensor("y", BYTES, np.array([bytes(MAX_UNREAD_BYTES // 4)], object))]
        ),
    ],
)
@pytest.mark.parametrize("model", [Streaming, AsyncStreaming])
def test_bound_is_one_of_bytes_too(
    bench: Bench, make: Callable[[float], Response], model: type[Streaming]
) -> None:
    async def main() -> None:
        producer = model(make=make)
        deployment, _ = bench.deploy(producer, config=STREAM)
        sink, ticket = bench.submit(deployment, 20)
        sink.welcome = False
        assert await settled(lambda: producer.sent, least=4) <= 6
        await read_on(sink, ticket)
        assert len(sink.heard) == 20

    bench.run(main())


def test_caller_that_does_not_read_costs_no_other_one(bench: Bench) -> None:
    async def main() -> None:
        model = AsyncStreaming()
        deployment, _ = bench.deploy(model, config=STREAM)
        stuck, ticket = bench.submit(deployment, 500)
        stuck.welcome = False
        await settled(lambda: model.sent)
        for _ in range(3):
            sink, _ = bench.submit(deployment, 100)
            await sink.over.wait()
            assert len(sink.heard) == 100
        assert len(stuck.heard) == 1
        ticket.cancel()
        await deployment.drain()

    bench.run(main())


def test_producer_that_does_not_look_back_is_heard_by_a_caller_that_reads(bench: Bench) -> None:
    """As models for Triton do it: thousands of responses without one ``await``."""

    async def main() -> None:
        model = AsyncStreaming(waits=False)
        deployment, _ = bench.deploy(model, config=STREAM)
        for _ in range(3):
            sink, _ = bench.submit(deployment, 3000)
            await sink.over.wait()
            assert sink.error is None
            assert sink.values == [[value] for value in range(3000)]

    bench.run(main())


@pytest.mark.parametrize("execution", ["inline", "thread"])
def test_producer_on_a_loop_that_does_not_wait_is_cut_off(
    bench: Bench, execution: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "OVERRUN_GRACE_S", 0.02)

    async def main() -> None:
        model = AsyncStreaming(waits=False)
        deployment, _ = bench.deploy(model, config=STREAM, execution=execution)
        sink, _ = bench.submit(deployment, 10**6)
        sink.welcome = False
        assert await sink.error_text() == "the caller did not read its stream"
        assert len(sink.heard) == 1
        await deployment.drain()
        assert 0 <= model.sent - MAX_UNREAD_ITEMS * OVERRUN_FACTOR <= 2
        assert len(model.raised) == 1
        assert deployment.statistics.failures["CANCELED"] == 1

    bench.run(main())


def test_producer_on_the_servers_loop_is_cut_off_by_bytes_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "MAX_UNREAD_BYTES", 100)

    async def main() -> None:
        model = AsyncStreaming(waits=False)
        deployment, _ = bench.deploy(model, config=STREAM, execution="inline")
        sink, _ = bench.submit(deployment, 10**6)
        sink.welcome = False
        await sink.error_text()
        assert model.sent == pytest.approx(100, abs=3)
        await deployment.drain()

    bench.run(main())


@pytest.mark.parametrize("model", [Streaming, AsyncStreaming])
@pytest.mark.parametrize("how", ["cancel", "close", "deadline"])
def test_producer_that_waits_is_woken_when_its_caller_goes(
    bench: Bench, model: type[Streaming], how: str
) -> None:
    async def main() -> None:
        producer = model()
        deployment, _ = bench.deploy(producer, config=STREAM)
        sink, ticket = bench.submit(deployment, 500)
        sink.welcome = False
        await settled(lambda: producer.sent)
        assert not producer.is_done.is_set()
        if how == "cancel":
            ticket.cancel()
        elif how == "close":
            deployment.close()
        else:
            deployment._pass_deadline(ticket)
        assert sink.is_over is (how != "cancel")
        await until(producer.is_done.is_set)
        await deployment.drain()
        assert deployment.in_flight == 0
        assert deployment.statistics.fail.count == 1
        assert len(sink.heard) == 1

    bench.run(main())


def test_cancelled_stream_hears_nothing_more(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate(cast(Any, Streaming()))
        deployment, _ = bench.deploy(gate, config=STREAM)
        sink, ticket = bench.submit(deployment, 10)
        await gate.reached()
        ticket.cancel()
        gate.open()
        await deployment.drain()
        assert sink.heard == []
        assert not sink.is_over

    bench.run(main())


def test_caller_may_go_in_the_middle_of_hearing(bench: Bench) -> None:
    class Leaving(FakeSink):
        ticket: Any = None

        def push(self, response: Response, final: bool) -> bool:
            super().push(response, final)
            self.ticket.cancel()
            return False

    async def main() -> None:
        works: list[Work] = []
        deployment, _ = bench.deploy(lambda batch: works.extend(batch.works), config=STREAM)
        sink = Leaving()
        sink.ticket = deployment.submit(request(3), sink)
        await until(lambda: bool(works))
        (work,) = works
        work.send(item(0), final=False)
        with pytest.raises(Cancelled):
            work.send(item(1), final=False)
        work.send(None, final=True)
        await deployment.drain()
        assert len(sink.heard) == 1

    bench.run(main())


def test_end_that_waits_behind_unread_responses_is_not_lost_when_the_caller_goes(
    bench: Bench,
) -> None:
    """The engine must learn that the model is done, though nobody reads it."""

    async def main() -> None:
        model = Streaming()
        deployment, _ = bench.deploy(model, config=STREAM)
        sink, ticket = bench.submit(deployment, 10)
        sink.welcome = False
        await until(model.is_done.is_set)
        await a_moment()
        assert len(sink.heard) == 1
        assert deployment.in_flight == 1
        ticket.cancel()
        await deployment.drain()
        assert deployment.in_flight == 0

    bench.run(main())


def test_final_response_of_a_stream_that_was_cut_off_still_ends_it(bench: Bench) -> None:
    def run(batch: Batch) -> None:
        (work,) = batch.works
        while not work.is_cancelled:
            pass
        work.send(item(1), final=True)

    async def main() -> None:
        deployment, _ = bench.deploy(run, config=STREAM)
        sink, ticket = bench.submit(deployment)
        ticket.cancel()
        await deployment.drain()
        assert sink.heard == []

    bench.run(main())


def test_several_threads_may_send_into_one_stream(bench: Bench) -> None:
    def run(batch: Batch) -> None:
        (work,) = batch.works

        def send(start: int) -> None:
            for value in range(start, start + 300):
                work.send(item(value), final=False)

        threads = [threading.Thread(target=send, args=(start,)) for start in (0, 300, 600, 900)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        work.send(None, final=True)

    async def main() -> None:
        deployment, _ = bench.deploy(run, config=STREAM)
        sink, ticket = bench.submit(deployment)
        sink.welcome = False
        await read_on(sink, ticket)
        values = [value for (value,) in sink.values]
        assert sorted(values) == list(range(1200))
        job = ticket
        assert (job._sent_items, job._sent_bytes) == (job._taken_items, job._taken_bytes)

    bench.run(main())


def test_job_tells_where_it_is(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        deployment, _ = bench.deploy(gate)
        _, running = bench.submit(deployment, 1)
        await gate.reached()
        sink, queued = bench.submit(deployment, 2)
        assert repr(running) == "<Job '1' of tried running>"
        assert repr(queued) == "<Job '2' of tried queued>"
        gate.open()
        await sink.over.wait()
        assert repr(queued) == "<Job '2' of tried closed>"

    bench.run(main())
