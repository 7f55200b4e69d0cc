"""Requests as a Triton Python model sees them."""

import json
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Literal, overload

from modelport.dtypes import BYTES
from modelport.errors import ModelportError
from modelport.messages import ParameterValue, Request, Tensors
from modelport.runtimes.base import Host, Work
from modelport.runtimes.calls import Call, begin_call
from modelport.runtimes.triton_python.calling import ResponseIterator, host_of
from modelport.runtimes.triton_python.errors import TritonModelException
from modelport.runtimes.triton_python.interface import Interface
from modelport.runtimes.triton_python.memory import InferenceTrace, PreferredMemory
from modelport.runtimes.triton_python.response import InferenceResponse, InferenceResponseSender
from modelport.runtimes.triton_python.tensor import Tensor, bytes_array
from modelport.runtimes.triton_python.text import text_of
from modelport.tensors import Array
from modelport.tensors import Tensor as EngineTensor

__all__ = [
    "REQUEST_FLAG_SEQUENCE_END",
    "REQUEST_FLAG_SEQUENCE_START",
    "REQUEST_RELEASE_ALL",
    "REQUEST_RELEASE_RESCHEDULE",
    "InferenceRequest",
    "ServedRequest",
]

REQUEST_FLAG_SEQUENCE_START = 1
REQUEST_FLAG_SEQUENCE_END = 2
REQUEST_RELEASE_ALL = 1
REQUEST_RELEASE_RESCHEDULE = 2


