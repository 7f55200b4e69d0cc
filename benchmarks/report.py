"""Rows of figures, the bars they must hold, and how both are printed."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum


class Verdict(Enum):
    """What became of a row's bar."""

    OK = "ok"
    SHORT = "SHORT"
    FAILED = "FAILED"
    NO_BAR = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit that a measured value must keep to."""

    limit: float
    is_upper: bool

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.is_upper else value >= self.limit

    def text(self, unit: str) -> str:
        return f"{'≤' if self.is_upper else '≥'} {_number(self.limit)}{_suffix(unit)}"


def at_least(limit: float) -> Bar:
    return Bar(limit, is_upper=False)


def at_most(limit: float) -> Bar:
    return Bar(limit, is_upper=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one workload.

    ``baseline`` and ``ours`` are medians in ``unit``; ``measured`` is what the bar speaks
    about, in ``measured_unit``. Each is None where there is nothing to tell.
    """

    workload: str
    subject: str
    measured: float | None
    measured_unit: str
    bar: Bar | None = None
    baseline: float | None = None
    ours: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.measured is None:
            return Verdict.FAILED if self.note else Verdict.NO_BAR
        if self.bar is None:
            return Verdict.NO_BAR
        return Verdict.OK if self.bar.holds(self.measured) else Verdict.SHORT


def compared(
    workload: str,
    subject: str,
    unit: str,
    baseline: Sequence[float],
    ours: Sequence[float],
    bar: Bar | None = None,
) -> Row:
    """Compare round by round: the ratio is the median of each round's own ratio.

    Neighbouring runs share the machine's mood; the medians of two long series do not.
    """
    ratios = [mine / theirs for theirs, mine in zip(baseline, ours, strict=True)]
    return Row(
        workload,
        subject,
        statistics.median(ratios),
        "×",
        bar,
        statistics.median(baseline),
        statistics.median(ours),
        unit,
    )


def value(
    workload: str, subject: str, unit: str, measured: float, bar: Bar | None = None, note: str = ""
) -> Row:
    """Give a figure of our server alone."""
    return Row(workload, subject, measured, unit, bar, note=note)


def failed(workload: str, reason: str) -> Row:
    """Give the row of a workload that could not be measured."""
    return Row(workload, "not measured", None, "", note=reason)


def is_short(rows: Sequence[Row]) -> bool:
    """Tell whether any bar was missed or any workload failed."""
    return any(row.verdict in (Verdict.SHORT, Verdict.FAILED) for row in rows)


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out in columns of plain text, notes below."""
    head = ("", "", "baseline", "modelport", "measured", "bar", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    notes = [f"{row.workload}, {row.subject}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def as_json(rows: Sequence[Row], machine: Mapping[str, str], options: Mapping[str, object]) -> str:
    """Write everything down for a later comparison."""
    written = [{**asdict(row), "verdict": row.verdict.value} for row in rows]
    return json.dumps({"machine": machine, "options": options, "rows": written}, indent=2)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.workload,
        row.subject,
        _quantity(row.baseline, row.unit),
        _quantity(row.ours, row.unit),
        _quantity(row.measured, row.measured_unit),
        "" if row.bar is None else row.bar.text(row.measured_unit),
        row.verdict.value,
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    # Names to the left, figures to the right.
    aligned = [
        cell.ljust(width) if column in (0, 1, 6) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def _quantity(amount: float | None, unit: str) -> str:
    return "" if amount is None else _number(amount) + _suffix(unit)


def _suffix(unit: str) -> str:
    return f" {unit}" if unit else ""


def _number(amount: float) -> str:
    if amount == int(amount) or abs(amount) >= 1_000:
        return f"{amount:,.0f}".replace(",", " ")
    if abs(amount) >= 100:
        return f"{amount:.0f}"
    return f"{amount:.1f}" if abs(amount) >= 10 else f"{amount:.2f}"
