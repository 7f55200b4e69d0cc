import math
import time
from collections.abc import Callable
from json import dumps
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.errors import InvalidRequest, TooLarge
from modelport.server import setting_values
from modelport.wire import json


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_a_hundred_levels_are_read_and_one_more_is_refused() -> None:
    json.check_depth(nested(100))
    assert json.decode(nested(100))
    with pytest.raises(InvalidRequest, match=r"^JSON nesting depth exceeds .* limit \(100\)"):
        json.check_depth(nested(101))


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"' + b"[" * 500 + b'"}',
        b'["' + b"{" * 200 + b'\\"' + b"[" * 200 + b'"]',
        b"[" + b"[]," * 300 + b"[]]",
        b'["\\\\",' + b"[]," * 300 + b'"]]]]]"]',
        b'["\\\\\\"' + b"[" * 200 + b'"]',
    ],
)
def test_brackets_in_strings_and_side_by_side_are_no_depth(text: bytes) -> None:
    json.check_depth(text)
    json.decode(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b'["\\\\",' + nested(101) + b"]",
        b'["\\"]",' + nested(101) + b"]",
    ],
)
def test_depth_is_seen_behind_escapes(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="nesting depth"):
        json.check_depth(text)


def test_looking_for_depth_takes_linear_time() -> None:
    hostile = [
        b"[" * 2_000_000,
        b'["' * 1_000_000,
        b'"' * 2_000_000,
        b"\\" * 2_000_000 + b"[" * 101,
        b"[]" * 1_000_000,
    ]
    for text in hostile:
        started = time.perf_counter()
        try:
            json.check_depth(text)
        except InvalidRequest:
            pass
        assert time.perf_counter() - started < 1.0


def test_the_words_for_no_number_are_read_and_written() -> None:
    assert json.decode(b"[NaN,Infinity,-Infinity,1]")[1:] == [math.inf, -math.inf, 1]
    assert math.isnan(json.decode(b"NaN"))
    assert json.encode([math.nan, math.inf, -math.inf]) == b"[NaN,Infinity,-Infinity]"
    assert json.encode({"a": None, "b": math.inf}) == b'{"a":null,"b":Infinity}'


def test_integers_keep_all_their_digits() -> None:
    assert json.decode(b"[18446744073709551615,-9223372036854775808]") == [2**64 - 1, -(2**63)]
    assert json.encode([2**64 - 1, 2**70]) == b"[18446744073709551615,1180591620717411303424]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", r"Expecting value at 0"),
        (b"{", r"at 1"),
        (b'{"a":1,}', r"at \d+"),
        (b'{"a":"\xff"}', r"invalid UTF-8 at 6"),
        ('{"é":}'.encode(), r"Expecting value at 6"),
        (b"[1e400]", r"number out of range: 1e400 at 1"),
        (b"[-" + b"9" * 5000 + b"]", r"number out of range"),
        (b'["\\ud800"]', r"half of a surrogate pair at 2"),
        (b"[1] 2", r"Extra data at 4"),
        (b'["\x01"]', r"Invalid control character"),
    ],
)
def test_what_is_no_json_is_said_with_its_offset_in_bytes(text: bytes, reason: str) -> None:
    with pytest.raises(
        InvalidRequest, match=f"^failed to parse the request JSON buffer: .*{reason}"
    ):
        json.decode(text)


def test_pairs_of_surrogates_are_characters() -> None:
    assert json.decode(b'"\\ud83d\\ude00"') == "😀"


def test_pairs_keep_order_and_repetition() -> None:
    pairs = json.decode_pairs(b'{"b":1,"a":{"c":2},"b":3}')
    assert pairs == [("b", 1), ("a", [("c", 2)]), ("b", 3)]
    assert type(pairs[1][1]) is json.Pairs


