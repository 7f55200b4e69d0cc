"""What the client raises: the status and the first sentence that callers match on."""

from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.compat.client.tensors import floats, tensor


@pytest.mark.parametrize(
    ("model", "given", "status", "text"),
    [
        ("nobody", {"x": floats(1)}, "404", "Request for unknown model: 'nobody' is not found"),
        (
            "add_sub",
            {"INPUT0": floats(1, 2, 3, 4)},
            "400",
            "expected 2 inputs but got 1 inputs for model 'add_sub'. Got input(s) ['INPUT0'], but "
            "missing required input(s) ['INPUT1']. Please provide all required input(s).",
        ),
        (
            "identity",
            {"WRONG": floats(1)},
            "400",
            "unexpected inference input 'WRONG' for model 'identity'",
        ),
        (
            "identity",
            {"INPUT0": np.array([1], np.int32)},
            "400",
            "inference input 'INPUT0' data-type is 'INT32', but model 'identity' expects 'FP32'",
        ),
        (
            "digits",
            {"pixels": np.zeros((1, 63), np.float32)},
            "400",
            "unexpected shape for input 'pixels' for model 'digits'. Expected [-1,64], got [1,63].",
        ),
        (
            "digits",
            {"pixels": np.zeros((4096, 64), np.float32)},
            "400",
            "inference request batch-size must be <= ",
        ),
        ("failing", {"x": floats(1)}, "500", "this model never works"),
    ],
)
def test_a_refusal_has_its_status_and_text(
    client: Any, model: str, given: dict[str, Any], status: str, text: str
) -> None:
    with pytest.raises(InferenceServerException) as raised:
        client.infer(model, [tensor(name, values) for name, values in given.items()])
    assert text in raised.value.message()
    assert str(raised.value.status() or status) == status


def test_a_model_that_raises_shows_its_text_but_no_path(client: Any) -> None:
    with pytest.raises(InferenceServerException) as raised:
        client.infer("failing", [tensor("x", floats(1))])
    assert "Traceback" not in raised.value.message()
    assert ".py" not in raised.value.message()


def test_an_output_that_the_model_lacks_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="unexpected inference output 'NONE'"):
        client.infer(
            "identity",
            [tensor("INPUT0", floats(1))],
            outputs=[triton.InferRequestedOutput("NONE")],
        )


def test_a_version_that_is_not_there_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="version 7 is not found"):
        client.infer("identity", [tensor("INPUT0", floats(1))], model_version="7")


def test_a_decoupled_model_answers_through_other_calls(client: Any) -> None:
    text = np.array(["one two"], np.object_)
    with pytest.raises(InferenceServerException, match="decoupled transaction policy"):
        client.infer("repeat", [tensor("text_input", text, "BYTES")])


def test_the_next_request_on_the_connection_is_served(address: str) -> None:
    client = triton.InferenceServerClient(address, concurrency=1)
    for _ in range(3):
        with pytest.raises(InferenceServerException):
            client.infer("identity", [tensor("WRONG", floats(1))])
        answer = client.infer("identity", [tensor("INPUT0", floats(2))])
        assert answer.as_numpy("OUTPUT0").tolist() == [2]
    client.close()


def test_a_client_that_waits_too_long_gives_up_and_harms_nobody(address: str, client: Any) -> None:
    hasty = triton.InferenceServerClient(address, network_timeout=0.2)
    with pytest.raises(Exception, match=r"(?i)time"):
        hasty.infer("sleeping", [tensor("seconds", floats(1))])
    hasty.close()
    assert client.infer("sleeping", [tensor("seconds", floats(0))]).as_numpy("slept") == [0]


def test_loading_is_refused_where_the_server_does_not_allow_it(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not"):
        client.load_model("identity")
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not"):
        client.unload_model("identity")
