from typing import Any

import numpy as np
import pytest

from modelport.dtypes import (
    BF16,
    BOOL,
    BYTES,
    FP16,
    FP32,
    INT8,
    INT32,
    INT64,
    UINT8,
    UINT64,
    DataType,
)
from modelport.errors import ModelFailed
from modelport.runtimes.declared import as_declared


@pytest.mark.parametrize(
    ("given", "datatype", "told"),
    [
        (np.array([0.5], np.float64), FP32, [0.5]),
        (np.array([3], np.int64), FP32, [3.0]),
        (np.array([True]), FP32, [1.0]),
        (np.array([0.5], np.float32), FP16, [0.5]),
        (np.array([-5, 127], np.int64), INT8, [-5, 127]),
        (np.array([255], np.uint8), INT32, [255]),
        (np.array([True, False]), UINT8, [1, 0]),
        (np.array(["é", ""]), BYTES, ["é".encode(), b""]),
        (np.array([b"a"]), BYTES, [b"a"]),
        (np.array(["a", b"b", bytearray(b"c")], object), BYTES, [b"a", b"b", b"c"]),
        (np.array([1.0, -2.0], np.float32), BF16, [0x3F80, 0xC000]),
        (np.array([0x3F80], np.uint16), BF16, [0x3F80]),
        (np.zeros((0, 3)), FP32, []),
    ],
)
def test_what_fits_is_converted(given: Any, datatype: DataType, told: list[object]) -> None:
    array = as_declared("y", datatype, given)
    assert array.dtype == datatype.numpy
    assert array.tolist() == told


@pytest.mark.parametrize(
    ("given", "datatype"),
    [
        (np.array([1, 2], np.float32), FP32),
        (np.array([b"a", b"b"], object), BYTES),
        (np.array([1], np.uint16), BF16),
    ],
)
def test_what_is_as_declared_is_not_copied(given: Any, datatype: DataType) -> None:
    assert as_declared("y", datatype, given) is given


@pytest.mark.parametrize(
    ("given", "datatype", "told"),
    [
        (np.array([128], np.int64), INT8, "'y' holds values that INT8 cannot; declare it wider"),
        (np.array([-1], np.int64), UINT8, "holds values that UINT8 cannot"),
        (np.array([-1], np.int64), UINT64, "holds values that UINT64 cannot"),
        (np.array([2**64 - 1], np.uint64), INT64, "holds values that INT64 cannot"),
        (np.array([1.0], np.float32), INT64, "'y' is declared INT64, and the model gave float32"),
        (np.array([1], np.int64), BOOL, "'y' is declared BOOL, and the model gave int64"),
        (np.array([1], np.complex64), FP32, "the model gave complex64"),
        (np.array(["a"]), FP32, "the model gave str"),
        (np.array([1], np.int64), BF16, "'y' is declared BF16, and the model gave int64"),
        (
            np.array([1], np.int64),
            BYTES,
            "declared BYTES, and the model gave int64; give an object array",
        ),
        (np.array([1, b"a"], object), BYTES, "gave an element of type int; give bytes or str"),
    ],
)
def test_what_would_change_is_refused(given: Any, datatype: DataType, told: str) -> None:
    with pytest.raises(ModelFailed, match=told):
        as_declared("y", datatype, given)


def test_given_array_is_left_as_it_was() -> None:
    given = np.array(["a", b"b"], object)
    as_declared("y", BYTES, given)
    assert given.tolist() == ["a", b"b"]
