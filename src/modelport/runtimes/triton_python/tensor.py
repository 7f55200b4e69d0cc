"""Named arrays as a Triton Python model sees them.

Triton copies every tensor into the memory of a model's process, so models take what they are given
for their own and write into it. Here inputs are views on the request's body: one that is read-only
is copied when the model asks for it, once, unless the model's configuration says ``INPUT_VIEWS``.
An output array is given away: a model that keeps writing into an array it has returned would write
into an answer that is on its way.
"""

import ctypes
from typing import Any, cast

import numpy as np

from modelport.dtypes import (
    BF16,
    BOOL,
    BYTES,
    DATATYPE_BY_NUMPY,
    FP16,
    FP32,
    FP64,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    DataType,
)
from modelport.runtimes.triton_python.errors import TritonModelException
from modelport.runtimes.triton_python.text import text_of
from modelport.tensors import Array

__all__ = [
    "NUMBER_BY_DATATYPE",
    "InputTensor",
    "InputView",
    "Tensor",
    "bytes_array",
]


class Tensor:
    """A named array.

    Args:
        name: As in the model's configuration.
        array: Any layout; one that is not contiguous is copied. Unicode and fixed-size bytes
            become objects, because that is what BYTES are.

    Raises:
        TritonModelException: If no datatype of the protocol is like the array's.
    """

    __slots__ = ("_array", "_datatype", "_name")

    def __init__(self, name: str | bytes, array: Array) -> None:
        if name.__class__ is not str:
            name = text_of(name, "the name of a tensor")
        try:
            self._datatype = DATATYPE_BY_NUMPY[array.dtype]
            if not array.flags.c_contiguous:
                array = array.copy(order="C")
        except (KeyError, AttributeError, TypeError):
            array = _adopted(name, array)
            self._datatype = DATATYPE_BY_NUMPY[array.dtype]
        self._name: str = name
        self._array = array

    def name(self) -> str:
        """The name."""
        return self._name

    def as_numpy(self) -> Array:
        """The array itself; for BYTES an object array of bytes.

        Raises:
            TritonModelException: For BF16, which numpy does not have.
        """
        if self._datatype is BF16:
            raise TritonModelException(_no_bf16(self._name))
        return self._array

    def triton_dtype(self) -> int:
        """The number of the datatype in Triton's ``DataType``; see ``triton_to_numpy_type``."""
        return NUMBER_BY_DATATYPE[self._datatype]

    def shape(self) -> list[int]:
        """The dimensions, with the batch first where the model batches."""
        return list(self._array.shape)

    def is_cpu(self) -> bool:
        """Whether the data lies in main memory; always so."""
        return True

    def to_dlpack(self) -> Any:
        """A DLPack capsule that shares the memory; also for BF16."""
        return self.__dlpack__()

    def __dlpack__(self, **options: Any) -> Any:
        """A DLPack capsule, without copying where the array may be written to."""
        if self._datatype is BYTES:
            raise TritonModelException(
                f"tensor '{self._name}' is BYTES, which DLPack does not have; use as_numpy()"
            )
        array = self._owned_array()
        if self._datatype is not BF16:
            return array.__dlpack__(**options)
        # numpy exports the bits as uint16; all that is wrong then is the type code. Without
        # max_version it makes the first kind of capsule, the layout of which is fixed for good.
        capsule = array.__dlpack__(stream=options.get("stream"))
        _type_of(capsule).code = _DLPACK_BFLOAT
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        """Main memory, in DLPack's terms."""
        return (_DLPACK_CPU, 0)

    @staticmethod
    def from_dlpack(name: str, source: Any) -> "Tensor":
        """Name the data of a DLPack capsule, or of an object with ``__dlpack__``; no copy."""
        if hasattr(source, "__dlpack__"):
            device = source.__dlpack_device__()[0]
            if device not in _DLPACK_HOST_DEVICES:
                raise TritonModelException(
                    f"tensor '{name}' lies on DLPack device type {int(device)}, and only main "
                    "memory is offered; move it to the CPU first"
                )
            source = source.__dlpack__()
        described = _type_of(source)
        is_bf16 = described.code == _DLPACK_BFLOAT and described.bits == 16
        if is_bf16:
            described.code = _DLPACK_UINT
        tensor = Tensor(name, np.from_dlpack(_Exported(source)))
        if is_bf16:
            tensor._datatype = BF16
        return tensor

    def _owned_array(self) -> Array:
        return self._array

    def __repr__(self) -> str:
        return f"<Tensor {self._name} {self._datatype}{list(self._array.shape)}>"


