"""Mounted applications with WebSockets, streams and uploads, over sockets."""

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trustme
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from tests.served import Served, call, get, serving
from tests.waiting import eventually

FILE = Path(__file__).parent / "pages_sample.py"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(str(FILE)) as running:
        yield running


class Browser:
    """The other end of a WebSocket."""

    def __init__(
        self, served: Served, path: str, *early: ws.Event, headers: Any = (), **more: Any
    ) -> None:
        host, _, port = served.address.partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=15)
        self.peer = WSConnection(ConnectionType.CLIENT)
        self.waiting: list[Any] = []
        request = ws.Request(host="localhost", target=path, extra_headers=list(headers), **more)
        self.send(request, *early)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, *events: ws.Event) -> None:
        self.socket.sendall(b"".join(self.peer.send(event) for event in events))

    def next(self) -> Any:
        while not self.waiting:
            data = self.socket.recv(65536)
            self.peer.receive_data(data or None)
            self.waiting += self.peer.events()
        return self.waiting.pop(0)


def seen(served: Served) -> Any:
    return json.loads(get(served, "/chat/seen")[2])


def test_messages_go_both_ways(served: Served) -> None:
    with Browser(served, "/chat/echo", subprotocols=["chat.v1", "chat.v2"]) as browser:
        accepted = browser.next()
        assert isinstance(accepted, ws.AcceptConnection)
        assert accepted.subprotocol == "chat.v2"
        assert (b"x-mine", b"1") in list(accepted.extra_headers)
        browser.send(ws.TextMessage("hällo"), ws.BytesMessage(b"abc"))
        assert browser.next().data == "HÄLLO"
        assert bytes(browser.next().data) == b"cba"
        browser.send(*(ws.TextMessage(f"m{at}") for at in range(300)))
        assert [browser.next().data for _ in range(300)] == [f"M{at}" for at in range(300)]


