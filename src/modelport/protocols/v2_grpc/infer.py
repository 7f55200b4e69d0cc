"""``ModelInfer``: the hot path, and what it shares with ``ModelStreamInfer``."""

from functools import partial

from modelport.errors import ModelFailed, ModelportError, Unsupported
from modelport.messages import Arrival, Request, Response, Sink, Ticket
from modelport.protocols.base import Buffer, Call, arrival_by_grpc
from modelport.protocols.threads import MOST_ON_LOOP, on_thread
from modelport.protocols.v2.images import submit_images
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.ports import DeploymentPort, EnginePort
from modelport.protocols.v2_grpc.regions import submit_from_regions
from modelport.protocols.v2_grpc.replies import INTERNAL, fail
from modelport.wire.ovms_images import ImageInputs
from modelport.wire.v2_classes import classify_outputs, takes_long
from modelport.wire.v2_grpc import (
    Head,
    Message,
    MessageReader,
    ResponseEncoder,
    has_much_to_read,
    read_message,
)

__all__ = ["InferHandler", "Inferences", "Known", "bound", "no_response", "read_whole"]


class Inferences:
    """Turns messages into requests of the engine."""

    def __init__(self, engine: EnginePort, options: V2Options) -> None:
        self._engine = engine
        self._options = options
        self.read = MessageReader().read

    def resolve(self, head: Head) -> "Known":
        """Find who answers.

        Raises:
            InvalidRequest: The version is none.
            NotFound: There is no such model or version.
            Unavailable: It is not ready.
        """
        deployment = self._engine.resolve(head.model, head.version)
        known: Known | None = deployment.memo.get("v2_grpc")
        if known is None:
            images = self._options.image_inputs(deployment.config)
            known = deployment.memo["v2_grpc"] = Known(deployment, images)
        return known

    def submit(self, known: "Known", request: Request, sink: Sink, head: Head) -> Ticket:
        """Send a request to who answers: its images decoded, its inputs in shared memory read.

        Raises:
            ModelportError: It is not taken.
        """
        if head.region_inputs or head.spans:
            late = partial(self._submit_now, request=request, head=head)
            return submit_from_regions(self._options.regions, late, request, sink, head)
        return self._submit_to(known, request, sink, head)

    def _submit_now(self, sink: Sink, *, request: Request, head: Head) -> Ticket:
        # Looked up again: the version may have been replaced while the inputs were read.
        return self._submit_to(self.resolve(head), request, sink, head)

    def _submit_to(self, known: "Known", request: Request, sink: Sink, head: Head) -> Ticket:
        images = known.images
        if images is not None and images.concerns(request.payload.tensors):
            find = partial(self._engine.resolve, head.model, head.version)
            return submit_images(images, find, request, sink)
        return known.deployment.submit(request, sink)

    def complete(self, request: Request, call: Call) -> None:
        """Put into a request what its call says rather than its message.

        Raises:
            InvalidRequest: A header that would be forwarded has a name that parameters cannot have.
        """
        principal = call.principal
        if principal:
            request.principal = principal
        deadline_ns = call.deadline_ns
        if deadline_ns is not None:
            request.deadline_ns = deadline_ns
        if self._options.forwarded is not None:
            forwarded = self._options.forwarded_headers(call.metadata)
            if forwarded:
                request.parameters = {**request.parameters, **forwarded}


class Known:
    """What follows from a configuration alone; kept with the deployment."""

    __slots__ = ("deployment", "encoder", "images", "is_decoupled")

    def __init__(self, deployment: DeploymentPort, images: ImageInputs | None = None) -> None:
        self.deployment = deployment
        self.images = images
        self.is_decoupled = deployment.is_decoupled
        self.encoder = ResponseEncoder(deployment.name, str(deployment.version))

    def encode(
        self, response: Response, head: Head, id: str, *, is_final: bool | None = None
    ) -> list[Buffer]:
        """Write a response to the request with this head.

        Raises:
            InvalidRequest: If an output cannot be given as classes.
        """
        if head.classes:
            deployment = self.deployment
            response = classify_outputs(
                response,
                head.classes,
                deployment.labels,
                is_batching=deployment.config.max_batch_size > 0,
            )
        return self.encoder.encode(
            response, id, head.outputs, elsewhere=head.spans, is_final=is_final
        )


