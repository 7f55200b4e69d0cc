"""Servers that lie, never end, or say what nobody understands."""

import asyncio
import contextlib
import gc
import gzip
import json
import os
import select
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelport.client.bentoml import SyncHTTPClient
from modelport.client.flows import Request, TransportFailed
from modelport.client.transports import asynchronous
from modelport.client.transports.asynchronous import AsyncClient
from modelport.client.transports.blocking import BlockingStream, Client
from modelport.client.transports.common import MOST_ERROR_BYTES
from modelport.errors import TooLarge
from modelport.exceptions import BentoMLException, ServiceUnavailable

from .scripted import Answer, Asked, Send, chunked, reply, scripted
from .test_bentoml import ROUTES, echo, service

MANY_CALLS = int(os.environ.get("MODELPORT_TEST_CALLS", "300"))
"""10000 shows more and takes longer."""

Talk = Callable[[socket.socket], None]


@pytest.fixture
def patience_s() -> float:
    return 0.5


@contextlib.contextmanager
def talking(talk: Talk) -> Iterator[str]:
    """Run a server that does ``talk`` with each connection, until the other side closes."""

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer, contextlib.suppress(OSError):
                    talk(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert not thread.is_alive(), "the connection was left open"


def endlessly(start: bytes, again: bytes) -> Talk:
    def talk(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(start)
        while True:
            peer.sendall(again * 1000)

    return talk


def saying(answer: bytes) -> Talk:
    def talk(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(answer)
        # Until the client has had enough of it.
        while peer.recv(65_536):
            pass

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
IN_CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "again", "said"),
    [
        (OK, b"X-More: and more\r\n", "headers of the answer are too long"),
        (b"", b"x", "it speaks no HTTP; it says b'xxx"),
        (b"HTTP/1.1 ", b"x", "headers of the answer are too long"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "headers of the answer are too long"),
        (IN_CHUNKS, b"0", "not valid HTTP"),
        (IN_CHUNKS + b"1;", b"x", "not valid HTTP"),
        (IN_CHUNKS + b"0\r\n", b"X-Trailer: more\r\n", "not valid HTTP"),
    ],
)
def test_what_never_ends_is_given_up(send: Send, start: bytes, again: bytes, said: str) -> None:
    with (
        talking(endlessly(start, again)) as url,
        pytest.raises(TransportFailed, match=said),
    ):
        send(Request("GET", url))


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        OK + b"Content-Length: 1\r\n\r\nabc",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length : 1\r\n\r\na",
        IN_CHUNKS + b"fffffffffffffffff\r\n",
        IN_CHUNKS + b"-1\r\n",
        IN_CHUNKS + b"1\r\nab\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
    ],
)
def test_lies_about_lengths_are_no_answers(send: Send, answer: bytes) -> None:
    with talking(saying(answer)) as url, pytest.raises(TransportFailed, match="the server at"):
        send(Request("GET", url))


def test_error_without_end_is_cut(send: Send) -> None:
    start = b"HTTP/1.1 500 No\r\nContent-Length: 999999999999\r\n\r\n"
    with talking(endlessly(start, b"no " * 100)) as url:
        answer = send(Request("GET", url))
    assert answer.status == 500
    assert MOST_ERROR_BYTES < len(answer.body) < 2 * MOST_ERROR_BYTES


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", r"it speaks no HTTP; it says b'SSH-2\.0-OpenSSH_9\.6"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS; call it with https://"),
        (b"\0\0\x06\x04\0\0\0\0\0" + bytes(6), "it speaks HTTP/2 alone, as ports of gRPC do"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "switches to another protocol, unasked"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "has the Transfer-Encoding 'gzip, chun"),
        (OK + b"Content-Le", "closed the connection in the middle of its answer"),
    ],
)
def test_what_answers_there_is_told(send: Send, answer: bytes, said: str) -> None:
    """At once, and not when its time is over: others than HTTP wait for us to speak."""

    def talk(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(answer)
        if answer.endswith(b"-Le"):
            peer.shutdown(socket.SHUT_WR)
        silent(peer)

    with talking(talk) as url, pytest.raises(TransportFailed, match=said):
        send(Request("GET", url))


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (saying(b"HTTP/1.1 400 No\r\n\r\n"), "speaks no TLS there; call it with http://"),
        (lambda peer: peer.shutdown(socket.SHUT_RDWR), "if it speaks none, call it with http://"),
    ],
    ids=["answers", "closes"],
)
def test_a_server_without_tls_is_told(send: Send, talk: Talk, said: str) -> None:
    with talking(talk) as url, pytest.raises(TransportFailed, match=said) as failed:
        send(Request("GET", url.replace("http", "https", 1)))
    assert not failed.value.was_sent


