import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelport import dtypes
from modelport.dtypes import DataType
from modelport.tensors import Array
from modelport.wire import nested_numbers
from modelport.wire.nested_numbers import decode_numbers


def decode(text: bytes, datatype: DataType = dtypes.FP64) -> Array | None:
    return decode_numbers(memoryview(text), datatype, "x")


@given(
    arrays.arrays(np.int64, arrays.array_shapes(min_dims=1, max_dims=5, max_side=4)),
    st.sampled_from([None, 1]),
    st.integers(1, 9),
)
def test_lists_of_any_regular_shape_are_read(
    array: Array, indent: int | None, piece_bytes: int
) -> None:
    text = json.dumps(array.tolist(), indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nested_numbers, "PIECE_BYTES", piece_bytes)
        found = decode(text, dtypes.INT64)
    assert found is not None
    np.testing.assert_array_equal(found, array)
    assert found.shape == array.shape


@pytest.mark.parametrize(
    "text",
    [b"[]", b"[[],[]]", b"[[1,2],[3]]", b"[1,[2]]", b"[[1],2]", b"[[[1]],[2]]", b"[1,2", b"1,2]",
     b"[[1,2]3]", b"[3[1,2]]", b"[[1,2] 3]", b"[[1][2]]", b"[[1] [2]]", b"[1,]", b"[,1]", b"[1,,2]",
     b"[[1,],[,2]]", b"[1 2]", b"[1.5.5]", b"[01]", b"[-]", b"[1]]", b"[[1]", b"][", b"[NaN]",
     b"[true]", b'["1"]', b"[null]", b"[1]x", b"[{}]", b"[1e999]"],
)  # fmt: skip
def test_all_else_is_left_to_the_general_way(text: bytes) -> None:
    for piece_bytes in (1, 2, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nested_numbers, "PIECE_BYTES", piece_bytes)
            assert decode(text, dtypes.FP32) is None


def test_what_a_datatype_cannot_hold_is_left_to_the_general_way() -> None:
    assert decode(b"[256]", dtypes.UINT8) is None
    assert decode(b"[-1]", dtypes.UINT8) is None
    assert decode(b"[1.5]", dtypes.INT32) is None
    assert decode(b"[1]", dtypes.BYTES) is None
    assert decode(b"[" * 33 + b"1" + b"]" * 33) is None
    found = decode(b"[9007199254740993]", dtypes.INT64)
    assert found is not None
    assert found.tolist() == [9007199254740993]


@given(st.text(alphabet="[],12 .-e", max_size=12))
@example("[[1],[2]]")
def test_nothing_is_read_that_the_general_way_reads_otherwise(text: str) -> None:
    found = decode(text.encode())
    if found is None:
        return
    expected: Any = json.loads(text)
    assert found.tolist() == expected
