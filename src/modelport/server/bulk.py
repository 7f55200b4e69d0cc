"""Receiving large bodies where they are wanted, instead of in pieces that are copied there.

A connection begins as an ``asyncio.Protocol``: what most clients send is small, and a piece of
bytes is what the parsers want. One whose client sends much is received for by a
:class:`BulkReader` from then on.
"""

import asyncio
from typing import Protocol

__all__ = [
    "IN_PLACE_FROM_BYTES",
    "RECEIVE_BYTES",
    "BulkReader",
    "BulkReceiver",
    "change_protocol",
    "receive_in_place",
]

IN_PLACE_FROM_BYTES = 65_536
"""Bytes missing of a body or a frame from which they are received where they are wanted."""
RECEIVE_BYTES = 32_768
"""What is received at once where it is not known yet what comes. Of a large body, what is behind
the head in it has to be copied."""


class BulkReceiver(Protocol):
    """A connection that has a place for what comes next."""

    def place(self) -> memoryview | None:
        """Where it is wanted, if it is much."""
        ...

    def received_in_place(self, count: int) -> None:
        """So many bytes lie where ``place`` said."""
        ...

    def data_received(self, data: bytes) -> None:
        """Bytes have come that had no place."""
        ...

    def eof_received(self) -> bool:
        """The client will send no more."""
        ...

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        ...

    def resume_writing(self) -> None:
        """The client has caught up."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        ...


def receive_in_place(
    transport: asyncio.Transport, receiver: BulkReceiver, buffer: bytearray, *, is_reading: bool
) -> None:
    """Have a transport's bytes received by a :class:`BulkReader` from now on.

    Args:
        transport: Of the connection.
        receiver: The connection.
        buffer: For what has no place. May be lent to all connections of a loop: between the two
            calls that receive nothing else is received.
        is_reading: Whether the transport reads at the moment.
    """
    change_protocol(transport, BulkReader(receiver, buffer), is_reading=is_reading)


def change_protocol(
    transport: asyncio.Transport, protocol: asyncio.BaseProtocol, *, is_reading: bool
) -> None:
    """Have another kind of protocol receive."""
    transport.set_protocol(protocol)
    if is_reading:
        # uvloop 0.23 looks at the kind of protocol when it begins to read.
        transport.pause_reading()
        transport.resume_reading()


class BulkReader(asyncio.BufferedProtocol):
    """Receives for a connection whose client sends much."""

    def __init__(self, receiver: BulkReceiver, buffer: bytearray) -> None:
        self._receiver = receiver
        # A view: asyncio's TLS fills slices of what it is given, and those of an array are copies.
        self._buffer = memoryview(buffer)
        self._is_in_place = False

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to receive to."""
        place = self._receiver.place()
        self._is_in_place = place is not None
        return self._buffer if place is None else place

    def buffer_updated(self, nbytes: int) -> None:
        """So much has been received there."""
        if self._is_in_place:
            self._receiver.received_in_place(nbytes)
        else:
            self._receiver.data_received(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        """The client will send no more."""
        return self._receiver.eof_received()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._receiver.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._receiver.connection_lost(exc)
