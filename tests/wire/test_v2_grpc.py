"""Inference over V2 gRPC, messages in and out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidInference, InvalidRequest, ModelportError
from modelport.messages import Request, Response
from modelport.tensors import Tensor
from modelport.wire.proto import grpc_service_pb2 as pb
from modelport.wire.protobuf import Malformed
from modelport.wire.v2_bytes import encode_array
from modelport.wire.v2_grpc import (
    MessageReader,
    ResponseEncoder,
    encode_stream_error,
    encode_stream_response,
    has_much_to_read,
    read_message,
)
from modelport.wire.v2_regions import Span

TWO = np.array([1, 2], "<f4")


def request(**members: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m", **members)
    if not message.inputs:
        message.inputs.add(name="I", datatype="FP32", shape=[2])
    return message


def raw(**members: Any) -> pb.ModelInferRequest:
    return request(raw_input_contents=[TWO.tobytes()], **members)


def typed(datatype: str, shape: Sequence[int], **contents: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="I", datatype=datatype, shape=shape)
    message.inputs[0].contents.CopyFrom(pb.InferTensorContents(**contents))
    return message


def parameter(value: Any, member: str) -> Any:
    return pb.InferParameter(**{member: value})


def read(message: pb.ModelInferRequest) -> Request:
    return read_message(message.SerializeToString()).bind()


def refused(message: pb.ModelInferRequest) -> ModelportError:
    with pytest.raises(ModelportError) as raised:
        read(message)
    return raised.value


def only(request: Request) -> Tensor:
    tensor: Tensor
    (tensor,) = request.payload.tensors
    return tensor


# Requests.


def test_raw_inputs_become_views_on_the_message() -> None:
    data = raw().SerializeToString()
    tensor = only(read_message(data).bind())
    assert tensor.array.tolist() == [1, 2]
    assert np.shares_memory(tensor.array, np.frombuffer(data, np.uint8))
    assert not tensor.array.flags.writeable


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_message_may_be_any_buffer_and_its_tensors_are_as_writeable(kind: Any) -> None:
    buffer = kind(raw(id="i").SerializeToString())
    tensor = only(MessageReader().read(buffer).bind())
    assert tensor.array.tolist() == [1, 2]
    assert tensor.array.flags.writeable == (not memoryview(buffer).readonly)


@pytest.mark.parametrize("datatype", DATATYPE_BY_NAME.values(), ids=str)
def test_every_datatype_goes_raw(datatype: DataType) -> None:
    array = _example(datatype)
    message = pb.ModelInferRequest(raw_input_contents=[bytes(encode_array(array, datatype))])
    message.inputs.add(name="I", datatype=datatype.name, shape=array.shape)
    tensor = only(read(message))
    assert tensor.fault is None
    assert tensor.datatype is datatype
    assert tensor.array.tolist() == array.tolist()


def _example(datatype: DataType) -> Any:
    if datatype is dtypes.BYTES:
        array = np.empty((1, 2), object)
        array[:] = [[b"a\0", b""]]
        return array
    return np.array([[0, 1]], datatype.numpy)


@pytest.mark.parametrize(
    ("datatype", "member", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 65535]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.5, float("inf")]),
        ("FP64", "fp64_contents", [0.1, -0.0]),
        ("BYTES", "bytes_contents", [b"\xff", b""]),
    ],
)
def test_typed_contents_are_read_exactly(datatype: str, member: str, values: list[Any]) -> None:
    tensor = only(read(typed(datatype, [2, 1], **{member: values})))
    assert tensor.fault is None
    assert tensor.array.dtype == tensor.datatype.numpy
    assert tensor.array.tolist() == [[value] for value in values]


def test_a_tensor_of_nothing_may_be_typed() -> None:
    assert only(read(typed("FP32", [0, 3]))).array.shape == (0, 3)


def test_a_large_request_with_everything_is_read_in_any_order() -> None:
    first = pb.ModelInferRequest(raw_input_contents=[TWO.tobytes()], id="old")
    second = pb.ModelInferRequest(id="new", outputs=[{"name": "O"}], model_version="3")
    data = b"".join(part.SerializeToString() for part in (first, request(), second))
    message = MessageReader().read(data)
    got = message.bind()
    assert (message.head.model, message.head.version) == ("m", "3")
    assert (got.id, list(got.outputs)) == ("new", ["O"])
    assert only(got).array.tolist() == [1, 2]


def test_a_message_without_a_version_asks_for_the_highest() -> None:
    assert read_message(raw().SerializeToString()).head.version is None


def test_parameters_are_taken_or_left_to_the_model() -> None:
    message = raw(
        parameters={
            "sequence_id": parameter(-1, "int64_param"),
            "sequence_start": parameter(True, "bool_param"),
            "sequence_end": parameter(False, "bool_param"),
            "priority": parameter(2, "uint64_param"),
            "timeout": parameter(500, "int64_param"),
            "triton_enable_empty_final_response": parameter(True, "bool_param"),
            "mode": parameter("fast", "string_param"),
            "count": parameter(3, "int64_param"),
            "share": parameter(0.5, "double_param"),
            "flag": parameter(True, "bool_param"),
        }
    )
    read = read_message(message.SerializeToString())
    got = read.bind()
    assert got.sequence_id == 2**64 - 1
    assert (got.sequence_start, got.sequence_end) == (True, False)
    assert (got.priority, got.timeout_us) == (2, 500)
    assert read.head.wants_empty_final
    assert got.parameters == {"mode": "fast", "count": 3, "share": 0.5, "flag": True}


def test_a_sequence_may_have_a_name() -> None:
    message = raw(parameters={"sequence_id": parameter("call-7", "string_param")})
    assert read(message).sequence_id == "call-7"


def test_outputs_may_be_wanted_as_classes() -> None:
    message = raw(
        outputs=[
            {"name": "O", "parameters": {"classification": parameter(3, "int64_param")}},
            {"name": "P", "parameters": {"classification": parameter(0, "int64_param")}},
        ]
    )
    head = read_message(message.SerializeToString()).head
    assert head.outputs == ["O", "P"]
    assert head.classes == {"O": 3}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("sequence_id", parameter(True, "bool_param"), "expected int64_param or string_param."),
        ("sequence_start", parameter(1, "int64_param"), "expected bool_param."),
        ("sequence_end", parameter("", "string_param"), "expected bool_param."),
        ("priority", parameter("1", "string_param"), "expected int64_param or uint64_param."),
        ("timeout", parameter(1, "double_param"), "expected int64_param."),
        ("mine", pb.InferParameter(), "expected int64_param, bool_param, or string_param."),
    ],
)
def test_a_parameter_of_the_wrong_type_is_refused(key: str, value: Any, text: str) -> None:
    error = refused(raw(parameters={key: value}))
    assert str(error) == f"invalid value type for '{key}' parameter, {text}"


@pytest.mark.parametrize("key", ["priority", "timeout"])
def test_a_parameter_below_zero_is_refused(key: str) -> None:
    error = refused(raw(parameters={key: parameter(-1, "int64_param")}))
    assert str(error) == f"invalid value -1 for '{key}' parameter, expected 0 or more"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            raw(parameters={"triton_mine": parameter(True, "bool_param")}),
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the "
            "following keys starting with 'triton_' are allowed: "
            "triton_enable_empty_final_response",
        ),
        (
            raw(outputs=[{"name": "O", "parameters": {
                "classification": parameter(True, "bool_param")}}]),
            "invalid value type for 'classification' parameter, expected int64_param.",
        ),
        (
            raw(inputs=[{"name": "I", "datatype": "FP32", "shape": [2],
                         "contents": {"fp32_contents": [1, 2]}}]),
            "contents field must not be specified when using raw_input_contents for 'I' for "
            "model 'm'",
        ),
        (request(), "unable to find data for input tensor 'I' for model 'm' in request."),
        (
            typed("FP32", [2]),
            "unable to find data for input tensor 'I' for model 'm' in request.",
        ),
        (
            request(raw_input_contents=[TWO.tobytes(), b""]),
            "unexpected additional input data for model 'm'",
        ),
        (
            typed("INT32", [2], fp32_contents=[1, 2]),
            "unexpected explicit tensor data for input tensor 'I' for model 'm' of type 'FP32', "
            "expected datatype 'INT32'; use int_contents",
        ),
        (
            typed("FP16", [2], fp32_contents=[1, 2]),
            "unexpected explicit tensor data for input tensor 'I' for model 'm' of type 'FP32', "
            "expected datatype 'FP16'; send it in raw_input_contents",
        ),
        (
            typed("FP32", [1], fp32_contents=[1], int_contents=[1]),
            "unexpected explicit tensor data for input tensor 'I' for model 'm', binary data was "
            "already supplied.",
        ),
        (
            typed("UINT8", [2], uint_contents=[0, 256]),
            "value 256 of input 'I' is out of the range of UINT8, 0 to 255",
        ),
        (
            typed("FP32", [-1], fp32_contents=[1]),
            "invalid shape for input 'I': shape [-1] contains one or more invalid dimensions",
        ),
        (
            raw(inputs=[{"name": "I", "datatype": "FP32", "shape": [2**40, 2**40]}]),
            "invalid shape for input 'I': shape [1099511627776,1099511627776] causes total "
            "element count to exceed maximum size of 9223372036854775807",
        ),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(message: pb.ModelInferRequest, text: str) -> None:
    error = refused(message)
    assert isinstance(error, InvalidRequest)
    assert text in str(error)


@pytest.mark.parametrize("kind", ["input", "output"])
def test_a_name_that_occurs_twice_is_refused(kind: str) -> None:
    twice = [{"name": "X"}, {"name": "X"}]
    message = raw(**{f"{kind}s": twice})
    error = refused(message)
    assert isinstance(error, InvalidInference)
    assert str(error) == f"{kind} 'X' already exists in request"


def test_tensors_may_lie_in_shared_memory() -> None:
    def there(offset: int) -> Mapping[str, Any]:
        return {
            "shared_memory_region": parameter("r", "string_param"),
            "shared_memory_byte_size": parameter(8, "int64_param"),
            "shared_memory_offset": parameter(offset, "int64_param"),
        }

    elsewhere = {"name": "S", "datatype": "FP32", "shape": [2], "parameters": there(4)}
    message = raw(
        inputs=[elsewhere, {"name": "I", "datatype": "FP32", "shape": [2]}],
        outputs=[{"name": "O", "parameters": there(16)}],
    )
    read = read_message(message.SerializeToString())
    (region_input,) = read.head.region_inputs
    assert (region_input.name, region_input.position) == ("S", 0)
    assert region_input.span == Span("r", 4, 8)
    assert read.head.spans == {"O": Span("r", 16, 8)}
    assert [tensor.name for tensor in read.bind().payload.tensors] == ["S", "I"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            request(raw_input_contents=[b"1234"]),
            "input byte size mismatch for input 'I' for model 'm'. Expected 8, got 4",
        ),
        (
            typed("FP32", [2], fp32_contents=[1]),
            "input byte size mismatch for input 'I' for model 'm'. Expected 8, got 4",
        ),
        (
            typed("BYTES", [2], bytes_contents=[b""]),
            "expected 2 string elements for inference input 'I' for model 'm', got 1",
        ),
    ],
)
def test_data_of_the_wrong_size_is_the_tensors_fault(
    message: pb.ModelInferRequest, text: str
) -> None:
    assert str(only(read(message)).fault) == text


@pytest.mark.parametrize(
    "message",
    [
        raw(inputs=[{"name": "I", "datatype": "COMPLEX", "shape": [2]}]),
        typed("COMPLEX", [2], fp32_contents=[1, 2]),
    ],
)
def test_an_unknown_datatype_is_left_for_the_engine_to_refuse(
    message: pb.ModelInferRequest,
) -> None:
    tensor = only(read(message))
    assert tensor.datatype.name == "<invalid>"
    assert tensor.fault is not None


@pytest.mark.parametrize("data", [b"\x0a", b"\x2a\x01\xff", b"\x0a\x02\xff\xff", b"\x1a\x01\xff"])
def test_what_is_no_message_is_malformed(data: bytes) -> None:
    for reader in (read_message, MessageReader().read):
        with pytest.raises(Malformed, match="malformed"):
            reader(data)


def test_what_takes_long_to_read_is_told_apart() -> None:
    strings = request(inputs=[{"name": "I", "datatype": "BYTES", "shape": [1]}])
    strings.raw_input_contents.append(bytes(2000))
    numbers = request(raw_input_contents=[bytes(2000)])
    many = typed("FP32", [500], fp32_contents=[0.5] * 500)
    slow = [has_much_to_read(m.SerializeToString(), 1000) for m in (strings, numbers, many, raw())]
    assert slow == [True, False, True, False]


def test_a_reader_gives_what_reading_anew_gives() -> None:
    reader = MessageReader()
    others = [
        raw(),
        raw(),
        raw(id="1"),
        raw(id="2"),
        request(raw_input_contents=[b"1234"]),
        raw(model_version="2"),
        request(raw_input_contents=[TWO.tobytes(), b""]),
        request(raw_input_contents=[bytes(200)]),
        typed("FP32", [2], fp32_contents=[1, 2]),
        request(),
        raw(),
    ]
    for message in others * 2:
        data = message.SerializeToString()
        assert _told(lambda: reader.read(data).bind()) == _told(  # noqa: B023
            lambda: read_message(data).bind()  # noqa: B023
        )


def test_something_behind_the_raw_inputs_is_not_overlooked() -> None:
    reader = MessageReader()
    reader.read(raw().SerializeToString())
    more = pb.ModelInferRequest(outputs=[{"name": "O"}]).SerializeToString()
    assert list(reader.read(raw().SerializeToString() + more).bind().outputs) == ["O"]


def _told(read: Any) -> object:
    try:
        got = read()
    except ModelportError as exc:
        return str(exc)
    tensor = only(got)
    return got.id, tensor.array.tolist(), str(tensor.fault), list(got.outputs)


# Responses.

ENCODER = ResponseEncoder("m", "1")


def answer(pieces: Sequence[Any]) -> pb.ModelInferResponse:
    return pb.ModelInferResponse.FromString(b"".join(pieces))


@pytest.mark.parametrize("datatype", DATATYPE_BY_NAME.values(), ids=str)
@pytest.mark.parametrize("times", [1, 5000])
def test_every_output_goes_raw(datatype: DataType, times: int) -> None:
    array = np.repeat(_example(datatype), times, axis=0)
    tensor = Tensor("O", datatype, array)
    for _ in range(2):
        got = answer(ENCODER.encode(Response([tensor]), "id"))
        assert (got.model_name, got.model_version, got.id) == ("m", "1", "id")
        (output,) = got.outputs
        assert (output.name, output.datatype) == ("O", datatype.name)
        assert tuple(output.shape) == array.shape
        assert not output.HasField("contents")
        assert got.raw_output_contents == [bytes(encode_array(array, datatype))]


def test_a_large_output_is_not_copied() -> None:
    array = np.zeros(5000, "<f4")
    pieces = ENCODER.encode(Response([Tensor("O", dtypes.FP32, array)]))
    assert any(np.shares_memory(np.frombuffer(piece, np.uint8), array) for piece in pieces)


def test_an_output_that_is_no_row_after_row_is_laid_out() -> None:
    array = np.arange(6, dtype="<i4").reshape(2, 3).T
    got = answer(ENCODER.encode(Response([Tensor("O", dtypes.INT32, array)])))
    assert got.raw_output_contents == [np.ascontiguousarray(array).tobytes()]


def test_outputs_stand_in_the_models_order_and_only_those_that_are_wanted() -> None:
    sizes = {"A": 5000, "B": 1, "C": 5000, "D": 2}
    outputs = [Tensor(n, dtypes.FP32, np.full(size, size, "<f4")) for n, size in sizes.items()]
    got = answer(ENCODER.encode(Response(outputs), wanted=["D", "C", "B"]))
    assert [output.name for output in got.outputs] == ["B", "C", "D"]
    assert [len(data) // 4 for data in got.raw_output_contents] == [1, 5000, 2]


def test_a_response_without_outputs_is_one() -> None:
    assert answer(ENCODER.encode(Response([]))) == pb.ModelInferResponse(
        model_name="m", model_version="1"
    )


def test_parameters_of_a_response_keep_their_types() -> None:
    values: Mapping[str, Any] = {
        "t": True, "f": False, "i": -3, "u": 2**63, "h": 2**70, "d": 0.5, "s": "ä", "x": "\ud800",
    }  # fmt: skip
    got = answer(ENCODER.encode(Response([], values), is_final=False)).parameters
    assert got.pop("triton_final_response").bool_param is False
    assert {key: value.WhichOneof("parameter_choice") for key, value in got.items()} == {
        "t": "bool_param",
        "f": "bool_param",
        "i": "int64_param",
        "u": "uint64_param",
        "h": "string_param",
        "d": "double_param",
        "s": "string_param",
        "x": "string_param",
    }
    assert got["i"].int64_param == -3
    assert got["u"].uint64_param == 2**63
    assert got["s"].string_param == "ä"


def test_a_response_of_a_stream_is_wrapped() -> None:
    pieces = ENCODER.encode(Response([Tensor("O", dtypes.FP32, np.zeros(9999, "<f4"))]), "i")
    streamed = pb.ModelStreamInferResponse.FromString(b"".join(encode_stream_response(pieces)))
    assert streamed.infer_response == answer(pieces)
    assert not streamed.error_message


def test_an_error_of_a_stream_says_whose_it_is() -> None:
    data = b"".join(encode_stream_error("no", "m", "i"))
    streamed = pb.ModelStreamInferResponse.FromString(data)
    assert streamed.error_message == "no"
    response = streamed.infer_response
    assert (response.model_name, response.id) == ("m", "i")
    assert response.parameters["triton_final_response"].bool_param is True


def test_the_end_of_a_stream_may_be_a_response() -> None:
    got = answer([ENCODER.encode_empty_final("i")])
    assert (got.model_name, got.model_version, got.id) == ("m", "1", "i")
    assert got.parameters["triton_final_response"].bool_param is True
    assert not got.outputs
