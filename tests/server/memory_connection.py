"""A connection in memory: a loop that is turned by hand, a transport without a socket, a client."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httptools

from modelport.clock import Clock
from modelport.errors import ModelportError, Unauthenticated
from modelport.protocols.base import Access, Exchange, Reply, Route, Rpc
from modelport.protocols.v2_rest.replies import encode_error
from modelport.server.cors import Cors
from modelport.server.http import Connection, HttpExchange, HttpOptions, HttpServer
from modelport.server.routing import Router
from modelport.server.websocket import WebSocket, accept_websocket
from modelport.testing.clock import ManualClock
from modelport.wire.http import RequestHead


class HandTurnedLoop:
    """Runs what was put off when the test says so."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._ready: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[int, int, Callable[[], None]]] = []

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self._ready.append(lambda: callback(*args))

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> "_Timer":
        due_ns = self.clock.now_ns() + round(delay * 1e9)
        row = (due_ns, len(self._timers), lambda: callback(*args))
        self._timers.append(row)
        return _Timer(self._timers, row)

    def turn(self) -> None:
        """Run what is due until nothing is."""
        while self._ready:
            self._ready.popleft()()

    @property
    def has_work(self) -> bool:
        """Whether anything is ready."""
        return bool(self._ready)

    def turn_once(self) -> None:
        """Run what is ready now."""
        for _ in range(len(self._ready)):
            self._ready.popleft()()

    def advance(self, seconds: float) -> None:
        """Let time pass and run the timers in their order."""
        self.turn()
        until_ns = self.clock.now_ns() + round(seconds * 1e9)
        while due := [row for row in self._timers if row[0] <= until_ns]:
            row = min(due, key=lambda row: row[:2])
            self._timers.remove(row)
            self.clock.advance(max(0, row[0] - self.clock.now_ns()) / 1e9)
            row[2]()
            self.turn()
        self.clock.advance((until_ns - self.clock.now_ns()) / 1e9)


class _Timer:
    def __init__(self, timers: list[Any], row: Any) -> None:
        self._timers, self._row = timers, row

    def cancel(self) -> None:
        if self._row in self._timers:
            self._timers.remove(self._row)


@contextmanager
def turning(loop: HandTurnedLoop) -> Iterator[None]:
    """Have ``loop`` be the running one."""
    asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, loop))
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


class MemoryTransport(asyncio.Transport):
    """Keeps what is written until the client reads it, and says when that is too much."""

    def __init__(self, loop: HandTurnedLoop) -> None:
        super().__init__({"peername": ("10.0.0.1", 50000)})
        self._loop = loop
        self._high = 65_536
        self._is_full = False
        self.protocol: Any
        self.unread = bytearray()
        self.writes: list[bytes] = []
        self.is_stuck = False
        self.has_eof = False
        self.reads = True
        self.is_closed = False
        self.is_aborted = False
        self.is_lost = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 65_536

    def get_write_buffer_size(self) -> int:
        return len(self.unread) if self.is_stuck else 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_lost, "written to a lost connection"
        assert not self.has_eof, "written after the end"
        self.writes.append(bytes(data))
        self.unread += data
        if self.is_stuck and len(self.unread) > self._high and not self._is_full:
            self._is_full = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_eof = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            if not self.get_write_buffer_size():
                self._loop.call_soon(self.lose)

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True
        self._loop.call_soon(self.lose)

    def lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connection_lost(None)

    def feed(self, data: bytes) -> None:
        """Have the server receive, in the way that its protocol wants."""
        while data and hasattr(self.protocol, "get_buffer"):
            buffer = memoryview(self.protocol.get_buffer(-1))
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            self.protocol.buffer_updated(count)
            data = data[count:]
        if data:
            self.protocol.data_received(data)

    def drain(self, size: int) -> bytes:
        """Have the client read."""
        taken = bytes(self.unread[:size])
        del self.unread[:size]
        if self._is_full and len(self.unread) <= self._high // 4 and not self.is_lost:
            self._is_full = False
            self.protocol.resume_writing()
        if self.is_closed and not self.unread:
            self._loop.call_soon(self.lose)
        return taken


@dataclass
class Answer:
    """One answer, as llhttp reads it."""

    status: int = 0
    headers: dict[str, str] = None  # type: ignore[assignment]  # filled by the parser
    body: bytes = b""
    is_whole: bool = False


class _AnswerReader:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.answers.append(Answer(headers={}))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answers[-1].headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.answers[-1].status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.answers[-1].body += data

    def on_message_complete(self) -> None:
        self.answers[-1].is_whole = True


