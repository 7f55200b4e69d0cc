"""Streams of BentoML's items as they come, cut anywhere."""

import json
from typing import Any

import pytest

from modelport.errors import InvalidRequest
from modelport.wire.bentoml import JsonItems, TextItems, decode_schema

ITEMS: list[Any] = [1, -1.5e-3, 2e7, {"a": [1.5]}, "é", None, 30]
STREAM = '1 -1.5e-3\n2E+7{"a": [1.5]}"é"null30'.encode()


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_items_are_the_same_in_any_pieces(step: int) -> None:
    reader = JsonItems()
    pieces = [STREAM[at : at + step] for at in range(0, len(STREAM), step)]
    assert [*(item for piece in pieces for item in reader.feed(piece)), *reader.end()] == ITEMS


def test_items_are_given_as_soon_as_they_are_whole() -> None:
    reader = JsonItems()
    assert list(reader.feed(b'{"a": 1}[')) == [{"a": 1}]
    assert list(reader.feed(b"2]3")) == [[2]]
    assert list(reader.feed(b".5")) == []
    assert list(reader.feed(b" ")) == [3.5]


def test_numbers_can_end_with_their_pieces() -> None:
    reader = JsonItems(is_whole_in_pieces=True)
    pieces = [b"1", b"0", b"-2.5", b"1e3", b"7 8"]
    assert [list(reader.feed(piece)) for piece in pieces] == [[1], [0], [-2.5], [1e3], [7, 8]]
    assert list(reader.end()) == []


@pytest.mark.parametrize("stream", [b"[1", b"1.", b"1e+", b"nul", b"\xff", b"x"])
def test_a_stream_that_is_not_whole_is_refused(stream: bytes) -> None:
    reader = JsonItems()

    def read() -> None:
        list(reader.feed(stream))
        list(reader.end())

    with pytest.raises(InvalidRequest):
        read()


@pytest.mark.parametrize(
    "item",
    [
        json.dumps("a" * 9000),
        json.dumps('\\"[{' * 3000),
        json.dumps(["a\\"] * 2000 + [[]]),
        json.dumps({"a": {"}": "]"}, "b": [1] * 3000}),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_long_item_is_given_with_its_last_byte(item: str, step: int) -> None:
    reader = JsonItems()
    sent = item.encode()
    for at in range(0, len(sent) - 1, step):
        assert list(reader.feed(sent[at : min(at + step, len(sent) - 1)])) == []
    assert list(reader.feed(sent[-1:])) == [json.loads(item)]
    assert list(reader.end()) == []


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b'"', b"a"),
        (b'"', b'\\"'),
        (b"[", b'"a",'),
        (b"", b"["),
        (b"", b"1"),
        (b"", b"<html>"),
        (b"", b"x[1]"),
        (b"", b"{x}"),
        (b"[1}", b"[1}"),
    ],
)
def test_an_item_without_end_is_refused(start: bytes, again: bytes) -> None:
    """In time that grows with its length and no faster: it is not read anew with each piece."""
    reader = JsonItems(most_chars=4_000_000)

    def read() -> None:
        list(reader.feed(start))
        for _ in range(1000):
            list(reader.feed(again * (10_000 // len(again))))

    with pytest.raises(
        InvalidRequest, match=r"is longer than 4000000 characters|is no JSON|too deep"
    ):
        read()


def test_text_is_the_same_in_any_pieces() -> None:
    reader = TextItems()
    data = "aé日".encode()
    parts = [part for at in range(len(data)) for part in reader.feed(data[at : at + 1])]
    assert [*parts, *reader.end()] == ["a", "é", "日"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"routes": 1}', b"\xff" * 100_000, b"[" * 100_000])
def test_what_is_no_schema_is_refused_in_few_words(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode_schema(body)
    assert len(str(raised.value)) < 300
