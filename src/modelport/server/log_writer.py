"""Writes lines on a thread of its own, because a disk or a pipe may take its time.

What logs never waits, and never fails: beyond a bound, and while nothing can be written, lines are
dropped, and the log says how many.
"""

import os
import queue
import threading
from collections.abc import Callable
from io import FileIO
from typing import Final, Protocol, TextIO

__all__ = ["Destination", "LogFile", "LogStream", "LogWriter"]

PAUSE_S = 0.02
"""How long the writer rests after each write, so that many lines go out in one.

Waking a thread costs several times what it costs to hand it a line; so it is woken 50 times a
second at the most.
"""


class Destination(Protocol):
    """Where lines go."""

    def write(self, text: str) -> None:
        """Write whole lines at once.

        Raises:
            OSError: They could not be written.
        """
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


class LogStream:
    """A stream that somebody else opened, and keeps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, and flush."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except ValueError as exc:
            raise OSError("the stream is closed") from exc

    def close(self) -> None:
        """Leave it open."""


class LogFile:
    """A file that is appended to, and opened anew when a rotation has moved it away.

    Without a buffer of its own: what a full disk has not taken must not come again, not be counted
    as lost and written later, and not fail the end.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.expanduser(path)
        self._file = self._open()
        self._is_torn = False

    def _open(self) -> FileIO:
        return open(self._path, "ab", buffering=0)

    def write(self, text: str) -> None:
        """Write to the file that has the name now."""
        if not self._is_in_place():
            self._file.close()
            self._file = self._open()
            self._is_torn = False
        data = text.encode("utf-8", "backslashreplace")
        if self._is_torn:
            self._file.write(b"\n")
            self._is_torn = False
        written = 0
        while written < len(data):
            written += self._file.write(data[written:])
            self._is_torn = data[written - 1] != _NEWLINE

    def _is_in_place(self) -> bool:
        if self._file.closed:
            return False
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close it."""
        self._file.close()


class LogWriter:
    """The queue, and the thread that empties it.

    Args:
        destination: Where lines go; closed with the writer.
        most_waiting: Lines that may wait.
        tell_lost: Gives the line that says how many were lost.
        redact: Takes what must not be seen out of the text.
        pause_s: How long to rest after a write.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        most_waiting: int,
        tell_lost: Callable[[int], str],
        redact: Callable[[str], str] = str,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._destination = destination
        self._most_waiting = most_waiting
        self._tell_lost = tell_lost
        self._redact = redact
        self._pause_s = pause_s
        self._queue: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._lost = 0
        self._is_hurried = threading.Event()
        self._thread = threading.Thread(target=self._run, name="modelport-log", daemon=True)

    def open(self) -> None:
        """Start writing."""
        self._thread.start()

    def put(self, line: str) -> None:
        """Hand over a line; safe from any thread, and never waits."""
        if self._queue.qsize() < self._most_waiting:
            self._queue.put(line)
        else:
            # Two threads at the same instant may count one: it tells how much, not how many.
            self._lost += 1

    def flush(self, timeout_s: float) -> None:
        """Wait until what was handed over before is written, but not for ever."""
        if self._thread.is_alive():
            written = threading.Event()
            self._queue.put(written)
            self._is_hurried.set()
            written.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write what is left, if the destination takes it in time, and stop."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._is_hurried.set()
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._write_waiting():
            if self._queue.empty() and self._is_hurried.wait(self._pause_s):
                self._is_hurried.clear()
        self._destination.close()

    def _write_waiting(self) -> bool:
        """Wait for the first item, take what else is there, write it in one go."""
        lines: list[str] = []
        flushed: list[threading.Event] = []
        is_open = True
        item = self._queue.get()
        while True:
            if item is None:
                is_open = False
            elif isinstance(item, threading.Event):
                flushed.append(item)
            else:
                lines.append(item)
            if len(lines) >= _MOST_AT_ONCE:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        self._write(lines)
        for event in flushed:
            event.set()
        return is_open

    def _write(self, lines: list[str]) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            lines.append(self._tell_lost(lost))
        if not lines:
            return
        try:
            self._destination.write(self._redact("".join(lines)))
        except OSError:
            # Nowhere to tell it; what comes next tells how much is missing.
            self._lost += lost + len(lines) - bool(lost)


_MOST_AT_ONCE: Final = 1024
_NEWLINE: Final = ord("\n")
