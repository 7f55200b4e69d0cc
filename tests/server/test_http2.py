"""HTTP/2 in memory: the h2 library asks, time stands still, the loop is turned by hand."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
import trustme

from modelport.server.deadlines import Deadlines
from modelport.server.http import AccessRecord, Connection, HttpOptions
from modelport.server.http2_options import Http2Options
from modelport.server.settings import Settings
from modelport.server.tls import server_context
from modelport.server.turns import TURN_NS
from modelport.testing.clock import ManualClock
from modelport.wire.http2 import ErrorCode, Http2Limits

from .grpc_server import Methods, make_server, running
from .memory_connection import HandTurnedLoop, MemoryTransport, turning

FIELDS = [(":scheme", "http"), (":authority", "localhost")]
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


class World:
    """A server, its loop and its clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock(10**12)
        self.loop = HandTurnedLoop(self.clock)
        self.methods = Methods()
        self.server = make_server(self.methods, clock=self.clock, **options)

    def client(self, **settings: int) -> "Client":
        return Client(self, settings)


class Client:
    """The h2 library on a connection in memory."""

    def __init__(self, world: World, settings: dict[str, int]) -> None:
        self.world = world
        self.transport = MemoryTransport(world.loop)
        connection = Connection(world.server)
        self.transport.protocol = connection
        connection.connection_made(self.transport)
        self.peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        if settings:
            rows: dict[h2.settings.SettingCodes | int, int] = {
                h2.settings.SettingCodes[name]: value for name, value in settings.items()
            }
            self.peer.local_settings.update(rows)
        self.peer.initiate_connection()
        self.status: dict[int, int] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.body: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goodbyes: list[tuple[int, int]] = []
        self.acknowledges = True
        self.talk()

    def talk(self) -> "Client":
        """Exchange what there is until there is nothing."""
        for _ in range(10_000):
            there = self.peer.data_to_send()
            if there and not self.transport.is_lost:
                assert self.transport.reads, "the server does not read"
                self.transport.feed(there)
            self.world.loop.turn()
            back = self.transport.drain(10**9) if not self.transport.is_stuck else b""
            if not there and not back:
                return self
            for frame in _frames(back):
                for event in self.peer.receive_data(frame):
                    self._take(event)
        raise AssertionError("they never stop talking")

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                fields = {_text(name): _text(value) for name, value in event.headers or ()}
                stream_id = event.stream_id or 0
                if isinstance(event, h2.events.ResponseReceived):
                    self.status[stream_id] = int(fields.pop(":status"))
                    self.headers[stream_id] = fields
                else:
                    self.trailers[stream_id] = fields
            case h2.events.DataReceived():
                stream_id = event.stream_id or 0
                self.body[stream_id] = self.body.get(stream_id, b"") + (event.data or b"")
                if self.acknowledges and event.flow_controlled_length:
                    self.peer.acknowledge_received_data(event.flow_controlled_length, stream_id)
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id or 0)
            case h2.events.StreamReset():
                self.resets[event.stream_id or 0] = int(event.error_code or 0)
            case h2.events.ConnectionTerminated():
                self.goodbyes.append((event.last_stream_id or 0, int(event.error_code or 0)))
                # h2 4.4 takes every GOAWAY for the end; what was begun goes on, RFC 9113 §6.8.
                self.peer.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        more: list[tuple[str, str]] | None = None,
    ) -> int:
        """Send a request and give its stream."""
        stream_id = self.peer.get_next_available_stream_id()
        fields = [(":method", method), *FIELDS, (":path", path), *(more or [])]
        self.peer.send_headers(stream_id, fields, end_stream=body is None)
        if body is not None:
            while len(body) > 16_384:
                self.peer.send_data(stream_id, body[:16_384])
                body = body[16_384:]
                self.talk()
            self.peer.send_data(stream_id, body, end_stream=True)
        self.talk()
        return stream_id

    def call(self, method: str, message: bytes, more: list[tuple[str, str]] | None = None) -> int:
        """Make a gRPC call and give its stream."""
        data = b"\0" + len(message).to_bytes(4, "big") + message
        return self.ask("POST", f"/t.Test/{method}", data, [*GRPC, *(more or [])])


