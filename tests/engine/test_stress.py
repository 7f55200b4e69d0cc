"""Everything at once, on the real clock: what is asked for and given must add up."""

import asyncio
import gc
import random
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from modelport.clock import SystemClock
from modelport.dtypes import FP32
from modelport.engine.engine import Engine, EngineOptions
from modelport.engine.executor import new_event_loop
from modelport.engine.pipeline import Served
from modelport.errors import ModelportError, Overloaded, TimedOut
from modelport.messages import Request, Tensors
from modelport.repository.loading import ModelVersion
from modelport.runtimes.base import Batch, Outcome
from modelport.specs import (
    CacheControl,
    DynamicBatching,
    EnsembleScheduling,
    EnsembleStep,
    InstanceGroup,
    ModelConfig,
    Parameter,
    QueuePolicy,
    TransactionPolicy,
)
from modelport.tensors import Tensor

from .conftest import (
    Execute,
    FakeRuntime,
    FakeSink,
    answer,
    batching,
    config_of,
    doubling,
    first_of,
)

CLIENTS = 40
REQUESTS = 100
SEED = 20


def spinning(batch: Batch) -> Sequence[Outcome]:
    """Computes for up to a millisecond."""
    until = time.perf_counter() + (hash(first_of(batch.works[0])) % 10) / 10_000
    while time.perf_counter() < until:
        pass
    return doubling(batch)


async def sleeping(batch: Batch) -> Sequence[Outcome]:
    await asyncio.sleep((hash(first_of(batch.works[0])) % 5) / 1000)
    return doubling(batch)


def picky(batch: Batch) -> Sequence[Outcome]:
    """Refuses every seventh request, and only that."""
    return [
        ModelportError("seven") if first_of(work) % 7 == 0 else answer(work, 2.0)
        for work in batch.works
    ]


def streaming(batch: Batch) -> None:
    for work in batch.works:
        try:
            for _ in range(3):
                work.send(answer(work, 2.0), final=False)
            work.send(None, final=True)
        except ModelportError:
            work.send(None, final=True)


async def streaming_slowly(batch: Batch) -> None:
    for work in batch.works:
        try:
            for _ in range(3):
                work.send(answer(work, 2.0), final=False)
                await asyncio.sleep(0.0005)
                await work.drained()
            work.send(None, final=True)
        except ModelportError:
            work.send(None, final=True)


def config(name: str, *, decoupled: bool = False, **more: Any) -> ModelConfig:
    return config_of(name=name, decoupled=decoupled, **more)


def inline(name: str) -> ModelConfig:
    return config_of(name=name, parameters={"execution": Parameter(string_value="inline")})


MODELS: dict[str, tuple[ModelConfig, Execute, int]] = {
    "plain": (config("plain"), spinning, 2),
    "inline": (inline("inline"), doubling, 1),
    "batched": (
        config("batched", dynamic=batching(delay_us=300, preferred=(4,), max_queue_size=20)),
        picky,
        2,
    ),
    "ordered": (config("ordered", dynamic=batching(ordered=True)), spinning, 3),
    "impatient": (
        config("impatient", dynamic=batching(default_timeout_microseconds=2000)),
        spinning,
        1,
    ),
    "privileged": (
        config(
            "privileged",
            dynamic=DynamicBatching(
                priority_levels=3,
                default_priority_level=2,
                default_queue_policy=QueuePolicy(
                    timeout_action="DELAY",
                    default_timeout_microseconds=1000,
                    allow_timeout_override=True,
                ),
                priority_queue_policy={
                    3: QueuePolicy(default_timeout_microseconds=2000, max_queue_size=5)
                },
            ),
        ),
        spinning,
        2,
    ),
    "cached": (config("cached", response_cache=CacheControl(enable=True)), spinning, 2),
    "later": (config("later"), lambda batch: sleeping(batch), 1),
    "later_inline": (inline("later_inline"), lambda batch: sleeping(batch), 1),
    "stream": (config("stream", decoupled=True), streaming, 2),
    "stream_later": (
        config("stream_later", decoupled=True),
        lambda batch: streaming_slowly(batch),
        1,
    ),
}
ENSEMBLES = {
    "chain": ("plain", "later", False),
    "flow": ("plain", "stream", True),
    "streams": ("stream", "stream", True),
}


