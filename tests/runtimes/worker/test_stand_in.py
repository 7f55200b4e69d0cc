import asyncio
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from modelport.errors import ModelFailed, Unavailable
from modelport.repository.options import LoadOptions
from modelport.runtimes.worker import arena
from tests.runtimes.worker.conftest import CONFIG, DECOUPLED, PROCESS, Bench
from tests.waiting import until

DOUBLES = """
def execute(self, requests):
    return [y(2 * x_of(request)) for request in requests]
"""
TELLS_ITS_PROCESS = """
def execute(self, requests):
    return [y([os.getpid()]) for request in requests]
"""
ENDS_ITSELF = """
def execute(self, requests):
    number = int(x_of(requests[0])[0])
    if number < 0:
        os.kill(os.getpid(), -number)
        time.sleep(10)
    if number > 0:
        os._exit(number)
    return [y([0])]
"""


def test_model_runs_in_another_process(bench: Bench) -> None:
    bench.write("m", TELLS_ITS_PROCESS)

    async def test() -> None:
        ((pid,),) = await bench.ask("m", [1])
        assert pid == bench.workers("m")[0].pid != os.getpid()

    bench.run(test)


@pytest.mark.parametrize(
    ("group", "processes"),
    [
        ("instance_group [ { kind: KIND_CPU count: 2 } ]\n", 2),
        ("instance_group [ { count: 2 } ]\n", 0),
        ("instance_group [ { kind: KIND_CPU count: 1 } ]\n", 0),
        (
            "instance_group [ { kind: KIND_CPU count: 2 } ]\n"
            + PROCESS.replace("process", "thread"),
            0,
        ),
    ],
)
def test_several_instances_on_the_cpu_get_processes_as_they_do_in_triton(
    bench: Bench, group: str, processes: int
) -> None:
    bench.write("m", TELLS_ITS_PROCESS, CONFIG + group)

    async def test() -> None:
        pids = {(await bench.ask("m", [1]))[0][0] for _ in range(4)}
        assert len(bench.workers("m")) == processes
        assert pids <= {worker.pid for worker in bench.workers("m")} or pids == {os.getpid()}

    bench.run(test)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(3, "ended with status 3"), (-signal.SIGSEGV, "was killed by signal 11 (SIGSEGV)")],
)
def test_crash_is_told_and_mended(bench: Bench, number: int, reason: str) -> None:
    """Requests in flight hear why; those that wait are answered by the next process."""
    bench.write("m", ENDS_ITSELF)
    bench.write("other", DOUBLES)

    async def test() -> None:
        assert await bench.ask("m", [0]) == [[0]]
        (worker,) = bench.workers("m")
        first = worker.pid
        with pytest.raises(Unavailable, match="worker process of instance 'm_0_0'") as failed:
            await bench.ask("m", [number])
        assert reason in str(failed.value)
        assert not bench.deployment("m").is_ready()
        assert bench.deployment("other").is_ready()
        sink, _ = bench.submit("m", [0])
        assert await bench.ask("other", [1]) == [[2]]
        assert len(await sink.over) == 1
        assert bench.deployment("m").is_ready()
        assert worker.restarts == 1
        assert worker.pid != first

    bench.run(test)


def test_worker_that_does_not_come_back_has_its_requests_refused(
    bench: Bench, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    bench.write(
        "m",
        f"""
        def initialize(self, args):
            if os.path.exists({str(broken)!r}):
                raise ValueError("the disk is gone")

        def execute(self, requests):
            return [y([1])]
        """,
    )

    async def test() -> None:
        broken.touch()
        (worker,) = bench.workers("m")
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: "the disk is gone" in worker.failure)
        with pytest.raises(Unavailable, match="the disk is gone"):
            await bench.ask("m", [1])
        assert not bench.deployment("m").is_ready()
        (row,) = bench.engine.index()
        assert (row.state, "the disk is gone" in row.reason) == ("UNAVAILABLE", True)
        broken.unlink()
        await until(lambda: not worker.failure)
        assert [(row.state, row.reason) for row in bench.engine.index()] == [("READY", "")]
        assert await bench.ask("m", [1]) == [[1]]

    bench.run(test)


def test_index_tells_of_a_worker_that_is_down_for_a_moment(bench: Bench) -> None:
    bench.write("m", "def execute(self, requests): return [y([1])]")

    async def test() -> None:
        (worker,) = bench.workers("m")
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: worker.pid is None)
        (row,) = bench.engine.index()
        assert row.state == "UNAVAILABLE"
        assert row.reason == "the worker process of instance 'm_0_0' is started again"
        assert not bench.deployment("m").is_ready()
        await until(lambda: worker.pid is not None)
        assert [row.state for row in bench.engine.index()] == ["READY"]

    bench.run(test)


def test_load_failure_reaches_the_index_with_its_text(bench: Bench) -> None:
    bench.write("m", "def initialize(self, args): raise ValueError('no weights')")
    bench.write("n", "@staticmethod\ndef auto_complete_config(config): raise KeyError('dims')")

    async def test() -> None:
        for name, text in {
            "m": r"initialize failed in 'model\.py' line \d+: ValueError: no weights",
            "n": r"auto_complete_config failed in 'model\.py' line \d+: KeyError: 'dims'",
        }.items():
            assert re.search(text, bench.failures[name])

    for name in "mn":
        file = bench.directory / name / "1" / "model.py"
        file.write_text(file.read_text() + "\n    def execute(self, requests): ...\n")
    bench.run(test)


