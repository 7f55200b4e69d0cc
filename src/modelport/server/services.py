"""Services being served: made and closed in order, and their endpoints given to the engine.

All services of one process share nothing but the engine. A service is brought up when those are
that it depends on, and closed before them. One with workers has its objects in their processes,
each with objects of its own of what it depends on; here it has one only for what is mounted.
"""

import asyncio
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelport.engine.engine import Engine
from modelport.engine.executor import call_on_thread
from modelport.errors import LoadFailed
from modelport.protocols.base import Exchange, Route
from modelport.protocols.bentoml import ServedEndpoint
from modelport.repository.loading import ConcurrencyLimit, ModelVersion
from modelport.runtimes.nvidia import count_gpus
from modelport.runtimes.service import ServiceRuntime
from modelport.server.asgi import MountedApp, answer_by
from modelport.server.cors import ServiceCors
from modelport.server.fetching import Fetcher
from modelport.server.service_gpus import GpuShares
from modelport.server.uploads import Spool
from modelport.services.context import Context, RequestView
from modelport.services.declaration import Service
from modelport.services.distant import DistantEndpoint
from modelport.services.endpoint import Endpoint
from modelport.services.files import Folder, Upload
from modelport.services.living import LiveService, in_order
from modelport.services.targets import import_services
from modelport.services.tensors import EndpointView
from modelport.wire import model_config

if TYPE_CHECKING:
    from modelport.runtimes.base import RemoteRuntime, Runtime
    from modelport.runtimes.service_pool import ServiceWorkers

__all__ = ["RunningService", "Services"]

log = logging.getLogger("modelport.services")

DEFAULT_THREADS = 64
"""Synchronous calls of one endpoint that may run at once; threads are made as they are needed."""
MOST_AWAITED = 1024
"""Calls of an asynchronous endpoint that a worker may have at once."""


