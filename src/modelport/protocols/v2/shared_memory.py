"""Tensors in shared memory: how regions are registered, and how requests read and write them.

For REST and gRPC alike; ``regions`` is ``None`` where the operator has not allowed it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from modelport.errors import InvalidRequest, NotFound, Unsupported
from modelport.messages import Request, Response
from modelport.protocols.v2.ports import HoldPort, RegionsPort
from modelport.tensors import Tensor
from modelport.wire.v2_bytes import decode_bytes, encode_array
from modelport.wire.v2_regions import SHARED_MEMORY_IS_OFF, RegionInput, Span

__all__ = [
    "MOST_COPIED_ON_LOOP",
    "LateRelease",
    "allowed",
    "cuda_status",
    "hold",
    "read_inputs",
    "refuse_cuda",
    "status",
    "unregister",
    "write_outputs",
]

MOST_COPIED_ON_LOOP = 16 * 2**20
"""Bytes of inputs in shared memory above which copying them would hold up the others: 2 ms."""


def allowed(regions: RegionsPort | None) -> RegionsPort:
    """Let a request for shared memory pass where the operator allows it.

    Raises:
        Unsupported: Shared memory is off.
    """
    if regions is None:
        raise Unsupported(SHARED_MEMORY_IS_OFF)
    return regions


def refuse_cuda(name: str) -> NoReturn:
    """Refuse to register GPU memory.

    Raises:
        InvalidRequest: Always.
    """
    raise InvalidRequest(
        f"failed to register CUDA shared memory region: '{name}', GPUs not supported"
    )


def unregister(regions: RegionsPort | None, name: str | None) -> None:
    """Forget a region, known or not, or all of them."""
    if regions is not None:
        regions.unregister(name or None)


def status(regions: RegionsPort | None, name: str | None) -> list[dict[str, str | int]]:
    """Say what is registered: name, key, offset and byte_size of each, or of one.

    Raises:
        NotFound: There is no such region.
    """
    if regions is not None:
        return regions.status(name or None)
    if name:
        raise NotFound(f"Unable to find system shared memory region: '{name}'")
    return []


def cuda_status(name: str | None) -> list[dict[str, str | int]]:
    """Say which regions of GPU memory are registered: none.

    Raises:
        NotFound: One is asked for.
    """
    if name:
        raise NotFound(f"Unable to find cuda shared memory region: '{name}'")
    return []


def hold(
    regions: RegionsPort | None, inputs: Iterable[RegionInput], outputs: Mapping[str, Span]
) -> HoldPort:
    """Keep the regions of a request until it is over; whoever asks calls ``release`` then.

    Raises:
        InvalidRequest: An output would lie outside its region.
        NotFound: A region is not registered.
        Unsupported: Shared memory is off.
    """
    spans = [each.span for each in inputs]
    spans += outputs.values()
    held = allowed(regions).hold({span.region for span in spans})
    try:
        for span in spans:
            held.check(span.region, span.offset, span.byte_size)
    except InvalidRequest:
        held.release()
        raise
    return held


def read_inputs(
    held: HoldPort, request: Request, inputs: Sequence[RegionInput], model: str
) -> None:
    """Put the inputs that lie in regions into a request. May take a moment if they are large.

    What is wrong with the bytes of one is its ``fault``.

    Raises:
        InvalidRequest: A region has become shorter, or no array can have the shape.
        TooLarge: They are too large.
    """
    tensors: list[Tensor] = list(request.payload.tensors)
    for each in inputs:
        span = each.span
        data = held.read(span.region, span.offset, span.byte_size)
        tensors[each.position] = decode_bytes(
            each.name, each.datatype, each.shape, data, 0, len(data), model
        )
    request.payload.tensors = tensors


class LateRelease:
    """Inputs that are read on a thread, while their caller may go away.

    The regions stay open until the thread is through with them: a descriptor that is closed may
    be another file's a moment later.
    """

    def __init__(self, held: HoldPort, read: Callable[[], None]) -> None:
        self._held = held
        self._read = read
        self._is_read = False
        self._is_left = False

    def work(self) -> None:
        """Read; called on the thread."""
        try:
            self._read()
        finally:
            # Each side notes what it has done before it looks at the other: one of them sees both.
            self._is_read = True
            if self._is_left:
                self._held.release()

    def release(self) -> None:
        """Nobody waits any more."""
        self._is_left = True
        if self._is_read:
            self._held.release()


def write_outputs(held: HoldPort, response: Response, spans: Mapping[str, Span]) -> None:
    """Put the outputs that are wanted in regions there: all of them, or none.

    Raises:
        InvalidRequest: One does not fit.
    """
    pieces = []
    for tensor in response.outputs:
        span = spans.get(tensor.name)
        if span is None:
            continue
        data = encode_array(tensor.array, tensor.datatype)
        if len(data) > span.byte_size:
            raise InvalidRequest(
                "shared memory size specified with the request for output "
                f"'{tensor.name}' ({span.byte_size} bytes) should be at least {len(data)} bytes to "
                "hold the results"
            )
        pieces.append((span, data))
    for span, data in pieces:
        held.write(span.region, span.offset, span.byte_size, data)
