import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from modelport.engine.executor import (
    DEBT_SHARE,
    FAST_NS,
    FAST_RUNS,
    MOST_DEBT_NS,
    SLOW_NS,
    Completions,
    InstanceThread,
    Placement,
    Ran,
    await_outcomes,
    call_on_thread,
    failure_of,
)
from modelport.errors import ModelFailed
from modelport.messages import Response
from modelport.runtimes.base import Batch, Outcome

from .conftest import Bench, Execute, a_moment, until

FAST, MEDIUM, SLOW = FAST_NS - 1, FAST_NS * 3, SLOW_NS + 1


def after(placement: Placement, *durations_ns: int, ended_ns: int = 0) -> bool:
    for duration_ns in durations_ns:
        placement.ran(duration_ns, ended_ns)
    return placement.is_inline


def test_auto_starts_on_a_thread_and_comes_to_the_loop_after_fast_runs() -> None:
    placement = Placement("auto")
    assert not placement.is_inline
    assert not after(placement, *[FAST] * (FAST_RUNS - 1))
    assert after(placement, FAST)
    assert after(placement, *[FAST, MEDIUM, SLOW_NS] * 100)


def test_long_run_on_the_loop_keeps_a_model_away_until_its_time_is_paid() -> None:
    placement = Placement("auto")
    assert after(placement, *[FAST] * FAST_RUNS)
    assert not after(placement, MOST_DEBT_NS + 1)
    paid_ns = round((MOST_DEBT_NS + 1) / DEBT_SHARE)
    assert not after(placement, *[FAST] * 1000, ended_ns=paid_ns - 1000)
    assert after(placement, FAST, ended_ns=paid_ns)


def test_hiccups_are_forgiven_unless_they_come_close_together() -> None:
    placement = Placement("auto")
    assert after(placement, *[FAST] * FAST_RUNS)
    hiccup_ns = MOST_DEBT_NS // 4
    for turn in range(100):
        assert after(placement, hiccup_ns, ended_ns=turn * round(hiccup_ns / DEBT_SHARE))
    assert not after(placement, *[hiccup_ns] * 4, ended_ns=99 * round(hiccup_ns / DEBT_SHARE))


def test_slow_runs_on_the_thread_take_fast_ones_back() -> None:
    placement = Placement("auto")
    assert not after(placement, *[*[FAST] * 4, SLOW] * 1000)
    assert not after(placement, *[FAST] * (FAST_RUNS - 1))
    assert after(placement, FAST)


def test_runs_in_between_count_for_nothing() -> None:
    """On a busy machine many runs of a fast model look slower than they are."""
    placement = Placement("auto")
    assert not after(placement, *[FAST, MEDIUM] * (FAST_RUNS - 1))
    assert after(placement, MEDIUM, FAST)


def test_model_that_is_slow_always_stays_on_its_thread() -> None:
    assert not after(Placement("auto"), *[MEDIUM] * 10_000)


@pytest.mark.parametrize("execution", ["inline", "thread"])
def test_what_the_operator_says_stands(execution: Any) -> None:
    placement = Placement(execution)
    before = placement.is_inline
    assert before is (execution == "inline")
    assert after(placement, *[FAST] * 100, *[SLOW] * 100) is before
    placement.stay_off_loop()
    assert placement.is_inline is before


def test_model_that_must_stay_off_the_loop_does() -> None:
    placement = Placement("auto")
    assert after(placement, *[FAST] * FAST_RUNS)
    placement.stay_off_loop()
    assert not after(placement, *[FAST] * 1000)
    assert repr(placement) == "<Placement on a thread, 32 of 32 fast runs>"


# Completions.


