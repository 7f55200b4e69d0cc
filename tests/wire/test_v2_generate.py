import json
from typing import Any

import numpy as np
import pytest

from modelport import dtypes
from modelport.errors import InvalidInference, InvalidRequest
from modelport.messages import Request, Response
from modelport.specs import ModelConfig, ModelInput
from modelport.tensors import Tensor
from modelport.wire.v2_generate import (
    decode_generate_request,
    encode_event,
    encode_generate_response,
)
from modelport.wire.v2_rest import CodecOptions
from modelport.wire.v2_values import encode_values


def config(max_batch_size: int = 0, **inputs: tuple[str, tuple[int, ...]]) -> ModelConfig:
    return ModelConfig(
        name="m",
        max_batch_size=max_batch_size,
        input=tuple(
            ModelInput(name=name, data_type=f"TYPE_{datatype}", dims=dims)
            for name, (datatype, dims) in inputs.items()
        ),
    )


TEXT = config(text_input=("STRING", (1,)), n=("INT32", (1,)))


def decode(body: Any, model: ModelConfig = TEXT, strict: bool = False) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_generate_request(data, model, CodecOptions(is_strict=strict))


def test_members_are_inputs_or_parameters() -> None:
    request = decode(
        {
            "id": "7",
            "text_input": "hé",
            "n": [3],
            "temperature": 0.5,
            "stream": False,
            "parameters": {"max_tokens": 5, "stop": "x"},
        }
    )
    text, n = request.payload.tensors
    assert (text.name, text.datatype, text.array.tolist()) == (
        "text_input", dtypes.BYTES, ["hé".encode()],
    )  # fmt: skip
    assert (n.name, n.datatype, n.array.tolist()) == ("n", dtypes.INT32, [3])
    assert request.id == "7"
    assert request.parameters == {
        "temperature": 0.5, "stream": False, "max_tokens": 5, "stop": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dims", "max_batch_size", "values", "shape"),
    [
        ((1,), 0, 5, (1,)),
        ((3,), 0, [1, 2, 3], (3,)),
        ((3,), 8, [1, 2, 3], (1, 3)),
        ((-1,), 8, [1, 2], (1, 2)),
        ((-1, -1), 0, [1, 2], (1, 2)),
        ((-1, 2), 0, [1, 2, 3, 4], (2, 2)),
        ((-1, 2, -1), 4, [1, 2, 3, 4], (1, 1, 2, 2)),
        ((-1,), 0, [], (0,)),
        ((2, 2), 0, [1, 2, 3, 4], (2, 2)),
    ],
)
def test_shapes_are_filled_from_the_configuration(
    dims: tuple[int, ...], max_batch_size: int, values: Any, shape: tuple[int, ...]
) -> None:
    (tensor,) = decode({"I": values}, config(max_batch_size, I=("FP32", dims))).payload.tensors
    assert tensor.shape == tensor.array.shape == shape


@pytest.mark.parametrize(
    ("dims", "values"), [((2,), 1), ((2,), [1, 2, 3]), ((-1, 2), [1, 2, 3]), ((1,), [])]
)
def test_values_that_do_not_fill_the_shape_are_refused(dims: tuple[int, ...], values: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=r"^The schema can not convert input 'I' to tensor with proper shape"
    ):
        decode({"I": values}, config(I=("FP32", dims)))


def test_reserved_parameters_are_acted_on() -> None:
    request = decode({"priority": 2, "parameters": {"sequence_id": 5, "sequence_start": True}})
    assert (request.priority, request.sequence_id, request.sequence_start) == (2, 5, True)
    assert request.parameters == {}