class InferenceRequest:
    """A request that a model makes of another one."""

    __slots__ = (
        "_correlation_id",
        "_flags",
        "_inputs",
        "_model_name",
        "_model_version",
        "_parameters",
        "_preferred_memory",
        "_priority",
        "_request_id",
        "_requested_output_names",
        "_timeout",
        "_trace",
    )

    def __init__(
        self,
        model_name: str | bytes,
        requested_output_names: Sequence[str | bytes],
        inputs: Sequence[Tensor],
        request_id: str | bytes = "",
        correlation_id: int | str = 0,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: InferenceTrace | None = None,
        parameters: Mapping[str, ParameterValue] | str | None = None,
        priority: int = 0,
    ) -> None:
        self._model_name = text_of(model_name, "the name of a model")
        self._requested_output_names = [
            text_of(name, "the name of an output") for name in requested_output_names
        ]
        self._inputs: Sequence[Tensor] = list(inputs)
        for tensor in self._inputs:
            if not isinstance(tensor, Tensor):
                raise TritonModelException(
                    "Input tensor for request to model "
                    f"'{self._model_name}' has to be a Tensor, not {type(tensor).__name__}."
                )
        self._request_id = text_of(request_id, "the id of a request")
        self._correlation_id = correlation_id
        self._model_version = model_version
        self._flags = flags
        self._timeout = timeout
        self._priority = priority
        self._preferred_memory = preferred_memory or PreferredMemory()
        self._trace = trace or InferenceTrace()
        self._parameters = (
            parameters if isinstance(parameters, str) else json.dumps(dict(parameters or {}))
        )

    def inputs(self) -> list[Tensor]:
        """The tensors, in the order in which they were sent."""
        return list(self._inputs)

    def request_id(self) -> str:
        """The caller's own id, or "" where it gave none."""
        return self._request_id

    def correlation_id(self) -> int | str:
        """The sequence that it belongs to; 0 for none."""
        return self._correlation_id

    def model_name(self) -> str:
        """The model that is asked."""
        return self._model_name

    def model_version(self) -> int:
        """Its version; -1 for the one the server chooses."""
        return self._model_version

    def requested_output_names(self) -> list[str]:
        """The outputs wanted; all of them where the caller named none."""
        return self._requested_output_names

    def flags(self) -> int:
        """Whether it starts (1) or ends (2) its sequence."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Say whether it starts (1) or ends (2) its sequence."""
        self._flags = flags

    def timeout(self) -> int:
        """How long it may wait, in microseconds; 0 for the model's default."""
        return self._timeout

    def priority(self) -> int:
        """How urgent it is: 1 for the most, 0 for the model's default."""
        return self._priority

    def parameters(self) -> str:
        """What the caller said beside the inputs, as a JSON object without reserved keys."""
        return self._parameters

    def preferred_memory(self) -> PreferredMemory:
        """Where the outputs should lie."""
        return self._preferred_memory

    def trace(self) -> InferenceTrace:
        """The trace that it belongs to; hand it on to requests made for this one."""
        return self._trace

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return False

    def get_response_sender(self) -> InferenceResponseSender:
        """What answers it; a request that the model has made itself has none."""
        raise TritonModelException("only a request given to execute() has a response sender")

    def set_release_flags(self, flags: int) -> None:
        """Say what happens to the request when ``execute`` returns."""
        raise TritonModelException("only a request given to execute() can be released")

    @overload
    def exec(self, decoupled: Literal[False] = False) -> InferenceResponse: ...
    @overload
    def exec(self, decoupled: Literal[True]) -> ResponseIterator: ...
    def exec(self, decoupled: bool = False) -> InferenceResponse | ResponseIterator:
        """Ask the other model, and wait for its answer.

        Args:
            decoupled: Give the responses one by one instead, as they come.

        Returns:
            What the model answered; an answer that is an error is one with ``has_error()``.

        Raises:
            TritonModelException: If the call would go round in a circle, or cannot wait here.
        """
        call = self._begin(*host_of(sys._getframe(1)), blocks=True)
        responses = ResponseIterator(call, self._model_name)
        return responses if decoupled else responses.only()

    def async_exec(
        self, decoupled: bool = False
    ) -> Coroutine[Any, Any, InferenceResponse | ResponseIterator]:
        """Ask the other model without holding up what runs beside this; see ``exec``."""
        # Who asks is seen now: a task that runs this has no model below it on the stack.
        return self._exec_async(*host_of(sys._getframe(1)), decoupled)

    async def _exec_async(
        self, host: Host, caller: str, decoupled: bool
    ) -> InferenceResponse | ResponseIterator:
        call = self._begin(host, caller, blocks=False)
        responses = ResponseIterator(call, self._model_name)
        return responses if decoupled else await responses.only_async()

    def _begin(self, host: Host, caller: str, *, blocks: bool) -> Call:
        version = str(self._model_version) if self._model_version > 0 else ""
        try:
            return begin_call(host, caller, self._model_name, version, self._made(), blocks=blocks)
        except ModelportError as exc:
            raise TritonModelException(str(exc)) from exc

    def _made(self) -> Request:
        """The same for the engine."""
        tensors = [
            EngineTensor(tensor._name, tensor._datatype, _given(tensor)) for tensor in self._inputs
        ]
        request = Request(
            Tensors(tensors),
            id=self._request_id,
            outputs=tuple(self._requested_output_names),
            parameters=json.loads(self._parameters or "{}"),
        )
        if self._correlation_id:
            request.sequence_id = self._correlation_id
            request.sequence_start = bool(self._flags & REQUEST_FLAG_SEQUENCE_START)
            request.sequence_end = bool(self._flags & REQUEST_FLAG_SEQUENCE_END)
        request.timeout_us = self._timeout
        request.priority = self._priority
        request.trace_id = self._trace._id
        return request


