"""Sequences, as Triton's own examples call them."""

from typing import Any

import numpy as np
import pytest
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
