"""How Python functions that are models ask other models of the same server."""

import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from modelport.dtypes import BF16, BYTES, DATATYPE_BY_NUMPY, DataType, float32_from_bf16
from modelport.errors import InvalidRequest, ModelFailed, ModelportError
from modelport.messages import ParameterValue, Request, Response, Tensors
from modelport.runtimes.base import Host
from modelport.runtimes.calls import Call, begin_call, current_trace_id
from modelport.runtimes.model_code import nearest_home
from modelport.tensors import Array, Tensor

__all__ = ["Responses", "call_model", "call_model_async", "stream_model"]

Inputs = Mapping[str, Any]
Answer = dict[str, Array]


def call_model(
    name: str,
    inputs: Inputs,
    *,
    version: int | None = None,
    outputs: Sequence[str] = (),
    parameters: Mapping[str, ParameterValue] | None = None,
) -> Answer:
    """Ask another model from the code of one, and wait for its answer.

    Args:
        name: Of the other model.
        inputs: Arrays by name, or what NumPy makes arrays of; text as ``str`` or ``bytes``.
        version: Of the other model; ``None`` for the one that the server chooses.
        outputs: Names of the outputs wanted; empty for all.
        parameters: Of the request.

    Returns:
        Arrays by name.

    Raises:
        ModelportError: What the other model, or the server, answered instead.
    """
    begun = _begin(sys._getframe(1), name, _request(inputs, outputs, parameters), version, True)
    return Responses(begun, name).only()


def call_model_async(
    name: str,
    inputs: Inputs,
    *,
    version: int | None = None,
    outputs: Sequence[str] = (),
    parameters: Mapping[str, ParameterValue] | None = None,
) -> Coroutine[Any, Any, Answer]:
    """Ask another model without holding up what runs beside this; see :func:`call_model`."""
    request = _request(inputs, outputs, parameters)
    begun = _begin(sys._getframe(1), name, request, version, False)
    return Responses(begun, name).only_async()


def stream_model(
    name: str,
    inputs: Inputs,
    *,
    version: int | None = None,
    outputs: Sequence[str] = (),
    parameters: Mapping[str, ParameterValue] | None = None,
) -> "Responses":
    """Ask a model that answers with a stream; see :func:`call_model`.

    Returns:
        For ``for``, which waits, or ``async for``, which does not: each response as arrays by name.
    """
    begun = _begin(sys._getframe(1), name, _request(inputs, outputs, parameters), version, False)
    return Responses(begun, name)


class Responses:
    """The responses of another model, each given once. Letting go of it cancels the rest."""

    def __init__(self, call: Call, model: str) -> None:
        self._call = call
        self._model = model
        self._is_over = False

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        answer = None if self._is_over else self._seen(self._call.take())
        if answer is None:
            raise StopIteration
        return answer

    def __aiter__(self) -> AsyncIterator[Answer]:
        return self

    async def __anext__(self) -> Answer:
        answer = None if self._is_over else self._seen(await self._call.take_async())
        if answer is None:
            raise StopAsyncIteration
        return answer

    def only(self) -> Answer:
        """The one response of a model that gives one."""
        first = next(self, None)
        return self._one(first, None if first is None else next(self, None))

    async def only_async(self) -> Answer:
        """The same for a coroutine."""
        first = await anext(self, None)
        return self._one(first, None if first is None else await anext(self, None))

    def close(self) -> None:
        """Say that nobody wants the other responses any more."""
        if not self._is_over:
            self._is_over = True
            self._call.cancel()

    def _seen(self, given: Response | ModelportError | None) -> Answer | None:
        if isinstance(given, Response):
            return {each.name: _shown(each) for each in given.outputs}
        self._is_over = True
        if given is not None:
            raise given
        return None

    def _one(self, first: Answer | None, second: Answer | None) -> Answer:
        if first is None or second is not None:
            self.close()
            count = "no response" if first is None else "several responses"
            raise ModelFailed(f"model '{self._model}' gave {count}; use modelport.stream_model")
        return first

    def __del__(self) -> None:
        self.close()


def _begin(
    frame: FrameType, name: str, request: Request, version: int | None, blocks: bool
) -> Call:
    home = nearest_home(frame)
    host: Host | None = None if home is None else home.host
    if home is None or host is None:
        raise ModelFailed("other models can be asked from a loaded model's code only")
    number = "" if version is None else str(version)
    request.trace_id = current_trace_id()
    return begin_call(host, home.model_name, name, number, request, blocks=blocks)


def _request(
    inputs: Inputs, outputs: Sequence[str], parameters: Mapping[str, ParameterValue] | None
) -> Request:
    tensors = [_tensor(name, value) for name, value in inputs.items()]
    return Request(Tensors(tensors), outputs=tuple(outputs), parameters=dict(parameters or {}))


def _tensor(name: str, value: Any) -> Tensor:
    array = np.asarray(value)
    if array.dtype.kind in "USO":
        encoded = np.empty(array.shape, dtype=object)
        encoded.reshape(-1)[:] = [
            item if isinstance(item, bytes) else str(item).encode() for item in array.flat
        ]
        return Tensor(name, BYTES, encoded)
    datatype: DataType | None = DATATYPE_BY_NUMPY.get(array.dtype)
    if datatype is None:
        raise InvalidRequest(
            f"input '{name}' has numpy dtype {array.dtype}, which no datatype of the protocol is "
            "like"
        )
    view = array.view()
    view.flags.writeable = False
    return Tensor(name, datatype, view)


def _shown(tensor: Tensor) -> Array:
    return float32_from_bf16(tensor.array) if tensor.datatype is BF16 else tensor.array
