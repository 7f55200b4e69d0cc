"""Shared memory over V2 gRPC: registering it, and requests that read and write it."""

from collections.abc import Callable
from functools import partial

from modelport.errors import ModelFailed, ModelportError
from modelport.messages import Arrival, RemoteSink, Request, Response, Sink, Ticket
from modelport.protocols.base import Buffer, Call
from modelport.protocols.threads import on_thread
from modelport.protocols.v2 import shared_memory
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2.ports import HoldPort, RegionsPort
from modelport.protocols.v2_grpc.replies import reply
from modelport.wire import v2_grpc_admin as wire
from modelport.wire.proto import grpc_service_pb2 as pb
from modelport.wire.v2_grpc import Head

__all__ = ["RegionHandlers", "submit_from_regions"]


class RegionHandlers:
    """The handlers of what registers regions."""

    def __init__(self, options: V2Options) -> None:
        self._regions = options.regions

    def status(self, call: Call, data: Buffer) -> None:
        """Say which regions are registered."""
        name = wire.decode(pb.SystemSharedMemoryStatusRequest, data).name
        rows = shared_memory.status(self._regions, name or None)
        by_name = {"regions": {row["name"]: row for row in rows}}
        reply(call, wire.encode(pb.SystemSharedMemoryStatusResponse, by_name))

    def register(self, call: Call, data: Buffer) -> None:
        """Register a region."""
        regions = shared_memory.allowed(self._regions)
        name, asked = wire.decode_registration(data)
        regions.register(name, asked.key, asked.offset, asked.byte_size)
        reply(call, b"")

    def unregister(self, call: Call, data: Buffer) -> None:
        """Forget a region, or all."""
        name = wire.decode(pb.SystemSharedMemoryUnregisterRequest, data).name
        shared_memory.unregister(self._regions, name or None)
        reply(call, b"")

    def cuda_status(self, call: Call, data: Buffer) -> None:
        """Say which regions of GPU memory are registered."""
        shared_memory.cuda_status(wire.decode(pb.CudaSharedMemoryStatusRequest, data).name or None)
        reply(call, b"")

    def cuda_register(self, call: Call, data: Buffer) -> None:
        """Refuse to register GPU memory."""
        shared_memory.allowed(self._regions)
        shared_memory.refuse_cuda(wire.decode_cuda_registration(data))

    def cuda_unregister(self, call: Call, data: Buffer) -> None:
        """Forget regions of GPU memory: there are none."""
        reply(call, b"")


def submit_from_regions(
    regions: RegionsPort | None,
    submit: Callable[[Sink], Ticket],
    request: Request,
    sink: Sink,
    head: Head,
) -> Ticket:
    """Read the inputs that lie in shared memory, submit, and write the outputs that go there.

    Args:
        regions: Those that are registered; ``None`` where the operator allows none.
        submit: Sends the request to the engine, when its inputs are there.
        request: Owned from here on.
        sink: Gets the responses, when the outputs are written.
        head: Of the request.

    Raises:
        ModelportError: It is not taken.
    """
    held = shared_memory.hold(regions, head.region_inputs, head.spans)
    read = partial(shared_memory.read_inputs, held, request, head.region_inputs, head.model)
    between = _InRegions(submit, sink, head, held)
    size = sum(each.span.byte_size for each in head.region_inputs)
    if size > shared_memory.MOST_COPIED_ON_LOOP:
        between.submit_late(read)
    else:
        between.submit(read)
    return between


class _InRegions:
    """Stands between the engine and a sink, as the one's sink and the other's ticket.

    The regions are kept from the first look at them until nobody needs them any more.
    """

    def __init__(
        self, submit: Callable[[Sink], Ticket], sink: Sink, head: Head, held: HoldPort
    ) -> None:
        self._submit = submit
        self._sink = sink
        self._head = head
        self._held = held
        self._ticket: Ticket | None = None
        self._leave: Callable[[], None] = held.release
        self._is_over = False

    def submit(self, read: Callable[[], None]) -> None:
        """Read, and submit."""
        try:
            read()
            self._ticket = self._submit(self)
        except ModelportError:
            self._held.release()
            raise

    def submit_late(self, read: Callable[[], None]) -> None:
        """Read on a thread, then submit; what goes wrong is told to the sink."""
        late = shared_memory.LateRelease(self._held, read)
        leave = on_thread(late.work, self._submit_read, self.fail, self._abort)

        def leave_reading() -> None:
            leave()
            late.release()

        self._leave = leave_reading

    def _submit_read(self, _: None) -> None:
        self._leave = self._held.release
        self._ticket = self._submit(self)

    def _abort(self) -> None:
        self.fail(ModelFailed("the server made a mistake while it read the inputs"))

    # The sink's side.

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._is_over = True
        if self._ticket is not None:
            self._ticket.cancel()
        self._leave()

    def resume(self) -> None:
        """More responses are welcome again."""
        if self._ticket is not None:
            self._ticket.resume()

    # The engine's side.

    def arrival(self) -> Arrival:
        """How the request came."""
        assert isinstance(self._sink, RemoteSink)
        return self._sink.arrival()

    def push(self, response: Response, final: bool) -> bool:
        """Write the outputs that go to shared memory, and pass the response on."""
        if self._is_over:
            return False
        try:
            shared_memory.write_outputs(self._held, response, self._head.spans)
        except ModelportError as exc:
            self.fail(exc)
            if self._ticket is not None:
                self._ticket.cancel()
            return False
        if final:
            self._end()
        return self._sink.push(response, final)

    def end(self) -> None:
        """Pass the end on."""
        if not self._is_over:
            self._end()
            self._sink.end()

    def fail(self, error: ModelportError) -> None:
        """Pass the error on."""
        if not self._is_over:
            self._end()
            self._sink.fail(error)

    def _end(self) -> None:
        self._is_over = True
        self._held.release()
