"""Metrics that models define themselves, kept for whoever reads the server's metrics.

A model says what has happened (:class:`Measure`), in whatever process it runs; values are added up
here. So a counter of a model with many instances is one number, and goes on when a worker process
has to be started again.
"""

import re
import threading
from bisect import bisect_left
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

from msgspec import Struct, field

from modelport.errors import Conflict, InvalidRequest

__all__ = [
    "DEFAULT_BUCKETS",
    "CustomMetrics",
    "Labels",
    "Measure",
    "MetricFamily",
    "MetricKind",
    "Observations",
    "labels_of",
]

MetricKind = Literal["counter", "gauge", "histogram"]
Labels = tuple[tuple[str, str], ...]
"""Names and values, by name."""

DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MAX_SERIES = 10_000
"""Series of all families together: labels that grow with the traffic would fill the memory."""


class Measure(Struct, frozen=True, kw_only=True):
    """Something that a model has measured.

    Attributes:
        model: Whose it is.
        family: Name of the metric.
        kind: What its values are.
        help: One sentence for people.
        labels: Which series of the family.
        buckets: Upper bounds of a histogram, rising.
        verb: ``make`` shows the series with 0; ``add``, ``set`` and ``observe`` as they say.
        value: What to add, set or observe.
    """

    model: str
    family: str
    kind: MetricKind
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()
    verb: Literal["make", "add", "set", "observe"] = "make"
    value: float = 0.0


class Observations(Struct):
    """Values of a histogram: how many are in each bucket, the last of which has no bound."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0


class MetricFamily(Struct):
    """All series of one name."""

    name: str
    kind: MetricKind
    help: str
    models: set[str] = field(default_factory=set)
    values: dict[Labels, float] = field(default_factory=dict)
    observations: dict[Labels, Observations] = field(default_factory=dict)


class CustomMetrics:
    """The metrics of all models. Safe to use from any thread.

    >>> metrics = CustomMetrics()
    >>> seen = Measure(model="m", family="seen", kind="counter", help="Seen", verb="add", value=2)
    >>> metrics.apply(seen)
    >>> metrics.apply(seen)
    >>> metrics.value("seen", ())
    4.0
    """

    def __init__(self) -> None:
        self._families: dict[str, MetricFamily] = {}
        self._series = 0
        self._lock = threading.Lock()

    def apply(self, measure: Measure) -> None:
        """Count what a model has measured.

        Raises:
            InvalidRequest: A name or a value that cannot be.
            Conflict: The name means something else already.
        """
        check(measure)
        with self._lock:
            family = self._families.get(measure.family)
            if family is None:
                family = MetricFamily(measure.family, measure.kind, measure.help)
                self._families[measure.family] = family
            elif family.kind != measure.kind:
                raise Conflict(
                    f"metric '{measure.family}' is a {family.kind} already, and model "
                    f"'{measure.model}' makes it a {measure.kind}; choose another name"
                )
            family.models.add(measure.model)
            if measure.kind == "histogram":
                self._observe(family, measure)
            else:
                before = family.values.get(measure.labels)
                if before is None:
                    self._count_series(measure)
                    before = 0.0
                is_set = measure.verb == "set"
                family.values[measure.labels] = measure.value if is_set else before + measure.value

    def _observe(self, family: MetricFamily, measure: Measure) -> None:
        found = family.observations.get(measure.labels)
        if found is None:
            self._count_series(measure)
            bounds = measure.buckets or DEFAULT_BUCKETS
            found = Observations(bounds, [0] * (len(bounds) + 1))
            family.observations[measure.labels] = found
        if measure.verb == "observe":
            found.counts[bisect_left(found.bounds, measure.value)] += 1
            found.total += measure.value

    def _count_series(self, measure: Measure) -> None:
        if self._series >= MAX_SERIES:
            raise InvalidRequest(
                f"metric '{measure.family}' of model '{measure.model}' would be series number "
                f"{MAX_SERIES + 1} of all models' metrics; use labels with few values"
            )
        self._series += 1

    def value(self, family: str, labels: Labels) -> float:
        """What a counter or gauge stands at, and how many values a histogram has seen."""
        with self._lock:
            found = self._families.get(family)
            if found is None:
                return 0.0
            if found.kind == "histogram":
                seen = found.observations.get(labels)
                return float(sum(seen.counts)) if seen is not None else 0.0
            return found.values.get(labels, 0.0)

    def forget(self, model: str) -> None:
        """Drop the families that only this model has: it is not served any more."""
        with self._lock:
            for name, family in list(self._families.items()):
                family.models.discard(model)
                if not family.models:
                    self._series -= len(family.values) + len(family.observations)
                    del self._families[name]

    def families(self) -> list[MetricFamily]:
        """What there is now, by name, as copies that stand still."""
        with self._lock:
            return [
                MetricFamily(
                    family.name,
                    family.kind,
                    family.help,
                    set(family.models),
                    dict(family.values),
                    {
                        labels: Observations(seen.bounds, list(seen.counts), seen.total)
                        for labels, seen in family.observations.items()
                    },
                )
                for _, family in sorted(self._families.items())
            ]


def labels_of(labels: Mapping[str, str] | None) -> Labels:
    """Labels in the form that tells series apart."""
    return tuple(sorted((str(name), str(value)) for name, value in (labels or {}).items()))


def check(measure: Measure) -> None:
    """Refuse what no page of metrics could show.

    Raises:
        InvalidRequest: Naming what is wrong.
    """
    name = measure.family
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"'{name}' cannot name a metric: letters, digits, _ and :, and no digit first"
        )
    if name.startswith(_OURS):
        raise InvalidRequest(
            f"metric '{name}' would be among the server's own, whose names begin with "
            f"{', '.join(_OURS)}; choose another name"
        )
    for label, _ in measure.labels:
        if not _LABEL.fullmatch(label) or label.startswith("__") or label == "le":
            raise InvalidRequest(f"'{label}' cannot name a label of metric '{name}'")
    if measure.verb not in _VERBS[measure.kind]:
        offered = " and ".join(_WORDS[verb] for verb in _VERBS[measure.kind] if verb != "make")
        raise InvalidRequest(
            f"metric '{name}' is a {measure.kind}, which has {offered}, not {_WORDS[measure.verb]}"
        )
    if measure.kind == "counter" and measure.value < 0:
        raise InvalidRequest(f"counter '{name}' cannot go down by {-measure.value:g}")
    if measure.value != measure.value:
        raise InvalidRequest(f"metric '{name}' was given NaN")
    if any(not low < high for low, high in pairwise(measure.buckets)):
        raise InvalidRequest(f"buckets of metric '{name}' have to rise")


_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OURS = ("nv_", "modelport_", "process_")
_VERBS = {
    "counter": ("make", "add"),
    "gauge": ("make", "add", "set"),
    "histogram": ("make", "observe"),
}
_WORDS = {"make": "make", "add": "increment", "set": "set", "observe": "observe"}
