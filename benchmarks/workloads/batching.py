"""W4: 64 connections to a model that takes 5 ms for a batch of at most 32."""

import statistics
from collections.abc import Iterator

from benchmarks import inputs, servers
from benchmarks.load import press
from benchmarks.plan import Plan
from benchmarks.report import Row, at_least, at_most, value

_CONNECTIONS = 64
_IDEAL_PER_S = 32 / 0.005


def throughput(plan: Plan) -> Iterator[Row]:
    """Tell how near the rate comes to one full batch each 5 ms."""
    exchanges = inputs.batched()
    loads = []
    with servers.repository("batched") as repository:
        for _ in range(plan.rounds):
            with servers.modelport(repository) as server:
                loads.append(
                    press(server, exchanges, connections=_CONNECTIONS, seconds=plan.seconds)
                )
    rates = [load.requests_per_s for load in loads]
    plan.tell_figures("W4", rates, "req/s")
    share = 100 * statistics.median(rates) / _IDEAL_PER_S
    p99_ms = statistics.median(load.p99_ms for load in loads)
    yield value("W4", "share of the ideal 6 400 req/s", "%", share, at_least(95))
    yield value("W4", "p99", "ms", p99_ms, at_most(12))
