"""gRPC as bytes, for either end: messages, statuses, timeouts, codings. No socket, no clock.

Source: "gRPC over HTTP2" and "Compression" of the gRPC documentation.
"""

import enum
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

import numpy as np

from modelport.errors import InvalidRequest, TooLarge, Unsupported
from modelport.wire import compression
from modelport.wire.header_blocks import encode_block

__all__ = [
    "ACCEPTED_CODINGS",
    "LARGEST_MESSAGE",
    "LONGEST_TEXT_BYTES",
    "OK_TRAILERS",
    "PREFIX",
    "RESPONSE_HEAD",
    "Buffer",
    "Folded",
    "MessageReader",
    "Status",
    "check_coding",
    "choose_coding",
    "decode_status",
    "encode_end",
    "encode_message",
    "encode_timeout",
    "parse_timeout",
    "response_head",
]

Buffer = bytes | bytearray | memoryview

PREFIX: Final = struct.Struct(">BI")
"""Before each message: whether it is compressed, and its length."""
PREFIX_BYTES: Final = 5
LARGEST_MESSAGE: Final = 2**31 - 1
"""What the other implementations can hold."""
LONGEST_TEXT_BYTES: Final = 6144
"""Of the text of a status, as it is sent. Clients take 8 KiB of fields, and some give up the whole
answer for more."""
UNFOLD_FROM_BYTES: Final = 65_536
UNFOLD_TO_BYTES: Final = 262_144
"""Messages with more compressed, or more other bytes, are unfolded by whoever can wait for it."""
ALIGN_FROM_BYTES: Final = 16_384
ALIGNMENT: Final = 64
ACCEPTED_CODINGS: Final = "identity,deflate,gzip"


