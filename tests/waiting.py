"""Waiting for what nobody tells of: another process, a thread, the kernel."""

import asyncio
import time
from collections.abc import Callable

__all__ = ["eventually", "until"]

WITHIN_S = 15.0
"""Long, for machines that have other things to do; nothing that holds waits for it."""
LOOK_EVERY_S = 0.02
TURN_EVERY_S = 0.002


def eventually(is_so: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Look again and again until something is so.

    Raises:
        AssertionError: If it is not within so many seconds.
    """
    until_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until_s, f"it has not come to that in {within_s:g} s"
        time.sleep(LOOK_EVERY_S)


async def until(is_so: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Let the loop turn until something is so.

    Raises:
        AssertionError: If it is not within so many seconds.
    """
    until_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until_s, f"it has not come to that in {within_s:g} s"
        await asyncio.sleep(TURN_EVERY_S)
