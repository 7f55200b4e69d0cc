"""The listener in memory: bytes in, bytes out, time by hand."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.server.cors import Cors
from modelport.server.http import AccessRecord, HttpOptions
from modelport.server.http.answer_heads import MOST_KEPT, AnswerHeads
from modelport.server.http.connection import (
    HALF_CLOSE_GRACE_S,
    HIGH_WATER_BYTES,
    LEAST_PROGRESS_BYTES,
    LINGER_S,
    MOST_REFUSED,
    PENDING_BYTES,
    QUIET_S,
)
from modelport.wire.http import HttpLimits

from .memory_connection import Client, TestServer, get, post, turning

Serve = Callable[..., TestServer]

HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


def error(client: Client) -> str:
    """Give the text of the last answer, an error."""
    answer = client.answers[-1]
    assert answer.headers["content-type"] == "application/json"
    document = json.loads(answer.body)
    assert list(document) == ["error"]
    return str(document["error"])


def chunked(path: str, *parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return get(path, "Transfer-Encoding: chunked", method="POST") + chunks + end


# Requests and answers


def test_a_request_gets_its_answer_and_the_connection_stays(client: Client) -> None:
    client.send(get("/hello"))
    assert client.read() == HELLO
    assert not client.has_ended()


def test_a_kept_connection_answers_again_and_again(client: Client) -> None:
    for _ in range(3):
        client.send(get("/hello"))
        assert client.read() == HELLO
    client.send(get("/name/a?x=1", "X-Name: b"), post("/echo", b"c"))
    assert [answer.body for answer in client.answers][-2:] == [b"GET a x=1 b", b"c"]


def test_the_same_head_with_another_body_is_another_request(client: Client) -> None:
    client.send(post("/echo", b"one"), post("/echo", b"two"))
    assert [answer.body for answer in client.answers] == [b"one", b"two"]


@pytest.mark.parametrize("value", ["close", "Close, x"])
def test_a_client_that_wants_to_close_is_told_so_and_obeyed(client: Client, value: str) -> None:
    client.send(get("/hello", f"Connection: {value}") + get("/hello"))
    (answer,) = client.answers
    assert answer.headers["connection"] == "close"
    assert client.is_closed()


def test_http_1_0_gets_one_answer_and_the_end(client: Client) -> None:
    client.send(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert client.read().endswith(b"Connection: close\r\nContent-Length: 5\r\n\r\nhello")
    assert client.is_closed()


def test_empty_lines_between_requests_are_passed_over(client: Client) -> None:
    client.send(b"\r\n", b"\r", b"\n", b"\r\n\r\n" + get("/hello"), b"\r\n" + get("/hello"))
    assert client.read() == HELLO * 2


STREAM = b"".join(
    [
        get("/hello"),
        post("/echo", b"counted"),
        chunked("/echo", b"in ", b"chunks"),
        get("/nowhere"),
        post("/echo", b""),
        get("/hello", method="HEAD"),
        get("/hello", method="PUT"),
        post("/echo", b"GET /hello HTTP/1.1\r\n\r\n"),
        get("/name/x"),
    ]
)


def answers_to(pieces: list[bytes]) -> tuple[bytes, list[bytes]]:
    server = TestServer()
    with turning(server.loop):
        client = server.client()
        client.send(*pieces)
        return _without_ids(client.read()), server.seen


def _without_ids(data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"X-Request-Id"))


WHOLE, BODIES = answers_to([STREAM])


def test_pipelined_requests_are_answered_in_their_order() -> None:
    assert BODIES == [b"counted", b"in chunks", b"", b"GET /hello HTTP/1.1\r\n\r\n"]
    statuses = [WHOLE[found.end() : found.end() + 3] for found in re.finditer(b"HTTP/1.1 ", WHOLE)]
    assert statuses == [b"200", b"200", b"200", b"404", b"200", b"200", b"405", b"200", b"200"]


def test_requests_may_come_byte_by_byte() -> None:
    pieces = [STREAM[i : i + 1] for i in range(len(STREAM))]
    assert answers_to(pieces) == (WHOLE, BODIES)


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=8))
def test_requests_may_come_in_any_pieces(places: list[int]) -> None:
    ends = sorted({0, len(STREAM), *places})
    assert answers_to([STREAM[a:b] for a, b in pairwise(ends)]) == (WHOLE, BODIES)


def test_a_later_request_waits_for_an_earlier_answer(server: TestServer, client: Client) -> None:
    client.send(get("/later") + get("/hello"), get("/later"), get("/hello"))
    assert client.read() == b""
    assert len(server.waiting) == 1
    server.waiting[0].respond(200, (), [b"first"])
    server.loop.turn()
    assert [answer.body for answer in client.answers] == [b"first", b"hello"]
    server.waiting[1].respond(200, (), [b"second"])
    server.loop.turn()
    assert [answer.body for answer in client.answers][2:] == [b"second", b"hello"]


def test_clients_do_not_wait_for_one_another(server: TestServer) -> None:
    first, second = server.client(), server.client()
    first.send(get("/later"))
    second.send(get("/hello"))
    assert second.read() == HELLO


# What the table and the door refuse


def test_an_unknown_path_is_404_as_json(client: Client) -> None:
    client.send(get("/nowhere"))
    assert client.statuses == [404]
    assert error(client) == "Not Found"
    assert not client.has_ended()


def test_a_wrong_method_is_405_and_says_which_are_right(client: Client) -> None:
    client.send(get("/later", method="DELETE"))
    assert client.statuses == [405]
    assert error(client) == "Method Not Allowed"
    assert client.answers[0].headers["allow"] == "GET, POST"


def test_head_gets_the_head_of_get_where_the_protocol_answers_it(client: Client) -> None:
    client.send(get("/hello", method="HEAD"))
    assert client.read() == HELLO.removesuffix(b"hello")
    client.send(get("/fail", method="HEAD"))
    head, _, body = client.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert body == b""


def test_a_stranger_is_turned_away_and_told_how_to_come_in(client: Client) -> None:
    client.send(get("/hello", "X-Stranger: 1"))
    assert client.statuses == [401]
    assert client.answers[0].headers["www-authenticate"] == "Bearer"
    client.send(get("/hello"))
    assert client.read() == HELLO


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post("/echo", b"x" * 9, "X-Stranger: 1"), 401),
        (post("/nowhere", b"x" * 9), 404),
        (post("/hello", b"x" * 9), 405),
        (post("/small", b"x" * 11), 413),
    ],
)
def test_a_refusal_does_not_wait_for_the_body(
    server: TestServer, request_: bytes, status: int
) -> None:
    whole, part = server.client(), server.client()
    whole.send(request_ + get("/hello"))
    assert whole.statuses == [status, 200]
    part.send(request_[:-5])
    assert part.statuses == [status]
    assert part.has_ended()
    part.send(request_[-5:], get("/hello"))
    assert part.statuses == [status]
    assert server.seen == []


@pytest.mark.parametrize("path", ["/nowhere", "/small"])
def test_a_refused_client_may_finish_sending_before_it_is_closed(
    server: TestServer, path: str
) -> None:
    """Who writes to a closed connection is reset, and may never see the answer."""
    client = server.client()
    client.send(post(path, b"x" * 1000)[:-900])
    for _ in range(5):
        server.loop.advance(QUIET_S * 0.9)
        client.send(b"x" * 100)
        assert not client.is_closed()
    server.loop.advance(2 * QUIET_S)
    assert client.is_closed()


def test_a_refused_client_that_never_stops_sending_is_closed(server: TestServer) -> None:
    client = server.client()
    client.send(post("/small", b"x" * 1000)[:-900])
    for _ in range(round(LINGER_S)):
        server.loop.advance(1.0)
        client.send(b"x")
    server.loop.advance(QUIET_S)
    assert client.is_closed()


def test_a_refused_client_that_has_ended_is_closed_at_once(server: TestServer) -> None:
    client = server.client()
    client.send(post("/small", b"x" * 1000)[:-900])
    client.end()
    assert client.is_closed()
    assert client.statuses == [413]


# Bodies


def test_a_body_is_put_together_from_its_pieces(server: TestServer, client: Client) -> None:
    body = bytes(range(256)) * 40
    request = post("/echo", body)
    client.send(*(request[i : i + 1000] for i in range(0, len(request), 1000)))
    assert server.seen == [body]
    assert client.answers[0].body == body


@pytest.mark.parametrize("offset", [0, 1, 37, 64, 100])
def test_the_first_tensor_of_a_large_body_is_aligned(server: TestServer, offset: int) -> None:
    body = bytes(range(256)) * 100
    request = post("/later", body, f"Inference-Header-Content-Length: {offset}")
    client = server.client()
    client.send(request[:500], request[500:])
    view = memoryview(server.waiting[0].body)
    assert bytes(view) == body
    import numpy as np

    assert (np.frombuffer(view, np.uint8).ctypes.data + offset) % 64 == 0


def test_chunks_are_joined(server: TestServer, client: Client) -> None:
    client.send(chunked("/echo", b"a", b"b" * 5000, b"c") + get("/hello"))
    assert server.seen == [b"a" + b"b" * 5000 + b"c"]
    assert client.statuses == [200, 200]


def test_a_client_that_waits_for_leave_is_given_it(server: TestServer, client: Client) -> None:
    request = post("/echo", b"body", "Expect: 100-continue")
    client.send(request[:-4])
    assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body")
    assert client.read() == b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
    assert not client.has_ended()


def test_leave_is_not_given_for_what_has_come_already(client: Client) -> None:
    client.send(post("/echo", b"body", "Expect: 100-continue"))
    assert client.statuses == [200]


def test_leave_is_given_for_chunks(client: Client) -> None:
    client.send(get("/echo", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST"))
    assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"1\r\na\r\n0\r\n\r\n")
    assert client.read().endswith(b"\r\n\r\na")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post("/nowhere", b"x", "Expect: 100-continue"), 404),
        (post("/echo", b"x", "Expect: 100-continue", "X-Stranger: 1"), 401),
        (post("/small", b"x" * 11, "Expect: 100-continue"), 413),
        (chunked("/nowhere", b"x"), 404),
    ],
)
def test_leave_is_refused_with_the_answer_and_the_end(
    client: Client, request_: bytes, status: int
) -> None:
    """Whether the body still comes cannot be known, so nothing after it can be understood."""
    head, _, body = request_.partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.statuses == [status]
    assert client.answers[0].headers["connection"] == "close"
    assert client.has_ended()
    client.send(body + get("/hello"))
    assert client.statuses == [status]


# Limits


@pytest.mark.parametrize("pieces", [1, 7, 200])
def test_a_head_over_the_limit_is_431(serve: Serve, pieces: int) -> None:
    server = serve(HttpOptions(limits=HttpLimits(head_bytes=200)))
    client = server.client()
    request = get("/hello", "X-Long: " + "x" * 200)
    step = -(-len(request) // pieces)
    client.send(*(request[i : i + step] for i in range(0, len(request), step)))
    assert client.statuses == [431]
    assert "longer than 200 bytes" in error(client)
    assert client.has_ended()


def test_a_head_at_the_limit_is_let_in(serve: Serve) -> None:
    request = get("/hello", "X-Long: " + "x" * 100)
    server = serve(HttpOptions(limits=HttpLimits(head_bytes=len(request))))
    assert server.client().send(request).statuses == [200]


def test_a_body_over_the_limit_is_413_in_the_words_that_clients_know(serve: Serve) -> None:
    server = serve(HttpOptions(limits=HttpLimits(body_bytes=100)))
    for request in (post("/echo", b"x" * 101), chunked("/echo", b"x" * 60, b"x" * 41)):
        client = server.client()
        client.send(request)
        assert client.statuses == [413]
        assert error(client).startswith(
            "request JSON size of 101 bytes exceeds the maximum allowed input size of 100 bytes."
        )
    assert server.client().send(post("/echo", b"x" * 100)).statuses == [200]


def test_a_route_may_take_less_than_the_server(client: Client) -> None:
    client.send(post("/small", b"x" * 10), chunked("/small", b"x" * 11))
    assert client.statuses == [200, 413]


def test_too_many_chunks_are_400(serve: Serve) -> None:
    server = serve(HttpOptions(limits=HttpLimits(chunks=3)))
    client = server.client()
    client.send(chunked("/echo", b"a", b"b", b"c", b"d"))
    assert client.statuses == [400]
    assert error(client).startswith("Chunked request body exceeds maximum of 3 non-empty chunks")


def test_connections_beyond_the_most_are_told_and_closed(serve: Serve) -> None:
    server = serve(HttpOptions(max_connections=2))
    first, _, third = server.client(), server.client(), server.client()
    assert third.statuses == [503]
    assert third.has_ended()
    server.loop.advance(QUIET_S)
    assert third.is_closed()
    first.leave()
    assert server.client().send(get("/hello")).statuses == [200]


def test_a_flood_of_connections_beyond_the_most_is_dropped_untold(serve: Serve) -> None:
    """Telling each of them would keep its connection for a while."""
    server = serve(HttpOptions(max_connections=2))
    clients = [server.client() for _ in range(2 + MOST_REFUSED + 5)]
    assert [client.statuses for client in clients[2:-5]] == [[503]] * MOST_REFUSED
    assert [client.statuses for client in clients[-5:]] == [[]] * 5
    assert all(client.transport.is_aborted for client in clients[-5:])


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello world\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"\x00" * 10,
        b"{}",
        post("/echo", b"abc", "Transfer-Encoding: chunked"),
        post("/echo", b"abc", "Content-Length: 3"),
        chunked("/echo", b"abc", end=b"zz\r\n"),
    ],
)
def test_what_is_no_http_is_400_and_the_end(server: TestServer, junk: bytes) -> None:
    client = server.client()
    client.send(junk + get("/hello"), get("/hello"))
    assert client.statuses == [400]
    assert error(client)
    assert client.answers[0].headers["connection"] == "close"
    assert client.has_ended()
    assert server.seen == []


@pytest.mark.parametrize(
    ("start", "status"),
    [("GET / HTTP/2.0", 505), ("FROB / HTTP/1.1", 501), ("PRI * HTTP/2.0", 505)],
)
def test_http_that_is_not_spoken_is_told_apart(client: Client, start: str, status: int) -> None:
    client.send(start.encode() + b"\r\nHost: a\r\n\r\n")
    assert client.statuses == [status]


# Handlers that fail


def test_an_error_of_a_handler_is_said_in_the_protocols_form(client: Client) -> None:
    client.send(get("/fail"), get("/hello"))
    assert client.statuses == [400, 200]
    assert json.loads(client.answers[0].body) == {"error": "what the caller may know"}


def test_a_bug_in_a_handler_is_500_and_tells_nothing(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.send(get("/boom"), get("/hello"))
    assert client.statuses == [500, 200]
    assert b"secret" not in client.received
    assert b"RuntimeError" not in client.received
    assert "a secret of the server" in caplog.text
    assert caplog.records[-1].__dict__["request_id"] == client.answers[0].headers["x-request-id"]


def test_a_protocol_that_cannot_say_its_errors_still_answers(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that is imported by its first request, and cannot be."""
    client.send(get("/mute"), get("/mute", "X-Stranger: 1"), get("/hello"))
    assert client.statuses == [500, 500, 200]
    assert b"not there" not in client.received
    assert "a protocol that is not there" in caplog.text


