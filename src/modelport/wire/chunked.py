"""Bodies in chunks: read with bounds, and written. No socket, no clock.

Apart from the heads, which are read by llhttp: it does not say where in its input a message ends.

Source: RFC 9112 §7.1.
"""

import re
from collections.abc import Callable

from modelport.errors import InvalidRequest, ModelportError, TooLarge

__all__ = [
    "END_OF_HEAD",
    "END_OF_LINE",
    "INPUT_SIZE",
    "LAST_CHUNK",
    "TOKEN",
    "BadMessage",
    "ChunkedReader",
    "body_too_large",
    "encode_chunk",
]

END_OF_LINE = b"\r\n"
END_OF_HEAD = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 §5.6.2
INPUT_SIZE = "--http-max-input-size"
"""The setting that bounds most bodies."""
LONGEST_SIZE_LINE = 256
"""Digits and extensions of a chunk; nobody is known to send the latter."""


class BadMessage(InvalidRequest):
    """What came is not HTTP, or is HTTP that nobody should act on; the connection is over.

    Attributes:
        status: To answer with before closing.
    """

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class ChunkedReader:
    """Reads a body in chunks, from pieces of any size.

    Strict, because two readers that end a message in different places can be played against each
    other: sizes are hexadecimal digits and nothing else, lines end in CRLF and hold no other
    control characters. Extensions are skipped, trailers are read and dropped. The work is linear
    in the bytes that come, whatever their pieces; held are the body and at most one line.

    Args:
        max_bytes: Of the body.
        max_chunks: Non-empty ones.
        max_trailer_bytes: Of the lines behind the last chunk together.
        setting: Of the operator's, that ``max_bytes`` is; for the error.

    Attributes:
        body: What has come of it.
        is_complete: Whether that is all.

    Source: RFC 9112 §7.1.
    """

    def __init__(
        self,
        max_bytes: int,
        max_chunks: int,
        max_trailer_bytes: int = 65_536,
        setting: str = INPUT_SIZE,
    ) -> None:
        self._setting = setting
        self._max_bytes = max_bytes
        self._max_chunks = max_chunks
        self._max_trailer_bytes = max_trailer_bytes
        self._line = bytearray()  # begun in an earlier piece
        self._missing = 0
        self._is_between_chunks = True
        self._read_line: Callable[[bytes], None] = self._read_size
        self._longest_line = LONGEST_SIZE_LINE
        self._chunks = 0
        self._promised_bytes = 0
        self._trailer_bytes = 0
        self.body = bytearray()
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        """Take more bytes.

        Returns:
            What follows the end of the body; ``b""`` before it.

        Raises:
            BadMessage: If it is no chunked coding.
            TooLarge: If there are too many bytes or chunks.
        """
        at = 0
        end = len(data)
        while at < end and not self.is_complete:
            if self._missing:
                at = self._take_data(data, at)
            elif self._is_between_chunks:
                at = self._take_chunks(data, at)
            else:
                at = self._take_line(data, at)
        return data[at:]

    def _take_chunks(self, data: bytes, at: int) -> int:
        """Take all chunks that are in ``data`` whole; without it a body of tiny ones costs."""
        whole = memoryview(data)
        while (found := _SIZE_LINE.match(data, at)) is not None:
            size = int(found[1], 16)
            start = found.end()
            end = start + size
            is_long = start - at > LONGEST_SIZE_LINE
            if not size or is_long or not data.startswith(END_OF_LINE, end):
                break
            self._count(size)
            self.body += whole[start:end]
            at = end + 2
        self._is_between_chunks = at == len(data)
        return at

    def _take_data(self, data: bytes, at: int) -> int:
        until = min(at + self._missing, len(data))
        self.body += memoryview(data)[at:until]
        self._missing -= until - at
        return until

    def _take_line(self, data: bytes, at: int) -> int:
        found = data.find(b"\n", at)
        until = found + 1 if found >= 0 else len(data)
        if len(self._line) + until - at > self._longest_line:
            raise BadMessage(
                "a chunk is longer than its size says"
                if self._longest_line == len(END_OF_LINE)
                else f"a line of the chunked body is over {self._longest_line} bytes long"
            )
        self._line += memoryview(data)[at:until]
        if found >= 0:
            line = bytes(self._line)
            self._line.clear()
            if not line.endswith(END_OF_LINE):
                raise BadMessage("the lines of a chunked body must end in CRLF")
            self._read_line(line[:-2])
        return until

    def _read_size(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line + END_OF_LINE)
        if found is None:
            raise BadMessage("the size of a chunk must be 1 to 15 hexadecimal digits")
        size = int(found[1], 16)
        if size == 0:
            self._read_line = self._read_trailer
            self._longest_line = self._max_trailer_bytes
            return
        self._count(size)
        self._missing = size
        self._read_line = self._read_end_of_chunk
        self._longest_line = len(END_OF_LINE)

    def _count(self, size: int) -> None:
        self._chunks += 1
        if self._chunks > self._max_chunks:
            raise BadMessage(
                f"Chunked request body exceeds maximum of {self._max_chunks} non-empty chunks. "
                "Send fewer or larger HTTP chunks."
            )
        self._promised_bytes += size
        if self._promised_bytes > self._max_bytes:
            raise body_too_large(self._promised_bytes, self._max_bytes, self._setting)

    def _read_end_of_chunk(self, line: bytes) -> None:
        # It is empty: anything more is over the longest line.
        self._read_line = self._read_size
        self._longest_line = LONGEST_SIZE_LINE
        self._is_between_chunks = True

    def _read_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > self._max_trailer_bytes:
            raise BadMessage("the trailers of the chunked body are too long")
        if not line:
            self.is_complete = True
        elif not _TRAILER.fullmatch(line):
            raise BadMessage("a trailer of the chunked body is not a header")
        elif line.partition(b":")[0].lower() in _NO_TRAILERS:
            # RFC 9110 §6.5.1; some readers, llhttp among them, believe what it says.
            raise BadMessage("a trailer cannot say how to read the message or the connection")


def body_too_large(got: int, most: int, setting: str = INPUT_SIZE) -> ModelportError:
    """Say that a body is over the limit, in the words that clients know.

    Args:
        got: Bytes of it, as far as that is known.
        most: The limit.
        setting: Of the operator's, that the limit is.
    """
    what = "request JSON size" if setting == INPUT_SIZE else "request body"
    return TooLarge(
        f"{what} of {got} bytes exceeds the maximum allowed input size of {most} bytes. "
        f"Use {setting} to increase the limit."
    )


def encode_chunk(data: bytes | bytearray | memoryview) -> list[bytes | bytearray | memoryview]:
    """Wrap data as one chunk; nothing for empty data, which would end the body."""
    size = len(data) if not isinstance(data, memoryview) else data.nbytes
    return [b"%x\r\n" % size, data, b"\r\n"] if size else []


_SIZE_LINE = re.compile(
    rb'([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|"[ !#-\[\]-~]*"))?)*\r\n' % (TOKEN, TOKEN)
)
_TRAILER = re.compile(TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*")
_NO_TRAILERS = frozenset(
    {b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"}
)