def test_what_is_sent_right_behind_the_handshake_is_not_lost(served: Served) -> None:
    host, _, port = served.address.partition(":")
    head = (
        "GET /chat/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + b"\x81\x82\0\0\0\0hi")
        received = b""
        while not received.endswith(b"\x81\x02HI"):
            piece = connection.recv(1000)
            assert piece, received
            received += piece
        assert received.startswith(b"HTTP/1.1 101 ")


def test_either_side_may_say_goodbye(served: Served) -> None:
    with Browser(served, "/chat/echo", subprotocols=[]) as browser:
        assert isinstance(browser.next(), ws.AcceptConnection)
        browser.send(ws.TextMessage("leave"))
        goodbye = browser.next()
        assert (goodbye.code, goodbye.reason) == (4001, "as you wish")
    with Browser(served, "/chat/echo") as browser:
        browser.next()
        browser.send(ws.CloseConnection(4002))
        assert browser.next().code == 4002
    eventually(lambda: 4002 in seen(served)["codes"])


def test_a_client_that_breaks_off_is_told_to_the_application(served: Served) -> None:
    before = seen(served)["codes"].count(1006)
    with Browser(served, "/chat/echo") as browser:
        browser.next()
    eventually(lambda: seen(served)["codes"].count(1006) > before)


def test_an_application_may_refuse(served: Served) -> None:
    with Browser(served, "/chat/closed") as browser:
        refused = browser.next()
        assert isinstance(refused, ws.RejectConnection)
        assert refused.status_code == 403
    with Browser(served, "/chat/denied") as browser:
        refused = browser.next()
        assert refused.status_code == 402
        assert json.loads(bytes(browser.next().data)) == {"why": "not you"}
    with Browser(served, "/chat/nowhere") as browser:
        assert browser.next().status_code == 403


def test_an_application_that_fails_ends_its_websocket_with_1011(served: Served) -> None:
    with Browser(served, "/chat/broken") as browser:
        browser.next()
        assert browser.next().code == 1011
    eventually(lambda: any("a secret" in line for line in served.lines))


def test_the_scope_tells_where_and_who(served: Served) -> None:
    with Browser(served, "/chat/who/me?q=a%20b") as browser:
        browser.next()
        said = json.loads(browser.next().data)
        assert said == {"name": "me", "q": "a b", "service": "Pages"}


def test_a_request_tells_who_asks_and_what_the_lifespan_has_kept(served: Served) -> None:
    status, _, body = get(served, "/chat/where")
    assert status == 200
    expected = {"scheme": "http", "client": "127.0.0.1", "kept": "since the start"}
    assert json.loads(body) == expected


def test_an_application_behind_tls_is_told_so(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    names = {"--tls-cert": tmp_path / "cert.pem", "--tls-key": tmp_path / "key.pem"}
    certificate.cert_chain_pems[0].write_to_path(names["--tls-cert"])
    certificate.private_key_pem.write_to_path(names["--tls-key"])
    options = [text for name, path in names.items() for text in (name, str(path))]
    with serving(str(FILE), *options) as running:
        host, _, port = running.address.partition(":")
        asker = http.client.HTTPSConnection(
            host,
            int(port),
            context=ssl._create_unverified_context(),  # its authority is this test's own
        )
        asker.request("GET", "/chat/where")
        assert json.loads(asker.getresponse().read())["scheme"] == "https"
        asker.close()


def test_pages_of_other_origins_are_not_let_in(served: Served) -> None:
    with Browser(served, "/chat/echo", headers=[(b"origin", b"http://evil.example")]) as browser:
        assert browser.next().status_code == 403


def test_an_application_waits_for_a_client_that_does_not_read(served: Served) -> None:
    with Browser(served, "/chat/flood") as browser:
        browser.next()
        last = -1
        while last != (now := seen(served)["sent"]):
            last = now
            time.sleep(0.3)
        # Buffers of the kernel on both sides, and ours.
        assert 0 < last * 65536 < 64 << 20
    eventually(lambda: "flood" in seen(served)["codes"])


def test_a_client_waits_for_an_application_that_does_not_read(served: Served) -> None:
    with Browser(served, "/chat/deaf") as browser:
        browser.next()
        browser.socket.settimeout(1.0)
        message = browser.peer.send(ws.BytesMessage(b"x" * 65536))
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                browser.socket.sendall(message)
                sent += len(message)
        assert sent < 64 << 20, "it was never made to wait"


def test_bodies_come_as_they_are_sent(served: Served) -> None:
    _, _, body = call(served, "/chat/length", b"x" * 5_000_000)
    said = json.loads(body)
    assert said["total"] == 5_000_000
    assert said["pieces"] > 2
    pieces = (b"y" * 1000 for _ in range(50))
    _, _, body = call(served, "/chat/length", pieces)
    assert json.loads(body)["total"] == 50_000
    assert json.loads(call(served, "/chat/length")[2])["total"] == 0


def test_answers_come_as_they_are_made_over_http_2(served: Served) -> None:
    host, _, port = served.address.partition(":")
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        peer.initiate_connection()
        peer.send_headers(
            1,
            [
                (":method", "GET"),
                (":path", "/chat/halves"),
                (":scheme", "http"),
                (":authority", "localhost"),
            ],
            end_stream=True,
        )
        connection.sendall(peer.data_to_send())
        received = b""
        is_over = False
        while not is_over:
            for event in peer.receive_data(connection.recv(65536)):
                if isinstance(event, h2.events.DataReceived):
                    received += event.data
                is_over = is_over or isinstance(event, h2.events.StreamEnded)
            connection.sendall(peer.data_to_send())
            if received == b"first":
                assert call(served, "/chat/go_on")[0] == 200
        assert received == b"firstsecond"


def test_a_page_in_the_way_of_gradio_works(served: Served) -> None:
    status, headers, body = get(served, "/ui/")
    assert (status, b'"root": "/ui"' in body) == (200, True)
    sent = {"Cookie": headers["set-cookie"].partition(";")[0]}
    assert get(served, "/ui/cookie", sent)[2] == b"abc"
    join = {"data": ["hello"], "session_hash": "s1"}
    assert json.loads(call(served, "/ui/queue/join", join)[2]) == {"event_id": "1"}
    _, headers, body = get(served, "/ui/queue/data?session_hash=s1")
    assert headers["content-type"].startswith("text/event-stream")
    messages = [json.loads(line[5:])["msg"] for line in body.decode().split("\n\n") if line]
    assert messages == ["estimation", "process_starts", "process_completed", "close_stream"]
    assert b"in the way of Gradio" in get(served, "/ui/static/pages_sample.py")[2]
    assert call(served, "/shout", {"text": "a"})[2] == b"A"


def test_files_are_uploaded_to_an_application(served: Served, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"z" * 3_000_000)
    url = f"{served.url}/ui/upload"
    command = ["curl", "-s", "-F", f"files=@{large}", "-F", f"files=@{FILE}", url]
    said = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    assert json.loads(said) == [3_000_000, FILE.stat().st_size]


def test_an_application_whose_loop_stands_still_holds_its_client_back(served: Served) -> None:
    with Browser(served, "/chat/standing") as browser:
        assert isinstance(browser.next(), ws.AcceptConnection)
        piece = browser.peer.send(ws.BytesMessage(bytes(65_536)))
        browser.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += browser.socket.send(piece[sent % len(piece) :])
        assert sent < 100_000_000, "it was never made to wait"
        browser.socket.settimeout(15)
        browser.socket.sendall(piece[sent % len(piece) :])
        messages = sent // len(piece) + 1
        assert [browser.next().data for _ in range(messages)] == ["65536"] * messages


def test_many_websockets_are_open_at_once(served: Served) -> None:
    with contextlib.ExitStack() as all_of_them:
        browsers = [all_of_them.enter_context(Browser(served, "/chat/echo")) for _ in range(50)]
        for browser in browsers:
            assert isinstance(browser.next(), ws.AcceptConnection)
        for at, browser in enumerate(browsers):
            browser.send(ws.TextMessage(f"a{at}"))
        assert [each.next().data for each in browsers] == [f"A{at}" for at in range(50)]


def test_a_server_that_ends_says_goodbye(tmp_path: Path) -> None:
    with serving(str(FILE)) as running, Browser(running, "/chat/echo") as browser:
        browser.next()
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        goodbye = browser.next()
        assert goodbye.code == 1001
        browser.send(goodbye.response())
        stopping.join(20)
        assert running.process.poll() == 0
