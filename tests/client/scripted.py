"""A server that says byte for byte what a test wants it to say, and notes what it was asked."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from modelport.client.flows import Request, Response

Send = Callable[[Request], Response]
Answer = bytes | Sequence[bytes] | Callable[["Asked"], bytes]


@dataclass
class Asked:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split()[1]


def reply(
    body: bytes = b"", status: int = 200, content_type: str = "application/json", **more: str
) -> bytes:
    """Write a whole answer; names of headers with _ for -."""
    head = f"HTTP/1.1 {status} Said\r\nContent-Type: {content_type}\r\n"
    head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(
    *pieces: bytes, content_type: str = "text/event-stream", is_whole: bool = True
) -> list[bytes]:
    """Write a streamed answer, a piece at a time."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return [head.encode(), *chunks, *([b"0\r\n\r\n"] if is_whole else [CLOSE])]


CLOSE = b"<close>"
"""Stands in an answer where the connection is closed."""


@dataclass
class Scripted:
    """Answers by path; lists of answers are given in turn, the last one for ever."""

    answers: dict[str, list[Answer]]
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as lines, suppress(OSError):
            while line := lines.readline().decode().strip():
                headers = {}
                while header := lines.readline().decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = lines.read(int(headers.get("content-length", "0")))
                asked = Asked(line, headers, body)
                self.asked.append(asked)
                answers = self.answers.get(asked.path.partition("?")[0], [reply(b"no", 404)])
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if callable(answer):
                    answer = answer(asked)
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    if piece == CLOSE:
                        return
                    peer.sendall(piece)


@contextmanager
def scripted(answers: dict[str, list[Answer]]) -> Iterator[Scripted]:
    """Run it on a free port."""
    server = Scripted(answers)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