class InputTensor(Tensor):
    """A tensor that a caller sent."""

    __slots__ = ()

    def __init__(self, name: str, datatype: DataType, array: Array) -> None:
        self._name = name
        self._datatype = datatype
        self._array = array

    def as_numpy(self) -> Array:
        """The array, which the model may write to."""
        if self._datatype is BF16:
            raise TritonModelException(_no_bf16(self._name))
        array = self._array
        if not array.flags.writeable:
            self._array = array = array.copy()
        return array

    def _owned_array(self) -> Array:
        if not self._array.flags.writeable:
            self._array = self._array.copy()
        return self._array


class InputView(InputTensor):
    """The same for a model that promises not to write to its inputs: never copied by us."""

    __slots__ = ()

    as_numpy = Tensor.as_numpy


def bytes_array(array: Array) -> Array:
    """An object array in which every element is bytes; text is encoded as UTF-8."""
    if all(type(item) is bytes for item in array.flat):
        return array
    encoded = np.empty(array.size, dtype=object)
    for index, item in enumerate(array.flat):
        encoded[index] = bytes(item) if isinstance(item, bytes) else str(item).encode()
    return encoded.reshape(array.shape)


def _adopted(name: str, array: Any) -> Array:
    """What a model gave, as one of the protocol's datatypes."""
    if not isinstance(array, np.ndarray):
        raise TritonModelException(
            f"tensor '{name}' needs a numpy array, and got {type(array).__name__}"
        )
    if array.dtype.kind in "US":
        return array.astype(object)
    native = array.dtype.newbyteorder("=")
    if native not in DATATYPE_BY_NUMPY:
        raise TritonModelException(
            f"tensor '{name}' has numpy dtype {array.dtype}, which no datatype of the protocol "
            "is like; text goes as dtype object"
        )
    return np.ascontiguousarray(array, native).reshape(array.shape)


def _no_bf16(name: str) -> str:
    return (
        f"tensor '{name}' is BF16, which numpy does not have; use to_dlpack(), for example "
        "torch.from_dlpack(tensor)"
    )


class _Exported:
    """A capsule as the object that ``numpy.from_dlpack`` wants."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_DLPACK_CPU, 0)


class _DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _DLTensor(ctypes.Structure):
    """The head of a ``DLManagedTensor``.

    Source: dlpack.h, ``DLTensor``.
    """

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype", _DLDataType),
    )


def _type_of(capsule: Any) -> _DLDataType:
    """The type field of a capsule's tensor, in place."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    try:
        address = get_pointer(capsule, b"dltensor")
    except ValueError as exc:
        raise TritonModelException("not an unused DLPack capsule") from exc
    return cast(_DLDataType, _DLTensor.from_address(address).dtype)


_DLPACK_UINT = 1
_DLPACK_BFLOAT = 4
_DLPACK_CPU = 1
# Pinned and managed memory can be read by the CPU as well.
_DLPACK_HOST_DEVICES = frozenset({1, 3, 11, 13})

# Source: Triton model_config.proto, DataType.
NUMBER_BY_DATATYPE = {
    BOOL: 1,
    UINT8: 2,
    UINT16: 3,
    UINT32: 4,
    UINT64: 5,
    INT8: 6,
    INT16: 7,
    INT32: 8,
    INT64: 9,
    FP16: 10,
    FP32: 11,
    FP64: 12,
    BYTES: 13,
    BF16: 14,
}
