"""What is kept, what is found, and what goes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.dtypes import BYTES, FP32, INT32, INT64, UINT32, DataType
from modelport.engine.cache import (
    ENTRY_BYTES,
    MOST_ENTRY_BYTES,
    MOST_INPUT_BYTES,
    ResponseCache,
    digest,
)
from modelport.errors import InvalidRequest
from modelport.messages import Request, Response, Tensors
from modelport.tensors import Tensor


def tensor(name: str, datatype: DataType, values: Any, shape: tuple[int, ...] = ()) -> Tensor:
    array = np.array(values, datatype.numpy)
    return Tensor(name, datatype, array.reshape(shape) if shape else array)


def key(*tensors: Tensor, outputs: tuple[str, ...] = (), **parameters: Any) -> bytes | None:
    return digest(Request(Tensors(tensors), outputs=outputs, parameters=parameters))


def response(size: int, value: int = 0) -> Response:
    array = np.full(size, value, np.uint8)
    return Response([Tensor("y", UINT32, array)])


X = tensor("x", FP32, [1, 2])


def test_equal_requests_have_the_same_key_in_whatever_order_things_stand() -> None:
    z = tensor("z", BYTES, [b"ab", b""])
    assert key(X, z, outputs=("a", "b"), p=1, q=2) == key(z, X, outputs=("b", "a"), q=2, p=1)
    wide = Tensor("x", FP32, np.array([[1, 9], [2, 9]], np.float32)[:, 0])
    assert key(wide) == key(X), "a view with gaps is the same tensor"
    assert len(key() or b"") == 32


DIFFERENT = {
    "plain": key(X),
    "another value": key(tensor("x", FP32, [1, 3])),
    "another sign of zero": key(tensor("x", FP32, [-0.0, 2])),
    "zero": key(tensor("x", FP32, [0.0, 2])),
    "another shape": key(tensor("x", FP32, [1, 2], (1, 2))),
    "another name": key(tensor("xx", FP32, [1, 2])),
    "another type": key(tensor("x", INT32, [1, 2])),
    "the same bits": key(Tensor("x", INT32, X.array.view(np.int32))),
    "one more": key(X, tensor("a", FP32, [0])),
    "none": key(),
    "wanted": key(X, outputs=("y",)),
    "a parameter": key(X, p=1),
    "the same text": key(X, p="1"),
    "the same number": key(X, p=1.0),
    "the same truth": key(X, p=True),
    "bytes": key(tensor("x", BYTES, [b"ab", b"c"])),
    "the same bytes, cut elsewhere": key(tensor("x", BYTES, [b"a", b"bc"])),
    "two of them": key(tensor("x", BYTES, [b"a"]), tensor("y", BYTES, [b"b"])),
    "the other way round": key(tensor("x", BYTES, [b"b"]), tensor("y", BYTES, [b"a"])),
    "nothing": key(tensor("x", FP32, [])),
}


def test_requests_that_differ_have_different_keys() -> None:
    assert None not in DIFFERENT.values()
    assert len(set(DIFFERENT.values())) == len(DIFFERENT)


def test_what_is_large_or_faulty_is_not_looked_up() -> None:
    assert key(tensor("x", INT64, np.zeros(MOST_INPUT_BYTES // 8))) is not None
    assert key(tensor("x", INT64, np.zeros(MOST_INPUT_BYTES // 8 + 1))) is None
    assert key(Tensor("x", BYTES, np.full(65537, b"", object))) is None
    assert key(Tensor("x", FP32, X.array, (9,), InvalidRequest("wrong"))) is None


def test_what_was_put_is_found_by_its_owner_only() -> None:
    cache = ResponseCache(10_000)
    cache.put("a", b"k", response(3, 7))
    found = cache.get("a", b"k")
    assert found is not None
    assert found.outputs[0].array.tolist() == [7, 7, 7]
    assert cache.get("b", b"k") is None
    assert cache.get("a", b"j") is None


def test_what_is_kept_is_a_copy_that_nobody_can_change() -> None:
    """A row of a batch would hold the whole batch, and a model may use its arrays again."""
    cache = ResponseCache(10_000)
    batch = np.zeros((100, 4), np.float32)
    parameters: dict[str, Any] = {"p": 1}
    cache.put("a", b"k", Response([Tensor("y", FP32, batch[:1])], parameters))
    batch[:] = 9
    parameters["p"] = 2
    found = cache.get("a", b"k")
    assert found is not None
    array = found.outputs[0].array
    assert array.tolist() == [[0, 0, 0, 0]]
    assert array.base is None
    assert not array.flags.writeable
    assert found.parameters == {"p": 1}


def test_who_was_not_asked_for_the_longest_goes_first() -> None:
    cache = ResponseCache(3 * (ENTRY_BYTES + 10))
    for name in (b"a", b"b", b"c"):
        cache.put(0, name, response(10))
    cache.get(0, b"a")
    cache.put(0, b"d", response(10))
    assert [name for name in (b"a", b"b", b"c", b"d") if cache.get(0, name)] == [b"a", b"c", b"d"]
    assert cache.statistics().evictions == 1
    assert repr(cache) == "<ResponseCache entries=3 bytes=3102 of 3102>"


def test_what_does_not_fit_drives_nobody_out() -> None:
    cache = ResponseCache(2 * ENTRY_BYTES)
    cache.put(0, b"a", response(10))
    cache.put(0, b"b", response(2 * ENTRY_BYTES))
    assert cache.get(0, b"a") is not None
    assert cache.statistics() == (1, ENTRY_BYTES + 10, 2 * ENTRY_BYTES, 0)
    roomy = ResponseCache(1 << 40)
    roomy.put(0, b"a", response(MOST_ENTRY_BYTES))
    roomy.put(0, b"b", Response([Tensor("y", BYTES, np.full(65537, b"", object))]))
    assert roomy.statistics().entries == 0


def test_owner_takes_its_responses_away() -> None:
    cache = ResponseCache(10_000)
    cache.put("a", b"k", response(10))
    cache.put("b", b"k", response(10))
    cache.drop("a")
    assert cache.get("a", b"k") is None
    assert cache.get("b", b"k") is not None
    assert cache.statistics().used_bytes == ENTRY_BYTES + 10


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.integers(0, 3 * ENTRY_BYTES)),
        st.tuples(st.just("get"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("drop"), st.integers(0, 1), st.just(0)),
    ),
    max_size=60,
)


@given(size=st.integers(1, 6 * ENTRY_BYTES), steps=STEPS)
def test_bound_holds_and_what_is_found_is_what_was_put_last(
    size: int, steps: list[tuple[str, int, int]]
) -> None:
    cache = ResponseCache(size)
    put: dict[tuple[int, int], int] = {}
    for count, (what, name, length) in enumerate(steps):
        owner, own_key = name % 2, bytes([name])
        if what == "put":
            cache.put(owner, own_key, response(length, count))
            if ENTRY_BYTES + length <= size:
                put[owner, name] = count
                assert cache.get(owner, own_key) is not None
        elif what == "get":
            found = cache.get(owner, own_key)
            if found is not None and found.outputs[0].array.size:
                assert found.outputs[0].array[0] == put[owner, name]
        else:
            cache.drop(name)
            put = {key: value for key, value in put.items() if key[0] != name}
        told = cache.statistics()
        assert told.used_bytes <= size
        assert told.entries <= len(put)
    for owner in (0, 1):
        cache.drop(owner)
    assert cache.statistics()[:2] == (0, 0)


@pytest.mark.parametrize("text", ["ab", "ä"])
def test_text_that_a_member_of_an_ensemble_gave_is_its_utf8(text: str) -> None:
    given_text = Tensor("x", BYTES, np.array([text], object))
    given_bytes = Tensor("x", BYTES, np.array([text.encode()], object))
    assert key(given_text) == key(given_bytes)
