"""WebSockets of mounted ASGI applications, between the server's loop and that of their service.

Both directions are bounded: of what the client sends only so much waits for the application, and
the application waits where the client does not read.

Source: ASGI specification 3.0, "WebSocket Connection Scope", with the extension "Websocket Denial
Response".
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from modelport.server.http import HttpExchange
from modelport.server.websocket import WebSocket, accept_websocket
from modelport.services.loop import ServiceLoop
from modelport.wire.chunked import BadMessage

__all__ = ["converse", "wants_websocket"]

log = logging.getLogger("modelport.services")

MOST_MESSAGE_BYTES = 16 << 20
"""Of one message of a client, as with uvicorn."""
MOST_WAITING = 32
"""Messages that wait for the application before the client has to."""
MOST_WAITING_BYTES = 1 << 20
GONE = 1006
"""The code of an end without a word (RFC 6455 §7.1.5)."""

Message = dict[str, Any]
App = Callable[..., Awaitable[None]]


def wants_websocket(exchange: object) -> bool:
    """Whether a request is the handshake of a WebSocket."""
    return isinstance(exchange, HttpExchange) and exchange.head.upgrade == "websocket"


def converse(app: App, exchange: HttpExchange, loop: ServiceLoop, scope: Message) -> None:
    """Have an application talk with a client, on the loop of its service.

    Args:
        app: That answers.
        exchange: With a handshake.
        loop: Of the service.
        scope: Of a request with GET at the same place.
    """
    offered = exchange.headers.get("sec-websocket-protocol", "")
    names = [name.strip() for name in offered.split(",") if name.strip()]
    own: Message = {
        "type": "websocket",
        "scheme": "wss" if scope["scheme"] == "https" else "ws",
        "subprotocols": names,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "extensions": {"websocket.http.response": {}},
    }
    inherited = {name: value for name, value in scope.items() if name != "method"}
    talk = _Conversation(exchange, asyncio.get_running_loop())
    running = loop.spawn(talk.run(app, inherited | own))
    talk.loop = running.loop
    exchange.on_disconnect = lambda: talk.closed(GONE)


class _Conversation:
    """One WebSocket to an application: ``receive`` and ``send`` between two event loops."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, exchange: HttpExchange, server_loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._server_loop = server_loop
        self._socket: WebSocket | None = None
        # On the application's loop.
        self._waiting: deque[Message] = deque([{"type": "websocket.connect"}])
        # What has come and what has been taken, each counted on one loop alone: the application's
        # may stand still while the client sends.
        self._heard_count = self._heard_bytes = 0
        self._taken_count = self._taken_bytes = 0
        self._arrived: asyncio.Event | None = None
        self._is_accepted = False
        self._is_over = False
        self._denial: tuple[int, list[tuple[str, str]]] | None = None
        self._denial_body = b""

    # On the application's loop.

    async def run(self, app: App, scope: Message) -> None:
        """Call the application; what it raises is logged, and the client told."""
        self._arrived = asyncio.Event()
        if self._waiting:
            self._arrived.set()
        code = 1000
        try:
            await app(scope, self._receive, self._send)
        except Exception as exc:
            if not (self._is_over and isinstance(exc, OSError)):
                log.exception("an application failed at %s", scope["path"])
            code = 1011
        if self._is_over:
            return
        self._is_over = True
        if self._is_accepted:
            self._on_server(self._close, code, "")
        else:
            self._on_server(self._refuse, 403 if code == 1000 else 500, [], b"")

    async def _receive(self) -> Message:
        assert self._arrived is not None
        await self._arrived.wait()
        message = self._waiting[0]
        if message["type"] == "websocket.disconnect":
            # It is said again to whoever asks again.
            return message
        self._waiting.popleft()
        if not self._waiting:
            self._arrived.clear()
        if message["type"] == "websocket.receive":
            self._taken_count += 1
            self._taken_bytes += _size(message)
            if not self._waiting:
                self._on_server(self._resume)
        return message

    async def _send(self, message: Message) -> None:
        if self._is_over:
            raise OSError("the WebSocket is closed")
        match message["type"]:
            case "websocket.accept":
                self._is_accepted = True
                accepting = self._ask_server(self._accept, message)
                if not await accepting:
                    self._is_over = True
                    raise OSError("the client has gone, or sent no handshake")
            case "websocket.send":
                text = message.get("text")
                data = text if text is not None else message.get("bytes") or b""
                await self._ask_server(self._write, data)
            case "websocket.close":
                self._is_over = True
                if self._is_accepted:
                    reason = message.get("reason") or ""
                    self._on_server(self._close, message.get("code", 1000), reason)
                else:
                    self._on_server(self._refuse, 403, [], b"")
            case "websocket.http.response.start":
                headers = _decoded(message.get("headers", ()))
                self._denial = (message["status"], headers)
            case "websocket.http.response.body" if self._denial is not None:
                self._denial_body += message.get("body", b"")
                if not message.get("more_body", False):
                    self._is_over = True
                    self._on_server(self._refuse, *self._denial, self._denial_body)

    def _arrive(self, message: Message) -> None:
        self._waiting.append(message)
        if message["type"] == "websocket.disconnect":
            self._is_over = True
        if self._arrived is not None:
            self._arrived.set()

    def _on_server(self, call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):
            self._server_loop.call_soon_threadsafe(call, *args)

    async def _ask_server(self, call: Callable[..., object], what: object) -> bool:
        """Call something that says whether it has been done, once it has."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()

        def settle(said: bool) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_set, answer, said)

        self._on_server(call, what, settle)
        return await answer

    # On the server's loop.

    def closed(self, code: int) -> None:
        """The client has gone."""
        message = {"type": "websocket.disconnect", "code": code, "reason": ""}
        self._to_app(message)
        socket = self._socket
        if socket is not None and socket.on_writable is not None:
            # Whoever waits for the client to read waits for nothing.
            socket.on_writable()

    def _to_app(self, message: Message) -> None:
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._arrive, message)

    def _accept(self, message: Message, settle: Callable[[bool], None]) -> None:
        chosen = message.get("subprotocol")
        exchange = self._exchange
        if exchange.is_over:
            settle(False)
            return
        try:
            socket = accept_websocket(
                exchange,
                protocols=[chosen] if chosen else (),
                headers=_decoded(message.get("headers", ())),
                max_message_bytes=MOST_MESSAGE_BYTES,
            )
        except BadMessage as exc:
            exchange.respond(exc.status, _TEXT, [str(exc).encode()])
            socket = None
        if socket is not None:
            socket.on_message = self._heard
            socket.on_close = self.closed
            self._socket = socket
        settle(socket is not None)

    def _heard(self, data: str | bytes) -> None:
        kind = "text" if isinstance(data, str) else "bytes"
        message = {"type": "websocket.receive", kind: data}
        self._to_app(message)
        self._heard_count += 1
        self._heard_bytes += _size(message)
        count, size = self._heard_count - self._taken_count, self._heard_bytes - self._taken_bytes
        if self._socket is not None and (count > MOST_WAITING or size > MOST_WAITING_BYTES):
            self._socket.pause()

    def _write(self, data: str | bytes, settle: Callable[[bool], None]) -> None:
        socket = self._socket
        if socket is None or socket.send(data) or socket.is_closed:
            settle(True)
            return

        def go_on() -> None:
            socket.on_writable = None
            settle(True)

        socket.on_writable = go_on

    def _close(self, code: int, reason: str) -> None:
        if self._socket is not None:
            self._socket.close(code, reason)

    def _refuse(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if not self._exchange.is_over:
            self._exchange.respond(status, headers, [body])

    def _resume(self) -> None:
        if self._socket is not None:
            self._socket.resume()


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or "")


def _decoded(headers: Any) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _set(answer: "asyncio.Future[bool]", said: bool) -> None:
    if not answer.done():
        answer.set_result(said)


_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)
