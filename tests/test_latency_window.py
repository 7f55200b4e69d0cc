import math

from modelport.latency_window import MOST_AGE_NS, MOST_REQUESTS, LatencyWindow
from modelport.testing.clock import ManualClock


def test_quantiles_are_those_of_what_was_observed() -> None:
    window = LatencyWindow()
    for value in range(100, 0, -1):
        window.observe(value, 10 * value, 0, 7, 2 * value)
    assert window.quantiles([0.5, 0.99, 0.999]) == [
        [50, 99, 100],
        [500, 990, 1000],
        [0, 0, 0],
        [7, 7, 7],
        [100, 198, 200],
    ]


def test_one_request_is_every_quantile() -> None:
    window = LatencyWindow()
    window.observe(1, 2, 3, 4, 5)
    assert window.quantiles([0.001, 0.999]) == [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]


def test_nothing_observed_is_no_number() -> None:
    table = LatencyWindow().quantiles([0.5, 0.9])
    assert [len(row) for row in table] == [2] * 5
    assert all(math.isnan(value) for row in table for value in row)


def test_requests_are_forgotten_after_a_minute() -> None:
    clock = ManualClock()
    window = LatencyWindow(clock.now_ns)
    window.observe(1, 1, 1, 1, 1)
    clock.advance(MOST_AGE_NS / 1e9 / 2)
    window.observe(3, 3, 3, 3, 3)
    assert window.quantiles([0.1])[0] == [1]
    clock.advance(MOST_AGE_NS / 1e9 / 2 + 1)
    assert window.quantiles([0.1])[0] == [3]


def test_the_oldest_makes_room() -> None:
    window = LatencyWindow()
    for value in range(MOST_REQUESTS + 10):
        window.observe(value, 0, 0, 0, 0)
    assert window.quantiles([1e-9, 1 - 1e-9])[0] == [10, MOST_REQUESTS + 9]
