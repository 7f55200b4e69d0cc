"""How a task tells its owner how far it has come."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

__all__ = ["Report", "current_report", "report_progress", "report_to", "reporting_to"]


class Report(Protocol):
    """Where the reports of one task go."""

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants the task's result any more."""
        ...

    def __call__(self, fraction: float | None, text: str) -> None:
        """Take a report, or raise Cancelled."""
        ...


MOST_TEXT = 1000
"""Characters of a text that are kept."""

_report: ContextVar[Report | None] = ContextVar("modelport_progress", default=None)


def report_progress(fraction: float | None = None, text: str = "") -> None:
    """Say how far the task that this is called in has come. Does nothing outside of a task.

    A task whose owner has cancelled it ends here: a function that runs on a thread cannot be
    stopped from outside, so one that takes long should report now and then.

    Cheap enough to be called in a loop: only the last report before each heartbeat is kept.

    Args:
        fraction: From 0 to 1; ``None`` where nobody knows.
        text: What is being done, for people; the first 1000 characters are kept.

    Raises:
        ValueError: If the fraction is not between 0 and 1.
        Cancelled: If nobody wants the task's result any more.
    """
    if fraction is not None and not (math.isfinite(fraction) and 0 <= fraction <= 1):
        raise ValueError(f"progress is a fraction from 0 to 1, not {fraction!r}")
    report = _report.get()
    if report is not None:
        report(None if fraction is None else float(fraction), text[:MOST_TEXT])


def current_report() -> Report | None:
    """Where reports go here; ``None`` outside of a task."""
    return _report.get()


def report_to(report: Report | None) -> None:
    """Have reports of this thread or asyncio task go there from now on."""
    _report.set(report)


@contextmanager
def reporting_to(report: Report) -> Iterator[None]:
    """Have what is reported inside, also in copies of this context, go to ``report``."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)