NOT_STRING = "Unable to parse JSON bytes array: attempt to access JSON non-string as string"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "failed to parse the request JSON buffer: "),
        (b"[]", "failed to get request members"),
        ({"parameters": 1}, "Expected JSON object for keyword: 'parameters'"),
        (
            {"parameters": {"nested": {}}},
            "Converting keyword: 'parameters': parameter 'nested' has invalid type.",
        ),
        ({"x": {}}, "parameter 'x' has invalid type. It should be either 'int', 'bool', or 'str"),
        ({"x": None}, "parameter 'x' has invalid type."),
        ({"triton_x": 1}, "parameter keys starting with 'triton_' are reserved for Triton usage"),
        ({"id": 1}, "Unable to parse 'id': attempt to access JSON non-string as string"),
        ({"text_input": {"a": 1}}, NOT_STRING),
        ({"text_input": 5}, NOT_STRING),
        ({"text_input": [["a"]]}, NOT_STRING),
        ({"n": "3"}, "Unable to parse 'data': attempt to access JSON non-signed-integer as signed"),
        ({"n": 2**31}, "Unable to parse 'data': value 0 of input 'n' is 2147483648, which INT32"),
        ({"n": [1, 2], "parameters": 1}, "The schema can not convert input 'n'"),
        ({"parameters": 1, "n": [1, 2]}, "Expected JSON object for keyword: 'parameters'"),
        ({"x": {}, "n": [1, 2]}, "parameter 'x' has invalid type."),
        ({"priority": -1, "n": [1, 2]}, "Unable to parse 'priority': attempt to access JSON non-u"),
        ({"parameters": {"triton_x": 1}, "n": [1, 2]}, "parameter keys starting with 'triton_'"),
        (b"[" * 101 + b"]" * 101, "JSON nesting depth exceeds maximum allowed limit (100)"),
    ],
)
def test_bad_calls_are_refused_in_the_order_of_their_members(body: Any, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(body)
    assert str(caught.value).startswith(text)


def test_the_same_input_twice_is_refused() -> None:
    with pytest.raises(InvalidInference, match=r"^input 'n' already exists in request$"):
        decode(b'{"n":1,"n":2}')


def test_short_floats_are_refused_only_when_strict() -> None:
    model = config(I=("FP16", (1,)))
    assert decode({"I": 0.5}, model).payload.tensors[0].array.tolist() == [0.5]
    with pytest.raises(InvalidRequest, match=r"^receiving FP16 data via JSON is not supported"):
        decode({"I": 0.5}, model, strict=True)


@pytest.mark.parametrize("shape", [(1,), (1, 1), ()])
@pytest.mark.parametrize("datatype", dtypes.DATATYPE_BY_NAME.values(), ids=str)
def test_an_array_of_one_element_is_that_element(
    datatype: dtypes.DataType, shape: tuple[int, ...]
) -> None:
    element = "hé\n".encode() if datatype is dtypes.BYTES else 1
    array = np.full(shape, element, datatype.numpy)
    encoded = b"".join(encode_generate_response(Response([Tensor("x", datatype, array)]), "m", "1"))
    expected = encode_values(array, datatype, "x")[1:-1]
    assert encoded == b'{"model_name":"m","model_version":"1","x":%b}' % expected


def test_bytes_that_are_no_text_cannot_be_said() -> None:
    for items in ([b"\xff"], [b"\xff", b"a"]):
        tensor = Tensor("x", dtypes.BYTES, np.array(items, object))
        with pytest.raises(InvalidRequest, match="'x' holds BYTES that are not UTF-8"):
            encode_generate_response(Response([tensor]), "m", "1")


def test_a_response_is_one_flat_object() -> None:
    response = Response(
        [
            Tensor("text_output", dtypes.BYTES, np.array([[b'a "b"\n']], object)),
            Tensor("n", dtypes.INT64, np.array([2**53 + 1])),
            Tensor("scores", dtypes.FP32, np.array([[0.1, np.nan]], np.float32)),
            Tensor("none", dtypes.BOOL, np.zeros(0, bool)),
        ],
        {"finish": "stop", "score": 0.5},
    )
    assert b"".join(encode_generate_response(response, "m", "1", "7")) == (
        b'{"id":"7","model_name":"m","model_version":"1","finish":"stop","score":0.5,'
        b'"text_output":"a \\"b\\"\\n","n":9007199254740993,'
        b'"scores":[0.10000000149011612,NaN],"none":[]}'
    )


def test_without_parameters_it_reads_the_same() -> None:
    outputs = [
        Tensor("text_output", dtypes.BYTES, np.array([[b"a"]], object)),
        Tensor("n", dtypes.INT64, np.array([1, 2])),
    ]
    assert b"".join(encode_generate_response(Response(outputs), "m", "1", "7")) == (
        b'{"id":"7","model_name":"m","model_version":"1","text_output":"a","n":[1,2]}'
    )
    assert b"".join(encode_generate_response(Response([]), "m", "1")) == (
        b'{"model_name":"m","model_version":"1"}'
    )


def test_an_output_named_like_a_fixed_member_stands_for_it_once() -> None:
    outputs = [Tensor("model_name", dtypes.INT64, np.array([1]))]
    assert b"".join(encode_generate_response(Response(outputs), "m", "1")) == (
        b'{"model_name":1,"model_version":"1"}'
    )


def test_an_event_is_one_line() -> None:
    response = Response([Tensor("t", dtypes.BYTES, np.array([b"a\r\nb"], object))])
    event = encode_event(encode_generate_response(response, "m", "1"))
    assert event == b'data: {"model_name":"m","model_version":"1","t":"a\\r\\nb"}\n\n'
