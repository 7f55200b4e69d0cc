"""The engine: which versions take requests now, and the one place to send requests to.

It listens to the repository: what that has brought up is attached here, what it wants to take down
is detached and drained. Everything here runs on the event loop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from modelport.clock import Clock, SystemClock
from modelport.custom_metrics import CustomMetrics
from modelport.engine.deployment import Deployment
from modelport.engine.executor import Completions, call_on_thread
from modelport.engine.host import EngineHost
from modelport.engine.options import EngineOptions
from modelport.engine.pipeline import Pipeline, Served
from modelport.engine.tracing import Entrance, Traces
from modelport.errors import InvalidRequest, NotFound, Unavailable
from modelport.messages import Request, Sink, Ticket
from modelport.repository.lifecycle import Phase
from modelport.repository.loading import ModelVersion
from modelport.repository.model import IndexRow
from modelport.runtimes.base import RemoteRuntime

if TYPE_CHECKING:
    from modelport.engine.cache import ResponseCache
    from modelport.repository.repository import Repository

__all__ = ["CLOSE_LIMIT_S", "Engine", "EngineOptions"]

_MAX_VERSION = 2**63 - 1

CLOSE_LIMIT_S = 5.0
"""How long ``close`` waits for models to give up what they hold; one that hangs is left behind."""

log = logging.getLogger("modelport.engine")


class Engine:
    """Takes requests for every model that is served.

    Args:
        options: What the operator sets for all models.
        clock: Where time comes from.
    """

    def __init__(self, options: EngineOptions | None = None, clock: Clock | None = None) -> None:
        self.options = options or EngineOptions()
        self.clock = clock or SystemClock()
        self.custom_metrics = CustomMetrics()
        self.host = EngineHost(self)
        self.cache = _cache(self.options.cache_bytes)
        self.is_exiting = False
        self.is_open = False
        self._repository: Repository | None = None
        self._completions: Completions | None = None
        self._served: dict[str, dict[int, Served]] = {}
        # What has executed its warm-up requests, and does not serve yet.
        self._warmed: dict[ModelVersion, Served] = {}
        # (model, version as asked for) → where it goes; rebuilt whenever something changes.
        self._routes: dict[tuple[str, str], Served] = {}
        # The same for callers; the same object while nothing is traced.
        self._entrances = self._routes
        self.traces: Traces | None = None
        # Models that others have asked for the sake of a request that was traced.
        self._asked_in_traces: set[str] = set()
        # What takes no new requests and is not over, in the order in which it was taken down; and
        # what is set when it is.
        self._closing: dict[Served, asyncio.Event] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Engine {sorted(self._served)}>"

    # Life.

    async def open(self, repository: "Repository") -> None:
        """Serve what a repository has, and listen to it from now on."""
        self._completions = Completions(asyncio.get_running_loop())
        self._repository = repository
        await repository.open()
        self.is_open = True

    @property
    def completions(self) -> Completions | None:
        """The way from other threads to the event loop; ``None`` before ``open``."""
        return self._completions

    async def drain(self) -> None:
        """Take no new requests; return when those in flight are over."""
        self.is_exiting = True
        served = [*self.deployments(), *self._closing]
        await asyncio.gather(*(deployment.drain() for deployment in served))

    def cut_off(self) -> None:
        """Fail what is still in flight, and take nothing new; what follows is ``close``."""
        self.is_exiting = True
        for deployment in (*self.deployments(), *self._closing):
            deployment.close()

    async def close(self) -> None:
        """Fail what is still in flight, and unload everything; at most for ``CLOSE_LIMIT_S``."""
        self.cut_off()
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                if self._repository is not None:
                    await self._repository.close()
                await asyncio.gather(*self._retiring)
        except TimeoutError:
            names = {deployment.name for deployment in self._closing}
            if self._repository is not None:
                names |= self._repository.unfinished()
            log.error(
                "models did not return within %g s and were left behind: %s",
                CLOSE_LIMIT_S,
                ", ".join(sorted(names)),
            )

    # Requests.

    def resolve(self, model: str, version: str | None = None) -> Served:
        """Find who answers for a model.

        Args:
            model: Its name.
            version: Decimal digits; ``None`` or "" for the highest that is served.

        Raises:
            InvalidRequest: The version is not one.
            NotFound: There is no such model or version.
            Unavailable: The version exists and does not take requests now.
        """
        found = self._entrances.get((model, version or ""))
        if found is None:
            raise self._why_unresolved(model, version or "")
        return found

    def submit(self, model: str, version: str | None, request: Request, sink: Sink) -> Ticket:
        """Send a request to a model; see :meth:`Deployment.submit`."""
        if self.is_exiting:
            raise Unavailable("Server exiting")
        return self.resolve(model, version).submit(request, sink)

    def submit_call(self, model: str, version: str, request: Request, sink: Sink) -> Ticket:
        """Send a request that a model makes to another one; see :meth:`Deployment.submit`.

        Also while the server is going down: requests in flight are finished, and this is part of
        one. It is traced with the request that it is made for, if the model says for which.
        """
        served = self.resolve(model, version)
        traces = self.traces
        if traces is None:
            return served.submit(request, sink)
        target = served.served if isinstance(served, Entrance) else served
        asker = traces.asker(request)
        if asker is None:
            return target.submit(request, sink)
        if target.name not in self._asked_in_traces:
            self._asked_in_traces.add(target.name)
            self._set_entrances()
        return asker.submit_step(target, request, sink)

    def _why_unresolved(self, model: str, version: str) -> Exception:
        number: int | None = None
        if version:
            # Python itself refuses to read numbers of thousands of digits.
            if version[0] == "-" and version[1:].isdecimal():
                return InvalidRequest(
                    f"invalid model version specified '{version[:100]}' , version should be an "
                    "integral value > 0"
                )
            is_number = version.isascii() and version.isdigit() and len(version) <= 100
            if not is_number or int(version) > _MAX_VERSION:
                return InvalidRequest(
                    "failed to get model version from specified version string "
                    f"'{version[:100]}' "
                    "(details: stol), version should be an integral value > 0"
                )
            number = int(version)
            normal = self._routes.get((model, str(number)))
            if normal is not None:
                # Written with zeros in front.
                return InvalidRequest(
                    f"invalid model version specified '{version}' , version should be an "
                    "integral value > 0"
                )
        if self._repository is not None and not self.is_open:
            # Not unknown for good: clients may try again.
            return Unavailable(
                f"Server not ready: it is starting, and model '{model}' is not served yet; ask "
                "again when it is"
            )
        rows = [] if self._repository is None else self._repository.rows(model)
        if not rows or all(row.version is None for row in rows):
            failed = "".join(f"; {row.reason}" for row in rows if row.reason)
            more = failed or self._hint(model)
            return NotFound(f"Request for unknown model: '{model}' is not found{more}")
        if number is None:
            reasons = "; ".join(
                f"version {row.version}: {row.reason}" for row in rows if row.reason
            )
            more = f" ({reasons})" if reasons else ""
            return NotFound(f"Request for unknown model: '{model}' has no available versions{more}")
        if any(row.version == str(number) for row in rows):
            return Unavailable(
                f"Request for unknown model: '{model}' version {number} is not at ready state"
            )
        served = sorted(self._served.get(model, ()))
        return NotFound(
            f"Request for unknown model: '{model}' version {number} is not found; "
            f"served are the versions {served}"
        )

    def _hint(self, model: str) -> str:
        names = sorted(self._served)
        if not names:
            return ""
        import difflib

        close = difflib.get_close_matches(model, names, n=1)
        return f"; did you mean '{close[0]}'?" if close else ""

    # What there is.

    def deployments(self, model: str | None = None) -> list[Served]:
        """Everything that is served, or the versions of one model, by name and version."""
        names = sorted(self._served) if model is None else [model]
        return [
            deployment
            for name in names
            for _, deployment in sorted(self._served.get(name, {}).items())
        ]

    def workers(self) -> list[tuple[str, int, str, RemoteRuntime]]:
        """Every instance in a worker process: model, version and name, with itself."""
        return [
            (served.name, served.version, name, worker)
            for served in self.deployments()
            if isinstance(served, Deployment)
            for name, worker in served.workers()
        ]

    def index(self) -> "list[IndexRow]":
        """All models and versions that are known, with their states."""
        rows = [] if self._repository is None else self._repository.index()
        known = {row.name for row in rows}
        # What was attached by somebody else than the repository.
        others = [each for each in self.deployments() if each.name not in known]
        rows += [IndexRow(each.name, str(each.version), Phase.READY) for each in others]
        shown = [self._as_it_is(row) for row in rows]
        return sorted(shown, key=lambda row: row.name) if others else shown

    def _as_it_is(self, row: IndexRow) -> IndexRow:
        """Say what the repository cannot know: that a version which is up cannot answer now."""
        if row.state is not Phase.READY or row.version is None:
            return row
        served = self._served.get(row.name, {}).get(int(row.version))
        why = "" if served is None else served.why_not_ready()
        return IndexRow(row.name, row.version, Phase.UNAVAILABLE, why) if why else row

    def is_live(self) -> bool:
        """Whether the server can answer, and no worker process hangs."""
        return all(
            deployment.is_live()
            for deployment in self.deployments()
            if isinstance(deployment, Deployment)
        )

    def is_ready(self, *, strict: bool = True) -> bool:
        """Whether all that should be served is; not while exiting.

        Args:
            strict: ``False`` asks only whether requests are taken.
        """
        if self.is_exiting or not self.is_open:
            return False
        if not strict:
            return True
        repository = self._repository
        return (repository is None or repository.is_ready(strict=strict)) and all(
            deployment.is_ready() for deployment in self.deployments()
        )

    # The repository's side.

    async def load(
        self,
        model: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Have the repository load a model, or load it again."""
        await self._open_repository().load(model, config=config, files=files)

    async def unload(self, model: str, *, unload_dependents: bool = False) -> None:
        """Have the repository take a model down."""
        await self._open_repository().unload(model, unload_dependents=unload_dependents)

    async def refresh(self) -> bool:
        """Have the repository look for changed files; gives whether it found any."""
        return await self._open_repository().refresh()

    def _open_repository(self) -> "Repository":
        if self._repository is None or self.is_exiting:
            raise Unavailable("Server exiting" if self.is_exiting else "Server not ready")
        return self._repository

    async def warm_up(self, version: ModelVersion) -> None:
        """Have a version execute its warm-up requests; ``attach`` or ``abandon`` comes next.

        Raises:
            LoadFailed: If it fails one.
        """
        began_ns = self.clock.now_ns()
        deployment = self._warmed[version] = self._deploy(version)
        if isinstance(deployment, Pipeline):
            text = "model_warmup of an ensemble does nothing; set it for the models of its steps"
            self.host.log("warning", text, model=version.name)
            return
        await deployment.warm_up()
        version.load_s += (self.clock.now_ns() - began_ns) / 1e9
        deployment.statistics.load_s = version.load_s

    async def abandon(self, version: ModelVersion) -> None:
        """Let go of a version that was warmed up and will not be served."""
        deployment = self._warmed.pop(version, None)
        if deployment is not None:
            deployment.close()
            await deployment.wait_closed()

    def attach(self, versions: Sequence[ModelVersion]) -> None:
        """Serve these from now on, each in place of one with the same name and version.

        What is replaced gets no new requests, and is unloaded after its last one.
        """
        deployed = [
            self._warmed.pop(version) if version in self._warmed else self._deploy(version)
            for version in versions
        ]
        for deployment in deployed:
            by_version = self._served.setdefault(deployment.name, {})
            replaced = by_version.get(deployment.version)
            by_version[deployment.version] = deployment
            if replaced is not None:
                self._closing[replaced] = asyncio.Event()
                task = asyncio.get_running_loop().create_task(self._retire(replaced))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
        self._rebuild_routes()

    def detach(self, name: str, version: int) -> Awaitable[None]:
        """Send a version no new requests, as of this very call.

        Returns:
            Completes when its last request is over; unloading it is left to the repository.
        """
        by_version = self._served[name]
        deployment = by_version.pop(version)
        if not by_version:
            del self._served[name]
        self._rebuild_routes()
        self._closing[deployment] = asyncio.Event()
        return self._finish(deployment)

    async def _finish(self, deployment: Served) -> None:
        # Requests to ensembles may be in flight that have not come to it yet.
        for pipeline in self._pipelines_through(deployment):
            over = self._closing.get(pipeline)
            await (pipeline.drain() if over is None else over.wait())
        await deployment.drain()
        deployment.close()
        await deployment.wait_closed()
        self._closing.pop(deployment).set()
        if deployment.name not in self._served:
            self.custom_metrics.forget(deployment.name)

    def _pipelines_through(self, deployment: Served) -> list[Pipeline]:
        return [
            pipeline
            for pipeline in (*self._closing, *self.deployments())
            if isinstance(pipeline, Pipeline) and pipeline.needs(deployment)
        ]

    async def _retire(self, deployment: Served) -> None:
        await self._finish(deployment)
        try:
            await call_on_thread(deployment.source.unload)
        except Exception as exc:
            text = f"version {deployment.version} raised while it was unloaded: {exc!r}"
            self.host.log("error", text, model=deployment.name)

    def _resolve_member(self, model: str, version: str | None) -> Served:
        """Find a member of an ensemble: also one that takes no new requests but the ensemble's.

        Taking a model down takes down its ensembles too, and those finish what they have begun.
        """
        found = self._routes.get((model, version or ""))
        if found is not None:
            return found
        for closing in reversed(self._closing):
            if closing.name == model and version in (None, str(closing.version)):
                return closing
        raise self._why_unresolved(model, version or "")

    def _deploy(self, version: ModelVersion) -> Served:
        # Each kind is imported for the first model that needs it: most servers need but one.
        cache = self._cache_for(version)
        clock = self.clock
        if version.config.ensemble_scheduling is not None:
            if cache is None:
                return Pipeline(version, resolve=self._resolve_member, clock=clock)
            from modelport.engine.caching import CachingPipeline

            resolve = self._resolve_member
            return CachingPipeline(version, cache=cache, resolve=resolve, clock=clock)
        if self._completions is None:
            self._completions = Completions(asyncio.get_running_loop())
        completions = self._completions
        if cache is not None:
            from modelport.engine.caching import CachingDeployment

            return CachingDeployment(
                version, cache=cache, options=self.options, completions=completions, clock=clock
            )
        kind = Deployment
        if version.config.sequence_batching is not None:
            from modelport.engine.sequence_deployment import SequenceDeployment

            kind = SequenceDeployment
        return kind(version, options=self.options, completions=completions, clock=clock)

    def _cache_for(self, version: ModelVersion) -> "ResponseCache | None":
        if version.config.response_cache is None:
            return None
        from modelport.engine.caching import wants_cache

        if not wants_cache(version.config):
            return None
        if self.cache is None:
            text = (
                "response_cache is enabled, and the server has no cache; start it with "
                "--cache-config local,size=BYTES"
            )
            self.host.log("warning", text, model=version.name)
        return self.cache

    def _rebuild_routes(self) -> None:
        routes: dict[tuple[str, str], Served] = {}
        for name, by_version in self._served.items():
            for number, deployment in by_version.items():
                routes[name, str(number)] = deployment
            default = routes[name, ""] = by_version[max(by_version)]
            if default.config.switch("ovms", self.options.is_ovms):
                routes[name, "0"] = default
        self._routes = routes
        self._set_entrances()

    def trace(self, traces: Traces) -> None:
        """Trace requests as these say, now and whenever they change."""
        self.traces = traces
        traces.on_change = self._set_entrances
        self._set_entrances()

    def _set_entrances(self) -> None:
        traces = self.traces
        traced: dict[Served, Served] = {}
        concerned = self._concerned(traces)
        for served in self.deployments() if traces is not None else ():
            is_traced = traces is not None and traces.concerns(served.name)
            if isinstance(served, Deployment):
                served.trace(served.name in concerned)
            if traces is not None and is_traced:
                # It has all that callers need of a deployment; what members of ensembles need is
                # asked of the deployment itself.
                traced[served] = cast(Served, Entrance(served, traces))
        if traced:
            routes = self._routes.items()
            self._entrances = {route: traced.get(served, served) for route, served in routes}
        else:
            self._entrances = self._routes

    def _concerned(self, traces: Traces | None) -> set[str]:
        """Name the models that may see a traced request: also as a part of another one."""
        deployments = self.deployments() if traces is not None else []
        names = {d.name for d in deployments if traces is not None and traces.concerns(d.name)}
        if names:
            names |= self._asked_in_traces
        waiting = [d for d in deployments if d.name in names]
        while waiting:
            served = waiting.pop()
            for step in served.plan.steps if isinstance(served, Pipeline) else ():
                if step.model not in names:
                    names.add(step.model)
                    waiting += self.deployments(step.model)
        return names


def _cache(size_bytes: int) -> "ResponseCache | None":
    if not size_bytes:
        return None
    from modelport.engine.cache import ResponseCache

    return ResponseCache(size_bytes)
