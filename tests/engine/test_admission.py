"""Every text about a request that does not fit, and which of several comes first."""

import numpy as np
import pytest

from modelport.dtypes import BYTES, FP32, INT32, DataType
from modelport.engine.admission import Admission
from modelport.errors import InvalidInference, InvalidRequest
from modelport.messages import Request, Tensors
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Tensor


def config(max_batch_size: int = 8, *, optional: bool = False) -> ModelConfig:
    return ModelConfig(
        name="m",
        max_batch_size=max_batch_size,
        input=(
            ModelInput(name="A", data_type="TYPE_FP32", dims=(2,)),
            ModelInput(name="B", data_type="TYPE_INT32", dims=(-1,), optional=optional),
        ),
        output=(ModelOutput(name="Y", data_type="TYPE_FP32", dims=(2,)),),
    )


def tensor(
    name: str, *shape: int, datatype: DataType = FP32, fault: InvalidInference | None = None
) -> Tensor:
    return Tensor(name, datatype, np.zeros(shape, datatype.numpy), shape, fault)


def a(*shape: int) -> Tensor:
    return tensor("A", *(shape or (1, 2)))


def b(*shape: int) -> Tensor:
    return tensor("B", *(shape or (1, 3)), datatype=INT32)


def rows(given: ModelConfig, *tensors: Tensor, outputs: tuple[str, ...] = ()) -> int:
    admission = Admission(given)
    request = Request(Tensors(list(tensors)), outputs=outputs)
    first = admission.rows(request)
    # What fitted last is remembered; it fits the same way again.
    assert admission.rows(request) == first
    return first


def refusal(given: ModelConfig, *tensors: Tensor, outputs: tuple[str, ...] = ()) -> str:
    with pytest.raises(InvalidRequest) as caught:
        rows(given, *tensors, outputs=outputs)
    return str(caught.value)


def test_rows_are_the_first_dimension() -> None:
    assert rows(config(), a(5, 2), b(5, 0)) == 5
    assert rows(config(), b(8, 9), a(8, 2)) == 8
    assert rows(config(), a(0, 2), b(0, 3)) == 0


def test_model_without_batching_counts_one() -> None:
    assert rows(config(0), a(2), b(7)) == 1


def test_requested_outputs_and_optional_inputs_fit() -> None:
    assert rows(config(), a(), b(), outputs=("Y",)) == 1
    assert rows(config(optional=True), a(3, 2)) == 3


def test_request_without_any_of_its_optional_inputs_is_one_row() -> None:
    only_optional = ModelConfig(
        name="m",
        max_batch_size=8,
        input=(ModelInput(name="B", data_type="TYPE_INT32", dims=(1,), optional=True),),
    )
    assert rows(only_optional) == 1


COUNT = (
    "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['A'], but missing required "
    "input(s) ['B']. Please provide all required input(s)."
)
NOTE = (
    " NOTE: the model has max_batch_size 8, so the first dimension is the batch and comes before "
    "the dims of its configuration; a model whose dims hold the batch already wants max_batch_size "
    "0."
)


@pytest.mark.parametrize(
    ("given", "tensors", "expected"),
    [
        (config(), [a()], COUNT),
        (
            config(),
            [],
            COUNT.replace("got 1", "got 0")
            .replace("['A'], but", "[], but")
            .replace("['B']", "['A','B']"),
        ),
        (
            config(),
            [a(), b(), tensor("C", 1, 1)],
            "expected 2 inputs but got 3 inputs for model 'm'. Got input(s) ['A','B','C']; it has "
            "['A','B'].",
        ),
        (
            config(optional=True),
            [b()],
            "expected number of inputs between 1 and 2 but got 1 inputs for model 'm'. Got "
            "input(s) ['B'], but missing required input(s) ['A']. Please provide all required "
            "input(s).",
        ),
        (
            config(),
            [a(), tensor("X", 1, 3)],
            "unexpected inference input 'X' for model 'm'; it has ['A','B']",
        ),
        (
            config(),
            [a(), tensor("B", datatype=INT32)],
            "input 'B' has no shape but model requires batch dimension for 'm'; send [1] or more "
            "as the first dimension",
        ),
        (
            config(),
            [a(3, 2), b(2, 1)],
            "input 'B' batch size does not match other inputs for 'm': 2 here, 3 there; the first "
            "dimension of every input is the batch",
        ),
        (
            config(),
            [a(9, 2), b(9, 1)],
            "inference request batch-size must be <= 8 for 'm', got 9; send the rows in several "
            "requests",
        ),
        (
            config(),
            [tensor("A", 1, 2, datatype=INT32), b()],
            "inference input 'A' data-type is 'INT32', but model 'm' expects 'FP32'",
        ),
        (
            config(),
            [a(1, 3), b()],
            f"unexpected shape for input 'A' for model 'm'. Expected [-1,2], got [1,3].{NOTE}",
        ),
        (
            config(),
            [a(1, 2), b(1)],
            f"unexpected shape for input 'B' for model 'm'. Expected [-1,-1], got [1].{NOTE}",
        ),
        (
            config(0),
            [a(3), b(1)],
            "unexpected shape for input 'A' for model 'm'. Expected [2], got [3].",
        ),
    ],
)
def test_what_does_not_fit_is_told(
    given: ModelConfig, tensors: list[Tensor], expected: str
) -> None:
    assert refusal(given, *tensors) == expected
    with pytest.raises(InvalidInference):
        rows(given, *tensors)


