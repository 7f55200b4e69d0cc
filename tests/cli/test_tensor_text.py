import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.cli.tensor_text import (
    fit,
    format_tensor,
    tensor_from_array,
    tensor_from_text,
    tensor_to_json,
)
from modelport.client.v2 import TensorMetadata
from modelport.tensors import Tensor

MakeTensor = Callable[[str, str, Any], Tensor]


@pytest.mark.parametrize(
    ("given_shape", "declared", "fitted"),
    [
        ((4,), (-1, 4), (1, 4)),
        ((8,), (-1, 4), (2, 4)),
        ((3,), (-1, 1), (3, 1)),
        ((5,), (-1, -1), (1, 5)),
        ((1,), (), ()),
        ((6,), (2, 3), (2, 3)),
        ((2, 3), (-1, 2, 3), (1, 2, 3)),
        ((2, 3), (-1, 3), (2, 3)),
        ((2, 3), (-1, 4), (2, 3)),  # left to the server, which says what it expects
        ((0,), (-1,), (0,)),
        ((784,), (-1, 28, 28, 1), (1, 28, 28, 1)),
        ((12,), (1, -1, 3), (1, 4, 3)),
    ],
)
def test_flat_values_fill_the_declared_shape(
    given_shape: Sequence[int], declared: Sequence[int], fitted: Sequence[int]
) -> None:
    assert fit(given_shape, declared) == tuple(fitted)


@pytest.mark.parametrize(("count", "declared"), [(5, (-1, 4)), (5, (2, 3)), (2, ()), (1, (0, 3))])
def test_values_that_cannot_fill_the_shape_are_refused(count: int, declared: Sequence[int]) -> None:
    with pytest.raises(ValueError, match=f"{count} values do not fill"):
        fit((count,), declared)


@given(st.lists(st.integers(1, 5) | st.just(-1), max_size=4), st.integers(0, 200))
def test_fitting_never_loses_a_value(declared: list[int], count: int) -> None:
    try:
        shape = fit((count,), declared)
    except ValueError:
        return
    assert np.prod(shape) == count
    assert len(shape) == len(declared)


@pytest.mark.parametrize(
    ("datatype", "text", "values"),
    [
        ("BOOL", "true,false", [True, False]),
        ("UINT8", "0,255", [0, 255]),
        ("INT64", "[-9223372036854775808, 9223372036854775807]", [-(2**63), 2**63 - 1]),
        ("UINT64", "18446744073709551615", [2**64 - 1]),
        ("FP64", "1, 2.5, -Infinity", [1.0, 2.5, float("-inf")]),
        ("BYTES", "a, b", [b"a, b"]),
        ("BYTES", '["a", "b"]', [b"a", b"b"]),
        ("BYTES", "", [b""]),
    ],
)
def test_texts_become_values_of_the_datatype(datatype: str, text: str, values: list[Any]) -> None:
    tensor = tensor_from_text(text, TensorMetadata("x", datatype, (-1,)))
    assert tensor.array.tolist() == values


@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        ("UINT8", "256"), ("UINT8", "-1"), ("INT32", "1.5"), ("INT32", "true"), ("BOOL", "1"),
        ("FP32", '"1"'), ("BYTES", "[1]"), ("FP32", "1;2"), ("NOPE", "1"), ("FP32", "[1"),
    ],
)  # fmt: skip
def test_texts_that_are_no_values_of_the_datatype_are_refused(datatype: str, text: str) -> None:
    with pytest.raises(ValueError):
        tensor_from_text(text, TensorMetadata("x", datatype, (-1,)))


def test_arrays_change_their_width_not_their_kind() -> None:
    floats = TensorMetadata("x", "FP32", (-1, 2))
    assert tensor_from_array(np.array([1.5, 2.5]), floats).array.dtype == np.float32
    assert tensor_from_array(np.array([1, 2]), floats).shape == (1, 2)
    with pytest.raises(ValueError, match="expected BOOL, got an array of int64"):
        tensor_from_array(np.array([1, 2]), TensorMetadata("x", "BOOL", (-1,)))
    with pytest.raises(ValueError, match="expected an array of strings"):
        tensor_from_array(np.array([1, 2]), TensorMetadata("x", "BYTES", (-1,)))


def test_arrays_of_strings_become_bytes_and_bf16_its_bits() -> None:
    words = tensor_from_array(np.array(["ä", "b"]), TensorMetadata("x", "BYTES", (-1,)))
    assert words.array.tolist() == ["ä".encode(), b"b"]
    bits = tensor_from_array(np.array([1.0]), TensorMetadata("x", "BF16", (-1,)))
    assert bits.array.tolist() == [0x3F80]
    assert format_tensor(bits) == "x BF16[1]\n  [1.]"
    assert tensor_to_json(bits)["data"] == [1.0]


def test_long_outputs_are_cut_for_people_only(make_tensor: MakeTensor) -> None:
    numbers = make_tensor("x", "INT32", range(1000))
    assert "..." in format_tensor(numbers)
    assert tensor_to_json(numbers)["data"] == list(range(1000))
    words = make_tensor("x", "BYTES", [b"w"] * 300)
    assert format_tensor(words).endswith("... and 100 more")


def test_bytes_that_are_no_text_are_counted_for_people(make_tensor: MakeTensor) -> None:
    tensor = make_tensor("x", "BYTES", [b"\xff\xfe", "ä".encode()])
    assert format_tensor(tensor) == 'x BYTES[2]\n  "<2 bytes>"\n  "ä"'
    assert json.loads(json.dumps(tensor_to_json(tensor)))["data"] == [{"base64": "//4="}, "ä"]
