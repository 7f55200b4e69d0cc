"""The fourteen datatypes of the Open Inference Protocol, and what numpy calls them.

``BF16`` has no numpy type: its arrays are ``uint16`` and hold the bits, which is why a tensor
carries its datatype beside its array. ``BYTES`` arrays have dtype ``object`` and hold ``bytes``.

Source: Open Inference Protocol, "Tensor Data Types"; Triton's ``model_config.proto``, ``DataType``.
"""

from typing import Any

import numpy as np
from msgspec import Struct

__all__ = [
    "BF16",
    "BOOL",
    "BYTES",
    "DATATYPE_BY_CONFIG_NAME",
    "DATATYPE_BY_NAME",
    "DATATYPE_BY_NUMPY",
    "FP16",
    "FP32",
    "FP64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "DataType",
    "bf16_from_float32",
    "float32_from_bf16",
]


class DataType(Struct, frozen=True, eq=False):
    """One datatype; there is exactly one object of each, compared by identity.

    Attributes:
        name: On the wire, ``FP32``.
        config_name: In a model configuration, ``TYPE_FP32`` (``TYPE_STRING`` for BYTES).
        numpy: Little-endian dtype of its arrays.
        item_bytes: Bytes of one element; 0 for BYTES, whose elements differ.
    """

    name: str
    config_name: str
    numpy: np.dtype[Any]
    item_bytes: int

    def __str__(self) -> str:
        return self.name


def _datatype(name: str, numpy_name: str) -> DataType:
    dtype = np.dtype(numpy_name)
    size = 0 if name == "BYTES" else dtype.itemsize
    return DataType(name, "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}", dtype, size)


BOOL = _datatype("BOOL", "?")
UINT8 = _datatype("UINT8", "u1")
UINT16 = _datatype("UINT16", "<u2")
UINT32 = _datatype("UINT32", "<u4")
UINT64 = _datatype("UINT64", "<u8")
INT8 = _datatype("INT8", "i1")
INT16 = _datatype("INT16", "<i2")
INT32 = _datatype("INT32", "<i4")
INT64 = _datatype("INT64", "<i8")
FP16 = _datatype("FP16", "<f2")
FP32 = _datatype("FP32", "<f4")
FP64 = _datatype("FP64", "<f8")
BYTES = _datatype("BYTES", "O")
BF16 = _datatype("BF16", "<u2")

_ALL = (
    BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BYTES, BF16,
)  # fmt: skip

DATATYPE_BY_NAME = {datatype.name: datatype for datatype in _ALL}
DATATYPE_BY_CONFIG_NAME = {datatype.config_name: datatype for datatype in _ALL}
DATATYPE_BY_NUMPY = {datatype.numpy: datatype for datatype in _ALL if datatype is not BF16}


def bf16_from_float32(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Round float32 to bfloat16 bits (uint16), to nearest, ties to even; NaN stays NaN."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    # Rounding up the payload of a NaN can carry into the sign: set the quiet bit instead.
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def float32_from_bf16(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Widen bfloat16 bits (uint16) to float32, exactly."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
