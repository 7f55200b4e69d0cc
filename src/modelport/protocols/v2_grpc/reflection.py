"""Server reflection: tools such as grpcurl ask here what they can call."""

from collections.abc import Sequence
from functools import partial

from modelport.errors import ModelportError
from modelport.protocols.base import Buffer, Call
from modelport.protocols.v2_grpc.replies import end_exiting, error_status
from modelport.wire.grpc_reflection import answer_question

__all__ = ["Reflection"]


class Reflection:
    """Answers the questions of one stream. See :class:`~modelport.protocols.base.Receiver`.

    Args:
        services: Full names of all that can be called.
        call: Of one client.
    """

    def __init__(self, services: Sequence[str], call: Call) -> None:
        self._services = services
        self._call = call
        self._is_stopped = False
        call.on_writable = self._resume
        # Every question is answered when it comes.
        call.on_drain = partial(end_exiting, call)

    def message(self, data: Buffer) -> bool:
        """Answer one question."""
        try:
            answer = answer_question(data, self._services)
        except ModelportError as exc:
            self._call.finish(*error_status(exc))
            return True
        self._is_stopped = not self._call.send([answer])
        return not self._is_stopped

    def half_closed(self) -> None:
        """All is answered already."""
        self._call.finish()

    def _resume(self) -> None:
        if self._is_stopped:
            self._is_stopped = False
            self._call.resume()