class Store:
    """The engine, everything that it has ever served, and what was asked of it."""

    def __init__(self) -> None:
        self.engine = Engine(EngineOptions(max_queue_size=1000, cache_bytes=8000), SystemClock())
        self.served: list[Served] = []
        self.asked: Counter[str] = Counter()
        self.sinks: list[tuple[FakeSink, bool]] = []
        self.refused = 0

    def serve(self, name: str) -> None:
        """Serve a model, or another one in its place."""
        config, run, count = MODELS[name]
        instances: list[Any] = [FakeRuntime(run) for _ in range(count)]
        names = [f"{name}_{index}" for index in range(count)]
        self._attach(ModelVersion(name, 1, config, "{}", {}, instances, names))

    def serve_ensemble(self, name: str) -> None:
        first, second, is_decoupled = ENSEMBLES[name]
        steps = (
            EnsembleStep(model_name=first, input_map={"x": "x"}, output_map={"y": "t"}),
            EnsembleStep(model_name=second, input_map={"x": "t"}, output_map={"y": "y"}),
        )
        made = ModelConfig(
            name=name,
            max_batch_size=8,
            input=config(name).input,
            output=config(name).output,
            instance_group=(InstanceGroup(),),
            ensemble_scheduling=EnsembleScheduling(step=steps),
            model_transaction_policy=TransactionPolicy(decoupled=True) if is_decoupled else None,
        )
        self._attach(ModelVersion(name, 1, made, "{}"))

    def _attach(self, version: ModelVersion) -> None:
        self.engine.attach([version])
        self.served.append(self.engine.resolve(version.name))

    async def close(self) -> None:
        for served in self.engine.deployments():
            await self.engine.detach(served.name, served.version)
        await asyncio.gather(*self.engine._retiring)
        await self.engine.close()


async def client(store: Store, chance: random.Random) -> None:
    """Ask this and that, now and then not waiting for the answer."""
    for _ in range(REQUESTS):
        name = chance.choice([*MODELS, *ENSEMBLES])
        value = chance.randrange(1, 1000)
        rows = chance.choice((1, 1, 2, 3))
        array = np.full((rows, 1), value, np.float32)
        request = Request(Tensors([Tensor("x", FP32, array)]), id=name)
        if chance.random() < 0.1:
            request.deadline_ns = time.perf_counter_ns() + chance.randrange(10**5, 10**7)
        if chance.random() < 0.3:
            request.priority = chance.randrange(5)
            request.timeout_us = chance.choice((0, 500, 5000))
        sink = FakeSink(name)
        store.asked[name] += 1
        try:
            ticket = store.engine.submit(name, None, request, sink)
        except (Overloaded, TimedOut):
            store.refused += 1
            await asyncio.sleep(0)
            continue
        if chance.random() < 0.15:
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
            was_over = sink.is_over
            ticket.cancel()
            store.sinks.append((sink, not was_over))
            continue
        if chance.random() < 0.2:
            # A caller that reads by fits and starts.
            sink.welcome = False
            while not sink.is_over:
                await asyncio.sleep(0.0005)
                ticket.resume()
        await sink.over.wait()
        store.sinks.append((sink, False))
        if sink.error is None:
            times = 4.0 if name in ENSEMBLES else 2.0
            count = {"stream": 3, "stream_later": 3, "flow": 3, "streams": 9}.get(name, 1)
            assert sink.values == [[value * times] * rows] * count


