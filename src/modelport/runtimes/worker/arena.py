"""Shared memory between a server and one of its workers, one piece for each direction.

It is made with ``memfd_create``: it has no name, so nobody can open it who was not handed its
descriptor, and it is gone when both ends are. It is sealed against shrinking, because whoever reads
memory that the other end has cut off is killed for it.

The writer alone decides what lies where (:class:`Space`), the reader tells when it needs a region
no longer. What finds no room, or is too large, gets a piece of its own that is sent along once.
The size is only address space: pages come to be when they are first written to.
"""

import contextlib
import fcntl
import mmap
import os
import sys
import threading
from bisect import insort
from collections.abc import Callable
from typing import Any

import numpy as np

from modelport.errors import LoadFailed
from modelport.tensors import Array

__all__ = [
    "ALIGNMENT",
    "ARENA_BYTES",
    "KEPT_BYTES",
    "Memory",
    "Space",
    "check_platform",
    "new_memory",
]

ARENA_BYTES = 256 * 1024 * 1024
"""Address space of one direction."""
ALIGNMENT = 4096
"""Whole pages, so that giving some back to the system touches no neighbour."""
KEPT_BYTES = 64 * 1024 * 1024
"""What an empty arena keeps in memory for the next request."""


class Space:
    """Which parts of an arena are taken: first fit, so that what was used last is used again.

    Safe to call from any thread.

    >>> space = Space(3 * ALIGNMENT)
    >>> space.take(10), space.take(ALIGNMENT + 1), space.take(1)
    (0, 4096, None)
    >>> space.give(0)
    >>> space.take(1)
    0
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken_by_offset: dict[int, int] = {}
        self.highest = 0
        self._free: list[tuple[int, int]] = [(0, size)]
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Space {sum(self.taken_by_offset.values())} of {self.size} bytes taken>"

    def take(self, size: int) -> int | None:
        """Give the offset of a free part, or ``None``."""
        size = max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
        with self._lock:
            for index, (offset, free) in enumerate(self._free):
                if free >= size:
                    if free == size:
                        del self._free[index]
                    else:
                        self._free[index] = (offset + size, free - size)
                    self.taken_by_offset[offset] = size
                    self.highest = max(self.highest, offset + size)
                    return offset
        return None

    def give(self, offset: int) -> None:
        """Take a part back; one that is not taken is ignored, the other end may be confused."""
        with self._lock:
            size = self.taken_by_offset.pop(offset, 0)
            if size:
                insort(self._free, (offset, size))
                self._join()

    def trim(self, memory: "Memory") -> None:
        """Have the system take back what nothing lies in and is more than is kept."""
        with self._lock:
            if not self.taken_by_offset and self.highest > KEPT_BYTES:
                memory.mapping.madvise(mmap.MADV_REMOVE, KEPT_BYTES, self.highest - KEPT_BYTES)
                self.highest = 0

    def _join(self) -> None:
        joined: list[tuple[int, int]] = []
        for offset, size in self._free:
            if joined and joined[-1][0] + joined[-1][1] == offset:
                joined[-1] = (joined[-1][0], joined[-1][1] + size)
            else:
                joined.append((offset, size))
        self._free = joined


class Memory:
    """A piece of shared memory, mapped.

    Args:
        fd: Of the memory; belongs to this object, which keeps its own and closes this one.
        size: In bytes.
    """

    def __init__(self, fd: int, size: int) -> None:
        try:
            self.mapping = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.size = size

    def write(self, offset: int, array: Array) -> None:
        """Copy an array to a place, in C order."""
        if array.nbytes:
            target = np.ndarray(array.shape, array.dtype, self.mapping, offset)
            np.copyto(target, array)

    def view(
        self, offset: int, dtype: Any, shape: tuple[int, ...], released: Callable[[], object]
    ) -> Array:
        """See an array in place; ``released`` is called once no view on it lives.

        Raises:
            ValueError: If it does not lie inside.
        """
        region = np.ndarray.__new__(_Region, shape, dtype, self.mapping, offset)
        region._released = released
        return region.view(np.ndarray)

    def close(self) -> None:
        """Give it back now, unless somebody still looks at it; then it goes with the last view."""
        with contextlib.suppress(BufferError):
            self.mapping.close()


class _Region(np.ndarray[Any, Any]):
    """What all views on a region hold on to."""

    _released: Callable[[], object] | None = None

    def __del__(self) -> None:
        if self._released is not None:
            self._released()


def new_memory(size: int, name: str) -> int:
    """Make memory that no path leads to, and whose size is fixed. Returns its descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_platform(model: str) -> None:
    """Say where worker processes cannot be had.

    Raises:
        LoadFailed: Anywhere but on Linux.
    """
    if sys.platform != "linux":
        raise LoadFailed(
            f"model '{model}' is to run in worker processes, which need Linux (memfd_create); set "
            "its parameter execution to thread"
        )
