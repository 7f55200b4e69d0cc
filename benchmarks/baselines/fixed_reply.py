"""Answer every request with one fixed reply of the size of a W1 answer, looking at nothing."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

# Given by the harness: made here, it would need numpy, which no bare server has loaded.
BODY_VARIABLE = "MODELPORT_BENCH_REPLY"
_BODY = os.environ.get(BODY_VARIABLE, "{}").encode()
_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_BODY)).encode()),
    ],
}
_END: Message = {"type": "http.response.body", "body": _BODY}


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Send the fixed reply; the server itself reads the request's body and drops it."""
    await send(_START)
    await send(_END)
