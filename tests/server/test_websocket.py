"""WebSockets behind the listener; the other end is wsproto's own connection."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from modelport.clock import SystemClock
from modelport.engine.executor import new_event_loop
from modelport.server.http.connection import HALF_CLOSE_GRACE_S, HIGH_WATER_BYTES, Connection
from modelport.server.websocket import (
    CLOSE_GRACE_S,
    QUIET_BEFORE_END_S,
    QUIET_BEFORE_PING_S,
)

from .memory_connection import Client, TestServer, get

HANDSHAKE = get(
    "/socket",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


class Browser:
    """The other end: wsproto's connection over a client in memory."""

    def __init__(self, client: Client, *events: ws.Event) -> None:
        self.client = client
        self.peer = WSConnection(ConnectionType.CLIENT)
        request = ws.Request(host="localhost", target="/socket", subprotocols=["echo"])
        self.send(request, *events)

    def send(self, *events: ws.Event) -> None:
        self.client.send(b"".join(self.peer.send(event) for event in events))

    def events(self) -> list[Any]:
        data = self.client.read()
        if data:
            self.peer.receive_data(data)
        return list(self.peer.events())


@pytest.fixture
def browser(client: Client) -> Browser:
    browser = Browser(client)
    (accepted,) = browser.events()
    assert isinstance(accepted, ws.AcceptConnection)
    assert accepted.subprotocol == "echo"
    return browser


def test_messages_go_both_ways(server: TestServer, browser: Browser) -> None:
    browser.send(ws.TextMessage("hello"), ws.BytesMessage(b"\0\1"))
    text, data = browser.events()
    assert (text.data, bytes(data.data)) == ("hello", b"\0\1")
    assert server.sockets[0].send("by the way")
    assert browser.events()[0].data == "by the way"


def test_what_was_sent_right_behind_the_handshake_is_not_lost(client: Client) -> None:
    client.send(HANDSHAKE + b"\x81\x82\0\0\0\0hi")
    assert client.read().endswith(b"\r\n\r\n\x81\x02hi")


def test_a_ping_is_answered(browser: Browser) -> None:
    browser.send(ws.Ping(b"x"))
    assert browser.events() == [ws.Pong(b"x")]


def test_a_goodbye_is_returned_and_the_handler_told(server: TestServer, browser: Browser) -> None:
    codes: list[int] = []
    server.sockets[0].on_close = codes.append
    browser.send(ws.CloseConnection(4000, "enough"))
    (closed,) = browser.events()
    assert closed.code == 4000
    assert browser.client.is_closed()
    assert codes == [4000]
    assert not server.sockets[0].send("too late")
    assert not server.http.connections


def test_our_goodbye_waits_for_the_peers(server: TestServer, browser: Browser) -> None:
    codes: list[int] = []
    server.sockets[0].on_close = codes.append
    server.sockets[0].close(1000, "done")
    server.sockets[0].close()
    (closed,) = browser.events()
    assert (closed.code, closed.reason) == (1000, "done")
    assert not browser.client.is_closed()
    browser.send(closed.response())
    assert browser.client.is_closed()
    assert codes == [1000]


def test_a_peer_that_does_not_return_the_goodbye_is_cut_off(
    server: TestServer, browser: Browser
) -> None:
    server.http.open()
    server.sockets[0].close()
    server.loop.advance(CLOSE_GRACE_S + 2)
    assert browser.client.transport.is_aborted


@pytest.mark.parametrize(
    ("data", "code"), [(b"\x81\x01x", 1002), (b"\x82\xfe\x03\xe9\0\0\0\0" + bytes(1001), 1009)]
)
def test_what_breaks_the_rules_is_told_and_the_end(
    server: TestServer, browser: Browser, data: bytes, code: int
) -> None:
    codes: list[int] = []
    server.sockets[0].on_close = codes.append
    browser.client.send(data)
    (closed,) = browser.events()
    assert closed.code == code
    assert browser.client.is_closed()
    assert codes == [1006]


def test_a_peer_that_is_gone_is_noticed(server: TestServer, browser: Browser) -> None:
    codes: list[int] = []
    server.sockets[0].on_close = codes.append
    browser.client.leave()
    assert codes == [1006]
    server.sockets[0].close()
    server.sockets[0].pause()
    server.sockets[0].resume()
    server.sockets[0].abort()
    assert not server.http.connections


def test_a_silent_peer_is_asked_and_then_taken_for_dead(
    server: TestServer, browser: Browser
) -> None:
    server.http.open()
    server.loop.advance(QUIET_BEFORE_PING_S + 2)
    (ping,) = browser.events()
    browser.send(ping.response())
    server.loop.advance(QUIET_BEFORE_END_S - 5)
    assert len(browser.events()) == 2
    assert not browser.client.is_closed()
    server.loop.advance(10)
    assert browser.client.transport.is_aborted