def _frames(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        yield data[at:end]
        at = end


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def world(stack: ExitStack) -> World:
    made = World()
    stack.enter_context(turning(made.loop))
    return made


@pytest.fixture
def client(world: World) -> Client:
    return world.client()


# REST.


def test_a_get_is_answered(client: Client) -> None:
    stream_id = client.ask("GET", "/hello")
    assert client.status[stream_id] == 200
    assert client.headers[stream_id] == {"content-type": "text/plain", "content-length": "5"}
    assert client.body[stream_id] == b"hello"
    assert stream_id in client.ended


def test_head_is_answered_like_get_without_the_body(client: Client) -> None:
    stream_id = client.ask("HEAD", "/hello")
    assert client.headers[stream_id]["content-length"] == "5"
    assert stream_id not in client.body
    assert stream_id in client.ended


@pytest.mark.parametrize("size", [0, 1, 100_000, 1_500_000])
@pytest.mark.parametrize("is_counted", [True, False])
def test_bodies_of_any_size(client: Client, size: int, is_counted: bool) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    more = [("content-length", str(size))] if is_counted else []
    stream_id = client.ask("POST", "/echo", body[:size], more)
    assert client.body.get(stream_id, b"") == body[:size]


LARGE = bytes(range(256)) * 2352  # 602 112 bytes


def _in_pieces(client: Client, size: int) -> None:
    """Send what there is to send, so many bytes at a time."""
    there = client.peer.data_to_send()
    for at in range(0, len(there), size):
        client.transport.feed(there[at : at + size])
    client.talk()


@pytest.mark.parametrize("size", [1 << 20, 100_000, 33_333])
@pytest.mark.parametrize("fields", [[("content-length", "602112")], [], None])
def test_a_large_frame_is_received_where_it_is_wanted(
    client: Client, size: int, fields: list[tuple[str, str]] | None
) -> None:
    sent = LARGE if fields is not None else b"\0" + len(LARGE).to_bytes(4, "big") + LARGE
    path = "/echo" if fields is not None else "/t.Test/Echo"
    for _ in range(2):
        stream_id = client.peer.get_next_available_stream_id()
        more = fields if fields is not None else GRPC
        client.peer.send_headers(stream_id, [(":method", "POST"), *FIELDS, (":path", path), *more])
        client.peer.send_data(stream_id, sent, end_stream=True)
        _in_pieces(client, size)
        assert client.body[stream_id] == sent
        small = client.call("Echo", b"abc")
        assert client.body[small] == b"\0\0\0\0\3abc"


def test_a_call_may_end_while_its_large_frame_comes(client: Client) -> None:
    """By its deadline; what still comes of the frame is for nobody."""
    stream_id = client.peer.get_next_available_stream_id()
    more = [*GRPC, ("grpc-timeout", "1S")]
    client.peer.send_headers(
        stream_id, [(":method", "POST"), *FIELDS, (":path", "/t.Test/Echo"), *more]
    )
    client.peer.send_data(stream_id, b"\0" + len(LARGE).to_bytes(4, "big") + LARGE, end_stream=True)
    there = client.peer.data_to_send()
    client.transport.feed(there[:100_000])
    client.transport.feed(there[100_000:200_000])
    client.world.loop.advance(1.5)
    client.transport.feed(there[200_000:])
    client.talk()
    assert client.headers[stream_id]["grpc-status"] == "4"
    assert client.body[client.call("Echo", b"abc")] == b"\0\0\0\0\3abc"


def test_a_large_frame_that_is_longer_than_its_body_is_refused(client: Client) -> None:
    stream_id = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), *FIELDS, (":path", "/echo"), ("content-length", "200000")]
    client.peer.config.validate_outbound_headers = False
    client.peer.send_headers(stream_id, fields)
    client.peer.send_data(stream_id, LARGE, end_stream=True)
    _in_pieces(client, 50_000)
    assert client.status[stream_id] == 400
    assert b"longer than content-length" in client.body[stream_id]


