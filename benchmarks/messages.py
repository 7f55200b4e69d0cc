"""V2 messages of gRPC as bytes, written by hand: the generator must not cost what it measures."""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import inputs

_SERVICE = "/inference.GRPCInferenceService/"
INFER = _SERVICE + "ModelInfer"
STREAM_INFER = _SERVICE + "ModelStreamInfer"


@dataclass(frozen=True, slots=True)
class Message:
    """One request message and the check that its response must pass."""

    method: str
    data: bytes
    is_right: Callable[[bytes], bool]


def affine(count: int = 1_000) -> list[Message]:
    """Give FP32[1,10] raw requests to the model that computes 2.5 x + 0.5."""
    generator = np.random.default_rng(inputs.SEED)
    rows = []
    for _ in range(count):
        values = generator.uniform(-100, 100, inputs.TINY_SHAPE).astype(np.float32)
        expected = (values * np.float32(2.5) + np.float32(0.5)).tobytes()
        data = infer_request("affine", "INPUT0", "FP32", inputs.TINY_SHAPE, values.tobytes())
        rows.append(Message(INFER, data, _ends_with(expected)))
    return rows


def affine_reply() -> bytes:
    """Give a whole response of the model, for a server that answers with nothing else."""
    shape = b"".join(map(_varint, inputs.TINY_SHAPE))
    output = _field(1, b"OUTPUT0") + _field(2, b"FP32") + _field(3, shape)
    values = np.zeros(inputs.TINY_SHAPE, np.float32).tobytes()
    return _field(1, b"affine") + _field(2, b"1") + _field(5, output) + _field(6, values)


def image_identity(count: int = 8) -> list[Message]:
    """Give 602 112-byte FP32 tensors, answered with the same bytes; the last ones are looked at."""
    generator = np.random.default_rng(inputs.SEED)
    rows = []
    for _ in range(count):
        image = generator.random(inputs.IMAGE_SHAPE, dtype=np.float32).tobytes()
        data = infer_request("identity", "INPUT0", "FP32", inputs.IMAGE_SHAPE, image)
        rows.append(Message(INFER, data, _ends_with(image[-1:])))
    return rows


def stream(chunks: int) -> Message:
    """Give the request for a stream of numbers."""
    data = infer_request("stream", "COUNT", "INT32", (1,), struct.pack("<i", chunks))
    return Message(STREAM_INFER, data, bool)


def stream_index(response: bytes) -> int | None:
    """Read the number that a response of the stream carries; ``None`` where it is an error."""
    parts = dict(_read(response))
    outputs = dict(_read(parts[2])) if 1 not in parts and 2 in parts else {}
    return int(struct.unpack("<i", outputs[6])[0]) if len(outputs.get(6, b"")) == 4 else None


def unchecked(messages: Sequence[Message]) -> list[Message]:
    """Give the same requests for a server that is not expected to understand them."""
    return [Message(message.method, message.data, bool) for message in messages]


def infer_request(model: str, name: str, datatype: str, shape: Sequence[int], data: bytes) -> bytes:
    """Write a ModelInferRequest with one raw input."""
    dims = b"".join(map(_varint, shape))
    tensor = _field(1, name.encode()) + _field(2, datatype.encode()) + _field(3, dims)
    return _field(1, model.encode()) + _field(5, tensor) + _field(7, data)


def _ends_with(expected: bytes) -> Callable[[bytes], bool]:
    # raw_output_contents has the highest number, so it stands last; checked as such for both.
    return lambda response: response.endswith(expected)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk over the fields of a message; what has no length is passed over."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        if key & 7 == 0:
            _, at = _read_varint(data, at)
            continue
        size, at = _read_varint(data, at)
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
