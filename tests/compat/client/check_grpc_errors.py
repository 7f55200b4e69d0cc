"""What the gRPC client raises: the status and the first sentence that callers match on."""

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.compat.client.grpc_tensors import floats, tensor, words


@pytest.mark.parametrize(
    ("model", "given", "status", "text"),
    [
        (
            "nobody",
            {"x": floats(1)},
            "NOT_FOUND",
            "Request for unknown model: 'nobody' is not found",
        ),
        (
            "add_sub",
            {"INPUT0": floats(1, 2, 3, 4)},
            "INVALID_ARGUMENT",
            "[request id: <id_unknown>] expected 2 inputs but got 1 inputs for model 'add_sub'.",
        ),
        (
            "identity",
            {"WRONG": floats(1)},
            "INVALID_ARGUMENT",
            "unexpected inference input 'WRONG' for model 'identity'",
        ),
        (
            "identity",
            {"INPUT0": np.array([1], np.int32)},
            "INVALID_ARGUMENT",
            "inference input 'INPUT0' data-type is 'INT32', but model 'identity' expects 'FP32'",
        ),
        (
            "digits",
            {"pixels": np.zeros((1, 63), np.float32)},
            "INVALID_ARGUMENT",
            "unexpected shape for input 'pixels' for model 'digits'. Expected [-1,64], got [1,63].",
        ),
        (
            "digits",
            {"pixels": np.zeros((4096, 64), np.float32)},
            "INVALID_ARGUMENT",
            "inference request batch-size must be <= ",
        ),
        ("failing", {"x": floats(1)}, "INTERNAL", "this model never works"),
    ],
)
def test_a_refusal_has_its_status_and_text(
    grpc_client: Any, model: str, given: dict[str, Any], status: str, text: str
) -> None:
    with pytest.raises(InferenceServerException) as raised:
        grpc_client.infer(model, [tensor(name, values) for name, values in given.items()])
    assert text in raised.value.message()
    assert raised.value.status() == f"StatusCode.{status}"


def test_a_model_that_raises_shows_its_text_but_no_path(grpc_client: Any) -> None:
    with pytest.raises(InferenceServerException) as raised:
        grpc_client.infer("failing", [tensor("x", floats(1))])
    assert "Traceback" not in raised.value.message()
    assert ".py" not in raised.value.message()


def test_an_output_that_the_model_lacks_is_refused(grpc_client: Any) -> None:
    with pytest.raises(InferenceServerException, match="unexpected inference output 'NONE'"):
        grpc_client.infer(
            "identity",
            [tensor("INPUT0", floats(1))],
            outputs=[triton.InferRequestedOutput("NONE")],
        )


@pytest.mark.parametrize(
    ("version", "status", "text"),
    [
        ("7", "NOT_FOUND", "Request for unknown model: 'identity' version 7 is not found"),
        (
            "x",
            "INVALID_ARGUMENT",
            "failed to get model version from specified version string 'x' (details: stol), "
            "version should be an integral value > 0",
        ),
    ],
)
def test_a_version_that_is_not_there_is_refused(
    grpc_client: Any, version: str, status: str, text: str
) -> None:
    with pytest.raises(InferenceServerException) as raised:
        grpc_client.infer("identity", [tensor("INPUT0", floats(1))], model_version=version)
    assert text in raised.value.message()
    assert raised.value.status() == f"StatusCode.{status}"


def test_a_decoupled_model_is_answered_by_streams_only(grpc_client: Any) -> None:
    with pytest.raises(InferenceServerException) as raised:
        grpc_client.infer("repeat", words("one two"))
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"
    assert raised.value.message().startswith(
        "ModelInfer RPC doesn't support models with decoupled transaction policy"
    )


def test_the_next_request_on_the_connection_is_served(grpc_client: Any) -> None:
    for _ in range(3):
        with pytest.raises(InferenceServerException):
            grpc_client.infer("identity", [tensor("WRONG", floats(1))])
        answer = grpc_client.infer("identity", [tensor("INPUT0", floats(2))])
        assert answer.as_numpy("OUTPUT0").tolist() == [2]