def test_a_stream_of_pieces(client: Client) -> None:
    stream_id = client.ask("GET", "/stream")
    assert client.body[stream_id] == b"0\n1\n2\n3\n4\n"
    assert stream_id in client.ended


def test_unknown_paths_and_methods(client: Client) -> None:
    first, second = client.ask("GET", "/nowhere"), client.ask("PUT", "/hello", b"")
    assert (client.status[first], client.status[second]) == (404, 405)
    assert client.headers[second]["allow"] == "GET, HEAD"
    assert client.headers[second]["x-request-id"]


def test_a_stranger_gets_no_further_than_the_door(client: Client) -> None:
    stream_id = client.ask("GET", "/hello", more=[("x-stranger", "1")])
    assert client.status[stream_id] == 401
    assert client.headers[stream_id]["www-authenticate"] == "Bearer"


def test_a_body_over_the_limit_is_refused_whatever_its_length_says(client: Client) -> None:
    most = client.world.server.options.limits.body_bytes
    stream_id = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), *FIELDS, (":path", "/echo"), ("content-length", str(most + 1))]
    client.peer.send_headers(stream_id, fields)
    client.talk()
    assert client.status[stream_id] == 413
    assert b"exceeds the maximum allowed input size" in client.body[stream_id]


@pytest.mark.parametrize(("length", "body"), [("5", b"four"), ("3", b"four")])
def test_a_body_that_is_not_as_long_as_it_says_is_an_error(
    client: Client, length: str, body: bytes
) -> None:
    # The h2 library refuses to send such a thing when it has counted.
    client.peer.config = h2.config.H2Configuration(client_side=True)
    stream_id = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), *FIELDS, (":path", "/echo"), ("content-length", length)]
    client.peer.send_headers(stream_id, fields)
    client.peer.send_data(stream_id, body, end_stream=True)
    client.talk()
    assert client.resets.get(stream_id) == ErrorCode.PROTOCOL_ERROR or (
        client.status[stream_id] >= 400
    )
    assert client.body.get(stream_id, b"") != body


def test_a_client_that_resets_is_gone_for_the_handler(client: Client) -> None:
    stream_id = client.ask("GET", "/later")
    client.peer.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
    client.talk()
    assert client.world.methods.cancelled == ["/later"]
    client.world.methods.exchanges[0].respond(200, (), [b"too late"])
    assert stream_id not in client.status


def test_headers_over_the_limit_are_refused_on_their_stream(stack: ExitStack) -> None:
    world = World(http2=Http2Options(limits=Http2Limits(list_bytes=4096)))
    stack.enter_context(turning(world.loop))
    client = world.client()
    refused = client.ask("GET", "/hello", more=[("x-long", "a" * 5000)])
    assert client.status[refused] == 431
    assert client.status[client.ask("GET", "/hello")] == 200


def test_the_access_log_has_a_line_for_each(world: World) -> None:
    records: list[AccessRecord] = []
    world.server.record_access = records.append
    client = world.client()
    client.ask("GET", "/hello")
    client.call("Echo", b"abc", [("x-name", "me")])
    client.call("Refuse", b"")
    told = [(r.method, r.target, r.status, r.body_bytes, r.principal) for r in records]
    assert told == [
        ("GET", "/hello", 200, 5, ""),
        ("GRPC", "/t.Test/Echo", 0, 3, "me"),
        ("GRPC", "/t.Test/Refuse", 3, 0, ""),
    ]


def test_many_requests_of_one_turn_are_answered_in_one_write(client: Client) -> None:
    writes = len(client.transport.writes)
    for _ in range(10):
        stream_id = client.peer.get_next_available_stream_id()
        fields = [(":method", "GET"), *FIELDS, (":path", "/hello")]
        client.peer.send_headers(stream_id, fields, end_stream=True)
    client.talk()
    assert len(client.ended) == 10
    assert len(client.transport.writes) <= writes + 2  # and once for the first settings


