"""Requests over pooled connections, on asyncio. For one event loop at a time."""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable
from typing import cast

from modelport.client.flows import Request, Response, TransportFailed
from modelport.client.transports.address import Address, Proxies
from modelport.client.transports.common import (
    JOIN_BELOW_BYTES,
    MOST_BYTES,
    MOST_IDLE,
    Heads,
    WholeAnswer,
    check_stream,
    failure_of,
    pieces_of,
    tunnel_head,
)
from modelport.wire.chunked import LAST_CHUNK, encode_chunk
from modelport.wire.http_response import BadResponse, ResponseReader

__all__ = ["AsyncClient", "AsyncStream"]

MOST_CONNECTIONS = 100
"""Requests under way at a time; further ones wait."""
MOST_UNREAD_BYTES = 1 << 20
"""Bytes of a stream that are held for its reader before the server is held back."""


class AsyncClient:
    """Sends requests, one connection per request under way, kept for the next.

    Bound to the event loop of its first request; on another one (a second ``asyncio.run``) it
    begins anew.

    Args:
        timeout_s: Bound on connecting and on each wait for bytes; ``None`` waits for ever.
        make_context: How to make the TLS context, once it is needed.
        proxies: By which way URLs are reached; ``None`` for what the environment says.
        most_bytes: Of an answer that is given whole; ``None`` for no bound.
    """

    def __init__(
        self,
        timeout_s: float | None,
        make_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        proxies: Proxies | None = None,
        most_bytes: int | None = MOST_BYTES,
    ) -> None:
        self._timeout_s = timeout_s
        self.most_bytes = most_bytes
        self._make_context = make_context
        self._context: ssl.SSLContext | None = None
        self._proxies = Proxies(os.environ) if proxies is None else proxies
        self.heads = Heads()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: dict[Address, list[_Connection]] = {}
        self._slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def send(self, request: Request, *, wants_stream: bool = False) -> Response:
        """Send a request and read the answer, its head only if it is to be a stream.

        Cancelling closes the connection, by which the server learns of it.

        Raises:
            TransportFailed: If no whole answer came.
            TooLarge: If it is longer than may be.
        """
        self._bind_to_loop()
        address, target, way = self._proxies.locate(request.url)
        timeout_s = self._timeout_s if request.timeout_s is None else request.timeout_s
        slots = self._slots
        try:
            async with asyncio.timeout(timeout_s):
                await slots.acquire()
        except TimeoutError:
            raise TransportFailed(
                f"{MOST_CONNECTIONS} requests are under way, and none of them ended within "
                f"{timeout_s:g} s",
                was_sent=False,
                is_timeout=True,
            ) from None
        exchange = _Exchange(self, address, timeout_s, slots)
        try:
            await exchange.send(request, target, way)
            return await exchange.receive(wants_stream=wants_stream)
        except (OSError, BadResponse) as exc:
            exchange.close()
            raise exchange.failure(exc) from exc
        except BaseException:
            exchange.close()
            raise

    async def close(self) -> None:
        """Close what is kept. Idempotent."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()
        await asyncio.sleep(0)

    def _bind_to_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections of a loop that has ended can only be forgotten.
            self._loop = loop
            self._idle = {}
            self._slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def take(self, address: Address, timeout_s: float | None) -> "_Connection":
        """Give a connection, new or used before."""
        kept = self._idle.get(address)
        while kept:
            connection = kept.pop()
            if connection.is_fresh:
                return connection
            connection.close()
        async with asyncio.timeout(timeout_s):
            return await self._connect(address)

    def give_back(self, address: Address, connection: "_Connection") -> None:
        """Keep a connection for the next request."""
        kept = self._idle.setdefault(address, [])
        if len(kept) < MOST_IDLE and connection.is_fresh:
            kept.append(connection)
        else:
            connection.close()

    async def _connect(self, address: Address) -> "_Connection":
        loop = asyncio.get_running_loop()
        connection: asyncio.BaseProtocol
        if address.path:
            _, connection = await loop.create_unix_connection(_Connection, address.path)
            return cast(_Connection, connection)
        if address.is_tls and self._context is None:
            self._context = await asyncio.to_thread(self._make_context)
        if address.proxy is None:
            context = self._context if address.is_tls else None
            _, connection = await loop.create_connection(
                _Connection, address.host, address.port, ssl=context
            )
            return cast(_Connection, connection)
        proxy = address.proxy
        transport, made = await loop.create_connection(_Connection, proxy.host, proxy.port)
        if address.is_tls:
            assert self._context is not None
            try:
                await self._open_tunnel(made, address)
                wrapped = await loop.start_tls(
                    transport, made, self._context, server_hostname=address.host
                )
            except BaseException:
                made.close()
                raise
            made.connection_made(cast(asyncio.Transport, wrapped))
        return made

    async def _open_tunnel(self, connection: "_Connection", address: Address) -> None:
        connection.write(tunnel_head(address))
        reader = ResponseReader("HEAD")
        while reader.head is None:
            data = await connection.read()
            if not data:
                raise BadResponse("the proxy closed the connection")
            reader.feed(data)
        if not 200 <= reader.head.status < 300:
            raise BadResponse(f"the proxy refused with status {reader.head.status}")


class _Connection(asyncio.Protocol):
    """Bytes of one connection as they are asked for."""

    def __init__(self) -> None:
        self._transport = cast(asyncio.Transport, None)
        self._data: list[bytes] = []
        self._held = 0
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_lost = False
        self.is_open = False

    @property
    def is_fresh(self) -> bool:
        """Whether it can be used for a request: open, and nothing has come that nobody asked."""
        return self.is_open and not self._data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._data.append(data)
        self._held += len(data)
        if self._held > MOST_UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.is_open = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._is_lost = True
        self._error = exc
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def write(self, data: bytes | memoryview) -> None:
        if not self.is_open:
            raise self._error or ConnectionResetError("the server closed the connection")
        self._transport.write(data)

    async def drain(self, timeout_s: float | None) -> None:
        if self._writable is not None:
            async with asyncio.timeout(timeout_s):
                await self._writable

    async def read(self, timeout_s: float | None = None) -> bytes:
        """Give what has come, or wait for it; ``b""`` at the end."""
        if not self._data:
            if self._error is not None:
                raise self._error
            if not self.is_open:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(timeout_s):
                await self._waiter
            if not self._data:
                return await self.read(timeout_s)
        data = self._data[0] if len(self._data) == 1 else b"".join(self._data)
        self._data.clear()
        self._held = 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        self.is_open = False
        # One that is over by itself has no loop any more (CPython 3.11) and fails if it is aborted.
        if not self._is_lost:
            self._transport.abort()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        transport: AsyncClient,
        address: Address,
        timeout_s: float | None,
        slots: asyncio.Semaphore,
    ) -> None:
        self._transport = transport
        self._address = address
        self._timeout_s = timeout_s
        self._slots: asyncio.Semaphore | None = slots
        self._connection: _Connection | None = None
        self._is_sent = False
        self._is_cut_short = False

    async def send(self, request: Request, target: str, way: tuple[tuple[str, str], ...]) -> None:
        heads = self._transport.heads
        head, length = heads.of(request, target, way)
        body = request.body
        self._reader = ResponseReader(request.method, heads.answers)
        connection = await self._transport.take(self._address, self._timeout_s)
        self._connection = connection
        if isinstance(body, bytes) and len(body) < JOIN_BELOW_BYTES:
            connection.write(head + body)
            self._is_sent = True
            return
        connection.write(head)
        self._is_sent = True
        for piece in pieces_of(body):
            if not connection.is_fresh:
                # A server that refuses a body answers before it has read all of it.
                self._is_cut_short = True
                return
            if length is not None:
                connection.write(piece)
            elif piece:
                connection.write(b"".join(map(bytes, encode_chunk(piece))))
            await self._drain(connection)
        if length is None and connection.is_open:
            connection.write(LAST_CHUNK)

    async def _drain(self, connection: _Connection) -> None:
        try:
            await connection.drain(self._timeout_s)
        except TimeoutError:
            if connection.is_fresh:
                raise
            # It has answered instead of reading; that is seen before the next piece.

    async def receive(self, *, wants_stream: bool) -> Response:
        reader = self._reader
        part = await self._read()
        if reader.head is None:
            # A few bytes: the rest of them may take as long as a wait for bytes.
            async with asyncio.timeout(self._timeout_s):
                while reader.head is None:
                    part = await self._read()
        head = reader.head
        if wants_stream and head.status < 300:
            check_stream(head)
            return Response(head.status, head.headers, stream=AsyncStream(self, part))
        answer = WholeAnswer(reader, part, self._address, self._transport.most_bytes)
        while answer.wants_more():
            answer.add(await self._read())
        self._is_cut_short |= answer.is_cut_short
        self.end()
        if head.coding:
            # A little can unfold to a gigabyte, and others wait for this loop.
            return await asyncio.to_thread(answer.response)
        return answer.response()

    async def read_piece(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end."""
        while not self._reader.is_complete:
            if piece := await self._read():
                return piece
        self.end()
        return b""

    async def _read(self) -> bytes:
        assert self._connection is not None
        data = await self._connection.read(self._timeout_s)
        if data:
            return self._reader.feed(data)
        self._reader.feed_end()
        return b""

    def end(self) -> None:
        """The answer is whole: keep the connection if both sides want to."""
        connection, self._connection = self._connection, None
        if connection is not None:
            head = self._reader.head
            if head is not None and head.keep_alive and not self._is_cut_short:
                self._transport.give_back(self._address, connection)
            else:
                connection.close()
        self._leave()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._leave()

    def _leave(self) -> None:
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()

    def failure(self, exc: Exception) -> Exception:
        return failure_of(exc, self._address, self._timeout_s, was_sent=self._is_sent)


class AsyncStream:
    """The body of an answer, piece by piece as it comes."""

    def __init__(self, exchange: _Exchange, first: bytes) -> None:
        self._exchange = exchange
        self._first = first

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Give them."""
        try:
            if self._first:
                yield self._first
            while piece := await self._exchange.read_piece():
                yield piece
        except (OSError, BadResponse) as exc:
            raise self._exchange.failure(exc) from exc
        finally:
            self.close()

    def close(self) -> None:
        """Let the connection go; what was not read is lost."""
        self._exchange.close()
