"""How instances take batches: one by one on threads, or beside one another where they await."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from modelport.engine import instances as instances_module
from modelport.runtimes.base import Batch, Outcome

from .conftest import Bench, FakeSink, Gate, Later, doubling, first_of, until

EVERYWHERE = pytest.mark.parametrize("execution", ["inline", "thread", "auto"])


async def over(*sinks: FakeSink) -> None:
    for sink in sinks:
        await sink.over.wait()


def test_instance_groups_run_in_parallel(bench: Bench) -> None:
    async def main() -> None:
        gates = [Gate(), Gate(), Gate()]
        deployment, runtimes = bench.deploy(*gates)
        sinks = [bench.submit(deployment, value)[0] for value in range(4)]
        for gate in gates:
            await gate.reached()
        assert deployment.statistics.pending == 1
        assert [len(runtime.batches) for runtime in runtimes] == [1, 1, 1]
        for gate in gates:
            gate.open()
        await over(*sinks)
        assert sorted(sink.values[0][0] for sink in sinks) == [0, 2, 4, 6]
        assert sorted(runtime.threads[0] for runtime in runtimes) == [
            "tried_0",
            "tried_1",
            "tried_2",
        ]

    bench.run(main())


@EVERYWHERE
def test_asynchronous_requests_run_beside_one_another(bench: Bench, execution: Any) -> None:
    async def main() -> None:
        later = Later()
        deployment, _ = bench.deploy(later, execution=execution)
        sinks = {value: bench.submit(deployment, value)[0] for value in (-1, 1, 2, 3, 4, 5)}
        await until(lambda: len(later.waiting) == 6)
        for value in (5, 1, -1, 3, 2, 4):
            later.finish(value)
            await over(sinks[value])
        assert bench.ends == ["5", "1", "-1", "3", "2", "4"]
        assert str(sinks[-1].error) == "ValueError: negative"
        assert sinks[5].values == [[10.0]]
        # And again: nothing of an instance was lost on the way.
        more = [bench.submit(deployment, value)[0] for value in range(10, 20)]
        await until(lambda: len(later.waiting) == 10)
        for value in range(10, 20):
            later.finish(value)
        await over(*more)
        assert deployment.in_flight == 0

    bench.run(main())


@EVERYWHERE
def test_asynchronous_instance_has_no_more_than_its_bound_under_way(
    bench: Bench, execution: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances_module, "MAX_CONCURRENT_AWAITABLES", 3)

    async def main() -> None:
        later = Later()
        deployment, _ = bench.deploy(later, execution=execution)
        sinks = [bench.submit(deployment, value)[0] for value in range(10)]
        for value in range(10):
            await until(lambda value=value: value in later.waiting)  # type: ignore[misc]
            later.finish(value)
        await over(*sinks)
        assert later.most_at_once == 3

    bench.run(main())


@EVERYWHERE
def test_model_may_answer_now_and_then_at_once(bench: Bench, execution: Any) -> None:
    async def main() -> None:
        later = Later()

        def run(batch: Batch) -> Any:
            return later(batch) if first_of(batch.works[0]) % 2 else doubling(batch)

        deployment, _ = bench.deploy(run, execution=execution)
        for start in range(0, 60, 4):
            sinks = {value: bench.submit(deployment, value)[0] for value in range(start, start + 4)}
            await over(sinks[start], sinks[start + 2])
            for value in (start + 1, start + 3):
                await until(lambda value=value: value in later.waiting)  # type: ignore[misc]
                later.finish(value)
            await over(*sinks.values())
        assert deployment.in_flight == 0
        await deployment.drain()

    bench.run(main())


@EVERYWHERE
def test_task_that_a_model_cancels_itself_fails_its_request(bench: Bench, execution: Any) -> None:
    def run(batch: Batch) -> Awaitable[Sequence[Outcome]]:
        async def outcomes() -> Sequence[Outcome]:
            raise asyncio.CancelledError

        return outcomes()

    async def main() -> None:
        deployment, _ = bench.deploy(run, execution=execution)
        for _ in range(3):
            sink, _ = bench.submit(deployment)
            assert await sink.error_text() == "the model's task was cancelled"
        await deployment.drain()

    bench.run(main())