class ServedRequest(InferenceRequest):
    """A request made of this model; all but its inputs is looked up when it is asked for."""

    __slots__ = ("_comes_again", "_interface", "_sender", "_work")

    def __init__(self, work: Work, interface: Interface) -> None:
        self._work = work
        self._interface = interface
        self._sender: InferenceResponseSender | None = None
        self._comes_again = False
        as_input = interface.as_input
        tensors = work.request.payload.tensors
        if len(tensors) == 1:
            # Spelled out: a list comprehension is a call of its own before Python 3.12.
            tensor = tensors[0]
            self._inputs = [as_input(tensor.name, tensor.datatype, tensor.array)]
        else:
            self._inputs = [as_input(t.name, t.datatype, t.array) for t in tensors]

    def request_id(self) -> str:
        """The caller's own id, or "" where it gave none."""
        return self._work.request.id

    def correlation_id(self) -> int | str:
        """The sequence that it belongs to; 0 for none."""
        return self._work.request.sequence_id

    def model_name(self) -> str:
        """The model that is asked."""
        return self._interface.model_name

    def model_version(self) -> int:
        """Its version."""
        return self._interface.model_version

    def requested_output_names(self) -> list[str]:
        """The outputs wanted; all of them where the caller named none."""
        return list(self._work.request.outputs or self._interface.output_names)

    def flags(self) -> int:
        """Whether it starts (1) or ends (2) its sequence."""
        request = self._work.request
        start = REQUEST_FLAG_SEQUENCE_START if request.sequence_start else 0
        return start | (REQUEST_FLAG_SEQUENCE_END if request.sequence_end else 0)

    def set_flags(self, flags: int) -> None:
        """Refused: these flags are the caller's."""
        raise TritonModelException("the flags of a request given to execute() are its caller's")

    def timeout(self) -> int:
        """How long it may wait in the queue, in microseconds; 0 for the model's default."""
        return self._work.request.timeout_us

    def priority(self) -> int:
        """How urgent it is: 1 for the most, 0 for the model's default."""
        return self._work.request.priority

    def parameters(self) -> str:
        """What the caller said beside the inputs, as a JSON object without reserved keys."""
        parameters = self._work.request.parameters
        return json.dumps(dict(parameters)) if parameters else "{}"

    def preferred_memory(self) -> PreferredMemory:
        """Main memory."""
        return PreferredMemory()

    def trace(self) -> InferenceTrace:
        """The trace that it belongs to; hand it on to requests made for this one."""
        return InferenceTrace(self._work.request.trace_id)

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._work.is_cancelled

    def get_response_sender(self) -> InferenceResponseSender:
        """What answers it, from any thread; always the same one."""
        sender = self._sender
        if sender is None:
            self._sender = sender = InferenceResponseSender(self._work, self._interface)
        return sender

    def set_release_flags(self, flags: int) -> None:
        """Say whether the request is over when ``execute`` returns, or comes once more.

        Raises:
            TritonModelException: For other flags, or if no request of this model comes again.
        """
        if flags not in (REQUEST_RELEASE_ALL, REQUEST_RELEASE_RESCHEDULE):
            raise TritonModelException(
                f"Unsupported release flags {flags!r}; use TRITONSERVER_REQUEST_RELEASE_ALL or "
                "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE."
            )
        if flags == REQUEST_RELEASE_RESCHEDULE and not self._interface.is_iterative:
            raise TritonModelException(
                "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE needs sequence_batching { "
                "iterative_sequence: true } in the configuration of the model"
            )
        self._comes_again = flags == REQUEST_RELEASE_RESCHEDULE

    @property
    def comes_again(self) -> bool:
        """Whether the model has asked to see it once more."""
        return self._comes_again

    def release(self) -> bool:
        """Let go of the request after ``execute``; say whether it comes once more."""
        if not self._comes_again:
            return False
        if self._sender is not None:
            # The next one has a sender of its own, and this one nothing to complain about.
            self._sender.close()
        self._work.reschedule()
        return True

    def __repr__(self) -> str:
        return f"<InferenceRequest {self.request_id()!r} {self.inputs()}>"


def _given(tensor: Tensor) -> Array:
    """The array, which the other model may look at and no more."""
    array = tensor._array
    if tensor._datatype is BYTES:
        array = bytes_array(array)
    view = array.view()
    view.flags.writeable = False
    return view