_VALUES = (
    st.text(max_size=3).map(dumps)
    | (st.integers() | st.floats() | st.booleans() | st.none()).map(dumps)
    | st.sampled_from(
        ["-0", "1e400", "1E5", "[1]", "{}", '"\\u0041"', '"\\ud800"', "1" * 401, "1."]
    )
)
_MEMBERS = st.tuples(st.sampled_from(['"a"', '"b"', '""', '"\\u0061"', "a"]), _VALUES)


@given(
    members=st.lists(_MEMBERS, max_size=4),
    between=st.sampled_from([",", ", ", " ,\n", ",,"]),
    after=st.sampled_from(["", " ", "x", "}"]),
)
def test_flat_objects_are_read_quickly_and_the_same(
    members: list[tuple[str, str]], between: str, after: str
) -> None:
    text = "{" + between.join(f"{key}:{value}" for key, value in members) + "}" + after
    data = text.encode("utf-8", "surrogatepass")
    try:
        slowly = repr(json._parse(data, json._PAIRS_DECODER, 100))
    except InvalidRequest as exc:
        slowly = str(exc)
    try:
        quickly = repr(json.decode_pairs(data))
    except InvalidRequest as exc:
        quickly = str(exc)
    assert quickly == slowly


def test_nothing_is_flat_that_is_repeated_nested_long_or_out_of_range() -> None:
    assert json._read_flat(b'{"a":"b","c":1.5,"d":true}') == [("a", "b"), ("c", 1.5), ("d", True)]
    for text in (
        b'{"a":1,"a":1}',
        b'{"a":"","a":""}',
        b'{"a":[]}',
        b'{"a":' * 800,
        b"[" * 4000,
        b'{"a":18446744073709551616}',
        b'{"a":"\\""}',
        b'{"a":"%b"}' % (b"x" * 5000),
    ):
        assert json._read_flat(text) is None


@pytest.mark.parametrize("decode", [json.decode, json.decode_pairs])
def test_as_deep_as_may_be_asked_for_is_read(decode: Callable[..., object]) -> None:
    """No parser behind us gives up before the limit does."""
    for depth in (json.DEEPEST, json.DEEPEST - 1):
        value: Any = decode(nested(depth), json.DEEPEST)
        for _ in range(depth - 1):
            (value,) = value
        assert value == []
        text = b'{"a":' * (depth - 1) + b"[NaN]" + b"}" * (depth - 1)
        decode(text, json.DEEPEST)
    with pytest.raises(InvalidRequest, match=r"limit \(500\)"):
        decode(nested(json.DEEPEST + 1), json.DEEPEST)
    with pytest.raises(InvalidRequest, match=r"limit \(7\)"):
        decode(nested(8), 7)


def test_settings_know_how_deep_may_be_asked_for() -> None:
    assert setting_values.DEEPEST == json.DEEPEST


def test_members_are_counted_where_they_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "MOST_MEMBERS", 1000)
    few = b'{"a":"' + b'\\":' * 2000 + b'","b":[' + b"0," * 2000 + b'{"c":":"}]}'
    json.check_depth(few)
    many = b"[" + b",".join([b'{"a":1,"b":2}'] * 501) + b"]"
    with pytest.raises(InvalidRequest, match="more than 1000 named members"):
        json.check_depth(many)


@pytest.mark.parametrize("piece_bytes", range(1, 40))
def test_depth_is_the_same_in_pieces_of_any_size(
    monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    """Strings and escapes may lie across the ends of pieces."""
    monkeypatch.setattr(json, "PIECE_BYTES", piece_bytes)
    text = b'[["]]]\\\\", "[[\\"[[", [{"\\\\\\"[": [1]}], "\\u005b["]]'
    assert max(depth for depth, _ in json._structure(text)) == 5
    json.check_depth(text, 5)
    with pytest.raises(InvalidRequest, match="nesting depth"):
        json.check_depth(text, 4)


def test_text_that_is_read_in_one_go_has_a_bound() -> None:
    json.check_size(10, None)
    json.check_size(10, 10)
    with pytest.raises(TooLarge, match=r"has 11 bytes, and 10 is the most .*\(--max-json-size\)"):
        json.check_size(11, 10)