def test_a_peer_that_does_not_read_holds_its_own_socket_back(
    server: TestServer, browser: Browser
) -> None:
    browser.client.transport.is_stuck = True
    resumed: list[bool] = []
    socket = server.sockets[0]
    socket.on_writable = lambda: resumed.append(True)
    sent = 0
    while socket.send(bytes(10_000)):
        sent += 10_000
        assert sent <= 2 * HIGH_WATER_BYTES
    unread = len(browser.client.transport.unread)
    for _ in range(100):
        browser.send(ws.Ping(b"more"))
    assert len(browser.client.transport.unread) == unread
    assert resumed == []
    browser.events()
    assert resumed == [True]


def test_reading_can_be_held_back(server: TestServer, browser: Browser) -> None:
    server.sockets[0].pause()
    assert not browser.client.transport.reads
    server.sockets[0].resume()
    assert browser.client.transport.reads


def test_messages_wait_as_bytes_while_nobody_is_ready_for_them(
    server: TestServer, browser: Browser
) -> None:
    socket, heard = server.sockets[0], list[str | bytes]()

    def hear(message: str | bytes) -> None:
        heard.append(message)
        if len(heard) % 2 == 0:
            socket.pause()

    socket.on_message = hear
    browser.send(*(ws.TextMessage(str(at)) for at in range(5)))
    assert heard == ["0", "1"]
    browser.send(ws.TextMessage("5"))
    socket.resume()
    assert heard == ["0", "1", "2", "3"]
    assert not browser.client.transport.reads
    socket.resume()
    assert heard == ["0", "1", "2", "3", "4", "5"]


def test_a_peer_that_is_not_listened_to_is_not_taken_for_dead(
    server: TestServer, browser: Browser
) -> None:
    server.http.open()
    server.sockets[0].pause()
    server.loop.advance(2 * QUIET_BEFORE_END_S)
    server.sockets[0].resume()
    server.loop.advance(2)
    assert not browser.client.is_closed()
    server.loop.advance(QUIET_BEFORE_END_S)
    assert browser.client.transport.is_aborted


def test_a_server_that_goes_away_says_so(server: TestServer, browser: Browser) -> None:
    server.http.drain()
    (closed,) = browser.events()
    assert closed.code == 1001
    browser.send(closed.response())
    assert not server.http.connections


def test_a_wrong_version_is_told_the_right_one(client: Client) -> None:
    client.send(HANDSHAKE.replace(b"Version: 13", b"Version: 8"))
    assert client.statuses == [426]
    assert client.answers[0].headers["sec-websocket-version"] == "13"
    client.send(get("/hello"))
    assert client.statuses == [426, 200]


def test_a_plain_request_to_a_websocket_is_400(client: Client) -> None:
    client.send(get("/socket"))
    assert client.statuses == [400]
    assert "WebSocket" in json.loads(client.answers[0].body)["error"]


def test_a_client_that_leaves_during_the_handshake_is_forgotten(
    server: TestServer, client: Client
) -> None:
    client.connection.data_received(HANDSHAKE)
    codes: list[int] = []
    server.sockets[0].on_close = codes.append
    client.leave()
    assert codes == [1006]
    assert not server.http.connections


def test_half_a_goodbye_during_the_handshake_is_a_whole_one(
    server: TestServer, client: Client
) -> None:
    client.connection.data_received(HANDSHAKE)
    client.end()
    assert client.is_closed()
    server.loop.advance(HALF_CLOSE_GRACE_S)
    assert not server.http.connections


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, new_event_loop])
def test_it_works_over_a_socket(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        server = TestServer(clock=SystemClock())
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(partial(Connection, server.http), "127.0.0.1", 0)
        address = listener.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        peer = WSConnection(ConnectionType.CLIENT)

        async def next_event() -> Any:
            while True:
                for event in peer.events():
                    return event
                peer.receive_data(await reader.read(65_536) or None)

        writer.write(peer.send(ws.Request(host="localhost", target="/socket")))
        assert isinstance(await next_event(), ws.AcceptConnection)
        for message in ("one", "two" * 300):
            writer.write(peer.send(ws.TextMessage(message)))
            assert (await next_event()).data == message
        writer.write(peer.send(ws.CloseConnection(1000)))
        assert (await next_event()).code == 1000
        assert await reader.read() == b""
        writer.close()
        listener.close()
        assert not server.http.connections

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(bounded())
