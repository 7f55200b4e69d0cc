"""Feed anything to the readers of V2 REST bodies.

The invariant: whatever the bytes and whatever length the header claims, a reader gives a message or
raises a ``ModelportError`` with a text that can be sent, and nothing else. A tensor without a fault
has an array of exactly the shape and datatype that it announces; what was read can be written, in
JSON or as bytes, and reads back as the same. The work is bounded by the bytes that came, not by the
numbers written in them.

    python -m fuzz.v2_rest [RUNS]           with a plain mutator of its own
    python -m fuzz.v2_rest --atheris ...    guided by coverage, with libFuzzer's options;
                                            needs `pip install atheris`
"""

import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fuzz import harness
from fuzz.harness import attempt, check_text
from modelport import dtypes
from modelport.errors import ModelportError
from modelport.messages import Request, Response
from modelport.specs import ModelConfig, ModelInput
from modelport.tensors import Tensor
from modelport.wire.compression import check_coding, choose_coding, decompress
from modelport.wire.v2_admin import (
    decode_index_request,
    decode_load_request,
    decode_unload_request,
)
from modelport.wire.v2_generate import decode_generate_request, encode_generate_response
from modelport.wire.v2_rest import (
    CodecOptions,
    Inference,
    ResponseEncoder,
    bind_raw,
    decode_infer_request,
    parse_header_length,
)
from modelport.wire.v2_rest_client import BadAnswer, decode_infer_response
from modelport.wire.v2_template import TemplateReader

JSON = b"\x00\x00\x00"


def with_length(text: bytes, tail: bytes) -> bytes:
    """Put the selector of a header length before a body."""
    return b"\x02" + struct.pack("<H", len(text)) + text + tail


SEEDS = (
    JSON
    + b'{"id":"1","inputs":[{"name":"A","shape":[1,3],"datatype":"FP32","data":[1,2.5,-3e5]}]}',
    JSON + b'{"inputs":[{"name":"A","shape":[2,2],"datatype":"INT64","data":[[1,2],[3,'
    b'9223372036854775807]]},{"name":"B","shape":[1],"datatype":"BYTES","data":["\\u00e9\\n"]}],'
    b'"outputs":[{"name":"O","parameters":{"classification":3,"binary_data":false}}],'
    b'"parameters":{"sequence_id":5,"sequence_start":true,"priority":1,"t":0.5,"s":"x"}}',
    JSON + b'{"inputs":[{"name":"A","shape":[3],"datatype":"FP16","data":[NaN,Infinity,[1]]},'
    b'{"name":"B","shape":[2],"datatype":"BOOL","data":[true,false]}]}',
    JSON + b'{"text":"hi","n":[1,2],"f":0.5,"id":"9","parameters":{"a":1},"x":"y"}',
    JSON
    + b'{"parameters":{"config":"{}","file:1/a":"AAAA","unload_dependents":true},"ready":true}',
    JSON
    + b'{"id":"1","model_name":"m","model_version":"1","outputs":[{"name":"O","datatype":"BF16",'
    b'"shape":[2],"data":[1.0,NaN]}],"parameters":{"p":1}}',
    with_length(
        b'{"inputs":[{"name":"A","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8'
        b'}},{"name":"B","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":10}}],'
        b'"parameters":{"binary_data_output":true}}',
        bytes(8) + b"\2\0\0\0ab\0\0\0\0",
    ),
    with_length(
        b'{"model_name":"m","outputs":[{"name":"O","datatype":"INT8","shape":[3],"parameters":'
        b'{"binary_data_size":3}}]}',
        b"\1\2\3",
    ),
    b"\x01\x00\x00" + bytes(24),
)

WORDS = (
    b"{", b"}", b"[", b"]", b"[]", b":", b",", b'"', b"\\", b"\n", b"\\u", b"\\ud800", b"\\ude00",
    b"null", b"true", b"NaN", b"-Infinity", b"-0", b"-1", b"1e400", b"1e39", b"0.1", b"256", b"01",
    b"9223372036854775808", b"18446744073709551616", b"[" * 101, b"4611686018427387904",
    b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"FP64", b"BF16", b"UINT64", b"BYTES",
    b'"parameters":{', b'"binary_data_size":', b'"data":[', b'"shape":[', b'"shared_memory_region"',
    b"\xff\xff\xff\xff", b"7.038531e-26",
)  # fmt: skip

TEMPLATES = (
    SEEDS[0][3:],
    b'{"inputs":[{"name":"A","shape":[2],"datatype":"INT8","data":[1,2]}],"id":"x"}',
)

CONFIGS = tuple(
    ModelConfig(
        name="m",
        max_batch_size=max_batch_size,
        input=tuple(
            ModelInput(name=name, data_type=data_type, dims=dims)
            for name, data_type, dims in inputs
        ),
    )
    for max_batch_size, inputs in (
        (0, [("text", "TYPE_STRING", (1,))]),
        (8, [("f", "TYPE_FP32", (-1, 2))]),
        (0, [("n", "TYPE_INT64", (-1,))]),
        (4, [("text", "TYPE_STRING", (-1,)), ("n", "TYPE_UINT8", (2,)), ("f", "TYPE_BF16", (-1,))]),
        (0, [("f", "TYPE_BOOL", (0, -1))]),
    )
)

