"""Composition: from settings to a running server, in one place.

Everything that knows more than one floor meets here and nowhere else. :func:`serve` is what
``modelport serve`` calls; :class:`Server` is the same for tests and for programs that bring their
own event loop.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from modelport._version import __version__
from modelport.clock import SystemClock
from modelport.engine.engine import CLOSE_LIMIT_S, Engine, EngineOptions
from modelport.engine.executor import call_on_thread, new_event_loop
from modelport.engine.regions import Regions
from modelport.engine.tracing import Traces
from modelport.errors import LoadFailed, ModelportError
from modelport.protocols import v2_rest
from modelport.protocols.base import Route
from modelport.repository.options import ControlMode, LoadOptions, RepositoryOptions
from modelport.repository.repository import Repository
from modelport.repository.sources import recognise
from modelport.server import process
from modelport.server.access import AccessDoor
from modelport.server.cors import Cors
from modelport.server.greeting import greeting
from modelport.server.http import Connection, HttpOptions, HttpServer
from modelport.server.lazy_protocols import BENTOML_ROWS, OPS_ROWS, V1_ROWS, routes_later
from modelport.server.logs import AccessLog, Logs, configure_logs
from modelport.server.routing import Router
from modelport.server.settings import Settings
from modelport.server.tls import TlsUnusable, grpc_context, server_context
from modelport.server.trace_config import parse_trace_config
from modelport.server.trace_file import TraceFile
from modelport.services.targets import holds_services
from modelport.specs import Execution
from modelport.wire.http import HttpLimits
from modelport.wire.ovms_images import ImageLimits
from modelport.wire.v2_rest import CodecOptions

if TYPE_CHECKING:
    import ssl

    from modelport.custom_metrics import MetricFamily
    from modelport.engine.tasks import Tasks
    from modelport.protocols.bentoml import Meter, TaskQueue
    from modelport.runtimes.base import RemoteRuntime
    from modelport.server.services import Services
    from modelport.server.tls_listener import TlsListener
    from modelport.server.uploads import Spool
    from modelport.server.webhooks import Webhooks

__all__ = ["Server", "serve"]

log = logging.getLogger("modelport.server")

MOST_UNSENT_BYTES = 65536
"""Bytes of one connection that the kernel takes and cannot send yet."""
IDLE_GRACE_S = 0.5
"""How long a draining server waits for what idle connections may have sent just now."""
PARTING_S = 0.5
"""How long a closing server waits until callers have heard that it cuts their requests off."""


class StartFailed(Exception):
    """The server cannot start; the text is for the operator."""


class Server:
    """All parts of a server, made and joined but not started.

    Args:
        settings: Complete and checked.
        logs: What writes the log, if clients may change it; closed by whoever opened it.
    """

    def __init__(self, settings: Settings, logs: Logs | None = None) -> None:
        self.settings = settings
        self.logs = logs
        self.clock = SystemClock()
        self.engine = Engine(
            EngineOptions(
                execution=cast(Execution, settings.execution),
                max_queue_size=settings.max_queue_size,
                cache_bytes=settings.cache_config.size_bytes if settings.cache_config else 0,
                is_ovms=settings.ovms,
            ),
            self.clock,
        )
        self.regions = Regions() if settings.allow_client_shm else None
        start = parse_trace_config(settings.trace_config)
        self._trace_file = TraceFile(Path(start.file))
        keep = self._trace_file.keep
        self.traces = Traces(start.settings, start.file, keep, self.clock)
        self.engine.trace(self.traces)
        self.repository = _repository(settings, self.engine)
        self._meters: list[Meter] = []
        self.services: Services | None
        self._spool: Spool | None
        self.services, self._spool = _services(settings)
        quiet = self.services.quiet_paths() if self.services is not None else frozenset()
        self._access_log = AccessLog(quiet) if settings.access_log else None
        self._webhooks = _webhooks(settings)
        self.tasks = _tasks(settings, self.services, self._webhooks)
        service_cors = self.services.cors() if self.services is not None else ()
        self._cors = Cors(settings.cors_origin, service_cors)
        self.http = self._listener(self._routes())
        self.grpc = self._listener([])
        self.metrics = self._listener(routes_later(OPS_ROWS, self._ops_routes))
        self.listeners = (self.http, self.grpc, self.metrics)
        self._http2: Mapping[HttpServer, Callable[[], asyncio.Protocol]] | None = None
        for listener in self.listeners:
            listener.http2 = partial(self._speak_http2, listener)
        self.addresses: dict[str, list[tuple[str, int]]] = {"http": [], "grpc": [], "metrics": []}
        self._sockets: list[asyncio.Server | TlsListener] = []
        self._encrypted: list[TlsListener] = []

    def _routes(self) -> list[Route]:
        settings = self.settings
        options = v2_rest.RestOptions(
            server_name=settings.server_name,
            codec=CodecOptions(
                is_strict=settings.strict_triton,
                max_json_bytes=settings.http_max_input_size,
                max_exact_bytes=settings.max_json_size,
                max_json_depth=settings.max_json_depth,
            ),
            max_body_bytes=settings.http_max_input_size,
            is_readiness_strict=settings.strict_readiness,
            forwarded=settings.http_header_forward_pattern,
            is_ovms=settings.ovms,
            images=_image_limits(settings),
            regions=self.regions,
            logs=self.logs,
            traces=self.traces,
        )
        return [
            *v2_rest.routes(self.engine, options),
            *routes_later(V1_ROWS, self._v1_routes),
            *routes_later(OPS_ROWS, self._ops_routes),
            *(
                routes_later(BENTOML_ROWS, self._bentoml_routes)
                if self.services is None
                else [*self._bentoml_routes(), *self.services.routes(self.settings.max_upload_size)]
            ),
        ]

    def _v1_routes(self) -> list[Route]:
        from modelport.protocols import v1

        settings = self.settings
        options = v1.V1Options(
            forwarded=settings.http_header_forward_pattern,
            is_ovms=settings.ovms,
            images=_image_limits(settings),
            max_body_bytes=settings.http_max_input_size,
            max_json_depth=settings.max_json_depth,
            max_json_bytes=settings.max_json_size,
        )
        return v1.routes(self.engine, options)

    def _bentoml_routes(self) -> list[Route]:
        from modelport.protocols import bentoml

        return bentoml.routes(
            self.engine,
            self.services.served if self.services is not None else (),
            tasks=self._task_routes(),
            max_upload_bytes=self.settings.max_upload_size,
            max_json_bytes=self.settings.max_json_size,
            meters=self._meters,
        )

    def _task_routes(self) -> "TaskQueue | None":
        if self.tasks is None:
            return None
        from modelport.protocols.bentoml.tasks import TaskRoutes

        return TaskRoutes(
            self.engine,
            self.tasks,
            concurrency=self.settings.task_concurrency,
            now_ns=self.clock.now_ns,
            max_upload_bytes=self.settings.max_upload_size,
            max_json_bytes=self.settings.max_json_size,
            check_webhook=self._webhooks.check if self._webhooks is not None else None,
        )

    def _speak_http2(self, listener: HttpServer) -> asyncio.Protocol:
        """Take over a connection that begins as HTTP/2 does; the first one brings all it needs."""
        if self._http2 is None:
            from modelport.protocols.v2.options import V2Options
            from modelport.server.http2_servers import http2_servers

            settings = self.settings
            options = V2Options(
                server_name=settings.server_name,
                is_readiness_strict=settings.strict_readiness,
                forwarded=settings.grpc_header_forward_pattern,
                is_ovms=settings.ovms,
                images=_image_limits(settings),
                regions=self.regions,
                logs=self.logs,
                traces=self.traces,
            )
            self._http2 = http2_servers(
                self.engine,
                settings,
                options,
                self.clock,
                calling=(self.http, self.grpc),
                plain=(self.metrics,),
            )
        return self._http2[listener]()

    def _ops_routes(self) -> list[Route]:
        from modelport.protocols import ops

        options = ops.OpsOptions(
            metrics=self.settings.metrics_config,
            open_connections=lambda: len(self.http.connections) + len(self.grpc.connections),
            workers=self._workers,
            custom_metrics=self._custom_metrics,
            cache=self.engine.cache,
        )
        return ops.routes(self.engine, options)

    def _workers(self) -> list[tuple[str, int, str, "RemoteRuntime"]]:
        services = self.services.workers() if self.services is not None else []
        return self.engine.workers() + services

    def _custom_metrics(self) -> list["MetricFamily"]:
        families = self.engine.custom_metrics.families()
        if not self._meters:
            return families
        from modelport.protocols.bentoml import families_of, family_of_labels, family_of_tasks

        families = [*families, *families_of(self._meters, self._batches_of)]
        labelled = self.services.labels() if self.services is not None else {}
        if labelled:
            families.append(family_of_labels(labelled))
        return families if self.tasks is None else [*families, family_of_tasks(self.tasks.counts())]

    def _batches_of(self, model: str) -> Mapping[int, int]:
        """Say how many batches of how many rows a model has had."""
        deployments = self.engine.deployments(model)
        statistics = deployments[0].statistics.batch_stats if deployments else {}
        return {rows: batch.count for rows, batch in statistics.items()}

    def _listener(self, routes: list[Route]) -> HttpServer:
        settings = self.settings
        options = HttpOptions(
            limits=HttpLimits(
                head_bytes=settings.max_header_bytes, body_bytes=settings.http_max_input_size
            ),
            idle_timeout_s=settings.idle_timeout_secs,
            head_timeout_s=settings.header_timeout_secs,
            body_timeout_s=settings.body_timeout_secs,
            max_connections=settings.max_connections,
        )
        return HttpServer(
            Router(routes),
            AccessDoor.from_settings(settings, self._cors),
            v2_rest.encode_error,
            self.clock,
            options,
            self._access_log.record if self._access_log is not None else None,
            self._cors,
        )

    async def open(self) -> None:
        """Listen, then load; from the first moment the server says that it is live and not ready.

        Raises:
            StartFailed: If a port cannot be had, or a model fails while ``exit_on_error`` is set.
        """
        settings = self.settings
        context = server_context(settings)
        ports = [settings.http_port] if settings.http_port is not None else []
        if self.services is not None and settings.http_port == Settings.http_port:
            # The operator left the choice to us, so that of the author counts as well.
            ports += [port for port in self.services.ports if port not in ports]
        for port in (*ports, *settings.extra_port):
            await self._listen("http", self.http, port, context)
        if settings.grpc_port is not None:
            await self._listen("grpc", self.grpc, settings.grpc_port, grpc_context(settings))
            self.grpc.not_found = _no_rest_here([port for _, port in self.addresses["http"]])
        if settings.metrics_port is not None:
            await self._listen("metrics", self.metrics, settings.metrics_port, context)
        for listener in self.listeners:
            listener.open()
        if self.services is not None:
            await self.services.open(self.engine)
        if self.tasks is not None:
            await self.tasks.open()
        await self.engine.open(self.repository)
        # Each has been logged when it failed.
        failures = self.repository.failures
        if failures and settings.exit_on_error:
            names = ", ".join(sorted(failures))
            raise StartFailed(
                f"{len(failures)} of the models failed to load: {names}. Mend them, or start with "
                "--exit-on-error=false to serve the others"
            )

    async def _listen(
        self, kind: str, server: HttpServer, port: int, context: "ssl.SSLContext | None"
    ) -> None:
        host = self.settings.host
        server.scheme = "http" if context is None else "https"
        listening: asyncio.Server | TlsListener
        try:
            if context is None:
                listening = await asyncio.get_running_loop().create_server(
                    partial(Connection, server), host, port, backlog=2048, reuse_address=True
                )
            else:
                listening = await self._listen_encrypted(server, port, context)
        except OSError as exc:
            raise StartFailed(
                f"cannot listen on {host} port {port} for {kind}: {exc.strerror or exc}; is "
                f"another server running there? Choose another port with --{kind}-port, 0 for any"
            ) from exc
        for listener in listening.sockets:
            _bound_unsent_bytes(listener.fileno())
        self._sockets.append(listening)
        self.addresses[kind] += [listener.getsockname()[:2] for listener in listening.sockets]

    async def _listen_encrypted(
        self, server: HttpServer, port: int, context: "ssl.SSLContext"
    ) -> "TlsListener":
        from modelport.server.tls_listener import TlsListener

        listening = TlsListener(server, context, partial(Connection, server))
        await listening.open(self.settings.host, port)
        self._encrypted.append(listening)
        return listening

    async def drain(self) -> bool:
        """Finish what has come, take nothing new.

        Readiness is false at once. Connections are closed after the answer to the request that
        they carry, or, if they carry none, after a moment in which one may still arrive.

        Returns:
            Whether all was finished within ``exit_timeout_secs``.
        """
        self.engine.is_exiting = True
        for listening in self._sockets:
            listening.close()
        for listener in self.listeners:
            listener.is_draining = True
        try:
            async with asyncio.timeout(self.settings.exit_timeout_secs):
                await asyncio.sleep(IDLE_GRACE_S)
                await self._answered()
                if self.tasks is not None:
                    await self.tasks.close(self.settings.exit_timeout_secs / 2)
                await self.engine.drain()
        except TimeoutError:
            return False
        return True

    async def _answered(self) -> None:
        """Wait until every connection has had its answer and is closed."""
        while True:
            for listener in self.listeners:
                listener.drain()
            if not any(listener.connections for listener in self.listeners):
                break
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Give everything back; what is not finished by now fails."""
        for listening in self._sockets:
            listening.close()
        if self.tasks is not None:
            await self.tasks.close()
        self.engine.cut_off()
        with contextlib.suppress(TimeoutError):
            # Callers hear that the server exits, as far as they listen.
            async with asyncio.timeout(PARTING_S):
                await self._answered()
        for encrypted in self._encrypted:
            encrypted.abort()
        for listener in self.listeners:
            listener.close()
        await self.engine.close()
        if self.regions is not None:
            self.regions.unregister()
        self._trace_file.close()
        if self.services is not None:
            await self.services.close()
        if self._spool is not None:
            self._spool.close()
        if self._access_log is not None:
            self._access_log.close()


