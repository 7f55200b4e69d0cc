"""Send large binary requests on a few connections and count the answers.

Run as ``python -m benchmarks.clients.bulk PORT CONNECTIONS SECONDS``; prints one
JSON line after its warm-up and one at the end.

wrk reads 8 KB at a time and parses every byte, so with answers of 602 KB it needs as much
time as the server and would be what is measured. Here a request is sent out of a file in memory
that the kernel does not copy, the head of a reply is parsed, and the body counted and thrown away
by the kernel: where two virtual cores share a real one, what the client does takes from the server.
"""

import contextlib
import os
import re
import selectors
import socket
import sys
import time
from dataclasses import dataclass

from benchmarks import inputs
from benchmarks.clients.pressing import measure

_HEAD_BYTES = 2048
_BUFFER = bytearray(1 << 20)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STATUS_OK = b"HTTP/1.1 200"


class ReplyError(Exception):
    """The server gave an error status, or closed in the middle of a reply."""


@dataclass(slots=True)
class Exchanging:
    """One connection: what is left to send, then what is left to receive."""

    peer: socket.socket
    file: int = -1
    sent_bytes: int = 0
    unsent_bytes: int = 0
    unread_bytes: int | None = None
    started_at: float = 0.0

    def start(self, file: int, size: int) -> None:
        """Begin the next exchange with the request in a file; nothing is sent yet."""
        self.file = file
        self.sent_bytes = 0
        self.unsent_bytes = size
        self.unread_bytes = None
        self.started_at = time.perf_counter()

    def send(self) -> bool:
        """Send what the kernel takes; true when the request has gone out whole."""
        try:
            sent = os.sendfile(self.peer.fileno(), self.file, self.sent_bytes, self.unsent_bytes)
        except BlockingIOError:
            return False
        self.sent_bytes += sent
        self.unsent_bytes -= sent
        return not self.unsent_bytes

    def receive(self) -> bool:
        """Take what has arrived; true when the reply is whole."""
        if self.unread_bytes is None:
            # The head is short and sent at once: it does not arrive in pieces.
            received_bytes = self._receive(_HEAD_BYTES, 0)
            self.unread_bytes = _whole_bytes(received_bytes) - received_bytes
            if self.unread_bytes < 0:
                raise ReplyError("a reply is longer than its Content-Length")
        if self.unread_bytes:
            # Linux throws away what is asked for this way, whatever the buffer holds; tcp(7).
            with contextlib.suppress(BlockingIOError):
                self.unread_bytes -= self._receive(self.unread_bytes, socket.MSG_TRUNC)
        return not self.unread_bytes

    def _receive(self, size: int, flags: int) -> int:
        received_bytes = self.peer.recv_into(_BUFFER, min(size, len(_BUFFER)), flags)
        if not received_bytes:
            raise ReplyError("the connection was closed in the middle of a reply")
        return received_bytes


def _stored(request: bytes) -> tuple[int, int]:
    """Keep a request in a file in memory."""
    file = os.memfd_create("request")
    os.write(file, request)
    return file, len(request)


class Press:
    """Connections that ask without pause, and how long each answer took."""

    def __init__(self, port: int, connections: int) -> None:
        self.taken_s: list[float] = []
        self._requests = [_stored(exchange.request(port)) for exchange in inputs.image_identity()]
        self._selector = selectors.DefaultSelector()
        for _ in range(connections):
            peer = socket.create_connection(("127.0.0.1", port))
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(peer, selectors.EVENT_WRITE)
            self._ask(Exchanging(peer))

    def run(self, seconds: float) -> None:
        """Ask for some seconds; what is under way then stays so."""
        self.taken_s.clear()
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            for key, _ in self._selector.select(1.0):
                exchanging: Exchanging = key.data
                if exchanging.unsent_bytes:
                    if exchanging.send():
                        self._selector.modify(exchanging.peer, selectors.EVENT_READ, exchanging)
                elif exchanging.receive():
                    self.taken_s.append(time.perf_counter() - exchanging.started_at)
                    self._ask(exchanging)

    def _ask(self, exchanging: Exchanging) -> None:
        exchanging.start(*self._requests[len(self.taken_s) % len(self._requests)])
        event = selectors.EVENT_READ if exchanging.send() else selectors.EVENT_WRITE
        self._selector.modify(exchanging.peer, event, exchanging)


def _whole_bytes(received_bytes: int) -> int:
    head_bytes = _BUFFER.find(b"\r\n\r\n", 0, received_bytes)
    length = _LENGTH.search(_BUFFER, 0, max(0, head_bytes))
    if not _BUFFER.startswith(_STATUS_OK) or length is None:
        raise ReplyError(f"no good answer: {bytes(_BUFFER[:200])!r}")
    return head_bytes + 4 + int(length[1])


def main(port: int, connections: int, seconds: int) -> None:
    """Warm up, measure, print."""
    press = Press(port, connections)
    measure(press, seconds)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
