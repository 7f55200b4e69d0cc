"""Accepts the connections of a port that speaks TLS, and hands on those that got so far.

A connection is nobody's until its handshake is over, and costs a file and some memory meanwhile.
So handshakes under way count towards the bound on connections, and where there are too many the
oldest gives way: a flood of connections that never finish one shuts nobody out who does, for a
handshake takes milliseconds. The first byte tells whether a client speaks TLS at all; one that
does not is told so by HTTP/1.1. That goes for HTTP/2 as well: clients of gRPC take such an answer
for a failure to connect and wait before they try again, and one in their own frames for a
connection, so that grpcio 1.85 tries again at once and without end.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from functools import partial

from modelport.errors import InvalidRequest
from modelport.server.http import HttpServer
from modelport.wire.http import encode_response_head

__all__ = ["TlsListener"]

BACKLOG = 2048
MOST_ACCEPTED = 64
"""Connections that are accepted in one turn of the loop."""
SPARE_HANDSHAKES = 64
"""Handshakes that may be under way when there is no room for further connections: their clients
are told so, which takes a handshake."""
QUIET_S = 1.0
"""How long a client that speaks no TLS may take to read why it is refused."""
NO_FILES_PAUSE_S = 1.0
"""How long nothing is accepted when there are no files left."""
HANDSHAKE = b"\x16"
"""How every connection of TLS begins. Source: RFC 8446 §5.1."""
NO_TLS = "this port speaks TLS, and the client does not; call it with https:// (gRPC: with TLS)"


class TlsListener:
    """One port that speaks TLS.

    Args:
        server: Whom the connections are for; its limits and its patience.
        context: Certificate, key and what else is asked of clients.
        make: Makes the protocol of a connection that is encrypted.
    """

    def __init__(
        self,
        server: HttpServer,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        self._server = server
        self._context = context
        self._make = make
        self._seldom = server.seldom
        self._greeting: dict[asyncio.Task[None], None] = {}
        self._resuming: asyncio.TimerHandle | None = None
        self.sockets: list[socket.socket] = []

    @property
    def handshakes(self) -> int:
        """How many are under way."""
        return len(self._greeting)

    async def open(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: A name or an address; each address of a name is listened at.
            port: 0 for any that is free.

        Raises:
            OSError: If the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((row[0], row[4]) for row in rows):
                opened = socket.create_server(address, family=family, backlog=BACKLOG)
                self.sockets.append(opened)
                opened.setblocking(False)
        except OSError:
            self.close()
            raise
        self._accept_from_now_on()

    def close(self) -> None:
        """Accept nothing more; handshakes under way go on."""
        if self._resuming is not None:
            self._resuming.cancel()
        for opened in self.sockets:
            if opened.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(opened)
                opened.close()

    def abort(self) -> None:
        """Break off the handshakes under way."""
        for task in list(self._greeting):
            task.cancel()

    # Accepting.

    def _accept_from_now_on(self) -> None:
        self._resuming = None
        for opened in self.sockets:
            asyncio.get_running_loop().add_reader(opened, self._accept, opened)

    def _accept(self, opened: socket.socket) -> None:
        for _ in range(MOST_ACCEPTED):
            try:
                client, address = opened.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._pause(exc)
                return
            self._greet(client, str(address[0]))

    def _pause(self, exc: OSError) -> None:
        if exc.errno not in NO_FILES:
            raise exc
        text = f"no connection can be accepted: {exc.strerror}; let the process open more files"
        self._seldom.info("no files", text)
        loop = asyncio.get_running_loop()
        for opened in self.sockets:
            loop.remove_reader(opened)
        self._resuming = loop.call_later(NO_FILES_PAUSE_S, self._accept_from_now_on)

    def _greet(self, client: socket.socket, peer: str) -> None:
        client.setblocking(False)
        server = self._server
        room = server.options.max_connections - len(server.connections)
        greeting = self._greeting
        if len(greeting) >= max(room, SPARE_HANDSHAKES):
            oldest = next(iter(greeting))
            del greeting[oldest]
            oldest.cancel()
            self._seldom.info("too many", f"handshakes are given up: {len(greeting)} are under way")
        task = asyncio.get_running_loop().create_task(self._take(client, peer))
        greeting[task] = None
        task.add_done_callback(partial(self._greeted, client))

    def _greeted(self, client: socket.socket, task: "asyncio.Task[None]") -> None:
        self._greeting.pop(task, None)
        if task.cancelled():
            client.close()  # it may never have begun

    # One connection.

    async def _take(self, client: socket.socket, peer: str) -> None:
        timeout_s = self._server.options.head_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                first = await _peek(client)
                if first == HANDSHAKE:
                    await self._shake_hands(client, timeout_s)
                elif first:
                    self._seldom.info("no TLS", f"refused {peer}: {NO_TLS}")
                    await self._refuse(client)
                else:  # as those do that only look whether somebody listens
                    client.close()
        except TimeoutError:
            text = f"the TLS handshake of {peer} is given up: not over after {timeout_s:g} s"
            self._seldom.info("timeout", text)
            client.close()
        except OSError as exc:
            reason = getattr(exc, "reason", None) or "BROKEN_OFF"
            told, advice = reason.replace("_", " ").lower(), ADVICE_BY_REASON.get(reason)
            text = told if advice is None else f"{told}: {advice}"
            self._seldom.info(reason, f"the TLS handshake of {peer} failed: {text}")
            client.close()

    async def _shake_hands(self, client: socket.socket, timeout_s: float) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            self._make, client, ssl=self._context, ssl_handshake_timeout=timeout_s
        )

    async def _refuse(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reply = self._server.errors(InvalidRequest(NO_TLS))
        body = b"".join(reply.body)
        head = encode_response_head(400, reply.headers, len(body), close=True)
        with client, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(QUIET_S):
                await loop.sock_sendall(client, head + body)
                # A close with unread input is a reset, which can overtake the answer.
                client.shutdown(socket.SHUT_WR)
                while await loop.sock_recv(client, 65_536):
                    pass


async def _peek(client: socket.socket) -> bytes:
    """Wait for the first byte, and leave it where it is; b"" if the client goes without one."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(client, _set, readable)
    try:
        await readable
    finally:
        loop.remove_reader(client)
    try:
        return client.recv(1, socket.MSG_PEEK)
    except ConnectionError:
        return b""


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


NO_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

ADVICE_BY_REASON = {
    "BROKEN_OFF": "many clients leave so when they do not trust this server's certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust this server's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not trust this server's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept this server's certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "clients need a certificate here (--tls-client-ca)",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is none of the --tls-client-ca",
    "UNSUPPORTED_PROTOCOL": "the client speaks no TLS 1.2 or later",
}
