"""Encoded images through the handlers of V2 over REST."""

import asyncio
import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelport.messages import Request, Response
from modelport.protocols.v2_rest import RestOptions
from modelport.specs import ModelConfig, ModelInput, ModelOutput, Parameter
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryDeployment, MemoryEngine, MemoryExchange, MemoryServer

SIZE = "Inference-Header-Content-Length"


def png(color: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 3), color).save(file, "PNG")
    return file.getvalue()


RED, BLUE = png((255, 0, 0)), png((0, 0, 255))


def config(**parameters: str) -> ModelConfig:
    return ModelConfig(
        name="m",
        max_batch_size=4,
        input=(ModelInput(name="image", data_type="TYPE_FP32", dims=(2, 2, 3)),),
        output=(ModelOutput(name="mean", data_type="TYPE_FP32", dims=(3,)),),
        parameters={key: Parameter(string_value=value) for key, value in parameters.items()},
    )


def mean(request: Request) -> list[Response]:
    (tensor,) = request.payload.tensors
    assert tensor.array.dtype == np.float32
    return [Response([Tensor("mean", tensor.datatype, tensor.array.mean(axis=(1, 2)))])]


def send(
    body: bytes, length: int, *, is_ovms: bool = True, of: ModelConfig | None = None
) -> MemoryExchange:
    async def main() -> MemoryExchange:
        models = [MemoryDeployment(of or config(), mean)]
        served = MemoryServer(MemoryEngine(models), RestOptions(is_ovms=is_ovms))
        exchange = served.send("POST", "/v2/models/m/infer", body, {SIZE: str(length)})
        await exchange.finished.wait()
        return exchange

    return asyncio.run(main())


def with_images(data: bytes, count: int, size: Any, id: str = "") -> tuple[bytes, int]:
    """A request with bytes behind its JSON; the size is left out where it is ``None``."""
    part: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [count]}
    if size is not None:
        part["parameters"] = {"binary_data_size": size}
    text = json.dumps({"id": id, "inputs": [part]}).encode()
    return text + data, len(text)


def prefixed(*images: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(image)) + image for image in images)


BOTH = prefixed(RED, BLUE)


@pytest.mark.parametrize(
    ("data", "count", "size"),
    [
        (BOTH, 2, len(BOTH)),
        (BOTH, 2, str(len(BOTH))),
        (BOTH, 2, None),
        (RED + BLUE, 2, f"{len(RED)},{len(BLUE)}"),
        (RED + BLUE, 2, [len(RED), len(BLUE)]),
    ],
)
def test_both_dialects_say_the_same(data: bytes, count: int, size: Any) -> None:
    exchange = send(*with_images(data, count, size))
    assert exchange.status == 200
    assert exchange.sent_headers["content-type"] == "application/json"
    (output,) = exchange.json["outputs"]
    assert (output["shape"], output["data"]) == ([2, 3], [0, 0, 255, 255, 0, 0])


@pytest.mark.parametrize("size", [len(RED), str(len(RED)), None])
def test_one_bare_image_needs_no_list(size: Any) -> None:
    exchange = send(*with_images(RED, 1, size))
    assert exchange.json["outputs"][0]["data"] == [0, 0, 255]


def test_a_file_alone_is_a_request() -> None:
    exchange = send(RED, 0)
    assert exchange.json["outputs"][0]["data"] == [0, 0, 255]


def test_numbers_are_taken_as_ever() -> None:
    values = np.full((1, 2, 2, 3), 7, np.float32).tobytes()
    part = {"name": "image", "datatype": "FP32", "shape": [1, 2, 2, 3]}
    text = json.dumps({"inputs": [part]}).encode()
    for body, length in ((text + values, len(text)), (values, 0)):
        exchange = send(body, length)
        assert exchange.status == 200
    part["data"] = [7.0] * 12
    text = json.dumps({"inputs": [part]}).encode()
    assert send(text, len(text)).json["outputs"][0]["data"] == [7, 7, 7]


def test_what_is_no_image_is_told_with_the_id_of_the_request() -> None:
    exchange = send(*with_images(prefixed(b"no image"), 1, None, id="seven"))
    assert exchange.status == 400
    assert exchange.json["error"].startswith("[request id: seven] Image parsing failed")


@pytest.mark.parametrize("size", ["1,2", [5], 99, "x"])
def test_sizes_that_do_not_add_up_are_refused(size: Any) -> None:
    assert send(*with_images(RED, 1, size)).status == 400


def test_elsewhere_bytes_are_bytes() -> None:
    exchange = send(*with_images(BOTH, 2, str(len(BOTH))), is_ovms=False)
    assert exchange.status == 400
    assert "'binary_data_size'" in exchange.json["error"]


def test_one_model_may_take_images_alone() -> None:
    body = with_images(RED, 1, None)
    assert send(*body, is_ovms=False, of=config(ovms="true")).status == 200
    assert send(*body, is_ovms=True, of=config(ovms="false")).status == 400
