"""A server in a process of its own, for as long as a block of Python runs."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ServerHandle", "serve"]

READY_WITHIN_S = 120.0
STOPPED_WITHIN_S = 30.0
_READY = re.compile(r"is ready on (\S+?)[,\s]")


class ServerHandle:
    """A server that was started; also a context manager, which stops it.

    Attributes:
        url: Where it answers.
        process: That runs it.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.url = ""
        self.lines: list[str] = []
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"<ServerHandle {self.url or 'starting'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End it, and wait for that. Doing it again does nothing."""
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def wait_ready(self, timeout: float = READY_WITHIN_S) -> None:
        """Wait until it answers.

        Args:
            timeout: In seconds.

        Raises:
            RuntimeError: It has ended, or takes longer; the text holds what it said last.
        """
        self._is_ready.wait(timeout)
        if not self.url:
            self.stop()
            raise RuntimeError(f"the server did not start:\n{''.join(self.lines[-20:])}")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if len(self.lines) < 1000:
                self.lines.append(line)
            found = _READY.search(line)
            if found and not self.url:
                self.url = found[1]
                self._is_ready.set()
        self._is_ready.set()


def serve(
    target: Any, *, port: int = 0, timeout: float = READY_WITHIN_S, **settings: Any
) -> ServerHandle:
    """Start a server on this machine and wait until it is ready.

    ``with serve("service.py:Summarization") as server:`` stops it at the end of the block.

    Args:
        target: What ``modelport serve`` takes, or a service that is defined in a file.
        port: Where to listen; 0 is any free one.
        timeout: How long it may take, in seconds.
        settings: Options of ``modelport serve`` with underscores: ``api_key="..."``.

    Raises:
        RuntimeError: It did not start; the text holds what it said.
        TypeError: The service is defined in no file, as in an interpreter.
    """
    command = [sys.executable, "-m", "modelport", "serve", _target(target)]
    own: Mapping[str, Any] = {"grpc_port": "0", "metrics_port": "off", **settings}
    command += [f"--http-port={port}"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in own.items()]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    handle = ServerHandle(process)
    handle.wait_ready(timeout)
    return handle


def _target(target: Any) -> str:
    if isinstance(target, str | Path):
        return str(target)
    module = sys.modules.get(getattr(target, "__module__", ""))
    file = getattr(module, "__file__", None)
    if file is None or not hasattr(target, "apis"):
        raise TypeError(
            f"{target!r} cannot be started in another process; give the path of its file"
        )
    return f"{file}:{target.__name__}"
