from typing import Any

import numpy as np
import pytest

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidInference, InvalidRequest
from modelport.wire.v2_bytes import decode_bytes, encode_array, encode_strings

# Datatype, bytes, values of the array; for both directions.
ROWS: list[tuple[DataType, str, list[Any]]] = [
    (dtypes.BOOL, "00 01", [False, True]),
    (dtypes.UINT8, "00 ff", [0, 255]),
    (dtypes.UINT16, "01 00 ff ff", [1, 65535]),
    (dtypes.UINT32, "01 00 00 00 ff ff ff ff", [1, 2**32 - 1]),
    (dtypes.UINT64, "01 00 00 00 00 00 20 00 ff ff ff ff ff ff ff ff", [2**53 + 1, 2**64 - 1]),
    (dtypes.INT8, "80 7f", [-128, 127]),
    (dtypes.INT16, "00 80 ff 7f", [-(2**15), 2**15 - 1]),
    (dtypes.INT32, "00 00 00 80 02 01 00 00", [-(2**31), 258]),
    (dtypes.INT64, "00 00 00 00 00 00 00 80 01 00 00 00 00 00 20 00", [-(2**63), 2**53 + 1]),
    (dtypes.FP16, "00 3c 00 fc", [1.0, -np.inf]),
    (dtypes.FP32, "00 00 80 3f 00 00 00 80", [1.0, -0.0]),
    (dtypes.FP64, "00 00 00 00 00 00 f0 3f 9a 99 99 99 99 99 b9 3f", [1.0, 0.1]),
    (dtypes.BF16, "80 3f 20 c0", [0x3F80, 0xC020]),
    (dtypes.BYTES, "00 00 00 00 03 00 00 00 00 ff 41", [b"", b"\0\xffA"]),
]


def decode(data: bytes, datatype: DataType, *shape: int) -> Any:
    return decode_bytes("I", datatype, shape, data, 0, len(data), "m")


@pytest.mark.parametrize(("datatype", "text", "values"), ROWS, ids=[r[0].name for r in ROWS])
def test_bytes_of_every_datatype_both_ways(
    datatype: DataType, text: str, values: list[Any]
) -> None:
    data = bytes.fromhex(text)
    tensor = decode(data, datatype, 2, 1)
    assert tensor.fault is None
    assert tensor.shape == tensor.array.shape == (2, 1)
    assert tensor.array.dtype == datatype.numpy
    assert tensor.array.ravel().tolist() == values
    assert bytes(encode_array(tensor.array, datatype)) == data


@pytest.mark.parametrize("name", list(DATATYPE_BY_NAME))
def test_tensors_may_be_empty_or_have_no_dimensions(name: str) -> None:
    datatype = DATATYPE_BY_NAME[name]
    assert decode(b"", datatype, 0, 3).array.shape == (0, 3)
    assert bytes(encode_array(np.empty((3, 0), datatype.numpy), datatype)) == b""
    scalar = decode(bytes(datatype.item_bytes or 4), datatype)
    assert scalar.array.shape == ()
    assert bytes(encode_array(scalar.array, datatype)) == bytes(datatype.item_bytes or 4)


def test_arrays_are_views_on_the_body() -> None:
    body = bytearray(b"xyz" + np.arange(4, dtype="<f4").tobytes() + b"tail")
    view = memoryview(body).toreadonly()
    tensor = decode_bytes("I", dtypes.FP32, (2, 2), view, 3, 16, "m")
    assert tensor.array.tolist() == [[0, 1], [2, 3]]
    assert not tensor.array.flags.writeable
    body[3:7] = np.float32(9).tobytes()
    assert tensor.array[0, 0] == 9


def test_contiguous_arrays_are_written_without_a_copy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    piece = encode_array(array, dtypes.FP32)
    assert np.shares_memory(np.frombuffer(piece, np.float32), array)
    assert bytes(encode_array(array.T, dtypes.FP32)) == array.T.tobytes()


def test_booleans_are_zero_or_one_whatever_was_sent() -> None:
    tensor = decode(b"\x00\x02\xff\x01", dtypes.BOOL, 4)
    assert tensor.array.view(np.uint8).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "text"),
    [
        (
            dtypes.FP32, (2,), b"\0" * 7,
            "input byte size mismatch for input 'I' for model 'm'. Expected 8, got 7",
        ),
        (
            dtypes.INT8, (2**62, 1), b"",
            f"input byte size mismatch for input 'I' for model 'm'. Expected {2**62}, got 0",
        ),
        (
            dtypes.BYTES, (2,), b"\1\0\0\0a\1\0\0",
            "incomplete string length indicator for inference input 'I' for model 'm', expecting "
            "4 bytes but only 3 bytes available.",
        ),
        (
            dtypes.BYTES, (1,), b"\xff\xff\xff\xffab",
            "incomplete string data for inference input 'I', expecting string of length "
            "4294967295 but only 2 bytes available",
        ),
        (
            dtypes.BYTES, (3,), b"\0\0\0\0" * 2,
            "expected 3 string elements for inference input 'I' for model 'm', got 2",
        ),
        (
            dtypes.BYTES, (1,), b"\0\0\0\0" * 2,
            "unexpected number of string elements 2 for inference input 'I' for model 'm', "
            "expecting 1",
        ),
    ],
)  # fmt: skip
def test_faults_are_kept_for_the_engine_to_report(
    datatype: DataType, shape: tuple[int, ...], data: bytes, text: str
) -> None:
    tensor = decode(data, datatype, *shape)
    assert isinstance(tensor.fault, InvalidInference)
    assert str(tensor.fault).startswith(text)
    assert tensor.shape == shape


def test_shapes_that_numpy_cannot_have_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="total element count"):
        decode(b"", dtypes.FP32, 0, 2**62, 8)
    with pytest.raises(InvalidRequest, match="total element count"):
        decode(b"", dtypes.INT8, 2**62, 2)
    with pytest.raises(InvalidRequest, match="65 dimensions"):
        decode(b"\0", dtypes.INT8, *[1] * 65)


def test_text_is_written_as_utf8() -> None:
    assert encode_strings(["é", bytearray(b"x"), np.str_("y")]) == (
        b"\2\0\0\0\xc3\xa9\1\0\0\0x\1\0\0\0y"
    )


def test_a_hundred_thousand_elements_come_back() -> None:
    elements = [b"%d" % index for index in range(100_000)]
    tensor = decode(encode_strings(elements), dtypes.BYTES, 100_000)
    assert tensor.array.tolist() == elements
