"""HTTP/2 as bytes, for either end of a connection: frames, streams, flow control. No socket.

An :class:`Endpoint` takes what has come from the other side and calls the :class:`Stream` that
each frame is for; what is to be sent gathers in ``Endpoint.out``. There are no objects for
frames: a small call is two frames in and three out, and must not cost more than the model.

The other side is not trusted. What it can make us keep is bounded by the windows we grant and by
``Http2Limits``. What it can make us do without sending or reading anything of worth is bounded by
an allowance, which every stream and all data that it really takes make larger, and which
:meth:`Endpoint.forgive` fills again: pings, settings, resets, empty frames, windows of a byte.

Source: RFC 9113; CVE-2023-44487 (rapid reset), CVE-2024-24549 and others (CONTINUATION floods),
CVE-2019-9511 to 9518 (the floods of 2019), CVE-2025-8671 (resets that we are made to send).
"""

import enum
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from modelport.wire.header_blocks import Block, BlockReader, BlockTooLarge, BlockUnreadable

__all__ = [
    "PREFACE",
    "Buffer",
    "Endpoint",
    "ErrorCode",
    "Frame",
    "Http2Broken",
    "Http2Limits",
    "MalformedHead",
    "Owner",
    "Setting",
    "Stream",
]

Buffer = bytes | bytearray | memoryview

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with; to HTTP/1.1 it looks like a request with an unknown method."""

HEADER: Final = struct.Struct(">IBI")
"""Length and type in four bytes, flags, stream."""
HEADER_BYTES: Final = 9
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_STREAM_ID: Final = 2**31 - 1
LARGEST_SENT_FRAME: Final = 262_144
"""Larger frames than this would only keep the other streams waiting."""
STREAMS_AT_ONCE: Final = 16
"""Streams that are opened before ``Endpoint.proceed`` asks to be called again."""
SMALL_DATA: Final = 64
"""Data frames below this are hardly worth their own nine bytes."""
NO_DATA: Final = b""


class Frame(enum.IntEnum):
    """Types of frames. Source: RFC 9113 §6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

