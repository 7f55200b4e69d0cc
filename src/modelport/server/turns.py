"""Work that can wait, done a little in each turn of the loop.

One turn serves every socket that has something to read. What clients can pile up (thousands of
requests in one read, megabytes of answers) is done by slices and in rotation, so that the requests
in between wait for a millisecond of it and not for all.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from modelport.clock import Clock

__all__ = ["SLICE_NS", "TURN_NS", "Turns"]

TURN_NS = 400_000
"""How much of a turn such work may take."""
SLICE_NS = 100_000
"""What each of several has at a time."""


class Turns:
    """Shares the time between those with much to do. On the event loop only.

    Whoever has much to do asks how long it may (:meth:`until_ns`), says how long it took
    (:meth:`spend`), and has itself called again for the rest (:meth:`later`).
    """

    def __init__(self, clock: Clock) -> None:
        self._now_ns = clock.now_ns
        self._waiting: deque[Callable[[], None]] = deque()
        self._spent_ns = 0
        self._slice_until_ns = 0
        self._is_due = False

    def __repr__(self) -> str:
        return f"<Turns waiting={len(self._waiting)} spent_ns={self._spent_ns}>"

    def until_ns(self, now_ns: int) -> int:
        """Until when who asks may go on; ``now_ns`` or less if not at all in this turn."""
        return self._slice_until_ns or now_ns + TURN_NS - self._spent_ns

    def spend(self, duration_ns: int) -> None:
        """Note what was taken of this turn."""
        if not self._slice_until_ns:  # else it is measured below
            self._spent_ns += duration_ns
            self._begin_another()

    def later(self, work: Callable[[], None]) -> None:
        """Call ``work`` in a turn that has time for it, behind those that wait already."""
        self._waiting.append(work)
        self._begin_another()

    def _begin_another(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_due = False
        self._spent_ns = 0
        waiting = self._waiting
        if not waiting:
            return
        now_ns = started_ns = self._now_ns()
        until_ns = now_ns + TURN_NS
        try:
            while waiting and now_ns < until_ns:
                slice_ns = SLICE_NS if len(waiting) > 1 else TURN_NS
                self._slice_until_ns = min(now_ns + slice_ns, until_ns)
                waiting.popleft()()
                now_ns = self._now_ns()
        finally:
            self._slice_until_ns = 0
            self.spend(self._now_ns() - started_ns)