class InferHandler:
    """Answers inference requests with one response each."""

    def __init__(self, inferences: Inferences) -> None:
        self._inferences = inferences

    def __call__(self, call: Call, data: Buffer) -> None:
        """Read, submit, and leave the rest to the sink."""
        if has_much_to_read(data, MOST_ON_LOOP):
            call.on_cancel = on_thread(
                partial(read_whole, data),
                partial(self._submit_late, call),
                partial(fail, call),
                partial(call.finish, INTERNAL, "the server made a mistake while it read this"),
            )
            return
        self._submit(call, self._inferences.read(data), None)

    def _submit_late(self, call: Call, read: tuple[Message, Request | ModelportError]) -> None:
        call.on_cancel = None
        self._submit(call, *read)

    def _submit(self, call: Call, message: Message, read: Request | ModelportError | None) -> None:
        known = self._inferences.resolve(message.head)
        if known.is_decoupled:
            raise Unsupported(
                "ModelInfer RPC doesn't support models with decoupled transaction policy. "
                "Call ModelStreamInfer."
            )
        try:
            request = message.bind() if read is None else bound(read)
            request.received_ns = call.received_ns
            self._inferences.complete(request, call)
            sink = _UnarySink(call, known, message)
            ticket = self._inferences.submit(known, request, sink, message.head)
        except ModelportError as exc:
            fail(call, exc, message.id)
            return
        if not sink.is_over:
            call.on_cancel = ticket.cancel


def read_whole(data: Buffer) -> tuple[Message, Request | ModelportError]:
    """Read a large message off the loop; what is wrong with it is said after its model is known."""
    message = read_message(data)
    try:
        return message, message.bind()
    except ModelportError as exc:
        return message, exc


def bound(read: Request | ModelportError) -> Request:
    """Give the request, or raise what was found to be wrong with it."""
    if isinstance(read, ModelportError):
        raise read
    return read


class _UnarySink:
    """Sends the one response to one call."""

    __slots__ = ("_call", "_known", "_message", "is_over")

    def __init__(self, call: Call, known: Known, message: Message) -> None:
        self._call = call
        self._known = known
        self._message = message
        self.is_over = False

    def arrival(self) -> Arrival:
        """How the request came."""
        return arrival_by_grpc(self._call)

    def push(self, response: Response, final: bool) -> bool:
        """Answer with the response."""
        message = self._message
        if message.head.classes and takes_long(response, message.head.classes):
            self._encode_off_loop(response)
            return False
        try:
            pieces = self._known.encode(response, message.head, message.id)
        except ModelportError as exc:
            self.fail(exc)
            return False
        self._send(pieces)
        return False

    def _encode_off_loop(self, response: Response) -> None:
        self.is_over = True
        call, message = self._call, self._message
        call.on_cancel = on_thread(
            partial(self._known.encode, response, message.head, message.id),
            self._send,
            self.fail,
            partial(call.finish, INTERNAL, "the server made a mistake while it wrote this"),
        )

    def _send(self, pieces: list[Buffer]) -> None:
        self.is_over = True
        self._call.answer(pieces)

    def end(self) -> None:
        """There was none."""
        if not self.is_over:
            self.fail(no_response(self._known))

    def fail(self, error: ModelportError) -> None:
        """Answer with the error."""
        self.is_over = True
        fail(self._call, error, self._message.id)


def no_response(known: Known) -> ModelFailed:
    """The error of an ordinary model that answers nothing."""
    return ModelFailed(f"model '{known.deployment.name}' gave no response")
