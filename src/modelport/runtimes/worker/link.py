"""The two ends of what joins a server and a worker: sockets, and shared memory beside them.

There are two pairs of sockets. Batches go over ``work``, which the worker reads between batches,
on the thread that executes them: so a small request costs no hop to another thread. What has to
reach a worker in the middle of a batch (a cancellation, a reader's credit, the answer to a call)
goes over ``control``, which a thread of its own reads.
"""

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from modelport.runtimes.worker.arena import ARENA_BYTES, Memory, Space, new_memory
from modelport.runtimes.worker.frames import Decoder, Encoder, Frame, frame
from modelport.tensors import Array

__all__ = ["Incoming", "Outgoing", "Writer", "new_memories", "receive", "send_all"]

CHUNK_BYTES = 256 * 1024
_MOST_FDS = 64
_RELEASE_AT = 32


class Outgoing:
    """What this end writes: an encoder, its memory, and the descriptors that go along."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.space = Space(memory.size)
        self.fds: list[int] = []
        self.encoder = Encoder(self)

    @property
    def is_exhausted(self) -> bool:
        """Whether no more memory can be sent along; what is left goes through the socket."""
        return len(self.fds) >= _MOST_FDS

    def store(self, data: Array) -> int | None:
        """Copy data into the arena, or, where it has no room, into memory of its own."""
        offset = self.space.take(data.nbytes)
        if offset is None:
            fd = new_memory(data.nbytes, "modelport-tensor")
            Memory(os.dup(fd), data.nbytes).write(0, data)
            self.fds.append(fd)
            return None
        self.memory.write(offset, data)
        return offset

    def released(self, body: bytes) -> None:
        """The other end needs regions no longer."""
        offsets = array.array("Q", body)
        for offset in offsets:
            self.space.give(offset)
        self.space.trim(self.memory)

    def take_fds(self) -> list[int]:
        """Descriptors that must be sent along with what has been encoded."""
        fds, self.fds = self.fds, []
        return fds


class Incoming:
    """What this end reads: a decoder, the other's memory, and descriptors that came along."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.fds: deque[int] = deque()
        self.decoder = Decoder(self)
        # Appended to by whoever lets go of the last view, wherever that happens.
        self._released: deque[int] = deque()

    def load(self, offset: int | None, dtype: Any, shape: tuple[int, ...]) -> Array:
        """See data where the other end has put it."""
        if offset is not None:
            release = self._released.append
            return self.memory.view(offset, dtype, shape, lambda: release(offset))
        fd = self.fds.popleft()
        apart = Memory(fd, os.fstat(fd).st_size)
        return apart.view(0, dtype, shape, _nothing)

    @property
    def owes_release(self) -> bool:
        """Whether so much has been let go of that the other end should be told now."""
        return len(self._released) >= _RELEASE_AT

    def release_frame(self) -> bytes:
        """Tell what is not needed any more; b"" if there is nothing to tell."""
        if not self._released:
            return b""
        offsets = array.array("Q")
        with contextlib.suppress(IndexError):
            while True:
                offsets.append(self._released.popleft())
        return frame(Frame.RELEASE, offsets.tobytes())

    def close(self) -> None:
        """Close descriptors that nobody will look at."""
        while self.fds:
            os.close(self.fds.popleft())


def new_memories() -> tuple[int, int]:
    """Make the memory of both directions."""
    there = new_memory(ARENA_BYTES, "modelport-requests")
    try:
        return there, new_memory(ARENA_BYTES, "modelport-responses")
    except BaseException:
        os.close(there)
        raise


def receive(connection: socket.socket, fds: deque[int]) -> bytes:
    """Receive what there is, b"" at the end; descriptors are put into ``fds``.

    Raises:
        BlockingIOError: On a non-blocking socket, if there is nothing.
    """
    data, ancillary, flags, _ = connection.recvmsg(CHUNK_BYTES, _ANCILLARY_BYTES, _CLOEXEC)
    for level, type_, packed in ancillary:
        if level == socket.SOL_SOCKET and type_ == socket.SCM_RIGHTS:
            given = array.array("i")
            given.frombytes(packed[: len(packed) - len(packed) % given.itemsize])
            fds.extend(given)
    if flags & socket.MSG_CTRUNC:
        raise OSError("the process has too many open files to take another one")
    return data


def send_all(connection: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send on a blocking socket; descriptors are closed afterwards."""
    view = memoryview(data)
    try:
        if fds:
            view = view[_send_fds(connection, view, fds) :]
        if view:
            connection.sendall(view)
    finally:
        for fd in fds:
            os.close(fd)


class Writer:
    """Sends on a non-blocking socket from an event loop, in order, and keeps what does not fit.

    Args:
        connection: Non-blocking.
        wait: Has ``flush`` called once it can be written to.
    """

    def __init__(self, connection: socket.socket, wait: Callable[["Writer"], None]) -> None:
        self._connection = connection
        self._wait = wait
        self._pending: deque[tuple[memoryview, list[int]]] = deque()
        self.is_waiting = False

    def write(self, data: bytes, fds: list[int]) -> None:
        """Send now what can be sent. Owns the descriptors."""
        self._pending.append((memoryview(data), fds))
        if not self.is_waiting:
            self.flush()

    def flush(self) -> bool:
        """Go on. Returns whether everything has been sent."""
        pending = self._pending
        try:
            while pending:
                view, fds = pending[0]
                if fds:
                    sent = _send_fds(self._connection, view, fds)
                    _close_all(fds)
                else:
                    sent = self._connection.send(view)
                if sent == len(view):
                    pending.popleft()
                else:
                    pending[0] = (view[sent:], [])
        except BlockingIOError:
            self.is_waiting = True
            self._wait(self)
            return False
        except OSError:
            # It has gone; whoever reads hears of it.
            self.close()
        self.is_waiting = False
        return True

    def close(self) -> None:
        """Forget what has not been sent."""
        while self._pending:
            _close_all(self._pending.popleft()[1])


def _send_fds(connection: socket.socket, view: memoryview, fds: Sequence[int]) -> int:
    assert len(fds) <= _MOST_FDS
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    return connection.sendmsg([view], rights)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()


def _nothing() -> None:
    return


_ANCILLARY_BYTES = (
    socket.CMSG_SPACE(_MOST_FDS * array.array("i").itemsize) if os.name == "posix" else 0
)
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
