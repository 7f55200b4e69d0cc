"""Whether a process can still answer at all: it is asked every so often until it does not.

A thread of the process answers that does nothing else. So a model that computes, waits or sleeps is
heard of, for however long it does; one that was stopped, or has taken Python's lock and does not
let go of it, is not. The two look alike from outside, hence a limit in minutes.
"""

import asyncio
from collections.abc import Callable

__all__ = ["LOOKS", "Watch"]

LOOKS = 10
"""Looks that make up the limit. They are counted, and not the seconds: after this process has been
stopped itself, or was kept from its loop, what the other one said meanwhile is not read yet."""


class Watch:
    """Asks, and gives a process up that does not answer. Used on the event loop only.

    Args:
        limit_s: How long it may be silent, above 0; up to a tenth more is waited.
        ask: Called to ask it; not again before it has answered.
        give_up: Called once when the limit is reached.
    """

    def __init__(
        self, limit_s: float, ask: Callable[[], object], give_up: Callable[[], object]
    ) -> None:
        self._limit_s = limit_s
        self._ask = ask
        self._give_up = give_up
        self._missed = 0
        self._is_asked = False
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Watch {self._missed} of {LOOKS} answers missed>"

    def start(self) -> None:
        """Begin to ask, on the running loop."""
        self.stop()
        self._missed = 0
        self._is_asked = False
        self._wait()

    def stop(self) -> None:
        """Ask no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self) -> None:
        """It lives."""
        self._missed = 0
        self._is_asked = False

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limit_s / LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._is_asked:
            self._is_asked = True
            self._ask()
        else:
            self._missed += 1
            if self._missed == LOOKS:
                self._give_up()
                return
        self._wait()