def test_process_that_ends_while_it_loads_is_told(bench: Bench) -> None:
    bench.write("m", "def initialize(self, args): os._exit(5)\ndef execute(self, requests): ...")

    async def test() -> None:
        assert "ended with status 5 while it was loading the model" in bench.failures["m"]

    bench.run(test)


def test_crash_in_the_middle_of_a_stream_ends_it_with_the_reason(bench: Bench) -> None:
    bench.write(
        "m",
        """
        def execute(self, requests):
            sender = requests[0].get_response_sender()
            sender.send(y([1]))
            threading.Timer(0.1, os._exit, (4,)).start()
            self.kept = sender
        """,
        CONFIG + PROCESS + DECOUPLED,
    )

    async def test() -> None:
        sink, _ = bench.submit("m", [1])
        with pytest.raises(Unavailable, match="ended with status 4"):
            await sink.over
        assert len(sink.responses) == 1

    bench.run(test)


def test_instances_share_the_work(bench: Bench) -> None:
    bench.write(
        "m",
        """
        def execute(self, requests):
            time.sleep(0.02)
            return [y([os.getpid()]) for request in requests]
        """,
        CONFIG + "instance_group [ { kind: KIND_CPU count: 2 } ]\n",
    )

    async def test() -> None:
        for _ in range(4):
            await asyncio.gather(*(bench.ask("m", [1]) for _ in range(2)))
        pids = [
            int(pid)
            for ((pid,),) in await asyncio.gather(*(bench.ask("m", [1]) for _ in range(20)))
        ]
        assert min(pids.count(pid) for pid in set(pids)) >= 7
        assert len(set(pids)) == 2

    bench.run(test)


def test_stream_waits_for_its_reader(bench: Bench) -> None:
    """The worker lives on credit: it is a bounded number of responses ahead."""
    bench.write(
        "m",
        """
        sent = 0

        def execute(self, requests):
            for request in requests:
                sender = request.get_response_sender()
                if x_of(request)[0] < 0:
                    sender.send(y([self.sent]), FINAL)
                    continue
                threading.Thread(target=self.stream, args=(sender, int(x_of(request)[0]))).start()

        def stream(self, sender, count):
            for number in range(count):
                sender.send(y([number]))
                self.sent += 1
            sender.send(flags=FINAL)
        """,
        CONFIG + PROCESS + DECOUPLED,
    )

    async def test() -> None:
        assert await bench.ask("m", [500]) == [[each] for each in range(500)]
        sink, ticket = bench.submit("m", [2000])
        sink.welcome = False
        seen, before = (await bench.ask("m", [-1]))[0][0], -1.0
        while seen != before:
            before = seen
            await asyncio.sleep(0.05)
            seen = (await bench.ask("m", [-1]))[0][0]
        assert len(sink.responses) == 1
        assert 500 < seen < 500 + 200
        sink.welcome = True
        ticket.resume()
        assert len(await sink.over) == 2000

    bench.run(test)


def test_model_may_ask_to_see_a_request_again(bench: Bench) -> None:
    bench.write(
        "m",
        """
        looks = 0

        def execute(self, requests):
            (request,) = requests
            self.looks += 1
            if self.looks < 4:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
                return [None]
            return [y([self.looks])]
        """,
        CONFIG + PROCESS + "sequence_batching { iterative_sequence: true }\n",
    )

    async def test() -> None:
        assert await bench.ask("m", [1]) == [[4]]

    bench.run(test)


def test_cancel_reaches_the_model(bench: Bench) -> None:
    bench.write(
        "m",
        """
        cancelled = 0

        def execute(self, requests):
            (request,) = requests
            if x_of(request)[0] == 0:
                return [y([self.cancelled])]
            while not request.is_cancelled():
                time.sleep(0.001)
            self.cancelled += 1
            return [y([1])]
        """,
    )

    async def test() -> None:
        sink, ticket = bench.submit("m", [1])
        await asyncio.sleep(0.05)
        ticket.cancel()
        assert await bench.ask("m", [0]) == [[1]]
        assert not sink.over.done()

    bench.run(test)


@pytest.mark.parametrize("arena_bytes", [arena.ARENA_BYTES, 65536])
def test_large_tensors_come_through_unchanged_and_memory_is_used_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, arena_bytes: int
) -> None:
    """Also when the arena has no room and each gets a piece of its own."""
    bench.write(
        "m",
        """
        def execute(self, requests):
            answers = []
            for request in requests:
                x = x_of(request)
                assert x.flags.writeable
                x += 1
                answers.append(y(x))
            return answers
        """,
    )
    if arena_bytes != arena.ARENA_BYTES:
        # Most of the arena is taken: what is large does not fit any more.
        take = arena.Space.take
        monkeypatch.setattr(
            arena.Space, "take", lambda space, size: (size < 65536 and take(space, size)) or None
        )

    async def test() -> None:
        given = np.arange(300_000, dtype=np.float32)
        for _ in range(3):
            sinks = [bench.submit("m", given)[0] for _ in range(20)]
            for sink in sinks:
                (response,) = await sink.over
                assert np.array_equal(response.outputs[0].array, given + 1)
        (worker,) = bench.workers("m")
        assert worker._process is not None
        space = worker._process.outgoing.space
        assert space.highest < 32 * given.nbytes

    bench.run(test)


