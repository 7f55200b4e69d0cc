import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.errors import InvalidRequest, TooLarge, Unsupported
from modelport.wire.grpc import (
    LONGEST_TEXT_BYTES,
    OK_TRAILERS,
    RESPONSE_HEAD,
    UNFOLD_TO_BYTES,
    Buffer,
    Folded,
    MessageReader,
    Status,
    check_coding,
    choose_coding,
    decode_status,
    encode_end,
    encode_message,
    encode_timeout,
    parse_timeout,
    response_head,
)
from modelport.wire.header_blocks import BlockReader


def fields(block: bytes) -> dict[str, str]:
    return dict(BlockReader(100_000).read(block).fields)


def read(reader: MessageReader, data: bytes, step: int = 10**9) -> list[bytes]:
    found: list[Buffer | Folded] = []
    for at in range(0, len(data), step):
        found += reader.feed(data, at, min(at + step, len(data)))
    return [bytes(each.unfold() if isinstance(each, Folded) else each) for each in found]


def joined(*messages: bytes, coding: str | None = None) -> bytes:
    return b"".join(bytes(p) for m in messages for p in encode_message([m], coding))


def test_a_message_is_a_flag_a_length_and_the_rest() -> None:
    assert joined(b"abc") == b"\0\0\0\0\3abc"
    assert joined() == b""
    assert encode_message([b"a", memoryview(b"bc")])[0] == b"\0\0\0\0\3"


@given(
    messages=st.lists(st.binary(max_size=60_000), max_size=4),
    step=st.integers(1, 70_000),
    coding=st.sampled_from([None, "gzip", "deflate"]),
)
def test_messages_are_read_however_they_are_cut(
    messages: list[bytes], step: int, coding: str | None
) -> None:
    data = joined(*messages, coding=coding)
    step = max(step, len(data) // 500 + 1)
    reader = MessageReader(100_000, coding)
    assert read(reader, data, step) == messages
    assert reader.is_between_messages


def test_the_end_of_a_large_message_is_aligned() -> None:
    import numpy as np

    reader = MessageReader(10**6)
    data = joined(bytes(100_003))
    assert reader.feed(data, 0, 50_000) == []
    (message,) = reader.feed(data, 50_000, len(data))
    assert not isinstance(message, Folded)
    array = np.frombuffer(message, np.uint8)
    assert (array.ctypes.data + 100_003) % 64 == 0


def test_an_unfinished_message_is_known_as_such() -> None:
    for data in (b"\0", b"\0\0\0\0\5", b"\0\0\0\0\5abcd"):
        reader = MessageReader(100)
        assert read(reader, data) == []
        assert not reader.is_between_messages


@pytest.mark.parametrize(
    ("data", "coding", "error", "text"),
    [
        (b"\2\0\0\0\0", None, InvalidRequest, "the flags 2 of a message are not known"),
        (b"\1\0\0\0\0", None, InvalidRequest, "a message is compressed, and no grpc-encoding"),
        (b"\0\0\0\0\x65", None, TooLarge, "Received message larger than max (101 vs. 100)"),
        (b"\1\0\0\0\3abc", "gzip", InvalidRequest, "failed to decompress the gzip body"),
        (
            b"\1\0\0\0\x1e" + gzip.compress(bytes(1000), mtime=0)[:30].ljust(30, b"\0"),
            "gzip",
            TooLarge,
            "Received message larger than max (100) after decompression",
        ),
    ],
)
def test_what_is_no_message_is_told(
    data: bytes, coding: str | None, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        read(MessageReader(100, coding), data)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("size", [UNFOLD_TO_BYTES, UNFOLD_TO_BYTES + 1])
def test_a_message_that_unfolds_to_much_stays_folded(size: int) -> None:
    data = joined(bytes(size), coding="gzip")
    (message,) = MessageReader(10**6, "gzip").feed(data, 0, len(data))
    assert isinstance(message, Folded) == (size > UNFOLD_TO_BYTES)
    assert read(MessageReader(10**6, "gzip"), data) == [bytes(size)]
    with pytest.raises(TooLarge, match=r"larger than max .* after decompression"):
        read(MessageReader(size - 1, "gzip"), data)


def test_deflate_is_the_zlib_format() -> None:
    data = b"\1" + len(folded := zlib.compress(b"abc")).to_bytes(4, "big") + folded
    assert read(MessageReader(100, "deflate"), data) == [b"abc"]


def test_codings() -> None:
    assert check_coding(None) is check_coding("identity") is None
    assert check_coding("gzip") == "gzip"
    with pytest.raises(Unsupported, match="'snappy' is not supported; accepted are identity"):
        check_coding("snappy")
    assert choose_coding("identity, deflate, gzip") == "gzip"
    assert choose_coding("identity,deflate") == "deflate"
    assert choose_coding("snappy") is choose_coding(None) is None


def test_heads_and_ends() -> None:
    assert fields(RESPONSE_HEAD) == {":status": "200", "content-type": "application/grpc"}
    assert fields(response_head("gzip"))["grpc-encoding"] == "gzip"
    assert fields(OK_TRAILERS) == {"grpc-status": "0"}
    ended = fields(encode_end(Status.NOT_FOUND, "no", [("X-A", "1")], is_alone=False))
    assert ended == {"grpc-status": "5", "grpc-message": "no", "x-a": "1"}
    alone = fields(encode_end(Status.OK, "", is_alone=True))
    assert alone == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}


def test_texts_are_percent_encoded() -> None:
    ended = fields(encode_end(3, "100 % ü\r\n~", is_alone=False))
    assert ended["grpc-message"] == "100 %25 %C3%BC%0D%0A~"


def test_half_a_surrogate_pair_is_replaced() -> None:
    """Python makes them of file names; a model's error may quote one."""
    ended = fields(encode_end(13, "no a\udcff.bin", is_alone=True))
    assert decode_status(ended) == (13, "no a?.bin")


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    ended = fields(encode_end(2, text, is_alone=False))
    assert decode_status(ended) == (2, text)


def test_a_status_that_is_none_is_unknown() -> None:
    for code in ("", "x", "-1", "0000"):
        assert decode_status({"grpc-status": code}) == (Status.UNKNOWN, "")


def test_timeouts() -> None:
    assert [parse_timeout(text) for text in ("1n", "2u", "3m", "4S", "5M", "6H")] == [
        1, 2000, 3_000_000, 4 * 10**9, 300 * 10**9, 6 * 3600 * 10**9,
    ]  # fmt: skip
    for text in ("", "1", "m", "-1m", "123456789m", "1 m", "1ms", "١m"):
        with pytest.raises(InvalidRequest):
            parse_timeout(text)


@given(st.integers(0, 10**16))
def test_a_timeout_is_written_not_shorter_and_hardly_longer_than_it_is(timeout_ns: int) -> None:
    again = parse_timeout(encode_timeout(timeout_ns))
    assert timeout_ns <= again <= timeout_ns * 1.00001 + 1


@pytest.mark.parametrize("character", ["a", "%", "é", "错", "\U0001f600"])
def test_a_text_stays_below_what_clients_take_of_fields(character: str) -> None:
    """grpcio refuses the whole answer above 8 KiB, now and then, and always above 16."""
    for count in (1, 500, 2048, 10_000):
        ended = fields(encode_end(13, character * count, is_alone=True))
        assert len(ended["grpc-message"]) <= LONGEST_TEXT_BYTES
        _, text = decode_status(ended)
        if text != character * count:
            assert text.endswith("...")
            assert set(text) == {character, "."}
            assert len(ended["grpc-message"]) > LONGEST_TEXT_BYTES - 40
