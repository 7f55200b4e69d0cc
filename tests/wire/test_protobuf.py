"""The hand-written part of protobuf, held against protobuf itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.wire.proto import grpc_service_pb2 as pb
from modelport.wire.protobuf import MOST_MEMBERS, Malformed, cut, field, varint


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (2**64 - 1, b"\xff" * 9 + b"\x01"),
    ],
)
def test_a_number_takes_seven_bits_a_byte(value: int, encoded: bytes) -> None:
    assert varint(value) == encoded


def test_a_member_is_its_tag_its_length_and_its_bytes() -> None:
    message = pb.ModelReadyRequest(name="n" * 300, version="1")
    assert field(1, b"n" * 300) + field(2, b"1") == message.SerializeToString()


@given(st.lists(st.binary(max_size=300)), st.text(max_size=200), st.text(max_size=20))
def test_what_is_cut_out_and_what_is_left_are_the_message(
    raws: list[bytes], model: str, id: str
) -> None:
    whole = pb.ModelInferRequest(model_name=model, id=id, raw_input_contents=raws)
    data = whole.SerializeToString()
    left, places = cut(data, {7})
    assert [data[start:end] for _, start, end in places] == raws
    assert pb.ModelInferRequest.FromString(left) == pb.ModelInferRequest(model_name=model, id=id)


def test_members_in_any_order_are_found() -> None:
    data = field(7, b"a") + field(1, b"m") + field(7, b"b") + field(3, b"i")
    assert cut(data, {3, 7}) == (
        field(1, b"m"),
        [(7, 2, 3), (7, 8, 9), (3, 11, 12)],
    )


def test_members_of_every_kind_are_passed_over() -> None:
    kinds = b"\x50\x96\x01" + b"\x59" + bytes(8) + b"\x65" + bytes(4) + b"\xba\x3e\x01x"
    assert cut(kinds + field(7, b"r"), {7}) == (kinds, [(7, len(kinds) + 2, len(kinds) + 3)])


def test_a_message_of_very_many_members_is_refused_before_they_cost_anything() -> None:
    most = field(7, b"") * MOST_MEMBERS
    assert len(cut(most, {7})[1]) == MOST_MEMBERS
    for member in (field(7, b""), field(5, b""), b"\x00\x00"):
        with pytest.raises(Malformed, match="more than 16384 members"):
            cut(member * (MOST_MEMBERS + 1), {7})


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a",
        b"\x3a\x05abc",
        b"\x3a\x80",
        b"\x3a" + b"\xff" * 10 + b"\x01",
        b"\x3a" + b"\xff" * 11,
        b"\x09\x01",
        b"\x0d\x01",
        b"\x08",
        b"\x80",
        b"\x0b",
        b"\x0c",
        b"\x0f",
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="malformed"):
        cut(data, {7})
