"""What a server and its workers say to each other, as bytes; no pickle, and nothing is executed.

A frame is its length, its kind and its body. Kinds that come often are packed (:func:`requests`,
:func:`outcomes`), the others are JSON. Both ends are the same version of the same program and
nobody else speaks this, so there are no versions and no byte order to agree on.

A tensor is a head (name, datatype, shape), of which there are few and which are recognised by their
bytes, and its data: in the frame if it is small, else in shared memory.
"""

import enum
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from modelport.dtypes import BYTES, DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidArguments, ModelFailed, ModelportError, Overloaded
from modelport.errors import Kind as ErrorKind
from modelport.exceptions import BentoMLException
from modelport.messages import Request, Response, Tensors
from modelport.runtimes.base import Outcome
from modelport.tensors import Array, Tensor

__all__ = [
    "INLINE_BYTES",
    "Decoder",
    "Encoder",
    "Frame",
    "FrameReader",
    "Loader",
    "Storer",
    "error_of",
    "frame",
    "json_frame",
    "plain_error",
]

INLINE_BYTES = 16 * 1024
"""Data up to here is cheaper through the socket than through shared memory."""
MOST_HEADS = 4096


class Frame(enum.IntEnum):
    """Kinds of frames, and who sends them."""

    LOAD = 1
    """Server: bring an instance up."""
    COMPLETE = 2
    """Server: say what the model file tells."""
    EXECUTE = 3
    """Server: answer a batch."""
    UNLOAD = 4
    """Server: take the instance down and end."""
    CANCEL = 5
    """Server: nobody waits for a request any more."""
    CREDIT = 6
    """Server: the reader of a stream has taken some."""
    RELEASE = 7
    """Both: regions of the other's memory are not needed any more."""
    ASK_READY = 8
    """Server: can the instance still answer?"""
    REPLY = 9
    """Server: what a call of the model came to."""
    LOADED = 10
    """Worker: it is up, or the configuration is complete."""
    FAILED = 11
    """Worker: it could not be."""
    DONE = 12
    """Worker: a batch has been executed."""
    SEND = 13
    """Worker: a response of a model that sends them itself."""
    READY = 14
    """Worker: whether it can still answer."""
    LOG = 15
    """Worker: a line for the log."""
    CALL = 16
    """Worker: the model asks something of the server."""
    CONCURRENT = 17
    """Worker: batches run beside one another here."""
    ASK_ALIVE = 18
    """Server: is anybody there? Answered whatever the model is at, unless Python's lock is held."""
    ALIVE = 19
    """Worker: yes."""


class Storer(Protocol):
    """Puts large data where the other end can see it."""

    @property
    def is_exhausted(self) -> bool:
        """Whether it can take no more before what it has is sent."""
        ...

    def store(self, array: Array) -> int | None:
        """Give the offset in the shared arena; ``None`` if it went into a piece of its own."""
        ...


class Loader(Protocol):
    """Finds what the other end has stored."""

    def load(self, offset: int | None, dtype: Any, shape: tuple[int, ...]) -> Array:
        """See it in place."""
        ...


def frame(kind: Frame, *parts: bytes) -> bytes:
    """Put a frame together."""
    body = b"".join(parts)
    return _HEAD.pack(len(body), kind) + body


def json_frame(kind: Frame, value: Any) -> bytes:
    """Put a frame of JSON together."""
    return frame(kind, json.dumps(value, separators=(",", ":")).encode())


class FrameReader:
    """Cuts a stream of bytes into frames.

    >>> reader = FrameReader()
    >>> both = frame(Frame.UNLOAD) + json_frame(Frame.LOG, ["info"])
    >>> list(reader.feed(both[:7])), list(reader.feed(both[7:]))
    ([(4, b'')], [(15, b'["info"]')])
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Give kind and body of every frame that is complete with these bytes."""
        held = self._held
        if held:
            held += data
            if len(held) < _HEAD.size or len(held) < _HEAD.size + _HEAD.unpack_from(held)[0]:
                return
            data = bytes(held)
            held.clear()
        start, end = 0, len(data)
        unpack, size = _HEAD.unpack_from, _HEAD.size
        while end - start >= size:
            length, kind = unpack(data, start)
            stop = start + size + length
            if stop > end:
                break
            yield kind, data[start + size : stop]
            start = stop
        if start < end:
            held += data[start:] if start else data


