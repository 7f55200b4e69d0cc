"""What passes between the protocols and the engine: requests, responses and where these go.

Three payloads live in the engine: :class:`Tensors` (named arrays) and :class:`Arguments` (named
Python values) now; chat prompts come with the protocols that need them.

The classes here are made for every request and therefore neither frozen nor checked; each says who
may still change it.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct, field

from modelport.errors import ModelportError
from modelport.tensors import Tensor

__all__ = [
    "Arguments",
    "Arrival",
    "CallScope",
    "ParameterValue",
    "Payload",
    "RemoteSink",
    "Request",
    "Response",
    "Sink",
    "StageTrace",
    "Target",
    "Tensors",
    "Ticket",
]

ParameterValue = bool | int | float | str


class Tensors(Struct, eq=False):
    """The payload of tensor models.

    Attributes:
        tensors: In the order in which they were sent; names are unique.
    """

    tensors: Sequence[Tensor]

    def __repr__(self) -> str:
        return f"<Tensors {list(self.tensors)}>"


class CallScope(Protocol):
    """What a call needs while it is under way, such as its files."""

    def claim(self) -> None:
        """The call begins: from here on who executes it closes this."""
        ...

    def close(self) -> None:
        """The call is over. Idempotent."""
        ...


class Arguments:
    """The payload of typed Python methods: values by the names of their parameters.

    Attributes:
        values: Checked and converted already; belongs to whoever executes the call.
        rows: What it counts for in a batch; at least 1, at most what one batch may have.
        batch_key: What requests must have in common to share a batch; ``None`` fits ``None``.
        context: What the method gets to know of the request beside its arguments, if anything.
        encode: Makes of each result what the protocol wants, on the thread that computed it.
        scope: What lives as long as the call: claimed by whoever executes it, and closed by the
            same when it is over, whichever way it ended.
    """

    __slots__ = ("batch_key", "context", "encode", "rows", "scope", "values")

    def __init__(
        self,
        values: dict[str, Any],
        *,
        rows: int = 1,
        batch_key: Hashable = None,
        context: Any = None,
        encode: Callable[[Any], Any] | None = None,
        scope: CallScope | None = None,
    ) -> None:
        self.values = values
        self.rows = rows
        self.batch_key = batch_key
        self.context = context
        self.encode = encode
        self.scope = scope

    def __repr__(self) -> str:
        return f"<Arguments {', '.join(self.values)}>"


Payload = Tensors | Arguments


class StageTrace(Protocol):
    """Notes of one request that is traced."""

    def executed(self, started_ns: int, ready_ns: int, computed_ns: int, ended_ns: int) -> None:
        """Note how the batch went that the request was in."""
        ...

    def submit_step(self, target: "Target", request: "Request", sink: "Sink") -> "Ticket":
        """Submit what the request asks of another model, with notes of its own.

        Raises:
            ModelportError: What ``target`` refuses it with.
        """
        ...


class Target(Protocol):
    """A version of a model that takes requests."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def version(self) -> int:
        """A positive integer."""
        ...

    def submit(self, request: "Request", sink: "Sink") -> "Ticket":
        """Take a request, or raise."""
        ...


class Request(Struct, eq=False):
    """One question to one model. Belongs to the engine once ``submit`` has returned.

    Attributes:
        id: The caller's own id, or "" where it gave none; it comes back with the response.
        payload: What the model is asked.
        outputs: Names of the outputs wanted; empty for all.
        parameters: What the caller wants the model to know; reserved keys are taken out.
        priority: 0 for the model's default, 1 for the highest.
        timeout_us: How long it may wait in the queue, where the model allows overrides; 0 for
            the model's default.
        deadline_ns: On the engine's clock, when the caller stops waiting; ``None`` for never.
        sequence_id: The sequence it belongs to; 0 or "" for none.
        sequence_start: Whether it is the first of its sequence.
        sequence_end: Whether it is the last of its sequence.
        principal: Who asks; "" for everybody.
        trace: Where its stages are noted; ``None`` for most.
        trace_id: Names its trace; "" for none. A model that asks others hands it on, and theirs are
            then traced as parts of this one.
        trail: The models that wait for the answer, the first one first; empty where a client does.
        received_ns: On the engine's clock, when its last byte had come; 0 lets the engine look.
    """

    # Tensors or Arguments: which, follows from the kind of the model.
    payload: Any
    id: str = ""
    outputs: Sequence[str] = ()
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    received_ns: int = 0
    priority: int = 0
    timeout_us: int = 0
    deadline_ns: int | None = None
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False
    principal: str = ""
    trace: "StageTrace | None" = None
    trace_id: str = ""
    trail: Sequence[str] = ()


class Response(Struct, eq=False):
    """One answer, whole; a decoupled model gives any number of them.

    Attributes:
        outputs: In the order of the model's configuration.
        parameters: What the model says beside its outputs.
        value: The result of a call with :class:`Arguments`, in place of outputs.
    """

    outputs: Sequence[Tensor]
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    value: Any = None

    def __repr__(self) -> str:
        return f"<Response {list(self.outputs)}>"


class Sink(Protocol):
    """Where the responses to one request go.

    Called on the event loop only, and never after ``fail``, ``end`` or a final ``push``.
    """

    def push(self, response: Response, final: bool) -> bool:
        """Take one response.

        Returns:
            Whether another one is welcome now. After ``False`` the engine holds further ones back
            until the ticket's ``resume``.
        """
        ...

    def end(self) -> None:
        """No more responses; for a decoupled model that had already sent its last one."""
        ...

    def fail(self, error: ModelportError) -> None:
        """It went wrong; no more responses."""
        ...


class Arrival(Struct, frozen=True):
    """How a request came to the server.

    Attributes:
        stages: What traces call the beginning and the end of receiving it, and of answering it.
        begun_ns: When the first of it had come.
        received_ns: When all of it had come.
    """

    stages: tuple[str, str, str, str]
    begun_ns: int
    received_ns: int


@runtime_checkable
class RemoteSink(Sink, Protocol):
    """A sink whose responses leave the server; asked only about requests that are traced."""

    def arrival(self) -> Arrival:
        """How the request came; asked once, while it is submitted."""
        ...


class Ticket(Protocol):
    """The caller's hold on a request that the engine owns."""

    def cancel(self) -> None:
        """Nobody waits any more: drop it if it is queued, tell the model if it runs.

        Idempotent; also after the end.
        """
        ...

    def resume(self) -> None:
        """More responses are welcome again."""
        ...