def test_errors_carry_the_callers_request_id_or_one_of_ours(client: Client) -> None:
    client.send(get("/fail", "X-Request-Id: mine-7"), get("/fail"), get("/fail"))
    given, *ours = (answer.headers["x-request-id"] for answer in client.answers)
    assert given == "mine-7"
    assert len(set(ours)) == 2


def test_an_answer_that_was_begun_and_fails_is_broken_off(
    server: TestServer, client: Client
) -> None:
    client.send(get("/later"))
    exchange = server.waiting[0]
    exchange.start(200, ())
    exchange.write(b"part")
    exchange.abort()
    server.loop.turn()
    assert client.transport.is_aborted


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_header_that_cannot_be_written_leaves_room_for_an_error(
    server: TestServer, client: Client, is_stream: bool
) -> None:
    client.send(get("/later"))
    exchange = server.waiting[0]
    headers = [("X-Text", "a\r\nb")]
    with pytest.raises(ValueError, match="line break"):
        exchange.start(200, headers) if is_stream else exchange.respond(200, headers, [b""])
    exchange.respond(500, (), [b"it failed"])
    server.loop.turn()
    assert client.statuses == [500]


@pytest.mark.parametrize("status", [99, 100, 199, 600, "404"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_status_that_no_answer_has_leaves_room_for_an_error(
    server: TestServer, client: Client, status: Any, is_stream: bool
) -> None:
    client.send(get("/later"))
    exchange = server.waiting[0]
    with pytest.raises(ValueError, match="cannot have the status"):
        exchange.start(status, ()) if is_stream else exchange.respond(status, (), [b""])
    exchange.respond(500, (), [b"it failed"])
    server.loop.turn()
    assert client.statuses == [500]


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_without_a_body_ends_with_its_head(
    server: TestServer, client: Client, status: int, is_stream: bool
) -> None:
    """Whatever its handler would like to send; it would be taken for the next answer."""
    client.send(get("/later") + get("/hello"))
    exchange = server.waiting[0]
    if is_stream:
        exchange.start(status, ())
        exchange.write(b"body")
        exchange.finish()
    else:
        exchange.respond(status, (), [b"body"])
    server.loop.turn()
    head, _, rest = client.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert rest == HELLO


# Streams


def test_a_stream_goes_out_piece_by_piece(server: TestServer, client: Client) -> None:
    client.send(get("/later") + get("/hello"))
    exchange = server.waiting[0]
    exchange.start(200, [("Content-Type", "text/event-stream")])
    server.loop.turn()
    assert client.read() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for piece, coded in ((b"one", b"3\r\none\r\n"), (b"", b""), (b"two", b"3\r\ntwo\r\n")):
        assert exchange.write(piece)
        server.loop.turn()
        assert client.read() == coded
    exchange.finish()
    server.loop.turn()
    assert client.read() == b"0\r\n\r\n" + HELLO


def test_a_stream_to_http_1_0_ends_with_the_connection(server: TestServer, client: Client) -> None:
    client.send(b"GET /later HTTP/1.0\r\n\r\n")
    exchange = server.waiting[0]
    exchange.start(200, ())
    exchange.write(b"one")
    exchange.write(b"two")
    exchange.finish()
    server.loop.turn()
    assert client.read() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nonetwo"
    assert client.is_closed()


def test_a_stream_in_one_turn_is_held_back_as_soon_as_its_client_is_full(
    server: TestServer, client: Client
) -> None:
    """Pieces wait for the end of the turn, but not more of them than a client may leave unread."""
    other = server.client()
    client.transport.is_stuck = True
    client.send(get("/later"))
    other.send(get("/hello"))  # so close before the others that they are held
    exchange = server.waiting[0]
    exchange.start(200, ())
    written = 0
    while exchange.write(bytes(4096)):
        written += 4096
        assert written < 2 * HIGH_WATER_BYTES
    assert client.connection.is_full


def test_a_client_that_does_not_read_holds_its_own_stream_back(
    server: TestServer, client: Client
) -> None:
    client.transport.is_stuck = True
    client.send(get("/later") + get("/later"))
    exchange = server.waiting[0]
    exchange.start(200, ())
    resumed: list[int] = []
    exchange.on_writable = lambda: resumed.append(len(client.transport.unread))
    written = 0
    while exchange.write(bytes(10_000)):
        written += 10_000
        server.loop.turn()
        assert written < 2 * HIGH_WATER_BYTES
    assert not exchange.write(b"x")
    server.loop.turn()
    assert resumed == []
    client.read(HIGH_WATER_BYTES)
    assert len(resumed) == 1
    exchange.finish()
    server.loop.turn()
    assert len(server.waiting) == 2


def test_requests_behind_an_unread_answer_wait(server: TestServer, client: Client) -> None:
    client.transport.is_stuck = True
    client.send(post("/echo", bytes(HIGH_WATER_BYTES + 1)) + get("/later"), get("/later"))
    assert server.waiting == []
    client.read()
    assert len(server.waiting) == 1


def test_a_flood_of_pipelined_requests_is_not_read_into_memory(
    server: TestServer, client: Client
) -> None:
    client.send(get("/later"))
    sent = 0
    while client.transport.reads:
        client.send(get("/later") * 100)
        sent += 100
        assert sent * len(get("/later")) <= 2 * PENDING_BYTES
    for answered in range(sent + 1):
        server.waiting[answered].respond(200, (), [b""])
        server.loop.turn()
    assert len(client.answers) == sent + 1
    assert client.transport.reads


# Clients that go


def test_a_client_that_leaves_cancels_its_request(server: TestServer, client: Client) -> None:
    client.send(get("/later"))
    gone: list[bool] = []
    server.waiting[0].on_disconnect = lambda: gone.append(True)
    client.leave()
    assert gone == [True]
    server.waiting[0].respond(200, (), [b"too late"])
    server.waiting[0].start(200, ())
    assert not server.waiting[0].write(b"too late")
    server.waiting[0].finish()
    server.loop.turn()
    assert client.read() == b""
    assert not server.http.connections


def test_a_client_that_leaves_in_the_middle_of_a_body_is_forgotten(server: TestServer) -> None:
    client = server.client()
    client.send(post("/echo", b"body")[:-1])
    client.leave()
    assert server.seen == []
    assert not server.http.connections


def test_half_a_goodbye_still_gets_its_answer(server: TestServer, client: Client) -> None:
    client.send(get("/later"))
    client.end()
    server.waiting[0].respond(200, (), [b"done"])
    server.loop.turn()
    assert client.answers[0].body == b"done"
    assert client.is_closed()


def test_half_a_goodbye_gets_all_answers(server: TestServer, client: Client) -> None:
    client.send(get("/later") + get("/hello") + get("/hello"))
    client.end()
    server.waiting[0].respond(200, (), [b"done"])
    server.loop.turn()
    assert [answer.body for answer in client.answers] == [b"done", b"hello", b"hello"]
    assert client.is_closed()


def test_half_a_goodbye_right_after_an_answer_does_not_lose_what_waits(
    server: TestServer, client: Client
) -> None:
    """The loop may hear of both before it comes to what was put off."""
    client.send(get("/later"))
    client.connection.data_received(get("/hello") + get("/hello"))
    server.waiting[0].respond(200, (), [b"done"])
    client.end()
    assert [answer.body for answer in client.answers] == [b"done", b"hello", b"hello"]
    assert client.is_closed()


def test_an_answer_that_waits_for_the_sweep_is_written_before_the_end(
    server: TestServer,
) -> None:
    other, client = server.client(), server.client()
    other.connection.data_received(get("/hello"))
    client.connection.data_received(get("/hello"))  # so close behind the other that it is held
    assert client.transport.writes == []
    client.end()
    assert client.read() == HELLO


def test_a_connection_that_is_lost_with_a_held_answer_harms_nobody(server: TestServer) -> None:
    first, second, third = server.client(), server.client(), server.client()
    for client in (first, second, third):
        client.connection.data_received(get("/hello"))
    second.transport.lose()
    server.loop.turn()
    assert third.read() == HELLO


def test_an_unread_answer_is_not_cut_by_half_a_goodbye(server: TestServer, client: Client) -> None:
    client.transport.is_stuck = True
    client.send(post("/echo", bytes(HIGH_WATER_BYTES + 1)) + get("/hello"))
    client.end()
    assert client.statuses == [200, 200]
    assert client.is_closed()


@pytest.mark.parametrize("part", [get("/hello")[:-3], post("/echo", b"body")[:-1], b""])
def test_a_goodbye_in_the_middle_of_a_request_is_the_end(server: TestServer, part: bytes) -> None:
    client = server.client()
    client.send(get("/hello"), part)
    client.end()
    assert client.is_closed()
    assert client.read() == HELLO


def test_half_a_goodbye_is_taken_for_a_whole_one_after_a_while(
    server: TestServer, client: Client
) -> None:
    client.send(get("/later"))
    gone: list[bool] = []
    server.waiting[0].on_disconnect = lambda: gone.append(True)
    client.end()
    server.loop.advance(HALF_CLOSE_GRACE_S * 0.9)
    assert gone == []
    server.loop.advance(HALF_CLOSE_GRACE_S)
    assert gone == [True]


# Time


PATIENCE = HttpOptions(
    idle_timeout_s=40.0, head_timeout_s=10.0, body_timeout_s=20.0, write_timeout_s=30.0
)


@pytest.fixture
def patient(serve: Serve) -> TestServer:
    server = serve(PATIENCE)
    server.http.open()
    return server


def test_an_idle_connection_is_closed_without_a_word(patient: TestServer) -> None:
    fresh, used = patient.client(), patient.client()
    patient.loop.advance(30)
    used.send(get("/hello"))
    patient.loop.advance(12)
    assert fresh.is_closed()
    assert fresh.read() == b""
    assert not used.is_closed()
    patient.loop.advance(30)
    assert used.is_closed()


def test_a_request_in_the_works_is_never_idle(patient: TestServer) -> None:
    client = patient.client()
    client.send(get("/later"))
    patient.loop.advance(1000)
    assert not client.is_closed()
    patient.waiting[0].respond(200, (), [b"at last"])
    patient.loop.advance(30)
    assert not client.is_closed()
    patient.loop.advance(12)
    assert client.is_closed()


def test_a_slow_head_is_408_however_many_pieces_it_comes_in(patient: TestServer) -> None:
    client = patient.client()
    for byte in get("/hello", "X: " + "x" * 100)[:12]:
        client.send(bytes([byte]))
        patient.loop.advance(1)
    assert client.statuses == [408]
    assert "head" in error(client)
    patient.loop.advance(2 * QUIET_S)
    assert client.is_closed()


def test_endless_empty_lines_are_silence(patient: TestServer) -> None:
    client = patient.client()
    for _ in range(45):
        client.send(b"\r\n")
        patient.loop.advance(1)
    assert client.is_closed()


def test_a_body_that_stops_is_408(patient: TestServer) -> None:
    client = patient.client()
    client.send(post("/echo", b"x" * 100)[:-50])
    for _ in range(3):
        patient.loop.advance(15)
        client.send(b"x")
    assert client.statuses == []
    patient.loop.advance(22)
    assert client.statuses == [408]
    assert "body" in error(client)
    assert patient.seen == []


def test_a_client_that_never_reads_is_dropped(patient: TestServer) -> None:
    client = patient.client()
    client.transport.is_stuck = True
    client.send(post("/echo", bytes(HIGH_WATER_BYTES + 1)))
    patient.loop.advance(25)
    assert not client.is_closed()
    patient.loop.advance(7)
    assert client.transport.is_aborted


def test_a_client_that_reads_slowly_is_not_dropped(patient: TestServer) -> None:
    client = patient.client()
    client.transport.is_stuck = True
    client.send(post("/echo", bytes(10 * LEAST_PROGRESS_BYTES)))
    for _ in range(8):
        patient.loop.advance(20)
        client.read(LEAST_PROGRESS_BYTES)
    assert not client.transport.is_aborted
    assert len(client.received) == 8 * LEAST_PROGRESS_BYTES


def test_a_client_that_does_not_take_its_last_answer_is_dropped(patient: TestServer) -> None:
    client = patient.client()
    client.transport.is_stuck = True
    client.send(get("/hello", "Connection: close"))
    assert client.is_closed()
    patient.loop.advance(25)
    assert patient.http.connections
    patient.loop.advance(10)
    assert client.transport.is_aborted
    assert not patient.http.connections


# The end of the server


def test_draining_closes_what_is_idle_and_the_rest_after_its_answer(server: TestServer) -> None:
    idle, busy = server.client(), server.client()
    idle.send(get("/hello"))
    busy.send(get("/later"))
    server.http.drain()
    server.loop.turn()
    assert idle.is_closed()
    assert not busy.is_closed()
    server.waiting[0].respond(200, (), [b"done"])
    server.loop.turn()
    (answer,) = busy.answers
    assert (answer.body, answer.headers["connection"]) == (b"done", "close")
    assert busy.is_closed()


def test_a_body_that_is_coming_is_waited_for_while_draining(server: TestServer) -> None:
    client = server.client()
    request = post("/echo", b"body")
    client.send(request[:-2])
    server.http.drain()
    client.send(request[-2:])
    (answer,) = client.answers
    assert (answer.body, answer.headers["connection"]) == (b"body", "close")
    assert client.is_closed()


def test_a_stream_that_was_begun_is_finished_while_draining(server: TestServer) -> None:
    client = server.client()
    client.send(get("/later"))
    server.waiting[0].start(200, ())
    server.http.drain()
    server.waiting[0].write(b"part")
    server.waiting[0].finish()
    server.loop.turn()
    assert client.answers[0].is_whole
    assert client.is_closed()


def test_closing_ends_everything(server: TestServer) -> None:
    clients = [server.client() for _ in range(3)]
    clients[0].send(get("/later"))
    server.http.open()
    server.http.close()
    server.loop.turn()
    assert all(client.transport.is_aborted for client in clients)
    assert not server.http.connections


# Many at once


def test_answers_close_together_leave_in_one_turn_and_in_order(server: TestServer) -> None:
    clients = [server.client() for _ in range(3)]
    for client in clients:
        client.connection.data_received(get("/hello") + get("/name/x") + get("/hello"))
    server.loop.turn()
    for client in clients:
        assert [answer.body[:5] for answer in client.answers] == [b"hello", b"GET x", b"hello"]


def test_a_large_answer_does_not_overtake_a_held_one(server: TestServer) -> None:
    other, client = server.client(), server.client()
    other.connection.data_received(get("/hello"))
    client.connection.data_received(get("/hello") + post("/echo", bytes(100_000)) + get("/hello"))
    server.loop.turn()
    assert [len(answer.body) for answer in client.answers] == [5, 100_000, 5]


# The access log


def test_every_answer_is_one_line_of_the_access_log(server: TestServer) -> None:
    records: list[AccessRecord] = []
    server.http.record_access = records.append
    server.http.is_draining = False  # takes notice of the above
    client = server.client()
    client.send(get("/hello", "X-Name: me"), get("/fail?x", "X-Request-Id: mine"), get("/later"))
    server.clock.advance(0.25)
    server.waiting[0].start(200, ())
    server.waiting[0].write(b"abc")
    server.waiting[0].finish()
    server.loop.turn()
    client.send(post("/small", bytes(100))[:-1])
    rows = [(r.method, r.target, r.status, r.body_bytes, r.duration_s) for r in records]
    fail_bytes, small_bytes = (len(client.answers[i].body) for i in (1, 3))
    assert rows == [
        ("GET", "/hello", 200, 5, 0.0),
        ("GET", "/fail?x", 400, fail_bytes, 0.0),
        ("GET", "/later", 200, 3, 0.25),
        ("POST", "/small", 413, small_bytes, 0.0),
    ]
    assert records[0].principal == "me"
    assert records[0].peer == "10.0.0.1"
    assert records[1].request_id == "mine"
    assert client.answers[3].headers["x-request-id"] == records[3].request_id
    assert len({record.request_id for record in records}) == 4


# Web pages


PAGE = "Origin: https://app.example"


@pytest.fixture
def paged(serve: Serve) -> Client:
    return serve(cors=Cors(["https://app.example"])).client()


@pytest.mark.parametrize(
    "request_",
    [
        get("/hello", PAGE),
        get("/fail", PAGE),
        get("/nowhere", PAGE),
        get("/hello", PAGE, "X-Stranger: 1"),
        post("/small", b"x" * 20, PAGE)[:-5],
        get("/small", PAGE, "Transfer-Encoding: chunked", method="POST") + b"zz\r\n",
    ],
)
def test_a_page_that_may_call_can_read_every_answer(paged: Client, request_: bytes) -> None:
    paged.send(request_)
    (answer,) = paged.answers
    assert answer.headers["access-control-allow-origin"] == "https://app.example"


def test_a_page_can_read_streams(serve: Serve) -> None:
    server = serve(cors=Cors(["*"]))
    client = server.client()
    client.send(get("/later", PAGE))
    server.waiting[0].start(200, ())
    server.waiting[0].finish()
    server.loop.turn()
    assert client.answers[0].headers["access-control-allow-origin"] == "*"


def test_a_browser_is_given_leave_without_a_key(paged: Client) -> None:
    question = get(
        "/echo", PAGE, "Access-Control-Request-Method: POST", "X-Stranger: 1", method="OPTIONS"
    )
    paged.send(question, get("/hello"))
    assert paged.statuses == [204, 200]
    assert "POST" in paged.answers[0].headers["access-control-allow-methods"]
    assert "access-control-allow-origin" not in paged.answers[1].headers


def test_options_from_elsewhere_is_405(paged: Client) -> None:
    paged.send(
        get("/echo", "Origin: null", "Access-Control-Request-Method: POST", method="OPTIONS")
    )
    assert paged.statuses == [405]


def test_heads_of_streams_say_what_each_answer_needs() -> None:
    heads = AnswerHeads()
    headers = (("Content-Type", "text/plain"),)
    for status, close in ((200, False), (200, True), (200, False), (404, False), (404, True)):
        head = heads.encode_chunked(status, headers, close=close)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert (b"Connection: close" in head) == close
        assert head.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    other = heads.encode_chunked(200, (("Content-Type", "image/png"),), close=False)
    assert b"image/png" in other


def test_headers_that_differ_each_time_do_not_crowd_the_others_out() -> None:
    heads = AnswerHeads()
    for number in range(3 * MOST_KEPT):
        heads.encode(200, (("X-Number", str(number)),), 0, close=False)
        heads.encode_chunked(200, (("X-Number", str(number)),), close=False)
    assert len(heads._chunked_by_headers) <= MOST_KEPT
    common = (("Content-Type", "text/plain"),)
    assert heads.encode(200, common, 5, close=False).endswith(b"Content-Length: 5\r\n\r\n")
    assert common in heads.prefix_by_headers
    assert len(heads.prefix_by_headers) <= MOST_KEPT
