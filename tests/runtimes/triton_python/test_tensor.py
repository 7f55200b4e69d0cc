from typing import Any

import numpy as np
import pytest

from modelport.dtypes import BF16, BYTES, FP32
from modelport.runtimes.triton_python.errors import TritonModelException
from modelport.runtimes.triton_python.tensor import InputTensor, InputView, Tensor, bytes_array

BITS = np.array([0x3F80, 0x4000], np.uint16)


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


def test_tensor_says_what_it_is() -> None:
    array = np.zeros((2, 3), np.float32)
    tensor = Tensor("t", array)
    assert tensor.name() == "t"
    assert tensor.as_numpy() is array
    assert tensor.shape() == [2, 3]
    assert tensor.triton_dtype() == 11
    assert tensor.is_cpu()
    assert repr(tensor) == "<Tensor t FP32[2, 3]>"


def test_transposed_and_big_endian_arrays_are_put_in_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    turned = Tensor("t", array.T).as_numpy()
    assert turned.flags.c_contiguous
    assert turned.tolist() == array.T.tolist()
    swapped = Tensor("t", array.astype(">i4"))
    assert swapped.as_numpy().dtype == np.int32
    assert swapped.as_numpy().tolist() == array.tolist()
    assert Tensor("t", np.array(1.5, ">f8")).shape() == []


@pytest.mark.parametrize(
    "array", [np.zeros(1, complex), np.zeros(1, "M8[s]"), np.zeros(1, "i4,i4")]
)
def test_dtype_without_a_datatype_is_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(TritonModelException, match="tensor 't' has numpy dtype"):
        Tensor("t", array)


@pytest.mark.parametrize("value", [[1.0], 3, None])
def test_anything_but_an_array_is_refused(value: Any) -> None:
    with pytest.raises(TritonModelException, match="needs a numpy array, and got"):
        Tensor("t", value)


def test_bytes_arrays_of_bytes_are_left_alone() -> None:
    array = np.array([b"a", b"b"], object)
    assert bytes_array(array) is array
    nested = np.array([["a"], [b"b"]], object)
    assert bytes_array(nested).tolist() == [[b"a"], [b"b"]]


def test_read_only_input_is_copied_once_when_asked_for() -> None:
    array = read_only(np.ones(3, np.float32))
    tensor = InputTensor("x", FP32, array)
    copy = tensor.as_numpy()
    assert copy.flags.writeable
    assert not np.shares_memory(copy, array)
    assert tensor.as_numpy() is copy


def test_input_that_may_be_written_to_is_not_copied() -> None:
    array = np.ones(3, np.float32)
    assert InputTensor("x", FP32, array).as_numpy() is array
    assert InputView("x", FP32, read_only(array)).as_numpy() is array


@pytest.mark.parametrize("kind", [InputTensor, InputView])
def test_bfloat16_has_no_array(kind: type[InputTensor]) -> None:
    with pytest.raises(TritonModelException, match="BF16, which numpy does not have"):
        kind("x", BF16, BITS).as_numpy()


def test_dlpack_shares_memory_both_ways() -> None:
    tensor = Tensor("t", np.arange(4, dtype=np.int64))
    assert np.shares_memory(np.from_dlpack(tensor), tensor.as_numpy())
    back = Tensor.from_dlpack("u", tensor.to_dlpack())
    assert np.shares_memory(back.as_numpy(), tensor.as_numpy())
    assert Tensor.from_dlpack("v", tensor).as_numpy().tolist() == [0, 1, 2, 3]
    assert Tensor.from_dlpack("w", np.ones(2)).as_numpy().tolist() == [1, 1]


def test_dlpack_of_a_read_only_input_is_of_its_copy() -> None:
    array = read_only(np.ones(3, np.float32))
    shared = np.from_dlpack(InputTensor("x", FP32, array))
    assert shared.tolist() == [1, 1, 1]
    assert not np.shares_memory(shared, array)


def test_dlpack_of_bfloat16_says_so() -> None:
    tensor = InputTensor("x", BF16, BITS.copy())
    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(tensor)
    back = Tensor.from_dlpack("y", tensor.to_dlpack())
    assert back._datatype is BF16
    assert back._array.tolist() == BITS.tolist()


def test_dlpack_refuses_what_it_cannot_carry() -> None:
    with pytest.raises(TritonModelException, match="is BYTES"):
        InputTensor("x", BYTES, np.array([b""], object)).to_dlpack()
    with pytest.raises(TritonModelException, match="not an unused DLPack capsule"):
        Tensor.from_dlpack("x", object())

    class OnGpu:
        def __dlpack__(self) -> None: ...

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

    with pytest.raises(TritonModelException, match="device type 2"):
        Tensor.from_dlpack("x", OnGpu())
