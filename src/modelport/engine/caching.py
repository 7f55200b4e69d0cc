"""Deployments that answer from the response cache where they can.

Classes of their own, so that models without a cache have nothing to ask.
"""

from collections.abc import Callable
from dataclasses import replace

from modelport.clock import Clock
from modelport.engine.cache import ResponseCache, digest
from modelport.engine.deployment import Deployment
from modelport.engine.executor import Completions
from modelport.engine.options import EngineOptions
from modelport.engine.pipeline import Pipeline, Served
from modelport.errors import LoadFailed, ModelportError
from modelport.messages import Request, Response, Sink, Ticket
from modelport.repository.loading import ModelVersion
from modelport.specs import CacheControl, ModelConfig
from modelport.stats import ModelStatistics

__all__ = ["CachingDeployment", "CachingPipeline", "wants_cache"]

Submit = Callable[[Request, Sink], Ticket]


def wants_cache(config: ModelConfig) -> bool:
    """Whether a model's answers are to be kept.

    Raises:
        LoadFailed: They are to be, and cannot be.
    """
    if config.response_cache is None or not config.response_cache.enable:
        return False
    for is_so, what in (
        (config.is_decoupled, "decoupled transaction policy"),
        (config.sequence_batching is not None, "sequence_batching"),
    ):
        if is_so:
            raise LoadFailed(
                f"Response Cache does not currently support model {config.name} with {what}: its "
                "answers depend on more than one request. Set response_cache.enable to false"
            )
    return True


class CachingDeployment(Deployment):
    """A deployment that looks for an answer before it takes a request."""

    def __init__(
        self,
        version: ModelVersion,
        *,
        cache: ResponseCache,
        options: EngineOptions,
        completions: Completions,
        clock: Clock,
    ) -> None:
        super().__init__(version, options=options, completions=completions, clock=clock)
        self._lookup = _Lookup(cache, self.statistics, clock)

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Answer a request at once if its answer is known; else see ``Deployment.submit``."""
        if self._is_closed or self._ordered:
            # Somebody who came before still waits, and is to be answered before.
            return super().submit(request, sink)
        return self._lookup.submit(request, sink, super().submit)

    async def wait_closed(self) -> None:
        """Also let go of what was kept."""
        await super().wait_closed()
        self._lookup.close()


class CachingPipeline(Pipeline):
    """An ensemble that looks for an answer before its steps run.

    Raises:
        LoadFailed: If one of its steps cannot have a cache.
    """

    def __init__(
        self,
        version: ModelVersion,
        *,
        cache: ResponseCache,
        resolve: Callable[[str, str | None], Served],
        clock: Clock,
    ) -> None:
        super().__init__(version, resolve=resolve, clock=clock)
        for step in self.plan.steps:
            wants_cache(replace(resolve(step.model, step.version).config, response_cache=_ON))
        self._lookup = _Lookup(cache, self.statistics, clock)

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Answer a request at once if its answer is known; else see ``Pipeline.submit``."""
        if self._is_closed:
            return super().submit(request, sink)
        return self._lookup.submit(request, sink, super().submit)

    async def wait_closed(self) -> None:
        """Also let go of what was kept."""
        await super().wait_closed()
        self._lookup.close()


class _Lookup:
    """The cache, as one deployment sees it: nobody else's answers are found here.

    Not even those of the same model before it was loaded anew.
    """

    def __init__(self, cache: ResponseCache, statistics: ModelStatistics, clock: Clock) -> None:
        self._cache = cache
        self._statistics = statistics
        self._now_ns = clock.now_ns
        self._is_closed = False

    def submit(self, request: Request, sink: Sink, go_on: Submit) -> Ticket:
        began_ns = self._now_ns()
        key = digest(request)
        if key is None:
            return go_on(request, sink)
        found = self._cache.get(self, key)
        now_ns = self._now_ns()
        if found is None:
            return go_on(request, _KeepingSink(self, key, sink, now_ns - began_ns))
        total_ns = now_ns - (request.received_ns or began_ns)
        self._statistics.record_cache_hit(total_ns, now_ns - began_ns)
        sink.push(found, True)
        return _ANSWERED

    def keep(self, key: bytes, response: Response, lookup_ns: int) -> None:
        began_ns = self._now_ns()
        if not self._is_closed:
            self._cache.put(self, key, response)
        self._statistics.record_cache_miss(lookup_ns + self._now_ns() - began_ns)

    def close(self) -> None:
        self._is_closed = True
        self._cache.drop(self)


class _KeepingSink:
    """Passes on what a model answers, and keeps it."""

    __slots__ = ("_key", "_lookup", "_lookup_ns", "_sink")

    def __init__(self, lookup: _Lookup, key: bytes, sink: Sink, lookup_ns: int) -> None:
        self._lookup = lookup
        self._key = key
        self._sink = sink
        self._lookup_ns = lookup_ns

    def push(self, response: Response, final: bool) -> bool:
        # First the copy: whoever takes a response may do with it what it likes.
        if final:
            self._lookup.keep(self._key, response, self._lookup_ns)
        return self._sink.push(response, final)

    def end(self) -> None:
        self._sink.end()

    def fail(self, error: ModelportError) -> None:
        self._sink.fail(error)


class _Answered:
    """The ticket of a request that was over before it was given."""

    def cancel(self) -> None:
        """Nothing runs."""

    def resume(self) -> None:
        """Nothing comes."""


_ANSWERED = _Answered()
_ON = CacheControl(enable=True)
