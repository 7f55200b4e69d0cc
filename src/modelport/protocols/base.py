"""What the server gives to the protocols, and what they give to it.

A protocol is rows: each :class:`Route` says which requests it wants and what to do with them. The
handler gets an :class:`Exchange` when the request has come whole, and answers through it, at once
or later. Nothing here knows a socket; the same handlers run in memory under the tests.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct, field

from modelport.errors import ModelportError
from modelport.messages import Arrival

__all__ = [
    "ADMIN",
    "Access",
    "Body",
    "BodyReceiver",
    "Buffer",
    "Call",
    "ErrorEncoder",
    "Exchange",
    "Handler",
    "Headers",
    "Receiver",
    "Reply",
    "Route",
    "Rpc",
    "arrival_by_grpc",
    "arrival_by_http",
    "without_framing",
]

Buffer = bytes | bytearray | memoryview
Headers = Sequence[tuple[str, str]]


class Access(enum.Enum):
    """Who may call a route. The value is the category of Triton's restricted APIs, where one is."""

    PUBLIC = "health"
    """Liveness and readiness: no key, ever."""
    MODEL_HEALTH = "health "
    """Readiness of one model."""
    METADATA = "metadata"
    INFERENCE = "inference"
    STATISTICS = "statistics"
    METRICS = "metrics"
    MODEL_CONFIG = "model-config"
    REPOSITORY_INDEX = "model-repository "
    MODEL_REPOSITORY = "model-repository"
    """Loads and unloads: the admin key, where there are keys."""
    TRACE = "trace"
    LOGGING = "logging"
    SHARED_MEMORY = "shared-memory"


ADMIN = frozenset({Access.MODEL_REPOSITORY, Access.TRACE, Access.LOGGING, Access.SHARED_MEMORY})
"""What needs the admin key while keys are on."""


class Body(enum.Enum):
    """How a route wants the body of a request."""

    WHOLE = "whole"
    STREAM = "stream"
    """As it comes, by ``Exchange.receive``; one that came with its head may be whole already."""


class BodyReceiver(Protocol):
    """Takes a body piece by piece. Called on the event loop only."""

    def data(self, piece: Buffer) -> None:
        """Take a piece, which is not kept for long afterwards.

        Raises:
            ModelportError: It is refused, and the client is told so; nothing more comes.
        """
        ...

    def complete(self) -> None:
        """It has come whole."""
        ...


class Exchange(Protocol):
    """One request and the way to answer it. Used on the event loop only.

    Attributes:
        body: Whole and still compressed as it was sent. If it is large, byte ``align_at`` of it
            lies on a 64-byte boundary.
        begun_ns: When its head had come, on the engine's clock; 0 if all of it came with it.
        received_ns: When the last byte had come, on the engine's clock.
        on_disconnect: Called once if the client goes away before the answer is out.
        on_writable: Called when a stream that was full may be written again.
    """

    body: Buffer
    begun_ns: int
    received_ns: int
    on_disconnect: Callable[[], None] | None
    on_writable: Callable[[], None] | None

    @property
    def method(self) -> str:
        """In capitals; GET where the client said HEAD."""
        ...

    @property
    def path(self) -> str:
        """Still percent-encoded, without the query."""
        ...

    @property
    def query(self) -> str:
        """After the ``?``, still encoded; "" for none."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; values of repeated headers are joined by ", "."""
        ...

    @property
    def original_headers(self) -> Mapping[str, str]:
        """The same with the names as they were sent; made anew each time."""
        ...

    @property
    def params(self) -> Mapping[str, str]:
        """What the pattern of the route found in the path, decoded."""
        ...

    @property
    def principal(self) -> str:
        """Who asks; "" for everybody."""
        ...

    @property
    def memo(self) -> Any:
        """``None`` at first; what is kept here is given to the next request with the same head.

        The same byte for byte, from whichever client: the place for what follows from it alone.
        """
        ...

    @memo.setter
    def memo(self, value: Any) -> None: ...

    def receive(self, receiver: "BodyReceiver") -> None:
        """Have the body given on as it comes; of a body that is whole, at once.

        On a route with ``Body.STREAM`` the handler is called before the body has come, and calls
        this. If the client goes away meanwhile, ``on_disconnect`` is called, ``complete`` is not.
        """
        ...

    def hold_body(self) -> None:
        """Have the client wait with the rest of the body; what is on its way is still given on."""
        ...

    def release_body(self) -> None:
        """Have it go on. Doing it again does nothing."""
        ...

    def respond(
        self, status: int, headers: Headers, body: Sequence[Buffer], *, close: bool = False
    ) -> None:
        """Answer whole; ``Content-Length`` is added. The buffers must not change afterwards."""
        ...

    def start(self, status: int, headers: Headers) -> None:
        """Begin an answer whose length is not known yet."""
        ...

    def write(self, data: Buffer) -> bool:
        """Send a piece of it at once.

        Returns:
            Whether the client keeps up; after ``False`` wait for ``on_writable``.
        """
        ...

    def finish(self) -> None:
        """End the answer that ``start`` began."""
        ...

    def abort(self) -> None:
        """Break the answer off so that the client sees that it is not whole."""
        ...


Handler = Callable[[Exchange], None]


