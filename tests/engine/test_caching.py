"""Requests that are answered without their model."""

import numpy as np
import pytest

from modelport.engine.cache import ResponseCache
from modelport.engine.caching import CachingDeployment, wants_cache
from modelport.engine.deployment import Deployment
from modelport.engine.engine import Engine
from modelport.engine.options import EngineOptions
from modelport.errors import LoadFailed, ModelportError
from modelport.runtimes.base import Batch, Outcome
from modelport.specs import (
    CacheControl,
    Direct,
    EnsembleScheduling,
    EnsembleStep,
    ModelConfig,
    SequenceBatching,
)

from .conftest import Bench, Execute, FakeRuntime, Gate, batching, config_of, doubling

ON = CacheControl(enable=True)


def cached(
    bench: Bench,
    run: Execute = doubling,
    config: ModelConfig | None = None,
    cache: ResponseCache | None = None,
) -> tuple[CachingDeployment, FakeRuntime]:
    version = bench.version(run, config=config or config_of(response_cache=ON))
    deployment = CachingDeployment(
        version,
        cache=cache or ResponseCache(100_000),
        options=EngineOptions(execution="thread"),
        completions=bench.completions,
        clock=bench.clock,
    )
    bench.closes(deployment)
    (runtime,) = version.instances
    assert isinstance(runtime, FakeRuntime)
    return deployment, runtime


def test_second_of_two_equal_requests_does_not_reach_the_model(bench: Bench) -> None:
    async def main() -> None:
        deployment, runtime = cached(bench)
        first, _ = bench.submit(deployment, 3)
        await first.over.wait()
        second, ticket = bench.submit(deployment, 3)
        assert second.is_over, "at once"
        assert second.values == first.values == [[6.0]]
        ticket.cancel()
        ticket.resume()
        other, _ = bench.submit(deployment, 4)
        await other.over.wait()
        assert runtime.batches == [[3.0], [4.0]]

    bench.run(main())


def test_hits_count_as_successes_and_not_as_executions(bench: Bench) -> None:
    async def main() -> None:
        deployment, _ = cached(bench)
        for _ in range(3):
            sink, _ = bench.submit(deployment, 3, rows=2)
            await sink.over.wait()
        statistics = deployment.statistics
        assert (statistics.cache_hit.count, statistics.cache_miss.count) == (2, 1)
        assert statistics.success.count == statistics.queue.count == 3
        assert statistics.compute_infer.count == statistics.compute_input.count == 1
        assert (statistics.inference_count, statistics.execution_count) == (2, 1)

    bench.run(main())


def test_errors_and_cancelled_requests_are_not_kept(bench: Bench) -> None:
    async def main() -> None:
        answers = iter([ValueError("not now")])

        def run(batch: Batch) -> list[Outcome]:
            for error in answers:
                raise error
            return list(doubling(batch))

        deployment, runtime = cached(bench, run)
        failed, _ = bench.submit(deployment, 1)
        assert "not now" in await failed.error_text()
        again, _ = bench.submit(deployment, 1)
        await again.over.wait()
        assert again.values == [[2.0]]
        assert runtime.batches == [[1.0], [1.0]]
        assert deployment.statistics.cache_miss.count == 1

    bench.run(main())


def test_answers_of_what_was_loaded_before_are_not_found(bench: Bench) -> None:
    async def main() -> None:
        cache = ResponseCache(100_000)
        old, _ = cached(bench, cache=cache)
        sink, _ = bench.submit(old, 1)
        await sink.over.wait()
        new, runtime = cached(bench, cache=cache)
        other, _ = bench.submit(new, 1)
        await other.over.wait()
        assert runtime.batches == [[1.0]]
        assert cache.statistics().entries == 2
        old.close()
        await old.wait_closed()
        assert cache.statistics().entries == 1
        with pytest.raises(ModelportError, match="is not at ready state"):
            bench.submit(old, 1)

    bench.run(main())


