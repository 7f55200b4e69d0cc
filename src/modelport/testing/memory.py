"""A server in memory: exchanges, models and an engine as small as their seams, no socket.

The same handlers answer here as behind the listener.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelport.errors import ModelportError, NotFound
from modelport.messages import Request, Response, Sink
from modelport.protocols import v2_grpc
from modelport.protocols.base import BodyReceiver, Buffer, Headers, Receiver, Route
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2_rest import RestOptions, routes
from modelport.server.routing import Router
from modelport.specs import ModelConfig
from modelport.stats import InstanceStatistics, ModelStatistics

__all__ = [
    "MemoryCall",
    "MemoryDeployment",
    "MemoryEngine",
    "MemoryExchange",
    "MemoryGrpcServer",
    "MemoryInstance",
    "MemoryRow",
    "MemoryServer",
    "MemoryTicket",
]


class MemoryExchange:
    """One request and what was answered.

    Attributes:
        status: Of the answer; 0 before there is one.
        sent_headers: Of the answer, by lower-case name.
        sent: The pieces of the answer's body.
        finished: Set when it is whole.
        is_full: Set it to have the client stop reading.
    """

    def __init__(
        self,
        method: str,
        path: str,
        body: Buffer = b"",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = ""
        self.original_headers = dict(headers or {})
        self.headers = {name.lower(): value for name, value in self.original_headers.items()}
        self.params = params or {}
        self.body = body
        self.principal = ""
        self.begun_ns = 0
        self.received_ns = 0
        self.memo: Any = None
        self.on_disconnect: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.status = 0
        self.sent_headers: dict[str, str] = {}
        self.sent: list[bytes] = []
        self.finished = asyncio.Event()
        self.is_full = False

    def receive(self, receiver: BodyReceiver) -> None:
        """Give the body on, whole."""
        if len(self.body):
            receiver.data(self.body)
        receiver.complete()

    def hold_body(self) -> None:
        """Do nothing: the body is here."""

    def release_body(self) -> None:
        """Do nothing."""

    def respond(
        self, status: int, headers: Headers, body: Sequence[Buffer], *, close: bool = False
    ) -> None:
        """Answer whole."""
        self.start(status, headers)
        self.sent = [bytes(piece) for piece in body]
        self.finish()

    def start(self, status: int, headers: Headers) -> None:
        """Begin an answer."""
        assert self.status == 0, "answered twice"
        self.status = status
        self.sent_headers = {name.lower(): value for name, value in headers}

    def write(self, data: Buffer) -> bool:
        """Send a piece."""
        assert self.status
        assert not self.is_finished
        self.sent.append(bytes(data))
        return not self.is_full

    def finish(self) -> None:
        """End it."""
        assert not self.is_finished
        self.finished.set()

    def abort(self) -> None:
        """Break it off."""
        self.finished.set()

    @property
    def is_finished(self) -> bool:
        """Whether the answer is whole."""
        return self.finished.is_set()

    @property
    def answer(self) -> bytes:
        """The whole body that was sent."""
        return b"".join(self.sent)

    @property
    def json(self) -> Any:
        """The same, parsed."""
        return json.loads(self.answer)


class MemoryCall:
    """One gRPC call and what was answered.

    Attributes:
        sent: The messages of the answer, each whole.
        status: At the end; ``None`` before it.
        text: Of the status.
        finished: Set at the end.
        is_full: Set it to have the client stop reading.
        resumed: How often messages were welcome again.
    """

    def __init__(self, path: str, metadata: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.metadata = metadata or {}
        self.principal = ""
        self.begun_ns = 0
        self.received_ns = 0
        self.deadline_ns: int | None = None
        self.on_cancel: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.sent: list[bytes] = []
        self.status: int | None = None
        self.text = ""
        self.finished = asyncio.Event()
        self.is_full = False
        self.is_cancelled = False
        self.resumed = 0

    def send(self, message: Sequence[Buffer]) -> bool:
        """Send one message, unless it is over."""
        if self.status is None and not self.is_cancelled:
            self.sent.append(b"".join(message))
        return not self.is_full

    def finish(
        self, status: int = 0, text: str = "", trailers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """End it, unless it is over."""
        if self.status is None and not self.is_cancelled:
            self.status, self.text = status, text
            self.finished.set()

    def answer(self, message: Sequence[Buffer]) -> None:
        """Send one message and end it."""
        self.send(message)
        self.finish()

    def resume(self) -> None:
        """Count it."""
        self.resumed += 1

    def cancel(self) -> None:
        """Have the client go away."""
        self.is_cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def drain(self) -> None:
        """Have the server go down."""
        assert self.on_drain is not None
        self.on_drain()

    def read_again(self) -> None:
        """Have the client read what there is."""
        self.is_full = False
        assert self.on_writable is not None
        self.on_writable()


class MemoryTicket:
    """Remembers what its caller did."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.resumed = 0

    def cancel(self) -> None:
        """Remember it."""
        self.is_cancelled = True

    def resume(self) -> None:
        """Count it."""
        self.resumed += 1


class MemoryInstance:
    """Executes nothing, and can be looked at."""

    def __init__(self, name: str, *, running: int = 0) -> None:
        self.name = name
        self.running = running
        self.statistics = InstanceStatistics()


