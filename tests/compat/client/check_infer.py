"""Requests and answers in every form that the client can give them."""

import inspect
import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from tests.compat.client.tensors import floats, tensor

THREE = floats(
    *(0, 0, 6, 14, 16, 16, 2, 0),
    *(0, 5, 16, 13, 11, 16, 0, 0),
    *(0, 0, 7, 2, 15, 12, 0, 0),
    *(0, 0, 0, 7, 16, 13, 1, 0),
    *(0, 0, 0, 0, 6, 15, 10, 0),
    *(0, 0, 0, 0, 0, 15, 9, 0),
    *(0, 0, 3, 11, 8, 16, 6, 0),
    *(0, 0, 7, 16, 16, 8, 0, 0),
).reshape(1, 64)

TAKES_PARAMETERS = "parameters" in inspect.signature(triton.InferenceServerClient.infer).parameters


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tensors_go_and_come_in_both_forms(client: Any, binary_in: bool, binary_out: bool) -> None:
    answer = client.infer(
        "add_sub",
        [
            tensor("INPUT0", floats(1, 2, 3, 4), binary=binary_in),
            tensor("INPUT1", floats(4, 3, 2, 1), binary=binary_in),
        ],
        outputs=[
            triton.InferRequestedOutput("OUTPUT0", binary_data=binary_out),
            triton.InferRequestedOutput("OUTPUT1", binary_data=binary_out),
        ],
    )
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), floats(5, 5, 5, 5))
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), floats(-3, -1, 1, 3))


def test_one_input_may_be_binary_and_the_other_not(client: Any) -> None:
    answer = client.infer(
        "add_sub",
        [
            tensor("INPUT0", floats(1, 2, 3, 4)),
            tensor("INPUT1", floats(4, 3, 2, 1), binary=False),
        ],
        outputs=[triton.InferRequestedOutput("OUTPUT1", binary_data=False)],
    )
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["OUTPUT1"]
    assert answer.get_output("OUTPUT1")["data"] == [-3, -1, 1, 3]
    assert answer.as_numpy("OUTPUT0") is None


def test_without_requested_outputs_all_come_in_the_models_order(client: Any) -> None:
    answer = client.infer("digits", [tensor("pixels", THREE)])
    names = [output["name"] for output in answer.get_response()["outputs"]]
    assert names == ["label", "probabilities"]
    assert answer.as_numpy("label").tolist() == [[3]]
    assert answer.as_numpy("probabilities").shape == (1, 10)


def test_a_batch_comes_back_in_order(client: Any) -> None:
    batch = np.concatenate([THREE, np.zeros((1, 64), np.float32), THREE])
    labels = client.infer("digits", [tensor("pixels", batch)]).as_numpy("label")
    assert labels.shape == (3, 1)
    assert labels[0] == labels[2] == 3


@pytest.mark.parametrize("binary", [True, False])
def test_classes_come_best_first_with_their_labels(client: Any, binary: bool) -> None:
    output = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
    classes = client.infer("digits", [tensor("pixels", THREE)], outputs=[output]).as_numpy(
        "probabilities"
    )
    assert classes.shape == (1, 3)
    best = [as_text(entry).split(":") for entry in classes[0]]
    assert best[0][1:] == ["3", "3"]
    assert [float(entry[0]) for entry in best] == sorted(
        (float(entry[0]) for entry in best), reverse=True
    )


def test_text_goes_and_comes(client: Any) -> None:
    text = np.array([["I absolutely love this product!"]], np.object_)
    for binary in (True, False):
        answer = client.infer("sentiment", [tensor("text", text, "BYTES", binary=binary)])
        assert as_text(answer.as_numpy("label")[0, 0]) in ("4 stars", "5 stars")
        assert 0 < answer.as_numpy("score")[0, 0] <= 1


def test_the_request_id_comes_back(client: Any) -> None:
    answer = client.infer("identity", [tensor("INPUT0", floats(1))], request_id="mine-1")
    assert answer.get_response()["id"] == "mine-1"
    unnamed = client.infer("identity", [tensor("INPUT0", floats(1))])
    assert not unnamed.get_response().get("id")


def test_a_version_may_be_asked_for(client: Any) -> None:
    answer = client.infer("identity", [tensor("INPUT0", floats(1))], model_version="1")
    assert answer.get_response()["model_version"] == "1"


@pytest.mark.parametrize("there", [None, "gzip", "deflate"])
@pytest.mark.parametrize("back", [None, "gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(
    client: Any, there: str | None, back: str | None
) -> None:
    values = np.arange(4096, dtype=np.float32)
    answer = client.infer(
        "identity",
        [tensor("INPUT0", values)],
        request_compression_algorithm=there,
        response_compression_algorithm=back,
    )
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), values)


def test_bodies_of_some_megabytes_pass(client: Any) -> None:
    values = np.random.default_rng(1).random(4_000_000, np.float32)
    answer = client.infer("identity", [tensor("INPUT0", values)])
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), values)


def test_tensors_may_be_empty(client: Any) -> None:
    for binary in (True, False):
        answer = client.infer("identity", [tensor("INPUT0", floats(), binary=binary)])
        assert answer.as_numpy("OUTPUT0").shape == (0,)


@pytest.mark.skipif(not TAKES_PARAMETERS, reason="this client has no request parameters")
def test_the_model_sees_the_parameters_but_not_the_reserved_ones(client: Any) -> None:
    answer = client.infer(
        "parameters_of",
        [tensor("x", floats(1))],
        parameters={"depth": 3, "mode": "fast", "exact": True},
        priority=1,
        timeout=1_000_000,
    )
    told = json.loads(answer.as_numpy("told")[0])
    assert told == {"depth": 3, "mode": "fast", "exact": True}


def test_images_go_through_an_ensemble(client: Any) -> None:
    image = np.full((12, 8, 3), 255, np.uint8)
    image[2:10, 3:5] = 0  # a stroke
    answer = client.infer("digit_image_ensemble", [tensor("input_image", image)])
    assert answer.as_numpy("class_label").shape == (1, 1)
    assert as_text(answer.as_numpy("class_label")[0, 0]) == "1"
    assert answer.as_numpy("confidence")[0, 0] > 0.5


def test_a_body_can_be_made_and_read_without_a_client(address: str) -> None:
    """What users do who bring an HTTP library of their own."""
    import http.client

    body, length = triton.InferenceServerClient.generate_request_body(
        [tensor("INPUT0", floats(1.5, -2))]
    )
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(
        "POST",
        "/v2/models/identity/infer",
        body,
        {"Inference-Header-Content-Length": str(length)},
    )
    reply = connection.getresponse()
    answer = triton.InferenceServerClient.parse_response_body(
        reply.read(), header_length=int(reply.headers["Inference-Header-Content-Length"])
    )
    connection.close()
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), floats(1.5, -2))


def as_text(value: Any) -> str:
    """JSON gives str where binary data give bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
