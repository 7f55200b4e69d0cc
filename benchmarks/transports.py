"""What an exchange costs by the HTTP libraries that a client can be built on, and by our own.

``python -m benchmarks.transports`` prints microseconds per exchange, medians of the rounds, against
one small server in a process of its own. Libraries that are not installed are left out
(``pip install 'modelport[bench]'`` brings them).
"""

import asyncio
import http.client
import importlib.util
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import httptools

from benchmarks import machine, servers
from benchmarks.servers import Server
from modelport.client.flows import Request
from modelport.client.transports.asynchronous import AsyncClient, AsyncStream
from modelport.client.transports.blocking import BlockingStream, Client

ROUNDS = 5
ROUND_S = 0.4
LARGE = bytes(1 << 20)
CHUNKS, CHUNK_BYTES = 500, 1_000


@dataclass(frozen=True)
class Case:
    """One kind of exchange.

    Attributes:
        path: Which of the server's answers.
        body: What is sent.
        answer_bytes: How much comes back.
        is_stream: Whether it is taken piece by piece.
    """

    path: str
    body: bytes
    answer_bytes: int
    is_stream: bool = False


CASES = {
    "small": Case("/small", b"x" * 100, 20),
    "1 MB up": Case("/small", LARGE, 20),
    "1 MB down": Case("/large", b"x", len(LARGE)),
    "500 chunks": Case("/stream", b"x", CHUNKS * CHUNK_BYTES, is_stream=True),
}

Exchange = Callable[[Case], int]
AsyncExchange = Callable[[Case], Awaitable[int]]


class Answering(asyncio.Protocol):
    """The server: answers by path, and reads bodies without looking at them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode()

    def on_message_complete(self) -> None:
        self._transport.write(ANSWERS[self._path])  # type: ignore[attr-defined]


def _counted(body: bytes) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    )
    return head % len(body) + body


_CHUNK = b"%x\r\n" % CHUNK_BYTES + bytes(CHUNK_BYTES) + b"\r\n"
ANSWERS = {
    "/small": _counted(bytes(20)),
    "/large": _counted(LARGE),
    "/stream": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _CHUNK * CHUNKS
    + b"0\r\n\r\n",
}


async def serve(port: int) -> None:
    """Answer until killed."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
    await server.serve_forever()


# Blocking ways.


@contextmanager
def by_modelport(port: int) -> Iterator[Exchange]:
    """By our own sockets and parser."""
    client = Client(30)

    def exchange(case: Case) -> int:
        request = Request("POST", f"http://127.0.0.1:{port}{case.path}", body=case.body)
        answer = client.send(request, wants_stream=case.is_stream)
        if isinstance(answer.stream, BlockingStream):
            return sum(map(len, answer.stream))
        return len(answer.body)

    yield exchange
    client.close()


@contextmanager
def by_http_client(port: int) -> Iterator[Exchange]:
    """By the standard library."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def exchange(case: Case) -> int:
        connection.request("POST", case.path, case.body)
        answer = connection.getresponse()
        if not case.is_stream:
            return len(answer.read())
        return sum(map(len, iter(lambda: answer.read1(65_536), b"")))

    yield exchange
    connection.close()


@contextmanager
def by_urllib3(port: int) -> Iterator[Exchange]:
    """By urllib3's pool."""
    import urllib3

    pool = urllib3.PoolManager(timeout=30)

    def exchange(case: Case) -> int:
        url = f"http://127.0.0.1:{port}{case.path}"
        answer = pool.request("POST", url, body=case.body, preload_content=not case.is_stream)
        size = sum(map(len, answer.stream())) if case.is_stream else len(answer.data)
        answer.release_conn()
        return size

    yield exchange
    pool.clear()


@contextmanager
def by_requests(port: int) -> Iterator[Exchange]:
    """By a session of requests."""
    import requests

    with requests.Session() as session:

        def exchange(case: Case) -> int:
            url = f"http://127.0.0.1:{port}{case.path}"
            answer = session.post(url, data=case.body, stream=case.is_stream, timeout=30)
            if case.is_stream:
                return sum(map(len, answer.iter_content(None)))
            return len(answer.content)

        yield exchange


@contextmanager
def by_httpx(port: int) -> Iterator[Exchange]:
    """By httpx, which bentoml's client is built on."""
    import httpx

    with httpx.Client(timeout=30) as client:

        def exchange(case: Case) -> int:
            url = f"http://127.0.0.1:{port}{case.path}"
            if not case.is_stream:
                return len(client.post(url, content=case.body).content)
            with client.stream("POST", url, content=case.body) as answer:
                return sum(map(len, answer.iter_bytes()))

        yield exchange


