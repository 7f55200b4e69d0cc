"""Requests and answers over gRPC, in every form that the client can give them."""

import inspect
import json
import queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.compat.client.check_infer import THREE
from tests.compat.client.grpc_tensors import WITHIN_S, floats, tensor

TAKES_PARAMETERS = "parameters" in inspect.signature(triton.InferenceServerClient.infer).parameters


def test_tensors_go_and_come(grpc_client: Any) -> None:
    answer = grpc_client.infer(
        "add_sub",
        [tensor("INPUT0", floats(1, 2, 3, 4)), tensor("INPUT1", floats(4, 3, 2, 1))],
        outputs=[triton.InferRequestedOutput("OUTPUT1"), triton.InferRequestedOutput("OUTPUT0")],
    )
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), floats(5, 5, 5, 5))
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), floats(-3, -1, 1, 3))
    names = [output.name for output in answer.get_response().outputs]
    assert names == ["OUTPUT0", "OUTPUT1"]


def test_only_requested_outputs_come(grpc_client: Any) -> None:
    answer = grpc_client.infer(
        "add_sub",
        [tensor("INPUT0", floats(1, 2, 3, 4)), tensor("INPUT1", floats(4, 3, 2, 1))],
        outputs=[triton.InferRequestedOutput("OUTPUT1")],
    )
    assert answer.as_numpy("OUTPUT0") is None
    assert answer.get_output("OUTPUT1").datatype == "FP32"


def test_a_batch_comes_back_in_order(grpc_client: Any) -> None:
    batch = np.concatenate([THREE, np.zeros((1, 64), np.float32), THREE])
    labels = grpc_client.infer("digits", [tensor("pixels", batch)]).as_numpy("label")
    assert labels.shape == (3, 1)
    assert labels[0] == labels[2] == 3


def test_classes_come_best_first_with_their_labels(grpc_client: Any) -> None:
    output = triton.InferRequestedOutput("probabilities", class_count=3)
    answer = grpc_client.infer("digits", [tensor("pixels", THREE)], outputs=[output])
    best = [entry.decode().split(":") for entry in answer.as_numpy("probabilities")[0]]
    assert len(best) == 3
    assert best[0][1:] == ["3", "3"]


def test_text_goes_and_comes(grpc_client: Any) -> None:
    text = np.array([["I absolutely love this product!"]], np.object_)
    answer = grpc_client.infer("sentiment", [tensor("text", text, "BYTES")])
    assert answer.as_numpy("label")[0, 0].decode() in ("4 stars", "5 stars")
    assert 0 < answer.as_numpy("score")[0, 0] <= 1


def test_the_request_id_comes_back(grpc_client: Any) -> None:
    for id in ("mine-1", "mine-2", ""):
        answer = grpc_client.infer("identity", [tensor("INPUT0", floats(1))], request_id=id)
        assert answer.get_response().id == id


def test_a_version_may_be_asked_for(grpc_client: Any) -> None:
    answer = grpc_client.infer("identity", [tensor("INPUT0", floats(1))], model_version="1")
    assert answer.get_response().model_version == "1"
    assert answer.get_response(as_json=True)["model_name"] == "identity"


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_messages_may_be_compressed(grpc_client: Any, compression: str | None) -> None:
    values = np.arange(4096, dtype=np.float32)
    answer = grpc_client.infer(
        "identity", [tensor("INPUT0", values)], compression_algorithm=compression
    )
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), values)


def test_messages_of_some_megabytes_pass(grpc_client: Any) -> None:
    values = np.random.default_rng(1).random(4_000_000, np.float32)
    answer = grpc_client.infer("identity", [tensor("INPUT0", values)])
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), values)


def test_tensors_may_be_empty(grpc_client: Any) -> None:
    answer = grpc_client.infer("identity", [tensor("INPUT0", floats())])
    assert answer.as_numpy("OUTPUT0").shape == (0,)


@pytest.mark.parametrize(
    "datatype",
    [
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64"),
    ],
)
def test_every_datatype_comes_back_as_it_went(grpc_client: Any, datatype: str) -> None:
    values = np.array([0, 1, 1], datatype)
    if values.dtype.kind in "iu":
        values[:2] = np.iinfo(datatype).min, np.iinfo(datatype).max
    made = tensor("values", values)
    answer = grpc_client.infer(f"same_{made.datatype().lower()}", [made])
    assert answer.as_numpy("result").dtype == values.dtype
    np.testing.assert_array_equal(answer.as_numpy("result"), values)


def test_bytes_of_every_kind_come_back(grpc_client: Any) -> None:
    values = np.array([b"", b"\0\xff", "größer".encode(), b"x" * 100_000], np.object_)
    answer = grpc_client.infer("same_bytes", [tensor("values", values, "BYTES")])
    assert answer.as_numpy("result").tolist() == values.tolist()


@pytest.mark.skipif(not TAKES_PARAMETERS, reason="this client has no request parameters")
def test_the_model_sees_the_parameters_but_not_the_reserved_ones(grpc_client: Any) -> None:
    answer = grpc_client.infer(
        "parameters_of",
        [tensor("x", floats(1))],
        parameters={"depth": 3, "mode": "fast", "exact": True},
        priority=1,
        timeout=1_000_000,
        sequence_id=7,
        sequence_start=True,
        sequence_end=True,
    )
    told = json.loads(answer.as_numpy("told")[0])
    assert told == {"depth": 3, "mode": "fast", "exact": True}


def test_requests_beside_one_another_get_each_its_own_answer(grpc_client: Any) -> None:
    results: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for number in range(64):
        grpc_client.async_infer(
            "identity",
            [tensor("INPUT0", floats(number))],
            callback=lambda result, error: results.put((result, error)),
            request_id=str(number),
        )
    for _ in range(64):
        result, error = results.get(timeout=WITHIN_S)
        assert error is None
        (value,) = result.as_numpy("OUTPUT0").tolist()
        assert result.get_response().id == str(int(value))


def test_a_request_in_flight_may_be_given_up(grpc_client: Any) -> None:
    results: queue.Queue[tuple[Any, Any]] = queue.Queue()
    pending = grpc_client.async_infer(
        "sleeping",
        [tensor("seconds", floats(2))],
        callback=lambda result, error: results.put((result, error)),
    )
    if pending is None:
        pytest.skip("this client cannot cancel")
    pending.cancel()
    _, error = results.get(timeout=WITHIN_S)
    assert "CANCELLED" in str(error)
    assert grpc_client.infer("sleeping", [tensor("seconds", floats(0))])


def test_a_client_that_waits_too_long_gives_up_and_harms_nobody(grpc_client: Any) -> None:
    with pytest.raises(InferenceServerException) as raised:
        grpc_client.infer("sleeping", [tensor("seconds", floats(2))], client_timeout=0.3)
    assert "DEADLINE_EXCEEDED" in raised.value.status()
    assert grpc_client.infer("sleeping", [tensor("seconds", floats(0))], client_timeout=20)
