"""What a model has done, counted once and shown as statistics, as metrics and to people.

Counters are written on the event loop only, so they need no locks. Durations are nanoseconds.

Source: Triton's statistics extension, ``ModelStatistics``; the reference says what counts where.
"""

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal

from modelport.latency_window import LatencyWindow

__all__ = [
    "DURATION_BOUNDS_NS",
    "BatchDurations",
    "Duration",
    "Histogram",
    "InstanceStatistics",
    "ModelStatistics",
    "ResponseDurations",
]

DURATION_BOUNDS_NS = tuple(
    round(ms * 1e6)
    for ms in (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
)
"""Upper bounds of the latency histograms: 50 µs to 10 s, about 2.3 × apart."""

FIRST_RESPONSE_BOUNDS_NS = tuple(ms * 1_000_000 for ms in (100, 500, 2000, 5000))
"""Triton's."""

_FIRST_NS = DURATION_BOUNDS_NS[0]

MOST_COUNTED_RESPONSES = 256
"""Places of a stream that have counters of their own; a stream may be endless."""

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Duration:
    """How often something happened and how long it took in all."""

    __slots__ = ("count", "ns")

    def __init__(self, count: int = 0, ns: int = 0) -> None:
        self.count = count
        self.ns = ns


class Histogram:
    """Counts per bucket; bounds are inclusive upper bounds, the last bucket has none."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...] = DURATION_BOUNDS_NS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def decades(self) -> "Histogram":
        """Give the same with every third bound only: of ``DURATION_BOUNDS_NS``, powers of ten."""
        kept = range(1, len(self.bounds), 3)
        coarse = Histogram(tuple(self.bounds[at] for at in kept))
        begin = 0
        for place, at in enumerate(kept):
            coarse.counts[place] = sum(self.counts[begin : at + 1])
            begin = at + 1
        coarse.counts[-1] = sum(self.counts[begin:])
        coarse.total = self.total
        return coarse


class BatchDurations:
    """How executions of one batch size went."""

    __slots__ = ("compute_infer_ns", "compute_input_ns", "compute_output_ns", "count")

    def __init__(self) -> None:
        self.count = 0
        self.compute_input_ns = 0
        self.compute_infer_ns = 0
        self.compute_output_ns = 0

    def add(self, other: "BatchDurations") -> None:
        """Count what another one has counted, too."""
        self.count += other.count
        self.compute_input_ns += other.compute_input_ns
        self.compute_infer_ns += other.compute_infer_ns
        self.compute_output_ns += other.compute_output_ns


class ResponseDurations:
    """How the responses at one place of a decoupled model's streams went."""

    __slots__ = ("cancel", "empty_response", "fail", "success")

    def __init__(self) -> None:
        self.success = Duration()
        self.fail = Duration()
        self.empty_response = Duration()
        self.cancel = Duration()

    @property
    def compute_infer(self) -> Duration:
        """How long models took for responses that were given."""
        return Duration(self.success.count, self.success.ns)

    @property
    def compute_output(self) -> Duration:
        """Taking them apart is part of the former."""
        return Duration(self.success.count, 0)


class InstanceStatistics:
    """What one instance of a version has done.

    Attributes:
        batch_stats: Its executions, by the rows of their batch.
        queue_histogram: How long the requests that it answered had waited.
        compute_infer_histogram: How long it computed for each of them.
    """

    __slots__ = ("batch_stats", "compute_infer_histogram", "queue_histogram")

    def __init__(self) -> None:
        self.batch_stats: dict[int, BatchDurations] = {}
        self.queue_histogram = Histogram()
        self.compute_infer_histogram = Histogram()

    @property
    def batch_rows(self) -> Histogram:
        """Executions by the rows of their batch."""
        return _rows_histogram(self.batch_stats)


class ModelStatistics:
    """The counters of one version of one model.

    What instances do is counted with them, and added up when somebody looks.

    Args:
        load_s: How long loading took.
        first_response_buckets_ms: Rising; Triton's if there are none.

    What is counted for every request is plain integers; the durations that clients know are made
    of them when somebody looks. A request that succeeded counts once in each of them, so they
    share one count.

    Attributes:
        inference_count: Batch rows of successful requests.
        execution_count: Executions; ``inference_count / execution_count`` is the mean batch.
        failures: Failed requests by Triton's reason.
        pending: Requests that wait in the queue now.
        first_response_histogram: Of decoupled models, from the arrival to the first response.
        window: The latest durations, once somebody wants quantiles of them.
        instances: What each instance has done; whoever runs them puts them here.
        rest: What cannot be said to have been done by one of them.
    """

    def __init__(
        self, *, load_s: float = 0.0, first_response_buckets_ms: Sequence[float] = ()
    ) -> None:
        self.success_count = 0
        self.success_ns = 0
        self.queue_ns = 0
        self.compute_input_ns = 0
        self.compute_infer_ns = 0
        self.compute_output_ns = 0
        self.fail = Duration()
        self.cache_hit = Duration()
        self.cache_miss = Duration()
        self.inference_count = 0
        self.execution_count = 0
        self.last_started_ns = 0
        self.instances: list[InstanceStatistics] = []
        self.rest = InstanceStatistics()
        self._responses: list[ResponseDurations] = []
        self.failures = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
        self.pending = 0
        self.request_histogram = Histogram()
        own_bounds = tuple(round(bound * 1e6) for bound in first_response_buckets_ms)
        self.first_response_histogram = Histogram(own_bounds or FIRST_RESPONSE_BOUNDS_NS)
        self.window: LatencyWindow | None = None
        self.load_s = load_s
        # The difference between the clocks, so that no request needs to read both.
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()

    @property
    def last_inference_ms(self) -> int:
        """When the last execution began, since the epoch; 0 for never."""
        return (self.last_started_ns + self._epoch_ns) // 1_000_000 if self.last_started_ns else 0

    @property
    def success(self) -> Duration:
        """Successful requests, from their last byte to their answer."""
        return Duration(self.success_count, self.success_ns)

    @property
    def queue(self) -> Duration:
        """How long successful requests waited for an instance."""
        return Duration(self.success_count, self.queue_ns)

    @property
    def compute_input(self) -> Duration:
        """How long batches of successful requests took to be put together."""
        return Duration(self._computed_count, self.compute_input_ns)

    @property
    def compute_infer(self) -> Duration:
        """How long models computed for successful requests."""
        return Duration(self._computed_count, self.compute_infer_ns)

    @property
    def compute_output(self) -> Duration:
        """How long batches of successful requests took to be taken apart."""
        return Duration(self._computed_count, self.compute_output_ns)

    @property
    def _computed_count(self) -> int:
        # What comes from the cache is a success that no model computed anything for.
        return self.success_count - self.cache_hit.count

    @property
    def batch_stats(self) -> dict[int, BatchDurations]:
        """Executions of all instances, by the rows of their batch."""
        total: dict[int, BatchDurations] = {}
        for each in (*self.instances, self.rest):
            for rows, batch in each.batch_stats.items():
                total.setdefault(rows, BatchDurations()).add(batch)
        return total

    @property
    def batch_rows(self) -> Histogram:
        """Executions by the rows of their batch."""
        return _rows_histogram(self.batch_stats)

    @property
    def queue_histogram(self) -> Histogram:
        """How long requests waited for an instance."""
        return _sum_of([each.queue_histogram for each in (*self.instances, self.rest)])

    @property
    def compute_infer_histogram(self) -> Histogram:
        """How long models computed for requests."""
        return _sum_of([each.compute_infer_histogram for each in (*self.instances, self.rest)])

    def record_execution(
        self,
        started_ns: int,
        rows: int,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
        instance: InstanceStatistics | None = None,
    ) -> None:
        """Count one execution of a batch, by an instance if one is known to have done it."""
        self.execution_count += 1
        self.last_started_ns = started_ns
        by_rows = (instance or self.rest).batch_stats
        batch = by_rows.get(rows)
        if batch is None:
            batch = by_rows[rows] = BatchDurations()
        batch.count += 1
        batch.compute_input_ns += input_ns
        batch.compute_infer_ns += infer_ns
        batch.compute_output_ns += output_ns

    @property
    def response_stats(self) -> Mapping[str, ResponseDurations]:
        """How the streams of a decoupled model went, by the place of a response in its stream."""
        return {str(index): counted for index, counted in enumerate(self._responses)}

    def record_response(self, index: int, duration_ns: int) -> None:
        """Count a response of a stream.

        Args:
            index: How many responses the stream had given before; only the first so many places
                are counted.
            duration_ns: Since the response before it, or since the model had the request.
        """
        if index < MOST_COUNTED_RESPONSES:
            success = self._responses_at(index).success
            success.count += 1
            success.ns += duration_ns

    def record_stream_end(
        self, index: int, how: Literal["fail", "empty_response", "cancel"], duration_ns: int
    ) -> None:
        """Count what came in the place of a response; ``empty_response`` is an end without one."""
        if index < MOST_COUNTED_RESPONSES:
            duration: Duration = getattr(self._responses_at(index), how)
            duration.count += 1
            duration.ns += duration_ns

    def _responses_at(self, index: int) -> ResponseDurations:
        responses = self._responses
        while len(responses) <= index:
            responses.append(ResponseDurations())
        return responses[index]

    def record_success(
        self,
        rows: int,
        total_ns: int,
        queue_ns: int,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
        instance: InstanceStatistics | None = None,
    ) -> None:
        """Count one request that was answered, by an instance if one is known to have done it.

        The compute times are those of the batch it was in: each of its requests waited that long.
        """
        self.inference_count += rows
        self.success_count += 1
        self.success_ns += total_ns
        self.queue_ns += queue_ns
        self.compute_input_ns += input_ns
        self.compute_infer_ns += infer_ns
        self.compute_output_ns += output_ns
        self.request_histogram.observe(total_ns)
        mine = instance or self.rest
        mine.queue_histogram.observe(queue_ns)
        mine.compute_infer_histogram.observe(infer_ns)
        if self.window is not None:
            self.window.observe(total_ns, queue_ns, input_ns, infer_ns, output_ns)

    def record_single(
        self,
        rows: int,
        received_ns: int,
        started_ns: int,
        ended_ns: int,
        instance: InstanceStatistics,
    ) -> None:
        """Count one execution of one request, both at once: the way of the smallest requests."""
        infer_ns = ended_ns - started_ns
        queue_ns = started_ns - received_ns
        self.execution_count += 1
        self.last_started_ns = started_ns
        batch = instance.batch_stats.get(rows)
        if batch is None:
            batch = instance.batch_stats[rows] = BatchDurations()
        batch.count += 1
        batch.compute_infer_ns += infer_ns
        self.inference_count += rows
        self.success_count += 1
        self.success_ns += ended_ns - received_ns
        self.queue_ns += queue_ns
        self.compute_infer_ns += infer_ns
        # Spelled out, not called: three calls cost more than all of the above.
        histogram = self.request_histogram
        histogram.counts[bisect_left(histogram.bounds, ended_ns - received_ns)] += 1
        histogram.total += ended_ns - received_ns
        histogram = instance.queue_histogram
        histogram.counts[bisect_left(histogram.bounds, queue_ns)] += 1
        histogram.total += queue_ns
        histogram = instance.compute_infer_histogram
        histogram.counts[bisect_left(histogram.bounds, infer_ns)] += 1
        histogram.total += infer_ns
        if self.window is not None:
            self.window.observe(ended_ns - received_ns, queue_ns, 0, infer_ns, 0)

    def record_cache_hit(self, total_ns: int, lookup_ns: int) -> None:
        """Count one request that was answered from the response cache.

        No rows and no execution: those count what models did.
        """
        self.success_count += 1
        self.success_ns += total_ns
        self.request_histogram.observe(total_ns)
        self.cache_hit.count += 1
        self.cache_hit.ns += lookup_ns

    def record_cache_miss(self, ns: int) -> None:
        """Count one answer that was not in the response cache; looking and keeping took ``ns``."""
        self.cache_miss.count += 1
        self.cache_miss.ns += ns

    def record_failure(self, total_ns: int, reason: str) -> None:
        """Count one request that failed after it had been admitted."""
        self.fail.count += 1
        self.fail.ns += total_ns
        self.failures[reason] += 1


def _rows_histogram(batch_stats: Mapping[int, BatchDurations]) -> Histogram:
    histogram = Histogram(BATCH_BOUNDS)
    for rows, batch in batch_stats.items():
        histogram.counts[bisect_left(BATCH_BOUNDS, rows)] += batch.count
        histogram.total += rows * batch.count
    return histogram


def _sum_of(histograms: Sequence[Histogram]) -> Histogram:
    total = Histogram(histograms[0].bounds)
    for histogram in histograms:
        total.counts = [a + b for a, b in zip(total.counts, histogram.counts, strict=True)]
        total.total += histogram.total
    return total