# Asynchronous ways.


@asynccontextmanager
async def by_async_modelport(port: int) -> AsyncIterator[AsyncExchange]:
    """By our own, on asyncio."""
    client = AsyncClient(30)

    async def exchange(case: Case) -> int:
        request = Request("POST", f"http://127.0.0.1:{port}{case.path}", body=case.body)
        answer = await client.send(request, wants_stream=case.is_stream)
        if isinstance(answer.stream, AsyncStream):
            return sum([len(piece) async for piece in answer.stream.pieces()])
        return len(answer.body)

    yield exchange
    await client.close()


@asynccontextmanager
async def by_aiohttp(port: int) -> AsyncIterator[AsyncExchange]:
    """By a session of aiohttp."""
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def exchange(case: Case) -> int:
            url = f"http://127.0.0.1:{port}{case.path}"
            async with session.post(url, data=case.body) as answer:
                if case.is_stream:
                    return sum([len(piece) async for piece in answer.content.iter_any()])
                return len(await answer.read())

        yield exchange


@asynccontextmanager
async def by_async_httpx(port: int) -> AsyncIterator[AsyncExchange]:
    """By httpx, on asyncio."""
    import httpx

    async with httpx.AsyncClient(timeout=30) as client:

        async def exchange(case: Case) -> int:
            url = f"http://127.0.0.1:{port}{case.path}"
            if not case.is_stream:
                return len((await client.post(url, content=case.body)).content)
            async with client.stream("POST", url, content=case.body) as answer:
                return sum([len(piece) async for piece in answer.aiter_bytes()])

        yield exchange


# Measuring.


def measured(exchange: Exchange, case: Case) -> float:
    """Microseconds per exchange over one round."""
    _check(exchange(case), case)
    count = 0
    started_at = now = time.perf_counter()
    while now < started_at + ROUND_S:
        exchange(case)
        count += 1
        now = time.perf_counter()
    return (now - started_at) / count * 1e6


async def measured_async(exchange: AsyncExchange, case: Case) -> float:
    """Microseconds per exchange over one round."""
    _check(await exchange(case), case)
    count = 0
    started_at = now = time.perf_counter()
    while now < started_at + ROUND_S:
        await exchange(case)
        count += 1
        now = time.perf_counter()
    return (now - started_at) / count * 1e6


def _check(size: int, case: Case) -> None:
    if size != case.answer_bytes:
        raise SystemExit(f"{case.path}: {size} bytes came in place of {case.answer_bytes}")


BLOCKING = {
    "modelport": by_modelport,
    "http.client": by_http_client,
    "urllib3": by_urllib3,
    "requests": by_requests,
    "httpx": by_httpx,
}
ASYNCHRONOUS = {
    "modelport, async": by_async_modelport,
    "aiohttp": by_aiohttp,
    "httpx, async": by_async_httpx,
}


def main() -> None:
    """Print a line per way of calling, a column per kind of exchange."""
    port = machine.free_port()
    command = [sys.executable, "-m", "benchmarks.transports", str(port)]
    print(f"{'µs per exchange':<18}" + "".join(f"{name:>12}" for name in CASES))
    with servers.child("answers", command) as child:
        Server(child.process, child.name, child.log, port, time.perf_counter()).await_connection()
        for name, by in BLOCKING.items():
            if _is_there(name):
                with by(port) as exchange:
                    _tell(name, [[measured(exchange, c) for _ in range(ROUNDS)] for c in _cases()])
        for name, by_async in ASYNCHRONOUS.items():
            if _is_there(name):
                asyncio.run(_measure_async(name, by_async(port)))


async def _measure_async(name: str, opened: AbstractAsyncContextManager[AsyncExchange]) -> None:
    async with opened as exchange:
        rounds = [[await measured_async(exchange, c) for _ in range(ROUNDS)] for c in _cases()]
    _tell(name, rounds)


def _cases() -> list[Case]:
    return list(CASES.values())


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name.partition(",")[0].partition(".")[0]) is not None


def _tell(name: str, rounds: list[list[float]]) -> None:
    print(
        f"{name:<18}" + "".join(f"{statistics.median(each):>12.0f}" for each in rounds), flush=True
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(serve(int(sys.argv[1])))
    else:
        main()