def test_hit_does_not_overtake_where_order_is_promised(bench: Bench) -> None:
    async def main() -> None:
        gate = Gate()
        config = config_of(response_cache=ON, dynamic=batching(ordered=True))
        deployment, _ = cached(bench, gate, config)
        first, _ = bench.submit(deployment, 1)
        gate.let_go()
        await first.over.wait()
        slow, _ = bench.submit(deployment, 2)
        hit, _ = bench.submit(deployment, 1)
        assert not hit.is_over
        gate.open()
        await slow.over.wait()
        await hit.over.wait()
        assert bench.ends == ["1", "2", "1"]

    bench.run(main())


def test_what_a_caller_does_with_its_answer_is_its_own_affair(bench: Bench) -> None:
    async def main() -> None:
        deployment, _ = cached(bench)
        first, _ = bench.submit(deployment, 1)
        await first.over.wait()
        array = first.heard[0].outputs[0].array
        assert array.flags.writeable
        array[:] = np.nan
        second, _ = bench.submit(deployment, 1)
        assert second.values == [[2.0]]

    bench.run(main())


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (config_of(response_cache=ON, decoupled=True), "decoupled transaction policy"),
        (config_of(response_cache=ON, sequence_batching=SequenceBatching()), "sequence_batching"),
    ],
)
def test_models_whose_answers_depend_on_more_cannot_have_a_cache(
    config: ModelConfig, what: str
) -> None:
    with pytest.raises(LoadFailed, match=f"does not currently support model tried with {what}: "):
        wants_cache(config)


def test_cache_is_for_those_who_ask_for_it_on_servers_that_have_one(bench: Bench) -> None:
    async def main() -> None:
        plain, asking = config_of(name="plain"), config_of(name="asking", response_cache=ON)
        off = config_of(name="off", response_cache=CacheControl())
        step = EnsembleStep(model_name="plain", input_map={"x": "x"}, output_map={"y": "y"})
        ensemble = config_of(
            name="both", response_cache=ON, ensemble_scheduling=EnsembleScheduling(step=(step,))
        )
        engine = Engine(EngineOptions(cache_bytes=100_000, execution="thread"), bench.clock)
        for config in (plain, off, asking, ensemble):
            engine.attach(
                [bench.version(*([] if config is ensemble else [doubling]), config=config)]
            )
        kinds = {served.name: type(served).__name__ for served in engine.deployments()}
        assert kinds == {
            "plain": "Deployment",
            "off": "Deployment",
            "asking": "CachingDeployment",
            "both": "CachingPipeline",
        }
        for _ in range(3):
            sink, _ = bench.submit(engine.resolve("both"), 2)
            await sink.over.wait()
            assert sink.values == [[4.0]]
        assert engine.resolve("plain").statistics.success.count == 1
        assert engine.resolve("both").statistics.cache_hit.count == 2
        bench.loop.selector.patience_s = 1.0
        await engine.detach("both", 1)
        assert engine.cache is not None
        assert engine.cache.statistics().entries == 0
        await engine.close()

    bench.run(main())


def test_ensemble_of_a_model_that_remembers_cannot_have_a_cache(bench: Bench) -> None:
    async def main() -> None:
        member = config_of(name="remembering", sequence_batching=SequenceBatching(direct=Direct()))
        step = EnsembleStep(model_name="remembering", input_map={"x": "x"}, output_map={"y": "y"})
        ensemble = config_of(
            name="both", response_cache=ON, ensemble_scheduling=EnsembleScheduling(step=(step,))
        )
        engine = Engine(EngineOptions(cache_bytes=100_000, execution="thread"), bench.clock)
        engine.attach([bench.version(doubling, config=member)])
        with pytest.raises(LoadFailed, match="support model remembering with sequence_batching"):
            engine.attach([bench.version(config=ensemble)])
        bench.loop.selector.patience_s = 1.0
        await engine.close()

    bench.run(main())


def test_model_serves_without_a_cache_and_the_log_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        engine = Engine(EngineOptions(execution="thread"), bench.clock)
        engine.attach([bench.version(doubling, config=config_of(response_cache=ON))])
        assert type(engine.resolve("tried")) is Deployment
        assert "start it with --cache-config local,size=BYTES" in caplog.text
        bench.loop.selector.patience_s = 1.0
        await engine.close()

    bench.run(main())
