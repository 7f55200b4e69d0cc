import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from modelport.wire.chunked import BadMessage
from modelport.wire.http import RequestHead, parse_request_head
from modelport.wire.websocket import (
    Close,
    Event,
    Message,
    Ping,
    Pong,
    WebSocketBroken,
    WebSocketCodec,
    answer_upgrade,
    ask_for_upgrade,
    check_upgraded,
)

# The handshake, with the key and answer of RFC 6455 §1.3

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def asking(method: str = "GET", **changes: str | None) -> RequestHead:
    lines: dict[str, str | None] = {
        "Host": "a",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    lines |= {name.replace("_", "-"): value for name, value in changes.items()}
    rows = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return parse_request_head(f"{method} /queue/join HTTP/1.1\r\n{rows}\r\n".encode())


def test_a_handshake_is_accepted_with_the_answer_to_its_key() -> None:
    assert dict(answer_upgrade(asking())) == {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": ACCEPT,
    }


def test_the_first_known_subprotocol_is_chosen() -> None:
    head = asking(Sec_WebSocket_Protocol="b, a,c")
    assert dict(answer_upgrade(head, ["x", "a", "b"]))["Sec-WebSocket-Protocol"] == "a"
    assert "Sec-WebSocket-Protocol" not in dict(answer_upgrade(head, ["x"]))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (asking(Upgrade=None), 400),
        (asking(Connection=None), 400),
        (asking(Connection="keep-alive"), 400),
        (asking(Upgrade="h2c"), 400),
        (asking("POST"), 400),
        (asking(Sec_WebSocket_Key=None), 400),
        (asking(Sec_WebSocket_Key="short"), 400),
        (asking(Sec_WebSocket_Key="AAAA"), 400),
        (asking(Sec_WebSocket_Key="\xe9"), 400),
        (asking(Sec_WebSocket_Version="8"), 426),
        (asking(Sec_WebSocket_Version=None), 426),
    ],
)
def test_what_is_no_handshake_is_refused(head: RequestHead, status: int) -> None:
    with pytest.raises(BadMessage) as caught:
        answer_upgrade(head)
    assert caught.value.status == status


def test_a_client_asks_with_a_fresh_key_and_checks_the_answer() -> None:
    key, headers = ask_for_upgrade(["a", "b"])
    assert key != ask_for_upgrade()[0]
    head = asking(**{name.replace("-", "_"): value for name, value in headers})
    answer = dict(answer_upgrade(head, ["b"]))
    check_upgraded(key, answer["Sec-WebSocket-Accept"])
    assert answer["Sec-WebSocket-Protocol"] == "b"
    with pytest.raises(BadMessage):
        check_upgraded(key, ACCEPT)


# Frames, by hand

MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    size = len(payload)
    marker = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", opcode | (0x80 if fin else 0), marker | size)
    else:
        head = struct.pack("!BBH", opcode | (0x80 if fin else 0), marker | 126, size)
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


def server(most: int = 1000) -> WebSocketCodec:
    return WebSocketCodec(is_client=False, max_message_bytes=most)


def client(most: int = 1000) -> WebSocketCodec:
    return WebSocketCodec(is_client=True, max_message_bytes=most)


TEXT, BINARY, CONTINUED, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10

RECEIVED: list[tuple[bytes, list[Event]]] = [
    (frame(TEXT, b"hello"), [Message("hello")]),
    (frame(TEXT, "\u20ac".encode()), [Message("\u20ac")]),
    (frame(TEXT, b""), [Message("")]),
    (frame(BINARY, b"\0\1\2"), [Message(b"\0\1\2")]),
    (frame(BINARY, bytes(500)), [Message(bytes(500))]),
    (
        frame(TEXT, b"\xe2\x82", fin=False) + frame(PING, b"x") + frame(CONTINUED, b"\xac!"),
        [Ping(b"x"), Message("\u20ac!")],
    ),
    (frame(BINARY, b"a") + frame(TEXT, b"b"), [Message(b"a"), Message("b")]),
    (frame(PONG, b"y"), [Pong(b"y")]),
    (frame(CLOSE, struct.pack("!H", 1000) + b"bye"), [Close(1000, "bye")]),
    (frame(CLOSE, struct.pack("!H", 4321)), [Close(4321, "")]),
    (frame(CLOSE, b""), [Close(1005, "")]),
]


