import asyncio
import os
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from modelport.client.flows import Request, TransportFailed
from modelport.client.transports.address import Address, Proxies, Proxy
from modelport.client.transports.asynchronous import AsyncClient, _Connection
from modelport.client.transports.blocking import Client
from modelport.errors import InvalidRequest

from .scripted import CLOSE, Asked, Send, reply, scripted

NO_PROXIES: dict[str, str] = {}


def echo(asked: Asked) -> bytes:
    return reply(asked.body)


@pytest.mark.parametrize(
    ("url", "address", "target", "host"),
    [
        ("http://a", Address(False, "a", 80), "/", "a"),
        ("https://A:9/b?c=d", Address(True, "a", 9), "/b?c=d", "a:9"),
        ("tcp://a:3000/x", Address(False, "a", 3000), "/x", "a:3000"),
        ("http://[::1]:8000/x", Address(False, "::1", 8000), "/x", "[::1]:8000"),
        ("file:///run/s.sock//f?x=1", Address(False, "", 0, "/run/s.sock"), "/f?x=1", "localhost"),
    ],
)
def test_url_leads_somewhere(url: str, address: Address, target: str, host: str) -> None:
    assert Proxies(NO_PROXIES).locate(url) == (address, target, (("Host", host),))


@pytest.mark.parametrize(
    "url", ["", "a", "localhost:8000", "ftp://a", "http://", "http://a:x/", "http://[a/"]
)
def test_what_is_no_address_is_refused_with_what_would_be(url: str) -> None:
    with pytest.raises(InvalidRequest, match="http://host:port"):
        Proxies(NO_PROXIES).locate(url)


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({"HTTP_PROXY": "http://p:1"}, "http://a/", Proxy("p", 1)),
        ({"http_proxy": "p"}, "http://a/", Proxy("p", 3128)),
        ({"HTTP_PROXY": "http://p:1"}, "https://a/", None),
        ({"ALL_PROXY": "http://p:1"}, "https://a/", Proxy("p", 1)),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "b, .a.org"}, "http://x.a.org/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a.org"}, "http://xa.org/", Proxy("p", 1)),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://a/", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://127.0.0.1/", None),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://a/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a:80"}, "http://a/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a:81"}, "http://a/", Proxy("p", 1)),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*.a.org"}, "http://x.a.org/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://11.1/", Proxy("p", 1)),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, "http://[fd00::1]/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "[fd00::1]:80"}, "http://[fd00::1]/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "fd00::1"}, "http://[fd00::1]/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": " , "}, "http://a/", Proxy("p", 1)),
    ],
)
def test_proxies_are_those_of_the_environment(
    environ: dict[str, str], url: str, proxy: Proxy | None
) -> None:
    address, target, _ = Proxies(environ).locate(url)
    assert address.proxy == proxy
    assert target.startswith("http://") is (proxy is not None and url.startswith("http:"))


