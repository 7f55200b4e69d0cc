"""Time that stands still until a test moves it."""

__all__ = ["ManualClock"]


class ManualClock:
    """A :class:`modelport.clock.Clock` whose time the test sets.

    >>> clock = ManualClock()
    >>> clock.advance(0.25)
    >>> clock.now_ns()
    250000000
    """

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def __repr__(self) -> str:
        return f"<ManualClock {self._now_ns} ns>"

    def now_ns(self) -> int:
        """Nanoseconds, the same until ``advance``."""
        return self._now_ns

    def advance(self, seconds: float) -> None:
        """Let time pass; never backwards.

        Raises:
            ValueError: If ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} s")
        self._now_ns += round(seconds * 1e9)
