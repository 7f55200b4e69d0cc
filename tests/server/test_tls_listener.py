"""A port that speaks TLS: floods of half a handshake, clients that speak something else."""

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from modelport.clock import SystemClock
from modelport.engine.executor import new_event_loop
from modelport.server.http import Connection, HttpOptions
from modelport.server.settings import Settings
from modelport.server.tls import server_context
from modelport.server.tls_listener import SPARE_HANDSHAKES, TlsListener
from tests.served import serving
from tests.waiting import until

from .memory_connection import TestServer, get

CLIENT_HELLO_BEGUN = b"\x16\x03\x01\x02\x00\x01\x00"
REQUEST = get("/hello", "Connection: close")

Run = Callable[[Callable[[], Awaitable[None]]], None]
MakeContext = Callable[..., ssl.SSLContext]


@pytest.fixture(params=["asyncio", "ours"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine function to its end on a loop, of which nothing must complain."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else new_event_loop

    def run_it(main: Callable[[], Awaitable[None]]) -> None:
        complaints: list[dict[str, Any]] = []

        async def bounded() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(20):
                await main()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())
        assert complaints == []

    return run_it


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="module")
def folder(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA)
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (made / "cert").write_bytes(chain)
    (made / "key").write_bytes(certificate.private_key_pem.bytes())
    (made / "ca").write_bytes(authority.cert_pem.bytes())
    return made


@pytest.fixture
def settings(folder: Path) -> Callable[..., Settings]:
    return partial(Settings, tls_cert=str(folder / "cert"), tls_key=str(folder / "key"))


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client has that trusts the server."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "modelport")
    return lambda: [record.getMessage() for record in caplog.records]


class Listening:
    """A listener and its port."""

    def __init__(self, listener: TlsListener, server: TestServer) -> None:
        self.listener = listener
        self.server = server
        self.port: int = listener.sockets[0].getsockname()[1]

    async def begin(self, data: bytes = CLIENT_HELLO_BEGUN) -> asyncio.StreamReader:
        """Connect, and begin to say something."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        self._writers.append(writer)
        return reader

    async def ask(self, context: ssl.SSLContext, request: bytes = REQUEST) -> bytes:
        """Send a request, and give all that comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        writer.write(request)
        try:
            return await reader.read()
        finally:
            writer.close()

    _writers: list[asyncio.StreamWriter]


@asynccontextmanager
async def listening(settings: Settings, **options: Any) -> AsyncIterator[Listening]:
    server = TestServer(HttpOptions(**options), clock=SystemClock())
    context = server_context(settings)
    assert context is not None
    listener = TlsListener(server.http, context, partial(Connection, server.http))
    await listener.open("127.0.0.1", 0)
    server.http.open()
    made = Listening(listener, server)
    made._writers = []
    try:
        yield made
    finally:
        listener.close()
        listener.abort()
        server.http.close()
        for writer in made._writers:
            writer.close()
        await until(lambda: not listener.handshakes and not server.http.connections)