def test_a_proxy_of_another_kind_in_the_environment_is_told_with_what_to_do() -> None:
    proxies = Proxies({"ALL_PROXY": "socks5://me:secret@p:1"})
    with pytest.raises(InvalidRequest, match="HTTPS_PROXY or ALL_PROXY in the environ") as caught:
        proxies.locate("https://a/")
    assert "NO_PROXY=a or proxy=False" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_proxy_that_is_not_there_is_told(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(TransportFailed, match=r"nothing listens at 127\.0\.0\.1:9; is the proxy"):
        send(Request("GET", "http://far.example/x"))
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:9")
    with pytest.raises(TransportFailed, match=r"no host is called 'proxy\.invalid'"):
        send(Request("GET", "http://far.example/x"))


def test_plain_request_goes_through_the_proxy_whole(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted({"http://far.example/x": [reply(b"found")]}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert send(Request("GET", "http://far.example/x")).body == b"found"
        assert proxy.asked[0].headers["host"] == "far.example"


def test_proxy_that_refuses_a_tunnel_is_told(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted({"far.example:443": [reply(b"", 403)]}) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(TransportFailed, match="proxy refused with status 403"):
            send(Request("GET", "https://far.example/x"))
        assert proxy.asked[0].line == "CONNECT far.example:443 HTTP/1.1"


def test_body_in_pieces_goes_as_it_is_read(send: Send) -> None:
    with scripted({"/": [echo]}) as server:
        pieces = [b"a" * 70_000, b"", b"b" * 70_000]
        request = Request("POST", server.url, body=pieces, length=140_000)
        assert send(request).body == b"".join(pieces)


def test_large_bodies_are_whole(send: Send) -> None:
    with scripted({"/": [echo]}) as server:
        body = bytes(range(256)) * 20_000
        assert send(Request("POST", server.url, body=body)).body == body


def test_server_that_answers_before_it_has_read_all_is_heard(send: Send) -> None:
    early = b"HTTP/1.1 413 No\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much"

    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1024)
            peer.sendall(early)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(1 << 20):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        answer = send(Request("POST", url, body=bytes(5_000_000)))
        thread.join(5)
    assert (answer.status, answer.body) == (413, b"too much")


def test_refused_reset_and_late_are_told_apart(send: Send) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(TransportFailed, match="connection refused") as refused:
            send(Request("GET", url))
        assert not refused.value.was_sent
    with scripted({"/": [[CLOSE]]}) as server:
        with pytest.raises(TransportFailed, match="without an answer") as closed:
            send(Request("GET", server.url))
        assert closed.value.was_sent
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(TransportFailed, match=r"within 0\.1 s") as late:
            send(Request("GET", url, timeout_s=0.1))
        assert late.value.is_timeout


def test_unknown_host_is_told(send: Send) -> None:
    with pytest.raises(TransportFailed, match=r"no host is called 'nobody\.invalid'"):
        send(Request("GET", "http://nobody.invalid/"))


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA).configure_cert(context)
    authorities = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(authorities))

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
                with context.wrap_socket(peer, server_side=True) as talking:
                    talking.recv(65_536)
                    talking.sendall(reply(b"safe"))
            except ssl.SSLError:
                continue
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}/", authorities
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_certificates_are_checked(tls_server: tuple[str, Path]) -> None:
    url, authorities = tls_server
    with pytest.raises(TransportFailed, match="certificate that is not trusted"):
        Client(5).send(Request("GET", url))
    trusting = Client(5, lambda: ssl.create_default_context(cafile=authorities))
    assert trusting.send(Request("GET", url)).body == b"safe"
    trusting.close()

    async def main() -> bytes:
        client = AsyncClient(5, lambda: ssl.create_default_context(cafile=authorities))
        body = (await client.send(Request("GET", url))).body
        await client.close()
        return body

    assert asyncio.run(main()) == b"safe"


def test_many_threads_share_one_client() -> None:
    with scripted({"/": [echo]}) as server:
        client = Client(5)
        found: list[bool] = []

        def work(number: int) -> None:
            for turn in range(20):
                body = b"%d %d" % (number, turn)
                found.append(client.send(Request("POST", server.url, body=body)).body == body)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
        assert found == [True] * 160
        assert server.connections <= 8


def test_one_async_client_outlives_an_event_loop() -> None:
    with scripted({"/": [echo]}) as server:
        client = AsyncClient(5)

        async def main() -> bytes:
            answer = await client.send(Request("POST", server.url, body=b"x"))
            await client.close()
            return answer.body

        assert [asyncio.run(main()) for _ in range(2)] == [b"x", b"x"]


class _Over(asyncio.Transport):
    """A transport whose connection is over, as CPython 3.11 leaves it."""

    def abort(self) -> None:
        raise AttributeError("'NoneType' object has no attribute 'call_soon'")


def test_connection_that_is_over_is_closed_without_a_word() -> None:
    connection = _Connection()
    connection.connection_made(_Over())
    connection.connection_lost(None)
    connection.close()
    assert not connection.is_open


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_forked_process_uses_a_connection_of_its_own() -> None:
    with scripted({"/": [echo]}) as server:
        client = Client(5.0)
        assert client.send(Request("POST", server.url, [], b"before")).body == b"before"
        with warnings.catch_warnings():
            # The server of this test is a thread; Python 3.12 warns of it.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            body = b""
            try:
                body = client.send(Request("POST", server.url, [], b"child")).body
            finally:
                os._exit(0 if body == b"child" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert server.connections == 2
        assert client.send(Request("POST", server.url, [], b"after")).body == b"after"
        assert server.connections == 2
        client.close()
