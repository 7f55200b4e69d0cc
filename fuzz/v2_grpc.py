"""Feed anything to the readers of V2 gRPC messages.

The invariant: whatever the bytes, a reader gives a request or raises a ``ModelportError`` with a
text that can be sent, and nothing else. What protobuf reads of the same bytes is what ours reads:
the names, the parameters, the typed values, and the raw inputs byte for byte. A reader that has
seen other messages before says the same as one that has not. A tensor without a fault has an array
of exactly the shape and datatype that it announces, and written as a response it is one that
protobuf reads back. The work is bounded by the bytes that came, not by the numbers in them.

    python -m fuzz.v2_grpc [RUNS]           with a plain mutator of its own
    python -m fuzz.v2_grpc --atheris ...    guided by coverage, with libFuzzer's options;
                                            needs `pip install atheris`
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from fuzz import harness
from modelport import dtypes
from modelport.errors import ModelportError
from modelport.messages import Response
from modelport.tensors import Tensor
from modelport.wire import v2_grpc_admin as admin
from modelport.wire.grpc_reflection import answer_question
from modelport.wire.proto import grpc_service_pb2 as pb
from modelport.wire.protobuf import Malformed, cut, field
from modelport.wire.v2_bytes import encode_array
from modelport.wire.v2_grpc import (
    Message,
    MessageReader,
    ResponseEncoder,
    encode_stream_response,
    has_much_to_read,
    read_message,
)

TWO = np.array([1, 2.5], "<f4").tobytes()


def _parameters(**values: pb.InferParameter) -> dict[str, pb.InferParameter]:
    return values


def _message(**members: Any) -> bytes:
    return pb.ModelInferRequest(model_name="m", **members).SerializeToString()


_RAW = {"name": "A", "datatype": "FP32", "shape": [1, 2]}

SEEDS = (
    _message(inputs=[_RAW], raw_input_contents=[TWO]),
    _message(id="7", model_version="3", inputs=[_RAW], raw_input_contents=[TWO]),
    _message(
        inputs=[_RAW, {"name": "B", "datatype": "BYTES", "shape": [2]}],
        outputs=[
            {
                "name": "O",
                "parameters": _parameters(classification=pb.InferParameter(int64_param=3)),
            }
        ],
        raw_input_contents=[TWO, b"\2\0\0\0ab\0\0\0\0"],
    ),
    _message(
        inputs=[
            {
                "name": "A",
                "datatype": "INT8",
                "shape": [2],
                "contents": {"int_contents": [-128, 127]},
            },
            {
                "name": "B",
                "datatype": "BYTES",
                "shape": [1],
                "contents": {"bytes_contents": [b"\xff\0"]},
            },
            {
                "name": "C",
                "datatype": "FP64",
                "shape": [2, 1],
                "contents": {"fp64_contents": [0.5, float("nan")]},
            },
        ],
        parameters=_parameters(
            sequence_id=pb.InferParameter(int64_param=5),
            sequence_start=pb.InferParameter(bool_param=True),
            priority=pb.InferParameter(uint64_param=1),
            triton_enable_empty_final_response=pb.InferParameter(bool_param=True),
            mine=pb.InferParameter(double_param=0.5),
        ),
    ),
    _message(
        inputs=[
            {
                "name": "A",
                "datatype": "FP32",
                "shape": [2],
                "parameters": _parameters(
                    shared_memory_region=pb.InferParameter(string_param="r"),
                    shared_memory_byte_size=pb.InferParameter(int64_param=8),
                ),
            },
            {"name": "B", "datatype": "BOOL", "shape": [3]},
        ],
        raw_input_contents=[b"\0\1\2"],
    ),
    pb.RepositoryModelLoadRequest(
        model_name="m",
        parameters={
            "config": pb.ModelRepositoryParameter(string_param="{}"),
            "file:1/a": pb.ModelRepositoryParameter(bytes_param=b"\0"),
        },
    ).SerializeToString(),
)

WORDS = (
    b"\x3a", b"\x3a\x00", b"\x3a\x08", b"\x1a\x01x", b"\x2a", b"\x0a\x01m", b"\x0b", b"\x0c",
    b"\xba\x00\x01x", b"\x80", b"\x80\x80", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x7f", b"\x08",
    b"\x09", b"\x0d", b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x1a\x09" + b"\xff" * 9,
    b"FP32", b"BYTES", b"BF16", b"UINT64", b"BOOL", b"\xff\xfe", b"\xed\xa0\x80", b"triton_",
    b"shared_memory_region", b"classification", b"\x00" * 8, b"\xff\xff\xff\xff",
)  # fmt: skip


_UNUSED_WIRE_TYPES = "wire type"

# Bytes that are no text may be quoted.
attempt = partial(harness.attempt, errors="surrogateescape")
check_text = partial(harness.check_text, errors="surrogateescape")


def check(data: bytes) -> None:
    """Hold the invariant on one input.

    Raises:
        Exception: Whatever broke it.
    """
    with harness.in_time():
        _against_protobuf(data)
        _remembering(data)
        attempt(lambda: _echo(read_message(data)))
        attempt(lambda: has_much_to_read(data, 8))
        attempt(lambda: admin.decode_index_request(data))
        attempt(lambda: admin.decode_load_request(data))
        attempt(lambda: admin.decode_unload_request(data))
        attempt(lambda: admin.decode_registration(data))
        attempt(lambda: admin.decode_cuda_registration(data))
        attempt(lambda: answer_question(data, ["a.B"]))


def mutations(seed: int) -> Iterator[bytes]:
    """Give inputs without end."""
    return harness.mutations(seed, SEEDS, WORDS)


def _against_protobuf(data: bytes) -> None:
    try:
        whole = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        whole = None
    try:
        left, places = cut(data, {7})
        message = read_message(data)
    except Malformed as exc:
        refusal = str(exc)
    else:
        refusal = ""
    if refusal:
        # Groups are the one thing that protobuf passes over and we do not.
        assert whole is None or _UNUSED_WIRE_TYPES in refusal, f"{refusal}, but protobuf reads it"
        return
    assert whole is not None, "protobuf does not read it"
    raws = [data[start:end] for _, start, end in places]
    assert raws == list(whole.raw_input_contents)
    put_together = left + b"".join(field(7, raw) for raw in raws)
    again = pb.ModelInferRequest.FromString(put_together)
    assert again.SerializeToString(deterministic=True) == whole.SerializeToString(
        deterministic=True
    )
    head = message.head
    assert (head.model, head.version or "", message.id) == (
        whole.model_name,
        whole.model_version,
        whole.id,
    )
    if head.fault is None:
        assert [part.name for part in head.parts] == [one.name for one in whole.inputs]
        assert list(head.outputs) == [one.name for one in whole.outputs]


def _remembering(data: bytes) -> None:
    """Read after each of the seeds what is like it or not; nothing of it may stay."""
    fresh = _outcome(lambda: read_message(data))
    reader = MessageReader()
    for seed in SEEDS[:4]:
        reader.read(seed)
        assert _outcome(lambda: reader.read(data)) == fresh


def _outcome(read: Callable[[], Message]) -> object:
    try:
        message = read()
        request = message.bind()
    except ModelportError as exc:
        return str(exc)
    tensors = [
        (t.name, t.datatype, t.shape, str(t.fault), t.array.dtype, t.array.tobytes())
        for t in request.payload.tensors
        if t.datatype is not dtypes.BYTES
    ]
    strings = [
        t.array.ravel().tolist() for t in request.payload.tensors if t.datatype is dtypes.BYTES
    ]
    rest = (request.id, repr(request.parameters), list(request.outputs), request.sequence_id)
    return tensors, strings, rest, message.head.classes, message.head.spans


def _echo(message: Message) -> None:
    """Write what was read, and have protobuf read it."""
    request = message.bind()
    elsewhere = {one.name for one in message.head.region_inputs}
    tensors = [one for one in request.payload.tensors if one.name not in elsewhere]
    for tensor in tensors:
        _check_tensor(tensor)
    good = [tensor for tensor in tensors if tensor.fault is None]
    encoder = ResponseEncoder("m", "1")
    pieces = encoder.encode(Response(good, request.parameters), request.id, is_final=True)
    wrapped = b"".join(encode_stream_response(pieces))
    answer = pb.ModelStreamInferResponse.FromString(wrapped).infer_response
    assert answer.id == request.id
    assert answer.parameters.keys() == {*request.parameters, "triton_final_response"}
    assert len(answer.outputs) == len(answer.raw_output_contents) == len(good)
    for tensor, output, raw in zip(good, answer.outputs, answer.raw_output_contents, strict=True):
        assert (output.name, output.datatype) == (tensor.name, tensor.datatype.name)
        assert tuple(output.shape) == tensor.shape
        assert raw == bytes(encode_array(tensor.array, tensor.datatype))


def _check_tensor(tensor: Tensor) -> None:
    if tensor.fault is not None:
        check_text(tensor.fault)
        return
    assert tensor.array.shape == tensor.shape
    assert tensor.array.dtype == tensor.datatype.numpy
    if tensor.datatype is dtypes.BYTES:
        assert all(type(element) is bytes for element in tensor.array.ravel().tolist())


if __name__ == "__main__":
    harness.main(check, mutations)