def test_one_request_is_not_behind_those_that_others_pile_up(world: World) -> None:
    modest, greedy = world.client(), world.client()
    for client, calls in ((modest, 1), (greedy, 30)):
        for _ in range(calls):
            stream_id = client.peer.get_next_available_stream_id()
            fields = [(":method", "POST"), *FIELDS, (":path", "/t.Test/Later"), *GRPC]
            client.peer.send_headers(stream_id, fields)
            client.peer.send_data(stream_id, b"\0\0\0\0\0", end_stream=True)
    world.server.turns.spend(TURN_NS)
    greedy.transport.feed(greedy.peer.data_to_send())
    assert world.methods.waiting == []
    modest.transport.feed(modest.peer.data_to_send())
    assert len(world.methods.waiting) == 1
    greedy.talk()
    assert len(world.methods.waiting) == 31


# gRPC, frame by frame.


def test_a_call_is_answered_with_a_message_and_trailers(client: Client) -> None:
    stream_id = client.call("Echo", b"abc")
    assert client.status[stream_id] == 200
    assert client.headers[stream_id] == {"content-type": "application/grpc"}
    assert client.body[stream_id] == b"\0\0\0\0\3abc"
    assert client.trailers[stream_id] == {"grpc-status": "0"}


def test_a_refusal_is_trailers_alone(client: Client) -> None:
    stream_id = client.call("Refuse", b"")
    assert client.headers[stream_id]["grpc-status"] == "3"
    assert stream_id not in client.body
    assert stream_id not in client.trailers


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"", "12", "the method takes one message, none was sent"),
        (b"\0\0\0\0\1a\0\0\0\0\1b", "12", "the method takes one message, more were sent"),
        (b"\0\0\0\0\5a", "13", "the call ends in the middle of a message"),
        (b"\7\0\0\0\1a", "13", "the flags 7 of a message are not known"),
        (b"\1\0\0\0\1a", "13", "a message is compressed, and no grpc-encoding says how"),
    ],
)
def test_what_is_not_one_message_is_refused(
    client: Client, data: bytes, status: str, text: str
) -> None:
    stream_id = client.ask("POST", "/t.Test/Echo", data, GRPC)
    assert client.headers[stream_id]["grpc-status"] == status
    assert client.headers[stream_id]["grpc-message"] == text


def test_metadata_that_says_nothing_understandable_is_refused(client: Client) -> None:
    first = client.call("Echo", b"", [("grpc-timeout", "soon")])
    second = client.call("Echo", b"", [("grpc-encoding", "snappy")])
    assert client.headers[first]["grpc-status"] == "13"
    assert client.headers[second]["grpc-status"] == "12"
    assert client.headers[second]["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_a_deadline_is_kept_by_the_server_too(client: Client) -> None:
    stream_id = client.call("Later", b"", [("grpc-timeout", "500m")])
    client.world.loop.advance(0.4)
    client.talk()
    assert stream_id not in client.ended
    client.world.loop.advance(0.2)
    client.talk()
    assert client.headers[stream_id]["grpc-status"] == "4"
    assert client.world.methods.cancelled == ["/t.Test/Later"]


def test_a_message_in_pieces_of_a_byte(client: Client) -> None:
    stream_id = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), *FIELDS, (":path", "/t.Test/Echo"), *GRPC]
    client.peer.send_headers(stream_id, fields)
    for byte in b"\0\0\0\0\3abc":
        client.peer.send_data(stream_id, bytes([byte]))
        client.talk()
    client.peer.end_stream(stream_id)
    client.talk()
    assert client.body[stream_id] == b"\0\0\0\0\3abc"


def test_a_client_without_credit_makes_the_method_wait(client: Client) -> None:
    client.acknowledges = False
    stream_id = client.call("Many", b"1000")
    got = len(client.body[stream_id])
    assert got == 65_535
    (stream,) = client.transport.protocol.endpoint.streams.values()
    assert stream.queued_bytes < 80_000
    client.peer.increment_flow_control_window(10**7, stream_id)
    client.peer.increment_flow_control_window(10**7)
    client.talk()
    assert client.trailers[stream_id] == {"grpc-status": "0"}
    assert len(client.body[stream_id]) > 1_000_000


