"""What comes of streams: data, whole or in part, and header blocks.

Source: RFC 9113 §6.1, §6.2, §6.10, §8.1; CVE-2024-24549 and others (CONTINUATION floods).
"""

from modelport.wire.header_blocks import Block, BlockReader, BlockTooLarge, BlockUnreadable
from modelport.wire.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADER_BYTES,
    NO_DATA,
    PADDED,
    SMALL_DATA,
    ErrorCode,
    Frame,
    Http2Broken,
    Http2Limits,
    MalformedHead,
)
from modelport.wire.http2.ledger import code_bytes
from modelport.wire.http2.sending import Sending
from modelport.wire.http2.stream import Owner, Stream

__all__ = ["Receiving"]


class Receiving(Sending):
    """The part of an endpoint that takes what comes of streams."""

    def __init__(self, owner: Owner, limits: Http2Limits, *, is_client: bool) -> None:
        super().__init__(owner, limits, is_client=is_client)
        self._reader = BlockReader(2 * limits.list_bytes)
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

    def _need_settings(self, kind: int) -> None:
        if kind != Frame.SETTINGS:
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")

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
            self._need_settings(DATA)
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

    # Header blocks.

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
            self._frame(Frame.RST_STREAM, 0, stream_id, code_bytes(ErrorCode.REFUSED_STREAM))
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
            self._frame(Frame.RST_STREAM, 0, stream_id, code_bytes(ErrorCode.PROTOCOL_ERROR))

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
