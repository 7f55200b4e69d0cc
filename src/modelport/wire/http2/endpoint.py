"""One end of a connection: bytes in, calls of streams and bytes out."""

import struct

from modelport.wire.http2.control import Controlling
from modelport.wire.http2.frames import (
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADER_BYTES,
    HEADERS,
    NO_DATA,
    PADDED,
    PREFACE,
    SMALL_DATA,
    STREAMS_AT_ONCE,
    ErrorCode,
    Frame,
    Http2Broken,
    Http2Limits,
    Setting,
)
from modelport.wire.http2.stream import Owner, Stream

__all__ = ["Endpoint"]


class Endpoint(Controlling):
    """One end of a connection.

    Args:
        owner: Hears of what concerns the connection, and makes the streams that come.
        limits: What the other side may send.
        is_client: Which end.

    Attributes:
        out: To be sent; whoever sends it empties it.
        streams: Those that are not over, by number.
        out_bytes: Data in it; whoever empties it sets this to 0.
        queued_bytes: Data of all streams that waits for windows.
        last_stream_id: The highest that the other side opened.
        peer_max_streams: How many streams of ours the other side takes at once.
        data_frames_sent: Since the connection began; what a ping may be about.
    """

    def __init__(self, owner: Owner, limits: Http2Limits, *, is_client: bool = False) -> None:
        super().__init__(owner, limits, is_client=is_client)
        self._known = self._reader.known
        # Of what has come and is not yet taken.
        self._data = b""
        self._at = 0
        self._is_begun = is_client
        self._is_broken = False
        self._begin()

    def __repr__(self) -> str:
        role = "client" if self._is_client else "server"
        return (
            f"<Endpoint {role} streams={len(self.streams)} queued={self.queued_bytes} "
            f"window={self.send_window}>"
        )

    def _begin(self) -> None:
        limits = self._limits
        rows = [
            (Setting.MAX_CONCURRENT_STREAMS, limits.streams),
            (Setting.INITIAL_WINDOW_SIZE, limits.stream_window),
            (Setting.MAX_FRAME_SIZE, limits.frame_bytes),
            (Setting.MAX_HEADER_LIST_SIZE, limits.list_bytes),
        ]
        if self._is_client:
            rows[0] = (Setting.ENABLE_PUSH, 0)
            self.out.append(PREFACE)
        payload = b"".join(struct.pack(">HI", *row) for row in rows)
        self._frame(Frame.SETTINGS, 0, 0, payload)
        more = limits.connection_window - DEFAULT_WINDOW
        if more > 0:
            self._frame(Frame.WINDOW_UPDATE, 0, 0, more.to_bytes(4, "big"))

    def feed(self, data: bytes) -> None:
        """Take bytes that have come; ``proceed`` acts on them."""
        if self._at >= len(self._data):
            self._data = data
        else:
            self._data = self._data[self._at :] + data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are missing of a data frame that has begun."""
        return self._left

    def place(self) -> memoryview | None:
        """Where bytes that come next may be put, instead of being fed; ``None`` if nowhere.

        It spares a copy of what is large. :meth:`feed_placed` says how many were put there.
        """
        stream = self._stream
        if stream is None or stream.is_over or not self._left or self.waiting_bytes:
            return None
        place = stream.place()
        return None if place is None else place[: self._left]

    def feed_placed(self, count: int) -> None:
        """Take bytes that were put where ``place`` said; ``proceed`` acts on them."""
        self._placed = count

    def abandon(self) -> list[Stream]:
        """Forget everything: the connection is lost. The streams that were open are over."""
        self._is_broken = True
        self._data, self._at = NO_DATA, 0
        self.out = []
        self.out_bytes = self.queued_bytes = 0
        self._stream = self._block = None
        self._blocked.clear()
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.is_over = True
            stream.queue = None
        return streams

    @property
    def waiting_bytes(self) -> int:
        """What was fed and not acted on."""
        return len(self._data) - self._at

    @property
    def is_between_frames(self) -> bool:
        """Whether nothing that has begun is unfinished."""
        return self._is_begun and not self._left and self._block is None and not self.waiting_bytes

    def proceed(self) -> bool:
        """Act on what has come.

        Returns:
            Whether there is more to act on; in between is the time to look at other connections.

        Raises:
            Http2Broken: The connection is over; what is in ``out`` tells the other side.
        """
        if self._is_broken:
            self._data, self._at = NO_DATA, 0
            return False
        try:
            return self._proceed()
        except Http2Broken as exc:
            self._is_broken = True
            self._data, self._at = NO_DATA, 0
            self.go_away(exc.code, str(exc))
            raise

    def _proceed(self) -> bool:
        data = self._data
        at = self._at
        end = len(data)
        if not self._is_begun:
            at = self._take_preface(data)
            if not self._is_begun:
                return False
        streams = self.streams
        budget = STREAMS_AT_ONCE
        while True:
            if self._left or self._padding:
                at = self._take_rest(data, at, end)
                if self._left or self._padding:
                    break
            if end - at < HEADER_BYTES:
                break
            word, flags, stream_id = HEADER.unpack_from(data, at)
            length = word >> 8
            kind = word & 0xFF
            stream_id &= 0x7FFFFFFF
            if kind == DATA and self._block is None:
                at += HEADER_BYTES
                stream = streams.get(stream_id)
                if (
                    stream is not None
                    and length <= end - at
                    and length <= stream.receive_window
                    and length <= self._receive_window
                    and not flags & PADDED
                    and not stream.is_remote_done
                ):
                    stop = at + length
                    # The whole frame at once: nearly all of them.
                    self._receive_window -= length
                    if flags & END_STREAM:
                        stream.is_remote_done = True
                    elif length < SMALL_DATA:
                        self._spend(1)
                    stream.receive_window -= length
                    self._account(stream, length)
                    stream.receive_data(data, at, stop, flags & END_STREAM != 0)
                    if stream.is_remote_done and not stream.is_over:
                        self._finish_if_done(stream)
                    at = stop
                else:
                    at = self._begin_data(stream, stream_id, flags, length, data, at)
                    if at < 0:
                        at = -at - 1
                        break
                continue
            if length > end - at - HEADER_BYTES:
                self._check_size(kind, length)
                break
            start = at + HEADER_BYTES
            at = start + length
            if kind == HEADERS and flags & 0x2C == END_HEADERS and self._block is None:
                raw = data[start:at]
                if not self._has_settings:
                    self._need_settings(kind)
                block = self._known(raw)
                if block is None:
                    self._check_size(kind, length)
                    budget -= 4 + (length >> 8)
                    block = self._read_block(raw)
                self._take_block(stream_id, block, flags & END_STREAM != 0)
                budget -= 1
            else:
                self._check_size(kind, length)
                self._take_frame(kind, flags, stream_id, data[start:at])
                budget -= 1
            if budget <= 0 and at < end:
                self._at = at
                return True
        if at >= end:
            self._data, self._at = NO_DATA, 0
        else:
            self._at = at
        return False

    def _take_preface(self, data: bytes) -> int:
        if len(data) >= len(PREFACE):
            if data.startswith(PREFACE):
                self._is_begun = True
                return len(PREFACE)
        elif PREFACE.startswith(data):
            return 0
        raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "the connection does not begin as HTTP/2 does")

    def _check_size(self, kind: int, length: int) -> None:
        most = max(DEFAULT_FRAME_BYTES, self._limits.block_bytes)
        if length > most:
            what = "the header block" if kind == HEADERS else f"a frame of type {kind}"
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, f"{what} is larger than {most} bytes")
