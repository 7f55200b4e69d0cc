"""What a worker's model asks of the server, carried over."""

from collections.abc import Callable
from typing import Any

from modelport.runtimes.worker.frames import Decoder, Frame, json_frame

__all__ = ["WorkerHost"]


class WorkerHost:
    """A :class:`modelport.runtimes.base.Host` on this side of the sockets.

    Args:
        post: Sends a frame, from any thread.
        call: Sends a call: its head, and what adds a request to it.
    """

    def __init__(self, post: Callable[[bytes], None], call: Callable[[bytes, Any], None]) -> None:
        self._post = post
        self._call = call

    def log(self, level: str, message: str, *, model: str) -> None:
        """Have the server write a line to its log."""
        self._post(json_frame(Frame.LOG, [level, message, model]))

    def reply(self, decoder: Decoder, body: bytes) -> None:
        """Hear what a call came to."""
