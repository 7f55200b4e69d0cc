"""Every family of metrics: its name, what it tells, and where its values come from.

What Triton has under a name has that name here, so that dashboards go on working; its durations
are microseconds and counters. Families of our own are in seconds and begin with ``modelport_``;
those of the process have the names that Prometheus' client libraries share.

Source: Triton's metrics, https://github.com/triton-inference-server/server, docs/user_guide.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from modelport.protocols.ops.machine import Reading
from modelport.stats import Duration, Histogram, InstanceStatistics, ModelStatistics
from modelport.wire.prometheus import Family, FamilyType

__all__ = [
    "BUSY_INSTANCES",
    "CACHE",
    "CACHE_COUNTS",
    "FAILURES",
    "FIRST_RESPONSE",
    "INFO",
    "INSTANCES",
    "INSTANCE_HISTOGRAMS",
    "LATENCIES",
    "LATENCY_HISTOGRAMS",
    "LOAD_DURATION",
    "MACHINE",
    "MODEL_COUNTS",
    "OPEN_CONNECTIONS",
    "ROWS",
    "WORKERS",
    "CacheReading",
    "HistogramRow",
    "InstanceRow",
    "LatencyRow",
    "WorkerPort",
]


class HistogramRow(Struct, frozen=True):
    """A histogram of a model.

    Attributes:
        family: Its name and help.
        read: Finds it.
        unit: How much of the histogram's unit is one of the family's.
    """

    family: Family
    read: Callable[[ModelStatistics], Histogram]
    unit: int


class InstanceRow(Struct, frozen=True):
    """A histogram of an instance.

    Attributes:
        family: Its name and help.
        read: Finds it.
        unit: How much of the histogram's unit is one of the family's.
    """

    family: Family
    read: Callable[[InstanceStatistics], Histogram]
    unit: int


class LatencyRow(Struct, frozen=True):
    """A duration that Triton tells as a counter and as a summary, both in microseconds.

    Attributes:
        counter: The sum of all.
        summary: The quantiles of late.
        read: Finds the sum.
        at: Where the duration stands in a row of the ``LatencyWindow``.
    """

    counter: Family
    summary: Family
    read: Callable[[ModelStatistics], Duration]
    at: int


class WorkerPort(Protocol):
    """An instance in a worker process."""

    @property
    def capacity(self) -> int:
        """Batches that it takes now; 0 while its process is down."""
        ...

    @property
    def restarts(self) -> int:
        """How often its process was started again."""
        ...

    def resident_bytes(self) -> int:
        """Memory of its process."""
        ...


def _counter(name: str, help_: str) -> Family:
    return Family(name, FamilyType.COUNTER, help_)


def _gauge(name: str, help_: str) -> Family:
    return Family(name, FamilyType.GAUGE, help_)


def _histogram(name: str, help_: str) -> Family:
    return Family(name, FamilyType.HISTOGRAM, help_)


def _latency(
    at: int, name: str, read: Callable[[ModelStatistics], Duration], what: str
) -> LatencyRow:
    summary = Family(f"nv_inference_{name}_summary_us", FamilyType.SUMMARY, f"{what}, of late")
    return LatencyRow(_counter(f"nv_inference_{name}_duration_us", what), summary, read, at)


MODEL_COUNTS: tuple[tuple[Family, Callable[[ModelStatistics], int]], ...] = (
    (
        _counter("nv_inference_request_success", "Requests that were answered"),
        lambda stats: stats.success.count,
    ),
    (
        _counter("nv_inference_count", "Batch rows of the requests that were answered"),
        lambda stats: stats.inference_count,
    ),
    (
        _counter("nv_inference_exec_count", "Executions, each of a whole batch"),
        lambda stats: stats.execution_count,
    ),
    (
        _gauge("nv_inference_pending_request_count", "Requests that wait in the queue now"),
        lambda stats: stats.pending,
    ),
)

FAILURES = _counter(
    "nv_inference_request_failure",
    "Requests that failed, by reason: the queue refused it (REJECTED), its caller went away"
    " (CANCELED), the model failed (BACKEND), anything else (OTHER)",
)

LOAD_DURATION = _gauge("nv_model_load_duration_secs", "Seconds that loading the version took")

CACHE_COUNTS: tuple[tuple[Family, Callable[[ModelStatistics], int]], ...] = (
    (
        _counter("nv_cache_num_hits_per_model", "Requests that were answered from the cache"),
        lambda stats: stats.cache_hit.count,
    ),
    (
        _counter(
            "nv_cache_num_misses_per_model", "Answers that were not in the cache and are put there"
        ),
        lambda stats: stats.cache_miss.count,
    ),
    (
        _counter(
            "nv_cache_hit_duration_per_model",
            "Microseconds that looking took where the answer was there",
        ),
        lambda stats: stats.cache_hit.ns // 1000,
    ),
    (
        _counter(
            "nv_cache_miss_duration_per_model",
            "Microseconds that looking and keeping took where it was not",
        ),
        lambda stats: stats.cache_miss.ns // 1000,
    ),
)


class CacheReading(Protocol):
    """What the cache of responses holds."""

    @property
    def entries(self) -> int:
        """Responses that are kept."""
        ...

    @property
    def used_bytes(self) -> int:
        """What they take."""
        ...

    @property
    def size_bytes(self) -> int:
        """What they may take."""
        ...

    @property
    def evictions(self) -> int:
        """Responses that have made room."""
        ...


CACHE: tuple[tuple[Family, Callable[[CacheReading], int]], ...] = (
    (_gauge("modelport_cache_entries", "Responses that are kept"), lambda cache: cache.entries),
    (_gauge("modelport_cache_used_bytes", "Memory that they take"), lambda cache: cache.used_bytes),
    (
        _gauge("modelport_cache_size_bytes", "Memory that they may take"),
        lambda cache: cache.size_bytes,
    ),
    (
        _counter("modelport_cache_evictions_total", "Responses that had to make room for others"),
        lambda cache: cache.evictions,
    ),
)

INSTANCES = _gauge("modelport_instances", "Instances of the version")

BUSY_INSTANCES = _gauge("modelport_busy_instances", "Instances that execute a batch now")

LATENCIES = (
    _latency(
        0,
        "request",
        lambda stats: stats.success,
        "Microseconds from the arrival to the answer of requests that were answered",
    ),
    _latency(1, "queue", lambda stats: stats.queue, "Microseconds that requests waited in queues"),
    _latency(
        2,
        "compute_input",
        lambda stats: stats.compute_input,
        "Microseconds that requests waited while the inputs of their batch were put together",
    ),
    _latency(
        3,
        "compute_infer",
        lambda stats: stats.compute_infer,
        "Microseconds that requests waited while the model computed",
    ),
    _latency(
        4,
        "compute_output",
        lambda stats: stats.compute_output,
        "Microseconds that requests waited while the outputs of their batch were taken apart",
    ),
)

_SECOND = 1_000_000_000
_MILLISECOND = 1_000_000

LATENCY_HISTOGRAMS = (
    HistogramRow(
        _histogram(
            "modelport_request_duration_seconds",
            "Seconds from the arrival to the answer of requests that were answered",
        ),
        lambda stats: stats.request_histogram,
        _SECOND,
    ),
    HistogramRow(
        _histogram("modelport_queue_duration_seconds", "Seconds that requests waited in queues"),
        lambda stats: stats.queue_histogram,
        _SECOND,
    ),
    HistogramRow(
        _histogram(
            "modelport_compute_infer_duration_seconds",
            "Seconds that requests waited while the model computed",
        ),
        lambda stats: stats.compute_infer_histogram,
        _SECOND,
    ),
)

INSTANCE_HISTOGRAMS = (
    InstanceRow(
        _histogram(
            "modelport_instance_queue_duration_seconds",
            "Seconds that requests waited which the instance answered",
        ),
        lambda stats: stats.queue_histogram.decades(),
        _SECOND,
    ),
    InstanceRow(
        _histogram(
            "modelport_instance_compute_infer_duration_seconds",
            "Seconds that requests waited while the instance computed",
        ),
        lambda stats: stats.compute_infer_histogram.decades(),
        _SECOND,
    ),
    InstanceRow(
        _histogram("modelport_instance_batch_rows", "Batch rows per execution of the instance"),
        lambda stats: stats.batch_rows,
        1,
    ),
)

FIRST_RESPONSE = HistogramRow(
    _histogram(
        "nv_inference_first_response_histogram_ms",
        "Milliseconds from the arrival of a request to its first response, of decoupled models",
    ),
    lambda stats: stats.first_response_histogram,
    _MILLISECOND,
)

ROWS = HistogramRow(
    _histogram("modelport_batch_rows", "Batch rows per execution"),
    lambda stats: stats.batch_rows,
    1,
)

WORKERS: tuple[tuple[Family, Callable[[WorkerPort], int]], ...] = (
    (
        _gauge("modelport_worker_up", "1 while the worker process of an instance runs, else 0"),
        lambda worker: int(worker.capacity > 0),
    ),
    (
        _counter(
            "modelport_worker_restarts_total",
            "How often the worker process of an instance ended by itself and was started again",
        ),
        lambda worker: worker.restarts,
    ),
    (
        _gauge(
            "modelport_worker_resident_memory_bytes",
            "Memory of the worker process of an instance that is in RAM",
        ),
        lambda worker: worker.resident_bytes(),
    ),
)

INFO = _gauge("modelport_info", "Always 1; the labels tell which Modelport this is")

OPEN_CONNECTIONS = _gauge("modelport_open_connections", "Connections of clients that are open now")

MACHINE: tuple[tuple[Family, Callable[[Reading], int | float | None]], ...] = (
    (
        _gauge("modelport_uptime_seconds", "Seconds since the server was put together"),
        lambda reading: reading.uptime_s,
    ),
    (
        _gauge("process_start_time_seconds", "When the process started, since the epoch"),
        lambda reading: reading.started_s,
    ),
    (
        _counter("process_cpu_seconds_total", "Processor time of the process, in seconds"),
        lambda reading: reading.cpu_s,
    ),
    (
        _gauge("process_resident_memory_bytes", "Memory of the process that is in RAM"),
        lambda reading: reading.resident_bytes,
    ),
    (
        _gauge("process_open_fds", "Files and sockets that the process has open"),
        lambda reading: reading.open_files,
    ),
    (
        _gauge("process_max_fds", "Files and sockets that the process may have open"),
        lambda reading: reading.max_files,
    ),
    (
        _gauge(
            "nv_cpu_utilization",
            "Share of all processors that was busy since the last look, from 0 to 1; of the"
            " machine, not of the process",
        ),
        lambda reading: reading.machine_cpu_utilization,
    ),
    (
        _gauge("nv_cpu_memory_total_bytes", "Memory of the machine"),
        lambda reading: reading.machine_memory_bytes,
    ),
    (
        _gauge("nv_cpu_memory_used_bytes", "Memory of the machine that is in use"),
        lambda reading: reading.machine_memory_used_bytes,
    ),
)
