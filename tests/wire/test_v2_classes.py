import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME
from modelport.errors import InvalidRequest
from modelport.messages import Response
from modelport.tensors import Array, Tensor
from modelport.wire.v2_classes import classify, takes_long


def classes(array: Array, count: int, labels: tuple[str, ...] = (), batch: bool = True) -> object:
    tensor = Tensor("O", dtypes.DATATYPE_BY_NUMPY[array.dtype], array)
    found = classify(tensor, count, labels, is_batching=batch)
    assert found.datatype is dtypes.BYTES
    assert found.name == "O"
    return found.array.tolist()


def test_the_best_come_first_with_six_decimals_and_their_labels() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], np.float32)
    assert classes(scores, 2, ("cat", "dog")) == [
        [b"0.700000:1:dog", b"0.200000:2"],
        [b"0.500000:0:cat", b"0.250000:1:dog"],
    ]


def test_integers_have_no_decimals_and_ties_go_by_index() -> None:
    assert classes(np.array([3, 9, -128, 9], np.int8), 4, batch=False) == [
        b"9:1", b"9:3", b"3:0", b"-128:2",
    ]  # fmt: skip
    assert classes(np.array([[2**64 - 1, 0]], np.uint64), 1) == [[b"18446744073709551615:0"]]


def test_there_are_never_more_than_values() -> None:
    assert classes(np.zeros((1, 2), np.int32), 100) == [[b"0:0", b"0:1"]]
    assert classes(np.zeros((0, 2), np.int32), 1) == []
    assert classes(np.zeros((2, 0), np.int32), 1) == [[], []]


def test_all_dimensions_but_the_batch_are_one() -> None:
    assert classes(np.arange(8, dtype=np.int32).reshape(2, 2, 2), 1) == [[b"3:3"], [b"7:3"]]
    assert classes(np.arange(8, dtype=np.int32).reshape(2, 2, 2), 1, batch=False) == [b"7:7"]


def test_what_is_no_number_comes_last() -> None:
    scores = np.array([np.nan, 1, np.inf, np.nan, -np.inf], np.float64)
    assert classes(scores, 5, batch=False) == [
        b"inf:2", b"1.000000:1", b"-inf:4", b"nan:0", b"nan:3",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["BYTES", "BOOL", "FP16", "BF16"])
def test_datatypes_without_an_order_are_refused(name: str) -> None:
    datatype = DATATYPE_BY_NAME[name]
    tensor = Tensor("O", datatype, np.zeros(1, datatype.numpy))
    with pytest.raises(
        InvalidRequest, match=f"^class result not available .* unsupported type '{name}'"
    ):
        classify(tensor, 1, (), is_batching=False)


def test_very_large_outputs_are_refused() -> None:
    tensor = Tensor("O", dtypes.INT8, np.zeros(1_000_001, np.int8))
    with pytest.raises(InvalidRequest, match=r"^classification output tensor too large"):
        classify(tensor, 1, (), is_batching=False)


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.int8, np.uint64]),
        st.integers(0, 200),
        elements=st.integers(0, 9),
        fill=st.nothing(),
    ),
    st.integers(1, 220),
    st.sets(st.integers(0, 199), max_size=5),
)
def test_the_few_best_are_the_first_of_all(array: Array, count: int, holes: set[int]) -> None:
    """Whether they are sorted out first or not."""
    if array.dtype == np.float32:
        array[[at for at in holes if at < len(array)]] = np.nan
    ranked = sorted(
        range(len(array)), key=lambda at: (bool(array[at] != array[at]), -float(array[at]), at)
    )
    ranked.sort(key=lambda at: bool(array[at] != array[at]))
    found = classes(array, count, batch=False)
    assert isinstance(found, list)
    assert [int(name.split(b":")[1]) for name in found] == ranked[:count]


def test_what_takes_long_is_known_before() -> None:
    response = Response([Tensor(n, dtypes.INT8, np.zeros(20_000, np.int8)) for n in "AB"])
    assert takes_long(response, {"A": 1})
    assert not takes_long(response, {"A": 0})
    assert not takes_long(response, {})
    assert not takes_long(Response([Tensor("A", dtypes.INT8, np.zeros(9, np.int8))]), {"A": 9})
