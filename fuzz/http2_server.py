"""Send any frames and bytes to the HTTP/2 listener, in any pieces, on a socket that may be stuck.

The invariant: no bytes raise an exception. What comes out is frames; each is for a stream that the
client opened and that has not ended, no more data than the client's windows let, every block of
fields can be read, and nothing follows the end. How the bytes were cut changes nothing of what
the handlers see. Credit is neither lost nor made up. What is held in memory stays below the
limits. In the end no connection is left, every call has been finished or cancelled exactly once,
no deadline waits, and no room is reserved.

    python fuzz/http2_server.py [RUNS]           with a plain mutator of its own
    python fuzz/http2_server.py --atheris ...    guided by coverage, with libFuzzer's options;
                                                 needs `pip install atheris`
"""

import random
import struct
import sys
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from hpack import Decoder

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import harness
from modelport.errors import ModelportError
from modelport.protocols.base import Access, Buffer, Call, Exchange, Receiver, Reply, Route, Rpc
from modelport.server.deadlines import Deadlines
from modelport.server.grpc import GrpcCall, GrpcOptions, GrpcServer
from modelport.server.http import HttpOptions, HttpServer
from modelport.server.http2 import Http2Connection
from modelport.server.http2_exchange import Http2Exchange
from modelport.server.http2_options import Http2Options
from modelport.server.http2_server import Http2Server
from modelport.server.routing import Router
from modelport.testing.clock import ManualClock
from modelport.wire.header_blocks import encode_block
from modelport.wire.http import HttpLimits, RequestHead
from modelport.wire.http2 import PREFACE, Http2Limits
from tests.server.memory_connection import HandTurnedLoop, MemoryTransport, turning

LIMITS = Http2Limits(
    streams=8,
    stream_window=4000,
    connection_window=70_000,
    frame_bytes=20_000,
    block_bytes=2000,
    list_bytes=2000,
    allowance=200,
    resets=40,
)
MOST_MESSAGE_BYTES = 3000
HTTP = HttpOptions(
    limits=HttpLimits(head_bytes=600, body_bytes=3000),
    idle_timeout_s=5.0,
    head_timeout_s=5.0,
    body_timeout_s=5.0,
    write_timeout_s=5.0,
)
HTTP2 = Http2Options(
    limits=LIMITS, keepalive_time_s=4.0, keepalive_timeout_s=2.0, in_place_from=700
)
LONGEST_LIFE_S = 60
LONGEST_S = 3.0
HEADER = struct.Struct(">IBI")
Seen = tuple[str, bytes]
"""What a handler was given: path and message or body."""


def check(data: bytes) -> None:
    """Hold the invariant on one input: a byte that says how, and what is sent.

    Raises:
        Exception: Whatever broke it.
    """
    started = time.perf_counter()
    how, stream = data[:1].ljust(1, b"\0")[0], data[1:]
    if how % 2:
        Run([[piece] for piece in _cut(stream, how)], is_stuck=how % 3 == 0)
    else:
        # The same turns in both: a call that waits may be reset in one and answered in another.
        frames = list(_frames(stream))
        whole = Run([[frame] for frame in frames], is_stuck=False)
        cut = Run([list(_cut(frame, how)) for frame in frames], is_stuck=False)
        assert whole.seen == cut.seen, (whole.paths, cut.paths)
    assert time.perf_counter() - started < LONGEST_S, "too slow"


