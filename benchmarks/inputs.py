"""Random inputs, the same for every server of a run, with the check of their answers."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.exchange import Exchange
from benchmarks.replies import Reply

SEED = 20_240_229
TINY_SHAPE = (1, 10)
IMAGE_SHAPE = (1, 3, 224, 224)
_TOLERANCE = 1e-5


def affine(count: int = 1_000, *, seed: int = SEED) -> list[Exchange]:
    """Give tiny JSON requests, FP32[1,10], to the model that computes 2.5 x + 0.5."""
    random_numbers = random.Random(seed)
    return [
        _affine_exchange([round(random_numbers.uniform(-100, 100), 4) for _ in range(10)])
        for _ in range(count)
    ]


def affine_reply_body(exchange: Exchange) -> bytes:
    """Give the reply body to an `affine` request, as a server of the protocol writes it."""
    values = np.array(json.loads(exchange.body)["inputs"][0]["data"], np.float32)
    output = {
        "name": "OUTPUT0",
        "datatype": "FP32",
        "shape": list(TINY_SHAPE),
        # The shortest decimal that reads back as the same FP32.
        "data": [float(str(value)) for value in values * np.float32(2.5) + np.float32(0.5)],
    }
    answer = {"model_name": "affine", "model_version": "1", "outputs": [output]}
    return json.dumps(answer, separators=(",", ":")).encode()


def image_identity(count: int = 8, *, seed: int = SEED) -> list[Exchange]:
    """Give 602 112-byte FP32 tensors as binary data, answered with the same bytes."""
    generator = np.random.default_rng(seed)
    return [
        _identity_exchange(generator.random(IMAGE_SHAPE, dtype=np.float32)) for _ in range(count)
    ]


def batched(count: int = 256, *, seed: int = SEED) -> list[Exchange]:
    """Give tiny requests to the model that takes 5 ms for each batch of at most 32 rows."""
    return [
        _json_exchange("batched", "batched", [value], partial(_is_output, expected=[value + 1]))
        for value in _uniform(count, seed)
    ]


def slow(model: str, count: int = 16, *, seed: int = SEED) -> list[Exchange]:
    """Give tiny requests to one of the models that take 200 ms and answer with their input."""
    return [
        _json_exchange(model, model, [value], partial(_is_output, expected=[value]))
        for value in _uniform(count, seed)
    ]


def unchecked(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """Give the same requests for a server that is not expected to understand them."""
    return [replace(exchange, is_right=lambda _: True) for exchange in exchanges]


def infer_path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def infer_body(name: str, shape: Sequence[int], data: Sequence[float]) -> bytes:
    """Write a V2 inference request with one FP32 tensor as JSON."""
    tensor = {"name": name, "shape": list(shape), "datatype": "FP32", "data": list(data)}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def outputs_by_name(reply: Reply) -> dict[str, list[float]]:
    """Read the JSON outputs of a V2 inference reply; empty where it is none."""
    try:
        answer: dict[str, Any] = json.loads(reply.body)
        return {output["name"]: output["data"] for output in answer["outputs"]}
    except (ValueError, KeyError, TypeError):
        return {}


def are_close(actual: Sequence[float] | None, expected: Sequence[float]) -> bool:
    """Tell whether two lists of FP32 values agree."""
    if actual is None or len(actual) != len(expected):
        return False
    pairs = zip(actual, expected, strict=True)
    return all(abs(a - e) <= _TOLERANCE * max(1.0, abs(e)) for a, e in pairs)


def _affine_exchange(values: list[float]) -> Exchange:
    expected = [2.5 * value + 0.5 for value in values]
    return _json_exchange("affine", "affine", values, partial(_is_output, expected=expected))


def _json_exchange(
    name: str, model: str, values: list[float], is_right: Callable[[Reply], bool]
) -> Exchange:
    body = infer_body("INPUT0", (1, len(values)), values)
    return Exchange(name, infer_path(model), body, is_right)


def _is_output(reply: Reply, expected: list[float]) -> bool:
    return are_close(outputs_by_name(reply).get("OUTPUT0"), expected)


def _identity_exchange(image: NDArray[np.float32]) -> Exchange:
    tensor = {
        "name": "INPUT0",
        "shape": list(image.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": image.nbytes},
    }
    output = {"name": "OUTPUT0", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}, separators=(",", ":")).encode()
    data = image.tobytes()
    return Exchange(
        "identity",
        infer_path("identity"),
        head + data,
        # The raw echo of the baseline gives the same tail as the true answer.
        lambda reply: reply.body.endswith(data),
        headers=(
            ("Content-Type", "application/octet-stream"),
            ("Inference-Header-Content-Length", str(len(head))),
        ),
    )


def _uniform(count: int, seed: int) -> list[float]:
    random_numbers = random.Random(seed)
    return [round(random_numbers.uniform(-100, 100), 4) for _ in range(count)]