def _bound_unsent_bytes(listening: int) -> None:
    """Have the kernel take only so much of an answer ahead of its client's reading.

    Otherwise a client that reads nothing costs up to 4 MB of kernel memory, which nobody counts.
    What is under way to the client is not bounded by this. Accepted connections inherit it.
    """
    # Windows knows no such bound.
    with socket.socket(fileno=os.dup(listening)) as listener, contextlib.suppress(AttributeError):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT_BYTES)


def serve(settings: Settings) -> int:
    """Serve until a signal says stop.

    Returns:
        The exit status: 0 when all requests were finished, 1 when the server could not start or
        the exit timeout cut requests off, 130 when interrupted a second time.
    """
    logs = configure_logs(settings)
    process.tune()
    try:
        server = Server(_within_system(settings), logs)
    except (ModelportError, StartFailed) as exc:
        log.error("%s", exc)
        return 1
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(server, logs))


def _within_system(settings: Settings) -> Settings:
    """Take no more connections than there can be open files, so that models find theirs."""
    ports = [settings.grpc_port, settings.metrics_port]
    listeners = sum(port is not None for port in ports)
    listeners += settings.http_port is not None or bool(settings.extra_port)
    most = max(1, process.allow_connections(settings.max_connections * listeners) // listeners)
    if most >= settings.max_connections:
        return settings
    log.warning(
        "the system lets this process open so few files that --max-connections is %d, not %d; "
        "raise the limit (ulimit -Hn, LimitNOFILE=)",
        most,
        settings.max_connections,
    )
    return replace(settings, max_connections=most)


async def _serve(server: Server, logs: Logs) -> int:
    stop = asyncio.Event()
    with _stopping(stop.set):
        try:
            started = asyncio.ensure_future(server.open())
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait((started, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not started.done():
                log.info("stopping: models that load are waited for, %g s at most", CLOSE_LIMIT_S)
                started.cancel()
                await asyncio.gather(started, return_exceptions=True)
                return 0
            started.result()
            # What was made at start stays: the collector need not look at it again.
            gc.freeze()
            gc.enable()
            trimming = asyncio.ensure_future(process.trim_when_idle(server.http, server.grpc))
            if not server.settings.quiet:
                logs.flush()  # so that the greeting does not stand among its lines
                print(greeting(server.engine, server.addresses, server.settings), flush=True)
            log.info("ready: Modelport %s", __version__)
            await stopping
            log.info("stopping: requests in flight are finished, new ones are not taken")
            trimming.cancel()
            if await server.drain():
                return 0
            log.error("Exit timeout expired. Exiting immediately.")
            return 1
        except (StartFailed, TlsUnusable, LoadFailed) as exc:
            log.error("%s", exc)
            return 1
        finally:
            await server.close()


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM and SIGINT call ``stop``; a second SIGINT interrupts at once."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        stop()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _image_limits(settings: Settings) -> ImageLimits:
    # Decoded, images may take what they could have been sent as in the first place.
    return ImageLimits(pixels=settings.max_image_pixels, tensor_bytes=settings.http_max_input_size)


def _services(settings: Settings) -> "tuple[Services | None, Spool | None]":
    """Import the services among the targets; without any, nothing of theirs is imported."""
    targets = [target for target in settings.targets if holds_services(target)]
    if not targets:
        return None, None
    from modelport.server.fetching import Fetcher
    from modelport.server.services import Services
    from modelport.server.uploads import Spool

    most = settings.max_spool_size
    root = Path(settings.data_dir).expanduser() / "spool"
    spool = Spool(root, most_bytes=most, most_principal_bytes=most // 4)
    fetcher = Fetcher(settings.url_allow, most_bytes=settings.max_upload_size)
    services = Services(
        targets,
        spool=spool,
        fetcher=fetcher,
        task_grace_s=settings.task_cancel_grace_secs,
        hang_timeout_s=settings.worker_hang_timeout_secs,
    )
    return services, spool


def _webhooks(settings: Settings) -> "Webhooks | None":
    if not settings.task_webhook_allow:
        return None
    from modelport.server.webhooks import Webhooks

    return Webhooks(settings.task_webhook_allow, settings.task_webhook_secret, time.time)


def _tasks(
    settings: Settings, services: "Services | None", webhooks: "Webhooks | None"
) -> "Tasks | None":
    """Open the store of tasks, if there is anything that can be submitted."""
    served = services.served if services is not None else ()
    if not any(endpoint.is_task for service in served for endpoint in service.endpoints):
        return None
    import sqlite3

    from modelport.engine.tasks import TaskOptions, Tasks
    from modelport.stores.tasks import SqliteTasks

    path = Path(settings.data_dir).expanduser() / "tasks.sqlite"
    try:
        store = SqliteTasks(
            path,
            time.time,
            most_queued=settings.task_queue_size,
            most_queued_each=settings.task_queue_size_per_key or None,
            most_bytes=settings.task_store_size,
        )
    except (OSError, sqlite3.Error) as exc:
        raise StartFailed(
            f"tasks cannot be kept in {path}: {exc}; choose another folder with --data-dir"
        ) from exc
    options = TaskOptions(lease_s=settings.task_lease_secs, keep_s=settings.task_retention_secs)
    return Tasks(store, options, webhooks.deliver if webhooks is not None else None)


def _no_rest_here(http_ports: Sequence[int]) -> str:
    """What HTTP requests hear on the port of gRPC: whoever opened only that one expects them."""
    ports = " or ".join(str(port) for port in dict.fromkeys(http_ports))
    if not ports:
        return "Not Found. This port answers gRPC only, and REST has none; --http-port opens one."
    return (
        f"Not Found. This port answers gRPC only; REST is answered on port {ports}. The ports of "
        "HTTP answer gRPC as well, and --extra-port opens more of them."
    )


def _repository(settings: Settings, engine: Engine) -> Repository:
    options = RepositoryOptions(
        control_mode=ControlMode(settings.model_control_mode),
        load_models=settings.load_model,
        config_name=settings.model_config_name or "",
        poll_s=settings.repository_poll_secs,
        load=LoadOptions(
            auto_complete=not settings.disable_auto_complete_config,
            allow_pickle=settings.allow_pickle_models,
            allow_code_overrides=settings.allow_code_overrides,
            default_max_batch_size=settings.default_max_batch_size,
            execution=cast(Execution, settings.execution),
            hang_timeout_s=settings.worker_hang_timeout_secs,
        ),
    )
    return Repository(
        [recognise(target) for target in settings.targets if not holds_services(target)],
        options,
        engine.host,
        engine,
        call_on_thread,
    )
