"""Requests over pooled connections, on plain blocking sockets. Safe to share between threads.

Of all that was measured this is what a small exchange costs least with: see
``docs/design/client.md``.
"""

import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator

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

__all__ = ["BlockingStream", "Client"]

READ_BYTES = 65_536
MOST_READ_BYTES = 131_072
"""At a time: what the system has to map anew for each read costs more than another read."""


class Client:
    """Sends requests, one connection per request under way, kept for the next.

    A process that is forked begins anew: it shares no connection with its parent.

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
        self._lock = threading.Lock()
        self._idle: dict[Address, list[_Connection]] = {}
        self._is_closed = False
        self._process = os.getpid()

    def send(self, request: Request, *, wants_stream: bool = False) -> Response:
        """Send a request and read the answer, its head only if it is to be a stream.

        Raises:
            TransportFailed: If no whole answer came.
            TooLarge: If it is longer than may be.
        """
        address, target, way = self._proxies.locate(request.url)
        timeout_s = self._timeout_s if request.timeout_s is None else request.timeout_s
        exchange = _Exchange(self, address, timeout_s)
        try:
            exchange.send(request, target, way)
            return exchange.receive(wants_stream=wants_stream)
        except TransportFailed:
            exchange.close()
            raise
        except (OSError, BadResponse) as exc:
            exchange.close()
            raise exchange.failure(exc) from exc
        except BaseException:
            exchange.close()
            raise

    def close(self) -> None:
        """Close what is kept; connections in use are closed when they are done. Idempotent."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def take(self, address: Address, timeout_s: float | None) -> "_Connection":
        """Give a connection, new or used before."""
        if os.getpid() != self._process:
            self._begin_anew()
        while True:
            with self._lock:
                kept = self._idle.get(address)
                connection = kept.pop() if kept else None
            if connection is None:
                return _Connection(self._connect(address, timeout_s), timeout_s)
            if not connection.says_something():
                connection.set_timeout(timeout_s)
                return connection
            # It has ended, or the server says what nobody has asked.
            connection.close()

    def give_back(self, address: Address, connection: "_Connection") -> None:
        """Keep a connection for the next request."""
        with self._lock:
            kept = self._idle.setdefault(address, [])
            if not self._is_closed and len(kept) < MOST_IDLE:
                kept.append(connection)
                return
        connection.close()

    def _begin_anew(self) -> None:
        """Leave the connections to the process that this one was forked from."""
        # A thread that holds the lock there does not exist here.
        self._lock = threading.Lock()
        self._process = os.getpid()
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                # Lets go of this process's end alone.
                connection.close()

    def _connect(self, address: Address, timeout_s: float | None) -> socket.socket:
        if address.path:
            connection = socket.socket(socket.AF_UNIX)
        else:
            through = address.proxy or address
            connection = socket.create_connection((through.host, through.port), timeout_s)
        try:
            connection.settimeout(timeout_s)
            if address.path:
                connection.connect(address.path)
                return connection
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not address.is_tls:
                return connection
            if address.proxy is not None:
                _open_tunnel(connection, address, timeout_s)
            if self._context is None:
                self._context = self._make_context()
            return self._context.wrap_socket(connection, server_hostname=address.host)
        except BaseException:
            connection.close()
            raise


