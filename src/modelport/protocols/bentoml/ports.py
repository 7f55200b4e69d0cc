"""What this protocol asks of the engine, of services and of the queue of tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelport.messages import Request, Sink, Ticket
from modelport.protocols.base import Exchange, Handler, Route
from modelport.specs import ModelConfig

__all__ = [
    "DeploymentPort",
    "EnginePort",
    "Prepared",
    "ResultPort",
    "ServedEndpoint",
    "ServedService",
    "TaskQueue",
    "TypedMethod",
]


class DeploymentPort(Protocol):
    """One version that takes requests."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def config(self) -> ModelConfig:
        """Complete."""
        ...

    def is_ready(self) -> bool:
        """Whether it can still answer."""
        ...

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Take a request, or raise."""
        ...


class EnginePort(Protocol):
    """The whole."""

    def resolve(self, model: str, version: str | None) -> DeploymentPort:
        """Give what answers for a model, or raise."""
        ...

    def deployments(self, model: str | None = None) -> Sequence[DeploymentPort]:
        """All that are ready, or those of one model."""
        ...

    def is_ready(self, *, strict: bool) -> bool:
        """Whether what should be served is."""
        ...


class Prepared(Protocol):
    """An answer, ready to be written; see :class:`modelport.services.results.Encoded`."""

    headers: tuple[tuple[str, str], ...]
    body: bytes
    status: int | None
    file: Any
    parts: Sequence[Any]
    app: Any
    is_text: bool


class ResultPort(Protocol):
    """How results are written."""

    @property
    def media_type(self) -> str:
        """Of a stream."""
        ...


class TypedMethod(Protocol):
    """A method with types; see :class:`modelport.services.endpoint.Endpoint`."""

    @property
    def name(self) -> str:
        """As declared, whatever other services have."""
        ...

    @property
    def is_stream(self) -> bool:
        """Whether it gives any number of items."""
        ...

    @property
    def is_root(self) -> bool:
        """Whether the body itself is its one argument."""
        ...

    @property
    def context_name(self) -> str | None:
        """The parameter that is given a context, if any."""
        ...

    @property
    def file_fields(self) -> Mapping[str, bool]:
        """Parameters that are files, and whether each is a list of them."""
        ...

    @property
    def result(self) -> ResultPort:
        """Makes answers of results."""
        ...

    @property
    def doc(self) -> str:
        """What its author wrote of it."""
        ...

    @property
    def root_kind(self) -> str:
        """For a root input: ``file``, ``text``, ``bytes`` or ``json``."""
        ...

    @property
    def input_schema(self) -> Mapping[str, Any]:
        """In the form of ``/schema.json``."""
        ...

    @property
    def output_schema(self) -> Mapping[str, Any]:
        """In the form of ``/schema.json``."""
        ...

    @property
    def annotations(self) -> Mapping[str, Any]:
        """Types by the names of its parameters."""
        ...

    def bind_json(self, body: Any) -> dict[str, Any]:
        """Make arguments of a JSON body, or raise InvalidArguments."""
        ...

    def bind_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Make arguments of values by name, or raise InvalidArguments."""
        ...

    def bind_root(self, value: Any) -> dict[str, Any]:
        """Make the one argument of the body, or raise InvalidArguments."""
        ...

    def batch_of(self, values: dict[str, Any]) -> tuple[int, Any]:
        """Count the rows, and say who may share the batch."""
        ...

    def encode(self, value: Any) -> Prepared:
        """Make an answer of a result or an item."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedEndpoint:
    """One endpoint at its place.

    Attributes:
        method: What is called.
        model: Name of the model that answers for it.
        name: By which clients of this protocol know it.
        route: The whole path.
        service: Name of its service.
        timeout_s: How long a call may take; of a stream, to its first item.
        is_task: Whether it can be submitted.
        max_rows: Most rows of a batch; 0 if requests are not put together.
        make_context: Gives a method that wants one its context.
        new_folder: Gives a call of a principal its own directory.
        new_upload: Makes what the method's kinds of files take.
        fetch: Gets the file behind a URL into such a directory; blocks.
        run_app: Has an ASGI application answer an exchange.
        run_later: Runs what a method left to be done after the answer.
        retry: What an interruption means for a task; "" leaves it to ``is_idempotent``.
        is_idempotent: Whether a task may run twice.
    """

    method: TypedMethod
    model: str
    name: str
    route: str
    service: str
    timeout_s: float
    is_task: bool
    max_rows: int
    make_context: Callable[[Any, Any], Any]
    new_folder: Callable[[str], Any]
    new_upload: Callable[..., Any]
    fetch: Callable[[str, Any], Any]
    run_app: Callable[[Exchange, Any], None]
    run_later: Callable[[Any], None]
    retry: str = ""
    is_idempotent: bool = False


class ServedService(Protocol):
    """One service, being served."""

    @property
    def name(self) -> str:
        """By which it is known."""
        ...

    @property
    def doc(self) -> str:
        """What it is for."""
        ...

    @property
    def prefix(self) -> str:
        """What its paths begin with; "" for nothing."""
        ...

    @property
    def endpoints(self) -> Sequence[ServedEndpoint]:
        """In the order of their definition."""
        ...

    @property
    def has_metrics(self) -> bool:
        """Whether its calls are counted under BentoML's names."""
        ...

    @property
    def mounted_paths(self) -> Sequence[str]:
        """Of its ASGI applications."""
        ...

    async def is_ready(self) -> bool:
        """Whether it says so of itself, if it says anything."""
        ...

    async def is_alive(self) -> bool:
        """Whether it says so of itself, if it says anything."""
        ...


class TaskQueue(Protocol):
    """Keeps what is to be done later, and does it.

    The work of a task is a call of its endpoint's own ``handler`` with an exchange that holds the
    request that was submitted and keeps the answer.
    """

    def routes(self, endpoint: ServedEndpoint, handler: Handler) -> Sequence[Route]:
        """Give the routes of one task: submit, status, get, cancel, retry and what else it has."""
        ...
