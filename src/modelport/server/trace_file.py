"""Files of traces, in Triton's JSON; written on a thread of their own.

A file is a list that is whole after every write: the bracket that ends it is written over by what
comes next. With a log frequency of N each N traces have a file of their own: ``<file>.0``, and so
on.

Source: Triton, "Trace", section "JSON Trace Output".
"""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from modelport.engine.tracing import Trace, TracedTensor
from modelport.wire import json

__all__ = ["TraceFile"]

MOST_WAITING: Final = 100_000
"""Traces that may wait for the disk; more are dropped."""

log = logging.getLogger("modelport.trace")


class TraceFile:
    """Keeps traces.

    Args:
        path: Of the file; what is there is replaced by the first trace.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[Trace] = deque()
        self._is_writing = False
        # What belongs to the thread alone.
        self._end_by_path: dict[Path, int] = {}
        self._in_file = 0
        self._index = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="modelport-trace")

    def keep(self, trace: Trace) -> None:
        """Have a trace written soon."""
        if len(self._waiting) >= MOST_WAITING:
            return
        self._waiting.append(trace)
        if not self._is_writing:
            self._is_writing = True
            self._thread.submit(self._write_waiting)

    def close(self) -> None:
        """Write what is left."""
        self._thread.shutdown()

    def _write_waiting(self) -> None:
        # First the flag, then the traces: who adds one meanwhile schedules once too often.
        self._is_writing = False
        try:
            while self._waiting:
                self._write(self._waiting.popleft())
        except OSError as exc:
            self._waiting.clear()
            log.error("traces cannot be written: %s", exc.strerror or exc)

    def _write(self, trace: Trace) -> None:
        path = self._path
        if trace.log_frequency:
            path = path.with_name(f"{path.name}.{self._index}")
            self._in_file += 1
            if self._in_file >= trace.log_frequency:
                self._index += 1
                self._in_file = 0
        rows = b",\n".join(json.encode(row) for row in _rows(trace))
        end = self._end_by_path.get(path, 0)
        with path.open("r+b" if end else "wb") as file:
            if end:
                file.seek(end)
                file.write(b",\n")
            else:
                file.write(b"[\n")
            file.write(rows)
            self._end_by_path[path] = file.tell()
            file.write(b"\n]\n")


def _rows(trace: Trace) -> Iterator[dict[str, Any]]:
    about: dict[str, Any] = {
        "id": trace.id,
        "model_name": trace.model,
        "model_version": trace.version,
    }
    if trace.request_id:
        about["request_id"] = trace.request_id
    if trace.parent is not None:
        about["parent_id"] = trace.parent.id
    yield about
    if trace.timestamps:
        # A stream is sent while its model runs, and when that began is noted at the end.
        in_order = sorted(trace.timestamps, key=itemgetter(1))
        timestamps = [{"name": name, "ns": at_ns} for name, at_ns in in_order]
        yield {"id": trace.id, "timestamps": timestamps}
    for tensor in trace.tensors:
        yield {"id": trace.id, "activity": tensor.activity, "tensor": _shown(tensor)}
    for step in trace.steps:
        yield from _rows(step)


def _shown(tensor: TracedTensor) -> dict[str, str]:
    return {
        "name": tensor.name,
        "data": ",".join(_text(value) for value in tensor.data),
        "shape": ",".join(map(str, tensor.shape)),
        "dtype": tensor.datatype,
    }


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return f'"{value.decode(errors="replace")}"'
    return str(value)
