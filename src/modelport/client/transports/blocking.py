"""Requests over pooled connections, on plain blocking sockets. Safe to share between threads.

Of all that was measured this is what a small exchange costs least with: see
``docs/design/client.md``.
"""

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from modelport.client.flows import Request, Response, TransportFailed
from modelport.client.transports.address import Address, Proxies
from modelport.client.transports.common import JOIN_BELOW_BYTES, MOST_IDLE, Heads, failure_of
from modelport.wire.http import LAST_CHUNK, encode_chunk
from modelport.wire.http_response import BadResponse, ResponseReader, encode_request_head

__all__ = ["BlockingStream", "Client"]

READ_BYTES = 262_144


class Client:
    """Sends requests, one connection per request under way, kept for the next.

    Args:
        timeout_s: Bound on connecting and on each wait for bytes; ``None`` waits for ever.
        make_context: How to make the TLS context, once it is needed.
    """

    def __init__(
        self,
        timeout_s: float | None,
        make_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._timeout_s = timeout_s
        self._make_context = make_context
        self._context: ssl.SSLContext | None = None
        self._proxies = Proxies.of_environment()
        self.heads = Heads()
        self._lock = threading.Lock()
        self._idle: dict[Address, list[socket.socket]] = {}
        self._is_closed = False

    def send(self, request: Request, *, wants_stream: bool = False) -> Response:
        """Send a request and read the answer, its head only if it is to be a stream.

        Raises:
            TransportFailed: If no whole answer came.
        """
        address, target, host = self._proxies.locate(request.url)
        timeout_s = self._timeout_s if request.timeout_s is None else request.timeout_s
        exchange = _Exchange(self, address, timeout_s)
        try:
            exchange.send(request, target, host)
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

    def take(self, address: Address, timeout_s: float | None) -> socket.socket:
        """Give a connection, new or used before."""
        while True:
            with self._lock:
                kept = self._idle.get(address)
                connection = kept.pop() if kept else None
            if connection is None:
                return self._connect(address, timeout_s)
            if not _has_ended(connection):
                connection.settimeout(timeout_s)
                return connection
            connection.close()

    def give_back(self, address: Address, connection: socket.socket) -> None:
        """Keep a connection for the next request."""
        with self._lock:
            kept = self._idle.setdefault(address, [])
            if not self._is_closed and len(kept) < MOST_IDLE:
                kept.append(connection)
                return
        connection.close()

    def _connect(self, address: Address, timeout_s: float | None) -> socket.socket:
        if address.path:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(timeout_s)
            connection.connect(address.path)
            return connection
        connection = socket.create_connection(
            address.proxy or (address.host, address.port), timeout_s
        )
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.is_tls:
                if address.proxy is not None:
                    _open_tunnel(connection, address)
                if self._context is None:
                    self._context = self._make_context()
                return self._context.wrap_socket(connection, server_hostname=address.host)
        except BaseException:
            connection.close()
            raise
        return connection


class _Exchange:
    """One request and its answer."""

    def __init__(self, transport: Client, address: Address, timeout_s: float | None) -> None:
        self._transport = transport
        self._address = address
        self._timeout_s = timeout_s
        self._connection: socket.socket | None = None
        self._is_sent = False
        self._reader = ResponseReader("GET")

    def send(self, request: Request, target: str, host: str) -> None:
        heads = self._transport.heads
        head, length = heads.of(request, target, host)
        body = request.body
        self._reader = ResponseReader(request.method, heads.answers)
        connection = self._transport.take(self._address, self._timeout_s)
        self._connection = connection
        # A server that refuses a body answers before it has read it: look for the answer then.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(body, bytes) and len(body) < JOIN_BELOW_BYTES:
                self._is_sent = True
                connection.sendall(head + body)
                return
            connection.sendall(head)
            self._is_sent = True
            for piece in (body,) if isinstance(body, bytes) else body:
                if length is not None:
                    connection.sendall(piece)
                elif piece:
                    connection.sendall(b"".join(encode_chunk(piece)))
            if length is None:
                connection.sendall(LAST_CHUNK)

    def receive(self, *, wants_stream: bool) -> Response:
        reader = self._reader
        parts = []
        while reader.head is None:
            parts.append(self._read())
        head = reader.head
        if wants_stream and head.status < 300:
            first = b"".join(parts)
            return Response(head.status, head.headers, stream=BlockingStream(self, first))
        while not reader.is_complete:
            parts.append(self._read())
        self.end()
        return Response(head.status, head.headers, b"".join(parts))

    def read_piece(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end."""
        while not self._reader.is_complete:
            if piece := self._read():
                return piece
        self.end()
        return b""

    def _read(self) -> bytes:
        assert self._connection is not None
        data = self._connection.recv(max(READ_BYTES, min(self._reader.missing_bytes, 1 << 22)))
        if data:
            return self._reader.feed(data)
        self._reader.feed_end()
        return b""

    def end(self) -> None:
        """The answer is whole: keep the connection if both sides want to."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._reader.head is not None and self._reader.head.keep_alive:
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


def _has_ended(connection: socket.socket) -> bool:
    """Whether the server has closed a connection that nobody uses (or said what nobody asked)."""
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(0))
    return True


def _open_tunnel(connection: socket.socket, address: Address) -> None:
    name = f"[{address.host}]" if ":" in address.host else address.host
    target = f"{name}:{address.port}"
    connection.sendall(encode_request_head("CONNECT", target, [("Host", target)], -1))
    reader = ResponseReader("HEAD")
    while reader.head is None:
        # A byte at a time: what follows the answer belongs to the tunnel.
        data = connection.recv(1)
        if not data:
            raise BadResponse("the proxy closed the connection")
        reader.feed(data)
    if reader.head.status != 200:
        raise BadResponse(f"the proxy refused with status {reader.head.status}")
