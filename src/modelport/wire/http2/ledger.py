"""What both directions share: the open streams, the windows we grant, and the allowance.

Source: RFC 9113 §5.1, §5.2; CVE-2023-44487 (rapid reset), CVE-2025-8671 (resets that we are made to
send).
"""

from modelport.wire.http2.frames import (
    HEADER,
    LARGEST_STREAM_ID,
    Buffer,
    ErrorCode,
    Frame,
    Http2Broken,
    Http2Limits,
)
from modelport.wire.http2.stream import Owner, Stream

__all__ = ["Ledger", "code_bytes"]


class Ledger:
    """The part of an endpoint that knows its streams; see :class:`~modelport.wire.http2.Endpoint`.

    The parts are one object, each a class on top of the one before: what passes between them for
    every frame is an attribute and not a call.
    """

    def __init__(self, owner: Owner, limits: Http2Limits, *, is_client: bool) -> None:
        self._owner = owner
        self._limits = limits
        self._is_client = is_client
        self.out: list[Buffer] = []
        self.streams: dict[int, Stream] = {}
        self.queued_bytes = 0
        self.last_stream_id = 0
        self._next_id = 1
        self._highest_taken = LARGEST_STREAM_ID
        self._receive_window = limits.connection_window
        self._ungranted_bytes = 0
        self._blocked: dict[int, Stream] = {}
        self._allowance = limits.allowance
        self._resets_left = limits.resets

    def _is_idle(self, stream_id: int) -> bool:
        """Whether a stream of this number has never been."""
        if bool(stream_id & 1) == self._is_client:
            return stream_id >= self._next_id
        return stream_id > self.last_stream_id

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self.out.append(HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload)

    def _update(self, stream_id: int, more: int) -> None:
        self._frame(Frame.WINDOW_UPDATE, 0, stream_id, more.to_bytes(4, "big"))

    def reset(self, stream: Stream, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Break a stream off; it does not hear of it."""
        if not stream.is_over:
            self._frame(Frame.RST_STREAM, 0, stream.id, code_bytes(code))
            self._remove(stream)

    def _fault(self, stream: Stream, code: ErrorCode) -> None:
        """Reset a stream of which the other side broke the rules."""
        self._frame(Frame.RST_STREAM, 0, stream.id, code_bytes(code))
        self._remove(stream)
        stream.receive_reset(code)
        self._spend_reset()

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

    # What the other side may do for nothing.

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

    # The windows we grant.

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


def code_bytes(code: ErrorCode) -> bytes:
    """Write a code as RST_STREAM carries it."""
    return code.to_bytes(4, "big")
