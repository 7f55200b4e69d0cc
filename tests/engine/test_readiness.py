import threading
from typing import Any, ClassVar, cast

from modelport.engine.readiness import Readiness
from modelport.runtimes.worker import WorkerRuntime

from .conftest import Bench, a_moment, until


class Asked:
    """A runtime that takes ``slow_s`` by the clock, and waits for ``gate`` on a thread."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.is_up = True
        self.slow_s = 0.0
        self.threads: list[str] = []
        self.gate = threading.Semaphore(0)

    def is_ready(self) -> bool:
        thread = threading.current_thread()
        self.threads.append(thread.name)
        if thread is threading.main_thread():
            self.bench.clock.advance(self.slow_s)
        else:
            assert self.gate.acquire(timeout=10)
        return self.is_up


def test_quick_runtime_is_asked_every_time(bench: Bench) -> None:
    async def main() -> None:
        runtime = Asked(bench)
        readiness = Readiness(cast(Any, runtime), bench.completions, bench.clock)
        assert readiness.ask()
        runtime.is_up = False
        assert not readiness.ask()
        assert set(runtime.threads) == {threading.current_thread().name}

    bench.run(main())


def test_slow_runtime_is_asked_on_a_thread_and_what_it_said_last_counts(bench: Bench) -> None:
    async def main() -> None:
        runtime = Asked(bench)
        readiness = Readiness(cast(Any, runtime), bench.completions, bench.clock)
        runtime.slow_s = 0.002
        assert readiness.ask()
        runtime.is_up = False
        for _ in range(3):
            assert readiness.ask()
        assert runtime.threads[1:] == ["is_ready"], "asked once, however often one wants to know"
        runtime.gate.release()
        await until(lambda: not readiness._is_asking)
        assert not readiness.ask()
        runtime.is_up = True
        runtime.gate.release()
        await a_moment()
        await until(lambda: readiness._said)

    bench.run(main())


def test_runtime_elsewhere_is_asked_on_the_loop_even_if_that_was_slow_once(bench: Bench) -> None:
    """It writes to its process, which two threads must not do at once; and it does not wait."""

    class Elsewhere(WorkerRuntime):
        threads: ClassVar[list[str]] = []

        def is_ready(self) -> bool:
            self.threads.append(threading.current_thread().name)
            bench.clock.advance(0.002)
            return True

    async def main() -> None:
        readiness = Readiness(Elsewhere(), bench.completions, bench.clock)
        assert [readiness.ask() for _ in range(3)] == [True] * 3
        assert Elsewhere.threads == [threading.current_thread().name] * 3

    bench.run(main())
