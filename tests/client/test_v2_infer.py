import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.client.v2 import BadReply, Reply
from modelport.client.v2_infer import Call, decode_outcome, encode_call, tensor_of
from modelport.dtypes import DATATYPE_BY_NAME
from modelport.errors import InvalidRequest
from modelport.messages import Response, Tensors
from modelport.tensors import Tensor
from modelport.wire.v2_rest import CodecOptions, ResponseEncoder, decode_infer_request

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -65504.0],
    "BF16": [1.0, -2.0],
    "FP32": [0.1, float("inf")],
    "FP64": [0.1, 1e308],
    "BYTES": ["ä", ""],
}


def tensor(datatype: str, count: int = 2) -> Tensor:
    values = VALUES[datatype][:count]
    return tensor_of("x", DATATYPE_BY_NAME[datatype], (count,), values)


def through_a_server(call: Call) -> list[Tensor]:
    """Encode, let the server's codec read and answer with the inputs, decode."""
    headers, parts = encode_call(call)
    length = headers.get("Inference-Header-Content-Length")
    asked = decode_infer_request(
        b"".join(parts), int(length) if length else None, "m", CodecOptions()
    )
    assert isinstance(asked.request.payload, Tensors)
    header_length, body = ResponseEncoder("m", "1").encode(
        Response(asked.request.payload.tensors), asked.request.id, asked.is_binary, asked.forms
    )
    answer = {}
    if header_length is not None:
        answer["inference-header-content-length"] = str(header_length)
    return list(decode_outcome(Reply(answer, b"".join(body))).outputs)


@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_comes_back_from_the_servers_codec(
    datatype: str, count: int, is_binary: bool
) -> None:
    sent = tensor(datatype, count)
    for outputs in ([], ["x"]):
        (back,) = through_a_server(Call([sent], outputs=outputs, is_binary=is_binary))
        assert (back.name, back.datatype, back.shape) == (sent.name, sent.datatype, sent.shape)
        assert back.array.tolist() == sent.array.tolist()


def test_several_inputs_keep_their_bytes_apart() -> None:
    sent = [tensor("BYTES"), tensor("FP32"), tensor("INT8")]
    for at, each in enumerate(sent):
        each.name = f"x{at}"
    back = through_a_server(Call(sent, is_binary=True))
    assert [each.array.tolist() for each in back] == [each.array.tolist() for each in sent]


def test_bytes_that_are_no_text_need_the_binary_form() -> None:
    array = np.array([b"\xff"], object)
    raw = Tensor("x", DATATYPE_BY_NAME["BYTES"], array)
    (back,) = through_a_server(Call([raw], is_binary=True))
    assert back.array.tolist() == [b"\xff"]
    with pytest.raises(InvalidRequest):
        encode_call(Call([raw]))


def test_a_call_says_only_what_was_asked() -> None:
    _, (document,) = encode_call(Call([tensor("INT8", 1)], id="7", parameters={"a": 1}))
    assert json.loads(bytes(document)) == {
        "inputs": [{"name": "x", "datatype": "INT8", "shape": [1], "data": [-128]}],
        "id": "7",
        "parameters": {"a": 1},
    }


BAD_BODIES = [
    b"",
    b"[]",
    b"{",
    b'{"outputs":1}',
    b'{"outputs":[1]}',
    b'{"outputs":[{"name":"x"}]}',
    b'{"outputs":[{"name":"x","datatype":"NOPE","shape":[1],"data":[1]}]}',
    b'{"outputs":[{"name":"x","datatype":"INT8","shape":[2],"data":[1]}]}',
    b'{"outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":["a"]}]}',
    b'{"outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":7}]}',
    b'{"outputs":[{"name":"x","datatype":"INT8","shape":"a","data":[7]}]}',
    b'{"outputs":[{"name":"x","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":9}}]}',
    b'{"outputs":[{"name":"x","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":"1"}}]}',
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_a_response_that_is_none_is_told(body: bytes) -> None:
    with pytest.raises(BadReply, match="the response is not as V2 says"):
        decode_outcome(Reply({}, body))


@given(st.binary(max_size=60), st.integers(-5, 80))
def test_any_tail_is_read_or_refused(tail: bytes, size: int) -> None:
    head = {"name": "x", "datatype": "BYTES", "shape": [1]}
    document = json.dumps({"outputs": [head | {"parameters": {"binary_data_size": size}}]}).encode()
    reply = Reply({"inference-header-content-length": str(len(document))}, document + tail)
    try:
        (output,) = decode_outcome(reply).outputs
    except BadReply:
        return
    assert tail.startswith(len(output.array[0]).to_bytes(4, "little"))


def test_a_response_without_outputs_is_fine() -> None:
    outcome = decode_outcome(Reply({}, b'{"model_name":"m","id":"7"}'))
    assert outcome.document == {"model_name": "m", "id": "7"}
    assert not outcome.outputs
