"""Heads of ordinary answers, written once for all answers that have the same headers."""

from modelport.protocols.base import Headers
from modelport.wire.http import encode_response_head

__all__ = ["AnswerHeads"]

MOST_KEPT = 64


class AnswerHeads:
    """What the listener remembers of the heads that it wrote.

    Attributes:
        prefix_by_headers: Heads of status 200 up to the digits of the length.
    """

    def __init__(self) -> None:
        self.prefix_by_headers: dict[Headers, bytes] = {}
        self._chunked_by_headers: dict[Headers, bytes] = {}

    def encode(self, status: int, headers: Headers, length: int, *, close: bool) -> bytes:
        """Write the head of an answer with ``length`` bytes of body."""
        if close or headers.__class__ is not tuple or status != 200:
            return encode_response_head(status, headers, length, close=close)
        prefix = self.prefix_by_headers.get(headers)
        if prefix is None:
            whole = encode_response_head(status, headers, 0, close=False)
            prefix = whole[: -len(b"0\r\n\r\n")]
            _keep(self.prefix_by_headers, headers, prefix)
        return b"%b%d\r\n\r\n" % (prefix, length)

    def encode_chunked(self, status: int, headers: Headers, *, close: bool) -> bytes:
        """Write the head of an answer in chunks."""
        if close or headers.__class__ is not tuple or status != 200:
            return encode_response_head(status, headers, None, close=close)
        head = self._chunked_by_headers.get(headers)
        if head is None:
            head = encode_response_head(status, headers, None, close=False)
            _keep(self._chunked_by_headers, headers, head)
        return head


def _keep(heads: dict[Headers, bytes], headers: Headers, head: bytes) -> None:
    if len(heads) >= MOST_KEPT:
        # Headers may hold what differs with each answer; those must not crowd the others out for
        # good.
        heads.clear()
    heads[headers] = head
