"""Send anything to the HTTP/1.1 listener, in any pieces, on a socket that may be stuck.

The invariant: no bytes raise an exception. What comes out is a sequence of whole answers, in the
order of their requests, one for each; then, if anything was refused, the end. The requests that
are seen are the same however the bytes were cut, and are those that llhttp sees, as far as it
goes. What is held in memory stays below the limits, and in the end no connection is left.

    python -m fuzz.http_server [RUNS]           with a plain mutator of its own
    python -m fuzz.http_server --atheris ...    guided by coverage, with libFuzzer's options;
                                                needs `pip install atheris`
"""

import random
import time
from collections.abc import Iterator

import httptools

from fuzz import harness
from modelport.errors import ModelportError
from modelport.protocols.base import Access, Exchange, Reply, Route, Rpc
from modelport.server.http import Connection, HttpOptions, HttpServer
from modelport.server.http.connection import PENDING_BYTES
from modelport.server.routing import Router
from modelport.testing.clock import ManualClock
from modelport.wire.http import HttpLimits, RequestHead
from tests.server.memory_connection import HandTurnedLoop, MemoryTransport, turning

Seen = tuple[str, str, bytes]
"""A request that a handler was given: method, path with query, body."""

OPTIONS = HttpOptions(
    limits=HttpLimits(head_bytes=600, body_bytes=300, chunks=20),
    idle_timeout_s=5.0,
    head_timeout_s=5.0,
    body_timeout_s=5.0,
    write_timeout_s=5.0,
)
LONGEST_LIFE_S = 60
LONGEST_S = 2.0
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY")


def check(data: bytes) -> None:
    """Hold the invariant on one input: a byte that says how, and what is sent.

    Raises:
        Exception: Whatever broke it.
    """
    started = time.perf_counter()
    how, stream = data[:1].ljust(1, b"\0")[0], data[1:]
    whole = Run([stream], is_stuck=False)
    cut = Run(list(_cut(stream, how)), is_stuck=how % 3 == 0)
    for run in (whole, cut):
        run.check_answers()
    count = len(cut.seen)
    assert whole.seen[:count] == cut.seen, (whole.seen, cut.seen)
    assert count == len(whole.seen) or cut.is_refused, (whole.seen, cut.seen)
    _compare_with_llhttp(stream, whole.seen)
    assert time.perf_counter() - started < LONGEST_S, "too slow"


class Run:
    """One connection from its beginning to its end.

    Attributes:
        seen: Requests that came to the handler.
        is_refused: Whether the server itself answered one.
    """

    def __init__(self, pieces: list[bytes], *, is_stuck: bool) -> None:
        self.seen: list[Seen] = []
        self.is_refused = False
        self._kinds: list[str] = []
        self._turns = 0
        self._waiting: list[tuple[Exchange, bytes]] = []
        clock = ManualClock(10**12)
        self._loop = HandTurnedLoop(clock)
        routes = [
            Route(
                method=method,
                pattern="/{rest:path}",
                access=Access.INFERENCE,
                handler=self._handle,
                errors=self._error,
            )
            for method in METHODS
        ]
        server = HttpServer(Router(routes), self, self._error, clock, OPTIONS)
        self._transport = MemoryTransport(self._loop)
        self._transport.is_stuck = is_stuck
        self.received = b""
        with turning(self._loop):
            server.open()
            connection = Connection(server)
            self._transport.protocol = connection
            connection.connection_made(self._transport)
            for piece in pieces:
                # A transport gives no more than it was told to read, and nothing after the end.
                while not self._transport.reads and not self._transport.is_lost:
                    self._turn()
                if self._transport.is_lost:
                    break
                connection.data_received(piece)
                assert len(connection._pending) <= PENDING_BYTES + len(piece)
                self._turn()
            if not self._transport.is_lost and not connection.eof_received():
                self._transport.close()
            self._finish()
            for _ in range(LONGEST_LIFE_S):
                if not server.connections:
                    break
                self._loop.advance(1)
            assert not server.connections, "a connection is left"
            server.close()

    def admit(self, head: RequestHead, route: Route | Rpc) -> str:
        """Be the door; it refuses whoever says so."""
        if head.headers.get("x") == "no":
            raise ModelportError("no")
        return ""

    def _error(self, error: ModelportError) -> Reply:
        self.is_refused = True
        return Reply(400, (("X-Error", "1"),), ())

    def _handle(self, exchange: Exchange) -> None:
        head = exchange.head  # type: ignore[attr-defined]  # only the listener's own has it
        self.seen.append((head.method, head.target, bytes(exchange.body)))
        answer = b"%d" % len(self.seen)
        kind = head.path[1:2]
        self._kinds.append(kind)
        match kind:
            case "l":
                self._waiting.append((exchange, answer))
            case "s":
                exchange.start(200, ())
                exchange.write(answer)
                self._waiting.append((exchange, b""))
            case "e":
                raise ModelportError("an error")
            case "b":
                exchange.respond(200, (), [bytes(100_000)])
            case _:
                exchange.respond(200, (), [answer])

    def _turn(self) -> None:
        """Let the loop turn, read a little, now and then answer a request that waits."""
        self._turns += 1
        if self._waiting and self._turns % 3 == 0:
            exchange, answer = self._waiting.pop(0)
            if answer:
                exchange.respond(200, (), [answer])
            else:
                exchange.write(b".")
                exchange.finish()
        self._loop.turn()
        self.received += self._transport.drain(50_000)
        self._loop.turn()

    def _finish(self) -> None:
        idle = 0
        while idle < 4:
            before = len(self.received)
            self._turn()
            idle = 0 if self._waiting or len(self.received) > before else idle + 1

    def check_answers(self) -> None:
        """What came out is answers and nothing else, one for each request."""
        reader = _Answers()
        reader.feed(self.received)
        assert len(reader.whole) >= len(self.seen), (self.seen, self.received[-300:])
        assert len(reader.whole) == reader.begun, self.received[-300:]
        own = [body for body, is_error in reader.whole if not is_error]
        expected = [
            bytes(100_000) if kind == "b" else b"%d." % n if kind == "s" else b"%d" % n
            for n, kind in enumerate(self._kinds, start=1)
            if kind != "e"
        ]
        assert own == expected, (own, expected)


