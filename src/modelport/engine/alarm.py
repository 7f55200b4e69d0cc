"""A timer that rings once, at the earliest of the times that it was set to."""

import asyncio
from collections.abc import Callable

__all__ = ["Alarm"]


class Alarm:
    """Calls back when a time has come. Used on the event loop only.

    Args:
        now_ns: The time, in nanoseconds.
        ring: Called when it is what the alarm was set to; it may set it again.
    """

    __slots__ = ("_at_ns", "_handle", "_now_ns", "_ring")

    def __init__(self, now_ns: Callable[[], int], ring: Callable[[], object]) -> None:
        self._now_ns = now_ns
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._at_ns = 0

    def set(self, at_ns: int) -> None:
        """Ring at this time, unless it is set to an earlier one."""
        if self._handle is not None:
            if self._at_ns <= at_ns:
                return
            self._handle.cancel()
        self._at_ns = at_ns
        delay_s = max(0.0, (at_ns - self._now_ns()) / 1e9)
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._time_has_come)

    def cancel(self) -> None:
        """Do not ring, unless it is set again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _time_has_come(self) -> None:
        self._handle = None
        self._ring()