async def reloader(store: Store, chance: random.Random, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        await asyncio.sleep(0.01)
        name = chance.choice([*MODELS, *ENSEMBLES])
        if name in ENSEMBLES:
            store.serve_ensemble(name)
        else:
            store.serve(name)


@pytest.mark.slow
def test_everything_at_once_adds_up() -> None:
    before = threading.active_count()
    chance = random.Random(SEED)
    complaints: list[object] = []

    async def main() -> Store:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        store = Store()
        for name in MODELS:
            store.serve(name)
        for name in ENSEMBLES:
            store.serve_ensemble(name)
        is_over = asyncio.Event()
        reloading = asyncio.ensure_future(reloader(store, random.Random(SEED), is_over))
        clients = [client(store, random.Random(chance.random())) for _ in range(CLIENTS)]
        async with asyncio.timeout(60):
            await asyncio.gather(*clients)
            is_over.set()
            await reloading
            await store.close()
        return store

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        store = runner.run(main())

    assert complaints == []
    assert len(store.served) > len(MODELS) + len(ENSEMBLES), "nothing was reloaded"
    # Every sink heard exactly one end, unless its caller went first: then none at all.
    assert len(store.sinks) + store.refused == CLIENTS * REQUESTS
    for sink, has_gone in store.sinks:
        assert sink.is_over is not has_gone
    # Everything that was asked for is counted once, as a success or as a failure.
    counted: Counter[str] = Counter()
    for served in store.served:
        statistics = served.statistics
        counted[served.name] += statistics.success_count + statistics.fail.count
        assert statistics.fail.count == sum(statistics.failures.values())
        assert statistics.pending == 0
        assert served.in_flight == 0
    members = Counter[str]()
    for name, (first, second, _) in ENSEMBLES.items():
        members[first] += store.asked[name]
        members[second] += store.asked[name] * (3 if name == "streams" else 1)
    for name in MODELS:
        assert store.asked[name] <= counted[name] <= store.asked[name] + members[name]
    for name in ENSEMBLES:
        # A deadline or a full queue may end an ensemble in its first step.
        assert counted[name] == store.asked[name]
    for name in set(MODELS) - set(members):
        assert counted[name] == store.asked[name]
    _wait_for(lambda: threading.active_count() <= before)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["inline", "thread"])
@pytest.mark.parametrize("kind", ["plain", "batched", "later", "stream", "cancelled"])
def test_many_requests_leave_nothing_behind(execution: Any, kind: str) -> None:
    """Answered requests hold no memory, neither in the engine nor in the model's thread."""
    config, run, _ = MODELS[kind if kind in MODELS else "ordered"]
    config = ModelConfig(
        name="m",
        max_batch_size=8,
        input=config.input,
        output=config.output,
        dynamic_batching=config.dynamic_batching and batching(ordered=kind == "cancelled"),
        model_transaction_policy=config.model_transaction_policy,
    )
    if kind in ("plain", "cancelled"):
        run = doubling

    async def main() -> tuple[int, int]:
        engine = Engine(EngineOptions(execution=execution), SystemClock())
        instances: list[Any] = [FakeRuntime(_quiet(run))]
        engine.attach([ModelVersion("m", 1, config, "{}", {}, instances, ["m_0"])])
        deployment = engine.resolve("m")
        deadline_ns = time.perf_counter_ns() + 10**12

        async def ask_all(count: int) -> None:
            for start in range(0, count, 50):
                sinks = []
                for value in range(start, start + 50):
                    sink = FakeSink()
                    array = np.full((1, 1), value % 5 + 1, np.float32)
                    request = Request(Tensors([Tensor("x", FP32, array)]))
                    request.deadline_ns = deadline_ns if value % 2 else None
                    ticket = deployment.submit(request, sink)
                    if kind == "cancelled" and value % 3:
                        ticket.cancel()
                    else:
                        sinks.append(sink)
                for sink in sinks:
                    await sink.over.wait()

        await ask_all(1000)
        instances[0].batches.clear()
        instances[0].threads.clear()
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await ask_all(2000)
        instances[0].batches.clear()
        instances[0].threads.clear()
        await asyncio.sleep(0.01)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await engine.detach("m", 1)
        return before, after

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        before, after = runner.run(main())
    # One kept request is about a kilobyte.
    assert after - before < 150_000


def _quiet(run: Execute) -> Execute:
    if run is not MODELS["later"][1]:
        return run

    async def at_once(batch: Batch) -> Sequence[Outcome]:
        await asyncio.sleep(0)
        return doubling(batch)

    return lambda batch: at_once(batch)


def _wait_for(fact: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not fact():
        assert time.monotonic() < until
        time.sleep(0.001)
