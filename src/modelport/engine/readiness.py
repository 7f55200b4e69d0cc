"""Whether an instance can still answer, without the server waiting for it to say so.

A model may have its own idea of being ready, and take its time to say. Health is asked for every
few seconds, on the event loop. So a model that was slow once is asked on a thread from then on, and
what it said last is what counts meanwhile.
"""

import threading

from modelport.clock import Clock
from modelport.engine.executor import SLOW_NS, Completions
from modelport.runtimes.base import RemoteRuntime, Runtime

__all__ = ["Readiness"]


class Readiness:
    """What one runtime says of itself. Used on the event loop only."""

    __slots__ = (
        "_asks_here",
        "_completions",
        "_is_asking",
        "_is_slow",
        "_now_ns",
        "_runtime",
        "_said",
    )

    def __init__(self, runtime: Runtime, completions: Completions, clock: Clock) -> None:
        self._runtime = runtime
        # Those that run elsewhere do not wait for an answer, and live on the event loop.
        self._asks_here = isinstance(runtime, RemoteRuntime)
        self._completions = completions
        self._now_ns = clock.now_ns
        self._is_slow = False
        self._is_asking = False
        self._said = True

    def ask(self) -> bool:
        """Give what the runtime says now, or, if it is a slow one, what it said last."""
        if self._asks_here:
            return self._runtime.is_ready()
        if not self._is_slow:
            started_ns = self._now_ns()
            self._said = self._runtime.is_ready()
            self._is_slow = self._now_ns() - started_ns > SLOW_NS
        elif not self._is_asking:
            self._is_asking = True
            threading.Thread(target=self._ask, name="is_ready", daemon=True).start()
        return self._said

    def _ask(self) -> None:
        said = False
        try:
            said = self._runtime.is_ready()
        finally:
            self._completions.post(self._hear, said)

    def _hear(self, said: bool) -> None:
        self._is_asking = False
        self._said = said