class Run:
    """One connection from its beginning to its end.

    Args:
        turns: The pieces that come in each turn of the loop.
        is_stuck: Whether the client reads nothing, until it closes.

    Attributes:
        seen: What came to the handlers.
    """

    def __init__(self, turns: list[list[bytes]], *, is_stuck: bool) -> None:
        self.seen: list[Seen] = []
        self._begun = 0
        self._ends: dict[int, int] = {}
        self._kept: list[object] = []
        self._waiting: list[Call | Exchange] = []
        clock = ManualClock(10**12)
        self._loop = HandTurnedLoop(clock)
        server = HttpServer(Router(self._routes()), self, _reply, clock, HTTP)
        deadlines = Deadlines(clock)
        options = GrpcOptions(max_message_bytes=MOST_MESSAGE_BYTES, compression_level=1)
        calls = GrpcServer(self._rpcs(), self, server, deadlines, options)
        server.http2 = Http2Server(server, calls, HTTP2)
        self._transport = MemoryTransport(self._loop)
        self._transport.is_stuck = is_stuck
        self._peer = _Peer()
        with turning(self._loop):
            server.open()
            connection = server.http2()
            assert isinstance(connection, Http2Connection)
            self._connection = connection
            self._transport.protocol = connection
            connection.connection_made(self._transport)
            for pieces in turns:
                for piece in pieces:
                    self._send(piece)
                self._turn()
            for _ in range(20):
                self._turn()
            if not self._transport.is_lost and not connection.eof_received():
                self._transport.close()
                self._transport.is_stuck = False
            for _ in range(LONGEST_LIFE_S):
                if not server.connections:
                    break
                self._turn()
                self._loop.advance(1)
            assert not server.connections, "a connection is left"
            self._loop.advance(1)
            for call in self._waiting:
                call.finish()  # nothing happens
            assert len(self._ends) == self._begun, "a call was neither finished nor cancelled"
            assert set(self._ends.values()) <= {1}, "a call ended twice"
            assert len(deadlines) == 0
            # What waits for memory is let go within ten seconds.
            assert server.pressure._reserved_bytes == 0, "room is reserved for nobody"
            assert server.pressure.unread_bytes() == 0
            server.close()

    def admit(self, head: RequestHead, row: Route | Rpc) -> str:
        """Be the door; it refuses whoever says so."""
        if head.headers.get("x") == "no":
            raise ModelportError("no")
        return ""

    @property
    def paths(self) -> list[str]:
        """Where the calls went."""
        return [path for path, _ in self.seen]

    def _send(self, piece: bytes) -> None:
        transport = self._transport
        for _ in range(1000):
            if transport.reads or transport.is_lost:
                break
            self._turn()
        if not transport.is_lost and not transport.is_closed:
            self._peer.sent(piece)
            transport.feed(piece)
            self._check_held(len(piece))

    def _check_held(self, piece_bytes: int) -> None:
        endpoint = self._connection.endpoint
        streams = list(endpoint.streams.values())
        assert len(streams) <= LIMITS.streams
        assert endpoint.waiting_bytes <= piece_bytes + LIMITS.block_bytes + 20_000
        assert endpoint.queued_bytes == sum(stream.queued_bytes for stream in streams)
        if not endpoint._is_broken and not self._transport.is_lost:
            held = sum(stream.held_bytes for stream in streams)
            credit = endpoint._receive_window + endpoint._ungranted_bytes + held + endpoint._left
            assert credit == LIMITS.connection_window, "credit is lost or made up"
        for stream in streams:
            assert stream.held_bytes <= LIMITS.stream_window

    def _turn(self) -> None:
        """Let the loop turn, read a little, now and then answer what waits."""
        if self._waiting and len(self.seen) % 2 == 0:
            waiting = self._waiting.pop(0)
            if isinstance(waiting, _Echo):
                waiting.call.resume()
            else:
                self._answer(waiting)
        self._loop.turn()
        self._peer.receive(self._transport.drain(3000))
        self._loop.turn()

    def _answer(self, waiting: Call | Exchange) -> None:
        self._note_end(waiting)
        if isinstance(waiting, Http2Exchange):
            waiting.respond(200, (), [b"late"])
        elif isinstance(waiting, GrpcCall):
            waiting.send([b"late"])
            waiting.finish(0, "", [("x", "y")])

    # The handlers. Each call is counted when it begins and when it ends.

    def _begin(self, call: Call | Exchange, data: bytes) -> None:
        self.seen.append((call.path, data))
        self._begun += 1
        if isinstance(call, Http2Exchange):
            call.on_disconnect = partial(self._note_end, call)
        elif isinstance(call, GrpcCall):
            call.on_cancel = partial(self._note_end, call)

    def _note_end(self, call: object) -> None:
        self._ends[id(call)] = self._ends.get(id(call), 0) + 1
        self._kept.append(call)  # so that no other call gets its id
        if call in self._waiting:
            self._waiting.remove(call)

    def _rpcs(self) -> list[Rpc]:
        def row(path: str, unary: object) -> Rpc:
            return Rpc(path=path, access=Access.INFERENCE, errors=_status, unary=unary)  # type: ignore[arg-type]  # a bound method

        stream = Rpc(path="/s", access=Access.INFERENCE, errors=_status, stream=self._stream)
        rows = {"/e": self._echo, "/b": self._big, "/l": self._later, "/x": self._fail}
        return [*(row(path, unary) for path, unary in rows.items()), stream]

    def _echo(self, call: Call, message: Buffer) -> None:
        self._begin(call, bytes(message))
        assert len(message) <= MOST_MESSAGE_BYTES
        call.send([message])
        self._note_end(call)
        call.finish()

    def _big(self, call: Call, message: Buffer) -> None:
        self._begin(call, bytes(message))
        call.send([bytes(50_000), bytes(range(256)) * 100])
        self._note_end(call)
        call.finish()

    def _later(self, call: Call, message: Buffer) -> None:
        self._begin(call, bytes(message))
        self._waiting.append(call)

    def _fail(self, call: Call, message: Buffer) -> None:
        self._begin(call, bytes(message))
        self._note_end(call)
        raise ModelportError("an error")

    def _stream(self, call: Call) -> Receiver:
        self._begin(call, b"")
        return _Echo(call, self)

    def _routes(self) -> list[Route]:
        rows = [("GET", "/g"), ("POST", "/p"), ("GET", "/w")]
        return [
            Route(
                method=method,
                pattern=path,
                access=Access.INFERENCE,
                handler=self._handle,
                errors=_reply,
            )
            for method, path in rows
        ]

    def _handle(self, exchange: Exchange) -> None:
        self._begin(exchange, bytes(exchange.body))
        if exchange.path == "/w":
            self._waiting.append(exchange)
            return
        self._note_end(exchange)
        exchange.start(200, (("X-A", "b"),))
        exchange.write(bytes(exchange.body) + b"!")
        exchange.finish()


