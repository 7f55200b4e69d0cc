"""What is known of a head once it was read: kept, so that the next one like it costs nothing.

Clients send the same few heads again and again. Each is kept with its route, its parameters and
the verdict of the door; a request that begins with the same bytes is given them again.
"""

from collections.abc import Mapping
from typing import Any

from modelport.protocols.base import Body, Headers, Reply, Route
from modelport.server.pressure import Answers
from modelport.wire.chunked import INPUT_SIZE
from modelport.wire.http import RequestHead

__all__ = ["Bound", "keep", "max_body_setting"]

MOST_KNOWN = 1024
"""Heads that are kept. One client sends as many as its bodies have lengths."""
MOST_HEAD_BYTES = 2048
"""The longest head that is kept."""


def keep(known: "dict[bytes, Bound]", raw: bytes, bound: "Bound") -> None:
    """Have ``bound`` be found in ``known`` by the bytes of its head."""
    if len(raw) <= MOST_HEAD_BYTES:
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[raw] = bound


def max_body_setting(route: Route | None) -> str:
    """Name the setting that bounds the bodies of a route."""
    if route is None or route.max_body_bytes is None:
        return INPUT_SIZE
    return route.max_body_setting


class Bound:
    """A head with all that follows from it."""

    __slots__ = (
        "answer_headers",
        "answers",
        "end",
        "handler",
        "head",
        "headers",
        "is_kept",
        "is_streamed",
        "max_body",
        "memo",
        "params",
        "principal",
        "raw",
        "refusal",
        "route",
        "size",
    )

    def __init__(
        self,
        head: RequestHead,
        route: Route | None,
        params: Mapping[str, str],
        principal: str,
        max_body: int,
        refusal: Reply | None,
        answers: Answers,
        answer_headers: Headers = (),
    ) -> None:
        self.answers = answers
        self.head = head
        self.raw = head.raw
        self.size = len(head.raw)
        self.route = route
        self.params = params
        self.principal = principal
        self.max_body = max_body
        self.refusal = refusal
        self.answer_headers = answer_headers
        self.headers = head.headers
        self.memo: Any = None
        # Whether neither side asks for anything out of the ordinary: then the request ends at
        # ``end``, and the answer needs no look at the head.
        self.is_kept = head.keep_alive and head.method != "HEAD" and not answer_headers
        self.handler = route.handler if route is not None and refusal is None else None
        is_plain = not head.is_chunked and not head.expects_continue and self.handler is not None
        self.end = self.size + head.content_length if is_plain else 0
        self.is_streamed = (
            self.handler is not None and route is not None and route.body is Body.STREAM
        )
