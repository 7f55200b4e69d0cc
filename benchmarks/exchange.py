"""One request and what makes its reply right, with the plainest client that can ask it."""

import socket
from collections.abc import Callable
from dataclasses import dataclass

import httptools

from benchmarks.replies import Reply, ReplyReader

_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request to a path, and the check that its reply must pass."""

    name: str
    path: str
    body: bytes
    is_right: Callable[[Reply], bool]
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)

    def request(self, port: int) -> bytes:
        """Write the request out as it goes over the wire, with keep-alive by default."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        if self.method != "GET":
            lines += [f"{name}: {value}" for name, value in self.headers]
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def ask(port: int, exchange: Exchange) -> Reply | None:
    """Ask once on a connection of its own; None if there was no whole reply."""
    reader = ReplyReader()
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
            connection.sendall(exchange.request(port))
            while data := connection.recv(_RECEIVE_BYTES):
                if (reply := reader.feed(data)) is not None:
                    return reply
    except (OSError, httptools.HttpParserError):
        pass
    return None


def answers_rightly(port: int, exchange: Exchange) -> bool:
    """Tell whether one request gets status 200 and a right answer."""
    reply = ask(port, exchange)
    return reply is not None and reply.status == 200 and exchange.is_right(reply)