def test_model_may_keep_what_it_was_given(bench: Bench) -> None:
    bench.write(
        "m",
        """
        kept = None

        def execute(self, requests):
            x = x_of(requests[0])
            if self.kept is None:
                self.kept = x
            return [y(self.kept)]
        """,
    )

    async def test() -> None:
        for number in range(5):
            ((*first,),) = await bench.ask("m", np.full(50_000, number, np.float32))
            assert set(first) == {0.0}

    bench.run(test)


def test_log_and_errors_reach_the_server(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.write(
        "m",
        """
        def execute(self, requests):
            import logging
            pb_utils.Logger.log_warn("something")
            logging.getLogger("library").error("else")
            raise ValueError("bad weather")
        """,
    )

    async def test() -> None:
        with pytest.raises(ModelFailed, match="ValueError: bad weather"):
            await bench.ask("m", [1])

    bench.run(test)
    assert {"something", "else"} <= {record.getMessage() for record in caplog.records}


def test_unload_finalizes_and_leaves_nothing_behind(bench: Bench, tmp_path: Path) -> None:
    finalized = tmp_path / "finalized"
    bench.write(
        "m",
        f"""
        def execute(self, requests):
            return [y(x_of(request)) for request in requests]

        def finalize(self):
            open({str(finalized)!r}, "w").close()
        """,
    )
    before = len(os.listdir("/proc/self/fd"))

    async def test() -> None:
        await bench.ask("m", np.zeros(100_000, np.float32))

    bench.run(test)
    assert finalized.exists()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_worker_ignores_the_terminal(bench: Bench) -> None:
    """Ctrl-C and a service's end go to all processes; the server says when it is over."""
    bench.write("m", DOUBLES)

    async def test() -> None:
        (worker,) = bench.workers("m")
        assert worker.pid is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
        assert await bench.ask("m", [1]) == [[2]]
        assert worker.restarts == 0

    bench.run(test)


def test_stopped_worker_is_not_ready_and_then_not_live(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("m", DOUBLES)
    bench.load = LoadOptions(hang_timeout_s=0)
    monkeypatch.setattr("modelport.runtimes.worker.stand_in.SILENCE_S", 0.05)
    monkeypatch.setattr("modelport.runtimes.worker.stand_in.HUNG_S", 0.1)

    async def test() -> None:
        (worker,) = bench.workers("m")
        assert worker.pid is not None
        assert bench.engine.is_live()
        os.kill(worker.pid, signal.SIGSTOP)
        await until(lambda: not bench.engine.is_live())
        assert not bench.engine.is_ready()
        assert not bench.engine.is_live()
        os.kill(worker.pid, signal.SIGCONT)
        await until(bench.engine.is_ready)

    bench.run(test)


HANGS = """
def execute(self, requests):
    how = float(x_of(requests[0])[0])
    if how == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == 2:
        import ctypes
        ctypes.PyDLL(None).sleep(60)  # unlike CDLL, it keeps Python's lock
    elif how == 3:
        until = time.monotonic() + 1.8
        while time.monotonic() < until:
            pass
    return [y([os.getpid()])]
"""


@pytest.mark.parametrize("how", [1, 2])
def test_worker_that_hangs_is_killed_and_started_again(
    bench: Bench, how: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it was stopped, or some C code has Python's lock and does not come back."""
    bench.write("m", HANGS)
    bench.load = LoadOptions(hang_timeout_s=0.4)

    async def test() -> None:
        (worker,) = bench.workers("m")
        ((pid,),) = await bench.ask("m", [0])
        hung, _ = bench.submit("m", [how])
        waiting, _ = bench.submit("m", [0])
        with pytest.raises(Unavailable, match=r"not been heard of for 0.4 s.*hang-timeout-secs"):
            await hung.over
        answered = await asyncio.gather(waiting.over, return_exceptions=True)
        assert isinstance(answered[0], Unavailable | list)  # it may have been with the process
        assert await bench.ask("m", [0]) != [[pid]]
        assert worker.restarts == 1
        assert bench.engine.is_live()

    bench.run(test)
    assert "was killed because it had not been heard of for 0.4 s" in caplog.text


def test_worker_that_is_busy_for_long_is_left_alone(bench: Bench) -> None:
    """Another thread answers for it."""
    bench.write("m", HANGS)
    bench.load = LoadOptions(hang_timeout_s=1.2)

    async def test() -> None:
        (worker,) = bench.workers("m")
        pid = worker.pid
        assert await bench.ask("m", [3]) == [[pid]]
        assert worker.restarts == 0

    bench.run(test)
