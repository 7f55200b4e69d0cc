"""Frames in both directions, without sockets; large data in a dictionary instead of memory."""

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.dtypes import BYTES, DATATYPE_BY_NAME, FP32, INT64, DataType
from modelport.errors import Kind, ModelFailed, ModelportError, NotFound, Overloaded
from modelport.messages import Request, Response, StageTrace, Tensors
from modelport.runtimes.base import Outcome
from modelport.runtimes.worker.frames import (
    INLINE_BYTES,
    Decoder,
    Encoder,
    Frame,
    FrameReader,
    frame,
    json_frame,
)
from modelport.tensors import Array, Tensor
from modelport.testing.fakes import FakeWork
from modelport.testing.runtime_suite import extremes

FIELDS = (
    "id",
    "parameters",
    "priority",
    "timeout_us",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "principal",
    "trace_id",
)


class Shelf:
    """Keeps what is large, in place of shared memory."""

    is_exhausted = False

    def __init__(self) -> None:
        self.stored: list[Array] = []

    def store(self, array: Array) -> int | None:
        self.stored.append(array)
        return len(self.stored) - 1

    def load(self, offset: int | None, dtype: Any, shape: tuple[int, ...]) -> Array:
        assert offset is not None
        array: Array = self.stored[offset].view(dtype).reshape(shape)
        return array


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def body_of(data: bytes, kind: Frame) -> bytes:
    ((found, body),) = FrameReader().feed(data)
    assert found == kind
    return body


def tensor_of(datatype: DataType, values: Array) -> Tensor:
    return Tensor("x", datatype, values)


@given(
    bodies=st.lists(st.binary(max_size=40), max_size=6),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_frames_come_out_whole_however_they_are_cut(bodies: list[bytes], sizes: list[int]) -> None:
    data = b"".join(frame(Frame.LOG, body) for body in bodies)
    reader = FrameReader()
    found = []
    offset = 0
    index = 0
    while offset < len(data):
        size = sizes[index % len(sizes)]
        found += list(reader.feed(data[offset : offset + size]))
        offset += size
        index += 1
    assert found == [(Frame.LOG, body) for body in bodies]


def test_bytes_of_a_frame_are_these() -> None:
    assert json_frame(Frame.CANCEL, [7, 0]) == b"\x05\x00\x00\x00\x05[7,0]"
    assert frame(Frame.UNLOAD) == b"\x00\x00\x00\x00\x04"


@pytest.mark.parametrize("name", sorted(DATATYPE_BY_NAME))
@pytest.mark.parametrize("copies", [0, 1, 4000])
def test_every_datatype_comes_through(shelf: Shelf, name: str, copies: int) -> None:
    datatype = DATATYPE_BY_NAME[name]
    values = np.concatenate([extremes(datatype)] * copies or [extremes(datatype)[:0]])
    request = Request(Tensors([tensor_of(datatype, values)]))
    data = Encoder(shelf).requests(3, 1, [FakeWork(request)])
    batch, rows, ((came, came_rows),) = Decoder(shelf).requests(body_of(data, Frame.EXECUTE))
    assert (batch, rows, came_rows) == (3, 1, 1)
    (tensor,) = came.payload.tensors
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", datatype, values.shape)
    if datatype is BYTES:
        assert tensor.array.tolist() == values.tolist()
    else:
        assert tensor.array.tobytes() == values.tobytes()
    assert bool(shelf.stored) == (
        copies == 4000 and (datatype is BYTES or values.nbytes > INLINE_BYTES)
    )


def test_layout_and_shape_do_not_matter(shelf: Shelf) -> None:
    layouts: list[Array] = [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        np.array(5, np.float32),
        np.zeros((3, 0, 2), np.float32),
    ]
    for values in layouts:
        request = Request(Tensors([tensor_of(FP32, values)]))
        data = Encoder(shelf).requests(0, 1, [FakeWork(request)])
        _, _, ((came, _),) = Decoder(shelf).requests(body_of(data, Frame.EXECUTE))
        assert np.array_equal(came.payload.tensors[0].array, values)
        assert came.payload.tensors[0].array.shape == values.shape


def test_all_of_a_request_comes_through(shelf: Shelf) -> None:
    plain = Request(Tensors(()))
    full = Request(
        Tensors(()), id="seven", outputs=["y", "z"], parameters={"a": 1, "b": "ü", "c": True}
    )
    full.priority, full.timeout_us, full.sequence_id = 2, 500, "s"
    full.sequence_start = full.sequence_end = True
    # Attributes of the server's own stay there, whatever they are.
    full.trace = cast(StageTrace, object())
    full.principal, full.trace_id, full.trail = "me", "t", ("a", "b")
    data = Encoder(shelf).requests(1, 5, [FakeWork(plain, 2), FakeWork(full, 3)])
    _, rows, came = Decoder(shelf).requests(body_of(data, Frame.EXECUTE))
    assert rows == 5
    assert [each for _, each in came] == [2, 3]
    for request, expected in zip([came[0][0], came[1][0]], [plain, full], strict=True):
        for name in FIELDS:
            assert getattr(request, name) == getattr(expected, name), name
        assert list(request.outputs) == list(expected.outputs)
        assert list(request.trail) == list(expected.trail)


def test_outcomes_come_through(shelf: Shelf) -> None:
    outcomes: list[Outcome] = [
        Response([tensor_of(INT64, np.array([1, 2]))], {"p": 0.5}),
        None,
        NotFound("no such file"),
        ModelFailed("gone", code=Kind.CANCELLED),
        Overloaded("full"),
        Response([]),
    ]
    encoder = Encoder(shelf)
    parts: list[bytes] = []
    for outcome in outcomes:
        encoder.outcome(parts, outcome)
    encoder.again(parts)
    data = encoder.done(9, (1, 2, 3, 4), len(outcomes) + 1, parts)
    batch, times, came, again = Decoder(shelf).done(body_of(data, Frame.DONE))
    assert (batch, times, again) == (9, (1, 2, 3, 4), [6])
    first = came[0]
    assert isinstance(first, Response)
    assert first.parameters == {"p": 0.5}
    assert first.outputs[0].array.tolist() == [1, 2]
    for given_error, error in zip(outcomes[2:5], came[2:5], strict=True):
        assert isinstance(given_error, ModelportError)
        assert isinstance(error, type(given_error))
        assert (error.kind, str(error)) == (given_error.kind, str(given_error))
    assert came[1] is None
    assert came[6] is None


def test_heads_that_clients_choose_do_not_fill_the_memory(shelf: Shelf) -> None:
    encoder, decoder = Encoder(shelf), Decoder(shelf)
    for size in range(5000):
        request = Request(Tensors([tensor_of(FP32, np.zeros((size, 0), np.float32))]))
        data = encoder.requests(0, 1, [FakeWork(request)])
        decoder.requests(body_of(data, Frame.EXECUTE))
    assert len(encoder._heads) <= 4096
    assert len(decoder._heads) <= 4096
