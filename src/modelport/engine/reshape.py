"""Tensors whose shape on the wire is another one than the model's own.

``dims`` of a configuration are what callers see, ``reshape`` is what the model wants to be given,
or gives. Done here for all runtimes, once when a request comes in and once for each response; only
views are made.

Source: Triton, "Model Configuration", section "Reshape".
"""

from collections.abc import Sequence

from msgspec import Struct

from modelport.errors import ModelFailed
from modelport.messages import Response, Tensors
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Array, Tensor

__all__ = ["Reshaping"]


class _Change(Struct, frozen=True):
    """From one shape to the other, both without the batch; the n-th -1 of both is the same size."""

    given: tuple[int, ...]
    wanted: tuple[int, ...]
    batch_rank: int

    def apply(self, name: str, array: Array) -> Array:
        batch, sizes = array.shape[: self.batch_rank], array.shape[self.batch_rank :]
        fits = len(batch) == self.batch_rank and len(sizes) == len(self.given)
        if not fits or any(
            dim not in (-1, size) for dim, size in zip(self.given, sizes, strict=True)
        ):
            expected = (-1,) * self.batch_rank + self.given
            raise ModelFailed(
                f"'{name}' has shape {list(array.shape)}, and its reshape expects {list(expected)}"
            )
        variable = iter([size for size, dim in zip(sizes, self.given, strict=True) if dim == -1])
        target = [next(variable) if dim == -1 else dim for dim in self.wanted]
        return array.reshape((*batch, *target))


class Reshaping:
    """The changes of one model.

    Args:
        config: Complete and checked: both shapes of a tensor have the same number of elements.
    """

    def __init__(self, config: ModelConfig) -> None:
        rank = 1 if config.max_batch_size > 0 else 0
        self._inputs = {
            entry.name: _Change(entry.dims, entry.reshape.shape, rank)
            for entry in config.input
            if entry.reshape is not None
        }
        self._outputs = {
            entry.name: _Change(entry.reshape.shape, entry.dims, rank)
            for entry in config.output
            if entry.reshape is not None
        }

    @classmethod
    def of(cls, config: ModelConfig) -> "Reshaping | None":
        """Prepare the changes of a model; ``None`` for most, which have none."""
        entries: Sequence[ModelInput | ModelOutput] = (*config.input, *config.output)
        return cls(config) if any(entry.reshape is not None for entry in entries) else None

    def inputs(self, payload: Tensors) -> Tensors:
        """Bring a request's tensors, which fit the model's ``dims``, into the model's shapes."""
        return Tensors([_changed(tensor, self._inputs) for tensor in payload.tensors])

    def outputs(self, response: Response) -> Response:
        """Bring a response into the shapes that its caller expects.

        Raises:
            ModelFailed: If the model gave another shape than it has declared.
        """
        changed = [_changed(tensor, self._outputs) for tensor in response.outputs]
        return Response(changed, response.parameters)


def _changed(tensor: Tensor, changes: dict[str, _Change]) -> Tensor:
    change = changes.get(tensor.name)
    if change is None:
        return tensor
    return Tensor(tensor.name, tensor.datatype, change.apply(tensor.name, tensor.array))
