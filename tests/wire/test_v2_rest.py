"""Requests and responses over V2 REST: literal bytes, and client against server in memory."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidInference, InvalidRequest
from modelport.messages import Request, Response, Tensors
from modelport.specs import ModelConfig, ModelInput
from modelport.tensors import Array, Tensor
from modelport.wire.json import DEEPEST
from modelport.wire.json_arrays import LONG_VALUES, LongAnswer
from modelport.wire.v2_regions import Span
from modelport.wire.v2_rest import (
    CodecOptions,
    Form,
    Inference,
    ResponseEncoder,
    bind_raw,
    decode_infer_request,
    parse_header_length,
)
from modelport.wire.v2_rest_client import BadAnswer, decode_infer_response, encode_infer_request
from modelport.wire.v2_template import TemplateReader

OPTIONS = CodecOptions()
ONE: dict[str, Any] = {"name": "I", "datatype": "FP32", "shape": [2], "data": [1, 2]}


def document(**members: Any) -> bytes:
    return json.dumps({"inputs": [ONE], **members}).encode()


def input_with(**members: Any) -> bytes:
    merged = {k: v for k, v in {**ONE, **members}.items() if v is not ...}
    return json.dumps({"inputs": [merged]}).encode()


def decode(body: bytes, header_length: int | None = None) -> Inference:
    return decode_infer_request(body, header_length, "m", OPTIONS)


def decode_with(text: dict[str, Any], tail: bytes = b"") -> Inference:
    head = json.dumps(text).encode()
    return decode(head + tail, len(head))


# --- what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["input", "request"])
def test_base64_is_decoded_where_the_content_type_says_so(where: str) -> None:
    part: dict[str, Any] = {"name": "I", "datatype": "BYTES", "shape": [2], "data": ["/w==", ""]}
    other: dict[str, Any] = {"name": "J", "datatype": "BYTES", "shape": [1], "data": ["/w=="]}
    document: dict[str, Any] = {"inputs": [part, other]}
    says = {"content_type": "base64"}
    if where == "input":
        part["parameters"] = says
    else:
        document["parameters"] = says
        other["parameters"] = {"content_type": "str"}
    decoded = decode_infer_request(json.dumps(document).encode(), None, "m", OPTIONS)
    first, second = decoded.request.payload.tensors
    assert first.array.tolist() == [b"\xff", b""]
    assert second.array.tolist() == [b"/w=="]
    part["data"] = ["a", "%"]
    with pytest.raises(InvalidRequest, match="its element 0 is not base64"):
        decode_infer_request(json.dumps(document).encode(), None, "m", OPTIONS)


@pytest.mark.parametrize("kind", ["np", "str", "pd", "datetime", 7])
def test_other_content_types_change_nothing(kind: Any) -> None:
    part = {"name": "I", "datatype": "BYTES", "shape": [1], "data": ["/w=="],
            "parameters": {"content_type": kind}}  # fmt: skip
    decoded = decode_infer_request(json.dumps({"inputs": [part]}).encode(), None, "m", OPTIONS)
    assert decoded.request.payload.tensors[0].array.tolist() == [b"/w=="]


@pytest.mark.parametrize("where", ["input", "request"])
@pytest.mark.parametrize(
    ("kind", "data", "element"), [("str", "é", "é".encode()), ("base64", "/w==", b"\xff")]
)
def test_a_text_may_stand_for_a_list_of_one_where_the_content_type_says_so(
    where: str, kind: str, data: str, element: bytes
) -> None:
    part: dict[str, Any] = {"name": "I", "datatype": "BYTES", "shape": [1], "data": data}
    asked: dict[str, Any] = {"inputs": [part]}
    (part if where == "input" else asked)["parameters"] = {"content_type": kind}
    template = TemplateReader()
    for _ in range(3):
        body = json.dumps(asked).encode()
        for decoded in (
            decode_infer_request(body, None, "m", OPTIONS),
            template.decode(body, "m", OPTIONS),
        ):
            assert decoded.request.payload.tensors[0].array.tolist() == [element]
    del (part if where == "input" else asked)["parameters"]
    with pytest.raises(InvalidRequest, match="Unable to parse 'data': attempt to access JSON"):
        decode_infer_request(json.dumps(asked).encode(), None, "m", OPTIONS)


def test_a_text_may_stand_alone_beside_numbers_that_are_read_the_exact_way() -> None:
    number = {"name": "N", "datatype": "FP32", "shape": [1], "data": [float("nan")]}
    part = {"name": "I", "datatype": "BYTES", "shape": [1], "data": "a"}
    body = {"inputs": [number, part], "parameters": {"content_type": "str"}}
    decoded = decode_infer_request(json.dumps(body).encode(), None, "m", OPTIONS)
    assert decoded.request.payload.tensors[1].array.tolist() == [b"a"]


def test_a_text_is_one_text_and_of_texts_only() -> None:
    part = {"name": "I", "datatype": "BYTES", "shape": [2], "data": "a"}
    body: dict[str, Any] = {"inputs": [part], "parameters": {"content_type": "str"}}
    with pytest.raises(InvalidRequest, match="Shape does not match true shape of 'data' field"):
        decode_infer_request(json.dumps(body).encode(), None, "m", OPTIONS)
    part.update(datatype="FP32", shape=[1])
    with pytest.raises(InvalidRequest, match="attempt to access JSON non-array as array"):
        decode_infer_request(json.dumps(body).encode(), None, "m", OPTIONS)


@pytest.mark.parametrize("leaf", [b"1.0", b"NaN"])
def test_the_depth_of_a_request_is_the_operators_to_say(leaf: bytes) -> None:
    depth = DEEPEST - 3
    data = b"[" * depth + leaf + b"]" * depth
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":' + data + b"}]}"
    deep = CodecOptions(max_json_depth=DEEPEST)
    tensor = decode_infer_request(body, None, "m", deep).request.payload.tensors[0]
    assert tensor.array.shape == (1,)
    for most in (100, depth + 2):
        with pytest.raises(InvalidRequest, match=rf"exceeds maximum allowed limit \({most}\)"):
            decode_infer_request(body, None, "m", CodecOptions(max_json_depth=most))


def test_a_request_in_json() -> None:
    inference = decode(
        b'{"id":"42","parameters":{"temperature":0.5,"name":"x","deep":true,"n":3},'
        b'"inputs":[{"name":"A","shape":[1,2],"datatype":"FP32","data":[1.5,-2]},'
        b'{"name":"B","shape":[1],"datatype":"BYTES","data":["\xc3\xa9"],"unknown":{"a":[1]}}],'
        b'"unknown":[]}'
    )
    request = inference.request
    a, b = request.payload.tensors
    assert request.id == "42"
    assert request.parameters == {"temperature": 0.5, "name": "x", "deep": True, "n": 3}
    assert request.outputs == ()
    assert (a.name, a.datatype, a.array.tolist()) == ("A", dtypes.FP32, [[1.5, -2]])
    assert (b.name, b.datatype, b.array.tolist()) == ("B", dtypes.BYTES, ["é".encode()])
    assert not inference.is_binary
    assert inference.forms is None


def test_a_request_with_binary_and_json_inputs_mixed() -> None:
    inference = decode_with(
        {
            "inputs": [
                {"name": "A", "shape": [2], "datatype": "INT16",
                 "parameters": {"binary_data_size": 4}},
                {"name": "B", "shape": [1], "datatype": "INT8", "data": [7], "parameters": {}},
                {"name": "C", "shape": [1], "datatype": "BYTES",
                 "parameters": {"binary_data_size": 5}},
                {"name": "D", "shape": [0], "datatype": "FP64",
                 "parameters": {"binary_data_size": 0}},
            ],
            "parameters": {"binary_data_output": True},
        },
        b"\1\0\2\0" + b"\1\0\0\0\xff",
    )  # fmt: skip
    values = [tensor.array.tolist() for tensor in inference.request.payload.tensors]
    assert values == [[1, 2], [7], [b"\xff"], []]
    assert inference.is_binary


def test_bodies_may_lie_in_any_buffer() -> None:
    head = json.dumps({"inputs": [{"name": "A", "shape": [2], "datatype": "INT16",
                                   "parameters": {"binary_data_size": 4}}]}).encode()  # fmt: skip
    body = head + b"\1\0\2\0"
    for buffer in (body, bytearray(body), memoryview(body), memoryview(bytearray(body))):
        inference = decode_infer_request(buffer, len(head), "m", OPTIONS)
        (tensor,) = inference.request.payload.tensors
        assert tensor.array.tolist() == [1, 2]
        # A body that may be written to is the request's alone, and so are views on it.
        assert tensor.array.flags.writeable == (not memoryview(buffer).readonly)
    whole = document()
    for buffer in (bytearray(whole), memoryview(whole)):
        assert decode_infer_request(buffer, None, "m", OPTIONS).request.payload.tensors


def test_a_header_length_of_the_whole_body_is_fine() -> None:
    body = document()
    assert decode(body, len(body)).request.payload.tensors[0].array.tolist() == [1, 2]


def test_not_numbers_are_read_beside_everything_else() -> None:
    inference = decode(
        b'{"id":"n","inputs":[{"name":"A","shape":[3],"datatype":"FP32",'
        b'"data":[NaN,[-Infinity],1]}],"outputs":[{"name":"O"}],"parameters":{"a":1}}'
    )
    array = inference.request.payload.tensors[0].array
    assert np.isnan(array[0])
    assert array[1:].tolist() == [-np.inf, 1]
    assert (inference.request.id, inference.request.outputs) == ("n", ["O"])
    assert inference.request.parameters == {"a": 1}


def test_listed_outputs_decide_by_themselves_whether_they_are_binary() -> None:
    inference = decode(
        document(
            parameters={"binary_data_output": True},
            outputs=[
                {"name": "A"},
                {"name": "B", "parameters": {"binary_data": True}},
                {"name": "C", "parameters": {"binary_data": False, "classification": 3}},
                {"name": "D", "parameters": {"classification": 0}},
            ],
        )
    )
    assert inference.request.outputs == ["A", "B", "C", "D"]
    assert not inference.is_binary
    assert inference.has_classes
    forms = inference.forms or {}
    assert {name: (f.is_binary, f.classes) for name, f in forms.items()} == {
        "A": (False, 0),
        "B": (True, 0),
        "C": (False, 3),
        "D": (False, 0),
    }


def test_no_outputs_listed_is_the_same_as_an_empty_list() -> None:
    inference = decode(document(outputs=[], parameters={"binary_data_output": True}))
    assert inference.is_binary
    assert inference.forms is None


def test_reserved_parameters_are_acted_on_and_not_handed_to_the_model() -> None:
    request = decode(
        document(
            parameters={
                "sequence_id": 7,
                "sequence_start": True,
                "sequence_end": False,
                "priority": 2,
                "timeout": 5000,
                "headers": {"a": "b"},
                "binary_data_output": False,
                "kept": 1,
            }
        )
    ).request
    assert (request.sequence_id, request.sequence_start, request.sequence_end) == (7, True, False)
    assert (request.priority, request.timeout_us) == (2, 5000)
    assert request.parameters == {"kept": 1}
    assert decode(document(parameters={"sequence_id": "s"})).request.sequence_id == "s"


# --- what is refused ------------------------------------------------------------------------

UNSIGNED = "attempt to access JSON non-unsigned-integer as unsigned-integer"

NOT_SCALAR: tuple[Any, ...] = ({}, [], None)

REFUSED: list[tuple[bytes, str]] = [
    (b"", "failed to parse the request JSON buffer: Expecting value at 0"),
    (b"{", "failed to parse the request JSON buffer: "),
    (b"[]", "attempt to get members for non-object"),
    (b"{}", "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
    (b'{"inputs":1}', "Unable to parse 'inputs': attempt to access JSON non-array as array"),
    (b'{"inputs":[1]}', "attempt to get members for non-object"),
    (input_with(name=...), "Unable to parse 'name': attempt to access non-existing object member"),
    (input_with(datatype=...), "Unable to parse 'datatype': attempt to access non-existing"),
    (input_with(shape=...), "Unable to parse 'shape': attempt to access non-existing"),
    (input_with(name=1), "Unable to parse 'name': attempt to access JSON non-string as string"),
    (input_with(datatype=None), "Unable to parse 'datatype': attempt to access JSON non-string"),
    (input_with(shape=2), "Unable to parse 'shape': attempt to access JSON non-array as array"),
    (input_with(shape=[-1]), f"Unable to parse 'shape': {UNSIGNED}"),
    (input_with(shape=[2.0]), f"Unable to parse 'shape': {UNSIGNED}"),
    (input_with(shape=["2"]), f"Unable to parse 'shape': {UNSIGNED}"),
    (input_with(shape=[True]), f"Unable to parse 'shape': {UNSIGNED}"),
    (input_with(shape=[2**63]), f"Unable to parse 'shape': {UNSIGNED}"),
    (input_with(data=3), "Unable to parse 'data': attempt to access JSON non-array as array"),
    (input_with(data=None), "Unable to parse 'data': attempt to access JSON non-array as array"),
    (input_with(data=[1]), "Unable to parse 'data': Shape does not match true shape of 'data'"),
    (input_with(data=["1", "2"]), "Unable to parse 'data': attempt to access JSON non-number as d"),
    (input_with(datatype="FP8"), "invalid datatype for input I"),
    (input_with(parameters=1), "failed to get request params.: attempt to get members for non-"),
    (document(parameters=[]), "failed to get request params.: attempt to get members for non-obj"),
    (document(id=7), "Unable to parse 'id': attempt to access JSON non-string as string"),
    (document(outputs={}), "Unable to parse 'outputs': attempt to access JSON non-array as array"),
    (document(outputs=["O"]), "attempt to get members for non-object"),
    (document(outputs=[{"name": 1}]), "Unable to parse 'name': attempt to access JSON non-string"),
    (
        input_with(data=...),
        "Input must set only one of the following fields: 'data', 'binary_data_size' in "
        "'parameters', 'shared_memory_region' in 'parameters'. But no field is set",
    ),
    (
        input_with(data=..., parameters={"other": 1}),
        "Input must set only one of the following fields: 'data', 'binary_data_size' in "
        "'parameters', 'shared_memory_region' in 'parameters'. But no field is set",
    ),
    (
        input_with(parameters={"binary_data_size": 8}),
        "Input must set only one of the following fields: 'data', 'binary_data_size' in "
        "'parameters', 'shared_memory_region' in 'parameters'. But set 'data', 'binary_data_size'",
    ),
    *(
        (
            input_with(data=..., parameters={"binary_data_size": value}),
            f"Unable to parse 'binary_data_size': {UNSIGNED}",
        )
        for value in (-1, "8", 8.0, None, True)
    ),
    (
        input_with(data=..., parameters={"binary_data_size": 8}),
        "unexpected size for input 'I', expecting 8 additional bytes for model 'm'",
    ),
    *(
        (document(parameters={key: -1}), f"Unable to parse '{key}': {UNSIGNED}")
        for key in ("sequence_id", "priority", "timeout")
    ),
    *(
        (
            document(parameters={key: 1}),
            f"Unable to parse '{key}': attempt to access JSON non-boolean as boolean",
        )
        for key in ("sequence_start", "sequence_end", "binary_data_output")
    ),
    (
        document(outputs=[{"name": "O", "parameters": {"binary_data": 1}}]),
        "Unable to parse 'binary_data': attempt to access JSON non-boolean as boolean",
    ),
    (
        document(outputs=[{"name": "O", "parameters": {"classification": "3"}}]),
        f"Unable to parse 'classification': {UNSIGNED}",
    ),
    (
        document(parameters={"triton_x": 1}),
        "parameter keys starting with 'triton_' are reserved for Triton usage and should not be "
        "specified.",
    ),
    *(
        (
            document(parameters={"p": value}),
            "parameter 'p' has invalid type. It should be either 'int', 'bool', or 'string'.",
        )
        for value in NOT_SCALAR
    ),
    (
        document(
            outputs=[
                {"name": "O", "parameters": {"shared_memory_region": "r", "classification": 1}}
            ]
        ),
        "Output can't set both 'shared_memory_region' and 'classification'",
    ),
    (
        document(
            outputs=[
                {"name": "O", "parameters": {"shared_memory_region": "r", "binary_data": True}}
            ]
        ),
        "Output can't set both 'shared_memory_region' and 'binary_data'",
    ),
    (
        input_with(shape=[2**20, 17]),
        f"JSON input 'I' has a byte_size ({2**22 * 17} bytes) that exceeds the maximum allowed "
        "value of 67108864 bytes. Use --http-max-input-size to increase the limit.",
    ),
    (
        input_with(shape=[2**62, 2**62]),
        "byte size overflow for input 'I': shape",
    ),
    (
        input_with(shape=[2] * 100_000),
        f"invalid shape for input 'I': shape [{'2,' * 32}...] has 100000 dimensions, and "
        "at most 32 are accepted",
    ),
    (
        input_with(datatype="BYTES", shape=[2**62, 2**62], data=["a"]),
        "invalid shape for input 'I': shape [4611686018427387904,4611686018427387904] causes "
        "total element count to exceed maximum size of 9223372036854775807",
    ),
    (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "JSON nesting depth exceeds maximum allowed limit"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "text"), REFUSED, ids=range(len(REFUSED)))
def test_bad_requests_are_refused_with_the_text_that_clients_know(body: bytes, text: str) -> None:
    for length in (None, len(body)) if body else (None,):
        with pytest.raises(InvalidRequest) as caught:
            decode(body, length)
        assert str(caught.value).startswith(text)
        assert not isinstance(caught.value, InvalidInference)


def test_bytes_that_no_input_takes_are_refused() -> None:
    body = document()
    with pytest.raises(InvalidRequest, match=r"^unexpected additional input data for model 'm'"):
        decode(body + b"x", len(body))
    sized = input_with(data=..., parameters={"binary_data_size": 8})
    with pytest.raises(InvalidRequest, match=r"^unexpected size for input 'I', expecting 1 addit"):
        decode(sized + bytes(7), len(sized))


@pytest.mark.parametrize("length", [-1, 100_000, -(2**70)])
def test_header_lengths_beyond_the_body_are_refused(length: int) -> None:
    body = document()
    with pytest.raises(InvalidRequest) as caught:
        decode(body, length)
    assert str(caught.value).startswith(
        f"inference header size should be in range (0, {len(body)}), got: {length}"
    )


def test_header_lengths_are_numbers() -> None:
    assert parse_header_length(None) is None
    assert parse_header_length("17") == 17
    assert parse_header_length("-1") == -1
    for text in ("x", "", "1.0", "1_0", "²", "9" * 5000):
        with pytest.raises(InvalidRequest, match=r"^inference header size should be in range"):
            parse_header_length(text)


def test_names_are_unique() -> None:
    with pytest.raises(InvalidInference, match=r"^input 'I' already exists in request$"):
        decode(document(inputs=[ONE, ONE]))
    with pytest.raises(InvalidInference, match=r"^output 'O' already exists in request$"):
        decode(document(outputs=[{"name": "O"}, {"name": "P"}, {"name": "O"}]))


def test_what_lies_in_shared_memory_is_left_to_be_read() -> None:
    memory = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    at = {**memory, "shared_memory_offset": 16}
    second = {"name": "J", "datatype": "FP32", "shape": [2], "parameters": at}
    outputs = [{"name": "O", "parameters": memory}, {"name": "P"}]
    inference = decode(document(inputs=[ONE, second], outputs=outputs))
    (given,) = inference.region_inputs
    assert (given.position, given.name, given.span) == (1, "J", Span("r", 16, 8))
    assert inference.has_spans
    assert inference.forms is not None
    assert inference.forms["O"].span == Span("r", 0, 8)
    assert inference.forms["P"].span is None


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"shared_memory_region": 1}, "'shared_memory_region': attempt to access JSON non-string"),
        (
            {"shared_memory_region": "r"},
            "'shared_memory_byte_size': attempt to access non-existing object member",
        ),
        (
            {"shared_memory_region": "r", "shared_memory_byte_size": -1},
            "'shared_memory_byte_size': attempt to access JSON non-unsigned-integer",
        ),
        (
            {
                "shared_memory_region": "r",
                "shared_memory_byte_size": 1,
                "shared_memory_offset": 0.5,
            },
            "'shared_memory_offset': attempt to access JSON non-unsigned-integer",
        ),
    ],
)
def test_a_part_of_a_region_is_named_in_full(parameters: dict[str, Any], text: str) -> None:
    for body in (
        input_with(data=..., parameters=parameters),
        document(outputs=[{"name": "O", "parameters": parameters}]),
    ):
        with pytest.raises(InvalidRequest, match=f"^Unable to parse {text}"):
            decode(body)


def test_json_is_bounded() -> None:
    options = CodecOptions(max_json_bytes=100)
    body = document(id="x" * 100)
    with pytest.raises(
        InvalidRequest,
        match=f"^request JSON size of {len(body)} bytes exceeds the maximum allowed input size of",
    ):
        decode_infer_request(body, None, "m", options)


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_short_floats_in_json_are_taken_unless_strict(name: str) -> None:
    body = input_with(datatype=name)
    assert decode(body).request.payload.tensors[0].datatype.name == name
    strict = CodecOptions(is_strict=True)
    with pytest.raises(
        InvalidRequest,
        match=f"^receiving {name} data via JSON is not supported. Please use the binary data",
    ):
        decode_infer_request(body, None, "m", strict)
    encoder = ResponseEncoder("m", "1", is_strict=True)
    datatype = DATATYPE_BY_NAME[name]
    response = Response([Tensor("O", datatype, np.zeros(1, datatype.numpy))])
    with pytest.raises(InvalidRequest, match=f"^sending {name} data via JSON is not supported"):
        encoder.encode(response)
    assert encoder.encode(response, is_binary=True)[0]


# --- raw requests ---------------------------------------------------------------------------


def raw(
    body: bytes, dims: tuple[int, ...], datatype: str = "TYPE_FP32", max_batch_size: int = 0
) -> Tensor:
    inputs = (ModelInput(name="I", data_type=datatype, dims=dims),)
    inference = bind_raw(body, ModelConfig(name="m", max_batch_size=max_batch_size, input=inputs))
    assert inference.is_binary
    tensor: Tensor = inference.request.payload.tensors[0]
    return tensor


def test_raw_bodies_take_the_shape_of_the_model() -> None:
    body = np.arange(6, dtype="<f4").tobytes()
    assert raw(body, (6,)).shape == (6,)
    assert raw(body, (2, -1)).array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert raw(body, (-1, 2), max_batch_size=4).shape == (1, 3, 2)
    assert raw(b"", (-1,)).shape == (0,)


def test_raw_strings_are_one_element() -> None:
    assert raw(b"a\xff", (1,), "TYPE_STRING").array.tolist() == [b"a\xff"]
    assert raw(b"", (1,), "TYPE_STRING", 8).array.tolist() == [[b""]]


def test_raw_bodies_of_the_wrong_size_are_a_fault() -> None:
    for dims in ((2,), (2, -1)):
        fault = raw(bytes(9), dims).fault
        assert str(fault) == (
            "input byte size mismatch for input 'I' for model 'm'. Expected 8, got 9"
        )


def test_raw_requests_need_one_input_whose_shape_follows() -> None:
    with pytest.raises(InvalidRequest) as caught:
        bind_raw(b"", ModelConfig(name="m", input=(ModelInput(), ModelInput())))
    assert str(caught.value) == (
        "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'm' "
        "model configuration"
    )
    with pytest.raises(
        InvalidRequest,
        match=r"^The shape of the raw input 'I' can not be deduced because there are more than one "
        "variable-sized dimension",
    ):
        raw(b"", (-1, -1))
    for dims in ((2,), (-1,), ()):
        if dims:
            with pytest.raises(
                InvalidRequest,
                match=r"^For BYTE datatype raw input 'I', the model must have input shape \[1\]",
            ):
                raw(b"a", dims, "TYPE_STRING")


# --- responses ------------------------------------------------------------------------------


def response(*tensors: tuple[str, DataType, Array]) -> Response:
    return Response([Tensor(*tensor) for tensor in tensors])


TWO = response(
    ("A", dtypes.FP32, np.array([[0.1, 2]], np.float32)),
    ("B", dtypes.BYTES, np.array([b"x", "é".encode()], object)),
)


def written(
    response: Response,
    id: str = "",
    is_binary: bool = False,
    forms: Mapping[str, Form] | None = None,
) -> tuple[int | None, bytes]:
    length, pieces = ResponseEncoder("m", "3").encode(response, id, is_binary, forms)
    return length, b"".join(pieces)


def test_a_response_in_json() -> None:
    assert written(TWO) == (
        None,
        b'{"model_name":"m","model_version":"3","outputs":['
        b'{"name":"A","datatype":"FP32","shape":[1,2],"data":[0.1,2.0]},'
        b'{"name":"B","datatype":"BYTES","shape":[2],"data":["x","\xc3\xa9"]}]}',
    )


def test_a_response_with_bytes_behind_the_json() -> None:
    head = (
        b'{"id":"i\\"d","model_name":"m","model_version":"3","outputs":['
        b'{"name":"A","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},'
        b'{"name":"B","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":11}}]}'
    )
    tail = np.array([0.1, 2], "<f4").tobytes() + b"\1\0\0\0x\2\0\0\0\xc3\xa9"
    assert written(TWO, 'i"d', is_binary=True) == (len(head), head + tail)


def test_forms_decide_for_each_output() -> None:
    length, body = written(TWO, forms={"A": Form(is_binary=True), "B": Form()})
    assert length is not None
    parts = json.loads(body[:length])["outputs"]
    assert parts[0]["parameters"] == {"binary_data_size": 8}
    assert parts[1]["data"] == ["x", "é"]
    assert len(body) - length == 8


def test_outputs_that_were_not_asked_for_are_left_out() -> None:
    _, body = written(TWO, forms={"B": Form()})
    assert [part["name"] for part in json.loads(body)["outputs"]] == ["B"]


def test_binary_outputs_without_bytes_are_plain_json() -> None:
    empty = response(("A", dtypes.FP32, np.zeros((0, 3), np.float32)))
    length, body = written(empty, is_binary=True)
    assert length is None
    assert json.loads(body)["outputs"] == [
        {"name": "A", "datatype": "FP32", "shape": [0, 3], "parameters": {"binary_data_size": 0}}
    ]


def test_parameters_of_a_response_come_before_its_outputs() -> None:
    answer = Response((), {"a": 1, "b": 0.5, "c": True, "d": "x"})
    assert written(answer) == (
        None,
        b'{"model_name":"m","model_version":"3","parameters":{"a":1,"b":0.5,"c":true,"d":"x"},'
        b'"outputs":[]}',
    )


def test_shapes_seen_before_are_not_mixed_up() -> None:
    encoder = ResponseEncoder("m", "1")
    for repeat in range(2):
        for size in range(100):
            array = np.full((size,), repeat, np.int8)
            _, pieces = encoder.encode(response(("O", dtypes.INT8, array)))
            (output,) = json.loads(b"".join(pieces))["outputs"]
            assert output["shape"] == [size]
            assert output["data"] == [repeat] * size


# --- client against server ------------------------------------------------------------------


def through(tensors: list[Tensor], *, is_binary: bool) -> list[Tensor]:
    """Send tensors to an echo in memory, and read them back."""
    request = Request(Tensors(tensors), id="7", parameters={"p": 1})
    length, pieces = encode_infer_request(request, is_binary=is_binary, is_binary_output=is_binary)
    inference = decode(b"".join(pieces), length)
    got = inference.request
    assert (got.id, got.parameters) == ("7", {"p": 1})
    assert [t.fault for t in got.payload.tensors] == [None] * len(tensors)
    answer = Response(got.payload.tensors, {"q": "r"})
    length, pieces = ResponseEncoder("m", "2").encode(answer, got.id, inference.is_binary)
    back = decode_infer_response(b"".join(pieces), length)
    assert (back.id, back.model, back.version) == ("7", "m", "2")
    assert back.response.parameters == {"q": "r"}
    return list(back.response.outputs)


def elements(datatype: DataType) -> st.SearchStrategy[Any]:
    if datatype is dtypes.BYTES:
        return st.sampled_from([b"", b"a", b"\0", '"[{é'.encode(), b"\\" * 300])
    if datatype is dtypes.BOOL:
        return st.booleans()
    width = datatype.item_bytes * 8
    return st.integers(0, 2**width - 1)


def array_of(datatype: DataType, values: list[Any], shape: tuple[int, ...]) -> Array:
    if datatype is dtypes.BYTES or datatype is dtypes.BOOL:
        return np.array(values, datatype.numpy).reshape(shape)
    bits = np.array(values, f"<u{datatype.item_bytes}")
    return bits.view(datatype.numpy).reshape(shape)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(sorted(DATATYPE_BY_NAME)), st.booleans())
def test_every_datatype_survives_the_round_trip(
    data: st.DataObject, name: str, is_binary: bool
) -> None:
    datatype = DATATYPE_BY_NAME[name]
    shape = data.draw(st.sampled_from([(), (0,), (1,), (3,), (2, 0), (1, 1), (2, 3), (1, 70)]))
    count = int(np.prod(shape))
    few = data.draw(st.lists(elements(datatype), min_size=min(count, 6), max_size=min(count, 6)))
    values = (few * 12)[:count]
    sent = array_of(datatype, values, shape)
    (got,) = through([Tensor("T", datatype, sent)], is_binary=is_binary)
    assert (got.name, got.datatype, got.shape) == ("T", datatype, shape)
    assert got.array.shape == shape
    if datatype is dtypes.BYTES:
        assert got.array.tolist() == sent.tolist()
    elif is_binary or name not in ("FP16", "FP32", "FP64", "BF16"):
        assert got.array.tobytes() == sent.tobytes()
    else:
        # JSON has one NaN; all other values keep their bits.
        wide = dtypes.float32_from_bf16(sent) if datatype is dtypes.BF16 else sent
        back = dtypes.float32_from_bf16(got.array) if datatype is dtypes.BF16 else got.array
        kept = ~np.isnan(wide)
        assert (np.isnan(back) == ~kept).all()
        assert got.array[kept].tobytes() == sent[kept].tobytes()


def test_binary_is_any_bytes_and_json_says_what_to_do() -> None:
    tensor = Tensor("T", dtypes.BYTES, np.array([b"\xff\0"], object))
    assert through([tensor], is_binary=True)[0].array.tolist() == [b"\xff\0"]
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        through([tensor], is_binary=False)


def test_a_client_asks_for_outputs_sequences_and_priority() -> None:
    request = Request(Tensors([]), outputs=["A", "B"])
    request.sequence_id = "s"
    request.sequence_start = True
    request.priority = 1
    request.timeout_us = 9
    length, pieces = encode_infer_request(
        request, forms={"A": Form(is_binary=True, classes=2)}, is_binary_output=True
    )
    inference = decode(b"".join(pieces), length)
    got = inference.request
    assert (got.sequence_id, got.sequence_start, got.sequence_end) == ("s", True, False)
    assert (got.priority, got.timeout_us, got.outputs) == (1, 9, ["A", "B"])
    forms = inference.forms or {}
    assert (forms["A"].is_binary, forms["A"].classes, forms["B"].is_binary) == (True, 2, False)


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None),
        (b"<html>", None),
        (b"{}", None),
        (b"{}", 3),
        (b"{}", 0),
        (b'{"outputs":[{"name":"A","datatype":"FP32","shape":[1]}]}', None),
        (b'{"outputs":[{"name":"A","datatype":"X","shape":[1],"data":[1]}]}', None),
        (b'{"outputs":[{"name":"A","datatype":"FP32","shape":[1],"data":["1"]}]}', None),
        (b'{"outputs":[{"name":"A","datatype":"FP32","shape":[1],"parameters":'
         b'{"binary_data_size":4}}]}', None),
        (b'{"outputs":[{"name":"A","datatype":"FP32","shape":[1],"parameters":'
         b'{"binary_data_size":"4"}}]}', None),
        (b'{"outputs":[]}x', 14),
    ],
)  # fmt: skip
def test_answers_that_are_none_are_the_servers_fault(body: bytes, length: int | None) -> None:
    with pytest.raises(BadAnswer):
        decode_infer_response(body, length)


def test_answers_with_words_for_no_number_are_read() -> None:
    answer = decode_infer_response(
        b'{"model_name":"m","outputs":[{"name":"A","datatype":"FP32","shape":[1],"data":[NaN]}]}',
        None,
    )
    assert np.isnan(answer.response.outputs[0].array[0])


# --- damaged bodies -------------------------------------------------------------------------

WHOLE: list[tuple[bytes, int | None]] = []
for _is_binary in (False, True):
    _tensors = [
        Tensor("A", dtypes.FP32, np.array([[1.5, 2.5]], np.float32)),
        Tensor("B", dtypes.BYTES, np.array([b"xy", b""], object)),
    ]
    _length, _pieces = encode_infer_request(
        Request(Tensors(_tensors), id="1", outputs=["O"]), is_binary=_is_binary
    )
    WHOLE.append((b"".join(_pieces), _length))


@pytest.mark.parametrize(("body", "length"), WHOLE, ids=["json", "binary"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda body, at: body[:at],
        lambda body, at: body[:at] + body[at + 1 :],
        lambda body, at: body[:at] + b"\x00" + body[at + 1 :],
        lambda body, at: body[:at] + b"\xff" + body[at:],
        lambda body, at: body[:at] + b"]" + body[at:],
    ],
    ids=["cut", "dropped", "zeroed", "inserted", "closed"],
)
def test_damage_at_any_byte_gives_a_request_or_an_error_of_ours(
    body: bytes, length: int | None, damage: Callable[[bytes, int], bytes]
) -> None:
    for at in range(len(body)):
        damaged = damage(body, at)
        try:
            inference = decode(damaged, length)
        except InvalidRequest:
            continue
        assert isinstance(inference, Inference)


@pytest.mark.parametrize("kind", ["FP32", "FP16", "BF16", "INT64", "BOOL", "BYTES"])
def test_long_answers_are_left_to_a_thread_and_are_the_same(kind: str) -> None:
    """One call for all of their values would hold up everybody else."""
    datatype = DATATYPE_BY_NAME[kind]
    count = LONG_VALUES + 1
    array = np.full(count, b"x", object) if kind == "BYTES" else np.ones(count, datatype.numpy)
    response = Response([Tensor("O", datatype, array)])
    encoder = ResponseEncoder("m", "1")
    for forms in (None, {"O": Form()}):
        for _ in range(2):
            with pytest.raises(LongAnswer):
                encoder.encode(response, forms=forms)
    length, pieces = encoder.encode_long(response, "7")
    assert length is None
    assert len(pieces) > 10
    answer = json.loads(b"".join(pieces))
    (output,) = answer["outputs"]
    assert (answer["id"], output["shape"], len(output["data"])) == ("7", [count], count)
    small = json.loads(b"".join(encoder.encode(
        Response([Tensor("O", datatype, array[:1])]))[1]))  # fmt: skip
    assert set(output["data"]) == set(small["outputs"][0]["data"])


def test_several_outputs_may_be_long_together() -> None:
    half = np.zeros(LONG_VALUES // 2 + 1, np.float32)
    outputs = [Tensor(name, dtypes.FP32, half) for name in "AB"]
    encoder = ResponseEncoder("m", "1")
    with pytest.raises(LongAnswer):
        encoder.encode(Response(outputs))
    answer = json.loads(b"".join(encoder.encode_long(Response(outputs), forms={"B": Form()})[1]))
    assert [output["name"] for output in answer["outputs"]] == ["B"]


def test_long_binary_outputs_are_written_at_once() -> None:
    array = np.zeros(LONG_VALUES + 1, np.float32)
    response = Response([Tensor("O", dtypes.FP32, array)])
    length, pieces = ResponseEncoder("m", "1").encode(response, is_binary=True)
    assert length is not None
    assert sum(map(len, pieces)) == length + array.nbytes