class Status(enum.IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# Messages.


class MessageReader:
    """Takes the messages of one call out of its data, from pieces of any size.

    Args:
        max_bytes: Of one message, also after it is unfolded.
        coding: Of compressed messages; ``None`` if there are to be none.
    """

    __slots__ = ("_buffer", "_coding", "_filled", "_is_compressed", "_max_bytes", "_prefix")

    def __init__(self, max_bytes: int, coding: str | None = None) -> None:
        self._max_bytes = max_bytes
        self._coding = coding
        self._prefix = b""
        self._buffer: memoryview | None = None
        self._filled = 0
        self._is_compressed = False

    @property
    def is_between_messages(self) -> bool:
        """Whether no message has begun and is unfinished."""
        return self._buffer is None and not self._prefix

    def feed(self, data: bytes, start: int, stop: int) -> "list[Buffer | Folded]":
        """Take ``data[start:stop]``.

        Returns:
            The messages that are complete with it; compressed ones as they are, unless they are
            small. The end of a large one lies on a 64-byte boundary: the tensor that comes last
            in it is then aligned as well.

        Raises:
            TooLarge: A message is over the limit.
            InvalidRequest: What came is no message, or cannot be unfolded.
        """
        messages: list[Buffer | Folded] = []
        while start < stop:
            buffer = self._buffer
            if buffer is None:
                missing = PREFIX_BYTES - len(self._prefix)
                prefix = self._prefix + data[start : min(start + missing, stop)]
                start += missing
                if len(prefix) < PREFIX_BYTES:
                    self._prefix = prefix
                    break
                self._prefix = b""
                length = self._begin(prefix)
                if length <= stop - start:
                    messages.append(self._finish(data[start : start + length]))
                    start += length
                    continue
                self._buffer = buffer = _aligned(length)
                self._filled = 0
            taken = min(len(buffer) - self._filled, stop - start)
            buffer[self._filled : self._filled + taken] = memoryview(data)[start : start + taken]
            self._filled += taken
            start += taken
            if self._filled == len(buffer):
                self._buffer = None
                messages.append(self._finish(buffer))
        return messages

    @property
    def place(self) -> memoryview | None:
        """Where the rest of a large message goes that has begun; see :meth:`filled`."""
        buffer = self._buffer
        return None if buffer is None else buffer[self._filled :]

    def filled(self, count: int) -> "list[Buffer | Folded]":
        """Take so many bytes that were put in :attr:`place`, as :meth:`feed` takes others."""
        buffer = self._buffer
        assert buffer is not None
        self._filled += count
        if self._filled < len(buffer):
            return []
        self._buffer = None
        return [self._finish(buffer)]

    def _begin(self, prefix: bytes) -> int:
        flag, length = PREFIX.unpack(prefix)
        if flag > 1:
            raise InvalidRequest(f"the flags {flag} of a message are not known")
        self._is_compressed = flag == 1
        if self._is_compressed and self._coding is None:
            raise InvalidRequest("a message is compressed, and no grpc-encoding says how")
        if length > self._max_bytes:
            raise TooLarge(f"Received message larger than max ({length} vs. {self._max_bytes})")
        return int(length)

    def _finish(self, message: Buffer) -> "Buffer | Folded":
        if not self._is_compressed:
            return message
        coding = self._coding
        assert coding is not None
        folded = Folded(message, coding, self._max_bytes)
        if len(message) > UNFOLD_FROM_BYTES:
            return folded
        try:
            return compression.decompress(message, coding, min(self._max_bytes, UNFOLD_TO_BYTES))
        except TooLarge:
            return folded


class Folded:
    """A compressed message that may take long to unfold: 500 KB can become 500 MB."""

    __slots__ = ("_coding", "_max_bytes", "_message")

    def __init__(self, message: Buffer, coding: str, max_bytes: int) -> None:
        self._message = message
        self._coding = coding
        self._max_bytes = max_bytes

    def unfold(self) -> Buffer:
        """Give the message; other threads may go on meanwhile.

        Raises:
            InvalidRequest: It is not what ``grpc-encoding`` says.
            TooLarge: It is larger than a message may be.
        """
        try:
            return compression.decompress(self._message, self._coding, self._max_bytes)
        except TooLarge as exc:
            raise TooLarge(
                f"Received message larger than max ({self._max_bytes}) after decompression"
            ) from exc


def _aligned(length: int) -> memoryview:
    if length < ALIGN_FROM_BYTES:
        return memoryview(bytearray(length))
    try:
        buffer: Any = np.empty(length + ALIGNMENT, np.uint8)
    except MemoryError as exc:
        raise TooLarge(f"no memory for a message of {length} bytes; send smaller ones") from exc
    start = -(buffer.ctypes.data + length) % ALIGNMENT
    return memoryview(buffer)[start : start + length]


def check_coding(name: str | None) -> str | None:
    """Read ``grpc-encoding``; ``None`` for messages as they are.

    Raises:
        Unsupported: For a coding that is not ours.
    """
    if name is None or name == "identity":
        return None
    if name in compression.CODINGS:
        return name
    raise Unsupported(
        f"Compression algorithm '{name[:40]}' is not supported; accepted are {ACCEPTED_CODINGS}"
    )


def choose_coding(accepted: str | None) -> str | None:
    """Read ``grpc-accept-encoding``: a coding for responses, gzip rather than deflate."""
    names = {name.strip() for name in (accepted or "").split(",")}
    return next((coding for coding in compression.CODINGS if coding in names), None)


# Heads and ends.


def response_head(coding: str | None = None) -> bytes:
    """Write the fields before the first message."""
    fields = [(":status", "200"), ("content-type", "application/grpc")]
    if coding is not None:
        fields.append(("grpc-encoding", coding))
    return encode_block(fields)


RESPONSE_HEAD = response_head()
OK_TRAILERS = encode_block([("grpc-status", "0")])
_ALONE = [(":status", "200"), ("content-type", "application/grpc")]


def encode_end(
    status: int,
    text: str,
    trailers: Sequence[tuple[str, str]] = (),
    *,
    is_alone: bool,
) -> bytes:
    """Write the fields that end a call.

    Args:
        status: See :class:`Status`.
        text: For the caller; any characters. Cut where clients would not take it.
        trailers: More metadata; names in lower case.
        is_alone: Whether nothing was sent before; then they are the head of the response too.
    """
    fields = [*_ALONE] if is_alone else []
    fields.append(("grpc-status", str(int(status))))
    if text:
        fields.append(("grpc-message", _encode_text(text)))
    fields += [(name.lower(), value) for name, value in trailers]
    return encode_block(fields)


def _encode_text(text: str) -> str:
    # Percent-encoded: what is no printable ASCII, and the percent sign. Texts of models may hold
    # halves of surrogate pairs, which no client could decode.
    quoted = quote(text, safe=_PLAIN, errors="replace")
    while len(quoted) > LONGEST_TEXT_BYTES:
        text = text[: len(text) * LONGEST_TEXT_BYTES // (len(quoted) + 12)]
        quoted = quote(text, safe=_PLAIN, errors="replace") + "..."
    return quoted


def decode_status(fields: Mapping[str, str]) -> tuple[int, str]:
    """Read status and text out of the fields that end a call."""
    code = fields.get("grpc-status", "")
    status = int(code) if code.isascii() and code.isdigit() and len(code) < 4 else Status.UNKNOWN
    return status, unquote_to_bytes(fields.get("grpc-message", "")).decode("utf-8", "replace")


_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


# Deadlines.


def parse_timeout(text: str) -> int:
    """Read ``grpc-timeout`` as nanoseconds.

    Raises:
        InvalidRequest: It is none.
    """
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise InvalidRequest(
            f"grpc-timeout is digits and a unit of H, M, S, m, u, n: '{text[:20]}'"
        )
    return int(found[1]) * _NS_BY_UNIT[found[2]]


def encode_timeout(timeout_ns: int) -> str:
    """Write a duration in the finest unit that eight digits hold; not shorter than it is."""
    timeout_ns = max(0, timeout_ns)
    for unit in "num":
        count = -(-timeout_ns // _NS_BY_UNIT[unit])
        if count < 10**8:
            return f"{count}{unit}"
    return f"{min(-(-timeout_ns // 10**9), 10**8 - 1)}S"


_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_NS_BY_UNIT = {"H": 3600 * 10**9, "M": 60 * 10**9, "S": 10**9, "m": 10**6, "u": 1000, "n": 1}


def encode_message(pieces: Sequence[Buffer], coding: str | None = None) -> list[Buffer]:
    """Write one message with its prefix, compressed if a coding is given."""
    folded: Iterable[Buffer] = compression.compress(pieces, coding) if coding else pieces
    body = list(folded)
    return [PREFIX.pack(1 if coding else 0, sum(map(_size, body))), *body]


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)