class _Connection:
    """A socket, and what is asked of it for each request in as few calls of the system as can be.

    A socket with a timeout of Python's asks whether it may before each read and write. The system
    itself keeps time as well, and for nothing (SO_RCVTIMEO, SO_SNDTIMEO); TLS needs Python's.
    """

    __slots__ = ("_poll", "_timeout_s", "close", "recv", "sendall", "socket")

    def __init__(self, connected: socket.socket, timeout_s: float | None) -> None:
        self.socket = connected
        self.sendall = connected.sendall
        self.recv = connected.recv
        self.close = connected.close
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self._set(timeout_s)

    def set_timeout(self, timeout_s: float | None) -> None:
        if timeout_s != self._timeout_s:
            self._set(timeout_s)

    def says_something(self) -> bool:
        """Whether the server has sent anything, or closed, before it is asked."""
        return bool(self._poll.poll(0))

    def _set(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        if isinstance(self.socket, ssl.SSLSocket) or os.name != "posix":
            self.socket.settimeout(timeout_s)
            return
        # 0 would be no bound at all.
        us = 0 if timeout_s is None else max(1, int(timeout_s * 1e6))
        timeval = struct.pack("@ll", us // 1_000_000, us % 1_000_000)
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


class _Exchange:
    """One request and its answer."""

    def __init__(self, transport: Client, address: Address, timeout_s: float | None) -> None:
        self._transport = transport
        self._address = address
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None
        self._is_sent = False
        self._is_cut_short = False

    def send(self, request: Request, target: str, way: tuple[tuple[str, str], ...]) -> None:
        heads = self._transport.heads
        head, length = heads.of(request, target, way)
        body = request.body
        self._reader = ResponseReader(request.method, heads.answers)
        connection = self._transport.take(self._address, self._timeout_s)
        self._connection = connection
        if isinstance(body, bytes) and len(body) < JOIN_BELOW_BYTES:
            self._is_sent = True
            # A server that is about to close has perhaps said why.
            try:
                connection.sendall(head + body)
            except (BrokenPipeError, ConnectionResetError):
                pass
            return
        try:
            connection.sendall(head)
            self._is_sent = True
            for piece in pieces_of(body):
                if connection.says_something():
                    # A server that refuses a body answers before it has read all of it.
                    self._is_cut_short = True
                    return
                if length is not None:
                    connection.sendall(piece)
                elif piece:
                    connection.sendall(b"".join(encode_chunk(piece)))
            if length is None:
                connection.sendall(LAST_CHUNK)
        except (BrokenPipeError, ConnectionResetError, TimeoutError, BlockingIOError):
            self._is_cut_short = True
            if not connection.says_something():
                raise

    def receive(self, *, wants_stream: bool) -> Response:
        reader = self._reader
        part = self._read()
        if reader.head is None:
            part = self._read_rest_of_head()
        head = reader.head
        assert head is not None
        if wants_stream and head.status < 300:
            check_stream(head)
            return Response(head.status, head.headers, stream=BlockingStream(self, part))
        most_bytes = self._transport.most_bytes
        if (
            reader.is_complete
            and (most_bytes is None or len(part) <= most_bytes)
            and not head.coding
        ):
            # Nearly every answer: it came with its head.
            self.end()
            return Response(head.status, head.headers, part)
        answer = WholeAnswer(reader, part, self._address, most_bytes)
        while answer.wants_more():
            answer.add(self._read())
        self._is_cut_short |= answer.is_cut_short
        self.end()
        return answer.response()

    def _read_rest_of_head(self) -> bytes:
        """Read until the head is whole, which may take as long as a wait for bytes: a few come."""
        until_s = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while True:
            part = self._read()
            if self._reader.head is not None:
                return part
            if until_s is not None and time.monotonic() > until_s:
                raise TimeoutError

    def read_piece(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end."""
        while not self._reader.is_complete:
            if piece := self._read():
                return piece
        self.end()
        return b""

    def _read(self) -> bytes:
        assert self._connection is not None
        missing = self._reader.missing_bytes
        data = self._connection.recv(
            READ_BYTES if missing < READ_BYTES else min(missing, MOST_READ_BYTES)
        )
        if data:
            return self._reader.feed(data)
        self._reader.feed_end()
        return b""

    def end(self) -> None:
        """The answer is whole: keep the connection if both sides want to."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        head = self._reader.head
        if head is not None and head.keep_alive and not self._is_cut_short:
            self._transport.give_back(self._address, connection)
        else:
            connection.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def failure(self, exc: Exception) -> TransportFailed:
        return failure_of(exc, self._address, self._timeout_s, was_sent=self._is_sent)


class BlockingStream:
    """The body of an answer, piece by piece as it comes."""

    def __init__(self, exchange: _Exchange, first: bytes) -> None:
        self._exchange = exchange
        self._first = first

    def __iter__(self) -> Iterator[bytes]:
        try:
            if self._first:
                yield self._first
            while piece := self._exchange.read_piece():
                yield piece
        except (OSError, BadResponse) as exc:
            raise self._exchange.failure(exc) from exc
        finally:
            self.close()

    def close(self) -> None:
        """Let the connection go; what was not read is lost."""
        self._exchange.close()


def _open_tunnel(connection: socket.socket, address: Address, timeout_s: float | None) -> None:
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    connection.sendall(tunnel_head(address))
    reader = ResponseReader("HEAD")
    while reader.head is None:
        if until_s is not None and time.monotonic() > until_s:
            raise TimeoutError
        # A byte at a time: what follows the answer belongs to the tunnel.
        data = connection.recv(1)
        if not data:
            raise BadResponse("the proxy closed the connection")
        reader.feed(data)
    if not 200 <= reader.head.status < 300:
        raise BadResponse(f"the proxy refused with status {reader.head.status}")