class RunningService:
    """One service and what answers for it: an object here, or workers.

    Args:
        service: As declared.
        spool: For files.
        fetcher: For files that are sent as URLs.
        workers: In which it runs; ``None`` for this process.

    Attributes:
        service: As declared.
        live: Its object in this process, if it has one.
        workers: In which it runs, if it has any.
        is_open: Whether it is up.
        endpoints: At their places; those of a service that others only depend on are not served.
    """

    def __init__(
        self,
        service: Service[Any],
        *,
        spool: Spool,
        fetcher: Fetcher,
        workers: "ServiceWorkers | None" = None,
    ) -> None:
        self.service = service
        self.methods = [Endpoint(api, service.name) for api in service.apis.values()]
        self.endpoints: list[ServedEndpoint] = []
        self.is_open = False
        self.live = LiveService(service, worker_index=0 if workers is not None else 1)
        self.workers = workers
        self.apps = [
            MountedApp(mount, self.prefix, self.live.loop, service.middlewares)
            for mount in service.mounts
        ]
        self._spool = spool
        self._fetcher = fetcher

    def __repr__(self) -> str:
        return f"<RunningService {self.name} {self.workers or self.live}>"

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
                    method=method if self.workers is None else DistantEndpoint(method),
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
                    run_later=self.live.run_later,
                    retry=api.retry,
                    is_idempotent=api.is_idempotent,
                )
            )

    def _context(self, exchange: Exchange, folder: Folder) -> Context:
        request = RequestView(
            exchange.method, exchange.path, exchange.query, exchange.headers, exchange.principal
        )
        context = Context(request, folder, self.live.state)
        context.task = getattr(exchange, "report", None)
        return context

    def _run_app(self, exchange: Exchange, app: Any) -> None:
        # The endpoint has had the body already.
        answer_by(app, exchange, self.live.loop).complete()

    # Life.

    def open(self, lives: dict[int, LiveService]) -> None:
        """Make the object here and run its hooks. Blocks.

        Args:
            lives: Those that it depends on, by the identity of their declaration.

        Raises:
            LoadFailed: With what its author's code raised.
        """
        self.live.open(lives)
        try:
            for app in self.apps:
                app.open(self.live.instance)
        except (Exception, SystemExit) as exc:
            log.exception("what service %s has mounted could not be started", self.name)
            raise LoadFailed(
                f"service '{self.name}' could not be started: {type(exc).__name__}: {exc}"
            ) from exc

    def close(self) -> None:
        """Run the hooks of its end. Blocks."""
        if self.live.instance is not None:
            for app in self.apps:
                app.close()
        self.live.close()

    def versions(self, engine: Engine) -> list[ModelVersion]:
        """Give every endpoint as a model that the engine can serve."""
        started = time.perf_counter()
        options = self.service.options
        workers = self.workers
        most = options.max_concurrency or engine.options.max_queue_size
        limit = ConcurrencyLimit(most, "Too many requests")
        slots = threading.BoundedSemaphore(options.threads) if options.threads else None
        versions = []
        for served, method in zip(self.endpoints, self.methods, strict=True):
            # What waits for a slot must not do so on the server's own loop.
            is_bounded = slots is not None and not method.is_async and not method.is_stream
            view = EndpointView(method, served.model, "thread" if is_bounded else "")
            runtime: Runtime
            if workers is not None:
                runtime = workers.endpoint(method.name, _batches_of(method, options.threads))
                count = 1
            else:
                runtime = ServiceRuntime(
                    method,
                    self.live.instance,
                    loop=self.live.loop,
                    host=engine.host,
                    view=view,
                    state=self.live.state,
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
        if not self.is_open or not await self._says("__is_ready__"):
            return False
        remote = [each.is_ready() for each in self.live.servers]
        return not remote or all(await asyncio.gather(*remote))

    async def is_alive(self) -> bool:
        """What the service says of itself."""
        return not self.is_open or await self._says("__is_alive__")

    async def _says(self, check: str) -> bool:
        if self.workers is not None and not await self.workers.says(check):
            return False
        return self.live.instance is None or await call_on_thread(self.live.says, check)


class Services:
    """All services of a process.

    Args:
        targets: That hold them; their code is imported here, because routes follow from it.
        spool: For files.
        fetcher: For files that are sent as URLs.
        task_grace_s: How long a cancelled task may go on in a worker; 0 for as long as it likes.
        hang_timeout_s: How long a worker may not be heard of before it is killed and started again,
            in seconds; 0 for ever.

    Raises:
        LoadFailed: A target cannot be imported, or an endpoint cannot be served.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        spool: Spool,
        fetcher: Fetcher,
        task_grace_s: float,
        hang_timeout_s: float,
    ) -> None:
        served: dict[int, RunningService] = {}
        gpus = GpuShares(count_gpus())
        for target in targets:
            for at, service in enumerate(import_services(target)):
                if id(service) not in served:
                    workers = _workers(service, target, at, task_grace_s, hang_timeout_s, gpus)
                    served[id(service)] = RunningService(
                        service, spool=spool, fetcher=fetcher, workers=workers
                    )
        self.served = list(served.values())
        self._order = [
            served.get(id(each)) or RunningService(each, spool=spool, fetcher=fetcher)
            for each in in_order([each.service for each in self.served])
        ]
        here = [each.service for each in self.served if each.workers is None or each.apps]
        self._here = {id(each) for each in in_order(here)}
        self._opened: list[RunningService] = []
        self._place()

    def __repr__(self) -> str:
        return f"<Services {[each.name for each in self.served]}>"

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
        lives: dict[int, LiveService] = {}
        for running in self._order:
            idle = running.service.options.without_effect
            if idle:
                log.info("service %s: %s change nothing here", running.name, ", ".join(idle))
            self._opened.append(running)
            await call_on_thread(running.live.deploy)
            if id(running.service) in self._here:
                lives[id(running.service)] = running.live
                await call_on_thread(running.open, lives)
            if running.workers is not None:
                await running.workers.open(engine.host)
            running.is_open = True
        for running in self.served:
            engine.attach(running.versions(engine))

    def workers(self) -> "list[tuple[str, int, str, RemoteRuntime]]":
        """Every worker process: service, version and name, with itself."""
        return [
            (running.name, 1, name, worker)
            for running in self.served
            if running.workers is not None
            for name, worker in running.workers.members
        ]

    @property
    def ports(self) -> list[int]:
        """Where services say that they want to be found."""
        wanted = [each.service.options.http.get("port") for each in self.served]
        return [int(port) for port in dict.fromkeys(wanted) if port]

    def labels(self) -> dict[str, dict[str, str]]:
        """Give the labels of those services that have any, by their names."""
        return {
            each.name: {str(key): str(value) for key, value in labels.items()}
            for each in self.served
            if (labels := each.service.options.labels)
        }

    def quiet_paths(self) -> frozenset[str]:
        """Give what services want to be left out of the access log."""
        quiet: set[str] = set()
        for each in self.served:
            is_quiet, paths = each.service.options.quiet_access
            quiet.update(paths)
            if is_quiet:
                quiet.update(at.route for at in each.endpoints)
        return frozenset(quiet)

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

    def routes(self, max_upload_bytes: int | None = None) -> list[Route]:
        """Give the routes of the mounted applications."""
        apps = [app for each in self.served for app in each.apps]
        return [route for app in apps for route in app.routes(max_upload_bytes)]

    async def close(self) -> None:
        """Close all, the last one first."""
        while self._opened:
            running = self._opened.pop()
            running.is_open = False
            if running.workers is not None:
                await asyncio.shield(running.workers.close())
            await asyncio.shield(call_on_thread(running.close))


_SHARED_PATHS = ("/schema.json", "/docs.json", "/readyz", "/livez", "/healthz")
"""What the clients of one service need of the paths that are everybody's."""


def _instances(method: Endpoint, threads: int | None) -> int:
    if method.api.batchable or method.is_async or method.is_stream:
        # One batch after another makes full ones; the others need no thread of the engine's.
        return 1
    return threads or DEFAULT_THREADS


def _batches_of(method: Endpoint, threads: int | None) -> int:
    """How many batches one worker takes of an endpoint at a time."""
    if method.api.batchable:
        return 1
    if method.is_async or method.is_stream:
        return MOST_AWAITED
    return threads or DEFAULT_THREADS


def _workers(
    service: Service[Any],
    target: str,
    at: int,
    task_grace_s: float,
    hang_timeout_s: float,
    gpus: GpuShares,
) -> "ServiceWorkers | None":
    """Make the workers that a service wants, none of them started yet."""
    count = service.options.worker_count
    if count == 1:
        return None
    if sys.platform != "linux":
        log.warning("service %s: worker processes need Linux; it runs in this one", service.name)
        return None
    from modelport.runtimes.service_pool import ServiceSetup, ServiceWorkers

    threads = service.options.threads
    setup = ServiceSetup(
        service.name,
        target,
        at,
        threads=threads,
        streams=threads or DEFAULT_THREADS,
        environment=_devices(service, gpus),
        hang_timeout_s=hang_timeout_s,
    )
    return ServiceWorkers(setup, count, grace_s=task_grace_s)


def _devices(service: Service[Any], gpus: GpuShares) -> dict[str, str]:
    """Give the workers of a service the GPUs that it asks for, unless the operator has chosen."""
    share = service.options.gpus
    if not share or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    taken = gpus.take(share)
    if not taken:
        log.warning(
            "service %s asks for gpu=%g, and there is not so much left; its workers see all there "
            "are",
            service.name,
            share,
        )
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, taken))}
