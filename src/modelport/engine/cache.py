"""Answers that were given before: kept for models whose answer depends on nothing but the request.

Pure but for the memory it holds: what is kept, what is found, and what goes when room is needed.
Who asks is :mod:`modelport.engine.caching`. Keys are SHA-256 of all that a model sees of a request,
so that nobody can make a request that gets somebody else's answer.

Source: Triton, "Response Cache"; the local cache with its ``size``.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from modelport.dtypes import BYTES
from modelport.messages import Request, Response
from modelport.tensors import Array, Tensor

__all__ = ["MOST_ENTRY_BYTES", "MOST_INPUT_BYTES", "CacheStatistics", "ResponseCache", "digest"]

MOST_INPUT_BYTES = 4 * 1024 * 1024
"""Larger requests are not looked up: hashing them would hold up the event loop for over 2 ms."""
MOST_ENTRY_BYTES = 16 * 1024 * 1024
"""Larger responses are not kept: copying them would do the same."""
MOST_ELEMENTS = 65536
"""The same for BYTES tensors, whose elements are looked at one by one."""
ENTRY_BYTES = 1024
"""What an entry takes beside its data: the key, the objects, the arrays' heads."""
ELEMENT_BYTES = 48
"""What an element of a BYTES tensor takes beside its data."""


class CacheStatistics(NamedTuple):
    """What a cache holds now, and what it has let go.

    Attributes:
        entries: Responses that are kept.
        used_bytes: What they take, at most ``size_bytes``.
        size_bytes: The bound.
        evictions: Responses that had to make room for others since the start.
    """

    entries: int
    used_bytes: int
    size_bytes: int
    evictions: int


class ResponseCache:
    """Keeps responses, and lets those go first that nobody has asked for the longest.

    Args:
        size_bytes: What all of them together may take.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._entries: OrderedDict[tuple[Hashable, bytes], tuple[Response, int]] = OrderedDict()
        self._used_bytes = 0
        self._evictions = 0

    def __repr__(self) -> str:
        kept = len(self._entries)
        return f"<ResponseCache entries={kept} bytes={self._used_bytes} of {self._size_bytes}>"

    def get(self, owner: Hashable, key: bytes) -> Response | None:
        """Find a response. Its arrays are read-only, and may be given to anybody."""
        entry = self._entries.get((owner, key))
        if entry is None:
            return None
        self._entries.move_to_end((owner, key))
        return entry[0]

    def put(self, owner: Hashable, key: bytes, response: Response) -> None:
        """Keep a copy of a response, if it is not too large.

        Args:
            owner: The deployment that gave it.
            key: What ``digest`` says of its request.
            response: Whole; stays its caller's.
        """
        size_bytes = ENTRY_BYTES + sum(_size_of(tensor) for tensor in response.outputs)
        if size_bytes > min(self._size_bytes, MOST_ENTRY_BYTES):
            return
        self._remove((owner, key))
        while self._used_bytes + size_bytes > self._size_bytes:
            self._remove(next(iter(self._entries)))
            self._evictions += 1
        copies = [_copy(tensor) for tensor in response.outputs]
        kept = Response(copies, dict(response.parameters))
        self._entries[owner, key] = (kept, size_bytes)
        self._used_bytes += size_bytes

    def drop(self, owner: Hashable) -> None:
        """Let go of everything that a deployment gave."""
        for key in [key for key in self._entries if key[0] == owner]:
            self._remove(key)

    def statistics(self) -> CacheStatistics:
        """Tell what is kept now."""
        return CacheStatistics(
            len(self._entries), self._used_bytes, self._size_bytes, self._evictions
        )

    def _remove(self, key: tuple[Hashable, bytes]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._used_bytes -= entry[1]


def digest(request: Request) -> bytes | None:
    """Give what identifies a request: equal for two that a model cannot tell apart.

    Returns:
        32 bytes; ``None`` for a request that is not worth looking up, being faulty or large.
    """
    tensors = request.payload.tensors
    if any(tensor.fault is not None for tensor in tensors):
        return None
    if sum(_size_of(tensor) for tensor in tensors) > MOST_INPUT_BYTES:
        return None
    parameters = sorted(request.parameters.items())
    hashed = hashlib.sha256(repr((sorted(request.outputs), parameters)).encode())
    for tensor in sorted(tensors, key=_name_of):
        # A shape says how many bytes follow, so that nothing can be read in two ways.
        head = repr((tensor.name, tensor.datatype.name, tensor.shape))
        hashed.update(f"{len(head)}:{head}".encode())
        if tensor.datatype is BYTES:
            for element in tensor.array.flat:
                # A member of an ensemble may have given text.
                data = element.encode() if isinstance(element, str) else element
                hashed.update(len(data).to_bytes(8, "little"))
                hashed.update(data)
        else:
            hashed.update(_flat(tensor.array))
    return hashed.digest()


def _name_of(tensor: Tensor) -> str:
    return tensor.name


def _flat(array: Array) -> memoryview:
    contiguous = array if array.flags.c_contiguous else array.copy()
    return contiguous.reshape(-1).view("u1").data


def _size_of(tensor: Tensor) -> int:
    """Bytes that a tensor takes; more than there may be, if it has too many elements to count."""
    array = tensor.array
    if tensor.datatype is not BYTES:
        return array.nbytes
    if array.size > MOST_ELEMENTS:
        return MOST_ENTRY_BYTES + 1
    return sum(map(len, array.flat)) + ELEMENT_BYTES * array.size


def _copy(tensor: Tensor) -> Tensor:
    # A view on a batch would hold all of the batch.
    array = tensor.array.copy()
    array.flags.writeable = False
    return Tensor(tensor.name, tensor.datatype, array)
