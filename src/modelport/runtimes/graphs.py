"""From the inputs and outputs that a graph has to a model configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from modelport.dtypes import DataType
from modelport.errors import LoadFailed
from modelport.specs import DynamicBatching, ModelConfig, ModelInput, ModelOutput, Reshape

__all__ = ["GraphTensor", "check_names", "complete_from"]

Shape = tuple[int, ...]
T = TypeVar("T", ModelInput, ModelOutput)


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output as the graph has it: the batch included, -1 for any size."""

    name: str
    datatype: DataType
    shape: Shape


def complete_from(
    config: ModelConfig,
    inputs: Sequence[GraphTensor],
    outputs: Sequence[GraphTensor],
    default_max_batch_size: int,
) -> ModelConfig:
    """Turn a graph's inputs and outputs into a configuration.

    Raises:
        LoadFailed: If the configuration wants batches and the graph cannot take any.
    """
    fixed = [tensor for tensor in (*inputs, *outputs) if tensor.shape[:1] != (-1,)]
    max_batch_size = config.max_batch_size
    if max_batch_size > 0 and fixed:
        raise LoadFailed(
            f"max_batch_size is {max_batch_size}, but the first dimension of '{fixed[0].name}' is "
            f"not dynamic: the graph has {list(fixed[0].shape)}; set max_batch_size to 0, or "
            "export the model with a dynamic batch"
        )
    if max_batch_size == 0 and not fixed and not _counts_batch(config, inputs, outputs):
        max_batch_size = default_max_batch_size
    skip = 1 if max_batch_size > 0 else 0
    has_scheduler = config.dynamic_batching is not None or config.sequence_batching is not None
    return ModelConfig(
        max_batch_size=max_batch_size,
        input=tuple(_described(ModelInput, tensor, skip) for tensor in inputs),
        output=tuple(_described(ModelOutput, tensor, skip) for tensor in outputs),
        dynamic_batching=(
            DynamicBatching()
            if max_batch_size > 1 and config.max_batch_size == 0 and not has_scheduler
            else None
        ),
    )


def _described(kind: type[T], tensor: GraphTensor, skip: int) -> T:
    dims = tensor.shape[skip:]
    name, data_type = tensor.name, tensor.datatype.config_name
    if not dims:
        # A configuration has no scalars: they are a dimension of 1 that the model does not see.
        return kind(name=name, data_type=data_type, dims=(1,), reshape=Reshape())
    return kind(name=name, data_type=data_type, dims=dims)


def check_names(config: ModelConfig, known: set[str]) -> None:
    """Refuse a configuration with names that the graph does not have.

    Raises:
        LoadFailed: Naming the first of them, and what the graph has.
    """
    for entry in _entries(config):
        if entry.name not in known:
            raise LoadFailed(
                f"the configuration has '{entry.name}', and the graph only {sorted(known)}"
            )


def _counts_batch(
    config: ModelConfig, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]
) -> bool:
    """Whether the configuration gives some tensor as many dimensions as the graph has."""
    rank_by_name = {tensor.name: len(tensor.shape) for tensor in (*inputs, *outputs)}
    return any(len(entry.dims) == rank_by_name.get(entry.name) for entry in _entries(config))


def _entries(config: ModelConfig) -> list[ModelInput | ModelOutput]:
    return [*config.input, *config.output]
