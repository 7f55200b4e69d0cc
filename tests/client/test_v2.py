import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from modelport.client.v2 import BadReply, Refused, Server
from modelport.errors import TimedOut, Unavailable


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A listener that gives these bytes to its connections in turn, and keeps what they sent."""
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(65536))
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        thread.join(1)


def response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Text\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def test_a_path_in_the_url_goes_before_every_route() -> None:
    with answering(response(200, b"[]")) as (url, received), Server(f"{url}/base/") as server:
        assert server.index() == []
    assert received[0].startswith(b"POST /base/v2/repository/index HTTP/1.1\r\n")


def test_names_are_quoted() -> None:
    server = Server("localhost")
    assert server.model_path("a b/c", "1") == "/v2/models/a%20b%2Fc/versions/1"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":"no such thing"}', "[400] no such thing"),
        (b'{"detail":"no such thing"}', "[400] no such thing"),
        (b"plain words\n", "[400] plain words"),
        (b"", "[400] Bad Request"),
        (b"[1]", "[400] [1]"),
    ],
)
def test_an_error_keeps_its_status_and_the_servers_words(body: bytes, text: str) -> None:
    with (
        answering(response(400, body)) as (url, _),
        Server(url) as server,
        pytest.raises(Refused) as caught,
    ):
        server.index()
    assert (caught.value.status, str(caught.value)) == (400, text)


@pytest.mark.parametrize(
    ("body", "call", "text"),
    [
        (b"<html>", Server.index, "is this a V2 server?"),
        (b"{}", Server.index, "no array of objects with a name"),
        (b"[{}]", Server.index, "no array of objects with a name"),
        (b"[]", Server.names, "list of models"),
        (b"[]", lambda server: server.metadata("m"), "not as V2 says"),
        (b'{"name":"m","inputs":[{"name":"x"}]}', lambda server: server.metadata("m"), "not as V2"),
        (b'{"name":"m","inputs":3}', lambda server: server.metadata("m"), "not as V2"),
    ],
)
def test_an_answer_that_is_not_v2_is_told(
    body: bytes, call: Callable[[Server], object], text: str
) -> None:
    with (
        answering(response(200, body)) as (url, _),
        Server(url) as server,
        pytest.raises(BadReply, match=text.replace("?", r"\?")),
    ):
        call(server)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "(it closed the connection without an answer|Connection reset)"),
        (b"nonsense\r\n\r\n", "it speaks no HTTP; it says 'nonsense"),
        (response(200, b"{}")[:-1], "(it closed the connection in the middle|Connection reset)"),
    ],
)
def test_a_connection_that_breaks_is_told(answer: bytes, said: str) -> None:
    with (
        answering(answer) as (url, _),
        Server(url) as server,
        pytest.raises(Unavailable, match=f"cannot call {url}: {said}"),
    ):
        server.index()


def test_a_server_without_tls_is_told() -> None:
    with (
        answering(response(400, b"")) as (url, _),
        Server(url.replace("http", "https")) as server,
        pytest.raises(Unavailable, match=r"it (speaks no TLS there|closed the connection)|reset"),
    ):
        server.index()


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.client.v2.MOST_BYTES", 1000)
    with (
        answering(response(200, bytes(2000))) as (url, _),
        Server(url) as server,
        pytest.raises(BadReply, match="is longer than 1000 bytes"),
    ):
        server.index()


def test_a_redirection_is_told_with_where_it_leads() -> None:
    moved = b"HTTP/1.1 308 Moved\r\nLocation: https://other/v2\r\nContent-Length: 0\r\n\r\n"
    with (
        answering(moved) as (url, _),
        Server(url) as server,
        pytest.raises(Refused, match="moved this to 'https://other/v2'; call it there"),
    ):
        server.index()


def test_credentials_in_the_url_are_sent_and_shown_to_nobody() -> None:
    with (
        answering(response(200, b"{")) as (url, received),
        Server(url.replace("//", "//me:pa%3Ass@")) as server,
    ):
        assert server.url == url
        with pytest.raises(BadReply):
            server.index()
    assert b"Authorization: Basic bWU6cGE6c3M=\r\n" in received[0]


def test_a_server_that_does_not_answer_is_waited_for_only_so_long() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Server(f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.01) as server,
        pytest.raises(TimedOut, match=r"did not answer within 0\.01 s"),
    ):
        server.index()


def test_a_call_after_a_failed_one_connects_anew() -> None:
    with answering(b"", response(200, b"[]")) as (url, _), Server(url) as server:
        with pytest.raises(Unavailable):
            server.index()
        assert server.index() == []