class Encoder:
    """Packs requests and responses. Used by one thread at a time.

    Args:
        storer: Takes data that is large.
    """

    def __init__(self, storer: Storer) -> None:
        self._storer = storer
        self._heads: dict[tuple[str, DataType, tuple[int, ...]], bytes] = {}

    def head(self, value: Any) -> bytes:
        """Pack a short JSON value that other things may follow."""
        data = json.dumps(value, separators=(",", ":")).encode()
        return _LENGTH.pack(len(data)) + data

    def requests(self, batch: int, rows: int, works: Sequence[Any]) -> bytes:
        """Pack a batch: works with ``request`` and ``rows``."""
        parts = [b"", _BATCH.pack(batch, rows, len(works))]
        for work in works:
            self.request(parts, work.request, work.rows)
        return _closed(Frame.EXECUTE, parts)

    def request(self, parts: list[bytes], request: Request, rows: int) -> None:
        """Pack one request."""
        tensors = request.payload.tensors
        extras = _extras(request)
        parts.append(_WORK.pack(rows, len(tensors), len(extras)))
        if extras:
            parts.append(extras)
        for tensor in tensors:
            self._tensor(parts, tensor)

    def done(
        self, batch: int, times: tuple[int, int, int, int], count: int, parts: list[bytes]
    ) -> bytes:
        """Pack the end of a batch: when it began, had its inputs, had computed and ended.

        Args:
            batch: Its number.
            times: Of ``time.perf_counter_ns``, which all processes of a machine share.
            count: Of its outcomes; 0 if all are answered otherwise.
            parts: The outcomes, packed by ``outcome``.
        """
        return _closed(Frame.DONE, [b"", _DONE.pack(batch, *times, count), *parts])

    def closed(self, kind: Frame, parts: list[bytes]) -> bytes:
        """Join parts, the first of which is b"", to a frame."""
        return _closed(kind, parts)

    def sent(self, batch: int, index: int, outcome: Outcome, *, final: bool) -> bytes:
        """Pack a response that the model sends itself."""
        return _closed(
            Frame.SEND, [b"", _SENT.pack(batch, index, final), *self.outcome([], outcome)]
        )

    def outcome(self, parts: list[bytes], outcome: Outcome) -> list[bytes]:
        """Pack a response, an error, or that there is neither."""
        if outcome is None:
            parts.append(_NOTHING)
        elif isinstance(outcome, ModelportError):
            text = json.dumps(plain_error(outcome)).encode()
            parts.append(_OUTCOME.pack(_IS_ERROR, 0, len(text)))
            parts.append(text)
        else:
            given = outcome.parameters
            extras = json.dumps(dict(given)).encode() if given else b""
            parts.append(_OUTCOME.pack(_IS_RESPONSE, len(outcome.outputs), len(extras)))
            if extras:
                parts.append(extras)
            for tensor in outcome.outputs:
                self._tensor(parts, tensor)
        return parts

    def again(self, parts: list[bytes]) -> None:
        """Pack that a request is to be executed once more."""
        parts.append(_OUTCOME.pack(_IS_AGAIN, 0, 0))

    def _tensor(self, parts: list[bytes], tensor: Tensor) -> None:
        array = tensor.array
        key = (tensor.name, tensor.datatype, array.shape)
        head = self._heads.get(key) or self._head(key)
        if tensor.datatype is BYTES:
            array = _packed_bytes(array)
        size = array.nbytes
        if size <= INLINE_BYTES or self._storer.is_exhausted:
            parts.append(head)
            parts.append(_PLACE.pack(_INLINE, size))
            parts.append(array.tobytes())
            return
        offset = self._storer.store(array)
        parts.append(head)
        if offset is None:
            parts.append(_PLACE.pack(_APART, size))
        else:
            parts.append(_PLACE.pack(_SHARED, size))
            parts.append(_OFFSET.pack(offset))

    def _head(self, key: tuple[str, DataType, tuple[int, ...]]) -> bytes:
        name, datatype, shape = key
        encoded = name.encode()
        head = b"".join(
            (
                _NAME.pack(len(encoded), _NUMBERS[datatype], len(shape)),
                encoded,
                struct.pack(f"={len(shape)}q", *shape),
            )
        )
        head = _SIZE.pack(len(head)) + head
        if len(self._heads) >= MOST_HEADS:
            # Clients choose shapes.
            self._heads.clear()
        self._heads[key] = head
        return head


