"""Sequences, as Triton's own examples call them."""

import queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_triton
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def add(client: Any, number: int, sequence_id: Any, **flags: bool) -> int:
    tensor = triton.InferInput("x", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[number]], np.int32))
    result = client.infer("running_sum", [tensor], sequence_id=sequence_id, **flags)
    return int(result.as_numpy("sum")[0, 0])


@pytest.mark.parametrize("sequence_id", [1007, 2**63, "a-sequence"])
def test_a_sequence_is_remembered(client: Any, sequence_id: Any) -> None:
    values = [11, 7, 5, 3, 2, 0, 1]
    sums = []
    for position, value in enumerate(values):
        sums.append(
            add(
                client,
                value,
                sequence_id,
                sequence_start=position == 0,
                sequence_end=position == len(values) - 1,
            )
        )
    assert sums == [11, 18, 23, 26, 28, 28, 29]


def test_sequences_are_apart(client: Any) -> None:
    for number, key in ((1, 21), (10, 22)):
        assert add(client, number, key, sequence_start=True) == number
    assert add(client, 2, 21) == 3
    assert add(client, 20, 22, sequence_end=True) == 30
    assert add(client, 3, 21, sequence_end=True) == 6


def test_a_sequence_needs_a_start_and_a_name(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="must specify the START flag on the first"):
        add(client, 1, 31)
    with pytest.raises(InferenceServerException, match="non-zero or non-empty correlation ID"):
        add(client, 1, 0, sequence_start=True)


def test_sequences_share_a_stream(grpc_client: Any) -> None:
    """As in Triton's own simple_grpc_sequence_stream_infer_client."""
    heard: queue.Queue[Any] = queue.Queue()
    grpc_client.start_stream(callback=lambda result, error: heard.put((result, error)))
    values = [11, 7, 5, 3]
    for position, value in enumerate(values):
        for sequence_id, sign in ((51, 1), ("fifty-two", -1)):
            tensor = grpc_triton.InferInput("x", [1, 1], "INT32")
            tensor.set_data_from_numpy(np.array([[sign * value]], np.int32))
            grpc_client.async_stream_infer(
                "running_sum",
                [tensor],
                request_id=f"{sequence_id}_{position}",
                sequence_id=sequence_id,
                sequence_start=position == 0,
                sequence_end=position == len(values) - 1,
            )
    sums: dict[str, list[int]] = {"51": [], "fifty-two": []}
    for _ in range(2 * len(values)):
        result, error = heard.get(timeout=20)
        assert error is None
        name = result.get_response().id.partition("_")[0]
        sums[name].append(int(result.as_numpy("sum")[0, 0]))
    grpc_client.stop_stream()
    assert sums == {"51": [11, 18, 23, 26], "fifty-two": [-11, -18, -23, -26]}
