"""ASGI applications that services mount: behind the same door and the same limits as everything.

An application runs on the event loop of its service, so one that blocks holds up its own service
and nobody else. What it sends is handed over to the server's loop, and it waits where the client
does not read; the client waits where the application does not.

Source: ASGI specification 3.0, "HTTP Connection Scope" and "Lifespan".
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from modelport.errors import LoadFailed
from modelport.protocols import bentoml
from modelport.protocols.base import Access, Body, Buffer, Exchange, Route, without_framing
from modelport.server.http.exchange import Asked
from modelport.services.context import current_service
from modelport.services.declaration import Mount
from modelport.services.loop import ServiceLoop
from modelport.wire.http import unquote_component

if TYPE_CHECKING:
    from modelport.server.http import HttpExchange

__all__ = ["MountedApp", "answer_by"]

log = logging.getLogger("modelport.services")

Message = dict[str, Any]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MOST_UNREAD_BYTES = 1 << 20
"""Of a body, that wait for the application before the client has to."""
LIFESPAN_S = 30.0
"""How long an application may take to start or to stop."""


class MountedApp:
    """One application at its place.

    Args:
        mount: As declared.
        prefix: Of its service.
        loop: Of its service.
        middlewares: Around it, the last one outermost.
    """

    def __init__(
        self,
        mount: Mount,
        prefix: str,
        loop: ServiceLoop,
        middlewares: Sequence[tuple[Any, dict[str, Any]]] = (),
    ) -> None:
        app = mount.app
        for middleware, options in middlewares:
            app = middleware(app, **options)
        self._bare = mount.app
        self._app = app
        self._loop = loop
        self._instance: Any = None
        self.path = f"{prefix}{mount.path}".rstrip("/")
        self._stop: asyncio.Event | None = None
        self._started: asyncio.Event | None = None
        self._failure = ""
        self._state: Message = {}

    def __repr__(self) -> str:
        return f"<MountedApp {self.path or '/'}>"

    def routes(self, max_body_bytes: int | None = None) -> list[Route]:
        """Give everything below its path, for every method.

        Args:
            max_body_bytes: Of a request; ``None`` for the server's limit.
        """
        patterns = [f"{self.path}/{{rest:path}}"]
        # At the root, every path of one component is a shape of its own in the table.
        patterns += [self.path] if self.path else ["/", "/{rest}"]
        return [
            Route(
                method=method,
                pattern=pattern,
                access=Access.INFERENCE,
                handler=self._handle,
                errors=bentoml.encode_error,
                body=Body.STREAM,
                max_body_bytes=max_body_bytes,
                tags=frozenset({"head"}) if method == "GET" else frozenset(),
            )
            for method in METHODS
            for pattern in patterns
        ]

    def _handle(self, exchange: Exchange) -> None:
        current_service.set(self._instance)
        if "upgrade" in exchange.headers and self._converse(exchange):
            return
        exchange.receive(answer_by(self._app, exchange, self._loop, self.path, self._state))

    def _converse(self, exchange: Exchange) -> bool:
        """Have the application talk over a WebSocket, if that is what the client wants."""
        from modelport.server.asgi_websocket import converse, wants_websocket

        is_wanted = wants_websocket(exchange)
        if is_wanted:
            scope = _scope(exchange, self.path, self._state)
            converse(self._app, cast("HttpExchange", exchange), self._loop, scope)
        return is_wanted

    # Lifespan; both block.

    def open(self, instance: Any) -> None:
        """Run what the application does at its start.

        Args:
            instance: Of the service; routes that were declared in its class are called with it.

        Raises:
            LoadFailed: It says that it cannot start, or takes too long.
        """
        self._instance = instance
        _bind_routes(self._bare, instance)
        current_service.set(instance)
        self._loop.run(self._open())

    def close(self) -> None:
        """Run what the application does at its end."""
        with contextlib.suppress(Exception):
            self._loop.run(self._close())

    async def _open(self) -> None:
        self._stop, self._started = asyncio.Event(), asyncio.Event()
        self._ended = asyncio.ensure_future(self._run_lifespan())
        started = asyncio.ensure_future(self._started.wait())
        await asyncio.wait(
            (self._ended, started), timeout=LIFESPAN_S, return_when=asyncio.FIRST_COMPLETED
        )
        if self._failure:
            raise LoadFailed(f"the application at {self.path or '/'} failed: {self._failure}")
        if not started.done() and not self._ended.done():
            raise LoadFailed(f"the application at {self.path or '/'} took too long to start")

    async def _close(self) -> None:
        if self._stop is not None:
            self._stop.set()
            await asyncio.wait((self._ended,), timeout=LIFESPAN_S)

    async def _run_lifespan(self) -> None:
        assert self._stop is not None
        assert self._started is not None
        stop, started = self._stop, self._started
        has_begun = False

        async def receive() -> Message:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                return {"type": "lifespan.startup"}
            await stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                self._failure = message.get("message") or "it did not say why"
            if message["type"].startswith("lifespan.startup"):
                started.set()

        # What it keeps here every request finds.
        self._state = {}
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, receive, send)
        except Exception:
            # As the specification has it: one that raises here does not know this protocol.
            log.debug("the application at %s has no lifespan", self.path or "/")


def answer_by(
    app: Any,
    exchange: Exchange,
    loop: ServiceLoop,
    root_path: str = "",
    state: Mapping[str, Any] = MappingProxyType({}),
) -> "_Call":
    """Have an application answer one request, on the loop of its service.

    Returns:
        What takes the body; without one the application waits for it.
    """
    call = _Call(exchange, asyncio.get_running_loop())
    running = loop.spawn(call.run(app, _scope(exchange, root_path, state)))
    call.loop = running.loop

    def left() -> None:
        call.is_gone = True
        running.loop.call_soon_threadsafe(call.disconnected)

    exchange.on_disconnect = left
    return call


def _scope(exchange: Exchange, root_path: str, state: Mapping[str, Any]) -> Message:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in exchange.headers.items()
    ]
    host = exchange.headers.get("host", "localhost")
    name, _, port = host.rpartition(":")
    # A task has no connection.
    asked = exchange if isinstance(exchange, Asked) else None
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": exchange.method,
        "scheme": asked.server.scheme if asked else "http",
        "path": unquote_component(exchange.path),
        "raw_path": exchange.path.encode("latin-1"),
        "query_string": exchange.query.encode("latin-1"),
        "root_path": root_path,
        "headers": headers,
        "client": (asked.peer, 0) if asked and asked.peer else None,
        "server": (name, int(port)) if name and port.isdigit() else (host, None),
        "state": dict(state),
    }


class _Call:
    """One request to an application: ``receive`` and ``send`` between two event loops."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, exchange: Exchange, server_loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._server_loop = server_loop
        self._gone: asyncio.Event | None = None
        # Of the body: what the application has not taken yet, and whether that is all.
        self._pieces: deque[bytes] = deque()
        self._is_whole = False
        self._is_read = False
        self._arrived: asyncio.Event | None = None
        self._unread_bytes = 0
        self._writable: asyncio.Event | None = None
        self._head: tuple[int, list[tuple[str, str]]] | None = None
        self._is_started = False
        self._is_done = False
        self.is_gone = False

    async def run(
        self,
        app: Callable[..., Awaitable[None]],
        scope: Message,
    ) -> None:
        """Call the application; what it raises is logged, and the client told."""
        self._gone, self._writable = asyncio.Event(), asyncio.Event()
        self._arrived = asyncio.Event()
        if self._pieces or self._is_whole:
            self._arrived.set()
        if self.is_gone:
            self.disconnected()
        try:
            await app(scope, self._receive, self._send)
            if not self._is_done:
                self._on_server(self._break_off)
        except BaseException:
            # Also what would end the loop, on which the whole service runs.
            if not self.is_gone:
                log.exception("an application failed at %s", scope["path"])
            self._on_server(self._break_off)

    def disconnected(self) -> None:
        """The client has gone. Called on the loop of the application."""
        if self._gone is not None:
            self._gone.set()
        if self._writable is not None:
            self._writable.set()
        if self._arrived is not None:
            self._arrived.set()

    async def _receive(self) -> Message:
        assert self._gone is not None
        assert self._arrived is not None
        if self._is_read:
            await self._gone.wait()
        await self._arrived.wait()
        if self._gone.is_set():
            return {"type": "http.disconnect"}
        piece = self._pieces.popleft() if self._pieces else b""
        self._is_read = self._is_whole and not self._pieces
        if not self._pieces and not self._is_whole:
            self._arrived.clear()
        self._on_server(self._taken, len(piece))
        return {"type": "http.request", "body": piece, "more_body": not self._is_read}

    def _arrive(self, piece: bytes, is_last: bool) -> None:
        if piece:
            self._pieces.append(piece)
        self._is_whole = self._is_whole or is_last
        if self._arrived is not None:
            self._arrived.set()

    async def _send(self, message: Message) -> None:
        if self.is_gone or self._is_done:
            return
        if message["type"] == "http.response.start":
            headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
            ]
            self._head = (message["status"], headers)
            return
        if message["type"] != "http.response.body" or self._head is None:
            return
        data = message.get("body", b"")
        if not message.get("more_body", False):
            self._is_done = True
            self._on_server(self._finish, data)
            return
        assert self._writable is not None
        self._writable.clear()
        self._on_server(self._write, data, asyncio.get_running_loop())
        await self._writable.wait()

    # On the server's loop.

    def data(self, piece: Buffer) -> None:
        """Take a piece of the body; see :class:`modelport.protocols.base.BodyReceiver`."""
        self._unread_bytes += len(piece)
        if self._unread_bytes > MOST_UNREAD_BYTES:
            self._exchange.hold_body()
        self._to_app(bytes(piece), False)

    def complete(self) -> None:
        """The body has come whole."""
        self._to_app(b"", True)

    def _to_app(self, piece: bytes, is_last: bool) -> None:
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._arrive, piece, is_last)

    def _taken(self, size: int) -> None:
        self._unread_bytes -= size
        if self._unread_bytes <= MOST_UNREAD_BYTES // 2:
            self._exchange.release_body()

    def _on_server(self, call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):
            self._server_loop.call_soon_threadsafe(call, *args)

    def _finish(self, data: bytes) -> None:
        assert self._head is not None
        status, headers = self._head
        if self._is_started:
            if data:
                self._exchange.write(data)
            self._exchange.finish()
            return
        try:
            self._exchange.respond(status, without_framing(headers), [data])
        except ValueError:
            self._refuse_head()

    def _write(self, data: bytes, loop: asyncio.AbstractEventLoop) -> None:
        assert self._head is not None
        assert self._writable is not None
        if not self._is_started:
            try:
                self._exchange.start(self._head[0], without_framing(self._head[1]))
            except ValueError:
                self._refuse_head()
                self.is_gone = True
            self._is_started = True
        writable = self._writable

        def go_on() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(writable.set)

        if not data or self._exchange.write(data) or self.is_gone:
            go_on()
        else:
            self._exchange.on_writable = go_on

    def _refuse_head(self) -> None:
        log.exception("an application gave an answer that cannot be sent")
        self._break_off()

    def _break_off(self) -> None:
        if self._is_started:
            self._exchange.abort()
        else:
            text = b"Internal Server Error"
            self._exchange.respond(500, (("Content-Type", "text/plain; charset=utf-8"),), [text])


def _bind_routes(app: Any, instance: Any) -> None:
    """Give ``self`` to the routes of FastAPI that were declared among the methods of a class.

    FastAPI read their signatures when it met them, and takes ``self`` for something that callers
    send; so they are declared again, as methods of the object.
    """
    routes = getattr(getattr(app, "router", None), "routes", None)
    if routes is None or not hasattr(app, "include_router"):
        return
    members = {id(member) for owner in type(instance).__mro__ for member in vars(owner).values()}
    own = [each for each in routes if id(getattr(each, "endpoint", None)) in members]
    if not own:
        return
    for route in own:
        at = routes.index(route)
        route.endpoint = route.endpoint.__get__(instance)
        router = type(app.router)()
        router.routes.append(route)
        count = len(routes)
        app.include_router(router)
        routes[at : at + 1] = routes[count:]
        del routes[count:]
