"""Values of tensors in JSON: every datatype, both ways, to the bit."""

import json as standard_json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidRequest, TooLarge
from modelport.wire import v2_values
from modelport.wire.v2_values import MAX_DIMENSIONS, array_of, decode_values, encode_values

# Datatype, JSON, values of the array (bits for BF16); for both directions.
ROWS: list[tuple[DataType, str, list[Any]]] = [
    (dtypes.BOOL, "[true,false]", [True, False]),
    (dtypes.UINT8, "[0,255]", [0, 255]),
    (dtypes.UINT16, "[0,65535]", [0, 65535]),
    (dtypes.UINT32, "[0,4294967295]", [0, 2**32 - 1]),
    (dtypes.UINT64, "[9007199254740993,18446744073709551615]", [2**53 + 1, 2**64 - 1]),
    (dtypes.INT8, "[-128,127]", [-128, 127]),
    (dtypes.INT16, "[-32768,32767]", [-(2**15), 2**15 - 1]),
    (dtypes.INT32, "[-2147483648,2147483647]", [-(2**31), 2**31 - 1]),
    (dtypes.INT64, "[-9223372036854775808,9007199254740993]", [-(2**63), 2**53 + 1]),
    (dtypes.FP16, "[0.5,65504.0]", [0.5, 65504]),
    (dtypes.FP32, "[0.1,-3.4028235e38]", [np.float32(0.1), -np.finfo("f4").max]),
    (dtypes.FP64, "[0.1,1.7976931348623157e308]", [0.1, np.finfo("f8").max]),
    (dtypes.BF16, "[1.0,-2.5]", [0x3F80, 0xC020]),
    (dtypes.BYTES, '["","aé\\u0000😀"]', [b"", "aé\0😀".encode()]),
]


def decode(text: str | bytes, datatype: DataType, *shape: int) -> Any:
    raw = msgspec.Raw(text.encode() if isinstance(text, str) else text)
    return decode_values(raw, datatype, shape, "I")


@pytest.mark.parametrize(("datatype", "text", "values"), ROWS, ids=[r[0].name for r in ROWS])
def test_values_of_every_datatype_both_ways(
    datatype: DataType, text: str, values: list[Any]
) -> None:
    array = decode(text, datatype, 2)
    assert array.dtype == datatype.numpy
    assert array.tolist() == np.array(values, datatype.numpy).tolist()
    assert standard_json.loads(encode_values(array, datatype, "O")) == standard_json.loads(text)
    for shape in ((1, 2), (2, 1), (1, 1, 2)):
        assert decode(text, datatype, *shape).shape == shape


@pytest.mark.parametrize("name", list(DATATYPE_BY_NAME))
def test_tensors_may_be_empty_or_have_no_dimensions(name: str) -> None:
    datatype = DATATYPE_BY_NAME[name]
    assert decode("[]", datatype, 0).shape == (0,)
    assert decode("[[],[]]", datatype, 2, 0).shape == (2, 0)
    assert encode_values(np.empty((2, 0), datatype.numpy), datatype, "O") == b"[]"
    one = {"BOOL": "[true]", "BYTES": '["x"]'}.get(name, "[1]")
    scalar = decode(one, datatype)
    assert scalar.shape == ()
    assert len(standard_json.loads(encode_values(scalar, datatype, "O"))) == 1


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_many_values_are_laid_out_like_few(count: int) -> None:
    for datatype in (dtypes.INT8, dtypes.UINT64, dtypes.FP16, dtypes.FP32, dtypes.BF16):
        values = [index % 100 for index in range(count)]
        array = decode(standard_json.dumps(values), datatype, count)
        if datatype is dtypes.BF16:
            array = dtypes.float32_from_bf16(array)
        assert array.tolist() == values


@pytest.mark.parametrize(
    "text",
    ["[1,2,3,4]", "[[1,2],[3,4]]", "[[1],[2,3],[[4]]]", "[1,[2,[3,[4]]]]", "[[],1,2,[ ],3,4]",
     "[ [1 , 2]\n,\t[3,4] ]"],
)  # fmt: skip
def test_data_may_be_nested_in_any_way(text: str) -> None:
    assert decode(text, dtypes.INT32, 2, 2).tolist() == [[1, 2], [3, 4]]
    assert decode(text, dtypes.FP32, 4).tolist() == [1, 2, 3, 4]
    texts = text.translate({ord(digit): f'"[{digit}"' for digit in "1234"})
    assert decode(texts, dtypes.BYTES, 4).tolist() == [b"[1", b"[2", b"[3", b"[4"]


