"""Tensors in the system's shared memory over gRPC, with the client's own helpers."""

import base64
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from tests.compat.client.grpc_tensors import streaming

SIZE = 256


@pytest.fixture
def regions(grpc_client: Any) -> Iterator[tuple[Any, Any]]:
    """A region for inputs and one for outputs, registered under their names."""
    keys = [f"/modelport-{uuid.uuid4()}" for _ in range(2)]
    names = ("grpc-i", "grpc-o")
    made = [shm.create_shared_memory_region(n, k, SIZE) for n, k in zip(names, keys, strict=True)]
    for name, key in zip(names, keys, strict=True):
        grpc_client.register_system_shared_memory(name, key, SIZE)
    yield made[0], made[1]
    for name in names:
        grpc_client.unregister_system_shared_memory(name)
    for region in made:
        shm.destroy_shared_memory_region(region)


def asked(size: int, *, to: int = SIZE) -> dict[str, Any]:
    tensor = triton.InferInput("values", [8], "FP32")
    tensor.set_shared_memory("grpc-i", size)
    output = triton.InferRequestedOutput("result")
    output.set_shared_memory("grpc-o", to - 16, offset=16)
    return {"model_name": "same_fp32", "inputs": [tensor], "outputs": [output]}


def found(region: Any) -> list[float]:
    values: list[float] = shm.get_contents_as_numpy(region, np.float32, [8], offset=16).tolist()
    return values


def test_numbers_come_and_go(grpc_client: Any, regions: tuple[Any, Any]) -> None:
    inputs, outputs = regions
    numbers = np.arange(8, dtype=np.float32)
    shm.set_shared_memory_region(inputs, [numbers])
    result = grpc_client.infer(**asked(numbers.nbytes))
    assert list(result.get_output("result").shape) == [8]
    assert found(outputs) == numbers.tolist()


def test_streams_use_it_too(grpc_client: Any, regions: tuple[Any, Any]) -> None:
    inputs, outputs = regions
    numbers = np.arange(8, dtype=np.float32) * 3
    shm.set_shared_memory_region(inputs, [numbers])
    with streaming(grpc_client) as results:
        grpc_client.async_stream_infer(**asked(numbers.nbytes))
        results.next()
    assert found(outputs) == numbers.tolist()


def test_regions_are_told_and_forgotten(grpc_client: Any, regions: tuple[Any, Any]) -> None:
    status = grpc_client.get_system_shared_memory_status()
    assert status.regions["grpc-i"].byte_size == SIZE
    grpc_client.unregister_system_shared_memory("grpc-o")
    with pytest.raises(InferenceServerException, match="Unable to find system shared memory reg"):
        grpc_client.get_system_shared_memory_status("grpc-o", as_json=True)


def test_what_is_wrong_is_said(grpc_client: Any, regions: tuple[Any, Any]) -> None:
    key = grpc_client.get_system_shared_memory_status("grpc-i").regions["grpc-i"].key
    for name, at, size, status, text in (
        ("grpc-i", key, 8, "ALREADY_EXISTS", "already in manager"),
        ("new", "/modelport-is-not-there", 8, "INTERNAL", "Unable to open shared memory region"),
        ("new", key, SIZE + 1, "INTERNAL", "Invalid shared memory region"),
    ):
        with pytest.raises(InferenceServerException, match=text) as raised:
            grpc_client.register_system_shared_memory(name, at, size)
        assert status in raised.value.status()
    with pytest.raises(InferenceServerException, match="input byte size mismatch"):
        grpc_client.infer(**asked(31))
    with pytest.raises(InferenceServerException, match="Invalid offset"):
        grpc_client.infer(**asked(SIZE + 1))
    with pytest.raises(InferenceServerException, match="should be at least 32 bytes"):
        grpc_client.infer(**asked(32, to=20))
    grpc_client.unregister_system_shared_memory("grpc-i")
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region"):
        grpc_client.infer(**asked(32))


def test_memory_of_gpus_is_refused_where_there_are_none(grpc_client: Any) -> None:
    with pytest.raises(InferenceServerException, match="failed to register CUDA shared memory"):
        grpc_client.register_cuda_shared_memory("gpu", base64.b64encode(bytes(64)), 0, 64)
    assert not grpc_client.get_cuda_shared_memory_status().regions
    grpc_client.unregister_cuda_shared_memory()
