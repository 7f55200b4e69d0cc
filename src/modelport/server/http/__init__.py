"""The HTTP listener: ``asyncio`` protocols around :mod:`modelport.wire.http`.

- ``listener``: what its connections share, and where the door is asked;
- ``known_heads``: what was learned from a head, kept for the next one like it;
- ``connection``: HTTP/1.1, from bytes to handlers and from answers to bytes;
- ``bodies``: bodies while they come;
- ``exchange``: one request and its answer;
- ``answer_heads``: heads of answers, written once;
- ``failures``: answers for what went wrong.

This is the one place where the speed of the whole product is decided; ``docs/design/hot-path.md``
tells what a request costs here, and why.
"""

from modelport.server.http.connection import BURST_GAP_NS, LEAST_PROGRESS_BYTES, Connection
from modelport.server.http.exchange import JOIN_BELOW_BYTES, Asked, HttpExchange
from modelport.server.http.failures import encode_error, internal_error
from modelport.server.http.known_heads import Bound
from modelport.server.http.listener import (
    AccessRecord,
    Door,
    Guest,
    Holder,
    HttpOptions,
    HttpServer,
)

__all__ = [
    "BURST_GAP_NS",
    "JOIN_BELOW_BYTES",
    "LEAST_PROGRESS_BYTES",
    "AccessRecord",
    "Asked",
    "Bound",
    "Connection",
    "Door",
    "Guest",
    "Holder",
    "HttpExchange",
    "HttpOptions",
    "HttpServer",
    "encode_error",
    "internal_error",
]
