"""What the HTTP/2 connections of one listener share: what blocks of fields were found to ask for.

What was learned from a block, route and verdict of the door included, is kept with the block, and
equal blocks of other connections share it.
"""

from typing import Protocol

from modelport.errors import Overloaded
from modelport.protocols.base import Reply
from modelport.server.http import Bound, HttpServer
from modelport.server.http2 import Http2Connection, Opener
from modelport.server.http2_exchange import Http2Exchange
from modelport.server.http2_options import Http2Options
from modelport.server.pressure import Answers
from modelport.wire.header_blocks import Block
from modelport.wire.http import RequestHead
from modelport.wire.http2 import Stream
from modelport.wire.http2_heads import parse_request_fields

__all__ = ["Calls", "Http2Server"]

MOST_KNOWN = 1024


class Calls(Protocol):
    """Takes the requests that are gRPC."""

    def understand(self, head: RequestHead, answers: Answers) -> Opener:
        """Look up a method."""
        ...


class Http2Server:
    """What the HTTP/2 connections of one listener share; makes them.

    Args:
        http: The listener.
        calls: Takes gRPC; ``None`` if there is none here.
        options: Limits and patience.
    """

    def __init__(self, http: HttpServer, calls: Calls | None, options: Http2Options) -> None:
        self._http = http
        self._options = options
        self._calls = calls
        self._opener_by_fields: dict[tuple[tuple[str, str], ...], Opener] = {}

    def __call__(self) -> Http2Connection:
        """Make who takes a connection over."""
        return Http2Connection(self._http, self._options, self.understand)

    def understand(self, block: Block) -> Opener:
        """Find out what the fields ask for.

        Raises:
            MalformedHead: They are no request.
        """
        known = self._opener_by_fields
        key = tuple(block.fields)
        opener = known.get(key)
        if opener is None:
            opener = self._understand(block)
            if len(known) >= MOST_KNOWN:
                known.clear()
            known[key] = opener
        return opener

    def _understand(self, block: Block) -> Opener:
        head = parse_request_fields(block)
        http = self._http
        is_too_large = block.list_bytes > self._options.limits.list_bytes
        kind = head.headers.get("content-type", "")
        if self._calls is not None and head.method == "POST" and _is_grpc(kind):
            return self._calls.understand(head, http.pressure.answers(head.path))
        if is_too_large:
            most = self._options.limits.list_bytes
            error = Overloaded(f"the headers are larger than {most} bytes")
            reply = http.errors(error)
            reply = Reply(431, reply.headers, reply.body)
            return _Request(Bound(head, None, {}, "", 0, reply, http.pressure.answers("")))
        return _Request(http.look_up(head))


def _is_grpc(content_type: str) -> bool:
    return content_type.startswith("application/grpc") and content_type[16:17] in ("", "+", ";")


class _Request:
    """A REST request with all that follows from its fields."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound

    def open(self, connection: Http2Connection) -> Stream:
        return Http2Exchange(connection, self._bound)
