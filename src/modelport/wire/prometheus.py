"""The text in which Prometheus reads metrics, written line by line.

The classic text format, not OpenMetrics: it has no ``# EOF``, and counters are called what they
are called, without ``_total`` at the end. All samples of a family must stand together.

A page for hundreds of models is some ten thousand lines, so labels are written once per model by
:func:`encode_labels` and pasted into each of its lines.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, "Text-based format".
"""

import enum
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from msgspec import Struct

__all__ = [
    "CONTENT_TYPE",
    "Family",
    "FamilyType",
    "Page",
    "Sample",
    "decode_samples",
    "encode_labels",
    "encode_number",
]

CONTENT_TYPE = "text/plain; charset=utf-8"

Number = int | float
Sample = tuple[str, Mapping[str, str], float]
"""The name of a family, the labels, and the value."""


class FamilyType(enum.StrEnum):
    """What the values of a family are."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


class Family(Struct, frozen=True):
    """Samples of one name.

    Attributes:
        name: ``[a-zA-Z_:][a-zA-Z0-9_:]*``; not checked here.
        type: What its values are.
        help: One sentence for people.
    """

    name: str
    type: FamilyType
    help: str


class Page:
    """A page under construction: begin a family, then write its samples.

    ``labels`` are always as :func:`encode_labels` gives them, and may be "".
    """

    __slots__ = ("_lines", "_name")

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._name = ""

    def begin(self, family: Family) -> None:
        """Say what the samples from here on are; a family is begun once per page."""
        self._name = family.name
        help_ = family.help.translate(_HELP_ESCAPES)
        self._lines.append(f"# HELP {family.name} {help_}\n# TYPE {family.name} {family.type}\n")

    def sample(self, labels: str, value: Number) -> None:
        """Write one value of a counter or gauge."""
        self._lines.append(f"{_series(self._name, labels)} {encode_number(value)}\n")

    def samples(self, rows: Iterable[tuple[str, int]]) -> None:
        """Write many whole values, each with its labels, which must not be ""."""
        name = self._name
        self._lines += [f"{name}{{{labels}}} {value}\n" for labels, value in rows]

    def histogram(
        self, labels: str, bounds: Sequence[str], counts: Sequence[int], total: Number
    ) -> None:
        """Write one histogram.

        Args:
            labels: May be "".
            bounds: Inclusive upper bounds as :func:`encode_number` writes them, without the last.
            counts: Observations per bucket, not summed up; one more than there are bounds.
            total: Of all observed values.
        """
        more = f"{labels}," if labels else ""
        prefix = f'{self._name}_bucket{{{more}le="'
        # A list, not a generator: the page stays what it was if something raises in here.
        sums = list(accumulate(counts))
        lines = [
            f'{prefix}{bound}"}} {count}\n' for bound, count in zip(bounds, sums[:-1], strict=True)
        ]
        lines.append(
            f'{prefix}+Inf"}} {sums[-1]}\n'
            f"{_series(f'{self._name}_sum', labels)} {encode_number(total)}\n"
            f"{_series(f'{self._name}_count', labels)} {sums[-1]}\n"
        )
        self._lines += lines

    def summary(
        self, labels: str, quantiles: Mapping[str, Number], count: int, total: Number
    ) -> None:
        """Write one summary.

        Args:
            labels: Not "".
            quantiles: Values by quantile, ``"0.99"``; NaN where nothing was observed lately.
            count: Of all observations ever.
            total: Of all values ever observed.
        """
        name = self._name
        self._lines += [
            f'{name}{{{labels},quantile="{quantile}"}} {encode_number(value)}\n'
            for quantile, value in quantiles.items()
        ]
        self._lines.append(
            f"{name}_sum{{{labels}}} {encode_number(total)}\n{name}_count{{{labels}}} {count}\n"
        )

    def encode(self) -> bytes:
        """Give the whole page."""
        # Names come from directories, which may hold what is no Unicode; a "?" then is better
        # than no page at all.
        return "".join(self._lines).encode("utf-8", "replace")


def encode_labels(labels: Mapping[str, str]) -> str:
    r"""Write labels, without the braces.

    >>> encode_labels({"model": "a", "version": "1"})
    'model="a",version="1"'
    >>> encode_labels({"path": 'C:\\ "x"'})
    'path="C:\\\\ \\"x\\""'
    """
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())


def encode_number(value: Number) -> str:
    """Write a number.

    >>> encode_number(3), encode_number(0.25), encode_number(float("inf"))
    ('3', '0.25', '+Inf')
    """
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def decode_samples(text: str, names: Container[str]) -> Iterator[Sample]:
    r"""Read the samples of some families; lines that are none are passed over.

    >>> list(decode_samples('# TYPE a gauge\na{model="x \\"y\\""} 2\nb 1\n', {"a"}))
    [('a', {'model': 'x "y"'}, 2.0)]
    """
    # Not splitlines: values may hold what else ends a line for Python.
    for line in text.split("\n"):
        found = _SAMPLE.match(line)
        if found is None or found[1] not in names:
            continue
        labels = {
            label[1]: _ESCAPED.sub(_unescaped, label[2])
            for label in _LABEL.finditer(found[2] or "")
        }
        try:
            value = float(found[3])
        except ValueError:
            continue
        yield found[1], labels, value


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


def _series(name: str, labels: str) -> str:
    return f"{name}{{{labels}}}" if labels else name


_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
