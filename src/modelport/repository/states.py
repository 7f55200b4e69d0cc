"""Files that hold what the states of a model's sequences begin with: ``initial_state/<data_file>``.

A file holds the elements of one tensor as they go over the wire: little-endian and row-major, and
for text each element after its length in 4 bytes.

Source: Triton, "Implicit State Management", section "State Initialization".
"""

import math
import struct
from pathlib import Path

import numpy as np

from modelport.dtypes import BYTES, DATATYPE_BY_CONFIG_NAME
from modelport.errors import LoadFailed
from modelport.specs import ModelConfig
from modelport.tensors import Array

__all__ = ["DIRECTORY", "read_initial_states"]

DIRECTORY = "initial_state"


def read_initial_states(directory: Path, config: ModelConfig) -> dict[str, Array]:
    """Read the initial states that lie in files.

    Args:
        directory: Of the model.
        config: Complete and checked, names of files included.

    Returns:
        By the name of the state's input, without the batch dimension.

    Raises:
        LoadFailed: If a file is missing, or has another size than its tensor.
    """
    sequences = config.sequence_batching
    states: dict[str, Array] = {}
    for state in sequences.state if sequences is not None else ():
        for initial in state.initial_state:
            if initial.data_file is not None:
                where = f'state "{state.input_name}", {DIRECTORY}/{initial.data_file}'
                states[state.input_name] = _tensor(
                    _content(directory / DIRECTORY / initial.data_file, where),
                    state.data_type,
                    initial.dims or state.dims,
                    where,
                )
    return states


def _content(file: Path, where: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise LoadFailed(f"{where} cannot be read: {exc.strerror}") from exc


def _tensor(content: bytes, data_type: str, dims: tuple[int, ...], where: str) -> Array:
    datatype = DATATYPE_BY_CONFIG_NAME[data_type]
    count = math.prod(dims)
    if datatype is BYTES:
        return _texts(content, count, where).reshape(dims)
    wanted = count * datatype.item_bytes
    if len(content) != wanted:
        raise LoadFailed(f"{where} has {len(content)} bytes; {list(dims)} takes {wanted}")
    return np.frombuffer(content, datatype.numpy).reshape(dims)


def _texts(content: bytes, count: int, where: str) -> Array:
    elements = []
    position = 0
    while position + 4 <= len(content):
        (length,) = struct.unpack_from("<I", content, position)
        elements.append(content[position + 4 : position + 4 + length])
        position += 4 + length
    if position != len(content) or len(elements) != count:
        raise LoadFailed(
            f"{where} does not hold {count} elements, each after its length in 4 bytes"
        )
    array = np.empty(count, object)
    array[:] = elements
    return array