@pytest.mark.parametrize("part", ["", "\u0416"])
def test_a_message_in_many_parts_takes_no_more_than_its_size(part: str) -> None:
    codec = server(100_000)
    data = frame(CONTINUED, part.encode(), fin=False) * 200
    assert list(codec.feed(frame(TEXT, b"", fin=False))) == []
    tracemalloc.start()
    try:
        for _ in range(100):
            assert list(codec.feed(data)) == []
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 100_000
    assert list(codec.feed(frame(CONTINUED, b"!"))) == [Message(part * 20_000 + "!")]


@pytest.mark.parametrize(("data", "events"), RECEIVED)
def test_messages_are_the_same_in_any_pieces(data: bytes, events: list[Event]) -> None:
    assert list(server().feed(data)) == events
    codec = server()
    assert [event for i in range(len(data)) for event in codec.feed(data[i : i + 1])] == events


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x", masked=False), 1002),
        (frame(3, b""), 1002),
        (frame(CONTINUED, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
        (frame(PING, b"", fin=False), 1002),
        (b"\x89\xfe\x00\x7e" + MASK + bytes(126), 1002),
        (b"\xf1\x80" + MASK, 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xe2\x82"), 1007),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002),
        (frame(CLOSE, struct.pack("!H", 999)), 1002),
        (frame(BINARY, bytes(1001)), 1009),
        (frame(BINARY, bytes(600), fin=False) + frame(CONTINUED, bytes(600)), 1009),
        (frame(TEXT, "\u20ac".encode() * 334), 1009),
        (b"\x82\xff" + struct.pack("!Q", 1 << 62) + MASK + bytes(2000), 1009),
    ],
)
def test_what_breaks_the_rules_ends_with_its_code(data: bytes, code: int) -> None:
    with pytest.raises(WebSocketBroken) as caught:
        list(server().feed(data))
    assert caught.value.code == code


def test_the_size_of_a_message_starts_anew_with_each() -> None:
    codec = server()
    for _ in range(3):
        assert list(codec.feed(frame(BINARY, bytes(1000)))) == [Message(bytes(1000))]


# Both sides, and wsproto's own connection as the other side


@given(st.lists(st.text(max_size=50) | st.binary(max_size=300), max_size=5), st.booleans())
def test_what_one_side_writes_the_other_reads(
    messages: list[str | bytes], from_client: bool
) -> None:
    writer, reader = (client(), server()) if from_client else (server(), client())
    data = b"".join(writer.encode_message(message) for message in messages)
    assert list(reader.feed(data)) == [Message(message) for message in messages]


def test_control_frames_go_both_ways() -> None:
    for writer, reader in ((client(), server()), (server(), client())):
        data = writer.encode_ping(b"p") + writer.encode_pong(b"q") + writer.encode_close(1001, "x")
        assert list(reader.feed(data)) == [Ping(b"p"), Pong(b"q"), Close(1001, "x")]


def test_a_long_reason_is_cut() -> None:
    (event,) = client().feed(server().encode_close(1000, "\u20ac" * 100))
    assert event == Close(1000, "\u20ac" * 41)


def test_views_are_written_as_bytes() -> None:
    (event,) = client().feed(server().encode_message(memoryview(bytearray(b"abc"))))
    assert event == Message(b"abc")


def test_another_implementation_understands_us() -> None:
    other = WSConnection(ConnectionType.CLIENT)
    request = parse_request_head(other.send(ws.Request(host="a", target="/")))
    rows = "".join(f"{name}: {value}\r\n" for name, value in answer_upgrade(request))
    other.receive_data(f"HTTP/1.1 101 Switching Protocols\r\n{rows}\r\n".encode())
    codec = server()
    sent = other.send(ws.TextMessage("hello")) + other.send(ws.BytesMessage(b"there"))
    assert list(codec.feed(sent)) == [Message("hello"), Message(b"there")]
    other.receive_data(codec.encode_message("back") + codec.encode_close(1000, "done"))
    accepted, message, closed = other.events()
    assert isinstance(accepted, ws.AcceptConnection)
    assert isinstance(message, ws.TextMessage)
    assert message.data == "back"
    assert isinstance(closed, ws.CloseConnection)
    assert (closed.code, closed.reason) == (1000, "done")
