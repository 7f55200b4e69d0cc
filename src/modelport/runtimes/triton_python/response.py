"""Responses of a Triton Python model, and the sender through which it gives them itself."""

import asyncio
import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from modelport.errors import Cancelled, ModelFailed
from modelport.messages import ParameterValue
from modelport.runtimes.base import Work
from modelport.runtimes.triton_python.errors import TritonError, TritonModelException
from modelport.runtimes.triton_python.interface import Interface
from modelport.runtimes.triton_python.tensor import Tensor

__all__ = ["RESPONSE_COMPLETE_FINAL", "InferenceResponse", "InferenceResponseSender"]

RESPONSE_COMPLETE_FINAL = 1


class InferenceResponse:
    """The answer to a request, or one of several.

    Args:
        output_tensors: In any order.
        error: Makes it an error; the tensors are then left out.
        parameters: What the caller shall know beside the outputs: bools, numbers and text.
    """

    __slots__ = ("_error", "_output_tensors", "_parameters")

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: Mapping[str, ParameterValue] | None = None,
    ) -> None:
        self._output_tensors = output_tensors
        self._error = error
        self._parameters = parameters
        if parameters:
            _check_parameters(parameters)

    def output_tensors(self) -> list[Tensor]:
        """The outputs."""
        return list(self._output_tensors)

    def has_error(self) -> bool:
        """Whether it says that something went wrong."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """What went wrong."""
        return self._error

    def parameters(self) -> str:
        """The parameters as a JSON object."""
        import json

        return json.dumps(dict(self._parameters or {}))

    def __repr__(self) -> str:
        return f"<InferenceResponse {self._error or list(self._output_tensors)}>"


class InferenceResponseSender:
    """Answers one request from wherever the model likes, on any thread.

    A sender that the model lets go of without having ended its stream can never end it any more,
    so the caller is told instead of being left waiting.
    """

    __slots__ = ("_has_answered", "_interface", "_is_closed", "_lock", "_work")

    def __init__(self, work: Work, interface: Interface) -> None:
        self._work = work
        self._interface = interface
        self._lock = threading.Lock()
        self._has_answered = False
        self._is_closed = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Give a response, the end of the stream, or both.

        A caller that has gone is no reason to stop a model in the middle: what is sent to nobody
        is dropped, and ``is_cancelled`` says so to models that look.

        Args:
            response: May be absent with the final flag only.
            flags: 0 or ``TRITONSERVER_RESPONSE_COMPLETE_FINAL``.

        Raises:
            TritonModelException: After the final flag, and for a call that makes no sense.
        """
        if flags not in (0, RESPONSE_COMPLETE_FINAL):
            raise TritonModelException(
                f"Unable to send response. Unsupported flag {flags!r}; use 0 or "
                "TRITONSERVER_RESPONSE_COMPLETE_FINAL."
            )
        if response is None and not flags:
            raise TritonModelException(
                "Unable to send response. A response must be given unless the flags hold "
                "TRITONSERVER_RESPONSE_COMPLETE_FINAL."
            )
        # Read before anything is noted: if that fails, the request is still to be answered.
        outcome = None if response is None else self._interface.read(self._work, response)
        is_dropped = self._advance(response is not None, bool(flags))
        if is_dropped:
            return
        is_final = bool(flags) or not self._interface.is_decoupled
        try:
            self._work.send(outcome, final=is_final)
        except Cancelled:
            return
        except ModelFailed as exc:
            raise TritonModelException(_CLOSED) from exc

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._work.is_cancelled

    async def drained(self) -> None:
        """Wait until the caller has read enough to take more.

        Modelport's own: a coroutine that sends much awaits it between responses, because ``send``
        cannot block on an event loop.
        """
        await self._work.drained()

    def claim(self) -> bool:
        """Take the one answer that is left to give, for one that comes another way.

        Returns:
            Whether there was one; what comes later is dropped.
        """
        with self._lock:
            is_free = not (self._is_closed or self._has_answered)
            self._is_closed = self._has_answered = True
        return is_free

    def close(self) -> bool:
        """Take the end of the stream, so that nothing more can be sent.

        Returns:
            Whether the caller was still to be told.
        """
        with self._lock:
            owes_more = self._interface.is_decoupled or not self._has_answered
            is_open = owes_more and not self._is_closed
            self._is_closed = True
        return is_open

    def _advance(self, has_response: bool, is_final: bool) -> bool:
        """Note what is about to be sent; say whether it is to be dropped."""
        with self._lock:
            if self._is_closed:
                raise TritonModelException(_CLOSED)
            if not self._interface.is_decoupled and not has_response and not self._has_answered:
                raise TritonModelException(
                    "Unable to send response. Non-decoupled model cannot send complete final "
                    "before sending a response."
                )
            is_dropped = not self._interface.is_decoupled and self._has_answered
            self._has_answered |= has_response
            self._is_closed |= is_final
        return is_dropped

    def __del__(self) -> None:
        # Constructing may have failed, and interpreters go down in any order.
        with contextlib.suppress(Exception):
            if self.close():
                _tell_abandoned(self._work)


def _tell_abandoned(work: Work) -> None:
    """Fail a request, from a place that may be in the middle of anything.

    Garbage is collected wherever an object is made, the engine's own code included: where a loop
    runs, the news waits for its next turn.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _send_abandoned(work)
    else:
        loop.call_soon(_send_abandoned, work)


def _send_abandoned(work: Work) -> None:
    with contextlib.suppress(Cancelled, ModelFailed):
        work.send(_abandoned(), final=True)


def _abandoned() -> ModelFailed:
    return ModelFailed(
        "the model let go of the request without answering it to the end: every stream needs the "
        "flag TRITONSERVER_RESPONSE_COMPLETE_FINAL, and every request of an ordinary model a "
        "response"
    )


def _check_parameters(parameters: Mapping[Any, Any]) -> None:
    if not isinstance(parameters, Mapping):
        raise TypeError(f"response parameters have to be a dict, got {type(parameters)}")
    for name, value in parameters.items():
        if not isinstance(name, str):
            raise TritonModelException(
                f"Expect parameters keys to have type str, found type {type(name)} "
                f"(response parameter {name!r})"
            )
        if not isinstance(value, bool | int | float | str):
            # Triton's sentence; it takes no floats.
            raise TritonModelException(
                f"Expect parameters values to have type bool/int/str, found type {type(value)} "
                f"(response parameter {name!r})"
            )


_CLOSED = "Unable to send response. Response sender has been closed."