class Decoder:
    """Reads what :class:`Encoder` packs. Used by one thread at a time.

    Args:
        loader: Finds data that is large.
    """

    def __init__(self, loader: Loader) -> None:
        self._load = loader.load
        self._heads: dict[bytes, tuple[str, DataType, tuple[int, ...]]] = {}

    def head(self, body: bytes) -> tuple[Any, int]:
        """Give the JSON value at the beginning, and where it ends."""
        (size,) = _LENGTH.unpack_from(body)
        end = _LENGTH.size + size
        return json.loads(body[_LENGTH.size : end]), end

    def requests(self, body: bytes) -> tuple[int, int, list[tuple[Request, int]]]:
        """Give the number of a batch, its rows, and its requests with theirs."""
        batch, rows, count = _BATCH.unpack_from(body)
        offset = _BATCH.size
        requests = []
        for _ in range(count):
            request, request_rows, offset = self.request(body, offset)
            requests.append((request, request_rows))
        return batch, rows, requests

    def request(self, body: bytes, offset: int) -> tuple[Request, int, int]:
        """Give a request, its rows, and where it ends."""
        rows, count, size = _WORK.unpack_from(body, offset)
        offset += _WORK.size
        extras = body[offset : offset + size]
        tensors, offset = self._tensors(body, offset + size, count)
        request = Request(Tensors(tensors))
        if extras:
            for name, value in json.loads(extras).items():
                setattr(request, name, value)
        return request, rows, offset

    def done(self, body: bytes) -> tuple[int, tuple[int, int, int, int], list[Outcome], list[int]]:
        """Give the number of a batch, its times, its outcomes, and which requests come again."""
        batch, started, ready, computed, ended, count = _DONE.unpack_from(body)
        offset = _DONE.size
        outcomes: list[Outcome] = []
        again: list[int] = []
        for index in range(count):
            if body[offset] == _IS_AGAIN:
                again.append(index)
            outcome, offset = self.outcome(body, offset)
            outcomes.append(outcome)
        return batch, (started, ready, computed, ended), outcomes, again

    def sent(self, body: bytes) -> tuple[int, int, bool, Outcome]:
        """Give batch and index of a request, whether it is over, and what was sent."""
        batch, index, final = _SENT.unpack_from(body)
        outcome, _ = self.outcome(body, _SENT.size)
        return batch, index, final, outcome

    def outcome(self, body: bytes, offset: int) -> tuple[Outcome, int]:
        """Give a response, an error or nothing, and where it ends."""
        kind, count, size = _OUTCOME.unpack_from(body, offset)
        offset += _OUTCOME.size
        extras = body[offset : offset + size]
        offset += size
        if kind == _IS_RESPONSE:
            tensors, offset = self._tensors(body, offset, count)
            response = Response(tensors, json.loads(extras)) if extras else Response(tensors)
            return response, offset
        if kind == _IS_ERROR:
            return error_of(*json.loads(extras)), offset
        return None, offset

    def _tensors(self, body: bytes, offset: int, count: int) -> tuple[list[Tensor], int]:
        tensors = []
        heads = self._heads
        for _ in range(count):
            (size,) = _SIZE.unpack_from(body, offset)
            offset += 2
            head = body[offset : offset + size]
            name, datatype, shape = heads.get(head) or self._head(head)
            offset += size
            place, size = _PLACE.unpack_from(body, offset)
            offset += _PLACE.size
            is_bytes = datatype is BYTES
            dtype = _UINT8 if is_bytes else datatype.numpy
            if place == _INLINE:
                # A slice, not a view: it is aligned, and keeps nothing else in memory.
                array = np.frombuffer(body[offset : offset + size], dtype)
                offset += size
                if not is_bytes:
                    array = array.reshape(shape)
            else:
                at = None
                if place == _SHARED:
                    (at,) = _OFFSET.unpack_from(body, offset)
                    offset += _OFFSET.size
                array = self._load(at, dtype, (size,) if is_bytes else shape)
            if is_bytes:
                array = _unpacked_bytes(array, shape)
            tensors.append(Tensor(name, datatype, array))
        return tensors, offset

    def _head(self, head: bytes) -> tuple[str, DataType, tuple[int, ...]]:
        length, number, rank = _NAME.unpack_from(head)
        start = _NAME.size
        name = head[start : start + length].decode()
        shape: tuple[int, ...] = struct.unpack_from(f"={rank}q", head, start + length)
        found = (name, _DATATYPES[number], shape)
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        self._heads[head] = found
        return found