class _Answers:
    """Reads answers with llhttp."""

    def __init__(self) -> None:
        self.whole: list[tuple[bytes, bool]] = []
        self.begun = 0
        self._body = b""
        self._names: set[bytes] = set()
        self._is_interim = False
        self.parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Read everything, to the end of the connection."""
        self.parser.feed_data(data)
        is_counted = self._names & {b"Content-Length", b"Transfer-Encoding"}
        if self.begun > len(self.whole) and not is_counted:
            self.on_message_complete()

    def on_message_begin(self) -> None:
        self._body = b""
        self._names = set()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._names.add(name)

    def on_headers_complete(self) -> None:
        self._is_interim = self.parser.get_status_code() == 100
        self.begun += not self._is_interim

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        if not self._is_interim:
            self.whole.append((self._body, b"X-Error" in self._names))


class _Requests:
    """Reads requests with llhttp."""

    def __init__(self, stream: bytes) -> None:
        self.seen: list[Seen] = []
        self.is_stopped = False
        self._target, self._body = b"", b""
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(stream)
        except httptools.HttpParserUpgrade:
            self.is_stopped = True
        except httptools.HttpParserError:
            pass

    def on_message_begin(self) -> None:
        self._target, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        self.seen.append((method, self._target.decode("latin-1"), self._body))


def _compare_with_llhttp(stream: bytes, seen: list[Seen]) -> None:
    """See that every request that was handled is one that llhttp sees too, in the same order."""
    oracle = _Requests(stream)
    theirs = iter(oracle.seen)
    for request in seen:
        if request not in theirs:
            # What follows a request for another protocol is not HTTP to llhttp.
            assert oracle.is_stopped, (seen, oracle.seen)
            return


def _cut(stream: bytes, how: int) -> Iterator[bytes]:
    source = random.Random(how)
    longest = (1, 2, 5, 30, 200, 2000)[how % 6]
    at = 0
    while at < len(stream):
        size = source.randint(1, longest)
        yield stream[at : at + size]
        at += size


HOST = b" HTTP/1.1\r\nHost: h\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n"
END = b"\r\n"

SEEDS = (
    b"\0GET /a" + HOST + END + b"GET /l" + HOST + END + b"GET /s?q" + HOST + END
    + b"GET /e" + HOST + END + b"GET /a" + HOST + END,
    b"\1POST /a" + HOST + b"Content-Length: 5\r\n\r\nhelloPOST /l" + HOST
    + b"Content-Length: 0\r\n\r\nPOST /a" + HOST + b"Content-Length: 300\r\n\r\n" + b"x" * 300,
    b"\2POST /a" + CHUNKED + b"\r\n5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n"
    b"GET /a" + HOST + END,
    b"\3POST /l" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    b"POST /s" + CHUNKED + b"Expect: 100-continue\r\n\r\n1\r\na\r\n0\r\n\r\n"
    b"GET /a" + HOST + b"Connection: close\r\n\r\nGET /a" + HOST,
    b"\4GET /a HTTP/1.0\r\n\r\nGET /a" + HOST + END,
    b"\5GET /s HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"\6GET /b" + HOST + END + b"GET /b" + HOST + END + b"GET /s" + HOST + END
    + b"GET /b" + HOST + END + b"GET /a" + HOST + END,
    b"\7POST /a" + HOST + b"X: no\r\nContent-Length: 3\r\n\r\nabcPOST /a" + HOST
    + b"Content-Length: 301\r\n\r\n" + b"y" * 301 + b"GET /a" + HOST + END,
    b"\x08GET http://h/a" + HOST + b"\r\n\r\n\r\nHEAD /a" + HOST + b"X: no\r\n\r\nGET /a" + HOST
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01x",
)  # fmt: skip

WORDS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\0", b"\x7f", b"\xff",
    b"0", b"1", b"-1", b"+", b"a", b"F", b"0x", b"00000000000000005", b"FFFFFFFFFFFFFFFF",
    b"99999999999", b"Content-Length: 3\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n", b"chunked, chunked", b"Host: h\r\n", b"Host: x\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive, Upgrade\r\n", b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n", b"X: no\r\n", b" folded\r\n", b"HTTP/1.0", b"HTTP/1.1",
    b"HTTP/2.0", b"HTTP/0.9", b"GET / HTTP/1.1\r\n", b"GET", b"POST", b"HEAD", b"CONNECT",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"\x16\x03\x01",
    b"A: " + b"b" * 600 + b"\r\n", b"/l", b"/s", b"/b", b"/e",
)  # fmt: skip


def mutations(seed: int) -> Iterator[bytes]:
    """Give inputs without end."""
    return harness.mutations(seed, SEEDS, WORDS, settings=1)


if __name__ == "__main__":
    harness.main(check, mutations)
