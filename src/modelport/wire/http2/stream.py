"""What an endpoint calls: its streams, and whoever holds it."""

from collections import deque
from typing import Protocol

from modelport.wire.header_blocks import Block
from modelport.wire.http2.frames import Buffer

__all__ = ["Owner", "Stream"]


class Stream:
    """One stream; subclass it to hear of what comes.

    Defaults are of the class, not slots: a stream that is answered at once sets few of these.

    Attributes:
        id: Odd for those that the client opened.
        send_window: Bytes that the other side still takes.
        queued_bytes: Data that waits for a window.
        is_holding: Set it to have the other side wait: what comes is passed on, and no more of it
            is asked for until ``Endpoint.grant``.
        held_bytes: What came meanwhile.
        is_remote_done: Whether the other side has sent everything.
        is_local_done: Whether we have, or it waits for a window.
        is_over: Whether nothing more will come or go.
    """

    id: int = 0
    send_window: int = 0
    receive_window: int = 0
    is_remote_done: bool = False
    is_local_done: bool = False
    is_over: bool = False
    is_holding: bool = False
    held_bytes: int = 0
    ungranted_bytes: int = 0
    queued_bytes: int = 0
    queue: deque[Buffer] | None = None
    end_block: bytes | None = None

    def receive_head(self, block: Block, is_end: bool) -> None:
        """Take the fields that open the stream, or a response's, or trailers.

        Raises:
            MalformedHead: They make no sense; the stream is then reset.
        """

    def receive_data(self, data: bytes, start: int, stop: int, is_end: bool) -> None:
        """Take ``data[start:stop]``; given so that whoever wants no slice makes none."""

    def place(self) -> memoryview | None:
        """Where the data that comes next is wanted; ``None`` if it is to be given."""
        return None

    def receive_placed(self, count: int, is_end: bool) -> None:
        """Take so many bytes that were put where ``place`` said."""

    def receive_reset(self, code: int) -> None:
        """The stream is over before its end, by the other side or by its fault."""

    def flushed(self) -> None:
        """Nothing waits for a window any more."""


class Owner(Protocol):
    """Who holds an endpoint."""

    def open_stream(self, block: Block) -> Stream:
        """Make the stream that the other side opens; ``receive_head`` follows.

        Raises:
            MalformedHead: The fields are no request.
        """
        ...

    def pinged(self) -> None:
        """The other side asked whether we live; it has been answered."""
        ...

    def ponged(self, payload: bytes) -> None:
        """A ping of ours was answered."""
        ...

    def went_away(self, last_stream_id: int, code: int, text: bytes) -> None:
        """The other side opens no more streams, and answers none above ``last_stream_id``."""
        ...
