"""How long and how often a run measures, and where it tells how far it is."""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Plan:
    """What the caller asked for."""

    rounds: int = 5
    seconds: int = 2
    _started_at: float = field(default_factory=time.monotonic)

    def tell(self, text: str) -> None:
        """Say on stderr what is being done."""
        elapsed_s = time.monotonic() - self._started_at
        print(f"[{elapsed_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    def tell_figures(self, subject: str, figures: Sequence[float], unit: str) -> None:
        """Say on stderr what the rounds of one server gave."""
        median = statistics.median(figures)
        rounds = " ".join(f"{figure:.4g}" for figure in figures)
        self.tell(f"{subject}: median {median:.4g} {unit} of {rounds}")
