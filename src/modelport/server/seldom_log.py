"""Log lines that clients could cause by the thousands: one of each kind a minute."""

import logging

from modelport.clock import Clock

__all__ = ["SeldomLog"]

PAUSE_NS = 60 * 10**9


class SeldomLog:
    """Writes a line of one kind at most once a minute, and says how many were left out.

    Args:
        log: Where to.
        clock: Tells the minutes.
    """

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._told_ns_by_kind: dict[str, int] = {}
        self._untold_by_kind: dict[str, int] = {}

    def info(self, kind: str, text: str) -> None:
        """Write a line, or count it.

        Args:
            kind: What it is about; there must be few of them.
            text: The line.
        """
        now_ns = self._clock.now_ns()
        told_ns = self._told_ns_by_kind.get(kind)
        if told_ns is not None and now_ns - told_ns < PAUSE_NS:
            self._untold_by_kind[kind] = self._untold_by_kind.get(kind, 0) + 1
            return
        self._told_ns_by_kind[kind] = now_ns
        untold = self._untold_by_kind.pop(kind, 0)
        self._log.info("%s%s", text, f" (and {untold} more of these since)" if untold else "")