# Compressed, which nobody asked for and nobody refused.


def folded(coding: str, body: bytes, status: bytes = b"200 OK") -> Talk:
    head = b"HTTP/1.1 %b\r\nContent-Encoding: %b\r\n" % (status, coding.encode())
    return saying(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


@pytest.mark.parametrize(
    ("coding", "fold"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_compressed_answers_are_unfolded(
    send: Send, coding: str, fold: Callable[[bytes], bytes]
) -> None:
    with talking(folded(coding, fold(b"hello"))) as url:
        assert send(Request("GET", url)).body == b"hello"


@pytest.mark.parametrize(
    ("coding", "said"), [("br", "compressed with 'br', unasked"), ("gzip", "cannot be unfolded")]
)
def test_what_cannot_be_unfolded_is_told(send: Send, coding: str, said: str) -> None:
    with talking(folded(coding, b"hello")) as url, pytest.raises(TransportFailed, match=said):
        send(Request("GET", url))
    with talking(folded(coding, b"hello", b"500 No")) as url:
        assert send(Request("GET", url)).body == b"hello"


def test_little_that_unfolds_to_much_is_given_up() -> None:
    bomb = gzip.compress(bytes(5_000_000))
    said = "is longer than 1000000 bytes; allow more with max_response_bytes"

    async def asynchronously(url: str) -> None:
        client = AsyncClient(5, most_bytes=1_000_000)
        with pytest.raises(TooLarge, match=said):
            await client.send(Request("GET", url))
        await client.close()

    with talking(folded("gzip", bomb)) as url:
        with (
            contextlib.closing(Client(5, most_bytes=1_000_000)) as client,
            pytest.raises(TooLarge, match=said),
        ):
            client.send(Request("GET", url))
        asyncio.run(asynchronously(url))


def test_compressed_streams_are_refused() -> None:
    with (
        talking(folded("gzip", gzip.compress(b"hello"))) as url,
        contextlib.closing(Client(1)) as client,
        pytest.raises(TransportFailed, match="the stream is compressed with 'gzip', unasked"),
    ):
        client.send(Request("GET", url), wants_stream=True)


def test_error_texts_are_cut_for_people() -> None:
    with (
        scripted(service(classify=[reply(b"no " * 100_000, 500)])) as server,
        SyncHTTPClient(server.url) as client,
        pytest.raises(BentoMLException, match=r"^no no .*\(300000 bytes\)$") as caught,
    ):
        client.call("classify", "a")
    assert len(str(caught.value)) < 20_000


# Each wait has its end.


def dripping(head: bytes) -> Talk:
    def talk(peer: socket.socket) -> None:
        peer.recv(65_536)
        for at in range(len(head)):
            peer.sendall(head[at : at + 1])
            time.sleep(0.02)

    return talk


def test_a_head_that_comes_byte_by_byte_has_its_end(send: Send) -> None:
    slow = dripping(OK + b"X: " + b"a" * 500)
    with talking(slow) as url, pytest.raises(TransportFailed, match=r"within 0\.5 s") as late:
        send(Request("GET", url))
    assert late.value.is_timeout


def silent(peer: socket.socket) -> None:
    closed = select.poll()
    closed.register(peer, select.POLLRDHUP)
    closed.poll(4000)


@pytest.mark.parametrize(
    ("talk", "body", "scheme"),
    [
        (silent, b"", "http"),
        (silent, bytes(20_000_000), "http"),
        (silent, b"", "https"),
        (saying(OK + b"Content-Length: 9\r\n\r\nabc"), b"", "http"),
        (saying(IN_CHUNKS + b"5\r\nab"), b"", "http"),
    ],
    ids=["answer", "reading", "handshake", "middle", "chunk"],
)
def test_each_wait_has_its_end(send: Send, talk: Talk, body: bytes, scheme: str) -> None:
    with talking(talk) as url, pytest.raises(TransportFailed, match=r"within 0\.5 s") as late:
        send(Request("POST", url.replace("http", scheme, 1), body=body))
    assert late.value.is_timeout


def test_a_proxy_that_answers_byte_by_byte_has_its_end(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    with talking(dripping(OK + b"X: " + b"a" * 500)) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(TransportFailed, match=r"could not be reached within 0\.5 s") as late:
            send(Request("GET", "https://far.example/"))
    assert late.value.is_timeout
    assert not late.value.was_sent


def test_streams_that_stall_are_given_up() -> None:
    with (
        talking(saying(IN_CHUNKS + b"2\r\nab\r\n")) as url,
        contextlib.closing(Client(0.3)) as client,
    ):
        answer = client.send(Request("GET", url), wants_stream=True)
        assert isinstance(answer.stream, BlockingStream)
        pieces = iter(answer.stream)
        assert next(pieces) == b"ab"
        with pytest.raises(TransportFailed, match=r"within 0\.3 s"):
            next(pieces)


def test_too_many_at_a_time_wait_and_then_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asynchronous, "MOST_CONNECTIONS", 1)

    async def main(url: str) -> None:
        client = AsyncClient(0.3)
        first = asyncio.ensure_future(client.send(Request("GET", url, timeout_s=2)))
        await asyncio.sleep(0)
        with pytest.raises(TransportFailed, match="1 requests are under way"):
            await client.send(Request("GET", url))
        first.cancel()
        await asyncio.wait([first])
        await client.close()

    with talking(silent) as url:
        asyncio.run(main(url))


# Whoever has had enough closes the connection, which tells the server.


def watched(closed: threading.Event) -> Talk:
    def talk(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(IN_CHUNKS + b"2\r\nab\r\n")
        peer.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            peer.recv(1)
        closed.set()

    return talk


def test_interrupt_closes_the_connection() -> None:
    closed = threading.Event()
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with talking(watched(closed)) as url:
            client = Client(5)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                client.send(Request("GET", url))
            assert closed.wait(5)
            client.close()
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_cancelling_closes_the_connection() -> None:
    closed = threading.Event()

    async def main(url: str) -> None:
        client = AsyncClient(5)
        call = asyncio.ensure_future(client.send(Request("GET", url)))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(closed.wait, 5)
        await client.close()

    with talking(watched(closed)) as url:
        asyncio.run(main(url))


def test_stream_that_nobody_reads_on_is_closed() -> None:
    with scripted(service(numbers=[chunked(b"1 ")[:-1]])) as server:
        client = SyncHTTPClient(server.url)
        items = client.call("numbers")
        assert next(items) == 1
        items.close()
        client.close()
        assert _until(lambda: not _is_open(server.port))


def _is_open(port: int) -> bool:
    there = f"{port:04X} 01 "
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return any(line.split()[2].endswith(there.split()[0]) and " 01 " in line for line in lines)


def _until(holds: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 5
    while not holds() and time.monotonic() < until_s:
        time.sleep(0.01)
    return holds()


# What they say.


@pytest.mark.parametrize(
    "schema",
    [
        b"<html>",
        b"[]",
        b"null",
        b'{"routes": 5}',
        b'{"routes": [{"name": "a"}]}',
        b'{"routes": [{"name": "a", "route": "/a", "input": {"properties": [1]}}]}',
        b'{"routes": [{"name": "a", "route": "/a", "input": {"properties": {"b": 1}}}]}',
        b'{"routes": [{"name": "a", "route": "/a", "input": 7}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_schema_is_told(schema: bytes) -> None:
    with (
        scripted({"/readyz": [reply()], "/schema.json": [reply(schema)]}) as server,
        pytest.raises(BentoMLException, match="is not the schema of a service"),
    ):
        SyncHTTPClient(server.url)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("classify", b"[" * 100_000),
        ("classify", b"\xff"),
        ("tensor", b'[[1],["a",{}]]'),
        ("tensor", b'{"a": 1}'),
        ("tensor", b"1e999999]"),
    ],
)
def test_what_is_no_result_is_told(name: str, body: bytes) -> None:
    answers: list[Answer] = [reply(body)]
    with (
        scripted(service(**{name: answers})) as server,
        SyncHTTPClient(server.url) as client,
        pytest.raises(BentoMLException, match="not what the schema says"),
    ):
        client.call(name, [1])


@pytest.mark.parametrize("items", [b"\xff", b"[" * 100_000, b'{"a": '])
def test_broken_items_are_told(items: bytes) -> None:
    with (
        scripted(service(numbers=[chunked(items)])) as server,
        SyncHTTPClient(server.url) as client,
        pytest.raises(BentoMLException, match="is broken"),
    ):
        list(client.call("numbers"))


def test_names_of_endpoints_do_no_harm() -> None:
    names = [
        "_transport",
        "__class__",
        "__init__",
        "größe",
        "class",
        "two words",
        "close",
        "url",
        "",
    ]
    routes = [{"name": name, "route": f"/e{at}"} for at, name in enumerate(names)]
    answers: dict[str, list[Answer]] = {
        "/readyz": [reply()],
        "/schema.json": [reply(json.dumps({"routes": routes}).encode())],
        **{f"/e{at}": [reply(b"%d" % at)] for at in range(len(names))},
    }
    with scripted(answers) as server, SyncHTTPClient(server.url) as client:
        found: Any = client
        assert [client.call(name) for name in names] == list(range(len(names)))
        assert found.größe() == 3
        assert found.api__transport() == 0
        assert found.api_close() == 6
        assert isinstance(client, SyncHTTPClient)


def test_text_of_every_kind_arrives() -> None:
    text = 'grüße ✓ 𝄞 \x00 \u2028 "\\'
    with scripted(service(classify=[echo])) as server, SyncHTTPClient(server.url) as client:
        assert client.call("classify", text) == {"text": text}


def test_routes_that_lead_elsewhere_do_not_take_the_token_along() -> None:
    with scripted({"/steal": [reply(b"{}")]}) as elsewhere:
        route = {**ROUTES[0], "route": f"{elsewhere.url}/steal"}
        schema = json.dumps({"routes": [route]}).encode()
        with (
            scripted({"/readyz": [reply()], "/schema.json": [reply(schema)]}) as server,
            SyncHTTPClient(server.url, token="secret") as client,
        ):
            client.call("classify", "a")
            client.request("GET", f"{elsewhere.url}/steal")
    assert all("authorization" not in asked.headers for asked in elsewhere.asked)


@pytest.mark.parametrize(
    "location",
    ["file:///run/docker.sock//x", "ftp://a/", "http://a:99999/", "http://[", "http://a:b/"],
)
def test_redirections_lead_to_servers_only(location: str) -> None:
    moved = reply(b"", 307, Location=location)
    with (
        scripted(service(classify=[moved])) as server,
        SyncHTTPClient(server.url) as client,
        pytest.raises(BentoMLException, match="status 307 and no text; it points to"),
    ):
        client.call("classify", "a")


def test_redirections_may_hold_what_urls_may_not() -> None:
    moved = reply(b"", 307, Location="/went here?a=\xfc b")
    answers = service(classify=[moved]) | {"/went%20here": [echo]}
    with scripted(answers) as server, SyncHTTPClient(server.url) as client:
        assert client.call("classify", "a") == {"text": "a"}


def test_redirections_without_end_are_told() -> None:
    moved = reply(b"", 307, Location="/classify")
    with (
        scripted(service(classify=[moved])) as server,
        SyncHTTPClient(server.url) as client,
        pytest.raises(BentoMLException, match="redirected more than 10 times"),
    ):
        client.call("classify", "a")


def test_what_nobody_asked_for_is_never_taken_for_an_answer() -> None:
    def split(asked: Asked) -> bytes:
        return reply(asked.body) + reply(b'{"text":"evil"}')

    late: list[Answer] = [[reply(b'{"text":"0"}'), b"HTTP/1.1 200 OK\r\n"]]
    both: list[Answer] = [split]
    for answers in (late, both):
        with scripted(service(classify=answers)) as server, SyncHTTPClient(server.url) as client:
            for number in range(6):
                with contextlib.suppress(ServiceUnavailable):
                    assert client.call("classify", f"{number}") != {"text": "evil"}
                time.sleep(0.01)


# Nothing stays.


def test_many_calls_leave_nothing_behind() -> None:
    with scripted(service(classify=[echo], words=[chunked(b"a", b"b")])) as server:
        with SyncHTTPClient(server.url) as client:

            def rounds(count: int) -> None:
                for number in range(count):
                    client.call("classify", f"number {number}")
                    if number % 10 == 0:
                        assert "".join(client.call("words")) == "ab"
                        # Left in the middle.
                        next(client.call("words"))
                server.asked.clear()
                gc.collect()

            rounds(MANY_CALLS // 10)
            before = len(gc.get_objects()), _open_files()
            rounds(MANY_CALLS)
            after = len(gc.get_objects()), _open_files()
        assert after[0] - before[0] < 200
        assert after[1] <= before[1] + 2


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