OPTIONS = CodecOptions(max_json_bytes=1 << 16)


def check(data: bytes) -> None:
    """Hold the invariant on one input.

    Raises:
        Exception: Whatever broke it.
    """
    with harness.in_time():
        head, body = data[:3].ljust(3, b"\0"), data[3:]
        length = _header_length(head, len(body))
        attempt(lambda: _infer(body, length))
        attempt(lambda: _answer(body, length))
        _template(body)
        for config in CONFIGS:
            attempt(lambda config=config: _echo(bind_raw(body, config).request))  # type: ignore[misc]
            attempt(lambda config=config: _generate(body, config))  # type: ignore[misc]
        attempt(lambda: decode_load_request(body, "m"))
        attempt(lambda: decode_unload_request(body))
        attempt(lambda: decode_index_request(body))
        for coding in ("gzip", "deflate"):
            attempt(lambda coding=coding: decompress(body, coding, 1 << 16))  # type: ignore[misc]
        text = body[:200].decode("latin-1")
        attempt(lambda: parse_header_length(text))
        attempt(lambda: check_coding(text))
        choose_coding(text)


def mutations(seed: int) -> Iterator[bytes]:
    """Give inputs without end."""
    return harness.mutations(seed, SEEDS, WORDS)


def _header_length(head: bytes, size: int) -> int | None:
    """Choose what the header claims: nothing, a raw request, or any number around the size."""
    (number,) = struct.unpack("<H", head[1:3])
    match head[0] % 4:
        case 0:
            return None
        case 1:
            return 0
        case 2:
            return int(number)
        case _:
            return int(number) % (size + 3) - 1


def _infer(body: bytes, length: int | None) -> None:
    if length == 0:
        return
    inference = decode_infer_request(body, length, "m", OPTIONS)
    _echo(inference.request)


def _template(body: bytes) -> None:
    """Read after each of the seeds what is like it or not; nothing of it may stay."""
    long = _outcome(lambda: decode_infer_request(body, None, "m", OPTIONS))
    for seed in TEMPLATES:
        reader = TemplateReader()
        reader.decode(seed, "m", OPTIONS)
        assert _outcome(lambda: reader.decode(body, "m", OPTIONS)) == long  # noqa: B023


def _outcome(read: Callable[[], Inference]) -> object:
    try:
        inference = read()
    except ModelportError as exc:
        return str(exc)
    request = inference.request
    tensors = [
        (t.name, t.datatype, t.shape, t.array.dtype, t.array.ravel().tolist().__repr__())
        for t in request.payload.tensors
    ]
    return tensors, request.id, request.parameters.__repr__(), list(request.outputs)


def _generate(body: bytes, config: ModelConfig) -> None:
    request = decode_generate_request(body, config, OPTIONS)
    _echo(request)
    encode_generate_response(
        Response(request.payload.tensors, request.parameters), "m", "1", request.id
    )


def _answer(body: bytes, length: int | None) -> None:
    answer = decode_infer_response(body, length)
    _check_tensors(answer.response.outputs)


def _echo(request: Request) -> None:
    """Write what was read, both ways, and read it again."""
    tensors = request.payload.tensors
    _check_tensors(tensors)
    good = [tensor for tensor in tensors if tensor.fault is None]
    for is_binary in (False, True):
        encoder = ResponseEncoder("m", "1")
        response = Response(good, request.parameters)
        try:
            length, pieces = encoder.encode(response, request.id, is_binary)
        except ModelportError as exc:
            check_text(exc)
            assert any(tensor.datatype is dtypes.BYTES for tensor in good)
            continue
        try:
            back = decode_infer_response(b"".join(pieces), length)
        except BadAnswer as exc:
            # Nobody has to read what is nested nearly as deeply as a request may be.
            raise AssertionError(f"written and not readable: {exc}") from exc
        assert back.id == request.id
        for sent, got in zip(good, back.response.outputs, strict=True):
            _check_same(sent, got)


def _check_tensors(tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        tensor.name.encode()
        if tensor.fault is not None:
            check_text(tensor.fault)
            continue
        assert tensor.array.shape == tensor.shape
        assert tensor.array.dtype == tensor.datatype.numpy
        if tensor.datatype is dtypes.BYTES:
            assert all(type(element) is bytes for element in tensor.array.ravel().tolist())


def _check_same(sent: Tensor, got: Tensor) -> None:
    assert (got.name, got.datatype, got.shape) == (sent.name, sent.datatype, sent.shape)
    if sent.datatype is dtypes.BYTES:
        assert got.array.tolist() == sent.array.tolist()
        return
    before, after = (_comparable(tensor) for tensor in (sent, got))
    assert np.array_equal(before, after, equal_nan=before.dtype.kind == "f")


def _comparable(tensor: Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    if tensor.datatype is dtypes.BF16:
        return dtypes.float32_from_bf16(tensor.array)
    return tensor.array


if __name__ == "__main__":
    harness.main(check, mutations)
