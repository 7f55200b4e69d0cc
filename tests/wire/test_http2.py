"""Frames as literal bytes, one end against the other, and what a hostile other end may do."""

import struct
from collections.abc import Callable
from itertools import pairwise

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.wire.header_blocks import Block, encode_block
from modelport.wire.http2 import (
    PREFACE,
    Endpoint,
    ErrorCode,
    Frame,
    Http2Broken,
    Http2Limits,
    MalformedHead,
    Stream,
)
from modelport.wire.http2.frames import Buffer

REQUEST = encode_block([(":method", "GET"), (":scheme", "http"), (":path", "/")])
LIMITS = Http2Limits()


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream_id) + payload


SETTINGS = frame(4, 0, 0)
BEGIN = PREFACE + SETTINGS


class Noting(Stream):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def receive_head(self, block: Block, is_end: bool) -> None:
        if ("bad", "bad") in block.fields:
            raise MalformedHead("bad")
        self.events.append(("head", is_end))

    def receive_data(self, data: bytes, start: int, stop: int, is_end: bool) -> None:
        self.events.append((data[start:stop], is_end))

    def receive_reset(self, code: int) -> None:
        self.events.append(("reset", code))

    def flushed(self) -> None:
        self.events.append("flushed")

    @property
    def body(self) -> bytes:
        pieces = (event[0] for event in self.events if isinstance(event, tuple))
        return b"".join(piece for piece in pieces if isinstance(piece, bytes))


