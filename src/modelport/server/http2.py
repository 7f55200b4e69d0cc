"""A connection that speaks HTTP/2: many requests at once, each to its route or its gRPC method.

The listener hands a connection over when it begins as HTTP/2 does. Answers of one turn of the loop
go out in one write.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from modelport.errors import Overloaded
from modelport.protocols.base import Buffer
from modelport.server.bulk import receive_in_place
from modelport.server.http import (
    BURST_GAP_NS,
    JOIN_BELOW_BYTES,
    LEAST_PROGRESS_BYTES,
    HttpServer,
)
from modelport.server.http2_exchange import Answering
from modelport.server.http2_lifetime import End, Lifetime
from modelport.server.http2_options import Http2Options
from modelport.server.pressure import LARGE_ANSWER_BYTES
from modelport.server.turns import SLICE_NS
from modelport.wire.header_blocks import Block
from modelport.wire.http2 import Endpoint, ErrorCode, Http2Broken, Stream

__all__ = ["Http2Connection", "Opener"]

log = logging.getLogger("modelport.http2")

HIGH_WATER_BYTES = 65_536
"""Unread bytes in the socket above which nothing more is read from a client."""
MOST_QUEUED_BYTES = 131_072
"""Bytes of answers that a client has not taken above which none of its requests is begun."""
MOST_WAITING = 64
"""Requests that are not begun, above which a client is refused more while it reads nothing."""
MOST_PRESSED = 4
"""Requests of one client that may wait for memory ahead of those of others."""
WAITING_BYTES = 2048
"""What a request costs that is not begun because its client takes no answers, about."""
HEAVY_BYTES = 65_536
"""Bytes of answers whose writing takes so long that it has to wait for its share of a turn."""
LITTLE_BYTES = 512
"""Bytes that are acted on at once, as a request on HTTP/1 is: nothing is piled up in them."""
PILED_BYTES = 65_536
"""Bytes not acted on above which a client is not read from until they are."""
STREAM_FULL_BYTES = 65_536
"""Bytes of one stream that wait above which its producer is told to wait."""
TOO_MANY_UNREAD = "too many answers wait to be read by their clients; try again later"


class Opener(Protocol):
    """What was made of the fields that open a stream; makes the stream."""

    def open(self, connection: "Http2Connection") -> Stream:
        """Begin one."""
        ...


class Http2Connection(asyncio.Protocol):
    """One connection; see :class:`modelport.server.http.Guest`.

    Args:
        http: The listener that the connection came to.
        options: Limits and patience.
        understand: Finds out what a block of fields asks for; raises ``MalformedHead``.
    """

    def __init__(
        self,
        http: HttpServer,
        options: Http2Options,
        understand: Callable[[Block], Opener],
    ) -> None:
        self.server = http
        self._options = options
        self._understand = understand
        self.endpoint = Endpoint(self, options.limits)
        self.peer = ""
        self.is_full = False
        self.reads_on = False
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._is_feeding = False
        self._is_held = False
        self._is_behind = False
        self._is_bulky = False
        self._is_closing = False
        self._is_lost = False
        self._is_noted = False
        self._is_going_on = False
        self._pressed = 0
        self._reserved_bytes = 0
        self._waiting: deque[Answering] = deque()
        self._full_since_ns = 0
        self._unread_bytes = 0
        now_ns = http.clock.now_ns()
        self._heard_ns = self._closed_ns = now_ns
        self._lifetime = Lifetime(self.endpoint, options, http.options, now_ns)

    def __repr__(self) -> str:
        return f"<Http2Connection {self.peer} {self.endpoint!r} waiting={len(self._waiting)}>"

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The listener has stepped aside."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or we have closed."""
        server = self.server
        self._is_lost = self._is_closing = True
        server.connections.discard(self)
        server.pressure.emptied(self)
        if server.last_sender is self:
            server.last_sender = None
        self._waiting.clear()
        for stream in self.endpoint.abandon():
            stream.receive_reset(ErrorCode.CANCEL)
        self._release_reserved()

    def eof_received(self) -> bool:
        """The client closes; nobody closes half of an HTTP/2 connection."""
        return False

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self.is_full = True
        self._full_since_ns = self.server.clock.now_ns()
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._transport.pause_reading()
        self._note_unread()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.is_full = False
        if self._is_lost:
            return
        if not self._is_behind:
            self._transport.resume_reading()
        for stream in list(self.endpoint.streams.values()):
            if stream.queue is None:
                stream.flushed()
        self._go_on_soon()
        self.wake()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        endpoint = self.endpoint
        endpoint.feed(data)
        if self._is_behind:
            self._transport.pause_reading()
            return
        self._advance()
        if endpoint.left >= self._options.in_place_from and not self._is_bulky:
            self._receive_in_place()

    def _receive_in_place(self) -> None:
        """Have large frames received without a copy from now on."""
        if self._transport.is_closing():
            return
        self._is_bulky = True
        is_reading = not self._is_behind and not self.is_full
        receive_in_place(self._transport, self, self.server.bulk_buffer, is_reading=is_reading)

    def place(self) -> memoryview | None:
        """Where what comes next is wanted, if it is much."""
        endpoint = self.endpoint
        if self._is_behind or endpoint.left < self._options.in_place_from:
            return None
        return endpoint.place()

    def received_in_place(self, count: int) -> None:
        """So many bytes lie where ``place`` said."""
        self.endpoint.feed_placed(count)
        self._advance()

    def _advance(self) -> None:
        """Act on what has come, for a while; then the other connections have their turn."""
        turns = self.server.turns
        now_ns = self.server.clock.now_ns
        self._heard_ns = started_ns = now_ns()
        until_ns = turns.until_ns(started_ns)
        if until_ns <= started_ns and self.endpoint.waiting_bytes <= LITTLE_BYTES:
            until_ns = started_ns + SLICE_NS
        if until_ns > started_ns:
            self._act(started_ns, until_ns)
            turns.spend(now_ns() - started_ns)
        else:
            self._fall_behind()

    def _act(self, started_ns: int, until_ns: int) -> None:
        endpoint = self.endpoint
        server = self.server
        self._is_feeding = True
        try:
            while endpoint.proceed():
                if self.is_full or server.clock.now_ns() > until_ns:
                    self._fall_behind()
                    break
        except Http2Broken as exc:
            log.info("the connection of %s is over: %s", self.peer, exc)
            self._is_closing = True
        finally:
            self._is_feeding = False
        if self._waiting:
            self.flush()
        if endpoint.out:
            if server.last_sender is not self and started_ns - server.last_sent_ns < BURST_GAP_NS:
                self.wake()
            else:
                server.last_sent_ns = started_ns
                server.last_sender = self
                self.flush()
        if self._is_closing and not self._is_lost:
            self._close()

    def _fall_behind(self) -> None:
        self._is_behind = True
        if self.endpoint.waiting_bytes > PILED_BYTES:
            self._transport.pause_reading()
        self.server.turns.later(self._catch_up)

    def _catch_up(self) -> None:
        if self._is_lost:
            return
        self._is_behind = False
        self._advance()
        if not self._is_behind and not self.is_full and not self._is_closing:
            self._transport.resume_reading()

    # Answers.

    def wake(self) -> None:
        """Have what the endpoint wants to send written at the end of this turn of the loop."""
        if not self._is_feeding and not self._is_held and not self._is_lost:
            self._is_held = True
            self.server.flush_soon(self)

    @property
    def is_heavy(self) -> bool:
        """Whether writing what is held takes a while."""
        return self.endpoint.out_bytes > HEAVY_BYTES

    def flush(self) -> None:
        """Write what the endpoint wants to send."""
        self._is_held = False
        endpoint = self.endpoint
        out = endpoint.out
        if not out or self._is_lost:
            self._release_reserved()
            if self._waiting:
                self._go_on_soon()
            return
        endpoint.out = []
        endpoint.out_bytes = 0
        if len(out) == 1:
            self._transport.write(out[0])
        elif sum(map(len, out)) < JOIN_BELOW_BYTES:
            self._transport.write(b"".join(out))
        else:
            self._transport.writelines(_join_small(out))
        if endpoint.queued_bytes or self._is_noted:
            self._note_unread()
        if self._reserved_bytes:
            self._release_reserved()
        if self._waiting:
            self._go_on_soon()

    def keep_reserved(self, reserved_bytes: int) -> None:
        """Release room for an answer when the answer is written; then it counts as unread."""
        self._reserved_bytes += reserved_bytes

    def _release_reserved(self) -> None:
        reserved_bytes, self._reserved_bytes = self._reserved_bytes, 0
        if reserved_bytes:
            self.server.pressure.release(reserved_bytes)

    def _note_unread(self) -> None:
        """Tell the bound over all connections whether this one's client keeps up."""
        is_slow = self.is_full or self.endpoint.queued_bytes > STREAM_FULL_BYTES
        if is_slow and self._is_noted:
            self.server.pressure.grew(self)
        elif is_slow is not self._is_noted:
            self._is_noted = is_slow
            if is_slow:
                self.server.pressure.filled(self)
            else:
                self.server.pressure.emptied(self)

    def unread_bytes(self) -> int:
        """Bytes that are in memory because the client has not read its answers."""
        endpoint = self.endpoint
        unread_bytes = self._transport.get_write_buffer_size() + endpoint.queued_bytes
        return unread_bytes + endpoint.waiting_bytes + WAITING_BYTES * len(self._waiting)

    def has_room(self, stream: Stream) -> bool:
        """Whether the client keeps up with a stream."""
        return not self.is_full and stream.queued_bytes < STREAM_FULL_BYTES

    @property
    def is_clogged(self) -> bool:
        """Whether the client has so much to take that no request of it is begun."""
        endpoint = self.endpoint
        return (
            self.is_full
            or self._pressed >= MOST_PRESSED
            or endpoint.queued_bytes + endpoint.out_bytes > MOST_QUEUED_BYTES
        )

    def begin(self, stream: Answering) -> None:
        """Run a request, now or when its client and all clients together leave room for it.

        Args:
            stream: Is not run any more once it is over.
        """
        if self.is_clogged or self._waiting:
            if len(self._waiting) >= MOST_WAITING and self.server.pressure.is_stuck(self):
                stream.refuse(Overloaded(TOO_MANY_UNREAD))
                return
            stream.is_holding = True
            self._waiting.append(stream)
        else:
            self._begin(stream)

    def _begin(self, stream: Answering) -> None:
        expected_bytes = stream.answers.bytes
        if expected_bytes < LARGE_ANSWER_BYTES:
            stream.run()
            return
        pressure = self.server.pressure

        def go_on() -> None:
            if stream.is_over:
                pressure.release(expected_bytes)
            else:
                stream.reserved_bytes = expected_bytes
                stream.run()
                self.wake()

        def go_on_late() -> None:
            self._pressed -= 1
            go_on()
            self._go_on_soon()

        def refuse() -> None:
            self._pressed -= 1
            if not stream.is_over:
                stream.refuse(Overloaded(TOO_MANY_UNREAD))
                self.wake()
            self._go_on_soon()

        if pressure.reserve(expected_bytes):
            go_on()
        else:
            self._pressed += 1
            pressure.wait(expected_bytes, go_on_late, refuse)

    def _go_on_soon(self) -> None:
        if self._waiting and not self._is_going_on and not self.is_clogged:
            self._is_going_on = True
            self.server.turns.later(self._go_on)

    def _go_on(self) -> None:
        """Begin what had to wait, for a while and as far as the client takes the answers."""
        waiting = self._waiting
        endpoint = self.endpoint
        now_ns = self.server.clock.now_ns
        until_ns = self.server.turns.until_ns(now_ns())
        while waiting and now_ns() <= until_ns:
            if endpoint.out_bytes > HIGH_WATER_BYTES:
                self.flush()
            if self.is_clogged:
                break
            stream = waiting.popleft()
            if not stream.is_over:
                endpoint.grant(stream)
                self._begin(stream)
        self._is_going_on = False
        self._go_on_soon()
        self.wake()

    # Called by the endpoint.

    def open_stream(self, block: Block) -> Stream:
        """Make the stream for a request.

        Raises:
            MalformedHead: The fields are no request.
        """
        opener = block.meaning
        if opener is None:
            opener = block.meaning = self._understand(block)
        return cast(Opener, opener).open(self)

    def pinged(self) -> None:
        """The client asks whether we live: not more often than it may."""
        self._lifetime.pinged(self.server.clock.now_ns())

    def ponged(self, payload: bytes) -> None:
        """The client lives."""
        self._end(self._lifetime.ponged())

    def went_away(self, last_stream_id: int, code: int, text: bytes) -> None:
        """The client opens no more streams; what it has asked is answered."""
        if not self.endpoint.streams:
            self._is_closing = True

    # Time and ends.

    def check_time(self, now_ns: int) -> None:
        """Ask a silent client whether it lives, and end what takes too long."""
        self.endpoint.forgive()
        if self._is_lost:
            return
        write_timeout_s = self.server.options.write_timeout_s
        if self.is_full:
            self._check_reading(now_ns, write_timeout_s)
        elif self._is_closing:
            if (now_ns - self._closed_ns) / 1e9 > write_timeout_s:
                self.abort()
        else:
            for stream in list(self.endpoint.streams.values()):
                cast(Answering, stream).check_time(now_ns)
            self._end(self._lifetime.check(now_ns, self._heard_ns))
            self.wake()

    def _check_reading(self, now_ns: int, timeout_s: float) -> None:
        unread_bytes = self._transport.get_write_buffer_size()
        if self._unread_bytes - unread_bytes >= LEAST_PROGRESS_BYTES:
            self._unread_bytes = unread_bytes
            self._full_since_ns = now_ns
        elif now_ns - self._full_since_ns > timeout_s * 1e9:
            self.abort()

    def close_if_idle(self) -> None:
        """The server is draining: go when everything is answered."""
        if not self._is_lost and not self._is_closing:
            for stream in list(self.endpoint.streams.values()):
                cast(Answering, stream).drain()
            self._end(self._lifetime.leave(self.server.clock.now_ns()))
            self.wake()

    def _end(self, end: End | None) -> None:
        if end is End.ABORT:
            self.abort()
        elif end is End.CLOSE:
            self._is_closing = True
            if not self._is_feeding:
                self._close()

    def _close(self) -> None:
        self._is_closing = True
        self._closed_ns = self.server.clock.now_ns()
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection and what was not sent yet."""
        self._is_closing = True
        self._transport.abort()


def _join_small(pieces: list[Buffer]) -> list[Buffer]:
    """Join runs of small pieces, and leave the large ones as they are."""
    joined: list[Buffer] = []
    small: list[Buffer] = []
    for piece in pieces:
        if len(piece) < 4096:
            small.append(piece)
            continue
        if small:
            joined.append(b"".join(small))
            small.clear()
        joined.append(piece)
    if small:
        joined.append(b"".join(small))
    return joined
