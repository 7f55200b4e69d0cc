import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport import dtypes
from modelport.dtypes import (
    BF16,
    BYTES,
    DATATYPE_BY_CONFIG_NAME,
    DATATYPE_BY_NAME,
    DATATYPE_BY_NUMPY,
    bf16_from_float32,
    float32_from_bf16,
)

EVERY_BF16 = np.arange(2**16, dtype=np.uint16)


def test_there_are_fourteen_datatypes_with_sizes_of_the_protocol() -> None:
    assert {name: each.item_bytes for name, each in DATATYPE_BY_NAME.items()} == {
        "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2,
        "INT32": 4, "INT64": 8, "FP16": 2, "FP32": 4, "FP64": 8, "BYTES": 0, "BF16": 2,
    }  # fmt: skip


def test_names_on_the_wire_and_in_configurations_go_together() -> None:
    for name, datatype in DATATYPE_BY_NAME.items():
        expected = "TYPE_STRING" if datatype is BYTES else f"TYPE_{name}"
        assert datatype.config_name == expected
        assert DATATYPE_BY_CONFIG_NAME[expected] is datatype
        assert getattr(dtypes, name) is datatype
        assert str(datatype) == name


def test_every_datatype_but_bf16_has_a_numpy_dtype_of_its_own() -> None:
    assert BF16 not in DATATYPE_BY_NUMPY.values()
    for datatype in DATATYPE_BY_NAME.values():
        if datatype is not BF16:
            assert DATATYPE_BY_NUMPY[datatype.numpy] is datatype
            assert datatype is BYTES or datatype.numpy.itemsize == datatype.item_bytes
            # As on the wire, whatever the machine.
            assert datatype.numpy.str[0] in "|<"


def test_every_bf16_widens_to_its_value() -> None:
    wide = float32_from_bf16(EVERY_BF16)
    assert wide.dtype == np.float32
    assert wide.tobytes() == b"".join(struct.pack("<I", int(bits) << 16) for bits in EVERY_BF16)


def test_every_bf16_survives_the_way_there_and_back() -> None:
    back = bf16_from_float32(float32_from_bf16(EVERY_BF16))
    is_nan = np.isnan(float32_from_bf16(EVERY_BF16))
    assert np.array_equal(back[~is_nan], EVERY_BF16[~is_nan])
    # A NaN stays one, with its sign; a signalling one becomes quiet, as on any processor.
    assert np.array_equal(back[is_nan], EVERY_BF16[is_nan] | 0x40)


def test_halves_between_neighbours_go_to_the_even_one() -> None:
    """Exhaustive: every finite bfloat16, half a step above it, and a hair beside that."""
    finite = EVERY_BF16[np.isfinite(float32_from_bf16(EVERY_BF16))]
    bits = finite.astype(np.uint32) << 16
    half = bits | 0x8000
    up, even = finite + 1, finite + (finite & 1)
    assert np.array_equal(bf16_from_float32((half - 1).view(np.float32)), finite)
    assert np.array_equal(bf16_from_float32(half.view(np.float32)), even)
    assert np.array_equal(bf16_from_float32((half + 1).view(np.float32)), up)


def test_what_is_larger_than_the_largest_becomes_infinite() -> None:
    largest = np.float32(3.3895314e38)
    values = np.array([largest, 3.4e38, np.inf, -np.inf, -3.4e38, -largest], np.float32)
    assert bf16_from_float32(values).tolist() == [0x7F7F, 0x7F80, 0x7F80, 0xFF80, 0xFF80, 0xFF7F]


def test_zeros_keep_their_sign_and_subnormals_are_rounded_too() -> None:
    tiny = struct.unpack("<3f", struct.pack("<3I", 1, 0x7FFF, 0x8001))
    values = np.array([0.0, -0.0, *tiny], np.float32)
    assert bf16_from_float32(values).tolist() == [0, 0x8000, 0, 0, 1]


def test_nan_with_any_payload_stays_nan() -> None:
    bits = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7FC00000], np.uint32)
    rounded = bf16_from_float32(bits.view(np.float32))
    assert np.isnan(float32_from_bf16(rounded)).all()
    assert (rounded >> 15).tolist() == [0, 0, 1, 1, 0]


def nearest(value: float) -> int:
    """The bits of the nearest bfloat16, ties to even, by exact arithmetic."""
    sign = 0x8000 if math.copysign(1, value) < 0 else 0
    size = Fraction(abs(value))
    low, high = 0, 0x7F80
    while high - low > 1:
        middle = (low + high) // 2
        if exact(middle) <= size:
            low = middle
        else:
            high = middle
    below, above = size - exact(low), exact(high) - size
    if below == above:
        return sign | (low if low % 2 == 0 else high)
    return sign | (low if below < above else high)


def exact(bits: int) -> Fraction:
    if bits == 0x7F80:
        # Where the next finite number would be: halfway to it rounding to infinity begins.
        return Fraction(2) ** 128
    value: float = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    return Fraction(value)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_rounding_is_to_the_nearest(value: float) -> None:
    assert int(bf16_from_float32(np.array(value, np.float32))) == nearest(value)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes_survive(shape: tuple[int, ...], order: str) -> None:
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    values = np.asfortranarray(values) if order == "F" and values.ndim > 1 else values
    bits = bf16_from_float32(values)
    wide = float32_from_bf16(bits)
    assert isinstance(bits, np.ndarray)
    assert isinstance(wide, np.ndarray)
    assert bits.shape == wide.shape == shape
    assert (bits.dtype, wide.dtype) == (np.uint16, np.float32)
    assert np.array_equal(wide, values)


def test_strided_and_read_only_arrays_are_taken_and_left_alone() -> None:
    values = np.arange(10, dtype=np.float32)[::2]
    values.flags.writeable = False
    bits = bf16_from_float32(values)
    bits.flags.writeable = False
    assert float32_from_bf16(bits[::2]).tolist() == [0, 4, 8]
    assert values.tolist() == [0, 2, 4, 6, 8]
