"""One keep-alive connection that knows whether a request it sent was answered."""

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import cast

import httptools

from benchmarks.replies import Reply, ReplyReader


class NotSentError(Exception):
    """The connection had closed before the request was sent: nothing is lost."""


class LostError(Exception):
    """The request was sent whole and the connection closed without a whole answer."""


@dataclass(slots=True)
class Timing:
    """When things happened, on `time.perf_counter`."""

    sent_at: float = 0.0
    first_body_at: float = 0.0
    ended_at: float = 0.0


class Connection(asyncio.Protocol):
    """Ask one request at a time; `timing` tells about the latest."""

    def __init__(self) -> None:
        self.timing = Timing()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = ReplyReader()
        self._due: asyncio.Future[Reply] | None = None
        self._is_closed = False

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect to 127.0.0.1."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes) -> Reply:
        """Send a whole request and wait for its whole reply.

        Raises:
            NotSentError: If the peer has closed the connection, or said that it will.
            LostError: If it closes now, before the reply is complete.
        """
        if self._is_closed or self._reader.is_last or self._transport is None:
            raise NotSentError("the server had closed the connection")
        self._due = self._loop.create_future()
        self.timing = Timing(sent_at=time.perf_counter())
        self._transport.write(request)
        return await self._due

    def close(self) -> None:
        """Close; a reply still due is lost."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        peer: socket.socket = transport.get_extra_info("socket")
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            reply = self._reader.feed(data)
        except httptools.HttpParserError as error:
            self._lose(f"the reply is not HTTP: {error}")
            self.close()
            return
        if not self.timing.first_body_at and (self._reader.has_body or reply is not None):
            self.timing.first_body_at = time.perf_counter()
        if reply is not None and self._due is not None:
            self.timing.ended_at = time.perf_counter()
            self._due.set_result(reply)
            self._due = None

    def eof_received(self) -> None:
        self._is_closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closed = True
        self._lose(f"closed before the answer was complete ({exc or 'end of stream'})")

    def _lose(self, reason: str) -> None:
        if self._due is not None and not self._due.done():
            self._due.set_exception(LostError(reason))
        self._due = None
