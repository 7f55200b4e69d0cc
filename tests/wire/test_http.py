"""Heads of requests and responses as literal bytes."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelport.wire.chunked import BadMessage
from modelport.wire.http import (
    RequestHead,
    encode_response_head,
    parse_request_head,
    unquote_component,
)

# Heads that are read


def read(*lines: str, start: str = "POST /a HTTP/1.1", host: str | None = "h") -> RequestHead:
    rows = [start, *([] if host is None else [f"Host: {host}"]), *lines, "", ""]
    return parse_request_head("\r\n".join(rows).encode("latin-1"))


def test_a_head_is_read_whole() -> None:
    raw = (
        b"POST /v2/models/m%2Fn/infer?x=1&y HTTP/1.1\r\nHost: Example:8000\r\n"
        b"Content-Length: 12\r\nX-A:  spaced \t\r\nx-a: again\r\nACCEPT: \xfc\r\n\r\n"
    )
    head = parse_request_head(raw)
    assert head.raw == raw
    assert (head.method, head.minor) == ("POST", 1)
    assert head.target == "/v2/models/m%2Fn/infer?x=1&y"
    assert (head.path, head.query) == ("/v2/models/m%2Fn/infer", "x=1&y")
    assert head.headers == {
        "host": "Example:8000",
        "content-length": "12",
        "x-a": "spaced, again",
        "accept": "\xfc",
    }
    assert head.content_length == 12
    assert head.keep_alive
    assert not head.is_chunked
    assert not head.expects_continue
    assert head.upgrade == ""
    assert head.original_headers == {
        "Host": "Example:8000",
        "Content-Length": "12",
        "X-A": "spaced, again",
        "ACCEPT": "\xfc",
    }


@pytest.mark.parametrize(
    ("start", "path", "query", "host"),
    [
        ("GET / HTTP/1.1", "/", "", "h"),
        ("GET /? HTTP/1.1", "/", "", "h"),
        ("GET //v2 HTTP/1.1", "//v2", "", "h"),
        ("GET http://other:1/a?b HTTP/1.1", "/a", "b", "other:1"),
        ("GET HTTP://other HTTP/1.1", "/", "", "other"),
        ("GET https://other?b HTTP/1.1", "/", "b", "other"),
        ("OPTIONS * HTTP/1.1", "*", "", "h"),
        ("\r\n\r\nGET /late HTTP/1.1", "/late", "", "h"),
    ],
)
def test_every_form_of_target_gives_path_query_and_host(
    start: str, path: str, query: str, host: str
) -> None:
    head = read(start=start)
    assert (head.path, head.query, head.headers["host"]) == (path, query, host)


@pytest.mark.parametrize(
    ("start", "lines", "keeps"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: keep-alive"], True),
        ("GET / HTTP/1.1", ["Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: x, Close"], False),
        ("GET / HTTP/1.1", ["Connection: x", "connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: closed"], True),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: keep-alive"], False),
    ],
)
def test_a_connection_is_kept_unless_the_client_closes_it(
    start: str, lines: list[str], keeps: bool
) -> None:
    assert read(*lines, start=start).keep_alive is keeps


def test_http_1_0_needs_no_host_and_expects_nothing() -> None:
    head = read("Expect: 100-continue", start="GET / HTTP/1.0", host=None)
    assert (head.minor, head.expects_continue) == (0, False)


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_leave_to_go_on_is_asked_for_in_any_case(value: str) -> None:
    assert read(f"Expect: {value}").expects_continue


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        (["Connection: Upgrade", "Upgrade: WebSocket"], "websocket"),
        (["Connection: keep-alive, upgrade", "Upgrade: websocket"], "websocket"),
        (["Upgrade: websocket"], ""),
        (["Connection: no-upgrade", "Upgrade: websocket"], ""),
        (["Connection: Upgrade"], ""),
    ],
)
def test_an_upgrade_is_asked_for_by_two_headers(lines: list[str], upgrade: str) -> None:
    assert read(*lines, start="GET / HTTP/1.1").upgrade == upgrade


@pytest.mark.parametrize("coding", ["chunked", "Chunked", " chunked"])
def test_chunked_is_known_in_any_case(coding: str) -> None:
    assert read(f"Transfer-Encoding:{coding}").is_chunked


@pytest.mark.parametrize(
    "host", ["", "a", "a:1", "127.0.0.1:8000", "[::1]:8000", "A_b-c.example", "%41"]
)
def test_hosts_that_can_be(host: str) -> None:
    assert read(host=host).headers["host"] == host


# Heads that are refused

HOST = b"Host: h\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        # No HTTP
        (b"\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"HTTP/1.1 200 OK\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / RTSP/1.0\r\n\r\n", 400),
        (b"SOURCE / ICE/1.0\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        # HTTP that is not spoken
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
        (b"FROB / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
        # Lines
        (b"GET / HTTP/1.1\nHost: h\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\nA: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\rA: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA : c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\n: c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: \x1b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\n", 400),
        # Host
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: user@h\r\n\r\n", 400),
        (b"GET http://user@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ],
)
def test_what_is_not_a_request_for_us_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(BadMessage) as caught:
        parse_request_head(raw)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Length: 3", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Content-Length: 3"], 400),
        (["Content-Length: 3", "Content-Length: 4"], 400),
        (["Content-Length: 3", "Content-Length: 3"], 400),
        (["Content-Length: 3, 3"], 400),
        (["Content-Length: +3"], 400),
        (["Content-Length: -3"], 400),
        (["Content-Length: 0x3"], 400),
        (["Content-Length: 3 3"], 400),
        (["Content-Length: 3.0"], 400),
        (["Content-Length: \xb3"], 400),
        (["Content-Length:"], 400),
        (["Content-Length: 9999999999999999999"], 400),
        (["Content-Length : 3"], 400),
        (["Content_Length: 3", "Content-Length: 3x"], 400),
        (["Transfer-Encoding : chunked"], 400),
        (["Transfer-Encoding: xchunked"], 400),
        (["Transfer-Encoding: \x0bchunked"], 400),
        (["Transfer-Encoding: \xa0chunked"], 400),
        (["Transfer-Encoding: identity"], 400),
        (["Transfer-Encoding: chunked, identity"], 400),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], 400),
        (["Transfer-Encoding: gzip, chunked"], 501),
        (["Transfer-Encoding:"], 400),
        (["Inference-Header-Content-Length: 1", "inference-header-content-length: 2"], 400),
    ],
)
def test_a_length_that_two_readers_could_see_differently_is_refused(
    lines: list[str], status: int
) -> None:
    with pytest.raises(BadMessage) as caught:
        read(*lines)
    assert caught.value.status == status


def test_http_1_0_has_no_chunks() -> None:
    with pytest.raises(BadMessage):
        read("Transfer-Encoding: chunked", start="POST / HTTP/1.0")


@given(st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: upgrade\r\n")
@example(b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n")
def test_any_bytes_are_a_head_or_a_refusal(data: bytes) -> None:
    with suppress(BadMessage):
        assert parse_request_head(data + b"\r\n\r\n").raw == data + b"\r\n\r\n"


def test_components_of_a_path_are_decoded_one_by_one() -> None:
    assert unquote_component("plain") == "plain"
    assert unquote_component("a%2Fb%20c%C3%A9") == "a/b c\xe9"
    assert unquote_component("%ff%zz") == "\ufffd%zz"


# Heads of responses


@pytest.mark.parametrize(
    ("status", "headers", "length", "close", "written"),
    [
        (200, (), 0, False, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            404,
            [("A", "b")],
            7,
            True,
            b"HTTP/1.1 404 Not Found\r\nA: b\r\nConnection: close\r\nContent-Length: 7\r\n\r\n",
        ),
        (200, (), None, False, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (204, (), 0, False, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (204, (), None, False, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (304, (), 5, False, b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        (101, (("U", "w"),), None, False, b"HTTP/1.1 101 Switching Protocols\r\nU: w\r\n\r\n"),
        (299, (), 1, False, b"HTTP/1.1 299 Status\r\nContent-Length: 1\r\n\r\n"),
        (
            200,
            [("A", "\u20ac\xfc")],
            0,
            False,
            b"HTTP/1.1 200 OK\r\nA: ?\xfc\r\nContent-Length: 0\r\n\r\n",
        ),
    ],
)
def test_response_heads(
    status: int,
    headers: list[tuple[str, str]],
    length: int | None,
    close: bool,
    written: bytes,
) -> None:
    assert encode_response_head(status, headers, length, close=close) == written


@pytest.mark.parametrize("name", ["", "A: b", "A\r\nB", "A B", "\xe9"])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="no header can have the name"):
        encode_response_head(200, [(name, "a")], 0, close=False)


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\n", "\r", "\0"])
def test_a_value_cannot_break_out_of_its_line(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        encode_response_head(200, [("A", value)], 0, close=False)
