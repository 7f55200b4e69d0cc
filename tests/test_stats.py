from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.latency_window import LatencyWindow
from modelport.stats import (
    BATCH_BOUNDS,
    DURATION_BOUNDS_NS,
    Duration,
    Histogram,
    InstanceStatistics,
    ModelStatistics,
)

MS = 1_000_000


def shown(duration: Duration) -> tuple[int, int]:
    return duration.count, duration.ns


def all_of(statistics: ModelStatistics) -> dict[str, object]:
    """Every number that is kept, but for the difference between the clocks."""
    numbers: dict[str, object] = {}
    for name, value in vars(statistics).items():
        if isinstance(value, Histogram):
            numbers[name] = (value.counts, value.total)
        elif isinstance(value, Duration):
            numbers[name] = shown(value)
        elif isinstance(value, InstanceStatistics):
            numbers[name] = all_of_instance(value)
        elif name == "instances":
            numbers[name] = [all_of_instance(each) for each in value]
        elif name not in ("_epoch_ns", "window"):
            numbers[name] = value
    return numbers


def all_of_instance(statistics: InstanceStatistics) -> list[object]:
    batches = {
        rows: (each.count, each.compute_input_ns, each.compute_infer_ns, each.compute_output_ns)
        for rows, each in statistics.batch_stats.items()
    }
    histograms = (statistics.queue_histogram, statistics.compute_infer_histogram)
    return [batches, *((each.counts, each.total) for each in histograms)]


def test_bounds_rise_and_are_inclusive() -> None:
    histogram = Histogram((10, 20))
    for value in (0, 10, 11, 20, 21, 10**12):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.total == 62 + 10**12
    assert list(DURATION_BOUNDS_NS) == sorted(set(DURATION_BOUNDS_NS))
    assert DURATION_BOUNDS_NS[0] == 50_000
    assert DURATION_BOUNDS_NS[-1] == 10_000 * MS


def test_nothing_is_counted_before_anything_has_happened() -> None:
    statistics = ModelStatistics(load_s=1.5)
    assert statistics.last_inference_ms == 0
    for duration in (statistics.success, statistics.fail, statistics.queue):
        assert shown(duration) == (0, 0)
    assert statistics.failures == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 0}
    assert statistics.load_s == 1.5


def test_batch_of_two_requests_counts_rows_and_runs_and_requests() -> None:
    statistics = ModelStatistics()
    statistics.record_execution(1000 * MS, 5, 1 * MS, 2 * MS, 3 * MS)
    statistics.record_success(2, 10 * MS, 4 * MS, 1 * MS, 2 * MS, 3 * MS)
    statistics.record_success(3, 8 * MS, 2 * MS, 1 * MS, 2 * MS, 3 * MS)
    assert (statistics.inference_count, statistics.execution_count) == (5, 1)
    assert shown(statistics.success) == (2, 18 * MS)
    assert shown(statistics.queue) == (2, 6 * MS)
    assert shown(statistics.compute_input) == (2, 2 * MS)
    assert shown(statistics.compute_infer) == (2, 4 * MS)
    assert shown(statistics.compute_output) == (2, 6 * MS)
    (batch,) = statistics.batch_stats.values()
    assert (batch.count, batch.compute_infer_ns) == (1, 2 * MS)
    assert statistics.request_histogram.total == 18 * MS
    assert sum(statistics.request_histogram.counts) == 2


def test_failures_count_by_reason_and_in_no_other_place() -> None:
    statistics = ModelStatistics()
    statistics.record_failure(3 * MS, "REJECTED")
    statistics.record_failure(4 * MS, "BACKEND")
    assert shown(statistics.fail) == (2, 7 * MS)
    assert statistics.failures == {"REJECTED": 1, "CANCELED": 0, "BACKEND": 1, "OTHER": 0}
    assert (statistics.success_count, statistics.inference_count) == (0, 0)
    with pytest.raises(KeyError):
        statistics.record_failure(0, "BORED")


