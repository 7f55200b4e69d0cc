"""How results become JSON."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelport.services.values import dump_json, dump_rows

_SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
_DTYPES = st.one_of(
    arrays.integer_dtypes(endianness="="),
    arrays.unsigned_integer_dtypes(endianness="="),
    arrays.boolean_dtypes(),
    arrays.floating_dtypes(endianness="=", sizes=(32, 64)),
)


@given(arrays.arrays(_DTYPES, _SHAPES))
def test_rows_that_are_written_together_are_as_written_alone(array: Any) -> None:
    rows = dump_rows(array)
    if rows is None:
        assert not array.size or not np.isfinite(array).all()
    else:
        assert rows == [dump_json(array[at : at + 1]) for at in range(len(array))]


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array(3.5), b"3.5"),
        (np.array([1.0, np.nan, -np.inf]), b"[1.0,NaN,-Infinity]"),
        (np.array([0.1], np.float32), b"[0.1]"),
        (np.arange(6).reshape(2, 3).T, b"[[0,3],[1,4],[2,5]]"),
        (np.array([1.5], ">f8"), b"[1.5]"),
        (np.array([1.5], np.float16), b"[1.5]"),
        (np.array([2**63], np.uint64), b"[9223372036854775808]"),
        (np.array(["null"]), b'["null"]'),
        (np.zeros((2, 0)), b"[[],[]]"),
    ],
)
def test_arrays_are_written_as_nested_lists(array: Any, text: bytes) -> None:
    assert dump_json(array) == text


def test_what_is_no_number_is_written_row_by_row() -> None:
    assert dump_rows(np.array([["a"], ["b"]])) is None
    assert dump_rows(np.array([[1.0], [np.inf]])) is None
    assert json.loads(dump_json(np.array([["a"], ["b"]]))) == [["a"], ["b"]]