class _Echo:
    """Answers each message, and now and then wants no more for a while."""

    def __init__(self, call: Call, run: Run) -> None:
        self.call = call
        self._run = run

    @property
    def path(self) -> str:
        return self.call.path

    def finish(self) -> None:
        """Be among what waits."""
        self.call.finish()

    def message(self, data: Buffer) -> bool:
        assert len(data) <= MOST_MESSAGE_BYTES
        self.call.send([data])
        if len(data) % 5 == 4:
            self._run._waiting.append(self)  # type: ignore[arg-type]  # told apart by its class
            return False
        return True

    def half_closed(self) -> None:
        self._run._note_end(self.call)
        self.call.finish()


class _Peer:
    """Reads what the server sends, and holds it to the rules."""

    def __init__(self) -> None:
        self._sent = b""
        self._received = b""
        self._opened: set[int] = set()
        self._ended: set[int] = set()
        self._has_begun = False

    def sent(self, data: bytes) -> None:
        """Note which streams the client opens, as far as the bytes are frames."""
        self._sent += data
        if not self._has_begun:
            if not self._sent.startswith(PREFACE):
                return
            self._has_begun = True
            self._sent = self._sent[len(PREFACE) :]
        while len(self._sent) >= 9:
            word, _, stream_id = HEADER.unpack_from(self._sent)
            if word & 0xFF == 1:
                self._opened.add(stream_id & 0x7FFFFFFF)
            if len(self._sent) < 9 + (word >> 8):
                break
            self._sent = self._sent[9 + (word >> 8) :]

    def receive(self, data: bytes) -> None:
        """Take what the server sends."""
        self._received += data
        while len(self._received) >= 9:
            word, flags, stream_id = HEADER.unpack_from(self._received)
            size = word >> 8
            if len(self._received) < 9 + size:
                break
            payload = self._received[9 : 9 + size]
            self._received = self._received[9 + size :]
            self._take(word & 0xFF, flags, stream_id, payload)

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        assert kind in (0, 1, 3, 4, 6, 7, 8), kind
        assert len(payload) <= 262_144
        if kind in (4, 6, 7):
            assert stream_id == 0
            return
        if kind == 8 and stream_id == 0:
            return
        assert stream_id in self._opened, (kind, stream_id)
        if kind == 3:
            self._ended.add(stream_id)
            return
        assert stream_id not in self._ended, (kind, stream_id)
        if kind == 1:
            assert flags & 4
            assert _has_status(payload) or flags & 1
        if kind in (0, 1) and flags & 1:
            self._ended.add(stream_id)


