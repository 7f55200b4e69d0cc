"""Encoded images over gRPC: both forms of contents, both dialects, both ways to call."""

import asyncio
import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelport.messages import Request, Response
from modelport.protocols.v2.options import V2Options
from modelport.specs import ModelConfig, ModelInput, ModelOutput
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryCall
from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.v2_grpc.messages import served
from tests.waiting import until

CONFIG = ModelConfig(
    name="m",
    max_batch_size=4,
    input=(ModelInput(name="image", data_type="TYPE_UINT8", dims=(2, 2, 3)),),
    output=(ModelOutput(name="first", data_type="TYPE_UINT8", dims=(3,)),),
)


def png(color: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 3), color).save(file, "PNG")
    return file.getvalue()


RED, BLUE = png((255, 0, 0)), png((0, 0, 255))
PREFIXED = b"".join(struct.pack("<I", len(image)) + image for image in (RED, BLUE))


def first(request: Request) -> Sequence[Response]:
    (tensor,) = request.payload.tensors
    return [
        Response([Tensor("first", tensor.datatype, np.ascontiguousarray(tensor.array[:, 0, 0]))])
    ]


def message(
    count: int, *, raw: bytes | None = None, contents: Sequence[bytes] = (), id: str = ""
) -> bytes:
    request = pb.ModelInferRequest(model_name="m", id=id)
    part = request.inputs.add(name="image", datatype="BYTES", shape=[count])
    if contents:
        part.contents.bytes_contents.extend(contents)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request.SerializeToString()


def infer(data: bytes, *, is_ovms: bool = True) -> MemoryCall:
    async def main() -> MemoryCall:
        server, _ = served(first, CONFIG, V2Options(is_ovms=is_ovms))
        call = server.call("ModelInfer", data)
        await until(lambda: call.status is not None)
        return call

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (message(1, raw=RED), [0, 0, 255]),
        (message(1, contents=[RED]), [0, 0, 255]),
        (message(2, raw=PREFIXED), [0, 0, 255, 255, 0, 0]),
        (message(2, contents=[RED, BLUE]), [0, 0, 255, 255, 0, 0]),
    ],
)
def test_every_form_of_images_is_read(data: bytes, expected: list[int]) -> None:
    call = infer(data)
    assert (call.status, call.text) == (0, "")
    got = pb.ModelInferResponse.FromString(call.sent[0])
    assert list(got.raw_output_contents[0]) == expected


def test_what_is_no_image_is_told_with_the_id_of_the_request() -> None:
    call = infer(message(1, raw=b"no image", id="seven"))
    assert call.status == 3
    assert call.text.startswith("[request id: seven] Image parsing failed")


def test_elsewhere_bytes_are_bytes() -> None:
    assert infer(message(1, raw=RED), is_ovms=False).status == 3


def test_a_stream_takes_images_in_the_order_of_its_requests() -> None:
    async def main() -> list[Any]:
        server, _ = served(first, CONFIG, V2Options(is_ovms=True))
        call, receiver = server.open()
        receiver.message(message(1, raw=RED, id="a"))
        receiver.message(message(1, raw=b"no image", id="b"))
        receiver.message(message(1, contents=[BLUE], id="c"))
        receiver.half_closed()
        await until(lambda: call.status is not None)
        return [pb.ModelStreamInferResponse.FromString(sent) for sent in call.sent]

    a, b, c = asyncio.run(main())
    assert list(a.infer_response.raw_output_contents[0]) == [0, 0, 255]
    assert b.error_message.startswith("[request id: b] Image parsing failed")
    assert list(c.infer_response.raw_output_contents[0]) == [255, 0, 0]


def test_a_request_that_is_cancelled_meanwhile_never_reaches_the_model() -> None:
    async def main() -> int:
        server, model = served(first, CONFIG, V2Options(is_ovms=True))
        call = server.call("ModelInfer", message(1, raw=RED))
        assert call.on_cancel is not None
        call.on_cancel()
        await asyncio.sleep(0.2)
        assert call.status is None
        return len(model.requests)

    assert asyncio.run(main()) == 0