def test_words_that_are_no_numbers_are_values_of_floats() -> None:
    for datatype in (dtypes.FP16, dtypes.FP32, dtypes.FP64, dtypes.BF16):
        text = "[NaN,Infinity,-Infinity,1.5,-0.0]"
        array = decode(text, datatype, 5)
        assert encode_values(array, datatype, "O").decode() == text
        assert decode("[NaN]" * 0 + "[[NaN],[1]]", datatype, 2).shape == (2,)
        assert math.copysign(1, standard_json.loads(encode_values(array, datatype, "O"))[4]) == -1
    with pytest.raises(InvalidRequest, match="non-signed-integer as signed-integer"):
        decode("[NaN]", dtypes.INT8, 1)


UNSIGNED, SIGNED, BOOLEAN, DOUBLE, STRING = (
    f"Unable to parse 'data': attempt to access JSON {words}"
    for words in (
        "non-unsigned-integer as unsigned-integer",
        "non-signed-integer as signed-integer",
        "non-boolean as boolean",
        "non-number as double",
        "non-string as string",
    )
)


@pytest.mark.parametrize(
    ("datatype", "value", "sentence"),
    [
        *((dtypes.UINT8, value, UNSIGNED) for value in ("-1", "1.0", "true", '"1"', "null", "{}")),
        *((dtypes.UINT64, value, UNSIGNED) for value in ("-1", "1e2")),
        *((dtypes.INT64, value, SIGNED) for value in ("1.0", "false", '"1"', "null", '{"a":1}')),
        *((dtypes.BOOL, value, BOOLEAN) for value in ("0", "1", '"true"', "null")),
        *((dtypes.FP32, value, DOUBLE) for value in ("true", '"1"', "null", "{}")),
        *((dtypes.FP16, value, DOUBLE) for value in ("true", '"1"')),
        *((dtypes.BYTES, value, STRING) for value in ("1", "true", "null", "{}")),
    ],
)
def test_values_of_other_types_are_refused(datatype: DataType, value: str, sentence: str) -> None:
    good = {"BOOL": "true", "BYTES": '"x"'}.get(datatype.name, "1")
    for text in (f"[{good},{value}]", f"[[{good}],[{value}]]"):
        with pytest.raises(InvalidRequest) as caught:
            decode(text, datatype, 2)
        assert str(caught.value).startswith(sentence)
        assert "alue 1 of input 'I'" in str(caught.value)


@pytest.mark.parametrize("text", ["1", "null", '"x"', "{}", '{"a":[1]}'])
def test_data_is_an_array(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^Unable to parse 'data': .* non-array as array"):
        decode(text, dtypes.FP32, 1)


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        (dtypes.UINT8, "256"), (dtypes.UINT16, "65536"), (dtypes.UINT32, "4294967296"),
        (dtypes.UINT64, "18446744073709551616"), (dtypes.INT8, "128"), (dtypes.INT8, "-129"),
        (dtypes.INT16, "32768"), (dtypes.INT32, "-2147483649"),
        (dtypes.INT64, "9223372036854775808"), (dtypes.INT64, "-9223372036854775809"),
        (dtypes.FP16, "65520"), (dtypes.FP32, "3.5e38"), (dtypes.BF16, "3.4e38"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [0, 100])
def test_values_out_of_range_are_refused(datatype: DataType, value: str, before: int) -> None:
    text = "[" + "1," * before + value + "]"
    with pytest.raises(InvalidRequest) as caught:
        decode(text, datatype, before + 1)
    assert str(caught.value).startswith(f"Unable to parse 'data': value {before} of input 'I' is ")
    assert str(caught.value).endswith(f", which {datatype} cannot hold")


@pytest.mark.parametrize("text", ["[1e400]", "[-" + "9" * 5000 + "]"])
def test_numbers_that_no_double_holds_are_malformed(text: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"number out of range: .* at 1 of 'data' of input 'I'"
    ):
        decode(text, dtypes.FP64, 1)


@pytest.mark.parametrize(
    ("text", "shape"), [("[1]", (2,)), ("[1,2,3]", (2,)), ("[]", ()), ("[1]", (0, 2**62))]
)
def test_the_number_of_values_is_that_of_the_shape(text: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        InvalidRequest,
        match=r"^Unable to parse 'data': Shape does not match true shape of 'data' field",
    ):
        decode(text, dtypes.FP32, *shape)


@pytest.mark.parametrize("shape", [(2**32, 2**31), (2**62, 2**62, 2**62), (2**63 - 1, 2)])
def test_too_many_elements_to_count_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        InvalidRequest,
        match="causes total element count to exceed maximum size of 9223372036854775807",
    ):
        decode("[1]", dtypes.FP32, *shape)