def test_messages_of_one_turn_wake_the_loop_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes = 0

    async def main() -> list[int]:
        nonlocal wakes
        loop = asyncio.get_running_loop()
        call_soon_threadsafe = loop.call_soon_threadsafe

        def counted(*args: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return call_soon_threadsafe(*args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        heard: list[int] = []
        completions = Completions(loop)
        for number in range(100):
            assert completions.post(heard.append, number)
        await asyncio.sleep(0)
        assert wakes == 1
        completions.post(heard.append, 100)
        await asyncio.sleep(0)
        return heard

    assert bench.run(main()) == list(range(101))
    assert wakes == 2


def test_messages_of_threads_keep_their_order(bench: Bench) -> None:
    heard: list[tuple[int, int]] = []

    async def main() -> None:
        completions = bench.completions

        def tell(sender: int) -> None:
            for number in range(500):
                completions.post(heard.append, (sender, number))

        threads = [threading.Thread(target=tell, args=(sender,)) for sender in range(4)]
        for thread in threads:
            thread.start()
        await until(lambda: len(heard) == 2000)

    bench.run(main())
    for sender in range(4):
        assert [number for who, number in heard if who == sender] == list(range(500))


def test_message_that_cannot_be_dealt_with_does_not_hold_up_the_next(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    async def main() -> None:
        bench.completions.post(lambda: 1 / 0)
        bench.completions.post(heard.append, "next")
        await asyncio.sleep(0)

    bench.run(main())
    assert heard == ["next"]
    assert "ZeroDivisionError" in caplog.text


def test_messages_to_a_loop_that_has_gone_are_dropped() -> None:
    loop = asyncio.new_event_loop()
    completions = Completions(loop)
    loop.close()
    assert not completions.post(print, "nobody reads this")
    assert not completions.post(print, "nor this")


# Threads of instances.


class Instance:
    """A thread under test, and what it has told."""

    def __init__(self, bench: Bench, run: Execute, follow: Sequence[Batch] = ()) -> None:
        self.told: list[Ran] = []
        self.batches: list[Batch] = []
        self.threads: set[str] = set()
        self.async_after: int | None = None
        self.following = list(follow)
        self.run = run
        runtime = cast(Any, type("Runtime", (), {"execute": staticmethod(self._execute)}))
        self.thread = InstanceThread(
            runtime, "m_0", bench.completions, bench.clock, self._became_async, self._take
        )

    def _execute(self, batch: Batch) -> Any:
        self.threads.add(threading.current_thread().name)
        return self.run(batch)

    def _became_async(self) -> None:
        self.async_after = len(self.told)

    def _take(self) -> Batch | None:
        return self.following.pop(0) if self.following else None

    def done(self, batch: Batch, ran: Ran) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.batches.append(batch)
        self.told.append(ran)

    async def execute(self, *batches: Batch) -> list[Ran]:
        expected = len(self.told) + len(batches)
        for batch in batches:
            self.thread.execute(batch, self.done)
        await until(lambda: len(self.told) >= expected)
        return self.told


ANSWER: list[Outcome] = [Response([])]


def batch_of() -> Batch:
    return Batch((), 1)


def test_batches_run_one_after_another_on_the_thread_and_are_told_on_the_loop(
    bench: Bench,
) -> None:
    async def main() -> None:
        def run(_: Batch) -> Sequence[Outcome]:
            bench.clock.advance(0.5)
            return ANSWER

        instance = Instance(bench, run)
        batches = [batch_of() for _ in range(3)]
        told = await instance.execute(*batches)
        assert instance.batches == batches
        assert instance.threads == {"m_0"}
        assert [ran.outcomes for ran in told] == [ANSWER] * 3
        assert [ran.ended_ns - ran.started_ns for ran in told] == [500_000_000] * 3
        assert not any(ran.is_kept for ran in told)
        instance.thread.close()
        await instance.thread.has_ended.wait()

    bench.run(main())


def test_thread_goes_on_with_what_it_may_take(bench: Bench) -> None:
    async def main() -> None:
        first, *following = batches = [batch_of(), batch_of(), batch_of()]
        instance = Instance(bench, lambda _: ANSWER, following)
        instance.thread.execute(first, instance.done)
        await until(lambda: len(instance.told) == 3)
        assert instance.batches == batches
        assert [ran.is_kept for ran in instance.told] == [True, True, False]
        instance.thread.close()
        await instance.thread.has_ended.wait()

    bench.run(main())


def test_batch_that_is_over_is_let_go_while_the_thread_goes_on(bench: Bench) -> None:
    class Sent:
        """Stands for what a caller sent."""

    async def main() -> None:
        is_released = threading.Event()
        told: list[Ran] = []

        def run(batch: Batch) -> Sequence[Outcome]:
            if not batch.works:
                assert is_released.wait(10)
            return ANSWER

        sent = Sent()
        lives_on = weakref.ref(sent)
        instance = Instance(bench, run, [batch_of()])
        instance.thread.execute(Batch((cast(Any, sent),), 1), lambda _, ran: told.append(ran))
        del sent
        await until(lambda: len(told) == 1)
        assert lives_on() is None
        is_released.set()
        await until(lambda: len(told) == 2)
        instance.thread.close()
        await instance.thread.has_ended.wait()

    bench.run(main())


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (ValueError("bad"), "bad"),
        (SystemExit(3), "the model's code raised SystemExit, which would end a process"),
        (KeyboardInterrupt(), "the model's code raised KeyboardInterrupt, which would end"),
    ],
)
def test_whatever_a_model_raises_is_told_and_the_thread_lives_on(
    bench: Bench, raised: BaseException, text: str
) -> None:
    raising = [raised]

    def run(_: Batch) -> Sequence[Outcome]:
        if raising:
            raise raising.pop()
        return ANSWER

    async def main() -> None:
        instance = Instance(bench, run)
        failed, fine = await instance.execute(batch_of(), batch_of())
        assert failed.outcomes is None
        assert str(failed.error).startswith(text)
        assert fine.error is None
        instance.thread.close()
        await instance.thread.has_ended.wait()

    bench.run(main())


def test_asynchronous_batches_run_beside_one_another(bench: Bench) -> None:
    releases: list[Callable[[], object]] = []

    async def answer_when_released(loop: asyncio.AbstractEventLoop) -> Sequence[Outcome]:
        released = asyncio.Event()
        releases.append(lambda: loop.call_soon_threadsafe(released.set))
        await released.wait()
        return ANSWER

    def run(_: Batch) -> Awaitable[Sequence[Outcome]]:
        async def outcomes() -> Sequence[Outcome]:
            return await answer_when_released(asyncio.get_running_loop())

        return outcomes()

    async def main() -> None:
        instance = Instance(bench, run)
        first, second, third = batch_of(), batch_of(), batch_of()
        instance.thread.execute(first, instance.done)
        await until(lambda: instance.async_after is not None and len(releases) == 1)
        assert instance.async_after == 0
        instance.thread.execute(second, instance.done)
        instance.thread.execute(third, instance.done)
        await until(lambda: len(releases) == 3)
        for release in (releases[2], releases[0], releases[1]):
            before = len(instance.told)
            release()
            await until(lambda before=before: len(instance.told) > before)  # type: ignore[misc]
        assert instance.batches == [third, first, second]
        assert [ran.outcomes for ran in instance.told] == [ANSWER] * 3
        instance.thread.close()
        await instance.thread.has_ended.wait()

    bench.run(main())


def test_asynchronous_model_may_also_answer_at_once_or_raise(bench: Bench) -> None:
    def run(batch: Batch) -> Any:
        async def later() -> Sequence[Outcome]:
            raise SystemExit(1)

        if batch.rows == 1:
            return later()
        if batch.rows == 2:
            raise ValueError("bad")
        return ANSWER

    async def main() -> None:
        instance = Instance(bench, run)
        await instance.execute(Batch((), 1))
        assert "SystemExit" in str(instance.told[0].error)
        await instance.execute(Batch((), 2), Batch((), 3), Batch((), 1))
        told = zip(instance.batches, instance.told, strict=True)
        errors = {batch.rows: ran.error for batch, ran in told}
        assert errors[3] is None
        assert isinstance(errors[2], ValueError)
        assert isinstance(errors[1], ModelFailed)
        instance.thread.close()
        await instance.thread.has_ended.wait()

    bench.run(main())


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_task_of_a_model_that_ends_the_process_ends_nothing(
    bench: Bench, raised: type[BaseException]
) -> None:
    async def rogue() -> None:
        raise raised

    rogues = []

    def run(_: Batch) -> Awaitable[Sequence[Outcome]]:
        async def outcomes() -> Sequence[Outcome]:
            rogues.append(asyncio.ensure_future(rogue()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return ANSWER

        return outcomes()

    async def main() -> None:
        instance = Instance(bench, run)
        for _ in range(3):
            await instance.execute(batch_of())
        assert [ran.outcomes for ran in instance.told] == [ANSWER] * 3
        instance.thread.close()
        await instance.thread.has_ended.wait()

    bench.run(main())
    assert all(isinstance(task.exception(), raised) for task in rogues)


def test_closing_cancels_what_is_awaited_and_tells_so(bench: Bench) -> None:
    ended: list[str] = []

    def run(_: Batch) -> Awaitable[Sequence[Outcome]]:
        async def own() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("the model's own task")

        async def outcomes() -> Sequence[Outcome]:
            task = asyncio.ensure_future(own())
            await asyncio.Event().wait()
            await task
            return ANSWER

        return outcomes()

    async def main() -> None:
        instance = Instance(bench, run)
        instance.thread.execute(batch_of(), instance.done)
        await until(lambda: instance.async_after is not None)
        instance.thread.close()
        await instance.thread.has_ended.wait()
        await a_moment()
        (ran,) = instance.told
        assert str(ran.error) == "the model's task was cancelled"
        assert ended == ["the model's own task"]
        instance.thread.close()

    bench.run(main())


def test_closing_before_the_first_step_tells_so_too(bench: Bench) -> None:
    instance: Instance

    def run(_: Batch) -> Awaitable[Sequence[Outcome]]:
        async def outcomes() -> Sequence[Outcome]:
            await asyncio.Event().wait()
            return ANSWER

        instance.thread.close()
        return outcomes()

    async def main() -> None:
        nonlocal instance
        instance = Instance(bench, run)
        instance.thread.execute(batch_of(), instance.done)
        await instance.thread.has_ended.wait()
        await a_moment()
        (ran,) = instance.told
        assert str(ran.error) == "the model's task was cancelled"

    bench.run(main())


def test_closing_lets_what_was_given_come_to_its_end(bench: Bench) -> None:
    async def main() -> None:
        instance = Instance(bench, lambda _: ANSWER)
        for _ in range(5):
            instance.thread.execute(batch_of(), instance.done)
        instance.thread.close()
        await instance.thread.has_ended.wait()
        assert len(instance.told) == 5

    bench.run(main())


def test_threads_are_daemons(bench: Bench) -> None:
    """A model that never returns must not keep the process from ending."""
    seen: list[bool] = []

    def run(_: Batch) -> Sequence[Outcome]:
        seen.append(threading.current_thread().daemon)
        return ANSWER

    async def main() -> None:
        instance = Instance(bench, run)
        await instance.execute(batch_of())
        seen.append(await call_on_thread(lambda: threading.current_thread().daemon))
        instance.thread.close()
        await instance.thread.has_ended.wait()

    bench.run(main())
    assert seen == [True, True]


# Small things.


def test_call_on_a_thread_gives_what_it_gives(bench: Bench) -> None:
    def raising() -> None:
        raise StopIteration

    async def main() -> None:
        assert await call_on_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await call_on_thread(divmod, 7, 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await call_on_thread(raising)

    bench.run(main())


def test_call_on_a_thread_can_be_given_up(bench: Bench) -> None:
    let_go = threading.Event()

    async def main() -> None:
        waiting = asyncio.ensure_future(call_on_thread(let_go.wait, 10))
        await a_moment()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        let_go.set()
        await a_moment()

    bench.run(main())


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_loop_of_the_server_survives_what_a_model_raises(
    bench: Bench, raised: type[BaseException]
) -> None:
    async def rogue() -> Sequence[Outcome] | None:
        raise raised

    async def main() -> Ran:
        return await await_outcomes(rogue())

    assert raised.__name__ in str(bench.run(main()).error)


def test_what_is_no_exception_becomes_one() -> None:
    error = ValueError("as it is")
    assert failure_of(error) is error
    assert isinstance(failure_of(asyncio.CancelledError()), ModelFailed)
    assert isinstance(failure_of(GeneratorExit()), ModelFailed)