class MemoryDeployment:
    """Answers with what ``answer`` gives, or leaves the sink to the test where it gives None."""

    def __init__(
        self,
        config: ModelConfig,
        answer: Callable[[Request], Sequence[Response | ModelportError] | None],
        version: int = 1,
    ) -> None:
        self.name = config.name
        self.version = version
        self.config = config
        self.config_json = json.dumps({"name": config.name})
        self.labels: dict[str, Sequence[str]] = {}
        self.statistics = ModelStatistics()
        self.instances: Sequence[MemoryInstance] = ()
        self.memo: dict[str, Any] = {}
        self.ready = True
        self.requests: list[Request] = []
        self.sinks: list[Sink] = []
        self.tickets: list[MemoryTicket] = []
        self._answer = answer

    @property
    def is_decoupled(self) -> bool:
        """As its configuration says."""
        return self.config.is_decoupled

    def is_ready(self) -> bool:
        """As ``ready`` says."""
        return self.ready

    def submit(self, request: Request, sink: Sink) -> MemoryTicket:
        """Remember the request, and answer it at once if there is an answer."""
        for tensor in request.payload.tensors:
            if tensor.fault is not None:
                raise tensor.fault
        self.requests.append(request)
        self.sinks.append(sink)
        ticket = MemoryTicket()
        self.tickets.append(ticket)
        answers = self._answer(request)
        if answers is not None:
            self._give(answers, sink)
        return ticket

    def _give(self, answers: Sequence[Response | ModelportError], sink: Sink) -> None:
        for index, one in enumerate(answers):
            if isinstance(one, ModelportError):
                sink.fail(one)
                return
            sink.push(one, final=not self.is_decoupled and index == len(answers) - 1)
        if self.is_decoupled or not answers:
            sink.end()


@dataclass
class MemoryRow:
    """One line of an index."""

    name: str
    version: str | None = None
    state: str | None = None
    reason: str | None = None


@dataclass
class MemoryEngine:
    """Knows the models it is given, and remembers what it is asked to do."""

    models: list[MemoryDeployment] = field(default_factory=list)
    rows: list[MemoryRow] = field(default_factory=list)
    is_exiting: bool = False
    ready: bool = True
    live: bool = True
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    load_error: ModelportError | None = None
    resolve_error: ModelportError | None = None

    def resolve(self, model: str, version: str | None) -> MemoryDeployment:
        """Find a model."""
        if self.resolve_error is not None:
            raise self.resolve_error
        found = [m for m in self.deployments(model) if version in (None, str(m.version))]
        if not found:
            raise NotFound(f"Request for unknown model: '{model}' is not found")
        return found[-1]

    def deployments(self, model: str | None = None) -> list[MemoryDeployment]:
        """All models, or the versions of one."""
        return [one for one in self.models if model in (None, one.name)]

    def index(self) -> list[MemoryRow]:
        """Give ``rows``."""
        return self.rows

    async def load(
        self, model: str, *, config: str | None, files: Mapping[str, bytes] | None
    ) -> None:
        """Remember the call; raise ``load_error`` if it is set."""
        self.calls.append(("load", model, config, files))
        if self.load_error is not None:
            raise self.load_error

    async def unload(self, model: str, *, unload_dependents: bool) -> None:
        """Remember the call."""
        self.calls.append(("unload", model, unload_dependents))

    def is_live(self) -> bool:
        """As ``live`` says."""
        return self.live

    def is_ready(self, *, strict: bool) -> bool:
        """As ``ready`` says."""
        return self.ready or not strict


class MemoryServer:
    """Sends requests through the table of routes to the handlers."""

    def __init__(self, engine: MemoryEngine, options: RestOptions | None = None) -> None:
        self.engine = engine
        self.router = Router(routes(engine, options or RestOptions()))

    def route(self, method: str, path: str) -> tuple[Route | None, dict[str, str]]:
        """Look a path up."""
        match = self.router.match(method, path)
        return match.route, match.params

    def send(
        self,
        method: str,
        path: str,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
    ) -> MemoryExchange:
        """Send one request; a body that is no bytes goes as JSON."""
        route, params = self.route(method, path)
        assert route is not None, f"no route for {method} {path}"
        data = body if isinstance(body, bytes | memoryview) else json.dumps(body).encode()
        exchange = MemoryExchange(method, path, data, headers, params)
        route.handler(exchange)
        return exchange


class MemoryGrpcServer:
    """Sends calls through the table of methods to the handlers."""

    def __init__(self, engine: MemoryEngine, options: V2Options | None = None) -> None:
        self.engine = engine
        self.rpc_by_path = {rpc.path: rpc for rpc in v2_grpc.rpcs(engine, options or V2Options())}

    def call(
        self,
        method: str,
        message: Buffer = b"",
        *,
        service: str = "inference.GRPCInferenceService",
        call: MemoryCall | None = None,
    ) -> MemoryCall:
        """Send the one message of a unary call."""
        path = f"/{service}/{method}"
        rpc = self.rpc_by_path[path]
        call = call or MemoryCall(path)
        assert rpc.unary is not None
        try:
            rpc.unary(call, message)
        except ModelportError as exc:
            call.finish(*rpc.errors(exc))
        return call

    def open(
        self,
        method: str = "ModelStreamInfer",
        *,
        service: str = "inference.GRPCInferenceService",
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[MemoryCall, Receiver]:
        """Begin a streaming call."""
        path = f"/{service}/{method}"
        rpc = self.rpc_by_path[path]
        call = MemoryCall(path, metadata)
        assert rpc.stream is not None
        return call, rpc.stream(call)
