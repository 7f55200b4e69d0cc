"""When calls must be over, for very many calls that nearly all end before.

A timer for each would cost as much as the rest of a small call. So deadlines are put into slots of
time, a call is taken out of its slot when it ends, and one timer waits for the next slot.
"""

import asyncio
from typing import Protocol

from modelport.clock import Clock

__all__ = ["Deadlines", "Expiring"]

SLOT_BITS = 24
"""Slots of 2**24 ns, 17 ms: that late a deadline is noticed at the worst."""


class Expiring(Protocol):
    """Something with a deadline."""

    def expire(self) -> None:
        """The deadline has passed."""
        ...


class Deadlines:
    """The deadlines of a server. On the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls_by_slot: dict[int, set[Expiring]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0

    def __len__(self) -> int:
        return sum(map(len, self._calls_by_slot.values()))

    def add(self, call: Expiring, deadline_ns: int) -> None:
        """Call ``expire`` when the deadline has passed, unless the call is removed before."""
        slot = deadline_ns >> SLOT_BITS
        calls = self._calls_by_slot.get(slot)
        if calls is None:
            calls = self._calls_by_slot[slot] = set()
            self._watch(slot)
        calls.add(call)

    def remove(self, call: Expiring, deadline_ns: int) -> None:
        """The call is over."""
        slot = deadline_ns >> SLOT_BITS
        calls = self._calls_by_slot.get(slot)
        if calls is not None:
            calls.discard(call)
            # The slot that the timer waits for stays, so that busy times do not set it anew.
            if not calls and slot != self._timer_slot:
                del self._calls_by_slot[slot]

    def _watch(self, slot: int) -> None:
        if self._timer is not None:
            if slot >= self._timer_slot:
                return
            self._timer.cancel()
        self._timer_slot = slot
        due_ns = (slot + 1) << SLOT_BITS
        delay_s = max(0.0, (due_ns - self._clock.now_ns()) / 1e9)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_slot = self._clock.now_ns() >> SLOT_BITS
        due = [slot for slot in self._calls_by_slot if slot < now_slot]
        expired = [call for slot in due for call in self._calls_by_slot.pop(slot)]
        if self._calls_by_slot:
            self._watch(min(self._calls_by_slot))
        for call in expired:
            call.expire()
