"""A WebSocket on a connection that the listener has handed over.

The listener answers the handshake and steps aside; from then on this protocol reads and writes the
same transport, under the same eye on time and the same drain.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from modelport.protocols.base import Headers
from modelport.server.http import HttpExchange, HttpServer
from modelport.wire.chunked import BadMessage
from modelport.wire.websocket import (
    VERSION,
    Close,
    Event,
    Message,
    Ping,
    WebSocketBroken,
    WebSocketCodec,
    answer_upgrade,
)

__all__ = ["WebSocket", "accept_websocket"]

QUIET_BEFORE_PING_S = 20.0
"""Silence after which the peer is asked whether it lives: balancers cut what is silent for 60 s."""
QUIET_BEFORE_END_S = 60.0
"""Silence, pings unanswered, after which it is taken for dead."""
CLOSE_GRACE_S = 5.0
"""How long the peer may take to say goodbye after we did."""


class WebSocket(asyncio.Protocol):
    """One end of a WebSocket. Used on the event loop only.

    Attributes:
        on_message: Called with every message.
        on_close: Called once when it is over, whoever ended it, with the code that the peer gave;
            1006 if it gave none.
        on_writable: Called when the peer has caught up after ``send`` returned ``False``.
    """

    def __init__(self, server: HttpServer, max_message_bytes: int) -> None:
        self._server = server
        self._clock = server.clock
        self._codec = WebSocketCodec(is_client=False, max_message_bytes=max_message_bytes)
        self._transport: asyncio.Transport | None = None
        self._is_full = False
        self._is_closing = False
        self._is_paused = False
        self._events: Iterator[Event] = iter(())
        self._peer_code = 1006  # RFC 6455 §7.1.5: gone without a word
        self._heard_ns = self._clock.now_ns()
        self._pinged_ns = self._heard_ns
        self._closed_ns = 0
        self.on_message: Callable[[str | bytes], object] | None = None
        self.on_close: Callable[[int], None] | None = None
        self.on_writable: Callable[[], None] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._is_closing

    def send(self, message: str | bytes) -> bool:
        """Send a message; nothing after the end.

        Returns:
            Whether the peer keeps up; after ``False`` wait for ``on_writable``.
        """
        if self._transport is None or self._is_closing:
            return False
        self._transport.write(self._codec.encode_message(message))
        return not self._is_full

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, and end when the peer has said it too."""
        if self._transport is None or self._is_closing:
            return
        self._is_closing = True
        self._closed_ns = self._clock.now_ns()
        self._transport.write(self._codec.encode_close(code, reason))

    def pause(self) -> None:
        """Neither read nor give messages until ``resume``."""
        self._is_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Give what has been read, and read on."""
        self._is_paused = False
        self._heard_ns = self._clock.now_ns()
        self._take_events()
        if self._transport is not None and not self._is_paused:
            self._transport.resume_reading()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The listener has stepped aside."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._transport = None
        self._is_closing = True
        self._server.connections.discard(self)
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close(self._peer_code)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._heard_ns = self._clock.now_ns()
        self._events = itertools.chain(self._events, self._codec.feed(data))
        self._take_events()

    def _take_events(self) -> None:
        # A piece of 256 KB may hold forty thousand messages: those that nobody is ready for stay
        # bytes.
        try:
            while not self._is_paused:
                event = next(self._events, None)
                if event is None:
                    self._events = iter(())
                    return
                self._take(event)
        except WebSocketBroken as exc:
            self.close(exc.code, str(exc))
            self._end()

    def pause_writing(self) -> None:
        """The peer does not read as fast as we write."""
        self._is_full = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._is_full = False
        if self.on_writable is not None:
            self.on_writable()

    def _take(self, event: Event) -> None:
        match event:
            case Message():
                if self.on_message is not None and not self._is_closing:
                    self.on_message(event.data)
            case Ping():
                # Not while the peer reads nothing: pongs would pile up for as long as it pings.
                if self._transport is not None and not self._is_closing and not self._is_full:
                    self._transport.write(self._codec.encode_pong(event.payload))
            case Close():
                self._peer_code = event.code
                self.close(event.code)
                self._end()

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # Called by the server, as for every connection.

    def check_time(self, now_ns: int) -> None:
        """Ask a silent peer whether it lives, and end what is dead."""
        if self._transport is None:
            return
        if self._is_closing:
            if now_ns - self._closed_ns > CLOSE_GRACE_S * 1e9:
                self.abort()
        elif now_ns - self._heard_ns > QUIET_BEFORE_END_S * 1e9 and not self._is_paused:
            self.abort()
        elif now_ns - max(self._heard_ns, self._pinged_ns) > QUIET_BEFORE_PING_S * 1e9:
            self._pinged_ns = now_ns
            self._transport.write(self._codec.encode_ping())

    def close_if_idle(self) -> None:
        """The server goes away; a WebSocket is never known to be idle."""
        self.close(1001, "the server is going away")

    def abort(self) -> None:
        """End without a goodbye."""
        if self._transport is not None:
            self._transport.abort()


def accept_websocket(
    exchange: HttpExchange,
    *,
    protocols: Sequence[str] = (),
    headers: Headers = (),
    max_message_bytes: int,
) -> WebSocket | None:
    """Turn a GET with a WebSocket handshake into a WebSocket, open from the next turn of the loop.

    Set ``on_message`` and ``on_close`` before returning to the loop.

    Args:
        exchange: Is over with this call.
        protocols: Subprotocols that are spoken, best first.
        headers: To be sent with the answer to the handshake.
        max_message_bytes: Of one message that comes.

    Returns:
        ``None`` if the version is wrong: then the exchange has been answered with what is right.

    Raises:
        BadMessage: If the request is no handshake; the exchange is not answered.
    """
    try:
        answer = answer_upgrade(exchange.head, protocols)
    except BadMessage as exc:
        if exc.status != 426:
            raise
        # RFC 6455 §4.2.2 and RFC 9110 §15.5.22: say what would be understood.
        understood = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)]
        exchange.respond(426, understood, [str(exc).encode()])
        return None
    socket = WebSocket(exchange.server, max_message_bytes)
    exchange.upgrade([*answer, *headers], socket)
    return socket
