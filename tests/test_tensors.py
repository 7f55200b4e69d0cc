import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.dtypes import BYTES, FP32
from modelport.errors import InvalidInference, InvalidRequest
from modelport.tensors import Tensor, join, split


def test_shape_is_the_arrays_unless_another_was_announced() -> None:
    array = np.zeros((2, 3), np.float32)
    assert Tensor("x", FP32, array).shape == (2, 3)
    fault = InvalidInference("too short")
    broken = Tensor("x", FP32, np.zeros(0, np.float32), (5, 5), fault)
    assert broken.shape == (5, 5)
    assert broken.fault is fault
    assert repr(broken) == "<Tensor x FP32[5,5]>"


def test_one_array_is_joined_and_cut_as_it_is() -> None:
    array = np.zeros((2, 3), np.float32)
    assert join([array]) is array
    assert split(array, [2])[0] is array


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.sampled_from([FP32, BYTES]))
def test_cutting_undoes_joining_without_a_copy(rows: list[int], datatype: object) -> None:
    arrays = []
    for index, count in enumerate(rows):
        array = np.full((count, 2), index, np.float32)
        arrays.append(array if datatype is FP32 else array.astype(object))
    joined = join(arrays)
    assert joined.shape == (sum(rows), 2)
    parts = split(joined, rows)
    assert [part.tolist() for part in parts] == [array.tolist() for array in arrays]
    assert all(part.base is joined or part is joined for part in parts)


@pytest.mark.parametrize("shape", [(3, 2), (1,), (0, 2), ()])
def test_array_of_another_length_cannot_be_cut(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="into 2 rows"):
        split(np.zeros(shape, np.float32), [1, 1])
