"""Monotonic time that is passed in, so that whatever decides by time can be tested with a list."""

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """A source of monotonic nanoseconds."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary fixed point; never decreases."""
        ...


class SystemClock:
    """The operating system's monotonic clock.

    ``time.perf_counter_ns`` and not ``monotonic_ns``: the same clock on Linux, finer on Windows.
    """

    now_ns = staticmethod(time.perf_counter_ns)
