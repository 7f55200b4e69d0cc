"""Inputs in one line."""

from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype


def tensor(name: str, values: Any, datatype: str = "", *, binary: bool = True) -> Any:
    """Make an input of an array; the datatype follows from it where none is given."""
    array = np.asarray(values)
    made = triton.InferInput(name, list(array.shape), datatype or np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def floats(*values: float) -> Any:
    return np.array(values, np.float32)