@cache
def _has_status(block: bytes) -> bool:
    # A decoder of its own for each block: the server adds nothing to the table.
    return b":status" in dict(Decoder().decode(block, raw=True))


def _status(error: ModelportError) -> tuple[int, str]:
    return 3, str(error)


def _reply(error: ModelportError) -> Reply:
    return Reply(400, (("X-Error", "1"),), ())


def _cut(stream: bytes, how: int) -> Iterator[bytes]:
    source = random.Random(how)
    longest = (3, 20, 200, 5000)[how // 3 % 4]
    at = 0
    while at < len(stream):
        # Mostly small, now and then large: a long message by the byte says nothing new.
        size = source.randint(1, longest if source.randrange(8) else 3000)
        yield stream[at : at + size]
        at += size


def _frames(stream: bytes) -> Iterator[bytes]:
    """Cut where frames end, as far as the bytes are frames."""
    at = 0
    if stream.startswith(PREFACE):
        at = len(PREFACE)
        yield PREFACE
    while at < len(stream):
        size = 9 + int.from_bytes(stream[at : at + 3], "big")
        yield stream[at : at + size]
        at += size


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Write one frame."""
    return HEADER.pack(len(payload) << 8 | kind & 0xFF, flags, stream_id) + payload


def _request(path: str, *more: tuple[str, str], method: str = "POST") -> bytes:
    fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
    return encode_block([*fields, *more])


def _call(path: str, *more: tuple[str, str]) -> bytes:
    return _request(path, ("content-type", "application/grpc"), ("te", "trailers"), *more)


def _message(data: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


INDEXED = b"\x40\x05x-key\x05value"
BLOCKS = (
    _call("/e"), _call("/b"), _call("/l"), _call("/x"), _call("/s"), _call("/s"), _call("/none"),
    _call("/l", ("grpc-timeout", "1S")), _call("/e", ("grpc-encoding", "gzip")),
    _call("/e", ("grpc-accept-encoding", "gzip")), _call("/e", ("x", "no")), _call("/e") + INDEXED,
    _request("/g", method="GET"), _request("/p"), _request("/w", method="GET"),
    _request("/p", ("content-length", "5")), b"\x20" + _call("/e"),
)  # fmt: skip
TRAILERS = encode_block([("grpc-status", "0")])
BAD_BLOCKS = (_call("/e") + b"\xbe", b"\x82", b"\xff\xff\x0f", TRAILERS, INDEXED * 20)
BODIES = (
    b"", _message(b"abc"), _message(b"abcd") * 3, _message(bytes(3000)), _message(bytes(3001)),
    _message(b"abc", 1), b"\0\0\0\0", b"hello", _message(bytes(2000))[:1500], b"\xff" * 7,
)  # fmt: skip
MESSAGES = (_message(b""), _message(b"abc"), _message(b"abcd"), _message(bytes(3000)))
CONTROLS = (
    frame(4, 0, 0), frame(4, 1, 0), frame(6, 0, 0, bytes(8)), frame(6, 1, 0, b"goodbye."),
    frame(4, 0, 0, struct.pack(">HI", 4, 0)), frame(4, 0, 0, struct.pack(">HI", 4, 10)),
    frame(4, 0, 0, struct.pack(">HI", 4, 2**20)), frame(4, 0, 0, struct.pack(">HI", 5, 2**20)),
    frame(8, 0, 0, b"\x00\x01\x00\x00"), frame(2, 0, 1, bytes(5)), frame(0xEE, 9, 9),
)  # fmt: skip
BAD_CONTROLS = (
    frame(8, 0, 0, bytes(4)), frame(8, 0, 0, b"\x7f\xff\xff\xff"), frame(7, 0, 0, bytes(8)),
    frame(5, 4, 1, bytes(8)), frame(4, 0, 0, struct.pack(">HI", 4, 2**31 - 1)), bytes(9),
)  # fmt: skip


def _talk(source: random.Random) -> bytes:
    """Make a conversation of frames that mostly make sense."""
    out = [PREFACE, frame(4, 0, 0)]
    opened: list[int] = []
    for step in range(source.randint(1, 25)):
        is_bad = not source.randrange(25)
        kind = source.randrange(9) if step else 0
        if kind < 3:
            stream_id = 2 * len(opened) + 1
            block = source.choice(BAD_BLOCKS if is_bad else BLOCKS)
            body = source.choice(BODIES if source.randrange(3) == 0 else MESSAGES)
            ends = source.randrange(8) > 0
            only = int(not body and ends)
            if source.randrange(4):
                out.append(frame(1, 4 | only, stream_id, block))
            else:
                half = len(block) // 2
                out.append(frame(1, only, stream_id, block[:half]))
                out.append(frame(9, 4, stream_id, block[half:]))
            if body:
                out.append(frame(0, int(ends), stream_id, body))
            opened.append(stream_id)
            continue
        target = source.choice(opened)
        match kind:
            case 3 | 4:
                body = source.choice(BODIES)
                if source.randrange(2):
                    out.append(frame(0, source.randrange(2), target, body))
                else:
                    padded = b"\x03" + body + b"\0\0\0"
                    out.append(frame(0, 8 | source.randrange(2), target, padded))
            case 5:
                out.append(frame(3, 0, target, source.choice((0, 8)).to_bytes(4, "big")))
            case 6:
                more = source.choice((0, 2**31 - 1) if is_bad else (1, 100, 60_000))
                out.append(frame(8, 0, target, more.to_bytes(4, "big")))
            case 7:
                out.append(frame(1, 5, target, TRAILERS))
            case _:
                out.append(source.choice(BAD_CONTROLS if is_bad else CONTROLS))
    return b"".join(out)


SEEDS = tuple(bytes([how]) + _talk(random.Random(how)) for how in range(24))
WORDS = (
    *CONTROLS, PREFACE, b"\0\0\0\1", b"\0\0\x04\x01", b"\xff", b"\x80", b"\x40", b"\x20", b"\x3f",
    frame(0, 1, 1), frame(3, 0, 1, bytes(4)), frame(9, 4, 1), frame(1, 5, 3, BLOCKS[0]),
)  # fmt: skip


def mutations(seed: int) -> Iterator[bytes]:
    """Give inputs without end: conversations as they are, and with bytes cut, doubled, put in."""
    source = random.Random(seed)
    while True:
        data = bytearray(bytes([source.randrange(256)]) + _talk(source))
        if source.randrange(2):
            yield bytes(data)
        else:
            yield harness.mutated(source, data, SEEDS, WORDS, settings=1)


if __name__ == "__main__":
    harness.main(check, mutations)