def test_who_takes_nothing_gets_no_further_requests_begun(client: Client) -> None:
    """And they are begun when it does."""
    client.acknowledges = False
    first = client.call("Big", b"600000")
    second = client.call("Later", b"")
    assert client.world.methods.waiting == []
    client.peer.increment_flow_control_window(10**7, first)
    client.peer.increment_flow_control_window(10**7)
    client.talk()
    assert first in client.ended
    assert len(client.world.methods.waiting) == 1
    client.world.methods.waiting[0].finish()
    client.talk()
    assert second in client.ended


def test_a_message_that_does_not_come_is_not_waited_for(client: Client) -> None:
    stream_id = client.peer.get_next_available_stream_id()
    fields = [(":method", "POST"), *FIELDS, (":path", "/t.Test/Echo"), *GRPC]
    client.peer.send_headers(stream_id, fields)
    client.peer.send_data(stream_id, b"\0\0\0\0\x10abc")
    client.talk()
    client.world.server.open()
    client.world.loop.advance(62)
    client.talk()
    assert client.headers[stream_id]["grpc-status"] == "3"
    client.world.server.close()


# Time and ends.


def test_an_idle_connection_is_ended_gracefully(stack: ExitStack) -> None:
    world = World(http=HttpOptions(idle_timeout_s=10.0))
    stack.enter_context(turning(world.loop))
    client = world.client()
    world.server.open()
    client.ask("GET", "/hello")
    world.loop.advance(9)
    client.talk()
    assert client.goodbyes == []
    world.loop.advance(3)
    client.talk()
    assert client.goodbyes == [(2**31 - 1, 0), (1, 0)]
    world.loop.advance(3)
    assert client.transport.is_lost
    assert not world.server.connections
    world.server.close()


def test_a_connection_whose_calls_are_answered_at_once_is_not_idle(stack: ExitStack) -> None:
    """Whenever somebody looks, none of its streams is open."""
    world = World(http=HttpOptions(idle_timeout_s=10.0))
    stack.enter_context(turning(world.loop))
    client = world.client()
    world.server.open()
    for _ in range(30):
        stream_id = client.call("Echo", b"a")
        assert stream_id in client.ended
        world.loop.advance(1)
        client.talk()
    assert client.goodbyes == []
    world.loop.advance(12)
    client.talk()
    assert client.goodbyes
    world.server.close()


def test_a_client_may_ask_whether_we_live_after_each_call(client: Client) -> None:
    """Also when all its calls fail, which brings no data."""
    for _ in range(10):
        client.call("Unknown", b"")
        client.peer.ping(b"keepaliv")
        client.talk()
    assert client.goodbyes == []
    for _ in range(4):
        client.peer.ping(b"keepaliv")
        client.talk()
    assert client.goodbyes[-1][1] == ErrorCode.ENHANCE_YOUR_CALM


def test_draining_finishes_what_has_come(client: Client) -> None:
    stream_id = client.call("Later", b"")
    client.world.server.drain()
    client.talk()
    assert client.goodbyes == [(2**31 - 1, 0), (stream_id, 0)]
    client.world.server.drain()
    assert not client.transport.is_closed
    call = client.world.methods.waiting[0]
    call.send([b"the last"])
    call.finish()
    client.talk()
    assert client.body[stream_id].endswith(b"the last")
    client.world.server.drain()
    client.world.loop.turn()
    assert client.transport.is_lost


def test_a_silent_client_is_asked_and_then_dropped(stack: ExitStack) -> None:
    options = Http2Options(keepalive_time_s=5.0, keepalive_timeout_s=3.0)
    world = World(http2=options)
    stack.enter_context(turning(world.loop))
    client = world.client()
    client.call("Later", b"")
    world.server.open()
    world.loop.advance(6)
    client.talk()  # the library answers
    world.loop.advance(3)
    assert not client.transport.is_lost
    world.loop.advance(10)  # now nobody does
    assert client.transport.is_aborted
    assert world.methods.cancelled == ["/t.Test/Later"]
    world.server.close()


