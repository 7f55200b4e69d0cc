"""Requests that nobody asked, before those that somebody does."""

import asyncio
import threading
from collections.abc import Awaitable, Sequence

import numpy as np
import pytest

from modelport.dtypes import FP32
from modelport.engine.deployment import Deployment
from modelport.engine.engine import Engine, EngineOptions
from modelport.errors import LoadFailed, ModelFailed
from modelport.repository.loading import ModelVersion
from modelport.repository.warmup import Sample
from modelport.runtimes.base import Batch, Outcome
from modelport.specs import (
    EnsembleScheduling,
    EnsembleStep,
    ModelConfig,
    ModelInput,
    ModelOutput,
    Reshape,
)
from modelport.tensors import Tensor

from .conftest import Bench, Execute, FakeRuntime, answer, config_of, doubling

X = Tensor("x", FP32, np.full((1, 1), 7, np.float32))
EVERYWHERE = pytest.mark.parametrize("execution", ["inline", "thread"])


def version(
    bench: Bench, *runs: Execute, samples: tuple[Sample, ...], **config: object
) -> ModelVersion:
    made = bench.version(*runs, config=config_of(**config))  # type: ignore[arg-type]
    made.samples = samples
    return made


def runtimes_of(version: ModelVersion) -> list[FakeRuntime]:
    return [runtime for runtime in version.instances if isinstance(runtime, FakeRuntime)]


@EVERYWHERE
def test_every_instance_runs_every_sample_as_often_as_it_says(bench: Bench, execution: str) -> None:
    async def main() -> None:
        engine = Engine(EngineOptions(execution=execution), bench.clock)  # type: ignore[arg-type]
        samples = (Sample("a", (X,), 3, 2), Sample("b", (X,), 1, 1))
        made = version(bench, doubling, doubling, doubling, samples=samples)
        runtimes = runtimes_of(made)
        await engine.warm_up(made)
        assert [runtime.batches for runtime in runtimes] == [[[7] * 3, [7] * 3, [7]]] * 3
        assert engine.deployments() == []
        engine.attach([made])
        deployment = engine.resolve("tried")
        assert isinstance(deployment, Deployment)
        assert deployment.statistics.execution_count == 0
        sinks = [bench.submit(deployment, value)[0] for value in range(6)]
        for sink in sinks:
            await sink.over.wait()
        assert deployment.statistics.success.count == 6
        assert sum(len(runtime.batches) for runtime in runtimes) == 15
        if execution == "thread":
            names = {name for runtime in runtimes for name in runtime.threads}
            assert names == {"tried_0", "tried_1", "tried_2"}, "where requests run, too"
        bench.loop.selector.patience_s = 1.0
        await engine.close()

    bench.run(main())


def later(batch: Batch) -> Awaitable[Sequence[Outcome]]:
    async def outcomes() -> Sequence[Outcome]:
        await asyncio.sleep(0)
        return doubling(batch)

    return outcomes()


def by_sender(batch: Batch) -> None:
    def send() -> None:
        for work in batch.works:
            work.send(answer(work), final=False)
            work.send(None, final=True)

    threading.Thread(target=send).start()


@pytest.mark.parametrize("run", [later, by_sender])
@EVERYWHERE
def test_models_that_answer_later_are_waited_for(
    bench: Bench, execution: str, run: Execute
) -> None:
    async def main() -> None:
        engine = Engine(EngineOptions(execution=execution), bench.clock)  # type: ignore[arg-type]
        samples = (Sample("a", (X,), 2, 2),)
        made = version(bench, run, run, samples=samples, decoupled=run is by_sender)
        await engine.warm_up(made)
        assert [runtime.batches for runtime in runtimes_of(made)] == [[[7, 7], [7, 7]]] * 2
        engine.attach([made])
        sink, _ = bench.submit(engine.resolve("tried"), 1)
        await sink.over.wait()
        assert sink.error is None
        bench.loop.selector.patience_s = 1.0
        await engine.close()

    bench.run(main())


def raising(batch: Batch) -> Sequence[Outcome]:
    raise ValueError("no room")


def one_failing(batch: Batch) -> Sequence[Outcome]:
    return [answer(batch.works[0]), ModelFailed("no room")]


def failing_by_sender(batch: Batch) -> None:
    for work in batch.works:
        work.send(ModelFailed("no room"), final=True)


@pytest.mark.parametrize("run", [raising, one_failing, failing_by_sender])
def test_model_that_fails_is_not_served_and_says_why(bench: Bench, run: Execute) -> None:
    async def main() -> None:
        engine = Engine(EngineOptions(execution="thread"), bench.clock)
        made = version(bench, doubling, run, samples=(Sample("first", (X,), 2, 1),))
        with pytest.raises(
            LoadFailed, match=r"^instance 'tried_1' failed its warm-up request 'first': .*no room"
        ):
            await engine.warm_up(made)
        bench.loop.selector.patience_s = 1.0
        await engine.abandon(made)
        made.unload()
        await engine.close()

    bench.run(main())


def test_samples_come_in_the_models_own_shape(bench: Bench) -> None:
    async def main() -> None:
        seen = []

        def run(batch: Batch) -> Sequence[Outcome]:
            seen.append(batch.works[0].request.payload.tensors[0].shape)
            return doubling(batch)

        config = ModelConfig(
            name="tried",
            max_batch_size=8,
            input=(ModelInput(name="x", data_type="TYPE_FP32", dims=(1,), reshape=Reshape()),),
            output=(ModelOutput(name="y", data_type="TYPE_FP32", dims=(1,)),),
        )
        made = bench.version(run, config=config)
        made.samples = (Sample("a", (X,), 1, 1),)
        engine = Engine(EngineOptions(execution="thread"), bench.clock)
        await engine.warm_up(made)
        assert seen == [(1,)]
        bench.loop.selector.patience_s = 1.0
        await engine.abandon(made)
        await engine.close()

    bench.run(main())


def test_loading_takes_as_long_as_warming_up(bench: Bench) -> None:
    async def main() -> None:
        def slow(batch: Batch) -> Sequence[Outcome]:
            bench.clock.advance(2.5)
            return doubling(batch)

        engine = Engine(EngineOptions(execution="thread"), bench.clock)
        made = version(bench, slow, samples=(Sample("a", (X,), 1, 2),))
        made.load_s = 1.0
        await engine.warm_up(made)
        engine.attach([made])
        assert engine.resolve("tried").statistics.load_s == pytest.approx(6.0)
        bench.loop.selector.patience_s = 1.0
        await engine.close()

    bench.run(main())


def test_ensemble_leaves_it_to_its_models_and_the_log_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        engine = Engine(EngineOptions(execution="thread"), bench.clock)
        member = version(bench, doubling, samples=())
        engine.attach([member])
        step = EnsembleStep(model_name="tried", input_map={"x": "x"}, output_map={"y": "y"})
        scheduling = EnsembleScheduling(step=(step,))
        ensemble = bench.version(config=config_of(name="e", ensemble_scheduling=scheduling))
        ensemble.samples = (Sample("a", (X,), 1, 1),)
        await engine.warm_up(ensemble)
        engine.attach([ensemble])
        assert runtimes_of(member)[0].batches == []
        assert "set it for the models of its steps" in caplog.text
        bench.loop.selector.patience_s = 1.0
        await engine.close()

    bench.run(main())
