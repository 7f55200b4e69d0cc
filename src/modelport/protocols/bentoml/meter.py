"""What an endpoint has done, in the metrics that BentoML's dashboards show.

Labels come from what was declared: the template of a route and never the path of a request.
"""

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from modelport.custom_metrics import Labels, MetricFamily, Observations
from modelport.stores.base import TaskState

__all__ = ["BUCKETS_S", "Meter", "families_of", "family_of_labels", "family_of_tasks"]

BUCKETS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0),
)
"""BentoML's, so that its dashboards and alerts go on working."""
NAMESPACE = "bentoml_service"


class Meter:
    """Counts the calls of one endpoint. Used on the event loop only.

    Args:
        route: The template of its path.
        service: Name of its service.
        model: That answers for it, which counts the batches.
        max_rows: Most rows of a batch; 0 if requests are not put together.

    Attributes:
        in_progress: Calls that are under way.
        totals: Answers by their status; 200 and 500 are there from the start.
        last_s: When the last answer was given, in seconds of the epoch; 0 for never.
    """

    def __init__(self, route: str, service: str, model: str = "", max_rows: int = 0) -> None:
        self.model = model
        self.max_rows = max_rows
        self.route = route
        self.service = service
        self.in_progress = 0
        self.totals: Counter[int] = Counter({200: 0, 500: 0})
        self.durations: dict[int, list[int]] = {}
        self.sums_s: dict[int, float] = {}
        self.last_s = 0.0

    def answered(self, status: int, received_ns: int) -> None:
        """Note an answer to a request that had come at ``received_ns``."""
        seconds = (time.perf_counter_ns() - received_ns) / 1e9
        self.totals[status] += 1
        counts = self.durations.get(status)
        if counts is None:
            counts = self.durations[status] = [0] * (len(BUCKETS_S) + 1)
        counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sums_s[status] = self.sums_s.get(status, 0.0) + seconds
        self.last_s = time.time()

    def labels(self, status: int | None = None) -> Labels:
        """Give the labels of this endpoint, in the names that BentoML has for them."""
        rows = [
            ("endpoint", self.route),
            ("runner_name", self.service),
            ("service_name", self.service),
            ("service_version", "not available"),
        ]
        if status is not None:
            rows.append(("http_response_code", str(status)))
        return tuple(sorted(rows))


def families_of(
    meters: Sequence[Meter], batches_of: Callable[[str], Mapping[int, int]]
) -> list[MetricFamily]:
    """Give the families of all endpoints; none without any.

    Args:
        meters: Of the endpoints.
        batches_of: Says how many batches of how many rows a model has had.
    """
    if not meters:
        return []
    total = MetricFamily(f"{NAMESPACE}_request_total", "counter", "Answered requests")
    busy = MetricFamily(f"{NAMESPACE}_request_in_progress", "gauge", "Requests under way")
    spent = MetricFamily(
        f"{NAMESPACE}_request_duration_seconds", "histogram", "Time from request to answer"
    )
    last = MetricFamily(
        f"{NAMESPACE}_last_request_timestamp_seconds", "gauge", "When the last answer was given"
    )
    for meter in meters:
        busy.values[meter.labels()] = meter.in_progress
        if meter.last_s:
            last.values[meter.labels()] = meter.last_s
        for status, count in meter.totals.items():
            total.values[meter.labels(status)] = count
        for status, counts in meter.durations.items():
            seen = Observations(BUCKETS_S, list(counts), meter.sums_s[status])
            spent.observations[meter.labels(status)] = seen
    families = [total, busy, spent, last]
    batching = [meter for meter in meters if meter.max_rows]
    if batching:
        rows = MetricFamily(f"{NAMESPACE}_adaptive_batch_size", "histogram", "Rows of batches")
        for meter in batching:
            rows.observations[_batch_labels(meter)] = _sizes(meter, batches_of(meter.model))
        families.append(rows)
    return families


def _batch_labels(meter: Meter) -> Labels:
    return (
        ("method_name", meter.model),
        ("runner_name", meter.service),
        ("service_name", meter.service),
        ("service_version", "not available"),
        ("worker_index", "1"),
    )


def _sizes(meter: Meter, batches: Mapping[int, int]) -> Observations:
    """Sort batches by their rows into buckets of 1, 2, 4 ... and the most."""
    doubling = (float(1 << power) for power in range(meter.max_rows.bit_length()))
    bounds = tuple(sorted({*doubling, float(meter.max_rows)}))
    counts = [0] * (len(bounds) + 1)
    for rows, count in batches.items():
        counts[bisect_left(bounds, rows)] += count
    return Observations(bounds, counts, float(sum(rows * n for rows, n in batches.items())))


def family_of_labels(labels_by_service: Mapping[str, Mapping[str, str]]) -> MetricFamily:
    """Give the labels that services declare, in the way in which Kubernetes shows its own.

    >>> family_of_labels({"S": {"team": "a", "cost-centre": "7"}}).values
    {(('service_name', 'S'), ('label_team', 'a'), ('label_cost_centre', '7')): 1}
    """
    family = MetricFamily(
        "modelport_service_labels", "gauge", "Always 1; the labels are those that services declare"
    )
    for service, labels in labels_by_service.items():
        # Two that are the same by now are one.
        shown = {f"label_{_NO_LABEL.sub('_', key)}": value for key, value in labels.items()}
        family.values[(("service_name", service), *shown.items())] = 1
    return family


def family_of_tasks(counts: Mapping[tuple[str, TaskState], int]) -> MetricFamily:
    """Give the family of tasks, by task and state; all states of a task that has any."""
    family = MetricFamily(
        "modelport_tasks", "gauge", "Tasks that are kept, those that are over included"
    )
    for task in sorted({task for task, _ in counts}):
        for state in TaskState:
            labels = (("state", str(state)), ("task", task))
            family.values[labels] = counts.get((task, state), 0)
    return family


_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")
