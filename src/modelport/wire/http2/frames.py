"""The numbers and the words of HTTP/2's frames, and how much of them is taken.

Source: RFC 9113 §4, §6 and §7.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "DEFAULT_FRAME_BYTES",
    "DEFAULT_TABLE_BYTES",
    "DEFAULT_WINDOW",
    "EMPTY_TABLE",
    "END_HEADERS",
    "END_STREAM",
    "HAS_PRIORITY",
    "HEADER",
    "HEADERS",
    "HEADER_BYTES",
    "LARGEST_SENT_FRAME",
    "LARGEST_STREAM_ID",
    "LARGEST_WINDOW",
    "NO_DATA",
    "PADDED",
    "PREFACE",
    "SMALL_ANSWER",
    "SMALL_DATA",
    "STREAMS_AT_ONCE",
    "Buffer",
    "ErrorCode",
    "Frame",
    "Http2Broken",
    "Http2Limits",
    "MalformedHead",
    "Setting",
]

Buffer = bytes | bytearray | memoryview

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with; to HTTP/1.1 it looks like a request with an unknown method."""

HEADER: Final = struct.Struct(">IBI")
"""Length and type in four bytes, flags, stream."""
HEADER_BYTES: Final = 9
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
DEFAULT_TABLE_BYTES: Final = 4096
EMPTY_TABLE: Final = b"\x20"
"""Before the fields of a block: the table for compression has no room from now on."""
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_STREAM_ID: Final = 2**31 - 1
LARGEST_SENT_FRAME: Final = 262_144
"""Larger frames than this would only keep the other streams waiting."""
STREAMS_AT_ONCE: Final = 4
"""Streams that are opened before ``Endpoint.proceed`` asks to be called again."""
SMALL_DATA: Final = 64
"""Data frames below this are hardly worth their own nine bytes."""
SMALL_ANSWER: Final = 4096
"""Data up to this is copied rather than written in pieces."""
NO_DATA: Final = b""


class Frame(enum.IntEnum):
    """Types of frames. Source: RFC 9113 §6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

# As plain integers where every call passes.
DATA: Final = 0
HEADERS: Final = 1
CONTINUATION: Final = 9


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ends. Source: RFC 9113 §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(enum.IntEnum):
    """Settings. Source: RFC 9113 §6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Http2Broken(Exception):
    """The other side broke the rules in a way that ends the connection; GOAWAY is in ``out``.

    Attributes:
        code: As it was told to the other side.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class MalformedHead(Exception):
    """The fields of a request or response cannot be one; its stream is reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """What the other side may send.

    Attributes:
        streams: At once; a client with more to ask waits, or is refused.
        stream_window: Bytes of one stream that may be on their way or wait to be taken. More is
            asked for when half is used, and each time wakes the client: an image of 224 × 224
            in FP32 should come without.
        connection_window: The same of all streams together.
        frame_bytes: Of one data frame; it is passed on as it comes, so this costs no memory.
        block_bytes: Of one header block, before it is unfolded.
        list_bytes: Of the fields in it, as RFC 9113 §6.5.2 counts them.
        allowance: Frames without worth within about a second.
        resets: Streams that are reset before their answer, beyond those that are not, within
            about a second.
    """

    streams: int = 1024
    stream_window: int = 2_097_152
    connection_window: int = 16_777_216
    frame_bytes: int = 1_048_576
    block_bytes: int = 65_536
    list_bytes: int = 65_536
    allowance: int = 2000
    resets: int = 1000
