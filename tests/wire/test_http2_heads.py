import pytest

from modelport.wire.header_blocks import (
    Block,
    BlockReader,
    BlockTooLarge,
    BlockUnreadable,
    encode_block,
)
from modelport.wire.http2 import MalformedHead
from modelport.wire.http2_heads import (
    encode_response_fields,
    parse_request_fields,
    parse_response_fields,
    parse_trailer_fields,
)

GOOD = [(":method", "POST"), (":scheme", "http"), (":authority", "a:1"), (":path", "/p?q=1")]


def block(*fields: tuple[str, str]) -> Block:
    return Block(list(fields), 0)


def test_a_request_becomes_the_head_that_http_1_would_give() -> None:
    head = parse_request_fields(
        block(*GOOD, ("a", "1"), ("a", "2"), ("cookie", "x=1"), ("cookie", "y=2"))
    )
    assert (head.method, head.path, head.query) == ("POST", "/p", "q=1")
    assert head.headers == {"a": "1, 2", "cookie": "x=1; y=2", "host": "a:1"}
    assert head.keep_alive
    assert not head.is_chunked


BAD: list[list[tuple[str, str]]] = [
    GOOD[1:],
    GOOD[:1] + GOOD[2:],
    GOOD[:3],
    [*GOOD, GOOD[0]],
    [*GOOD[:3], (":path", "")],
    [*GOOD[:3], (":path", "p")],
    [*GOOD[:3], (":path", "/a b")],
    [("a", "1"), *GOOD],
    [*GOOD, (":unknown", "x")],
    [*GOOD, (":status", "200")],
    [*GOOD, ("Upper", "x")],
    [*GOOD, ("", "x")],
    [*GOOD, ("a b", "x")],
    [*GOOD, ("a", "x\r\ny")],
    [*GOOD, ("a", "x\0")],
    [*GOOD, ("a", " x")],
    [*GOOD, ("a", "x\t")],
    [*GOOD, ("connection", "close")],
    [*GOOD, ("transfer-encoding", "chunked")],
    [*GOOD, ("upgrade", "x")],
    [*GOOD, ("te", "gzip")],
    [*GOOD, ("host", "another")],
    [*GOOD, ("content-length", "1"), ("content-length", "1")],
    [*GOOD, ("content-length", "-1")],
    [*GOOD, ("content-length", "9" * 19)],
    [*GOOD[:2], (":authority", "a/b"), GOOD[3]],
    [("bad method", "x"), *GOOD[1:]],
    [(":method", "G T"), *GOOD[1:]],
]


@pytest.mark.parametrize("fields", BAD)
def test_what_two_readers_could_see_differently_is_no_request(
    fields: list[tuple[str, str]],
) -> None:
    with pytest.raises(MalformedHead):
        parse_request_fields(block(*fields))


def test_trailers_and_responses() -> None:
    assert parse_trailer_fields(block(("grpc-status", "0"))) == {"grpc-status": "0"}
    with pytest.raises(MalformedHead):
        parse_trailer_fields(block((":path", "/")))
    assert parse_response_fields(block((":status", "200"), ("a", "b"))) == (200, {"a": "b"})
    for status in ("", "20", "abc", "0200"):
        with pytest.raises(MalformedHead):
            parse_response_fields(block((":status", status)))


def test_a_response_is_the_same_bytes_every_time_and_leaves_out_what_is_not_of_http2() -> None:
    raw = encode_response_fields(200, [("Content-Type", "text/plain"), ("Connection", "close")])
    # RFC 7541: index 8; a literal without indexing whose name is 31.
    assert raw == b"\x88\x0f\x10\x0atext/plain"
    with pytest.raises(ValueError, match="X-A"):
        encode_response_fields(200, [("X-A", "a\r\nb")])


def test_secrets_are_never_indexed() -> None:
    assert encode_block([("authorization", "k")]) == b"\x1f\x08\x01k"
    assert encode_block([("x-new", "k")]) == b"\x00\x05x-new\x01k"


def test_our_blocks_read_back_and_are_remembered() -> None:
    fields = [(":method", "GET"), ("x", "é" * 200), ("authorization", "k"), (":path", "/a")]
    reader = BlockReader(10_000)
    raw = encode_block(fields)
    first = reader.read(raw)
    assert first.fields == fields
    assert first.list_bytes == sum(len(name) + len(value) + 32 for name, value in fields)
    assert reader.read(raw) is first
    assert reader.known(raw) is first


def test_what_was_read_is_forgotten_when_the_table_changes() -> None:
    reader = BlockReader(10_000)
    reader.read(b"\x40\x01a\x01b")
    old = reader.read(b"\xbe")
    assert old.fields == [("a", "b")]
    assert reader.read(b"\xbe") is old
    reader.read(b"\x40\x01c\x01d")
    assert reader.read(b"\xbe").fields == [("c", "d")]
    assert reader.read(b"\xbf").fields == [("a", "b")]
    reader.read(b"\x20\x82")  # a table of no bytes
    with pytest.raises(BlockUnreadable):
        reader.read(b"\xbe")


def test_a_block_that_changes_the_size_of_the_table_does_so_each_time() -> None:
    """Or this side would go on to keep what the other one does not."""
    reader = BlockReader(10_000)
    empty, whole = b"\x20\x82", b"\x3f\xe1\x1f\x82"
    for block in (empty, whole, empty):
        assert reader.read(block).fields == [(":method", "GET")]
    reader.read(b"\x40\x01a\x01b")  # finds no room
    reader.read(whole)
    with pytest.raises(BlockUnreadable):
        reader.read(b"\xbe")


def test_what_is_kept_stays_small() -> None:
    reader = BlockReader(100_000)
    for number in range(1000):
        reader.read(encode_block([("x", str(number))]))
    known = [number for number in range(1000) if reader.known(encode_block([("x", str(number))]))]
    assert len(known) <= 64
    long = encode_block([("x", "y" * 5000)])
    reader.read(long)
    assert reader.known(long) is None


@pytest.mark.parametrize(
    "raw",
    [b"\xff", b"\x80", b"\x40", b"\x00\x01", b"\x00\x85\xff\xff\xff\xff\xff\x01a", b"\x3f\xff\xff"],
)
def test_what_is_no_block_is_told(raw: bytes) -> None:
    with pytest.raises(BlockUnreadable):
        BlockReader(1000).read(raw)


def test_what_unfolds_too_far_is_told() -> None:
    with pytest.raises(BlockTooLarge):
        BlockReader(100).read(encode_block([("x", "y" * 100)]))
