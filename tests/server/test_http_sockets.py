"""The listener over real sockets, with both event loops, and with TLS."""

import asyncio
import http.client
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trustme

from modelport.clock import SystemClock
from modelport.engine.executor import new_event_loop
from modelport.server.http import Connection, HttpOptions
from modelport.server.settings import Settings
from modelport.server.tls import server_context
from tests.waiting import until

from .memory_connection import TestServer, get, post

HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["asyncio", "ours"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine function to its end, on asyncio's loop and on the one the server uses."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else new_event_loop

    def run_it(main: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await main()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())

    return run_it


@asynccontextmanager
async def listening(
    server: TestServer, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve on a free port."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        partial(Connection, server.http), "127.0.0.1", 0, ssl=context
    )
    server.http.open()
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        server.http.close()
        await asyncio.sleep(0)


def make() -> TestServer:
    return TestServer(clock=SystemClock())


async def exchange(port: int, request: bytes, **more: Any) -> bytes:
    """Send everything, read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **more)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def attempt(port: int, request: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """The same, where being cut off is nothing read."""
    try:
        return await exchange(port, request, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_pipelined_requests_come_back_in_order(run: Run) -> None:
    async def main() -> None:
        server = make()
        async with listening(server) as port:
            request = get("/hello") * 300 + post("/echo", bytes(300_000)) + get("/hello")
            answer = await exchange(port, request + get("/hello", "Connection: close"))
            assert answer.startswith(HELLO * 300)
            assert answer.count(b"HTTP/1.1 200 OK") == 303
            assert answer.endswith(b"Connection: close\r\nContent-Length: 5\r\n\r\nhello")

    run(main)


def test_large_bodies_go_both_ways(run: Run) -> None:
    body = bytes(range(256)) * 40_000

    def ask(port: int) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/echo", body)
            first = connection.getresponse().read()
            connection.request("POST", "/echo", iter([body[:7], body[7:]]), encode_chunked=True)
            assert connection.getresponse().read() == first
            return first
        finally:
            connection.close()

    async def main() -> None:
        async with listening(make()) as port:
            assert await asyncio.to_thread(ask, port) == body

    run(main)


@pytest.mark.parametrize("seed", range(4))
def test_large_and_small_bodies_take_turns_on_one_connection(
    run: Run, authority: trustme.CA, settings: Callable[..., Settings], seed: int
) -> None:
    """Large ones are received in place from the first one on; however they come, they are whole."""
    chance = random.Random(seed)
    bodies = [chance.randbytes(chance.choice((0, 9, 5_000, 300_000, 900_000))) for _ in range(12)]
    sent = b"".join(
        post("/echo", body, *(["Expect: 100-continue"] if chance.random() < 0.2 else []))
        for body in bodies
    )
    tls = seed % 2

    async def main() -> None:
        server = make()
        async with listening(server, server_context(settings()) if tls else None) as port:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_context(authority) if tls else None
            )
            answers = asyncio.ensure_future(reader.read())
            at = 0
            while at < len(sent):
                size = chance.choice((1, 70, 40_000, 200_000, 2_000_000))
                writer.write(sent[at : at + size])
                await writer.drain()
                await asyncio.sleep(chance.choice((0, 0.001)))
                at += size
            # The other protocol begins where the last body has ended.
            writer.write(get("/socket", *HANDSHAKE) + b"\x81\x82\0\0\0\0hi")
            await until(lambda: bool(server.sockets))
            writer.write(b"\x81\x83\0\0\0\0you\x88\x80\0\0\0\0")
            received = await answers
            writer.close()
            assert server.seen == bodies
            assert received.count(b"HTTP/1.1 200 OK") == len(bodies)
            assert received.endswith(b"\r\n\r\n\x81\x02hi\x81\x03you\x88\x02\x03\xe8")

    run(main)


def test_a_large_body_that_stops_coming_is_timed_out(run: Run) -> None:
    async def main() -> None:
        server = TestServer(HttpOptions(body_timeout_s=0.2), clock=SystemClock())
        async with listening(server) as port:
            request = post("/echo", bytes(1_000_000))
            answer = await exchange(port, request[:600_000])
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert not server.seen

    run(main)


def test_a_client_that_leaves_within_a_large_body_is_forgotten(run: Run) -> None:
    async def main() -> None:
        server = make()
        async with listening(server) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post("/echo", bytes(1_000_000))[:600_000])
            await writer.drain()
            await until(lambda: bool(server.http.connections))
            writer.transport.abort()
            await until(lambda: not server.http.connections)
            assert not server.seen

    run(main)


def test_half_a_goodbye_gets_its_answer(run: Run) -> None:
    async def main() -> None:
        async with listening(make()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/hello") * 2)
            writer.write_eof()
            assert await reader.read() == HELLO * 2
            writer.close()

    run(main)


def test_many_clients_at_once_all_get_their_answers(run: Run) -> None:
    """Their answers are close together, so they leave in sweeps."""

    async def main() -> None:
        async with listening(make()) as port:
            request = get("/hello") * 20 + get("/hello", "Connection: close")
            answers = await asyncio.gather(*(exchange(port, request) for _ in range(50)))
            assert all(answer.startswith(HELLO * 20) for answer in answers)

    run(main)


def test_a_client_that_sends_before_it_reads_sees_why_it_is_refused(run: Run) -> None:
    """Most clients write their whole request first, and a reset would hide the answer."""

    def ask(port: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/small", bytes(5_000_000))
            return connection.getresponse().status
        finally:
            connection.close()

    async def main() -> None:
        async with listening(make()) as port:
            assert await asyncio.to_thread(ask, port) == 413

    run(main)


def test_a_client_that_is_gone_is_noticed(run: Run) -> None:
    async def main() -> None:
        server = make()
        async with listening(server) as port:
            gone = asyncio.Event()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/later"))
            await until(lambda: bool(server.waiting))
            server.waiting[0].on_disconnect = gone.set
            # A reset, as from a process that was killed.
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
            writer.transport.abort()
            await gone.wait()
            assert not server.http.connections

    run(main)


def test_a_stream_waits_for_its_reader(run: Run) -> None:
    async def main() -> None:
        server = make()
        async with listening(server) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            writer.write(get("/later", "Connection: close"))
            await until(lambda: bool(server.waiting))
            stream = server.waiting[0]
            stream.start(200, ())
            writable = asyncio.Event()
            stream.on_writable = writable.set
            count = 1
            while stream.write(bytes(65_536)):
                count += 1
                await asyncio.sleep(0)
                assert count < 10_000
            answer = asyncio.ensure_future(reader.read())
            await writable.wait()
            stream.finish()
            assert len(await answer) > count * 65_536
            writer.close()

    run(main)


def test_an_answer_to_nobody_is_dropped_quietly(run: Run) -> None:
    async def main() -> None:
        server = make()
        async with listening(server) as port:
            for _ in range(3):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(get("/later"))
                writer.close()
            await until(lambda: len(server.waiting) == 3)
            for waiting in server.waiting:
                waiting.respond(200, (), [bytes(1_000_000)])
            await until(lambda: not server.http.connections)

    run(main)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="module")
def settings(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Settings]:
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    certificate.private_key_pem.write_to_path(str(folder / "key"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(folder / "cert"), append=True)
    authority.cert_pem.write_to_path(str(folder / "ca"))
    return partial(Settings, tls_cert=str(folder / "cert"), tls_key=str(folder / "key"))


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_https_is_http_over_tls(
    run: Run, authority: trustme.CA, settings: Callable[..., Settings]
) -> None:
    async def main() -> None:
        async with listening(make(), server_context(settings())) as port:
            request = get("/hello") * 3 + post("/echo", bytes(500_000), "Connection: close")
            answer = await exchange(port, request, ssl=client_context(authority))
            assert answer.startswith(HELLO * 3)
            assert answer.endswith(b"\r\n\r\n" + bytes(500_000))

    run(main)


def test_a_refusal_over_tls_is_heard(
    run: Run, authority: trustme.CA, settings: Callable[..., Settings]
) -> None:
    async def main() -> None:
        async with listening(make(), server_context(settings())) as port:
            context = client_context(authority)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(post("/small", bytes(100))[:-5])
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 413 ")
            writer.close()

    run(main)


def test_a_client_certificate_is_asked_for_when_authorities_are_given(
    run: Run, authority: trustme.CA, settings: Callable[..., Settings]
) -> None:
    async def main() -> None:
        ca = str(settings().tls_cert).removesuffix("cert") + "ca"
        context = server_context(settings(tls_client_ca=ca))
        async with listening(make(), context) as port:
            request = get("/hello", "Connection: close")
            known = client_context(authority)
            authority.issue_cert("client@example.org").configure_cert(known)
            assert b"hello" in await exchange(port, request, ssl=known)
            stranger = client_context(authority)
            trustme.CA().issue_cert("client@example.org").configure_cert(stranger)
            for context_ in (client_context(authority), stranger):
                assert await attempt(port, request, context_) == b""

    run(main)


def test_the_wrong_kind_of_client_is_sent_away(
    run: Run, authority: trustme.CA, settings: Callable[..., Settings]
) -> None:
    async def main() -> None:
        async with listening(make(), server_context(settings())) as port:
            assert b"hello" not in await attempt(port, get("/hello"))
        async with listening(make()) as port:
            assert await attempt(port, get("/hello"), client_context(authority)) == b""
            # A greeting of TLS 1.2, by hand: the answer says what is wrong.
            answer = await exchange(port, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03")
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"TLS" in answer

    run(main)