def test_shapes_that_numpy_cannot_have_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="total element count"):
        decode("[]", dtypes.FP32, 0, 2**62, 8)
    with pytest.raises(InvalidRequest, match=f"65 dimensions, and at most {MAX_DIMENSIONS}"):
        decode("[1]", dtypes.FP32, *[1] * 65)


def test_the_float_that_rounds_twice_comes_back() -> None:
    """Its shortest name, read as a double and rounded, is the float beside it."""
    bits = np.array([0x15AE43FD, 0x95AE43FD, 0x3F800000], np.uint32)
    text = encode_values(bits.view(np.float32), dtypes.FP32, "O")
    doubles = np.array(standard_json.loads(text), np.float64)
    assert doubles.astype(np.float32).view(np.uint32).tolist() == bits.tolist()
    assert np.float32(np.float64(7.038531e-26)).view(np.uint32) != 0x15AE43FD


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_float32_comes_back_with_the_same_bits(start: int) -> None:
    bits = (start + np.arange(2000, dtype=np.uint64) * 2_147_483_647 % 2**32).astype(np.uint32)
    floats = bits.view(np.float32)
    text = encode_values(floats, dtypes.FP32, "O")
    back = np.array(standard_json.loads(text), np.float64).astype(np.float32)
    kept = ~np.isnan(floats)
    assert (back.view(np.uint32) == bits)[kept].all()
    assert np.isnan(back[~kept]).all()


@pytest.mark.parametrize("datatype", [dtypes.FP16, dtypes.BF16])
def test_every_16_bit_float_comes_back_with_the_same_bits(datatype: DataType) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    array = bits if datatype is dtypes.BF16 else bits.view(np.float16)
    wide = dtypes.float32_from_bf16(bits) if datatype is dtypes.BF16 else array.astype("f4")
    kept = ~np.isnan(wide)
    back = decode(encode_values(array, datatype, "O"), datatype, 2**16)
    assert (back.view(np.uint16) == bits)[kept].all()


def test_bytes_that_are_no_text_ask_for_binary() -> None:
    array = np.array([b"\xff\xfe"], object)
    with pytest.raises(InvalidRequest, match=r"cannot be sent as JSON.*binary_data_output"):
        encode_values(array, dtypes.BYTES, "O")


def test_arrays_that_are_not_contiguous_are_written_in_row_major_order() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert (
        standard_json.loads(encode_values(array.T, dtypes.INT32, "O")) == array.T.ravel().tolist()
    )
    assert standard_json.loads(encode_values(array[::2, 0], dtypes.INT32, "O")) == [0, 8]
    assert standard_json.loads(encode_values(array[:, :1], dtypes.INT32, "O")) == [0, 4, 8]


def test_parsed_values_are_checked_like_text() -> None:
    assert array_of([1, 2], dtypes.INT8, (2,), "I").tolist() == [1, 2]
    with pytest.raises(InvalidRequest, match="non-signed-integer"):
        array_of([True], dtypes.INT8, (1,), "I")
    with pytest.raises(InvalidRequest, match="non-signed-integer"):
        array_of([[1]], dtypes.INT8, (1,), "I")


values_by_name: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text("aé😀\0\"\\[]{},", max_size=5),
    "FP64": st.floats(),
    **{
        name: st.integers(int(np.iinfo(DATATYPE_BY_NAME[name].numpy).min),
                          int(np.iinfo(DATATYPE_BY_NAME[name].numpy).max))
        for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
    },
}  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(sorted(values_by_name)), st.data())
def test_the_fast_and_the_exact_way_agree(name: str, data: st.DataObject) -> None:
    datatype = DATATYPE_BY_NAME[name]
    values = data.draw(st.lists(values_by_name[name], max_size=9)) * data.draw(st.integers(1, 9))
    text = standard_json.dumps(values)
    fast = decode(text, datatype, len(values))
    exact = decode_values(standard_json.loads(text), datatype, (len(values),), "I")
    nested = decode("[" + text + ",[[]]]", datatype, len(values))
    if datatype is dtypes.BYTES:
        assert fast.tolist() == exact.tolist() == nested.tolist()
    else:
        assert fast.tobytes() == exact.tobytes() == nested.tobytes()


