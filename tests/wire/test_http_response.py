import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.wire.chunked import encode_chunk
from modelport.wire.http_response import (
    BadResponse,
    ResponseHead,
    ResponseReader,
    encode_request_head,
)

COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
UNTIL_END = b"HTTP/1.0 200 OK\r\n\r\nhello"


def read(reader: ResponseReader, *pieces: bytes) -> bytes:
    return b"".join(reader.feed(piece) for piece in pieces)


@given(st.sampled_from([COUNTED, CHUNKED, UNTIL_END]), st.lists(st.integers(0, 100), max_size=8))
def test_pieces_of_any_size_give_the_same_answer(message: bytes, cuts: list[int]) -> None:
    at = sorted({0, len(message), *(cut % len(message) for cut in cuts)})
    pieces = [message[start:end] for start, end in itertools.pairwise(at)]
    reader = ResponseReader("POST")
    assert read(reader, *pieces) == b"hello"
    reader.feed_end()
    assert reader.is_complete
    assert reader.head is not None
    assert reader.head.status == 200


def test_repeated_headers_are_joined_and_names_are_in_lower_case() -> None:
    reader = ResponseReader("GET")
    reader.feed(COUNTED)
    assert reader.head is not None
    assert reader.head.headers == {"content-length": "5", "x-a": "1, 2"}


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
    ],
)
def test_connection_is_kept_where_both_sides_can_tell_the_end(head: bytes, keeps: bool) -> None:
    reader = ResponseReader("GET")
    reader.feed(head)
    assert reader.head is not None
    assert reader.head.keep_alive is keeps


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_have_no_body_whatever_they_say(status: int) -> None:
    reader = ResponseReader("GET")
    reader.feed(b"HTTP/1.1 %d x\r\nContent-Length: 5\r\n\r\n" % status)
    assert reader.is_complete
    reader = ResponseReader("HEAD")
    reader.feed(COUNTED[:-5])
    assert reader.is_complete


def test_interim_answers_are_passed_over() -> None:
    reader = ResponseReader("POST")
    assert read(reader, b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED) == b"hello"


@pytest.mark.parametrize(
    "message",
    [
        b"hello, who is there?\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
        COUNTED + b"more",
        CHUNKED + b"more",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
    ],
)
def test_what_is_no_answer_is_told(message: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseReader("GET").feed(message)


@pytest.mark.parametrize("message", [b"", COUNTED[:10], COUNTED[:-1], CHUNKED[:-2]])
def test_answer_that_is_cut_off_is_told(message: bytes) -> None:
    reader = ResponseReader("GET")
    reader.feed(message)
    with pytest.raises(BadResponse, match="closed the connection"):
        reader.feed_end()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_anything_is_an_answer_or_is_refused(first: bytes, second: bytes) -> None:
    reader = ResponseReader("GET")
    try:
        read(reader, b"HTTP/1.1 200 OK\r\n" + first, second)
        reader.feed_end()
    except BadResponse:
        return
    assert reader.is_complete


def test_headers_that_differ_each_time_are_told_and_do_not_fill_the_memory() -> None:
    known: dict[bytes, ResponseHead] = {}
    for number in range(300):
        reader = ResponseReader("POST", known)
        message = b"HTTP/1.1 200 OK\r\nX-Bentoml-Request-Id: %d \r\nContent-Length: 0\r\nDate: a, b"
        reader.feed(message % number + b"\r\nX-Request-ID: 1\r\nx-request-id: 2\r\n\r\n")
        assert reader.head is not None
        assert reader.head.headers == {
            "content-length": "0",
            "x-bentoml-request-id": str(number),
            "date": "a, b",
            "x-request-id": "1, 2",
        }
    assert len(known) == 1


@pytest.mark.parametrize(
    "line",
    [b"Date: a\r\n b", b"Date:\r\nContent-Length: 5", b"Date: \xff", b"X: 1\r\nDate: x"],
)
def test_unusual_heads_are_read_the_usual_way(line: bytes) -> None:
    message = b"HTTP/1.1 200 OK\r\n%b\r\nX-A: 1\r\n\r\n" % line
    found = []
    caches: list[dict[bytes, ResponseHead] | None] = [{}, None]
    for known in caches:
        reader = ResponseReader("POST", known)
        with contextlib.suppress(BadResponse):
            reader.feed(message)
        found.append(reader.head and (reader.head.headers, reader.head.content_length))
    assert found[0] == found[1]


def test_head_that_came_before_is_not_read_again() -> None:
    known: dict[bytes, ResponseHead] = {}
    first, second = ResponseReader("GET", known), ResponseReader("GET", known)
    assert read(first, COUNTED) == read(second, COUNTED) == b"hello"
    assert first.head is second.head
    # The answer to HEAD has the same bytes and no body.
    head = ResponseReader("HEAD", known)
    assert read(head, COUNTED[:-5]) == b""
    assert head.is_complete
    for number in range(1000):
        ResponseReader("GET", known).feed(COUNTED.replace(b"X-A: 1", b"X-A: %d" % number))
    assert len(known) <= 64


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5))
def test_chunks_come_out_as_they_went_in(pieces: list[bytes]) -> None:
    reader = ResponseReader("GET")
    read(reader, CHUNKED[: CHUNKED.index(b"\r\n\r\n") + 4])
    for piece in pieces:
        assert reader.feed(b"".join(map(bytes, encode_chunk(piece)))) == piece
    assert reader.feed(b"0\r\n\r\n") == b""
    assert reader.is_complete


def test_request_head_says_how_long_the_body_is() -> None:
    headers = [("Host", "a"), ("X", "é")]
    assert encode_request_head("GET", "/a?b", headers, -1) == (
        b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n"
    )
    assert b"Content-Length: 3\r\n" in encode_request_head("POST", "/", headers, 3)
    assert b"Transfer-Encoding: chunked\r\n" in encode_request_head("POST", "/", headers, None)


@pytest.mark.parametrize(
    ("target", "value"), [("/a b", "x"), ("/\r\nX: y", "x"), ("/", "x\r\nY: z"), ("/", "x\n")]
)
def test_nothing_breaks_out_of_its_line(target: str, value: str) -> None:
    with pytest.raises(ValueError, match="holds a"):
        encode_request_head("GET", target, [("X", value)], -1)
