"""Press a server for some seconds, after a warm-up, and say how it went."""

import json
import statistics
import time
from typing import Protocol

__all__ = ["Press", "TooFewAnswersError", "measure"]

_WARM_UP_S = 1.0
_FEWEST_ANSWERS = 10


class TooFewAnswersError(Exception):
    """The server hardly answered: nothing can be said of how long it takes."""


class Press(Protocol):
    """Connections that ask without pause.

    Attributes:
        taken_s: How long each answer of the last run took, in seconds.
    """

    taken_s: list[float]

    def run(self, seconds: float) -> None:
        """Ask for some seconds; what is under way then stays so."""
        ...


def measure(press: Press, seconds: int) -> None:
    """Warm up, press, and print one JSON line after each.

    Raises:
        TooFewAnswersError: There was next to nothing to measure.
    """
    press.run(_WARM_UP_S)
    cpu_before_s = time.process_time()
    started_at = time.perf_counter()
    print(json.dumps({"is_ready": True}), flush=True)
    press.run(seconds)
    measured_s = time.perf_counter() - started_at
    if len(press.taken_s) < _FEWEST_ANSWERS:
        raise TooFewAnswersError(f"{len(press.taken_s)} answers in {measured_s:.1f} s")
    percentiles = statistics.quantiles(press.taken_s, n=100)
    found = {
        "requests": len(press.taken_s),
        "seconds": measured_s,
        "p50_ms": percentiles[49] * 1e3,
        "p99_ms": percentiles[98] * 1e3,
        "max_ms": max(press.taken_s) * 1e3,
        "cpu_s": time.process_time() - cpu_before_s,
    }
    print(json.dumps(found))