class Client:
    """The other end of a connection."""

    def __init__(self, server: "TestServer") -> None:
        self.loop = server.loop
        self.transport = MemoryTransport(server.loop)
        self.connection = Connection(server.http)
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)
        self.received = b""

    def send(self, *pieces: bytes) -> "Client":
        """Send pieces one after another, each in a turn of the loop."""
        for piece in pieces:
            if not self.transport.is_lost:
                self.transport.feed(piece)
            self.loop.turn()
        return self

    def end(self) -> None:
        """Send no more."""
        if not self.transport.protocol.eof_received():
            self.transport.close()
        self.loop.turn()

    def leave(self) -> None:
        """Be gone."""
        self.transport.lose()
        self.loop.turn()

    def read(self, size: int = 1 << 30) -> bytes:
        """Take what has come."""
        taken = self.transport.drain(size)
        self.loop.turn()
        self.received += taken
        return taken

    @property
    def answers(self) -> list[Answer]:
        """All that has come, as answers."""
        while self.read():
            pass
        reader = _AnswerReader()
        reader.parser.feed_data(self.received)
        return reader.answers

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    def is_closed(self) -> bool:
        return self.transport.is_closed

    def has_ended(self) -> bool:
        """Whether the server says no more."""
        return self.transport.is_closed or self.transport.has_eof


class TestServer:
    """A server with routes for trying things, and its time.

    Attributes:
        sockets: That ``/socket`` has accepted; they echo.
        waiting: Exchanges that ``/later`` has left to the test.
        seen: Bodies that came to ``/echo`` and ``/later``.
    """

    __test__ = False

    def __init__(
        self,
        options: HttpOptions | None = None,
        cors: Cors | None = None,
        clock: Clock | None = None,
    ) -> None:
        # Time does not begin at zero, and answers far apart are written at once.
        self.clock = ManualClock(10**12)
        self.loop = HandTurnedLoop(self.clock)
        self.waiting: list[Exchange] = []
        self.seen: list[bytes] = []
        self.sockets: list[WebSocket] = []
        self.http = HttpServer(
            Router(self._routes()), self, encode_error, clock or self.clock,
            options or HttpOptions(), None, cors,
        )  # fmt: skip

    def admit(self, head: RequestHead, route: Route | Rpc) -> str:
        """Be the door."""
        if route.access is not Access.PUBLIC and "x-stranger" in head.headers:
            raise Unauthenticated("a key is required")
        return head.headers.get("x-name", "")

    def client(self) -> Client:
        return Client(self)

    def _routes(self) -> list[Route]:
        rows = [
            ("GET", "/hello", self._hello, None),
            ("POST", "/echo", self._echo, None),
            ("POST", "/small", self._echo, 10),
            ("GET", "/later", self._later, None),
            ("POST", "/later", self._later, None),
            ("GET", "/boom", self._boom, None),
            ("GET", "/mute", self._boom, None),
            ("GET", "/fail", self._fail, None),
            ("GET", "/name/{name}", self._name, None),
            ("GET", "/socket", self._socket, None),
        ]
        return [
            Route(
                method=method,
                pattern=pattern,
                access=Access.INFERENCE,
                handler=handler,
                errors=_cannot_say if pattern == "/mute" else encode_error,
                max_body_bytes=most,
                tags=frozenset({"head"} if pattern == "/hello" else ()),
            )
            for method, pattern, handler, most in rows
        ]

    def _hello(self, exchange: Exchange) -> None:
        exchange.respond(200, (("Content-Type", "text/plain"),), [b"hello"])

    def _echo(self, exchange: Exchange) -> None:
        body = bytes(exchange.body)
        self.seen.append(body)
        exchange.respond(200, (), [body])

    def _later(self, exchange: Exchange) -> None:
        self.seen.append(bytes(exchange.body))
        self.waiting.append(exchange)

    def _boom(self, exchange: Exchange) -> None:
        raise RuntimeError("a secret of the server")

    def _fail(self, exchange: Exchange) -> None:
        raise ModelportError("what the caller may know")

    def _socket(self, exchange: Exchange) -> None:
        assert isinstance(exchange, HttpExchange)
        socket = accept_websocket(exchange, protocols=["echo"], max_message_bytes=1000)
        if socket is not None:
            socket.on_message = socket.send
            self.sockets.append(socket)

    def _name(self, exchange: Exchange) -> None:
        text = f"{exchange.method} {exchange.params['name']} {exchange.query} {exchange.principal}"
        exchange.respond(200, (), [text.encode()])


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    """Write a request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def post(path: str, body: bytes, *lines: str) -> bytes:
    """Write a request with a counted body."""
    return get(path, f"Content-Length: {len(body)}", *lines, method="POST") + body


def _cannot_say(error: ModelportError) -> Reply:
    raise ImportError("a protocol that is not there")
