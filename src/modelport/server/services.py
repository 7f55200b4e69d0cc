"""Services being served: made and closed in order, and their endpoints given to the engine.

All services of one process share nothing but the engine. A service is brought up when those are
that it depends on, and closed before them.
"""

import asyncio
import inspect
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from modelport.engine.engine import Engine
from modelport.engine.executor import call_on_thread
from modelport.errors import LoadFailed
from modelport.protocols.base import Exchange, Route
from modelport.protocols.bentoml import ServedEndpoint
from modelport.repository.loading import ConcurrencyLimit, ModelVersion
from modelport.runtimes.service import ServiceRuntime
from modelport.server.asgi import MountedApp, answer_by
from modelport.server.cors import ServiceCors
from modelport.server.fetching import Fetcher
from modelport.server.uploads import Spool
from modelport.services.context import BackgroundTasks, Context, RequestView, current_service
from modelport.services.declaration import Service
from modelport.services.dependencies import LocalProxy, RemoteProxy
from modelport.services.endpoint import Endpoint
from modelport.services.files import Folder, Upload
from modelport.services.loop import ServiceLoop
from modelport.services.targets import import_services
from modelport.services.tensors import EndpointView
from modelport.wire import model_config

__all__ = ["RunningService", "Services"]

log = logging.getLogger("modelport.services")

DEFAULT_THREADS = 64
"""Synchronous calls of one endpoint that may run at once; threads are made as they are needed."""