def test_last_inference_is_told_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def standing(now_ns: int) -> Callable[[], int]:
        return lambda: now_ns

    monkeypatch.setattr("modelport.stats.time.time_ns", standing(1_700_000_000_000 * MS))
    monkeypatch.setattr("modelport.stats.time.perf_counter_ns", standing(50 * MS))
    statistics = ModelStatistics()
    statistics.record_execution(57 * MS, 1, 0, 1, 0)
    assert statistics.last_inference_ms == 1_700_000_000_007


def test_batches_are_shown_as_a_histogram_of_rows() -> None:
    statistics = ModelStatistics()
    for rows in (0, 1, 3, 4, 4, 2000):
        statistics.record_execution(1, rows, 0, 1, 0)
    histogram = statistics.batch_rows
    assert histogram.bounds == BATCH_BOUNDS
    assert histogram.counts == [2, 0, 3, *[0] * 8, 1]
    assert histogram.total == 2012


NS = st.one_of(st.integers(0, 3 * 10**5), st.integers(0, 2 * 10**10))


@given(st.lists(st.tuples(st.integers(0, 4), NS, NS), min_size=1, max_size=20), st.booleans())
def test_short_way_counts_as_the_long_one(
    requests: list[tuple[int, int, int]], has_window: bool
) -> None:
    short, long = ModelStatistics(), ModelStatistics()
    for each in (short, long):
        each.instances = [InstanceStatistics()]
    if has_window:
        short.window, long.window = (LatencyWindow(lambda: 0) for _ in range(2))
    now_ns = 10**9
    for rows, queue_ns, infer_ns in requests:
        started_ns = now_ns + queue_ns
        ended_ns = started_ns + infer_ns
        short.record_single(rows, now_ns, started_ns, ended_ns, short.instances[0])
        long.record_execution(started_ns, rows, 0, infer_ns, 0, long.instances[0])
        long.record_success(rows, ended_ns - now_ns, queue_ns, 0, infer_ns, 0, long.instances[0])
        now_ns = ended_ns
    assert all_of(short) == all_of(long)
    if short.window is not None and long.window is not None:
        assert short.window.quantiles([0.5]) == long.window.quantiles([0.5])


def test_version_has_done_what_its_instances_have_done_and_what_nobody_is_known_to() -> None:
    statistics = ModelStatistics()
    one, other = statistics.instances = [InstanceStatistics(), InstanceStatistics()]
    statistics.record_execution(1, 4, 1, 2, 3, one)
    statistics.record_execution(2, 4, 1, 2, 3, other)
    statistics.record_success(4, 9 * MS, 3 * MS, 0, 5 * MS, 0, one)
    statistics.record_success(4, 9 * MS, 2 * MS, 0, 6 * MS, 0)
    statistics.record_single(1, 0, 1 * MS, 2 * MS, other)
    assert {rows: batch.count for rows, batch in statistics.batch_stats.items()} == {4: 2, 1: 1}
    assert statistics.batch_stats[4].compute_output_ns == 6
    assert statistics.batch_rows.total == 9
    assert (one.batch_rows.total, other.batch_rows.total) == (4, 5)
    assert statistics.queue_histogram.total == 6 * MS
    assert one.queue_histogram.total == 3 * MS
    assert statistics.compute_infer_histogram.total == 12 * MS
    assert other.compute_infer_histogram.total == 1 * MS


@given(st.lists(st.integers(0, 2 * 10**10), max_size=50))
def test_histogram_of_decades_counts_the_same_values(values: list[int]) -> None:
    fine = Histogram()
    coarse = Histogram(tuple(10**power for power in range(5, 11)))
    for value in values:
        fine.observe(value)
        coarse.observe(value)
    thinned = fine.decades()
    assert thinned.bounds == coarse.bounds
    assert (thinned.counts, thinned.total) == (coarse.counts, coarse.total)
