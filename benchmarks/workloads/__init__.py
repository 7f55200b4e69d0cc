"""The workloads by name, in the order in which they run."""

from collections.abc import Callable, Iterator

from benchmarks.plan import Plan
from benchmarks.report import Row
from benchmarks.workloads import (
    batching,
    calls,
    clients,
    drain,
    floods,
    hostile,
    isolation,
    large,
    reload,
    services,
    start,
    streams,
    tiny,
    workers,
)

Workload = Callable[[Plan], Iterator[Row]]

WORKLOAD_BY_NAME: dict[str, Workload] = {
    "W1": tiny.throughput,
    "W1-lat": tiny.latency,
    "W2": large.throughput,
    "W3": calls.tiny,
    "W2G": calls.large,
    "W4": batching.throughput,
    "W5": streams.rate,
    "W5G": calls.streams,
    "W6": isolation.beside_slow_models,
    "START": start.time_and_memory,
    "RELOAD": reload.under_load,
    "SIGTERM": drain.under_load,
    "SLOW": hostile.beside_hostile_clients,
    "B1": services.throughput,
    "B2": services.batches,
    "B3": services.streams,
    "B4": services.unread,
    "C1": clients.small_calls,
    "C2": clients.import_time,
    "P1": workers.beside_one_another,
    "P2": workers.large_tensors,
    "P3": workers.tiny_requests,
    "P4": workers.kill,
    "FLOOD": floods.beside_floods,
}
