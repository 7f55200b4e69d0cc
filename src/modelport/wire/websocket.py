"""WebSocket as bytes: the handshake's headers and messages, for both sides. No socket, no clock.

Frames are read and written by wsproto; here they become whole messages, with a limit on their size.
No extension is offered or accepted: what models send does not shrink enough to pay for it, and
decompression is one more way to fill memory.

Source: RFC 6455.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wsproto.frame_protocol import CloseReason, Frame, FrameProtocol, Opcode, ParseFailed
from wsproto.utilities import generate_accept_token, generate_nonce

from modelport.wire.chunked import BadMessage
from modelport.wire.http import RequestHead

__all__ = [
    "VERSION",
    "Close",
    "Event",
    "Message",
    "Ping",
    "Pong",
    "WebSocketBroken",
    "WebSocketCodec",
    "answer_upgrade",
    "ask_for_upgrade",
    "check_upgraded",
]

VERSION = "13"


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message: text or bytes."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Wants a pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer is alive."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer says no more, and wants to be told the same.

    Attributes:
        code: Of RFC 6455 §7.4; 1005 if none was sent.
        reason: For people.
    """

    code: int
    reason: str


Event = Message | Ping | Pong | Close


class WebSocketBroken(BadMessage):
    """What came is no WebSocket, or too much of it; nothing after it can be understood.

    Attributes:
        code: To close with.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def answer_upgrade(head: RequestHead, protocols: Sequence[str] = ()) -> Sequence[tuple[str, str]]:
    """Give the headers of the 101 that accepts the request.

    Args:
        head: Of the request that wants to become a WebSocket.
        protocols: Subprotocols that are spoken, best first; the first that is offered is chosen.

    Raises:
        BadMessage: If it is no such request; its status is 426 if only the version is wrong.
    """
    if head.method != "GET" or head.upgrade != "websocket":
        raise BadMessage("this path speaks WebSocket; send a WebSocket handshake")
    if head.headers.get("sec-websocket-version") != VERSION:
        raise BadMessage(f"the WebSocket version must be {VERSION}", status=426)
    key = head.headers.get("sec-websocket-key", "")
    if not _is_nonce(key):
        raise BadMessage("the header Sec-WebSocket-Key must be 16 bytes in base64")
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", generate_accept_token(key.encode("ascii")).decode()),
    ]
    offered = {one.strip() for one in head.headers.get("sec-websocket-protocol", "").split(",")}
    chosen = next((one for one in protocols if one in offered), None)
    if chosen is not None:
        headers.append(("Sec-WebSocket-Protocol", chosen))
    return headers


def ask_for_upgrade(protocols: Sequence[str] = ()) -> tuple[str, Sequence[tuple[str, str]]]:
    """Give a fresh key and the headers of a GET that asks for a WebSocket."""
    key = generate_nonce().decode()
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", VERSION),
        ("Sec-WebSocket-Key", key),
    ]
    if protocols:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(protocols)))
    return key, headers


def check_upgraded(key: str, accept: str) -> None:
    """Check the header Sec-WebSocket-Accept of a 101.

    Raises:
        BadMessage: If it was not made from ``key``: then who answered knows no WebSocket.
    """
    if accept != generate_accept_token(key.encode("ascii")).decode():
        raise BadMessage("the server accepted a WebSocket that was not asked for")


def _is_nonce(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


class WebSocketCodec:
    """One side of a WebSocket after the handshake.

    Args:
        is_client: Which side: a client masks what it sends.
        max_message_bytes: Of a message that is received, text as UTF-8.
    """

    def __init__(self, *, is_client: bool, max_message_bytes: int) -> None:
        self._frames = FrameProtocol(is_client, [])
        self._max_bytes = max_message_bytes
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Give what is whole with these bytes; to be read to the end.

        Raises:
            WebSocketBroken: If it is no WebSocket, or a message is too large.
        """
        self._frames.receive_bytes(data)
        try:
            for frame in self._frames.received_frames():
                event = self._take(frame)
                if event is not None:
                    yield event
        except ParseFailed as exc:
            raise WebSocketBroken(f"what came is no WebSocket: {exc}", int(exc.code)) from exc

    def _take(self, frame: Frame) -> Event | None:
        payload = frame.payload
        if isinstance(payload, tuple):
            code, reason = payload
            return Close(int(code), reason or "")
        if frame.opcode is Opcode.PING:
            return Ping(bytes(_bytes(payload)))
        if frame.opcode is Opcode.PONG:
            return Pong(bytes(_bytes(payload)))
        return self._take_part(payload, is_last=frame.message_finished)

    def _take_part(self, part: str | bytes | bytearray, *, is_last: bool) -> Message | None:
        # Bytes, for text too: parts of one character each would take fifty times their size.
        is_text = isinstance(part, str)
        self._bytes += part.encode() if isinstance(part, str) else part
        if len(self._bytes) > self._max_bytes:
            raise WebSocketBroken(
                f"a WebSocket message may have {self._max_bytes} bytes",
                int(CloseReason.MESSAGE_TOO_BIG),
            )
        if not is_last:
            return None
        message = Message(self._bytes.decode() if is_text else bytes(self._bytes))
        self._bytes.clear()
        return message

    def encode_message(self, data: str | bytes | bytearray | memoryview) -> bytes:
        """Write a message in one frame."""
        whole = data if isinstance(data, str | bytes | bytearray) else bytes(data)
        return bytes(self._frames.send_data(whole))

    def encode_ping(self, payload: bytes = b"") -> bytes:
        """Write a ping; at most 125 bytes of payload."""
        return bytes(self._frames.ping(payload))

    def encode_pong(self, payload: bytes) -> bytes:
        """Write the answer to a ping."""
        return bytes(self._frames.pong(payload))

    def encode_close(self, code: int = 1000, reason: str = "") -> bytes:
        """Write the end; a long reason is cut to what fits."""
        return bytes(self._frames.close(code, reason or None))


def _bytes(payload: object) -> bytes | bytearray:
    assert isinstance(payload, bytes | bytearray)
    return payload
