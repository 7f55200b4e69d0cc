"""Tensors in the system's shared memory, with the client's own helpers."""

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

SIZE = 256


@pytest.fixture
def regions(client: Any) -> Iterator[tuple[Any, Any]]:
    """A region for inputs and one for outputs, registered under their names."""
    keys = [f"/modelport-{uuid.uuid4()}" for _ in range(2)]
    made = [shm.create_shared_memory_region(n, k, SIZE) for n, k in zip("io", keys, strict=True)]
    for name, key in zip("io", keys, strict=True):
        client.register_system_shared_memory(name, key, SIZE)
    yield made[0], made[1]
    client.unregister_system_shared_memory()
    for region in made:
        shm.destroy_shared_memory_region(region)


def infer(client: Any, model: str, shape: list[int], datatype: str, size: int) -> Any:
    tensor = triton.InferInput("values", shape, datatype)
    tensor.set_shared_memory("i", size)
    output = triton.InferRequestedOutput("result")
    output.set_shared_memory("o", SIZE - 16, offset=16)
    return client.infer(model, [tensor], outputs=[output])


def test_numbers_come_and_go(client: Any, regions: tuple[Any, Any]) -> None:
    inputs, outputs = regions
    numbers = np.arange(8, dtype=np.float32)
    shm.set_shared_memory_region(inputs, [numbers])
    result = infer(client, "same_fp32", [8], "FP32", numbers.nbytes)
    told = result.get_output("result")
    assert told["shape"] == [8]
    assert "data" not in told
    found = shm.get_contents_as_numpy(outputs, np.float32, [8], offset=16)
    assert found.tolist() == numbers.tolist()


def test_text_comes_and_goes(client: Any, regions: tuple[Any, Any]) -> None:
    inputs, outputs = regions
    texts = np.array([b"one", b"", "zw\u00f6lf".encode()], object)
    from tritonclient.utils import serialize_byte_tensor

    serialized = serialize_byte_tensor(texts)
    shm.set_shared_memory_region(inputs, [serialized])
    infer(client, "same_bytes", [3], "BYTES", len(serialized.item()))
    found = shm.get_contents_as_numpy(outputs, np.object_, [3], offset=16)
    assert found.tolist() == texts.tolist()


def test_regions_are_told_and_forgotten(client: Any, regions: tuple[Any, Any]) -> None:
    status = client.get_system_shared_memory_status()
    assert [(one["name"], one["byte_size"]) for one in status] == [("i", SIZE), ("o", SIZE)]
    assert client.get_system_shared_memory_status("o") == status[1:]
    client.unregister_system_shared_memory("o")
    assert client.get_system_shared_memory_status() == status[:1]
    with pytest.raises(InferenceServerException, match="Unable to find system shared memory reg"):
        client.get_system_shared_memory_status("o")


def test_what_is_wrong_is_said(client: Any, regions: tuple[Any, Any]) -> None:
    key = client.get_system_shared_memory_status("i")[0]["key"]
    for name, at, size, text in (
        ("i", key, 8, "already in manager"),
        ("new", "/modelport-is-not-there", 8, "Unable to open shared memory region"),
        ("new", key, SIZE + 1, "Invalid shared memory region"),
    ):
        with pytest.raises(InferenceServerException, match=text):
            client.register_system_shared_memory(name, at, size)
    with pytest.raises(InferenceServerException, match="input byte size mismatch"):
        infer(client, "same_fp32", [8], "FP32", 31)
    with pytest.raises(InferenceServerException, match="Invalid offset"):
        infer(client, "same_fp32", [8], "FP32", SIZE + 1)
    client.unregister_system_shared_memory("o")
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'o'"):
        infer(client, "same_fp32", [8], "FP32", 32)


def test_memory_of_gpus_is_refused_where_there_are_none(client: Any) -> None:
    import base64

    handle = base64.b64encode(bytes(64))
    with pytest.raises(InferenceServerException, match="failed to register CUDA shared memory"):
        client.register_cuda_shared_memory("gpu", handle, 0, 64)
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_cuda_shared_memory()
