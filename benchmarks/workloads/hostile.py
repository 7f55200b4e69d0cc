"""SLOW: W1 beside 500 connections with slow headers and 500 that never read their answers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import inputs, servers
from benchmarks.clients.hostile import large_answer
from benchmarks.clients.launch import client
from benchmarks.load import press
from benchmarks.plan import Plan
from benchmarks.report import Row, at_most, compared, value
from benchmarks.servers import Server
from benchmarks.workloads.tiny import CONNECTIONS

_SLOW = 500
_SILENT = 500
_SAMPLE_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class Appetite:
    """What each connection that never reads asks for, again each second."""

    name: str
    answer_bytes: int
    pipelined: int


# Many answers ask for back-pressure on each connection, large ones for a bound over all.
_APPETITES = (Appetite("64 × 64 KiB unread", 1 << 16, 64), Appetite("1 MiB unread", 1 << 20, 1))


@dataclass(frozen=True, slots=True)
class Siege:
    """What one round measured."""

    alone_p99_ms: float
    beside_p99_ms: float
    grown_mb: float
    reopened: int


class PeakMemory:
    """The most memory that a server held while it was watched."""

    def __init__(self) -> None:
        self.most_bytes = 0

    @contextmanager
    def watch(self, server: Server) -> Iterator[None]:
        """Look 20 times a second."""
        is_over = threading.Event()

        def look() -> None:
            while not is_over.wait(_SAMPLE_INTERVAL_S):
                self.most_bytes = max(self.most_bytes, server.resident_bytes())

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()


def beside_hostile_clients(plan: Plan) -> Iterator[Row]:
    """Compare W1's p99 undisturbed and beside them, and give the most memory they cost."""
    with servers.repository("affine", "expanding") as repository:
        for appetite in _APPETITES:
            sieges = [_besiege(plan, repository, appetite) for _ in range(plan.rounds)]
            alone = [siege.alone_p99_ms for siege in sieges]
            beside = [siege.beside_p99_ms for siege in sieges]
            grown = [siege.grown_mb for siege in sieges]
            plan.tell_figures(f"SLOW, {appetite.name}, undisturbed", alone, "ms")
            plan.tell_figures(f"SLOW, {appetite.name}, beside them", beside, "ms")
            plan.tell_figures(f"SLOW, {appetite.name}, memory over idle", grown, "MB")
            plan.tell(f"SLOW: {sum(siege.reopened for siege in sieges)} connections were closed")
            yield compared("SLOW", f"W1 p99, {appetite.name}", "ms", alone, beside, at_most(2))
            yield value("SLOW", f"memory over idle, {appetite.name}", "MB", max(grown), at_most(64))


def _besiege(plan: Plan, repository: Path, appetite: Appetite) -> Siege:
    exchanges = inputs.affine()
    peak = PeakMemory()
    with servers.modelport(repository) as server:
        # Models become ready one after the other.
        server.await_answer(exchanges[0])
        server.await_answer(large_answer(appetite.answer_bytes))
        idle_bytes = server.resident_bytes()
        alone = press(server, exchanges, connections=CONNECTIONS, seconds=plan.seconds)
        besiegers = client(
            "benchmarks.clients.hostile",
            server.port,
            _SLOW,
            _SILENT,
            appetite.answer_bytes,
            appetite.pipelined,
        )
        with peak.watch(server), besiegers as hostile:
            hostile.report()
            beside = press(server, exchanges, connections=CONNECTIONS, seconds=plan.seconds)
            reopened = hostile.stop()["reopened"]
    grown_mb = (peak.most_bytes - idle_bytes) / 1e6
    return Siege(alone.p99_ms, beside.p99_ms, grown_mb, reopened)