def plain_error(error: ModelportError) -> tuple[Any, ...]:
    """Give an error's kind and text, whether it is the model's own, and what else callers see."""
    plain = error.kind, error.text, isinstance(error, ModelFailed)
    if isinstance(error, BentoMLException):
        return (*plain, {"status": int(error.error_code)})
    if isinstance(error, InvalidArguments):
        return (*plain, {"detail": list(error.detail)})
    if isinstance(error, Overloaded):
        return (*plain, {"retry_after_s": error.retry_after_s})
    return plain


def error_of(
    kind: str, text: str, is_model_s: bool, facts: Mapping[str, Any] | None = None
) -> ModelportError:
    """Make an error again.

    >>> from modelport.errors import NotFound
    >>> error_of(*plain_error(NotFound("no such file")))
    NotFound('no such file')
    """
    match facts:
        case {"status": status}:
            return BentoMLException(text, error_code=status)
        case {"detail": detail}:
            return InvalidArguments(text, detail)
        case {"retry_after_s": retry_after_s}:
            return Overloaded(text, retry_after_s=retry_after_s)
    make = None if is_model_s else _ERROR_BY_KIND.get(kind)
    return ModelFailed(text, code=ErrorKind(kind)) if make is None else make(text)


def _closed(kind: Frame, parts: list[bytes]) -> bytes:
    """Join parts to a frame; the first of them is left free for its head."""
    size = sum(map(len, parts))
    parts[0] = _HEAD.pack(size, kind)
    return b"".join(parts)


def _extras(request: Request) -> bytes:
    values = _carried(request)
    if not any(values):
        return b""
    given = {name: value for name, value in zip(_CARRIED, values, strict=True) if value}
    if "parameters" in given:
        given["parameters"] = dict(request.parameters)
    for name in ("outputs", "trail"):
        if name in given:
            given[name] = list(given[name])
    return json.dumps(given, separators=(",", ":")).encode()


def _packed_bytes(array: Array) -> Array:
    parts = []
    for item in array.flat:
        data = item if isinstance(item, bytes) else str(item).encode()
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return np.frombuffer(b"".join(parts), _UINT8)


def _unpacked_bytes(packed: Array, shape: tuple[int, ...]) -> Array:
    data = packed.tobytes()
    items = np.empty(shape, dtype=object)
    flat = items.reshape(-1)
    offset = 0
    for index in range(flat.size):
        (size,) = _LENGTH.unpack_from(data, offset)
        offset += 4
        flat[index] = data[offset : offset + size]
        offset += size
    return items


def _errors() -> Iterator[tuple[str, Callable[[str], ModelportError]]]:
    waiting: list[type[ModelportError]] = list(ModelportError.__subclasses__())
    for class_ in waiting:
        # One without a kind is a root of others, which have theirs.
        if class_ is not ModelFailed and class_.kind is not ErrorKind.UNKNOWN:
            yield class_.kind, class_


_HEAD = struct.Struct("=IB")
_BATCH = struct.Struct("=IIH")
_WORK = struct.Struct("=IHI")
_DONE = struct.Struct("=IQQQQH")
_SENT = struct.Struct("=IH?")
_OUTCOME = struct.Struct("=BHI")
_SIZE = struct.Struct("=H")
_NAME = struct.Struct("=HBB")
_PLACE = struct.Struct("=BQ")
_OFFSET = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")

_INLINE, _SHARED, _APART = range(3)
_IS_NOTHING, _IS_RESPONSE, _IS_ERROR, _IS_AGAIN = range(4)
_NOTHING = _OUTCOME.pack(_IS_NOTHING, 0, 0)
_UINT8 = np.dtype("u1")
_CARRIED = (
    "id",
    "outputs",
    "parameters",
    "priority",
    "timeout_us",
    "deadline_ns",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "principal",
    "trace_id",
    "trail",
)
_carried = attrgetter(*_CARRIED)
"""What a model may see of a request; the rest is the server's own."""
_DATATYPES = tuple(DATATYPE_BY_NAME.values())
_NUMBERS = {datatype: number for number, datatype in enumerate(_DATATYPES)}
_ERROR_BY_KIND: Mapping[str, Callable[[str], ModelportError]] = dict(_errors())