NUMBERS = [row for row in ROWS if row[0] is not dtypes.BYTES]


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 30, 1000])
@pytest.mark.parametrize(("datatype", "text", "values"), NUMBERS, ids=[r[0].name for r in NUMBERS])
def test_many_numbers_are_read_in_pieces_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
    datatype: DataType,
    text: str,
    values: list[Any],
    piece_bytes: int,
) -> None:
    flat = "[" + ", ".join([text[1:-1]] * 20) + "]"
    nested = "[[" + "],\n[".join([text] * 20) + "]]"
    expected = decode(flat, datatype, 40)
    monkeypatch.setattr(v2_values, "PIECE_BYTES", piece_bytes)
    for found in (decode(flat, datatype, 40), decode(nested, datatype, 20, 1, 2).reshape(40)):
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()
        assert found.flags.writeable


def test_many_numbers_are_not_read_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2_values, "PIECE_BYTES", 50)
    lengths: list[int] = []
    codec = v2_values.CODECS[dtypes.INT32]
    decode_one = codec.decode

    def noted(text: bytes) -> Any:
        lengths.append(len(text))
        return decode_one(text)

    monkeypatch.setattr(codec, "decode", noted)
    assert decode("[" + "7,\n" * 999 + "7]", dtypes.INT32, 1000).sum() == 7000
    assert max(lengths) <= 52


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("[" + "1," * 50 + "2.5]", (51,)),
        ("[" + "1," * 50 + '"a"]', (51,)),
        ("[" + "1," * 50 + "300]", (51,)),
        ("[" + "1," * 50 + "-1]", (51,)),
        ("[" + "1," * 50 + "null]", (51,)),
        ("[" + "1," * 50 + "1]", (52,)),
        ('"' + "1," * 50 + '"', (1,)),
        ("[" + "[1,1],[]," * 20 + "[1]]", (41,)),
        ("[" + "[]," * 50 + "[1]]", (1,)),
    ],
)
def test_what_is_wrong_is_told_the_same_in_pieces(
    monkeypatch: pytest.MonkeyPatch, text: str, shape: tuple[int, ...]
) -> None:
    def told() -> str:
        try:
            return str(decode(text, dtypes.UINT8, *shape).tolist())
        except InvalidRequest as exc:
            return exc.text

    whole = told()
    for piece_bytes in range(1, 30):
        monkeypatch.setattr(v2_values, "PIECE_BYTES", piece_bytes)
        assert told() == whole


STRINGS = ['"a"', '""', '","', '"\\","', '"\\\\"', '"[é]"', '"' + "x" * 100 + '"', '",\\",\\""']


@pytest.mark.parametrize("gap", ["", " ", "\n\t"])
def test_many_strings_are_read_in_pieces_wherever_these_end(
    monkeypatch: pytest.MonkeyPatch, gap: str
) -> None:
    for strings in (STRINGS, STRINGS[:2], STRINGS[3:]):
        text = f"[{gap}" + f"{gap},{gap}".join(strings * 5) + f"{gap}]"
        shape = (len(strings) * 5,)
        whole = decode(text, dtypes.BYTES, *shape)
        for piece_bytes in range(1, 60):
            with monkeypatch.context() as patched:
                patched.setattr(v2_values, "PIECE_BYTES", piece_bytes)
                assert decode(text, dtypes.BYTES, *shape).tolist() == whole.tolist()


@pytest.mark.parametrize("text", ['"' + "a" * 99 + '"', '[["a"],' + '["b"],' * 20 + '["c"]]'])
def test_strings_that_are_no_flat_list_take_the_exact_way(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def told() -> str:
        try:
            return str(decode(text, dtypes.BYTES, 1 if text[0] == '"' else 22).tolist())
        except InvalidRequest as exc:
            return exc.text

    whole = told()
    monkeypatch.setattr(v2_values, "PIECE_BYTES", 10)
    assert told() == whole


def test_exact_way_is_for_texts_of_bounded_length() -> None:
    raw = msgspec.Raw(b"[1.0,NaN]")
    assert math.isnan(decode_values(raw, dtypes.FP32, (2,), "I", 9)[1])
    with pytest.raises(TooLarge, match="9 bytes, and 8 is the most that is read in one go"):
        decode_values(raw, dtypes.FP32, (2,), "I", 8)
    plain = msgspec.Raw(b"[1.0,2.0]")
    assert decode_values(plain, dtypes.FP32, (2,), "I", 8).tolist() == [1, 2]