class RunningService:
    """One service and the object that answers for it.

    Attributes:
        service: As declared.
        endpoints: At their places; those of a service that others only depend on are not served.
    """

    def __init__(self, service: Service[Any], *, spool: Spool, fetcher: Fetcher) -> None:
        self.service = service
        self.methods = [Endpoint(api, service.name) for api in service.apis.values()]
        self.endpoints: list[ServedEndpoint] = []
        self.instance: Any = None
        self.loop = ServiceLoop(f"modelport-{service.name}-loop")
        self.state: dict[str, Any] = {}
        self.apps = [
            MountedApp(mount, self.prefix, self.loop, service.middlewares)
            for mount in service.mounts
        ]
        self._proxies: list[Any] = []
        self._spool = spool
        self._fetcher = fetcher

    def __repr__(self) -> str:
        return f"<RunningService {self.name} {'up' if self.instance is not None else 'down'}>"

    @property
    def name(self) -> str:
        """By which it is known."""
        return self.service.name

    @property
    def doc(self) -> str:
        """What it is for."""
        return self.service.doc

    @property
    def prefix(self) -> str:
        """What its paths begin with."""
        return self.service.prefix

    @property
    def has_metrics(self) -> bool:
        """Whether its calls are counted under BentoML's names."""
        return bool(self.service.options.metrics.get("enabled", True))

    @property
    def mounted_paths(self) -> Sequence[str]:
        """Of its ASGI applications."""
        return [each.path or "/" for each in self.apps]

    def place(self, name_by_method: dict[str, str]) -> None:
        """Give every endpoint its place.

        Args:
            name_by_method: What clients call each of them, which differs from its own name where
                another service has one of the same.
        """
        options = self.service.options
        for method in self.methods:
            api = method.api
            name = name_by_method[api.name]
            self.endpoints.append(
                ServedEndpoint(
                    method=method,
                    model=name,
                    name=name,
                    route=f"{self.prefix}{api.route}",
                    service=self.name,
                    timeout_s=options.timeout_s,
                    is_task=api.is_task,
                    max_rows=api.max_batch_size if api.batchable else 0,
                    make_context=self._context,
                    new_folder=self._spool.folder,
                    new_upload=Upload,
                    fetch=self._fetcher.fetch,
                    run_app=self._run_app,
                    run_later=self._run_later,
                    retry=api.retry,
                    is_idempotent=api.is_idempotent,
                )
            )

    def _context(self, exchange: Exchange, folder: Folder) -> Context:
        request = RequestView(
            exchange.method, exchange.path, exchange.query, exchange.headers, exchange.principal
        )
        context = Context(request, folder, self.state)
        context.task = getattr(exchange, "report", None)
        return context

    def _run_app(self, exchange: Exchange, app: Any) -> None:
        answer_by(app, exchange, self.loop)

    def _run_later(self, tasks: BackgroundTasks) -> None:
        self.loop.spawn(self._finish(tasks))

    async def _finish(self, tasks: BackgroundTasks) -> None:
        for each in tasks.tasks:
            try:
                function = getattr(each, "func", each)
                if inspect.iscoroutinefunction(function):
                    await each()
                else:
                    await asyncio.to_thread(each)
            except Exception:
                log.exception("what service %s does after an answer failed", self.name)

    # Life; all of it blocks.

    def open(self, proxies: dict[str, Any]) -> None:
        """Make the object and run its hooks.

        Args:
            proxies: What it depends on, by attribute.

        Raises:
            LoadFailed: With what its author's code raised.
        """
        service = self.service
        for env in service.options.envs:
            if env.get("value") is not None and env.get("stage", "all") != "build":
                os.environ.setdefault(env["name"], str(env["value"]))
        try:
            for name in service.hooks("deployment"):
                self._run(getattr(service.inner, name))
            instance: Any = object.__new__(service.inner)
            vars(instance).update(proxies)
            self._proxies = list(proxies.values())
            current_service.set(instance)
            instance.__init__()
            self.instance = instance
            for name in service.hooks("startup"):
                self._run(getattr(instance, name))
            for app in self.apps:
                app.open(instance)
        except (Exception, SystemExit) as exc:
            log.exception("service %s could not be started", self.name)
            raise LoadFailed(
                f"service '{self.name}' could not be started: {type(exc).__name__}: {exc}"
            ) from exc

    def close(self) -> None:
        """Run the hooks of its end, and end its loop."""
        instance, self.instance = self.instance, None
        if instance is not None:
            for app in self.apps:
                app.close()
            for name in self.service.hooks("shutdown"):
                try:
                    self._run(getattr(instance, name))
                except (Exception, SystemExit):
                    log.exception("%s of service %s failed", name, self.name)
        for proxy in self._proxies:
            if isinstance(proxy, RemoteProxy):
                proxy.close()
        self.loop.close()

    def _run(self, hook: Any) -> Any:
        result = hook()
        return self.loop.run(result) if inspect.iscoroutine(result) else result

    def versions(self, engine: Engine) -> list[ModelVersion]:
        """Give every endpoint as a model that the engine can serve."""
        started = time.perf_counter()
        options = self.service.options
        most = options.max_concurrency or engine.options.max_queue_size
        limit = ConcurrencyLimit(most, "Too many requests")
        slots = threading.BoundedSemaphore(options.threads) if options.threads else None
        versions = []
        for served, method in zip(self.endpoints, self.methods, strict=True):
            # What waits for a slot must not do so on the server's own loop.
            is_bounded = slots is not None and not method.is_async and not method.is_stream
            execution = "thread" if is_bounded else ""
            view = EndpointView(method, served.model, execution)
            runtime = ServiceRuntime(
                method,
                self.instance,
                loop=self.loop,
                host=engine.host,
                view=view,
                state=self.state,
                slots=slots,
                most_streams=options.threads or DEFAULT_THREADS,
            )
            count = _instances(method, options.threads)
            versions.append(
                ModelVersion(
                    name=served.model,
                    version=1,
                    config=view.config,
                    config_json=json.dumps(model_config.encode_json(view.config)),
                    instances=[runtime] * count,
                    instance_names=[f"{served.model}_{at}" for at in range(count)],
                    load_s=time.perf_counter() - started,
                    limit=limit,
                )
            )
        return versions

    # Health.

    async def is_ready(self) -> bool:
        """What the service says of itself, whether it is up at all, and what it needs elsewhere."""
        if self.instance is None or not await self._says("__is_ready__"):
            return False
        remote = [each.is_ready() for each in self._proxies if isinstance(each, RemoteProxy)]
        return not remote or all(await asyncio.gather(*remote))

    async def is_alive(self) -> bool:
        """What the service says of itself."""
        return self.instance is None or await self._says("__is_alive__")

    async def _says(self, name: str) -> bool:
        check = getattr(self.instance, name, None)
        if check is None:
            return True
        try:
            return bool(await call_on_thread(self._run, check))
        except Exception:
            log.exception("%s of service %s failed", name, self.name)
            return False


