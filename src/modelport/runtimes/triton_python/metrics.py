"""Metrics that a Triton Python model defines: shown with the server's own."""

import enum
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

from modelport.custom_metrics import Labels, Measure, labels_of
from modelport.custom_metrics import MetricKind as Kind
from modelport.errors import ModelportError
from modelport.runtimes.base import Host
from modelport.runtimes.triton_python.calling import host_of
from modelport.runtimes.triton_python.errors import TritonModelException
from modelport.runtimes.triton_python.text import text_of

__all__ = ["Metric", "MetricFamily", "MetricKind"]


class MetricKind(enum.IntEnum):
    """What the values of a metric are."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class MetricFamily:
    """All metrics of one name.

    Args:
        name: As Prometheus has them; not one that begins like the server's own.
        description: For people.
        kind: ``COUNTER``, ``GAUGE`` or ``HISTOGRAM``.

    Raises:
        TritonModelException: For a kind that there is not.
    """

    COUNTER: ClassVar[MetricKind] = MetricKind.COUNTER
    GAUGE: ClassVar[MetricKind] = MetricKind.GAUGE
    HISTOGRAM: ClassVar[MetricKind] = MetricKind.HISTOGRAM

    __slots__ = ("_description", "_host", "_kind", "_model", "_name")

    def __init__(
        self, name: str | bytes = "", description: str | bytes = "", kind: int = COUNTER
    ) -> None:
        if kind not in _KINDS:
            raise TritonModelException(
                f"metric {name!r} is of kind {kind!r}; use MetricFamily.COUNTER, GAUGE or HISTOGRAM"
            )
        self._name = text_of(name, "the name of a metric")
        self._description = text_of(description, "the description of a metric")
        self._kind: Kind = _KINDS[kind]
        self._host, self._model = host_of(sys._getframe(1))

    def Metric(  # noqa: N802
        self, labels: Mapping[str, str] | None = None, buckets: Sequence[float] | None = None
    ) -> "Metric":
        """Make one series of it, which is shown from now on.

        Args:
            labels: What tells it from the others.
            buckets: Upper bounds of a histogram, rising; the one without a bound is added.

        Raises:
            TritonModelException: If no page of metrics could show it.
        """
        if self._kind != "histogram" and buckets is not None:
            raise TritonModelException("Unexpected buckets found")
        if self._kind == "histogram" and buckets is None:
            raise TritonModelException("Missing required kwarg 'buckets' for histogram metric")
        return Metric(self, labels_of(labels), tuple(float(bound) for bound in buckets or ()))

    def measure(self, labels: Labels, buckets: tuple[float, ...], verb: str, value: float) -> None:
        """Tell the server."""
        try:
            self._host.measure(
                Measure(
                    model=self._model,
                    family=self._name,
                    kind=self._kind,
                    help=self._description,
                    labels=labels,
                    buckets=buckets,
                    verb=verb,  # type: ignore[arg-type] # our own callers below
                    value=float(value),
                )
            )
        except ModelportError as exc:
            raise TritonModelException(str(exc)) from exc

    def value(self, labels: Labels) -> float:
        """What the server has."""
        host: Host = self._host
        return host.measured(self._name, labels)


class Metric:
    """One series of a :class:`MetricFamily`; make it with ``family.Metric()``."""

    __slots__ = ("_buckets", "_family", "_labels")

    def __init__(self, family: MetricFamily, labels: Labels, buckets: tuple[float, ...]) -> None:
        self._family = family
        self._labels = labels
        self._buckets = buckets
        self._tell("make", 0.0)

    def increment(self, value: float) -> None:
        """Add to a counter, or to or from a gauge."""
        self._tell("add", value)

    def set(self, value: float) -> None:
        """Say where a gauge stands."""
        self._tell("set", value)

    def observe(self, value: float) -> None:
        """Count a value in its bucket of a histogram."""
        self._tell("observe", value)

    def value(self) -> float:
        """Where a counter or gauge stands; of a histogram, how many values it has seen.

        In a worker process, as far as this process has brought it.
        """
        return self._family.value(self._labels)

    def _tell(self, verb: str, value: float) -> None:
        self._family.measure(self._labels, self._buckets, verb, value)


_KINDS: dict[int, Kind] = {
    MetricKind.COUNTER: "counter",
    MetricKind.GAUGE: "gauge",
    MetricKind.HISTOGRAM: "histogram",
}