def test_an_old_connection_has_a_time_to_finish(stack: ExitStack) -> None:
    world = World(http2=Http2Options(max_age_s=10.0, max_age_grace_s=5.0))
    stack.enter_context(turning(world.loop))
    client = world.client()
    client.call("Later", b"")
    world.server.open()
    world.loop.advance(12)
    client.talk()
    assert client.goodbyes[0] == (2**31 - 1, 0)
    assert world.server.connections
    world.loop.advance(6)
    assert client.transport.is_lost
    assert world.methods.cancelled == ["/t.Test/Later"]
    world.server.close()


def test_a_client_that_stops_reading_the_socket_is_dropped_in_the_end(client: Client) -> None:
    client.peer.increment_flow_control_window(10**8)
    client.talk()
    client.transport.is_stuck = True
    client.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10**8})
    client.call("Big", b"5000000")
    assert not client.transport.reads
    client.world.server.open()
    client.world.loop.advance(70)
    assert client.transport.is_lost
    assert not client.world.server.connections
    client.world.server.close()


def test_ten_thousand_streams_opened_and_reset_are_not_served(client: Client) -> None:
    while not client.goodbyes:
        stream_id = client.call("Later", b"")
        client.peer.reset_stream(stream_id)
        client.talk()
    assert stream_id < 2 * 1002
    assert client.goodbyes[-1][1] == ErrorCode.ENHANCE_YOUR_CALM
    assert client.transport.is_lost
    assert len(client.world.methods.cancelled) == len(client.world.methods.waiting)


def test_deadlines_forget_calls_that_are_over() -> None:
    clock = ManualClock(10**12)
    loop = HandTurnedLoop(clock)

    class Timed:
        expired = 0

        def expire(self) -> None:
            self.expired += 1

    with turning(loop):
        deadlines = Deadlines(clock)
        calls = [Timed() for _ in range(100)]
        for number, call in enumerate(calls):
            deadlines.add(call, clock.now_ns() + number * 10**7)
        for call in calls[50:]:
            deadlines.remove(call, 10**12 + calls.index(call) * 10**7)
        assert len(deadlines) == 50
        loop.advance(0.25)
        expired = [call.expired for call in calls]
        assert expired[:23] == [1] * 23
        assert not any(expired[25:])
        loop.advance(1)
        assert [call.expired for call in calls] == [1] * 50 + [0] * 50
        assert len(deadlines) == 0


# Over sockets.


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_by_prior_knowledge_and_by_alpn(tmp_path: Any) -> None:
    def curl(*arguments: str) -> str:
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "10", "-w", " %{http_version} %{http_code}", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    features = subprocess.run(["curl", "-V"], capture_output=True, text=True, check=True).stdout
    if "HTTP2" not in features:
        pytest.skip("this curl cannot speak HTTP/2")
    with running(make_server(Methods())) as served:
        base = f"http://{served.address}"
        assert curl("--http2-prior-knowledge", f"{base}/hello") == "hello 2 200"
        assert curl(f"{base}/hello") == "hello 1.1 200"
        file = tmp_path / "body"
        file.write_bytes(b"x" * 3_000_000)
        told = curl("--http2-prior-knowledge", "--data-binary", f"@{file}", f"{base}/echo")
        assert told == "x" * 3_000_000 + " 2 200"
    authority = trustme.CA()
    own = authority.issue_cert("localhost")
    cert, key, root = (tmp_path / name for name in ("cert", "key", "root"))
    own.private_key_pem.write_to_path(str(key))
    cert.write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
    authority.cert_pem.write_to_path(str(root))
    context = server_context(Settings(tls_cert=str(cert), tls_key=str(key)))
    assert isinstance(context, ssl.SSLContext)
    with running(make_server(Methods()), context) as served:
        url = f"https://localhost:{served.port}/hello"
        assert curl("--cacert", str(root), url) == "hello 2 200"
        assert curl("--cacert", str(root), "--http1.1", url) == "hello 1.1 200"


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_h2load_is_served_on_many_connections_and_streams() -> None:
    with running(make_server(Methods())) as served:
        done = subprocess.run(
            ["h2load", "-n3000", "-c20", "-m25", "-W18", "-w18", f"http://{served.address}/hello"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
