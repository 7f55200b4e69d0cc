"""What comes back when a Triton Python model asks others, and how it asks about them."""

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from types import FrameType

from modelport.errors import Kind, ModelportError
from modelport.messages import Response
from modelport.runtimes.base import Host, Question
from modelport.runtimes.calls import Call, answer_to
from modelport.runtimes.model_code import nearest_home
from modelport.runtimes.triton_python.errors import KIND_BY_CODE, TritonError, TritonModelException
from modelport.runtimes.triton_python.response import InferenceResponse
from modelport.runtimes.triton_python.tensor import InputTensor
from modelport.runtimes.triton_python.text import text_of

__all__ = ["ResponseIterator", "host_of", "is_model_ready", "load_model", "unload_model"]


class ResponseIterator:
    """The responses of another model, as they come: ``for`` waits, ``async for`` lets others run.

    Each is given once. Where the other model ends its stream with the final flag alone, there is
    one more without tensors, as in Triton. Letting go of it before the end cancels the request.
    """

    def __init__(self, call: Call, model: str) -> None:
        self._call = call
        self._model = model
        self._is_over = False

    def __iter__(self) -> Iterator[InferenceResponse]:
        return self

    def __next__(self) -> InferenceResponse:
        if self._is_over:
            raise StopIteration
        response = self._seen(self._call.take()) or self._bare_end()
        if response is None:
            raise StopIteration
        return response

    def __aiter__(self) -> AsyncIterator[InferenceResponse]:
        return self

    async def __anext__(self) -> InferenceResponse:
        if self._is_over:
            raise StopAsyncIteration
        response = self._seen(await self._call.take_async()) or self._bare_end()
        if response is None:
            raise StopAsyncIteration
        return response

    def _bare_end(self) -> InferenceResponse | None:
        return InferenceResponse([]) if self._call.has_bare_end else None

    def only(self) -> InferenceResponse:
        """The one response of a model that gives one."""
        first = self._seen(self._call.take())
        second = None if self._is_over else self._seen(self._call.take())
        return self._one(first, second)

    async def only_async(self) -> InferenceResponse:
        """The same for a coroutine."""
        first = self._seen(await self._call.take_async())
        second = None if self._is_over else self._seen(await self._call.take_async())
        return self._one(first, second)

    def cancel(self) -> None:
        """Say that nobody wants the other responses any more.

        Whoever goes on asking gets those that have come, and then one that is the error CANCELLED.
        """
        if not self._is_over:
            self._call.cancel()

    def _seen(self, given: Response | ModelportError | None) -> InferenceResponse | None:
        if given is None:
            self._is_over = True
            return None
        if isinstance(given, ModelportError):
            self._is_over = True
            code = _CODE_BY_KIND.get(given.kind, TritonError.INTERNAL)
            return InferenceResponse(error=TritonError(given.text, code))
        tensors = [InputTensor(each.name, each.datatype, each.array) for each in given.outputs]
        return InferenceResponse(tensors, parameters=given.parameters or None)

    def _one(
        self, first: InferenceResponse | None, second: InferenceResponse | None
    ) -> InferenceResponse:
        if first is not None and second is None:
            return first
        self.cancel()
        count = "none" if first is None else "several"
        error = TritonError(
            f"Model {self._model} is using the decoupled. The current BLS request call doesn't "
            f"support models using the decoupled transaction policy. It gave {count} responses: "
            "please use 'decoupled=True'"
        )
        return InferenceResponse(error=error)

    def __del__(self) -> None:
        self.cancel()


def load_model(
    model_name: str | bytes,
    config: str | bytes = "",
    files: Mapping[str, str | bytes] | None = None,
) -> None:
    """Load a model, or load it again, and wait until it is ready.

    Args:
        model_name: In the server's repository.
        config: JSON to load it with instead of its own configuration; "" for its own.
        files: Contents by path, ``file:`` before it or not.

    Raises:
        TritonModelException: If it cannot be loaded; the text says why.
    """
    contents = {
        path.removeprefix("file:"): data.encode() if isinstance(data, str) else bytes(data)
        for path, data in (files or {}).items()
    }
    question = Question(
        verb="load",
        model=text_of(model_name, "the name of a model"),
        config=text_of(config, "the configuration") or None,
        files=contents,
    )
    _ask(sys._getframe(1), question)


def unload_model(model_name: str | bytes, unload_dependents: bool = False) -> None:
    """Have a model unloaded after its last request, and wait until that is so.

    Raises:
        TritonModelException: If it cannot be unloaded; the text says why.
    """
    name = text_of(model_name, "the name of a model")
    question = Question(verb="unload", model=name, unload_dependents=unload_dependents)
    _ask(sys._getframe(1), question)


def is_model_ready(model_name: str | bytes, model_version: str | bytes | int = "") -> bool:
    """Whether a model, or one version of it, can answer now."""
    name = text_of(model_name, "the name of a model")
    if isinstance(model_version, int):
        model_version = str(model_version)
    version = text_of(model_version, "the version of a model")
    question = Question(verb="is_ready", model=name, version=version)
    return _ask(sys._getframe(1), question)


def host_of(frame: FrameType) -> tuple[Host, str]:
    """The host of the model whose code is running, and the model's name.

    Raises:
        TritonModelException: If no loaded model is.
    """
    home = nearest_home(frame)
    if home is None or home.host is None:
        raise TritonModelException(
            "other models can be asked from a model's code only, and not while its configuration "
            "is being completed"
        )
    return home.host, home.model_name


def _ask(frame: FrameType, question: Question) -> bool:
    host, caller = host_of(frame)
    try:
        return answer_to(host, caller, question)
    except ModelportError as exc:
        raise TritonModelException(str(exc)) from exc


_CODE_BY_KIND = {
    Kind.TOO_LARGE: TritonError.INVALID_ARG,
    Kind.OVERLOADED: TritonError.UNAVAILABLE,
    Kind.TIMEOUT: TritonError.UNAVAILABLE,
} | {kind: code for code, kind in KIND_BY_CODE.items()}
