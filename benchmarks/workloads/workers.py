"""P1 to P4: Python models in worker processes, against threads and against a bare server."""

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import inputs, servers
from benchmarks.exchange import Exchange
from benchmarks.load import check, press, press_with_images
from benchmarks.plan import Plan
from benchmarks.report import Row, at_least, at_most, compared, value
from benchmarks.servers import BenchmarkError, Server
from benchmarks.workloads import turns
from benchmarks.workloads.tiny import CONNECTIONS, fixed_reply

_HOLDERS = 16
_LARGE = 8
_RETURN_LIMIT_S = 10.0
_PROCESS = ("--execution", "process")


def beside_one_another(plan: Plan) -> Iterator[Row]:
    """P1: a model that holds Python's lock for 10 ms, in two processes and in one thread."""
    with servers.repository("holding", "holding_twice") as repository:

        def rate(model: str) -> Callable[[], float]:
            def measured() -> float:
                with servers.modelport(repository) as server:
                    found = inputs.slow(model)
                    pressed = press(server, found, connections=_HOLDERS, seconds=plan.seconds)
                    return pressed.requests_per_s

            return measured

        thread, processes = turns.in_turn(plan.rounds, rate("holding"), rate("holding_twice"))
    plan.tell_figures("P1, a thread", thread, "/s")
    plan.tell_figures("P1, two processes", processes, "/s")
    yield compared(
        "P1", "10 ms of Python, 2 processes / 1 thread", "/s", thread, processes, at_least(1.7)
    )


def large_tensors(plan: Plan) -> Iterator[Row]:
    """P2: 602 KB in and out, through a process and through a thread."""
    with servers.repository("identity") as repository:

        def rate(*options: str) -> Callable[[], float]:
            def measured() -> float:
                with servers.modelport(repository, *options) as server:
                    pressed = press_with_images(server, connections=_LARGE, seconds=plan.seconds)
                    return pressed.requests_per_s

            return measured

        thread, process = turns.in_turn(plan.rounds, rate("--execution", "thread"), rate(*_PROCESS))
    plan.tell_figures("P2, a thread", thread, "/s")
    plan.tell_figures("P2, a process", process, "/s")
    yield compared("P2", "602 KB identity, process / thread", "/s", thread, process, at_least(0.5))


def tiny_requests(plan: Plan) -> Iterator[Row]:
    """P3: W1 through one process, against the fixed reply."""
    exchanges = inputs.affine()
    anything = inputs.unchecked(exchanges)

    def baseline() -> float:
        with fixed_reply() as server:
            pressed = press(server, anything, connections=CONNECTIONS, seconds=plan.seconds)
            return pressed.requests_per_s

    with servers.repository("affine") as repository:

        def ours() -> float:
            with servers.modelport(repository, *_PROCESS) as server:
                pressed = press(server, exchanges, connections=CONNECTIONS, seconds=plan.seconds)
                return pressed.requests_per_s

        theirs, mine = turns.in_turn(plan.rounds, baseline, ours)
    plan.tell_figures("P3, uvicorn", theirs, "/s")
    plan.tell_figures("P3, a process", mine, "/s")
    yield compared("P3", "W1 through a process, 32 connections", "/s", theirs, mine, at_least(0.42))


def kill(plan: Plan) -> Iterator[Row]:
    """P4: kill -9 of a worker while it and another model are asked all the time."""
    with servers.repository("affine", "holding_twice") as repository:
        away, lost, unexplained, left = zip(
            *(_killed(repository, plan.seconds) for _ in range(plan.rounds)), strict=True
        )
    plan.tell_figures("P4, away", away, "s")
    yield value("P4", "worker killed: until it answers again", "s", max(away), at_most(2))
    yield value("P4", "requests of the other model that failed", "", sum(lost), at_most(0))
    yield value("P4", "errors that do not say why", "", sum(unexplained), at_most(0))
    yield value("P4", "pieces of shared memory left behind", "", sum(left), at_most(0))


def _killed(repository: Path, seconds: int) -> tuple[float, int, int, int]:
    before = set(os.listdir("/dev/shm"))
    with servers.modelport(repository) as server:
        mine, other = inputs.slow("holding_twice", 1)[0], inputs.affine(1)[0]
        check(server, [mine])
        check(server, [other])
        workers = _children(server.pid)
        if len(workers) != 2:
            raise BenchmarkError(f"expected two worker processes, found {len(workers)}")
        asking = [_Asking(server, exchange) for exchange in (mine, mine, mine, other)]
        time.sleep(seconds / 2)
        # Both, so that nobody is left to answer.
        for pid in workers:
            os.kill(pid, 9)
        away_s = _until_answered(server, mine)
        time.sleep(seconds / 2)
        for each in asking:
            each.stop()
        failures = [text for each in asking[:-1] for text in each.failures]
        unexplained = sum("was killed by signal 9" not in text for text in failures)
    left = set(os.listdir("/dev/shm")) - before
    return away_s, len(asking[-1].failures), unexplained, len(left)


def _until_answered(server: Server, exchange: Exchange) -> float:
    started_s = time.perf_counter()
    while time.perf_counter() - started_s < _RETURN_LIMIT_S:
        status, _ = _ask(server, exchange)
        if status == 200:
            return time.perf_counter() - started_s
        time.sleep(0.01)
    raise BenchmarkError(f"no answer {_RETURN_LIMIT_S:.0f} s after its worker was killed")


class _Asking:
    """Asks one thing over and over on a thread; remembers what came back instead of an answer."""

    def __init__(self, server: Server, exchange: Exchange) -> None:
        self.failures: list[str] = []
        self._server = server
        self._exchange = exchange
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            status, text = _ask(self._server, self._exchange)
            if status != 200:
                self.failures.append(text)


def _ask(server: Server, exchange: Exchange) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_RETURN_LIMIT_S)
    try:
        connection.request("POST", exchange.path, exchange.body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except OSError as exc:
        return 0, str(exc)
    finally:
        connection.close()


def _children(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(name))
    return found