# As plain integers where every call passes.
_DATA: Final = 0
_HEADERS: Final = 1
_CONTINUATION: Final = 9


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ends. Source: RFC 9113 §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(enum.IntEnum):
    """Settings. Source: RFC 9113 §6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Http2Broken(Exception):
    """The other side broke the rules in a way that ends the connection; GOAWAY is in ``out``.

    Attributes:
        code: As it was told to the other side.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class MalformedHead(Exception):
    """The fields of a request or response cannot be one; its stream is reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """What the other side may send.

    Attributes:
        streams: At once; a client with more to ask waits, or is refused.
        stream_window: Bytes of one stream that may be on their way or wait to be taken. More is
            asked for when half is used, and each time wakes the client: an image of 224 × 224
            in FP32 should come without.
        connection_window: The same of all streams together.
        frame_bytes: Of one data frame; it is passed on as it comes, so this costs no memory.
        block_bytes: Of one header block, before it is unfolded.
        list_bytes: Of the fields in it, as RFC 9113 §6.5.2 counts them.
        allowance: Frames without worth within about a second.
        resets: Streams that are reset before their answer, beyond those that are not, within
            about a second.
    """

    streams: int = 1024
    stream_window: int = 2_097_152
    connection_window: int = 16_777_216
    frame_bytes: int = 1_048_576
    block_bytes: int = 65_536
    list_bytes: int = 65_536
    allowance: int = 2000
    resets: int = 1000


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


class Endpoint:
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
        self._owner = owner
        self._limits = limits
        self._is_client = is_client
        self.out: list[Buffer] = []
        self.streams: dict[int, Stream] = {}
        self.out_bytes = 0
        self.queued_bytes = 0
        self.last_stream_id = 0
        self.peer_max_streams = LARGEST_STREAM_ID
        self.data_frames_sent = 0
        self.send_window = DEFAULT_WINDOW
        self.peer_window = DEFAULT_WINDOW
        self.peer_frame_bytes = DEFAULT_FRAME_BYTES
        self._reader = BlockReader(2 * limits.list_bytes)
        self._known = self._reader.known
        self._next_id = 1
        self._highest_taken = LARGEST_STREAM_ID
        self._receive_window = limits.connection_window
        self._ungranted_bytes = 0
        self._blocked: dict[int, Stream] = {}
        self._allowance = limits.allowance
        self._resets_left = limits.resets
        # Of what has come and is not yet taken.
        self._data = b""
        self._at = 0
        self._is_begun = is_client
        self._is_broken = False
        self._has_settings = False
        # Of a data frame that has not come whole.
        self._left = 0
        self._placed = 0
        self._padding = 0
        self._ends = False
        self._stream: Stream | None = None
        # Of a header block that has not come whole.
        self._block: bytearray | None = None
        self._block_id = 0
        self._block_frames = 0
        self._block_ends = False
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

    # What comes.

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
            if kind == _DATA and self._block is None:
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
            if kind == _HEADERS and flags & 0x2C == END_HEADERS and self._block is None:
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
        if length > max(DEFAULT_FRAME_BYTES, self._limits.block_bytes):
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} is too large")

    def _need_settings(self, kind: int) -> None:
        if kind != Frame.SETTINGS:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")

    def _spend(self, count: int) -> None:
        self._allowance -= count
        if self._allowance < 0:
            raise Http2Broken(
                ErrorCode.ENHANCE_YOUR_CALM, "too many frames that neither ask nor bring anything"
            )

    def _spend_reset(self) -> None:
        self._resets_left -= 1
        if self._resets_left < 0:
            raise Http2Broken(
                ErrorCode.ENHANCE_YOUR_CALM, "too many streams are reset before their answer"
            )

    def forgive(self) -> None:
        """Fill the allowances again; to be called about once a second."""
        self._allowance = self._limits.allowance
        self._resets_left = self._limits.resets

    # Data frames.

    def _begin_data(
        self, stream: Stream | None, stream_id: int, flags: int, length: int, data: bytes, at: int
    ) -> int:
        """Begin a frame that is not whole, or not as usual.

        Returns:
            Where its data begins; if its first byte is missing, the place of the frame itself,
            inverted.
        """
        if not self._has_settings:
            self._need_settings(_DATA)
        if length > self._limits.frame_bytes:
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "a data frame is too large")
        if stream_id == 0 or self._is_idle(stream_id):
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "data came for no stream")
        padding = 0
        if flags & PADDED:
            if not length:
                raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "a padded frame has no padding")
            if at >= len(data):
                return -(at - HEADER_BYTES) - 1
            padding = data[at]
            if padding >= length:
                raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "the padding is larger than its frame")
        if length > self._receive_window:
            raise Http2Broken(ErrorCode.FLOW_CONTROL_ERROR, "more data came than was asked for")
        self._receive_window -= length
        if stream is not None and stream.is_remote_done:
            self._fault(stream, ErrorCode.STREAM_CLOSED)
            stream = None
        elif stream is not None and length > stream.receive_window:
            self._fault(stream, ErrorCode.FLOW_CONTROL_ERROR)
            stream = None
        is_end = flags & END_STREAM != 0
        self._left = length
        if flags & PADDED:
            self._left -= padding + 1
            self._padding = padding
            at += 1
        if stream is None or (self._left < SMALL_DATA and not is_end):
            self._spend(1)
        if stream is not None:
            stream.receive_window -= length
            self._account(stream, length - self._left)
        else:
            self._account(None, length - self._left)
        self._stream = stream
        self._ends = is_end
        if not self._left and stream is not None and (is_end or not length):
            self._pass_on(stream, NO_DATA, 0, 0)
        return at

    def _take_rest(self, data: bytes, at: int, end: int) -> int:
        """Take what has come of a data frame."""
        if self._placed:
            self._take_placed()
        if self._left and at < end:
            stop = min(at + self._left, end)
            self._left -= stop - at
            stream = self._stream
            if stream is not None and stream.is_over:
                self._stream = stream = None
            self._account(stream, stop - at)
            if stream is not None:
                self._pass_on(stream, data, at, stop)
            at = stop
        if not self._left:
            skipped = min(self._padding, end - at)
            self._padding -= skipped
            at += skipped
        return at

    def _take_placed(self) -> None:
        count, self._placed = self._placed, 0
        self._left -= count
        stream = self._stream
        assert stream is not None
        self._account(stream, count)
        is_end = self._ends and not self._left
        if is_end:
            stream.is_remote_done = True
        stream.receive_placed(count, is_end)
        if is_end and not stream.is_over:
            self._finish_if_done(stream)

    def _pass_on(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        is_end = self._ends and not self._left
        if is_end:
            stream.is_remote_done = True
        stream.receive_data(data, start, stop, is_end)
        if is_end and not stream.is_over:
            self._finish_if_done(stream)

    def _account(self, stream: Stream | None, count: int) -> None:
        """Note data that has come, and ask for as much again when half of a window is used."""
        if stream is not None and stream.is_holding:
            stream.held_bytes += count
            return
        self._ungranted_bytes += count
        if self._ungranted_bytes > self._limits.connection_window >> 1:
            self._grant_connection()
        if stream is not None and not stream.is_remote_done:
            stream.ungranted_bytes += count
            if stream.ungranted_bytes > self._limits.stream_window >> 1:
                self._update(stream.id, stream.ungranted_bytes)
                stream.receive_window += stream.ungranted_bytes
                stream.ungranted_bytes = 0

    def _grant_connection(self) -> None:
        self._update(0, self._ungranted_bytes)
        self._receive_window += self._ungranted_bytes
        self._ungranted_bytes = 0

    def grant(self, stream: Stream) -> None:
        """Have the other side go on after ``is_holding``."""
        stream.is_holding = False
        held_bytes, stream.held_bytes = stream.held_bytes, 0
        self._account(None if stream.is_over else stream, held_bytes)

    # Header blocks.

    def _read_block(self, raw: bytes) -> Block:
        try:
            return self._reader.read(raw)
        except BlockTooLarge as exc:
            raise Http2Broken(ErrorCode.ENHANCE_YOUR_CALM, str(exc)) from exc
        except BlockUnreadable as exc:
            raise Http2Broken(ErrorCode.COMPRESSION_ERROR, str(exc)) from exc

    def _take_block(self, stream_id: int, block: Block, is_end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._take_more_fields(stream, block, is_end)
            return
        if self._is_client or not stream_id & 1:
            if stream_id == 0 or self._is_idle(stream_id):
                raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "fields came for no stream")
            self._spend(1)
            return
        if stream_id <= self.last_stream_id:
            # Of a stream that is over: trailers that were on their way when we reset it.
            self._spend(1)
            return
        self.last_stream_id = stream_id
        if stream_id > self._highest_taken:
            self._spend(1)
            return  # RFC 9113 §6.8: after GOAWAY; the client knows that it is not answered
        if len(self.streams) >= self._limits.streams:
            self._spend_reset()
            self._frame(Frame.RST_STREAM, 0, stream_id, _code(ErrorCode.REFUSED_STREAM))
            return
        try:
            stream = self._owner.open_stream(block)
            stream.id = stream_id
            stream.send_window = self.peer_window
            stream.receive_window = self._limits.stream_window
            self.streams[stream_id] = stream
            if is_end:
                stream.is_remote_done = True
            self._allowance += 4
            stream.receive_head(block, is_end)
        except MalformedHead:
            self._spend_reset()
            if stream is not None:
                self._remove(stream)
                stream.receive_reset(ErrorCode.PROTOCOL_ERROR)
            self._frame(Frame.RST_STREAM, 0, stream_id, _code(ErrorCode.PROTOCOL_ERROR))

    def _take_more_fields(self, stream: Stream, block: Block, is_end: bool) -> None:
        if stream.is_remote_done:
            self._fault(stream, ErrorCode.STREAM_CLOSED)
            return
        if not self._is_client and not is_end:
            # RFC 9113 §8.1: after the first, a client may send fields only to end.
            self._fault(stream, ErrorCode.PROTOCOL_ERROR)
            return
        if is_end:
            stream.is_remote_done = True
        try:
            stream.receive_head(block, is_end)
        except MalformedHead:
            self._fault(stream, ErrorCode.PROTOCOL_ERROR)
            return
        self._finish_if_done(stream)

    def _fault(self, stream: Stream, code: ErrorCode) -> None:
        """Reset a stream of which the other side broke the rules."""
        self._frame(Frame.RST_STREAM, 0, stream.id, _code(code))
        self._remove(stream)
        stream.receive_reset(code)
        self._spend_reset()

    # The other frames.

    def _take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._has_settings:
            self._need_settings(kind)
        if self._block is not None and (kind != _CONTINUATION or stream_id != self._block_id):
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "a header block is torn by another frame")
        take = self._TAKERS.get(kind)
        if take is None:
            self._spend(1)  # RFC 9113 §5.5: what is not known is passed over
        else:
            take(self, flags, stream_id, payload)

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        start, stop = 0, len(payload)
        if flags & PADDED:
            if not payload:
                raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "a padded frame has no padding")
            start, stop = 1, stop - payload[0]
        if flags & HAS_PRIORITY:
            start += 5
        if start > stop:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "the padding is larger than its frame")
        if stream_id == 0:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "fields came for no stream")
        raw = payload[start:stop]
        is_end = flags & END_STREAM != 0
        if flags & END_HEADERS:
            self._take_block(stream_id, self._read_block(raw), is_end)
        else:
            self._block = bytearray(raw)
            self._block_id = stream_id
            self._block_ends = is_end
            self._block_frames = 0

    def _take_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "CONTINUATION continues nothing")
        self._block_frames += 1
        block += payload
        if len(block) > self._limits.block_bytes or self._block_frames > 16 + (len(block) >> 6):
            # Frames of less than 64 bytes on average are no way to send fields.
            raise Http2Broken(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too large")
        if flags & END_HEADERS:
            self._block = None
            self._take_block(stream_id, self._read_block(bytes(block)), self._block_ends)

    def _take_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        # RFC 9113 §5.3: priorities of this kind are given up; nobody acts on them.
        if stream_id == 0:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "PRIORITY came for no stream")
        if len(payload) != 5:
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not five bytes long")
        self._spend(1)

    def _take_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not four bytes long")
        if stream_id == 0 or self._is_idle(stream_id):
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "RST_STREAM came for no stream")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._spend(1)
            return
        self._remove(stream)
        stream.receive_reset(int.from_bytes(payload, "big"))
        if not self._is_client:
            self._spend_reset()

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "SETTINGS came for a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has no whole number of rows")
        if flags & ACK:
            if not self._has_settings:
                raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._spend(1)
            return
        if self._has_settings:
            self._spend(4 + len(payload) // 6)
        self._has_settings = True
        for name, value in struct.iter_unpack(">HI", payload):
            self._take_setting(name, value)
        self._frame(Frame.SETTINGS, ACK, 0, NO_DATA)
        self._pump_all()

    def _take_setting(self, name: int, value: int) -> None:
        match name:
            case Setting.ENABLE_PUSH if value > 1:
                raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
            case Setting.MAX_CONCURRENT_STREAMS:
                self.peer_max_streams = value
            case Setting.INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise Http2Broken(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
                more = value - self.peer_window
                self.peer_window = value
                for stream in self.streams.values():
                    stream.send_window += more
                    if stream.send_window > LARGEST_WINDOW:
                        raise Http2Broken(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
            case Setting.MAX_FRAME_SIZE:
                if not DEFAULT_FRAME_BYTES <= value < 2**24:
                    raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
                self.peer_frame_bytes = min(value, LARGEST_SENT_FRAME)

    def _take_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "nothing may be pushed here")

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "PING came for a stream")
        if len(payload) != 8:
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "PING is not eight bytes long")
        self._spend(1)
        if flags & ACK:
            self._owner.ponged(payload)
        else:
            self._frame(Frame.PING, ACK, 0, payload)
            self._owner.pinged()

    def _take_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "GOAWAY came for a stream")
        if len(payload) < 8:
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is shorter than eight bytes")
        self._spend(1)
        last_id, code = struct.unpack_from(">II", payload)
        self._owner.went_away(last_id & 0x7FFFFFFF, code, payload[8:])

    def _take_window(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Broken(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not four bytes long")
        more = int.from_bytes(payload, "big") & 0x7FFFFFFF
        self._spend(1)
        if stream_id == 0:
            self.send_window += more
            if not more:
                raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
            if self.send_window > LARGEST_WINDOW:
                raise Http2Broken(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
            self._pump_all()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE came for no stream")
            return
        stream.send_window += more
        if not more:
            self._fault(stream, ErrorCode.PROTOCOL_ERROR)
        elif stream.send_window > LARGEST_WINDOW:
            self._fault(stream, ErrorCode.FLOW_CONTROL_ERROR)
        elif stream.queue is not None:
            self._pump(stream)

    def _is_idle(self, stream_id: int) -> bool:
        """Whether a stream of this number has never been."""
        if bool(stream_id & 1) == self._is_client:
            return stream_id >= self._next_id
        return stream_id > self.last_stream_id

    # What goes.

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self.out.append(HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload)

    def _update(self, stream_id: int, more: int) -> None:
        self._frame(Frame.WINDOW_UPDATE, 0, stream_id, more.to_bytes(4, "big"))

    def open(self, stream: Stream, block: bytes, *, is_end: bool = False) -> None:
        """Open a stream, as a client. The caller looks at ``peer_max_streams``."""
        stream.id = self._next_id
        self._next_id += 2
        stream.send_window = self.peer_window
        stream.receive_window = self._limits.stream_window
        self.streams[stream.id] = stream
        self.send_block(stream, block, is_end=is_end)

    def send_block(self, stream: Stream, block: bytes, *, is_end: bool = False) -> None:
        """Send fields: a response's head, or trailers, which come after all data."""
        if stream.is_over or stream.is_local_done:
            return
        if is_end:
            stream.is_local_done = True
            if stream.queue is not None:
                stream.end_block = block
                return
        self._send_block(stream.id, block, END_STREAM if is_end else 0)
        if is_end:
            self._finish_if_done(stream)

    def _send_block(self, stream_id: int, block: bytes, flags: int) -> None:
        most = self.peer_frame_bytes
        if len(block) <= most:
            self.out.append(
                HEADER.pack(len(block) << 8 | _HEADERS, flags | END_HEADERS, stream_id) + block
            )
            return
        pieces = [block[at : at + most] for at in range(0, len(block), most)]
        self._frame(_HEADERS, flags, stream_id, pieces[0])
        for piece in pieces[1:-1]:
            self._frame(_CONTINUATION, 0, stream_id, piece)
        self._frame(_CONTINUATION, END_HEADERS, stream_id, pieces[-1])

    def send_data(
        self, stream: Stream, pieces: Sequence[Buffer], size: int, *, is_end: bool = False
    ) -> None:
        """Send data, at once as far as the windows let it, the rest when they do.

        Args:
            stream: Of this endpoint.
            pieces: Must not change afterwards; may be views.
            size: Bytes of them together.
            is_end: Whether it is the last.
        """
        if stream.is_over or stream.is_local_done:
            return
        if is_end:
            stream.is_local_done = True
        if (
            stream.queue is None
            and size <= stream.send_window
            and size <= self.send_window
            and size <= self.peer_frame_bytes
        ):
            stream.send_window -= size
            self.send_window -= size
            self.out_bytes += size
            self.data_frames_sent += 1
            self._allowance += 4
            self.out.append(HEADER.pack(size << 8, END_STREAM if is_end else 0, stream.id))
            self.out += pieces
            if is_end:
                self._finish_if_done(stream)
            return
        queue = stream.queue
        if queue is None:
            queue = stream.queue = deque()
            self._blocked[stream.id] = stream
        queue.extend(piece for piece in pieces if len(piece))
        stream.queued_bytes += size
        self.queued_bytes += size
        self._pump(stream)

    def _pump_all(self) -> None:
        """Send what the windows let through, a frame of each stream in turn."""
        while self._blocked and self.send_window > 0:
            before = self.send_window
            for stream in list(self._blocked.values()):
                self._pump(stream, frames=1)
            if self.send_window == before:
                break

    def _pump(self, stream: Stream, frames: int = LARGEST_STREAM_ID) -> None:
        queue = stream.queue
        while queue is not None and frames:
            room = min(stream.send_window, self.send_window, self.peer_frame_bytes)
            size = min(stream.queued_bytes, max(room, 0))
            if not size and stream.queued_bytes:
                return
            is_last = size == stream.queued_bytes
            is_end = is_last and stream.is_local_done and stream.end_block is None
            self.out.append(HEADER.pack(size << 8, END_STREAM if is_end else 0, stream.id))
            _move(queue, self.out, size)
            stream.queued_bytes -= size
            self.queued_bytes -= size
            self.out_bytes += size
            stream.send_window -= size
            self.send_window -= size
            self.data_frames_sent += 1
            frames -= 1
            if is_last:
                self._emptied(stream)
                return
            # The windows make frames small, not we: a byte at a time costs more than it brings.
            if size >= SMALL_DATA:
                self._allowance += 4

    def _emptied(self, stream: Stream) -> None:
        stream.queue = None
        del self._blocked[stream.id]
        self._allowance += 4
        if stream.is_local_done:
            if stream.end_block is not None:
                self._send_block(stream.id, stream.end_block, END_STREAM)
            self._finish_if_done(stream)
        stream.flushed()

    def _finish_if_done(self, stream: Stream) -> None:
        """Forget a stream whose two sides have ended."""
        if not stream.is_local_done or stream.queue is not None:
            return
        if stream.is_remote_done:
            self._resets_left += 1
            self._remove(stream)
        elif not self._is_client:
            # RFC 9113 §8.1: the answer is complete, and the rest of the request is of no use.
            self._frame(Frame.RST_STREAM, 0, stream.id, _code(ErrorCode.NO_ERROR))
            self._remove(stream)

    def _remove(self, stream: Stream) -> None:
        stream.is_over = True
        self.streams.pop(stream.id, None)
        if stream.queue is not None:
            self.queued_bytes -= stream.queued_bytes
            stream.queued_bytes = 0
            stream.queue = None
            self._blocked.pop(stream.id, None)
        if stream.held_bytes:
            held_bytes, stream.held_bytes = stream.held_bytes, 0
            self._account(None, held_bytes)

    def reset(self, stream: Stream, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Break a stream off; it does not hear of it."""
        if not stream.is_over:
            self._frame(Frame.RST_STREAM, 0, stream.id, _code(code))
            self._remove(stream)

    def ping(self, payload: bytes) -> None:
        """Ask whether the other side lives.

        Args:
            payload: Eight bytes that come back with the answer.
        """
        self._frame(Frame.PING, 0, 0, payload)

    def go_away(
        self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "", *, is_final: bool = True
    ) -> None:
        """Say that no further streams are taken.

        Args:
            code: Why.
            text: For people who debug the other side.
            is_final: ``False`` says so beforehand, for streams that may be on their way.
        """
        last_id = LARGEST_STREAM_ID
        if is_final:
            last_id = self._highest_taken = min(self.last_stream_id, self._highest_taken)
        self._frame(Frame.GOAWAY, 0, 0, struct.pack(">II", last_id, code) + text.encode())

    _TAKERS: ClassVar[dict[int, Callable[["Endpoint", int, int, bytes], None]]] = {
        Frame.HEADERS: _take_headers,
        Frame.PRIORITY: _take_priority,
        Frame.RST_STREAM: _take_reset,
        Frame.SETTINGS: _take_settings,
        Frame.PUSH_PROMISE: _take_push,
        Frame.PING: _take_ping,
        Frame.GOAWAY: _take_goaway,
        Frame.WINDOW_UPDATE: _take_window,
        Frame.CONTINUATION: _take_continuation,
    }


def _code(code: ErrorCode) -> bytes:
    return code.to_bytes(4, "big")


def _move(queue: deque[Buffer], out: list[Buffer], size: int) -> None:
    """Move ``size`` bytes from the front of a queue."""
    while size:
        piece = queue[0]
        if len(piece) <= size:
            out.append(queue.popleft())
            size -= len(piece)
        else:
            view = memoryview(piece)
            out.append(view[:size])
            queue[0] = view[size:]
            size = 0
