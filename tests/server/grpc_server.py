"""A server with a few methods of gRPC and a few routes, for clients that we did not write."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from modelport.clock import Clock, SystemClock
from modelport.engine.executor import new_event_loop
from modelport.errors import ModelportError, Unauthenticated
from modelport.protocols.base import Access, Buffer, Call, Exchange, Receiver, Route, Rpc
from modelport.protocols.v2_rest.replies import encode_error
from modelport.server.deadlines import Deadlines
from modelport.server.grpc import GrpcOptions, GrpcServer
from modelport.server.http import Connection, Door, HttpOptions, HttpServer
from modelport.server.http2_options import Http2Options
from modelport.server.http2_server import Http2Server
from modelport.server.routing import Router
from modelport.wire.http import RequestHead


def error_status(error: ModelportError) -> tuple[int, str]:
    return (16 if isinstance(error, Unauthenticated) else 3), str(error)


class Echoes:
    """Echoes message by message; ``wait`` is not welcome until ``go`` is called."""

    def __init__(self, call: Call, server: "Methods") -> None:
        self.call = call
        self.server = server

    def message(self, data: Buffer) -> bool:
        text = bytes(data)
        self.server.seen.append(text)
        if text == b"fail":
            raise ModelportError("failed on request")
        if text == b"boom":
            raise RuntimeError("a secret of the server")
        self.call.send([text])
        return text != b"wait"

    def half_closed(self) -> None:
        self.server.seen.append(b"half-closed")
        self.call.finish()


class Methods:
    """Rows for the tables, and what came to them.

    Attributes:
        seen: Messages of ``Echoes``.
        waiting: Calls of ``Later``, to be answered by the test.
        cancelled: Paths of calls that were cancelled.
    """

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.waiting: list[Call] = []
        self.cancelled: list[str] = []
        self.exchanges: list[Exchange] = []

    def rpcs(self) -> list[Rpc]:
        unary: dict[str, Callable[[Call, Buffer], None]] = {
            "Echo": self._echo,
            "Big": self._big,
            "Many": self._many,
            "Later": self._later,
            "Refuse": self._refuse,
            "Boom": self._boom,
            "Metadata": self._metadata,
        }
        rows = [
            Rpc(path=f"/t.Test/{name}", access=Access.INFERENCE, errors=error_status, unary=method)
            for name, method in unary.items()
        ]
        stream = Rpc(
            path="/t.Test/Echoes",
            access=Access.INFERENCE,
            errors=error_status,
            stream=self._echoes,
        )
        load = Rpc(
            path="/t.Test/Load",
            access=Access.MODEL_REPOSITORY,
            errors=error_status,
            unary=self._echo,
        )
        return [*rows, stream, load]

    def _echoes(self, call: Call) -> Receiver:
        self.waiting.append(call)
        call.on_cancel = lambda: self.cancelled.append(call.path)
        return Echoes(call, self)

    def _echo(self, call: Call, message: Buffer) -> None:
        call.send([message])
        call.finish()

    def _big(self, call: Call, message: Buffer) -> None:
        """Send as many bytes as the message says, in pieces."""
        size = int(bytes(message))
        call.send([bytes(size // 2), memoryview(bytes(size - size // 2))])
        call.finish(0, "", [("x-size", str(size))])

    def _many(self, call: Call, message: Buffer) -> None:
        """Send as many messages as the message says, as the client reads them."""
        numbers = iter(range(int(bytes(message))))

        def send() -> None:
            for number in numbers:
                if not call.send([b"%d" % number, bytes(1000)]):
                    return
            call.finish()

        call.on_writable = send
        call.on_cancel = lambda: self.cancelled.append(call.path)
        send()

    def _later(self, call: Call, message: Buffer) -> None:
        call.on_cancel = lambda: self.cancelled.append(call.path)
        self.waiting.append(call)

    def _refuse(self, call: Call, message: Buffer) -> None:
        raise ModelportError("100 % not so: ünïcode\nand a line")

    def _boom(self, call: Call, message: Buffer) -> None:
        raise RuntimeError("a secret of the server")

    def _metadata(self, call: Call, message: Buffer) -> None:
        lines = [f"{name}={value}" for name, value in sorted(call.metadata.items())]
        call.send(["\n".join(lines).encode()])
        call.finish(0, "", [("x-trailer", "1"), ("x-trailer-bin", "AQI=")])

    def routes(self) -> list[Route]:
        rows = [
            ("GET", "/hello", self._hello),
            ("POST", "/echo", self._echo_body),
            ("GET", "/stream", self._stream),
            ("GET", "/later", self._later_exchange),
        ]
        return [
            Route(
                method=method,
                pattern=pattern,
                access=Access.INFERENCE,
                handler=handler,
                errors=encode_error,
                tags=frozenset({"head"}),
            )
            for method, pattern, handler in rows
        ]

    def _hello(self, exchange: Exchange) -> None:
        exchange.respond(200, (("Content-Type", "text/plain"),), [b"hello"])

    def _echo_body(self, exchange: Exchange) -> None:
        exchange.respond(200, (), [exchange.body])

    def _stream(self, exchange: Exchange) -> None:
        exchange.start(200, (("Content-Type", "text/plain"),))
        for number in range(5):
            exchange.write(b"%d\n" % number)
        exchange.finish()

    def _later_exchange(self, exchange: Exchange) -> None:
        exchange.on_disconnect = lambda: self.cancelled.append(exchange.path)
        self.exchanges.append(exchange)


class OpenDoor:
    """Lets everybody in but strangers."""

    def admit(self, head: RequestHead, row: Route | Rpc) -> str:
        if "x-stranger" in head.headers:
            raise Unauthenticated("a key is required")
        return head.headers.get("x-name", "")


def make_server(
    methods: Methods,
    *,
    clock: Clock | None = None,
    door: Door | None = None,
    http: HttpOptions | None = None,
    http2: Http2Options | None = None,
    grpc: GrpcOptions | None = None,
) -> HttpServer:
    """Put the floors together, as ``server/build.py`` does."""
    clock = clock or SystemClock()
    door = door or OpenDoor()
    server = HttpServer(Router(methods.routes()), door, encode_error, clock, http or HttpOptions())
    deadlines = Deadlines(clock)
    calls = GrpcServer(methods.rpcs(), door, server, deadlines, grpc or GrpcOptions())
    server.http2 = Http2Server(server, calls, http2 or Http2Options())
    return server


class Running:
    """A server on a thread of its own."""

    def __init__(self, server: HttpServer, context: ssl.SSLContext | None) -> None:
        self.server = server
        self.port = 0
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def call(self, run: Callable[[], object]) -> None:
        """Run something on the loop."""
        assert self._loop is not None
        done = threading.Event()

        def run_it() -> None:
            run()
            done.set()

        self._loop.call_soon_threadsafe(run_it)
        assert done.wait(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        listening = await self._loop.create_server(
            partial(Connection, self.server), "127.0.0.1", 0, ssl=self._context
        )
        self.port = listening.sockets[0].getsockname()[1]
        self.server.open()
        self._is_up.set()
        await self._stop.wait()
        listening.close()
        self.server.close()
        await asyncio.sleep(0.01)

    def start(self) -> None:
        self._thread.start()
        assert self._is_up.wait(10)

    def stop(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def running(server: HttpServer, context: ssl.SSLContext | None = None) -> Iterator[Running]:
    """Serve on a free port until the end of the block."""
    here = Running(server, context)
    here.start()
    try:
        yield here
    finally:
        here.stop()
