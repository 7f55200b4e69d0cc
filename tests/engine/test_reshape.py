import numpy as np
import pytest

from modelport.dtypes import FP32
from modelport.engine.reshape import Reshaping
from modelport.errors import ModelFailed
from modelport.messages import Response, Tensors
from modelport.specs import ModelConfig, ModelInput, ModelOutput, Reshape
from modelport.tensors import Array, Tensor


def reshaping(
    dims: tuple[int, ...], shape: tuple[int, ...], *, max_batch_size: int = 4
) -> Reshaping:
    """The same reshape for the input ``x`` and, the other way round, for the output ``y``."""
    made = Reshaping.of(
        ModelConfig(
            max_batch_size=max_batch_size,
            input=(ModelInput(name="x", dims=dims, reshape=Reshape(shape=shape)),),
            output=(ModelOutput(name="y", dims=dims, reshape=Reshape(shape=shape)),),
        )
    )
    assert made is not None
    return made


def into_model(changes: Reshaping, array: Array) -> Array:
    return changes.inputs(Tensors([Tensor("x", FP32, array)])).tensors[0].array


def out_of_model(changes: Reshaping, array: Array) -> Array:
    return changes.outputs(Response([Tensor("y", FP32, array)])).outputs[0].array


def test_most_models_have_nothing_to_change() -> None:
    assert Reshaping.of(ModelConfig(input=(ModelInput(name="x", dims=(1,)),))) is None


@pytest.mark.parametrize(
    ("dims", "shape", "outside", "inside"),
    [
        ((1,), (), (3, 1), (3,)),
        ((4,), (2, 2), (3, 4), (3, 2, 2)),
        ((-1, 4), (-1, 2, 2), (1, 3, 4), (1, 3, 2, 2)),
        # The n-th -1 on both sides is the same size.
        ((-1, 1, -1), (-1, -1), (2, 3, 1, 5), (2, 3, 5)),
        ((-1, 4), (-1, 2, 2), (2, 0, 4), (2, 0, 2, 2)),
        ((4,), (2, 2), (0, 4), (0, 2, 2)),
    ],
)
def test_shapes_are_the_models_inside_and_the_configurations_outside(
    dims: tuple[int, ...],
    shape: tuple[int, ...],
    outside: tuple[int, ...],
    inside: tuple[int, ...],
) -> None:
    changes = reshaping(dims, shape)
    array = np.arange(np.prod(outside), dtype=np.float32).reshape(outside)
    given = into_model(changes, array)
    assert given.shape == inside
    back = out_of_model(changes, given)
    assert back.shape == outside
    assert back.tolist() == array.tolist()
    assert np.shares_memory(given, array) or array.size == 0


def test_model_without_batching_has_no_batch_dimension_to_keep() -> None:
    changes = reshaping((1, 4), (4,), max_batch_size=0)
    assert into_model(changes, np.zeros((1, 4), np.float32)).shape == (4,)


def test_tensors_without_a_reshape_are_left_alone() -> None:
    changes = reshaping((1,), ())
    other = Tensor("z", FP32, np.zeros((3, 1), np.float32))
    assert changes.inputs(Tensors([other])).tensors[0] is other
    assert changes.outputs(Response([other], {"a": 1})).parameters == {"a": 1}


@pytest.mark.parametrize("shape", [(3, 2), (3, 3), (), (3, 2, 3)])
def test_output_of_another_shape_than_declared_is_the_models_failure(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(
        ModelFailed, match=r"'y' has shape .*, and its reshape expects \[-1, 2, 2\]"
    ):
        out_of_model(reshaping((4,), (2, 2)), np.zeros(shape, np.float32))
