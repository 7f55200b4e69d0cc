"""What comes of the connection: settings, windows, pings, resets and farewells.

Source: RFC 9113 §6.3 to §6.9; CVE-2019-9511 to 9518 (the floods of 2019).
"""

import struct
from collections.abc import Callable
from typing import ClassVar

from modelport.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DEFAULT_FRAME_BYTES,
    DEFAULT_TABLE_BYTES,
    LARGEST_SENT_FRAME,
    LARGEST_WINDOW,
    NO_DATA,
    ErrorCode,
    Frame,
    Http2Broken,
    Setting,
)
from modelport.wire.http2.receiving import Receiving

__all__ = ["Controlling"]


class Controlling(Receiving):
    """The part of an endpoint that takes what comes of the connection, and knows every frame."""

    def _take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self._has_settings:
            self._need_settings(kind)
        if self._block is not None and (kind != CONTINUATION or stream_id != self._block_id):
            raise Http2Broken(ErrorCode.PROTOCOL_ERROR, "a header block is torn by another frame")
        take = self._TAKERS.get(kind)
        if take is None:
            self._spend(1)  # RFC 9113 §5.5: what is not known is passed over
        else:
            take(self, flags, stream_id, payload)

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
            case Setting.HEADER_TABLE_SIZE if value < DEFAULT_TABLE_BYTES:
                self._shrink_table()
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

    _TAKERS: ClassVar[dict[int, Callable[["Controlling", int, int, bytes], None]]] = {
        Frame.HEADERS: Receiving._take_headers,
        Frame.PRIORITY: _take_priority,
        Frame.RST_STREAM: _take_reset,
        Frame.SETTINGS: _take_settings,
        Frame.PUSH_PROMISE: _take_push,
        Frame.PING: _take_ping,
        Frame.GOAWAY: _take_goaway,
        Frame.WINDOW_UPDATE: _take_window,
        Frame.CONTINUATION: Receiving._take_continuation,
    }