class Reply(Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Headers = ()
    body: Sequence[Buffer] = ()


ErrorEncoder = Callable[[ModelportError], Reply]
"""Says an error in the protocol's own form."""


class Route(Struct, frozen=True, kw_only=True):
    """One row of the table of paths.

    Attributes:
        method: In capitals. HEAD is answered like GET, without the body, unless the protocol
            forbids it.
        pattern: ``/v2/models/{model}/infer``; ``{name}`` is one component, ``{name:int}`` one of
            digits, ``{name:path}`` the rest.
        access: Who may call it.
        handler: Called with every request that was let in.
        errors: How this protocol says what the server refuses by itself.
        body: How the body is wanted.
        max_body_bytes: ``None`` for the server's limit, counted before and after decompression.
        max_body_setting: The setting that ``max_body_bytes`` is, for the refusal of a larger body.
        align_header: Name of a header that says at which byte of the body tensors begin.
    """

    method: str
    pattern: str
    access: Access
    handler: Handler
    errors: ErrorEncoder
    body: Body = Body.WHOLE
    max_body_bytes: int | None = None
    max_body_setting: str = "--max-upload-size"
    align_header: Literal["", "inference-header-content-length"] = ""
    tags: frozenset[str] = field(default_factory=frozenset)


class Receiver(Protocol):
    """Takes what the client of a streaming call sends. Called on the event loop only."""

    def message(self, data: Buffer) -> bool:
        """Take one message, decompressed.

        Returns:
            Whether another one is welcome now; after ``False`` the server reads no further until
            ``Call.resume``.
        """
        ...

    def half_closed(self) -> None:
        """The client has sent all it wants to; it still waits for responses."""
        ...


class Call(Protocol):
    """One gRPC call and the way to answer it. Used on the event loop only.

    Attributes:
        begun_ns: When it had begun, on the engine's clock.
        received_ns: When it, or its one message, had come whole; of a stream, when the last piece
            had come.
        deadline_ns: When the client stops waiting (``grpc-timeout``); ``None`` for never.
        on_cancel: Called once if the client resets the call, goes away or has waited too long,
            before ``finish``.
        on_writable: Called when a call that was full may be sent more.
        on_drain: Called while the server goes down, any number of times until ``finish``: a call
            that has no end of its own ends when nothing is under way on it.
    """

    begun_ns: int
    received_ns: int
    deadline_ns: int | None
    on_cancel: Callable[[], None] | None
    on_writable: Callable[[], None] | None
    on_drain: Callable[[], None] | None

    @property
    def path(self) -> str:
        """``/package.Service/Method``."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Names in lower case; values of repeated names joined by ", ", binary ones in base64."""
        ...

    @property
    def principal(self) -> str:
        """Who asks; "" for everybody."""
        ...

    def send(self, message: Sequence[Buffer]) -> bool:
        """Send one message, given in pieces that must not change afterwards.

        Returns:
            Whether the client keeps up; after ``False`` wait for ``on_writable``.
        """
        ...

    def finish(
        self, status: int = 0, text: str = "", trailers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """End the call with a status code of gRPC. Without a message before, nothing else is sent.

        After the end, here or by the client, ``send`` and ``finish`` do nothing.
        """
        ...

    def answer(self, message: Sequence[Buffer]) -> None:
        """Send the one message of an answer, and end the call well: ``send`` and ``finish``."""
        ...

    def resume(self) -> None:
        """Messages are welcome again."""
        ...


class Rpc(Struct, frozen=True, kw_only=True):
    """One row of the table of gRPC methods; exactly one of ``unary`` and ``stream`` is set.

    Attributes:
        path: ``/package.Service/Method``.
        access: Who may call it.
        unary: Called with the one message of the client. It answers through the call, at once or
            later, with one message or, as health's Watch, with many.
        stream: Called when the call begins; what it gives takes the messages.
        errors: Status code and text for what the server refuses by itself, and for a
            :class:`~modelport.errors.ModelportError` that a handler raises.
    """

    path: str
    access: Access
    errors: Callable[[ModelportError], tuple[int, str]]
    unary: Callable[[Call, Buffer], None] | None = None
    stream: Callable[[Call], Receiver] | None = None


def arrival_by_http(exchange: Exchange) -> Arrival:
    """Say for a trace how the request of an exchange came."""
    received_ns = exchange.received_ns
    return Arrival(_HTTP_STAGES, exchange.begun_ns or received_ns, received_ns)


def arrival_by_grpc(call: Call, *, is_stream: bool = False) -> Arrival:
    """Say for a trace how the message of a call came, or the last one of a stream."""
    received_ns = call.received_ns
    return Arrival(_GRPC_STAGES, received_ns if is_stream else call.begun_ns, received_ns)


# Source: Triton, "Trace", section "JSON Trace Output".
_HTTP_STAGES = "HTTP_RECV_START", "HTTP_RECV_END", "HTTP_SEND_START", "HTTP_SEND_END"
_GRPC_STAGES = "GRPC_WAITREAD_START", "GRPC_WAITREAD_END", "GRPC_SEND_START", "GRPC_SEND_END"


def without_framing(headers: Headers) -> Headers:
    """Leave out of the headers that somebody's code wants what the listener writes itself."""
    return [row for row in headers if row[0].lower() not in _FRAMING]


_FRAMING = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})
