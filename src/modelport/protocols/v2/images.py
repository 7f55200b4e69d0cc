"""Requests whose images are decoded before the engine gets them, on a thread."""

from collections.abc import Callable
from functools import partial

from modelport.errors import ModelFailed, ModelportError
from modelport.messages import Request, Sink, Ticket
from modelport.protocols.threads import on_thread
from modelport.protocols.v2.ports import DeploymentPort
from modelport.tensors import Tensor
from modelport.wire.ovms_images import ImageInputs

__all__ = ["submit_images"]


def submit_images(
    images: ImageInputs, find: Callable[[], DeploymentPort], request: Request, sink: Sink
) -> Ticket:
    """Decode what was sent as images, then submit.

    However small it is: a few bytes may stand for a very large image.

    Args:
        images: Of the model.
        find: Gives the deployment when the images are decoded: by then it may be another one.
        request: Owned from here on.
        sink: Hears of it, also of what is wrong with the images.
    """
    return _Decoding(images, find, request, sink)


class _Decoding:
    """The ticket of a request that may not have reached the engine yet."""

    def __init__(
        self,
        images: ImageInputs,
        find: Callable[[], DeploymentPort],
        request: Request,
        sink: Sink,
    ) -> None:
        self._find = find
        self._request = request
        self._sink = sink
        self._ticket: Ticket | None = None
        self._leave = on_thread(
            partial(images.decode, request.payload.tensors), self._submit, sink.fail, self._abort
        )

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._leave()
        if self._ticket is not None:
            self._ticket.cancel()

    def resume(self) -> None:
        """More responses are welcome again."""
        if self._ticket is not None:
            self._ticket.resume()

    def _submit(self, tensors: list[Tensor]) -> None:
        self._request.payload.tensors = tensors
        try:
            self._ticket = self._find().submit(self._request, self._sink)
        except ModelportError as exc:
            self._sink.fail(exc)

    def _abort(self) -> None:
        self._sink.fail(ModelFailed("the server made a mistake while it decoded the images"))
