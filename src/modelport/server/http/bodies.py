"""Bodies of requests while they come: of known length, in chunks, or given on piece by piece."""

from typing import Any

import numpy as np

from modelport.protocols.base import Buffer
from modelport.server.http.exchange import HttpExchange
from modelport.server.http.known_heads import Bound, max_body_setting
from modelport.wire.chunked import ChunkedReader
from modelport.wire.http import HttpLimits, RequestHead

__all__ = ["ChunkedBody", "CountedBody", "StreamedBody", "aligned_view"]


def aligned_view(head: RequestHead, length: int) -> memoryview:
    """Make room for a body of ``length`` bytes.

    The first tensor of a binary request begins behind the JSON part: the buffer is shifted so that
    this byte lies on a 64-byte boundary, which vector instructions and runtimes like.
    """
    header = head.headers.get("inference-header-content-length", "")
    align_at = int(header) if header.isascii() and header.isdigit() and len(header) < 10 else 0
    buffer: Any = np.empty(length + 64, np.uint8)
    start = -(buffer.ctypes.data + align_at) % 64
    return memoryview(buffer)[start : start + length]


class CountedBody:
    """A body of known length, put together in one place."""

    __slots__ = ("_filled", "_view", "begun_ns", "bound", "is_complete")

    def __init__(self, bound: Bound, length: int, begun_ns: int) -> None:
        self.bound = bound
        self.begun_ns = begun_ns
        self._view = aligned_view(bound.head, length)
        self._filled = 0
        self.is_complete = length == 0

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take what belongs to the body, and give back the rest."""
        start = self._filled
        end = start + len(data)
        view = self._view
        if end <= len(view):
            view[start:end] = data
            self._filled = end
            self.is_complete = end == len(view)
            return b""
        taken = len(view) - start
        view[start:] = data[:taken]
        self._filled = len(view)
        self.is_complete = True
        return bytes(data[taken:])

    @property
    def missing(self) -> int:
        """Bytes that are still to come."""
        return len(self._view) - self._filled

    @property
    def place(self) -> memoryview:
        """Where they are wanted; see :meth:`filled`."""
        return self._view[self._filled :]

    def filled(self, count: int) -> None:
        """Take so many bytes that were put in :attr:`place`."""
        self._filled += count
        self.is_complete = self._filled == len(self._view)

    def take(self) -> Buffer:
        """Give it away."""
        # Writable: the buffer is this request's alone, and a model may use it as it likes.
        return self._view


class ChunkedBody:
    """A body in chunks."""

    __slots__ = ("_reader", "begun_ns", "bound")

    def __init__(self, bound: Bound, reader: ChunkedReader, begun_ns: int) -> None:
        self.bound = bound
        self.begun_ns = begun_ns
        self._reader = reader

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come."""
        return self._reader.is_complete

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body, and give back the rest.

        Raises:
            ModelportError: The chunks cannot be read, or there are too many bytes of them.
        """
        return self._reader.feed(data)

    def take(self) -> Buffer:
        """Give it away."""
        return memoryview(self._reader.body).toreadonly()


class StreamedBody:
    """A body that is given on as it comes."""

    __slots__ = ("_missing", "_reader", "bound", "exchange", "is_complete")

    def __init__(self, bound: Bound, exchange: HttpExchange, limits: HttpLimits) -> None:
        self.bound = bound
        self.exchange = exchange
        head = bound.head
        # Nothing is kept of it, so many chunks cost no more than many pieces do.
        chunks = max(limits.chunks, bound.max_body)
        self._reader = None
        if head.is_chunked:
            setting = max_body_setting(bound.route)
            self._reader = ChunkedReader(bound.max_body, chunks, limits.head_bytes, setting)
        self._missing = head.content_length
        self.is_complete = self._reader is None and self._missing == 0

    def feed(self, data: bytes) -> bytes:
        """Give on what belongs to the body, and give back the rest.

        Raises:
            ModelportError: The chunks cannot be read, or the handler does not want more.
        """
        reader = self._reader
        if reader is not None:
            rest = reader.feed(data)
            self.is_complete = reader.is_complete
            piece = bytes(reader.body)
            reader.body.clear()
        else:
            piece, rest = data[: self._missing], data[self._missing :]
            self._missing -= len(piece)
            self.is_complete = self._missing == 0
        receiver = self.exchange.receiver
        if piece and receiver is not None and not self.exchange.is_over:
            receiver.data(piece)
        return rest
