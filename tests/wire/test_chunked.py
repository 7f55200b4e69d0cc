"""Chunked bodies as literal bytes; llhttp is the oracle for what chunks say."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.errors import ModelportError, TooLarge
from modelport.wire.chunked import BadMessage, ChunkedReader, encode_chunk
from modelport.wire.http import HttpLimits

LIMITS = HttpLimits(head_bytes=64, body_bytes=1000, chunks=5)


def cut_everywhere(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes whole, byte by byte, and in every two pieces."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, len(data)):
        yield [data[:i], data[i:]]


def unchunk(pieces: list[bytes], limits: HttpLimits = LIMITS) -> tuple[bytes, bool, bytes]:
    reader = ChunkedReader(limits.body_bytes, limits.chunks, limits.head_bytes)
    rest = b"".join([reader.feed(piece) for piece in pieces])
    return bytes(reader.body), reader.is_complete, rest


@pytest.mark.parametrize(
    ("coded", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"03\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\n", b"abc0123456789"),
        (b"a\r\n\r\n0\r\n\r\n0\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n0\r\n"),
        (b"3;name=value;x\r\nabc\r\n0;last\r\n\r\n", b"abc"),
        (b'3;q="a;b"\r\nabc\r\n0\r\n\r\n', b"abc"),
        (b"1\r\na\r\n0\r\nExpires: never\r\nX-B:\r\n\r\n", b"a"),
    ],
)
def test_a_chunked_body_is_the_same_in_any_pieces(coded: bytes, body: bytes) -> None:
    for tail in (b"", b"GET / HTTP/1.1\r\n", b"0\r\n\r\n"):
        for pieces in cut_everywhere(coded + tail):
            assert unchunk(pieces) == (body, True, tail)


def test_a_body_that_has_not_ended_is_not_complete() -> None:
    coded = b"3;x\r\nabc\r\n0\r\nA: b\r\n\r\n"
    for i in range(len(coded)):
        assert unchunk([coded[:i]])[1:] == (False, b"")


@pytest.mark.parametrize(
    "coded",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1 \r\n",
        b" 1\r\n",
        b"1_0\r\n",
        b"\xb2\r\n",
        b"1\n",
        b"1\r\r\n",
        b"1;a\rb\r\n",
        b"1;a\nb\r\n",
        b"1;\x00\r\n",
        b"1;\ta\r\n",
        b"1; a\r\n",
        b"1;a=\r\n",
        b'1;a="\r\n',
        b"1;" + b"a;" * 150 + b"a\r\nx\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1\r\na0\r\n\r\n",
        b"1\r\na\r0x",
        b"0\r\n\n",
        b"0\r\nno header\r\n",
        b"0\r\nA: b\n",
        b"0\r\nA: \x00\r\n",
        b"0\r\n folded\r\n",
        b"0\r\nTransfer-Encoding: identity\r\n",
        b"0\r\nConnection: close\r\n",
        b"0\r\nA: b\r\ncontent-length: 3\r\n",
        b"FFFFFFFFFFFFFFFF\r\n",
        b"1;" + b"x" * 300,
        b"1;" + b"x" * 300 + b"\r\n",
        b"0\r\nA: " + b"x" * 100,
        b"0\r\n" + b"A: bcdefgh\r\n" * 8,
    ],
)
def test_what_is_no_chunked_coding_is_refused_in_any_pieces(coded: bytes) -> None:
    for pieces in cut_everywhere(coded):
        with pytest.raises(BadMessage):
            unchunk(pieces)


@pytest.mark.parametrize("coded", [b"3e9\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n"])
def test_a_body_is_too_large_before_it_has_come(coded: bytes) -> None:
    with pytest.raises(TooLarge, match="exceeds the maximum allowed input size of 1000 bytes"):
        unchunk([coded])


def test_the_largest_body_is_let_in() -> None:
    assert len(unchunk([b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"])[0]) == 1000


def test_chunks_are_counted() -> None:
    assert unchunk([b"1\r\na\r\n" * 5 + b"0\r\n\r\n"])[:2] == (b"aaaaa", True)
    with pytest.raises(BadMessage, match="maximum of 5 non-empty chunks"):
        unchunk([b"1\r\na\r\n" * 6])


def test_65_537_chunks_are_one_too_many_by_default() -> None:
    limits = HttpLimits()
    assert unchunk([b"1\r\na\r\n" * 65_536 + b"0\r\n\r\n"], limits)[1]
    with pytest.raises(
        BadMessage, match="Chunked request body exceeds maximum of 65536 non-empty chunks"
    ):
        unchunk([b"1\r\na\r\n" * 65_537], limits)


def test_a_body_in_tiny_pieces_takes_no_more_memory_than_its_bytes() -> None:
    reader = ChunkedReader(1 << 20, HttpLimits().chunks)
    reader.feed(b"8000\r\n")
    for _ in range(0x8000):
        reader.feed(b"x")
    assert reader.body == b"x" * 0x8000
    assert reader.body.__sizeof__() < 2 * 0x8000


class Oracle:
    """What llhttp says of a chunked body."""

    def __init__(self, coded: bytes) -> None:
        self.body = b""
        self.is_complete = False
        self.is_refused = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            parser.feed_data(coded)
        except httptools.HttpParserError:
            self.is_refused = not self.is_complete

    def on_body(self, data: bytes) -> None:
        if not self.is_complete:
            self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


BODIES = st.lists(st.binary(min_size=1, max_size=20), max_size=4)


def encode(parts: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts]
    return b"".join([*chunks, b"0\r\n", trailer, b"\r\n"])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(ends)]


PLACES = st.lists(st.integers(0, 1 << 16), max_size=6)


@given(BODIES, st.sampled_from([b"", b";a", b";a=b"]), st.sampled_from([b"", b"A: b\r\n"]), PLACES)
def test_well_formed_bodies_are_read_as_llhttp_reads_them(
    parts: list[bytes], extension: bytes, trailer: bytes, places: list[int]
) -> None:
    coded = encode(parts, extension, trailer)
    oracle = Oracle(coded)
    assert oracle.is_complete
    limits = HttpLimits()
    assert unchunk(cut(coded, places), limits) == (oracle.body, True, b"")
    assert oracle.body == b"".join(parts)


@given(
    BODIES,
    st.integers(0, 200),
    st.integers(0, 3),
    st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"0", b"a", b";", b" ", b"\0", b"-", b"x", b"\t"]),
    PLACES,
)
def test_no_end_is_seen_that_llhttp_does_not_see(
    parts: list[bytes], at: int, removed: int, inserted: bytes, places: list[int]
) -> None:
    """Not the other way round: we refuse extensions and trailers that it lets pass."""
    coded = encode(parts, b";a", b"A: b\r\n")
    at %= len(coded)
    coded = coded[:at] + inserted + coded[at + removed :]
    with suppress(ModelportError):
        body, is_complete, _ = unchunk(cut(coded, places), HttpLimits())
        oracle = Oracle(coded)
        assert oracle.is_complete is is_complete
        assert body == oracle.body or not is_complete


@given(BODIES)
def test_what_we_write_is_read_back(parts: list[bytes]) -> None:
    written = [bytes(b"".join(encode_chunk(memoryview(part)))) for part in parts]
    coded = b"".join([*written, b"0\r\n\r\n"])
    assert unchunk([coded], HttpLimits()) == (b"".join(parts), True, b"")


def test_an_empty_chunk_is_not_written_because_it_would_end_the_body() -> None:
    assert encode_chunk(b"") == []
    assert encode_chunk(bytearray(b"\r\n")) == [b"2\r\n", b"\r\n", b"\r\n"]
