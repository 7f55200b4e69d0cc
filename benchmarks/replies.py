"""Read HTTP replies off a stream of bytes, whatever framing the server chose."""

from collections.abc import Mapping
from dataclasses import dataclass

import httptools


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP reply; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ReplyReader:
    """Turn the bytes of one connection into replies.

    ``has_body`` tells whether the reply that is arriving has shown the first of its body,
    ``is_last`` whether the server said that it closes after the latest one.
    """

    def __init__(self) -> None:
        self.is_last = False
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._complete: Reply | None = None

    @property
    def has_body(self) -> bool:
        return bool(self._parts)

    def feed(self, data: bytes) -> Reply | None:
        """Take what has arrived; give the reply that it completes, if it does.

        Raises:
            httptools.HttpParserError: If this is not HTTP.
        """
        self._parser.feed_data(data)
        reply, self._complete = self._complete, None
        return reply

    def on_message_begin(self) -> None:
        self._headers = {}
        self._parts = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self.is_last = not self._parser.should_keep_alive()
        status = self._parser.get_status_code()
        self._complete = Reply(status, self._headers, b"".join(self._parts))
        self._parts = []