class Side:
    """An endpoint with an owner that keeps what it hears."""

    def __init__(self, limits: Http2Limits = LIMITS, *, is_client: bool = False) -> None:
        self.opened: list[Noting] = []
        self.pings = 0
        self.pongs: list[bytes] = []
        self.goodbyes: list[tuple[int, int, bytes]] = []
        self.endpoint = Endpoint(self, limits, is_client=is_client)

    def open_stream(self, block: Block) -> Stream:
        self.opened.append(Noting())
        return self.opened[-1]

    def pinged(self) -> None:
        self.pings += 1

    def ponged(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def went_away(self, last_stream_id: int, code: int, text: bytes) -> None:
        self.goodbyes.append((last_stream_id, code, text))

    def take(self, *pieces: bytes) -> "Side":
        for piece in pieces:
            self.endpoint.feed(piece)
            while self.endpoint.proceed():
                pass
        return self

    def out(self) -> bytes:
        taken = b"".join(self.endpoint.out)
        self.endpoint.out = []
        return taken

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """What was sent, frame by frame."""
        data = self.out()
        found, at = [], 24 if data.startswith(PREFACE) else 0
        while at < len(data):
            word, flags, stream_id = struct.unpack_from(">IBI", data, at)
            at += 9 + (word >> 8)
            found.append((word & 0xFF, flags, stream_id, data[at - (word >> 8) : at]))
        return found


def begun(limits: Http2Limits = LIMITS) -> Side:
    side = Side(limits).take(BEGIN)
    side.out()
    return side


def broken_by(*pieces: bytes, limits: Http2Limits = LIMITS) -> ErrorCode:
    """Give the code of the GOAWAY that the bytes are answered with."""
    side = begun(limits)
    with pytest.raises(Http2Broken) as caught:
        side.take(*pieces)
    kind, _, _, payload = side.frames()[-1]
    assert kind == Frame.GOAWAY
    assert int.from_bytes(payload[4:8], "big") == caught.value.code
    side.take(b"anything")
    assert side.frames() == []
    return caught.value.code


def test_a_server_begins_with_its_settings_and_acknowledges_the_clients() -> None:
    side = Side()
    side.take(BEGIN)
    settings, window, ack = side.frames()
    assert settings[:3] == (Frame.SETTINGS, 0, 0)
    rows = dict(struct.iter_unpack(">HI", settings[3]))
    assert rows == {3: 1024, 4: 2_097_152, 5: 1_048_576, 6: 65_536}
    assert window == (Frame.WINDOW_UPDATE, 0, 0, (16_777_216 - 65_535).to_bytes(4, "big"))
    assert ack == (Frame.SETTINGS, 1, 0, b"")


def test_a_client_begins_with_the_preface() -> None:
    out = Side(is_client=True).out()
    assert out.startswith(PREFACE + struct.pack(">IBI", 24 << 8 | 4, 0, 0))


REQUESTS = (
    BEGIN
    + frame(1, 4, 1, REQUEST)
    + frame(0, 0, 1, b"some ")
    + frame(6, 0, 0, b"12345678")
    + frame(0, 8 | 1, 1, b"\x03data\0\0\0")
    + frame(1, 4 | 8 | 0x20 | 1, 3, b"\x02" + bytes(5) + REQUEST + b"\0\0")
    + frame(1, 1, 5, REQUEST[:1])
    + frame(9, 0, 5, REQUEST[1:2])
    + frame(9, 4, 5, REQUEST[2:])
    + frame(0xEE, 0xFF, 0, b"what is not known")
    + frame(2, 0, 7, bytes(5))
)


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_requests_are_seen_however_they_are_cut(size: int) -> None:
    side = Side(Http2Limits(allowance=100))
    side.take(*(REQUESTS[at : at + size] for at in range(0, len(REQUESTS), size)))
    first, second, third = side.opened
    assert first.events[0] == ("head", False)
    assert first.body == b"some data"
    assert first.events[-1][1] is True  # type: ignore[index]
    assert second.events == [("head", True)]
    assert third.events == [("head", True)]
    assert (Frame.PING, 1, 0, b"12345678") in side.frames()
    assert side.pings == 1


@given(cuts=st.lists(st.integers(0, len(REQUESTS)), max_size=12))
def test_any_cut_gives_the_same(cuts: list[int]) -> None:
    side = Side()
    places = [0, *sorted(cuts), len(REQUESTS)]
    side.take(*(REQUESTS[a:b] for a, b in pairwise(places)))
    assert [stream.body for stream in side.opened] == [b"some data", b"", b""]
    assert all(stream.is_remote_done for stream in side.opened)


BROKEN: list[tuple[str, bytes, ErrorCode]] = [
    ("data on stream 0", frame(0, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    ("data on an idle stream", frame(0, 0, 9, b"x"), ErrorCode.PROTOCOL_ERROR),
    ("headers on stream 0", frame(1, 4, 0, REQUEST), ErrorCode.PROTOCOL_ERROR),
    ("headers on an even stream", frame(1, 4, 2, REQUEST), ErrorCode.PROTOCOL_ERROR),
    ("padding beyond the frame", frame(1, 4 | 8, 1, b"\xff\x82"), ErrorCode.PROTOCOL_ERROR),
    ("a padded frame without", frame(1, 4 | 8, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
    ("a torn block", frame(1, 0, 1, b"\x82") + frame(6, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    ("data in a block", frame(1, 0, 1, b"\x82") + frame(0, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    ("another's continuation", frame(1, 0, 1, b"") + frame(9, 4, 3), ErrorCode.PROTOCOL_ERROR),
    ("continuation of nothing", frame(9, 4, 1, b""), ErrorCode.PROTOCOL_ERROR),
    ("an index that is not there", frame(1, 4, 1, b"\xff\xff\x0f"), ErrorCode.COMPRESSION_ERROR),
    ("a torn literal", frame(1, 4, 1, b"\x40\x05ab"), ErrorCode.COMPRESSION_ERROR),
    ("a push", frame(5, 4, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    ("a ping of seven bytes", frame(6, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    ("a ping for a stream", frame(6, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    ("settings of seven bytes", frame(4, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    ("an ack with settings", frame(4, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    ("settings for a stream", frame(4, 0, 1), ErrorCode.PROTOCOL_ERROR),
    ("push of 2", frame(4, 0, 0, struct.pack(">HI", 2, 2)), ErrorCode.PROTOCOL_ERROR),
    ("a huge window", frame(4, 0, 0, struct.pack(">HI", 4, 2**31)), ErrorCode.FLOW_CONTROL_ERROR),
    ("tiny frames", frame(4, 0, 0, struct.pack(">HI", 5, 100)), ErrorCode.PROTOCOL_ERROR),
    ("a reset of an idle stream", frame(3, 0, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    ("a reset of three bytes", frame(3, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    ("a priority of four bytes", frame(2, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    ("a window for an idle stream", frame(8, 0, 1, b"\0\0\0\1"), ErrorCode.PROTOCOL_ERROR),
    ("a window that does not grow", frame(8, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    ("a window that overflows", frame(8, 0, 0, b"\x7f\xff\xff\xff"), ErrorCode.FLOW_CONTROL_ERROR),
    ("a short goaway", frame(7, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    ("a frame of a megabyte", frame(6, 0, 0, bytes(1_000_000)), ErrorCode.FRAME_SIZE_ERROR),
]


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in BROKEN], ids=[r[0] for r in BROKEN])
def test_who_breaks_the_rules_is_told_which(data: bytes, code: ErrorCode) -> None:
    assert broken_by(data) == code
    assert broken_by(*(data[at : at + 1] for at in range(min(len(data), 100))), data[100:]) == code


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n" + bytes(30), b"PRI * HTTP/1", b"\0" * 24]
)
def test_what_does_not_begin_as_http2_is_refused(data: bytes) -> None:
    with pytest.raises(Http2Broken):
        Side().take(data)


def test_the_first_frame_must_be_settings() -> None:
    for first in (frame(6, 0, 0, bytes(8)), frame(1, 4, 1, REQUEST), frame(4, 1, 0)):
        with pytest.raises(Http2Broken):
            Side().take(PREFACE + first)


def answered(side: Side, size: int, *, trailers: bytes | None = None) -> Noting:
    stream = side.opened[-1]
    side.endpoint.send_block(stream, b"\x88")
    side.endpoint.send_data(stream, [bytes(size)], size, is_end=trailers is None)
    if trailers is not None:
        side.endpoint.send_block(stream, trailers, is_end=True)
    return stream


def test_data_waits_for_the_windows_of_stream_and_connection() -> None:
    side = begun().take(frame(1, 5, 1, REQUEST))
    stream = answered(side, 100_000, trailers=b"\x89")
    sent = side.frames()
    assert [len(row[3]) for row in sent[1:]] == [16_384, 16_384, 16_384, 16_383]
    assert 1 in side.endpoint.streams
    side.take(frame(8, 0, 1, (50_000).to_bytes(4, "big")))
    assert side.frames() == []
    side.take(frame(8, 0, 0, (20_000).to_bytes(4, "big")))
    assert sum(len(row[3]) for row in side.frames()) == 20_000
    side.take(frame(8, 0, 0, (20_000).to_bytes(4, "big")))
    *data, trailers = side.frames()
    assert sum(len(row[3]) for row in data) == 14_465
    assert trailers == (Frame.HEADERS, 5, 1, b"\x89")
    assert stream.is_over
    assert side.endpoint.queued_bytes == 0
    assert stream.events[-1] == "flushed"


def whole(side: Side, size: int) -> bool:
    """Send an answer in one piece, if it can be; the pieces of its data are views and bytes."""
    pieces: list[Buffer] = [bytes(size - size // 2), memoryview(bytes(size // 2))]
    return side.endpoint.send_whole(side.opened[-1], b"\x88", pieces, size, b"\x89")


@pytest.mark.parametrize("size", [0, 1, 5, 4096])
def test_a_small_answer_in_one_piece_is_the_same_as_in_three(size: int) -> None:
    sides = [begun().take(frame(1, 5, 1, REQUEST)) for _ in range(2)]
    assert whole(sides[0], size)
    answered(sides[1], size, trailers=b"\x89")
    assert sides[0].out() == sides[1].out()
    one, three = (side.endpoint for side in sides)
    assert one.send_window == three.send_window == 65_535 - size
    assert one.out_bytes == three.out_bytes
    assert one.data_frames_sent == three.data_frames_sent
    assert one.streams == three.streams == {}
    assert sides[0].opened[0].is_over


@pytest.mark.parametrize(
    "frames",
    [
        [frame(4, 0, 0, struct.pack(">HI", 4, 99))],
        [frame(8, 0, 0, (1).to_bytes(4, "big")), frame(3, 0, 1, bytes(4))],
        [frame(4, 0, 0, struct.pack(">HI", 1, 0))],
    ],
    ids=["small window", "stream is over", "table has to shrink"],
)
def test_an_answer_that_cannot_go_out_in_one_piece_is_left_alone(frames: list[bytes]) -> None:
    side = begun().take(frame(1, 5, 1, REQUEST), *frames)
    side.out()
    assert not whole(side, 100)
    assert side.out() == b""


def test_only_small_answers_go_out_in_one_piece_and_only_where_windows_allow() -> None:
    side = begun().take(frame(1, 5, 1, REQUEST))
    assert not whole(side, 4097)
    stream = answered(side, 65_500, trailers=b"\x89")
    assert stream.is_over
    side.take(frame(1, 5, 3, REQUEST))
    side.out()
    assert not whole(side, 36)
    assert whole(side, 35)
    side.take(frame(1, 5, 5, REQUEST))
    # What waits for a window comes first.
    side.endpoint.send_data(side.opened[-1], [b"x"], 1)
    assert not whole(side, 0)


def test_a_smaller_initial_window_makes_those_of_streams_negative() -> None:
    side = begun().take(frame(1, 5, 1, REQUEST))
    stream = answered(side, 70_000)
    side.out()
    side.take(frame(4, 0, 0, struct.pack(">HI", 4, 0)), frame(8, 0, 0, b"\0\1\0\0"))
    assert stream.send_window == -65_535
    assert [row[0] for row in side.frames()] == [Frame.SETTINGS]
    side.take(frame(4, 0, 0, struct.pack(">HI", 4, 70_000)))
    assert sum(len(row[3]) for row in side.frames()) == 70_000 - 65_535
    assert stream.is_over


def test_streams_share_the_window_of_the_connection() -> None:
    side = begun()
    side.take(frame(4, 0, 0, struct.pack(">HI", 4, 2**20)))
    streams = []
    for number in range(3):
        side.take(frame(1, 5, 1 + 2 * number, REQUEST))
        streams.append(answered(side, 200_000))
    side.out()
    for _ in range(9):
        side.take(frame(8, 0, 0, (65_536).to_bytes(4, "big")))
    by_stream = [0, 0, 0]
    for kind, _, stream_id, payload in side.frames():
        if kind == Frame.DATA:
            by_stream[stream_id // 2] += len(payload)
    assert all(stream.is_over for stream in streams)
    assert min(by_stream) > 0


def test_credit_is_given_back_as_data_is_taken() -> None:
    side = begun(Http2Limits(stream_window=100_000, connection_window=200_000))
    side.take(frame(1, 4, 1, REQUEST), frame(0, 0, 1, bytes(60_000)))
    assert side.frames() == [(Frame.WINDOW_UPDATE, 0, 1, (60_000).to_bytes(4, "big"))]
    side.take(frame(0, 0, 1, bytes(60_000)))
    assert side.frames() == [
        (Frame.WINDOW_UPDATE, 0, 0, (120_000).to_bytes(4, "big")),
        (Frame.WINDOW_UPDATE, 0, 1, (60_000).to_bytes(4, "big")),
    ]


def test_who_is_held_gets_no_credit_until_it_is_granted() -> None:
    side = begun(Http2Limits(stream_window=100_000, connection_window=150_000))
    side.take(frame(1, 4, 1, REQUEST))
    stream = side.opened[0]
    stream.is_holding = True
    side.take(frame(0, 0, 1, bytes(90_000)))
    assert side.frames() == []
    assert stream.held_bytes == 90_000
    side.endpoint.grant(stream)
    assert [row[2] for row in side.frames()] == [0, 1]


def test_held_credit_of_a_stream_that_is_reset_is_not_lost() -> None:
    side = begun(Http2Limits(stream_window=100_000, connection_window=150_000))
    side.take(frame(1, 4, 1, REQUEST))
    side.opened[0].is_holding = True
    side.take(frame(0, 0, 1, bytes(90_000)), frame(3, 0, 1, bytes(4)))
    assert side.frames() == [(Frame.WINDOW_UPDATE, 0, 0, (90_000).to_bytes(4, "big"))]


def test_more_data_than_was_asked_for_ends_the_stream_or_the_connection() -> None:
    limits = Http2Limits(stream_window=70_000, connection_window=100_000)
    side = begun(limits).take(frame(1, 4, 1, REQUEST))
    side.opened[0].is_holding = True
    side.take(frame(0, 0, 1, bytes(60_000)), frame(0, 0, 1, bytes(20_000)))
    assert (Frame.RST_STREAM, 0, 1, b"\0\0\0\3") in side.frames()
    head = frame(1, 4, 1, REQUEST) + frame(1, 4, 3, REQUEST)
    side = begun(limits).take(head)
    for stream in side.opened:
        stream.is_holding = True
    with pytest.raises(Http2Broken) as caught:
        side.take(frame(0, 0, 1, bytes(60_000)), frame(0, 0, 3, bytes(60_000)))
    assert caught.value.code is ErrorCode.FLOW_CONTROL_ERROR


def test_data_after_the_end_and_data_of_a_stream_that_is_over() -> None:
    side = begun().take(frame(1, 5, 1, REQUEST), frame(0, 0, 1, b"more"))
    assert side.frames() == [(Frame.RST_STREAM, 0, 1, b"\0\0\0\5")]
    side.take(frame(0, 0, 1, b"and more"), frame(8, 0, 1, b"\0\0\0\1"), frame(1, 5, 1, REQUEST))
    assert side.frames() == []
    assert side.opened[0].events[-1] == ("reset", 5)


def test_an_answer_before_the_end_of_the_request_stops_it() -> None:
    side = begun().take(frame(1, 4, 1, REQUEST))
    answered(side, 10)
    assert side.frames()[-1] == (Frame.RST_STREAM, 0, 1, bytes(4))
    side.take(frame(0, 1, 1, bytes(1000)))
    assert side.frames() == []


def test_a_malformed_head_resets_its_stream_only() -> None:
    bad = encode_block([("bad", "bad")])
    side = begun().take(frame(1, 5, 1, bad), frame(1, 5, 3, REQUEST))
    assert side.frames() == [(Frame.RST_STREAM, 0, 1, b"\0\0\0\1")]
    assert list(side.endpoint.streams) == [3]


def test_streams_over_the_limit_are_refused() -> None:
    side = begun(Http2Limits(streams=2))
    for stream_id in (1, 3, 5):
        side.take(frame(1, 5, stream_id, REQUEST))
    assert side.frames() == [(Frame.RST_STREAM, 0, 5, b"\0\0\0\7")]
    assert len(side.opened) == 2


def test_after_goaway_what_was_begun_goes_on_and_nothing_else_begins() -> None:
    side = begun().take(frame(1, 5, 1, REQUEST))
    side.endpoint.go_away(is_final=False)
    side.take(frame(1, 5, 3, REQUEST))
    side.endpoint.go_away()
    side.take(frame(1, 5, 5, REQUEST))
    assert [row[3][:4] for row in side.frames()] == [b"\x7f\xff\xff\xff", b"\0\0\0\3"]
    assert len(side.opened) == 2


# Floods.


def flood(make: Callable[[int], bytes], count: int = 20_000) -> Side:
    side = begun()
    with pytest.raises(Http2Broken) as caught:
        side.take(*map(make, range(count)))
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM
    return side


FLOODS: list[tuple[str, Callable[[int], bytes]]] = [
    ("pings", lambda n: frame(6, 0, 0, bytes(8))),
    ("settings", lambda n: frame(4, 0, 0, struct.pack(">HI", 4, 10))),
    ("settings acks", lambda n: frame(4, 1, 0)),
    ("priorities", lambda n: frame(2, 0, 1, bytes(5))),
    ("windows", lambda n: frame(8, 0, 0, b"\0\0\0\1")),
    ("unknown frames", lambda n: frame(0xEE, 0, 0)),
    ("rapid resets", lambda n: frame(1, 5, 2 * n + 1, REQUEST) + frame(3, 0, 2 * n + 1, bytes(4))),
    ("malformed heads", lambda n: frame(1, 5, 2 * n + 1, encode_block([("bad", "bad")]))),
    ("refused streams", lambda n: frame(1, 4, 2 * n + 1, REQUEST)),
    (
        "empty data",
        lambda n: (frame(1, 4, 1, REQUEST) if not n else b"") + frame(0, 0, 1),
    ),
    (
        "data of a byte",
        lambda n: (frame(1, 4, 1, REQUEST) if not n else b"") + frame(0, 0, 1, b"x"),
    ),
    (
        "resets that we are made to send",
        lambda n: frame(1, 5, 2 * n + 1, REQUEST) + frame(8, 0, 2 * n + 1, bytes(4)),
    ),
    ("continuations", lambda n: frame(9, 0, 1) if n else frame(1, 0, 1)),
    ("a long block", lambda n: frame(9, 0, 1, bytes(5000)) if n else frame(1, 0, 1)),
]


@pytest.mark.parametrize("make", [row[1] for row in FLOODS], ids=[row[0] for row in FLOODS])
def test_a_flood_ends_the_connection(make: Callable[[int], bytes]) -> None:
    side = flood(make)
    assert len(side.endpoint.streams) <= LIMITS.streams


def test_windows_of_a_byte_end_the_connection() -> None:
    side = begun()
    side.take(frame(4, 0, 0, struct.pack(">HI", 4, 0)), frame(1, 5, 1, REQUEST))
    answered(side, 100_000)
    with pytest.raises(Http2Broken):
        side.take(*[frame(8, 0, 1, b"\0\0\0\1")] * 20_000)


def test_what_is_of_use_may_go_on_for_ever() -> None:
    side = begun()
    for number in range(20_000):
        stream_id = 2 * number + 1
        side.take(frame(1, 4, stream_id, REQUEST) + frame(0, 1, stream_id, b"x"))
        answered(side, 100)
        side.take(frame(8, 0, 0, b"\0\0\0\x64") + frame(6, 0, 0, bytes(8)))
        side.endpoint.out.clear()
    assert side.endpoint.streams == {}


def test_a_bomb_of_fields_ends_the_connection() -> None:
    # RFC 7541 §6.2.1: one entry of 4000 bytes, then many references to it.
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000
    assert broken_by(frame(1, 4, 1, entry + b"\xbe" * 5000)) is ErrorCode.ENHANCE_YOUR_CALM


def test_allowances_are_filled_again() -> None:
    side = begun(Http2Limits(allowance=10))
    for _ in range(20):
        side.take(frame(6, 0, 0, bytes(8)))
        side.endpoint.forgive()


def test_many_streams_in_one_piece_are_taken_a_few_at_a_time() -> None:
    side = begun()
    data = b"".join(frame(1, 5, 2 * n + 1, REQUEST) for n in range(500))
    side.endpoint.feed(data)
    turns = 1
    while side.endpoint.proceed():
        turns += 1
        assert side.endpoint.waiting_bytes
    assert len(side.opened) == 500
    assert turns >= 7


# Both ends.


def connected() -> tuple[Side, Side]:
    client, server = Side(is_client=True), Side()
    exchange(client, server)
    return client, server


def exchange(client: Side, server: Side) -> None:
    while data := (client.out(), server.out()):
        if data == (b"", b""):
            return
        server.take(data[0])
        client.take(data[1])


def test_our_client_and_our_server_understand_each_other() -> None:
    client, server = connected()
    assert client.endpoint.peer_max_streams == 1024
    streams = [Noting() for _ in range(5)]
    for stream in streams:
        client.endpoint.open(stream, REQUEST)
        client.endpoint.send_data(stream, [bytes(300_000)], 300_000, is_end=True)
    exchange(client, server)
    for theirs in server.opened:
        assert len(theirs.body) == 300_000
        server.endpoint.send_block(theirs, b"\x88")
        server.endpoint.send_data(theirs, [b"an", memoryview(b"swer" * 50_000)], 200_002)
        server.endpoint.send_block(theirs, b"\x89", is_end=True)
    exchange(client, server)
    for stream in streams:
        assert stream.events[:2] == ["flushed", ("head", False)]
        assert stream.body == b"an" + b"swer" * 50_000
        assert stream.events[-1] == ("head", True)
        assert stream.is_over
    assert client.endpoint.streams == server.endpoint.streams == {}
    client.endpoint.ping(b"12345678")
    exchange(client, server)
    assert client.pongs == [b"12345678"]
    server.endpoint.go_away(ErrorCode.NO_ERROR, "bye")
    exchange(client, server)
    assert client.goodbyes == [(9, 0, b"bye")]


def test_a_client_breaks_a_stream_off_and_is_told_of_one() -> None:
    client, server = connected()
    first, second = Noting(), Noting()
    for stream in (first, second):
        client.endpoint.open(stream, REQUEST, is_end=True)
    exchange(client, server)
    client.endpoint.reset(first)
    server.endpoint.reset(server.opened[1], ErrorCode.INTERNAL_ERROR)
    exchange(client, server)
    assert server.opened[0].events[-1] == ("reset", ErrorCode.CANCEL)
    assert second.events == [("reset", ErrorCode.INTERNAL_ERROR)]


def test_a_long_block_goes_out_in_pieces() -> None:
    client = Side(is_client=True)
    client.out()
    stream = Noting()
    block = encode_block([(":method", "GET"), *((f"x-{n}", "y" * 100) for n in range(400))])
    assert len(block) > 40_000
    client.endpoint.open(stream, block, is_end=True)
    kinds = [row[0] for row in client.frames()]
    assert kinds == [Frame.HEADERS, Frame.CONTINUATION, Frame.CONTINUATION]


def test_an_end_without_data_does_not_wait_for_a_window() -> None:
    side = begun().take(frame(1, 5, 1, REQUEST))
    stream = answered(side, 65_535, trailers=None)
    assert stream.is_over
    side.take(frame(1, 5, 3, REQUEST))
    side.out()
    side.endpoint.send_block(side.opened[1], b"\x88")
    side.endpoint.send_data(side.opened[1], [], 0, is_end=True)
    assert side.frames()[-1] == (Frame.DATA, 1, 3, b"")
    side.take(frame(1, 5, 5, REQUEST), frame(4, 0, 0, struct.pack(">HI", 4, 0)))
    side.opened[2].send_window = -5
    side.out()
    side.endpoint.send_data(side.opened[2], [], 0, is_end=True)
    assert side.frames() == [(Frame.DATA, 1, 5, b"")]


# The h2 library at the other end.


@given(
    sizes=st.lists(st.integers(0, 150_000), min_size=1, max_size=5),
    step=st.integers(1_000, 90_000),
)
def test_h2_reads_what_we_write_and_we_read_what_it_writes(sizes: list[int], step: int) -> None:
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    side = Side()
    received: dict[int, bytes] = {}
    ended: set[int] = set()
    unsent = {}

    def talk() -> None:
        while True:
            there = peer.data_to_send()
            for at in range(0, len(there), step):
                side.take(there[at : at + step])
            back = side.out()
            if not there and not back:
                return
            for event in peer.receive_data(back):
                if isinstance(event, h2.events.DataReceived):
                    assert event.stream_id is not None
                    received[event.stream_id] = received.get(event.stream_id, b"") + event.data
                    peer.acknowledge_received_data(
                        event.flow_controlled_length or 0, event.stream_id
                    )
                elif isinstance(event, h2.events.StreamEnded):
                    assert event.stream_id is not None
                    ended.add(event.stream_id)

    talk()
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    for number, size in enumerate(sizes):
        stream_id = 2 * number + 1
        peer.send_headers(stream_id, fields)
        unsent[stream_id] = bytes(size)
    for stream_id, body in unsent.items():
        while body:
            talk()
            room = min(peer.local_flow_control_window(stream_id), peer.max_outbound_frame_size)
            assert room > 0, "no credit is given"
            peer.send_data(stream_id, body[:room], pad_length=3 if room > 10_000 else None) if (
                len(body[:room]) < room - 300
            ) else peer.send_data(stream_id, body[:room])
            body = body[room:]
        peer.end_stream(stream_id)
    talk()
    for stream, size in zip(side.opened, sizes, strict=True):
        assert len(stream.body) == size
        assert stream.is_remote_done
        side.endpoint.send_block(stream, encode_block([(":status", "200"), ("x", "y")]))
        side.endpoint.send_data(stream, [stream.body], size)
        side.endpoint.send_block(stream, encode_block([("grpc-status", "0")]), is_end=True)
    talk()
    assert ended == set(unsent)
    assert [len(received.get(stream_id, b"")) for stream_id in unsent] == sizes
    assert side.endpoint.streams == {}
    assert side.endpoint.queued_bytes == 0


@pytest.mark.parametrize("size", [0, 100, 4095])
def test_a_client_that_makes_its_table_smaller_is_told_that_ours_is(size: int) -> None:
    """Once, before the next fields: libraries refuse what does not begin so."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    side = Side()
    side.take(peer.data_to_send())
    peer.receive_data(side.out())
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    for number, change in enumerate([size, None, 4096, size // 2, None]):
        if change is not None:
            peer.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: change})
        stream_id = 2 * number + 1
        peer.send_headers(stream_id, fields, end_stream=True)
        side.take(peer.data_to_send())
        side.endpoint.send_block(side.opened[number], encode_block([(":status", "204")]))
        side.endpoint.send_data(side.opened[number], [], 0, is_end=True)
        back = side.out()
        events = peer.receive_data(back)
        assert any(isinstance(event, h2.events.StreamEnded) for event in events)
        assert (b"\x20\x89" in back) is (number == 0)
