"""One worker process, from its start to its end, as the server sees it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelport.errors import LoadFailed
from modelport.runtimes.worker.arena import ARENA_BYTES, Memory
from modelport.runtimes.worker.frames import Encoder, Frame, FrameReader, frame
from modelport.runtimes.worker.link import (
    Incoming,
    Outgoing,
    Writer,
    new_memories,
    receive,
    send_all,
)

__all__ = ["WorkerProcess", "exit_reason"]

Received = Callable[[int, bytes], None]

_MAIN = Path(__file__).with_name("main.py")
_PACKAGES = Path(__file__).parents[3]


class WorkerProcess:
    """A started process. Its life is tied to the thread that makes this object.

    Linux sends the signal of PR_SET_PDEATHSIG when the *thread* that started a process ends, so the
    thread has to stay until the process has gone.

    Args:
        title: Of the instance, for those who look at the list of processes.
        python: Path of the interpreter.

    Raises:
        LoadFailed: If the system gives us no process, memory or descriptors.
    """

    def __init__(self, title: str, python: str = sys.executable) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._frames = FrameReader()
        self._unwritten: list[bytes] = []
        self.received: Received = _ignore
        with contextlib.ExitStack() as ours:
            try:
                self.process = self._start(title, python, ours)
            except OSError as exc:
                raise LoadFailed(
                    f"a worker process could not be started: {exc.strerror or exc}"
                ) from exc
        self.pid = self.process.pid

    def _start(
        self, title: str, python: str, closing: contextlib.ExitStack
    ) -> "subprocess.Popen[bytes]":
        self.work, theirs = socket.socketpair()
        closing.callback(theirs.close)
        self.control, theirs_control = socket.socketpair()
        closing.callback(theirs_control.close)
        for connection in (self.work, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                connection.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        requests, responses = new_memories()
        fds = (theirs.fileno(), theirs_control.fileno(), requests, responses)
        command = [
            python,
            # What the model prints is seen at once, and what lies beside us is no module of its.
            "-u",
            "-P",
            str(_MAIN),
            str(os.getpid()),
            ",".join(map(str, fds)),
            _paths_for(python),
            title,
        ]
        try:
            process = subprocess.Popen(
                command, pass_fds=fds, stdin=subprocess.DEVNULL, env=_environment_of(python)
            )
        except BaseException:
            for fd in (requests, responses):
                os.close(fd)
            self._close_sockets()
            raise
        self.outgoing = Outgoing(Memory(requests, ARENA_BYTES))
        self.incoming = Incoming(Memory(responses, ARENA_BYTES))
        self.control.setblocking(False)
        self._control = Writer(self.control, self._wait)
        self._work = Writer(self.work, self._wait)
        return process

    # While it comes up: blocking, on the thread that has started it.

    def ask(self, question: bytes, received: Received) -> tuple[int, bytes]:
        """Have it load something, and wait until it has.

        Args:
            question: A frame.
            received: Takes the frames of other kinds that come meanwhile.

        Returns:
            Kind and body of LOADED or FAILED.

        Raises:
            LoadFailed: If it ends instead of answering.
        """
        try:
            send_all(self.work, question, ())
            while data := receive(self.work, self.incoming.fds):
                for kind, body in self._frames.feed(data):
                    if kind in (Frame.LOADED, Frame.FAILED):
                        return kind, body
                    received(kind, body)
        except (BrokenPipeError, ConnectionResetError):
            pass
        reason = exit_reason(self.process.wait())
        raise LoadFailed(f"the worker process {reason} while it was loading the model")

    # On the event loop.

    def attach(self, loop: asyncio.AbstractEventLoop, received: Received) -> None:
        """From now on everything goes through the loop; ``received`` is called on it."""
        self._loop = loop
        self.received = received
        self.work.setblocking(False)
        loop.add_reader(self.work.fileno(), self._readable)

    def write(self, data: bytes) -> None:
        """Send a frame before the loop looks at its sockets again, with all others of this turn."""
        if not self._unwritten:
            assert self._loop is not None
            self._loop.call_soon(self._flush)
        self._unwritten.append(data)
        if self.outgoing.fds:
            # They belong to this frame, and go before anything else is encoded.
            self._flush()

    def tell(self, data: bytes) -> None:
        """Send a frame past the batches that wait; on an event loop."""
        self._control.write(data, [])

    def reply(self, head: list[Any], encode: Callable[[Encoder, list[bytes]], object]) -> None:
        """Send what a call of the model came to; on an event loop."""
        encoder = self.outgoing.encoder
        parts = [b"", encoder.head(head)]
        encode(encoder, parts)
        self._control.write(encoder.closed(Frame.REPLY, parts), self.outgoing.take_fds())

    def _flush(self) -> None:
        if not self._unwritten:
            return
        release = self.incoming.release_frame()
        data = b"".join([*self._unwritten, release])
        self._unwritten.clear()
        self._work.write(data, self.outgoing.take_fds())

    def _wait(self, writer: Writer) -> None:
        connection = self.control if writer is self._control else self.work
        loop = asyncio.get_running_loop()
        fd = connection.fileno()

        def flush() -> None:
            if writer.flush():
                loop.remove_writer(fd)

        loop.add_writer(fd, flush)

    def _readable(self) -> None:
        try:
            data = receive(self.work, self.incoming.fds)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        received = self.received
        assert self._loop is not None
        if not data:
            self._loop.remove_reader(self.work.fileno())
            return
        for kind, body in self._frames.feed(data):
            received(kind, body)
        if self.incoming.owes_release:
            self.tell(self.incoming.release_frame())

    def drain(self) -> None:
        """Read what a process has said before it ended."""
        if self._loop is not None:
            self._loop.remove_reader(self.work.fileno())
        with contextlib.suppress(OSError):
            while data := receive(self.work, self.incoming.fds):
                for kind, body in self._frames.feed(data):
                    self.received(kind, body)

    # The end.

    def wait(self) -> int:
        """Wait until it has ended; give its status as ``subprocess`` does."""
        return self.process.wait()

    def ask_to_end(self) -> None:
        """Have it unload its model and end; not attached, or on the loop."""
        data = frame(Frame.UNLOAD)
        if self._loop is not None and not self._loop.is_closed():
            self.write(data)
        else:
            self.work.setblocking(True)
            with contextlib.suppress(OSError):
                send_all(self.work, data, ())

    def kill(self) -> None:
        """End it now."""
        self.process.kill()

    def close(self) -> None:
        """Give everything back; on the loop if it was attached, after the process has ended."""
        if self._loop is not None and not self._loop.is_closed():
            for connection in (self.work, self.control):
                self._loop.remove_reader(connection.fileno())
                self._loop.remove_writer(connection.fileno())
        self.received = _ignore
        self._control.close()
        self._work.close()
        self.incoming.close()
        self.incoming.memory.close()
        self.outgoing.memory.close()
        self._close_sockets()

    def _close_sockets(self) -> None:
        self.work.close()
        self.control.close()


def _paths_for(python: str) -> str:
    """Where it finds us, and what we are made of as far as it has that not itself."""
    others = [path for path in sys.path if path] if python != sys.executable else []
    return os.pathsep.join([str(_PACKAGES), *others])


def _environment_of(python: str) -> dict[str, str] | None:
    """What the process finds in its environment; ``None`` for what we have."""
    if python == sys.executable:
        return None
    # Programs of the model's own environment go before others, and its packages before those that
    # somebody has put into the path of ours.
    ours = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    return ours | {"PATH": f"{Path(python).parent}{os.pathsep}{ours.get('PATH', os.defpath)}"}


_OURS_ALONE = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX"})


def _ignore(_kind: int, _body: bytes) -> None:
    return


def exit_reason(status: int) -> str:
    """Say how a process has ended, for a sentence whose subject it is.

    >>> exit_reason(3), exit_reason(-11)
    ('ended with status 3', 'was killed by signal 11 (SIGSEGV)')
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        return f"was killed by signal {-status}"
    hint = "; the system may have been out of memory" if name == "SIGKILL" else ""
    return f"was killed by signal {-status} ({name}{hint})"
