"""Requests that a model executes before it is ready: ``model_warmup``, made or read from files.

Frameworks do much at their first request, and more at the first of a size; whoever comes first
should not have to wait for it.

Source: Triton, ``ModelWarmup`` in ``model_config.proto``.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from msgspec import Struct

from modelport.dtypes import BYTES, DATATYPE_BY_CONFIG_NAME, DataType, bf16_from_float32
from modelport.errors import LoadFailed
from modelport.repository.layout import check_filename
from modelport.repository.tensor_files import read_tensor
from modelport.specs import ControlInput, ModelConfig, ModelWarmup, WarmupInput
from modelport.tensors import Array, Tensor

__all__ = ["DIRECTORY", "Sample", "read_samples"]

DIRECTORY = "warmup"


class Sample(Struct, frozen=True):
    """A request to run, or several equal ones at once.

    Attributes:
        name: As configured.
        tensors: Of one request, read-only; with a first dimension of 1 where the model batches.
        batch_size: Requests in the batch.
        count: How often it is run.
    """

    name: str
    tensors: tuple[Tensor, ...]
    batch_size: int
    count: int


def read_samples(directory: Path, config: ModelConfig) -> tuple[Sample, ...]:
    """Make the warm-up requests of a model.

    Args:
        directory: Of the model.
        config: Complete and checked.

    Raises:
        LoadFailed: If one does not fit the model, or its file cannot be read.
    """
    return tuple(
        _sample(directory, config, index, warmup)
        for index, warmup in enumerate(config.model_warmup)
        # So Triton switches one off.
        if warmup.batch_size > 0
    )


def _sample(directory: Path, config: ModelConfig, index: int, warmup: ModelWarmup) -> Sample:
    where = f'model_warmup "{warmup.name}"' if warmup.name else f"model_warmup[{index}]"
    most = max(1, config.max_batch_size)
    if warmup.batch_size > most:
        raise LoadFailed(
            f"{where}: batch_size is {warmup.batch_size}, and the model takes at most {most}"
        )
    expected = dict(_expected(config))
    for name in warmup.inputs:
        if name not in expected:
            raise LoadFailed(
                f'{where}: the model has no input "{name}"; it has: {", ".join(expected)}'
            )
    missing = {entry.name for entry in config.input if not entry.optional} - warmup.inputs.keys()
    if missing:
        raise LoadFailed(f"{where}: inputs are missing: {', '.join(sorted(missing))}")
    inputs = {**dict(_sequence_inputs(config)), **warmup.inputs}
    tensors = tuple(
        _tensor(directory, config, f'{where}, input "{name}"', name, entry, expected[name])
        for name, entry in inputs.items()
    )
    return Sample(warmup.name or str(index), tensors, warmup.batch_size, warmup.count or 1)


def _expected(config: ModelConfig) -> Iterator[tuple[str, tuple[str, tuple[int, ...]] | None]]:
    """Give what each input has to be like; ``None`` for those that the server fills otherwise."""
    for entry in config.input:
        yield entry.name, (entry.data_type, entry.dims)
    sequences = config.sequence_batching
    if sequences is not None:
        for control in sequences.control_input:
            yield control.name, None
        for state in sequences.state:
            yield state.input_name, (state.data_type, state.dims)


def _sequence_inputs(config: ModelConfig) -> Iterator[tuple[str, WarmupInput]]:
    """Give what stands in for controls and states: no sequence is meant."""
    sequences = config.sequence_batching
    if sequences is None:
        return
    for control in sequences.control_input:
        yield control.name, WarmupInput(data_type=_type_of(control), dims=(1,), zero_data=True)
    for state in sequences.state:
        dims = tuple(1 if size == -1 else size for size in state.dims)
        yield state.input_name, WarmupInput(data_type=state.data_type, dims=dims, zero_data=True)


def _type_of(control: ControlInput) -> str:
    for each in control.control:
        for values, data_type in (
            (each.int32_false_true, "TYPE_INT32"),
            (each.fp32_false_true, "TYPE_FP32"),
            (each.bool_false_true, "TYPE_BOOL"),
        ):
            if values:
                return data_type
        return each.data_type
    return "TYPE_INT32"


def _tensor(
    directory: Path,
    config: ModelConfig,
    where: str,
    name: str,
    entry: WarmupInput,
    expected: tuple[str, tuple[int, ...]] | None,
) -> Tensor:
    if any(size < 1 for size in entry.dims) or not entry.dims:
        raise LoadFailed(f"{where}: dims are {list(entry.dims)}; every size has to be at least 1")
    if expected is not None:
        _check(where, entry, *expected)
    datatype = DATATYPE_BY_CONFIG_NAME[entry.data_type]
    if entry.input_data_file is not None:
        check_filename(f"{where}: input_data_file", entry.input_data_file)
        file = directory / DIRECTORY / entry.input_data_file
        title = f"{where}, {DIRECTORY}/{entry.input_data_file}"
        array = read_tensor(file, entry.data_type, entry.dims, title)
    elif entry.random_data is not None:
        array = _random(datatype, entry.dims)
    elif entry.zero_data is not None:
        array = _zeros(datatype, entry.dims)
    else:
        raise LoadFailed(f"{where}: say zero_data, random_data or input_data_file")
    if config.max_batch_size > 0:
        array = array[np.newaxis]
    seen = array.view()
    seen.flags.writeable = False
    return Tensor(name, datatype, seen)


def _check(where: str, entry: WarmupInput, data_type: str, dims: tuple[int, ...]) -> None:
    if entry.data_type != data_type:
        raise LoadFailed(f"{where}: data_type is {entry.data_type}, the model takes {data_type}")
    fits = len(dims) == len(entry.dims) and all(
        wanted in (-1, size) for wanted, size in zip(dims, entry.dims, strict=True)
    )
    if not fits:
        raise LoadFailed(
            f"{where}: dims are {list(entry.dims)}, the model takes {list(dims)} "
            "(without the batch dimension)"
        )


def _zeros(datatype: DataType, dims: tuple[int, ...]) -> Array:
    return np.full(dims, b"", object) if datatype is BYTES else np.zeros(dims, datatype.numpy)


def _random(datatype: DataType, dims: tuple[int, ...]) -> Array:
    """Make data that models can compute with, the same each time.

    Floats are from 0 to 1; integers are small, because many models take them for places in a table.
    """
    # Not for secrets.
    generator = np.random.default_rng(0)
    if datatype is BYTES:
        words = np.empty(math.prod(dims), object)
        words[:] = [generator.bytes(4).hex().encode() for _ in words]
        return words.reshape(dims)
    if datatype.numpy.kind == "f":
        return generator.random(dims).astype(datatype.numpy)
    if datatype.name == "BF16":
        return bf16_from_float32(generator.random(dims, np.float32))
    most = 2 if datatype.numpy.kind == "b" else 100
    return generator.integers(0, most, dims).astype(datatype.numpy)
