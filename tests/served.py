"""Runs ``modelport serve`` the way a user does: as a process, over sockets."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READY_WITHIN_S = 60
"""Frameworks are imported meanwhile, on machines that have other things to do."""
STOPPED_WITHIN_S = 30

GREETING = re.compile(
    r"is ready on (?P<url>\S+?)[,\s]"
    r"(.*gRPC: (?P<grpc>[^,)\s]+))?(.*metrics: (?P<metrics>[^,)\s]+))?"
)


@dataclass
class Served:
    """A server that is ready.

    Attributes:
        process: What runs it.
        url: Where HTTP is answered.
        grpc_address: Host and port of gRPC; "" where it has no port.
        metrics_url: The whole address of the metrics; "" where they have no port.
        lines: What it has written so far, both streams.
    """

    process: subprocess.Popen[str]
    url: str = ""
    grpc_address: str = ""
    metrics_url: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Host and port."""
        return self.url.partition("://")[2]

    def stop(self) -> int:
        """Ask it to end and give its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOPPED_WITHIN_S)


@contextmanager
def serving(
    *arguments: str,
    command: tuple[str, ...] = (sys.executable, "-m", "modelport", "serve"),
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Iterator[Served]:
    """Start a server on free ports, and stop it in the end, which must go well.

    It keeps its data in a folder of its own, and not where this machine's user does.
    """
    data = tempfile.TemporaryDirectory(prefix="modelport-test-", ignore_cleanup_errors=True)
    own = {"MODELPORT_DATA_DIR": data.name}
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=directory,
        env=clean_environment() | FREE_PORTS | own | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    served = Served(process)
    is_ready = threading.Event()
    reader = threading.Thread(target=_read, args=(served, is_ready), daemon=True)
    reader.start()
    try:
        is_ready.wait(READY_WITHIN_S)
        if not served.url:
            raise AssertionError(f"the server did not become ready:\n{''.join(served.lines)}")
        yield served
        if process.poll() is None:
            status = served.stop()
            assert status == 0, f"the server ended with {status}:\n{''.join(served.lines)}"
    finally:
        process.kill()
        process.wait()
        reader.join()
        data.cleanup()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def bounded(process: "subprocess.Popen[str]", within_s: float = 60.0) -> Iterator[None]:
    """End a process with the block, and at the latest after so many seconds.

    So neither a failed assertion nor reading from it waits for ever.
    """
    timer = threading.Timer(within_s, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        process.terminate()  # first, for it may have started others
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def call(
    served: Served,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> tuple[int, dict[str, str], bytes]:
    """Send one request on a connection of its own, as curl does without options.

    Args:
        served: Whom to ask.
        path: With its query.
        body: Bytes, or pieces of them, as they are; ``None`` for none; anything else as JSON.
        headers: Beside those that say how long the body is.
        method: Of HTTP.

    Returns:
        Status, headers by name in lower case, and body.
    """
    is_raw = body is None or isinstance(body, bytes | Iterator)
    connection = http.client.HTTPConnection(served.address, timeout=READY_WITHIN_S)
    with contextlib.closing(connection):
        connection.request(
            method, path, body if is_raw else json.dumps(body).encode(), dict(headers or {})
        )
        with connection.getresponse() as reply:
            said = {name.lower(): value for name, value in reply.getheaders()}
            return reply.status, said, reply.read()


def get(
    served: Served, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Ask for what is at a path; see ``call``."""
    return call(served, path, headers=headers, method="GET")


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of Modelport."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MODELPORT_")}


def _read(served: Served, is_ready: threading.Event) -> None:
    assert served.process.stdout is not None
    for line in served.process.stdout:
        served.lines.append(line)
        found = GREETING.search(line)
        if found and not served.url:
            served.url, served.metrics_url = found["url"], found["metrics"] or ""
            served.grpc_address = found["grpc"] or ""
            is_ready.set()
    is_ready.set()


FREE_PORTS = {
    "MODELPORT_HTTP_PORT": "0",
    "MODELPORT_GRPC_PORT": "0",
    "MODELPORT_METRICS_PORT": "0",
}