class Services:
    """All services of a process.

    Args:
        targets: That hold them; their code is imported here, because routes follow from it.
        spool: For files.
        fetcher: For files that are sent as URLs.

    Raises:
        LoadFailed: A target cannot be imported, or an endpoint cannot be served.
    """

    def __init__(self, targets: Sequence[str], *, spool: Spool, fetcher: Fetcher) -> None:
        declared = [each for target in targets for each in import_services(target)]
        self._by_id: dict[int, RunningService] = {}
        self._order: list[RunningService] = []
        for service in declared:
            self._add(service, spool, fetcher, ())
        self.served = [self._by_id[id(each)] for each in dict.fromkeys(declared)]
        self._opened: list[RunningService] = []
        self._place()

    def __repr__(self) -> str:
        return f"<Services {[each.name for each in self.served]}>"

    def _add(
        self,
        service: Service[Any],
        spool: Spool,
        fetcher: Fetcher,
        above: tuple[Service[Any], ...],
    ) -> None:
        if service in above:
            names = " → ".join(each.name for each in (*above, service))
            raise LoadFailed(f"services depend on each other in a circle: {names}")
        if id(service) in self._by_id:
            return
        for dependency in service.dependencies.values():
            if dependency.on is not None:
                self._add(dependency.on, spool, fetcher, (*above, service))
        running = RunningService(service, spool=spool, fetcher=fetcher)
        self._by_id[id(service)] = running
        self._order.append(running)

    def _place(self) -> None:
        """Name every endpoint; where two services have the same name, both say whose it is."""
        counts = Counter(method.name for each in self.served for method in each.methods)
        for each in self.served:
            each.place(
                {
                    method.name: (
                        method.name if counts[method.name] == 1 else f"{each.name}_{method.name}"
                    )
                    for method in each.methods
                }
            )

    async def open(self, engine: Engine) -> None:
        """Bring all up, and have the engine serve their endpoints.

        Raises:
            LoadFailed: One did not come up; those that did are closed with the rest.
        """
        for running in self._order:
            proxies = {
                name: self._proxy(dependency)
                for name, dependency in running.service.dependencies.items()
            }
            self._opened.append(running)
            await call_on_thread(running.open, proxies)
            workers = running.service.options.workers
            if workers != 1:
                log.info("service %s: workers=%s runs as one process here", running.name, workers)
        for running in self.served:
            engine.attach(running.versions(engine))

    def _proxy(self, dependency: Any) -> Any:
        if dependency.on is None:
            return dependency.make()
        inner = self._by_id[id(dependency.on)]
        return LocalProxy(inner.service, inner.instance, inner.loop)

    @property
    def ports(self) -> list[int]:
        """Where services say that they want to be found."""
        wanted = [each.service.options.http.get("port") for each in self.served]
        return [int(port) for port in dict.fromkeys(wanted) if port]

    def cors(self) -> list[ServiceCors]:
        """Give what services have declared of the pages that may call them."""
        return [
            ServiceCors(
                options,
                [*(at.route for at in each.endpoints), *each.mounted_paths, *_SHARED_PATHS],
            )
            for each in self.served
            if (options := each.service.options.http.get("cors") or {}).get("enabled")
        ]

    def routes(self) -> list[Route]:
        """Give the routes of the mounted applications."""
        return [route for each in self.served for app in each.apps for route in app.routes()]

    async def close(self) -> None:
        """Close all, the last one first."""
        while self._opened:
            await asyncio.shield(call_on_thread(self._opened.pop().close))


_SHARED_PATHS = ("/schema.json", "/docs.json", "/readyz", "/livez", "/healthz")
"""What the clients of one service need of the paths that are everybody's."""


def _instances(method: Endpoint, threads: int | None) -> int:
    if method.api.batchable or method.is_async or method.is_stream:
        # One batch after another makes full ones; the others need no thread of the engine's.
        return 1
    return threads or DEFAULT_THREADS