def test_unknown_output_is_not_an_inference_error() -> None:
    """It gets no request id in front."""
    text = "unexpected inference output 'Z' for model 'm'; it has ['Y']"
    assert refusal(config(), a(), b(), outputs=("Y", "Z")) == text
    with pytest.raises(InvalidRequest) as caught:
        rows(config(), a(), b(), outputs=("Z",))
    assert type(caught.value) is InvalidRequest


SHORT = InvalidInference("input byte size mismatch for input 'B' for model 'm'. Expected 4, got 3")


def test_faults_of_decoding_come_last() -> None:
    broken = tensor("B", 1, 1, datatype=INT32, fault=SHORT)
    with pytest.raises(InvalidInference) as caught:
        rows(config(), a(), broken)
    assert caught.value is SHORT
    assert refusal(config(), a(1, 9), broken).startswith("unexpected shape for input 'A'")


def test_checks_come_in_the_order_that_clients_know() -> None:
    """One request with everything wrong, mended step by step."""
    broken = tensor("B", 9, 1, datatype=BYTES, fault=SHORT)
    steps = [
        ((tensor("X"), a(8, 3), broken), ("Z",), "unexpected inference output 'Z'"),
        ((tensor("X"), a(8, 3), broken), (), "expected 2 inputs but got 3"),
        ((tensor("X"), a(8, 3)), (), "unexpected inference input 'X'"),
        ((tensor("A"), broken), (), "input 'A' has no shape"),
        ((a(8, 3), broken), (), "input 'B' batch size does not match"),
        ((a(9, 3), broken), (), "inference request batch-size must be <= 8"),
        ((a(1, 3), tensor("B", 1, datatype=BYTES, fault=SHORT)), (), "inference input 'B' data-"),
        ((a(1, 3), tensor("B", 1, datatype=INT32, fault=SHORT)), (), "unexpected shape for in"),
        ((a(1, 2), tensor("B", 1, 1, datatype=INT32, fault=SHORT)), (), "input byte size mism"),
    ]
    for tensors, outputs, beginning in steps:
        assert refusal(config(), *tensors, outputs=outputs).startswith(beginning)
    assert rows(config(), a(1, 2), b(1, 1)) == 1


def test_what_fitted_last_lets_nothing_else_pass() -> None:
    """The short way for requests like the one before looks at everything that matters."""
    single = ModelConfig(
        name="m",
        max_batch_size=8,
        input=(ModelInput(name="A", data_type="TYPE_FP32", dims=(2,)),),
        output=(ModelOutput(name="Y"),),
    )
    admission = Admission(single)

    def ask(given: Tensor, *outputs: str) -> int:
        return admission.rows(Request(Tensors([given]), outputs=outputs))

    assert ask(a(3, 2)) == 3
    assert ask(a(3, 2)) == 3
    assert ask(a(4, 2)) == 4
    for wrong in (
        tensor("X", 4, 2),
        tensor("A", 4, 2, datatype=INT32),
        tensor("A", 4, 2, fault=SHORT),
        tensor("A", 9, 2),
        tensor("A", 4, 3),
    ):
        with pytest.raises(InvalidInference):
            ask(wrong)
    with pytest.raises(InvalidRequest, match="output 'Z'"):
        ask(a(4, 2), "Z")
    assert ask(a(4, 2), "Y") == 4


def key(given: ModelConfig, *tensors: Tensor) -> object:
    return Admission(given).batch_key(Request(Tensors(list(tensors))))


def test_fixed_shapes_always_share_a_batch() -> None:
    fixed = ModelConfig(
        max_batch_size=8, input=(ModelInput(name="A", data_type="TYPE_FP32", dims=(2,)),)
    )
    assert key(fixed, a(1, 2)) is key(fixed, a(5, 2)) is None


def test_variable_shapes_share_a_batch_when_they_are_the_same() -> None:
    assert key(config(), a(1, 2), b(1, 3)) == key(config(), b(4, 3), a(4, 2))
    assert key(config(), a(1, 2), b(1, 3)) != key(config(), a(1, 2), b(1, 4))
    single = ModelConfig(
        max_batch_size=8, input=(ModelInput(name="B", data_type="TYPE_INT32", dims=(-1,)),)
    )
    admission = Admission(single)
    keys = [admission.batch_key(Request(Tensors([b(1, size)]))) for size in (3, 3, 4, 3)]
    assert keys[0] == keys[1] == keys[3] != keys[2]


def test_requests_with_different_optional_inputs_share_no_batch() -> None:
    given = config(optional=True)
    assert key(given, a(1, 2)) != key(given, a(1, 2), b(1, 3))
