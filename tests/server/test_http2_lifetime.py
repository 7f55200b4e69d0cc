"""How long a connection lives: these times, and what was said and heard → whether it ends."""

from typing import Any

import pytest

from modelport.server.http import HttpOptions
from modelport.server.http2_lifetime import End, Lifetime
from modelport.server.http2_options import Http2Options
from modelport.wire.header_blocks import Block
from modelport.wire.http2 import Endpoint, ErrorCode, Http2Broken, Http2Limits, Stream

SECOND = 10**9
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
PING, GOAWAY = 6, 7


class Nobody:
    """An owner of an endpoint that hears of nothing."""

    def open_stream(self, block: Block) -> Stream:
        return Stream()

    def pinged(self) -> None: ...

    def ponged(self, payload: bytes) -> None: ...

    def went_away(self, last_stream_id: int, code: int, text: bytes) -> None: ...


class Life:
    """A lifetime that began at second 0, and its endpoint."""

    def __init__(self, **options: Any) -> None:
        patience = HttpOptions(idle_timeout_s=options.pop("idle_timeout_s", 75.0))
        self.endpoint = Endpoint(Nobody(), Http2Limits())
        self.endpoint.feed(GREETING)
        self.endpoint.proceed()
        self.endpoint.out.clear()
        self.lifetime = Lifetime(self.endpoint, Http2Options(**options), patience, 0)

    def check(self, now_s: float, heard_s: float = 0) -> End | None:
        return self.lifetime.check(int(now_s * SECOND), int(heard_s * SECOND))

    def ping(self, now_s: float) -> None:
        self.lifetime.pinged(int(now_s * SECOND))

    def call(self, stream_id: int = 1) -> None:
        """Have a call under way."""
        self.endpoint.streams[stream_id] = Stream()
        self.endpoint.last_stream_id = stream_id

    def said(self) -> list[int]:
        """Give the kinds of the frames that are to be sent, and forget them."""
        kinds = [bytes(piece)[3] for piece in self.endpoint.out]
        self.endpoint.out.clear()
        return kinds


def test_an_idle_client_hears_goodbye_twice_before_the_end() -> None:
    life = Life(idle_timeout_s=10.0)
    assert [life.check(second) for second in (1, 9, 10)] == [None] * 3
    assert life.said() == []
    assert life.check(11) is None
    assert life.said() == [GOAWAY, PING]
    assert life.check(11.5) is None
    assert life.said() == []
    assert life.check(13) is End.CLOSE
    assert life.said() == [GOAWAY]


def test_an_answer_to_the_goodbye_ends_it_at_once() -> None:
    life = Life(idle_timeout_s=10.0)
    life.check(11)
    assert life.lifetime.ponged() is End.CLOSE


def test_a_connection_with_a_call_is_not_idle_and_ends_with_the_call() -> None:
    life = Life(idle_timeout_s=10.0)
    life.call()
    assert life.check(30, 30) is None
    assert life.lifetime.leave(31 * SECOND) is None
    assert life.lifetime.ponged() is None
    assert life.check(40, 40) is None
    life.endpoint.streams.clear()
    assert life.check(41, 41) is End.CLOSE


def test_a_frame_that_does_not_come_whole_ends_the_connection() -> None:
    life = Life()
    life.endpoint.feed(b"\0\0\x08\x06")
    assert life.check(59) is None
    assert life.check(61) is End.CLOSE
    assert b"a frame did not come whole in time" in bytes(life.endpoint.out[-1])


def test_a_client_that_does_not_answer_a_ping_is_gone() -> None:
    life = Life(keepalive_time_s=5.0, keepalive_timeout_s=3.0)
    life.call()
    assert life.check(6) is None
    assert life.said() == [PING]
    assert life.check(8) is None
    assert life.check(10) is End.ABORT


def test_a_client_that_sends_anything_lives() -> None:
    life = Life(keepalive_time_s=5.0, keepalive_timeout_s=3.0)
    life.call()
    life.check(6)
    assert life.check(10, heard_s=7) is None
    assert life.check(13, heard_s=7) is None
    assert life.said() == [PING, PING]


def test_a_client_without_a_call_is_asked_a_few_times_where_it_is_asked_at_all() -> None:
    life = Life(keepalive_time_s=5.0, idle_timeout_s=10**6)
    life.check(6)
    assert life.said() == []
    life = Life(keepalive_time_s=5.0, idle_timeout_s=10**6, keepalive_without_calls=True)
    for second in range(6, 60, 6):
        life.check(second)
        life.lifetime.ponged()
    assert life.said() == [PING, PING]


def test_an_old_connection_has_a_grace_for_its_calls() -> None:
    life = Life(max_age_s=100.0, max_age_grace_s=20.0)
    life.call()
    assert life.check(89, 89) is None
    assert life.said() == []
    assert life.check(111, 111) is None
    assert life.said() == [GOAWAY, PING]
    assert life.check(131, 131) is End.CLOSE
    assert b"max_age" in bytes(life.endpoint.out[-1])


def test_who_pings_too_often_is_sent_away() -> None:
    life = Life(min_ping_interval_s=10.0, keepalive_without_calls=True)
    for second in (1, 12, 23, 24, 25):
        life.ping(second)
    with pytest.raises(Http2Broken, match="too_many_pings") as raised:
        life.ping(26)
    assert raised.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_each_call_forgives_the_pings_before_it() -> None:
    life = Life()
    for number in range(1, 40, 2):
        life.endpoint.last_stream_id = number
        life.ping(1)
        life.ping(1)
        life.ping(1)
        life.ping(1)
