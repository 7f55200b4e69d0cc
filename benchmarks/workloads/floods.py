"""FLOOD: W1 beside streams opened and reset by the thousand and clients that take no answers."""

from collections.abc import Iterator

from benchmarks import inputs, servers
from benchmarks.clients.hostile import large_answer
from benchmarks.clients.launch import client
from benchmarks.load import press
from benchmarks.plan import Plan
from benchmarks.report import Row, at_most, compared, value
from benchmarks.workloads.hostile import PeakMemory
from benchmarks.workloads.tiny import CONNECTIONS

_STREAMS = 10_000
_SILENT = 100
_KINDS = (
    ("10 000 streams reset", _STREAMS, 0),
    ("100 that never read", 0, _SILENT),
)
_ANSWER_BYTES = 1 << 16


def beside_floods(plan: Plan) -> Iterator[Row]:
    """Compare W1's p99 undisturbed and beside them, and give the most memory they cost."""
    exchanges = inputs.affine()
    with servers.repository("affine", "expanding") as repository:
        for name, streams, silent in _KINDS:
            alone, beside, grown = [], [], []
            for _ in range(plan.rounds):
                peak = PeakMemory()
                with servers.modelport(repository) as server:
                    # Models become ready one after the other.
                    server.await_answer(exchanges[0])
                    server.await_answer(large_answer(_ANSWER_BYTES))
                    idle_bytes = server.resident_bytes()
                    load = press(server, exchanges, connections=CONNECTIONS, seconds=plan.seconds)
                    alone.append(load.p99_ms)
                    flooders = client(
                        "benchmarks.clients.floods", server.port, streams, silent, _ANSWER_BYTES
                    )
                    with peak.watch(server), flooders as hostile:
                        hostile.report()
                        load = press(
                            server, exchanges, connections=CONNECTIONS, seconds=plan.seconds
                        )
                        hostile.stop()
                    beside.append(load.p99_ms)
                    grown.append((peak.most_bytes - idle_bytes) / 1e6)
            plan.tell_figures(f"FLOOD, {name}, undisturbed", alone, "ms")
            plan.tell_figures(f"FLOOD, {name}, beside them", beside, "ms")
            plan.tell_figures(f"FLOOD, {name}, memory over idle", grown, "MB")
            yield compared("FLOOD", f"W1 p99, {name}", "ms", alone, beside, at_most(2))
            yield value("FLOOD", f"memory over idle, {name}", "MB", max(grown), at_most(64))