def test_a_request_is_answered(
    run: Run, settings: Callable[..., Settings], trusting: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with listening(settings()) as port:
            answers = await asyncio.gather(*(port.ask(trusting) for _ in range(20)))
            assert all(answer.endswith(b"hello") for answer in answers)
            assert port.listener.handshakes == 0

    run(main)


def test_the_oldest_of_too_many_handshakes_gives_way(
    run: Run,
    settings: Callable[..., Settings],
    trusting: ssl.SSLContext,
    lines: Callable[[], list[str]],
) -> None:
    """They count towards the bound on connections, and shut nobody out who finishes one."""
    bound = SPARE_HANDSHAKES + 6

    async def main() -> None:
        async with listening(settings(), max_connections=bound) as port:
            readers = [await port.begin() for _ in range(bound)]
            await until(lambda: port.listener.handshakes == bound)
            assert (await port.ask(trusting)).endswith(b"hello")
            with contextlib.suppress(ConnectionError):
                assert await readers[0].read() == b""
            assert port.listener.handshakes == bound - 1
            readers += [await port.begin(b"") for _ in range(bound)]
            await until(lambda: port.listener.handshakes == bound)
            for reader in readers[1:bound]:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            assert (await port.ask(trusting)).endswith(b"hello")

    run(main)
    assert len([line for line in lines() if "handshakes are given up" in line]) == 1


def test_a_client_for_whom_there_is_no_room_is_told_so(
    run: Run, settings: Callable[..., Settings], trusting: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with listening(settings(), max_connections=1) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=trusting)
            await until(lambda: port.server.http.connections)
            for _ in range(SPARE_HANDSHAKES + 1):
                await port.begin()
            answer = await port.ask(trusting, b"")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"too many connections are open" in answer
            assert port.listener.handshakes <= SPARE_HANDSHAKES
            writer.close()

    run(main)


@pytest.mark.parametrize("begun", [b"", CLIENT_HELLO_BEGUN])
def test_a_handshake_that_is_not_over_in_time_is_given_up(
    run: Run, settings: Callable[..., Settings], lines: Callable[[], list[str]], begun: bytes
) -> None:
    async def main() -> None:
        async with listening(settings(), head_timeout_s=0.05) as port:
            reader = await port.begin(begun)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert port.listener.handshakes == 0

    run(main)
    assert lines() == ["the TLS handshake of 127.0.0.1 is given up: not over after 0.05 s"]


@pytest.mark.parametrize("request_", [REQUEST, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"x"])
def test_who_speaks_no_tls_is_told_that_the_port_does(
    run: Run, settings: Callable[..., Settings], lines: Callable[[], list[str]], request_: bytes
) -> None:
    async def main() -> None:
        async with listening(settings()) as port:
            for _ in range(3):
                answer = await (await port.begin(request_)).read()
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert b"this port speaks TLS, and the client does not" in answer
                assert b"Connection: close" in answer

    run(main)
    assert len([line for line in lines() if line.startswith("refused 127.0.0.1: ")]) == 1


def test_tls_to_a_plain_port_is_logged_once(run: Run, lines: Callable[[], list[str]]) -> None:
    async def main() -> None:
        server = TestServer(clock=SystemClock())
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(partial(Connection, server.http), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        for _ in range(3):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(
                    "127.0.0.1", port, ssl=ssl.create_default_context(), server_hostname="a"
                )
        listener.close()
        server.http.close()

    run(main)
    assert lines() == ["refused 127.0.0.1: the client speaks TLS, and this port does not"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_trusts_nobody_is_logged_with_what_it_said(
    run: Run,
    settings: Callable[..., Settings],
    lines: Callable[[], list[str]],
    version: ssl.TLSVersion,
) -> None:
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version

    def ask(port: int) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        with raw, pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(raw, server_hostname="localhost")

    async def main() -> None:
        async with listening(settings()) as port:
            for _ in range(2):
                await asyncio.to_thread(ask, port.port)
            await until(lambda: not port.listener.handshakes)

    run(main)
    (line,) = lines()
    assert line.startswith("the TLS handshake of 127.0.0.1 failed: ")
    assert line.endswith("the client does not trust this server's certificate")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_the_certificate_that_is_asked_for_gets_nothing(
    run: Run,
    settings: Callable[..., Settings],
    folder: Path,
    trusting: ssl.SSLContext,
    authority: trustme.CA,
    lines: Callable[[], list[str]],
    version: ssl.TLSVersion,
) -> None:
    async def main() -> None:
        async with listening(settings(tls_client_ca=str(folder / "ca"))) as port:
            trusting.minimum_version = trusting.maximum_version = version
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                assert await port.ask(trusting) == b""
            trustme.CA().issue_cert("client@stranger").configure_cert(trusting)
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                assert await port.ask(trusting) == b""
            authority.issue_cert("client@here").configure_cert(trusting)
            assert (await port.ask(trusting)).endswith(b"hello")

    run(main)
    assert [line.partition(" failed: ")[2] for line in lines()] == [
        "peer did not return a certificate: clients need a certificate here (--tls-client-ca)",
        "certificate verify failed: the client's certificate is none of the --tls-client-ca",
    ]


@pytest.mark.parametrize("offered", [[], ["http/1.1"], ["h2", "http/1.1"], ["spdy/3"]])
def test_http1_is_answered_whatever_the_client_offers(
    run: Run,
    settings: Callable[..., Settings],
    trusting: ssl.SSLContext,
    offered: list[str],
) -> None:
    async def main() -> None:
        async with listening(settings()) as port:
            if offered:
                trusting.set_alpn_protocols(offered)
            assert (await port.ask(trusting)).endswith(b"hello")

    run(main)


def test_a_session_is_resumed(settings: Callable[..., Settings], trusting: ssl.SSLContext) -> None:
    """The second handshake of a client is the cheap one."""

    def ask(port: int, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        with trusting.wrap_socket(raw, server_hostname="localhost", session=session) as client:
            client.sendall(REQUEST)
            while client.recv(1000):
                pass
            return bool(client.session_reused), client.session

    async def main() -> None:
        async with listening(settings()) as port:
            is_resumed, session = await asyncio.to_thread(ask, port.port, None)
            assert not is_resumed
            is_resumed, _ = await asyncio.to_thread(ask, port.port, session)
            assert is_resumed

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def test_a_flood_that_takes_every_file_is_survived(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "add.py").write_text(
        "import modelport\n\n\n@modelport.model\ndef add(a: int) -> int:\n    return a + 1\n"
    )
    options = ["--tls-cert", str(folder / "cert"), "--tls-key", str(folder / "key")]
    few_files = ("sh", "-c", 'ulimit -n 100; exec "$0" "$@"')
    command = (*few_files, sys.executable, "-m", "modelport", "serve")
    with serving(str(tmp_path / "add.py"), *options, command=command) as served:
        host, _, port = served.address.partition(":")
        context = ssl.create_default_context(cafile=str(folder / "ca"))
        with contextlib.ExitStack() as flood:
            for _ in range(200):
                client = flood.enter_context(socket.create_connection((host, int(port)), 5))
                client.sendall(CLIENT_HELLO_BEGUN)
        raw = socket.create_connection((host, int(port)), 15)
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        served.stop()
    assert len([line for line in served.lines if "no connection can be accepted" in line]) == 1
    assert "Traceback" not in "".join(served.lines)


def live(port: int, credentials: grpc.ChannelCredentials | None) -> bytes:
    """Ask over gRPC whether the server lives."""
    address = f"localhost:{port}"
    if credentials is None:
        channel = grpc.insecure_channel(address)
    else:
        channel = grpc.secure_channel(address, credentials)
    with channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        answer: bytes = call(b"", timeout=20)
        return answer


def test_clients_of_every_kind_at_every_port(
    folder: Path, tmp_path: Path, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """REST and gRPC, with the certificate that is asked for and without, and without TLS."""
    (tmp_path / "add.py").write_text(
        "import modelport\n\n\n@modelport.model\ndef add(a: int) -> int:\n    return a + 1\n"
    )
    options = [f"--tls-cert={folder / 'cert'}", f"--tls-key={folder / 'key'}"]
    mine = authority.issue_cert("client@here", key_type=trustme.KeyType.ECDSA)
    chain = b"".join(blob.bytes() for blob in mine.cert_chain_pems)
    ca = (folder / "ca").read_bytes()
    shown = grpc.ssl_channel_credentials(ca, mine.private_key_pem.bytes(), chain)
    with serving(str(tmp_path / "add.py"), *options, f"--tls-client-ca={folder / 'ca'}") as served:
        http_port = int(served.address.rpartition(":")[2])
        grpc_port = int(served.grpc_address.rpartition(":")[2])
        for port in (http_port, grpc_port):
            assert live(port, shown) == b"\x08\x01"
            for wrong in (None, grpc.ssl_channel_credentials(ca)):
                with pytest.raises(grpc.RpcError) as refused:
                    live(port, wrong)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        mine.configure_cert(trusting)
        for offered in (["h2"], ["http/1.1"]):
            trusting.set_alpn_protocols(offered)
            raw = socket.create_connection(("localhost", http_port), 15)
            with trusting.wrap_socket(raw, server_hostname="localhost") as client:
                assert client.selected_alpn_protocol() == offered[0]
                client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        with socket.create_connection(("localhost", http_port), 15) as half_open:
            half_open.sendall(CLIENT_HELLO_BEGUN)
            assert served.stop() == 0
    lines = "".join(served.lines)
    assert "Traceback" not in lines
    # A line for each port, whatever its clients repeat.
    assert lines.count("peer did not return a certificate: clients need a certificate here") == 2
    assert lines.count("this port speaks TLS, and the client does not") == 2
