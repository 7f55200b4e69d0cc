"""The ways to a server: TLS with certificates on both sides, and proxies with credentials."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from modelport.client.bentoml import AsyncHTTPClient, SyncHTTPClient
from modelport.errors import InvalidRequest
from modelport.exceptions import ServiceUnavailable

from .scripted import Scripted, reply, scripted
from .test_bentoml import echo, service

BASIC = "Basic bmFtZTpwYTpzcw=="
"""Of "name" and "pa:ss"."""


@contextlib.contextmanager
def forwarding(to: Callable[[bytes], tuple[str, int] | None]) -> Iterator[tuple[int, list[bytes]]]:
    """Run a tunnel: read a head, connect to where ``to`` says, and carry bytes both ways."""
    heads: list[bytes] = []

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def talk(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += peer.recv(1)
            heads.append(head)
            target = to(head)
            if target is None:
                peer.sendall(reply(b"", 407))
                return
            with socket.create_connection(target) as far:
                peer.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=carry, args=(far, peer), daemon=True)
                back.start()
                carry(peer, far)
                back.join(5)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], heads
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@contextlib.contextmanager
def behind_tls(server: Scripted, context: ssl.SSLContext) -> Iterator[int]:
    """Stand before a server and speak TLS to whoever comes."""

    def talk(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(peer, server_side=True) as safe:
            while data := safe.recv(65_536):
                # One request comes in one piece here, and so does its answer.
                with socket.create_connection(("127.0.0.1", server.port)) as far:
                    far.sendall(data)
                    safe.sendall(far.recv(65_536))

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    """For a server that wants certificates, for a client with one, and for a client without."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA).configure_cert(serving)
    serving.verify_mode = ssl.CERT_REQUIRED
    showing, bare = ssl.create_default_context(), ssl.create_default_context()
    for context in (serving, showing, bare):
        authority.configure_trust(context)
    authority.issue_cert("me@example.org", key_type=trustme.KeyType.ECDSA).configure_cert(showing)
    return serving, showing, bare


def called(kind: str, url: str, **options: Any) -> Any:
    """Make one call by either client."""
    if kind == "sync":
        with SyncHTTPClient(url, timeout=5, server_ready_timeout=0, **options) as client:
            return client.call("classify", "a")

    async def main() -> Any:
        async with AsyncHTTPClient(url, timeout=5, server_ready_timeout=0, **options) as client:
            return await client.call("classify", "a")

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_certificates_are_shown_and_checked(kind: str, authority: trustme.CA) -> None:
    serving, showing, bare = contexts(authority)
    with scripted(service(classify=[echo])) as server, behind_tls(server, serving) as port:
        url = f"https://localhost:{port}"
        assert called(kind, url, ssl_context=showing) == {"text": "a"}
        with pytest.raises(ServiceUnavailable):
            called(kind, url, ssl_context=bare)
        with pytest.raises(ServiceUnavailable, match="certificate that is not trusted"):
            called(kind, url)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_tunnel_is_asked_for_with_credentials(kind: str, authority: trustme.CA) -> None:
    serving, showing, _ = contexts(authority)
    with scripted(service(classify=[echo])) as server, behind_tls(server, serving) as port:

        def known(head: bytes) -> tuple[str, int] | None:
            return ("127.0.0.1", port) if BASIC.encode() in head else None

        with forwarding(known) as (proxy, heads):
            url = f"https://localhost:{port}"
            named = f"http://name:pa%3Ass@127.0.0.1:{proxy}"
            assert called(kind, url, ssl_context=showing, proxy=named) == {"text": "a"}
            assert heads[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % port)
            with pytest.raises(ServiceUnavailable, match="proxy refused with status 407"):
                called(kind, url, ssl_context=showing, proxy=f"http://127.0.0.1:{proxy}")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_proxy_that_is_named_is_for_everything_and_false_is_for_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {f"http://far.example{path}": each for path, each in service(classify=[echo]).items()}
    with scripted(answers) as proxy:
        named = f"name:pa%3Ass@127.0.0.1:{proxy.port}"
        assert called(kind, "http://far.example", proxy=named) == {"text": "a"}
        assert {asked.headers["proxy-authorization"] for asked in proxy.asked} == {BASIC}
        assert {asked.headers["host"] for asked in proxy.asked} == {"far.example"}
    with scripted(service(classify=[echo])) as server:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        assert called(kind, server.url, proxy=False) == {"text": "a"}


@pytest.mark.parametrize("proxy", ["socks5://a:1", "https://a:1", "http://", "http://a:x"])
def test_what_is_no_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(InvalidRequest, match="a proxy is given as http://host:port"):
        SyncHTTPClient("http://127.0.0.1:9", proxy=proxy)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_credentials_in_the_url_are_sent_and_shown_to_nobody(kind: str) -> None:
    with scripted(service(classify=[echo])) as server:
        named = server.url.replace("//", "//name:pa%3Ass@")
        assert called(kind, named) == {"text": "a"}
        assert {asked.headers["authorization"] for asked in server.asked} == {BASIC}
        with SyncHTTPClient(named, server_ready_timeout=0) as client:
            assert client.url == server.url
            assert "pa%3Ass" not in repr(client)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_certificates_that_do_not_fit_are_told_with_what_to_do(
    kind: str, authority: trustme.CA
) -> None:
    serving, _, bare = contexts(authority)
    with scripted(service(classify=[echo])) as server, behind_tls(server, serving) as port:
        url = f"https://localhost:{port}"
        with pytest.raises(ServiceUnavailable, match="name its authority with an ssl_context"):
            called(kind, url)
        with pytest.raises(ServiceUnavailable, match=r"show one with an ssl_context|reset"):
            called(kind, url, ssl_context=bare)
