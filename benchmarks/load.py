"""Throughput and its latencies: wrk replays recorded requests, our own client sends images."""

import json
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import inputs, machine
from benchmarks.clients.launch import client
from benchmarks.exchange import Exchange, answers_rightly
from benchmarks.servers import BenchmarkError, Server

_SCRIPT = Path(__file__).with_name("replay.lua")
_WARM_UP_S = 1
_CHECKED_ANSWERS = 64


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of a generator measured.

    Latencies count from a request's first byte; ``generator_busy`` is the share of one core
    that the generator itself used (near 1 it is the generator that was measured), and
    ``others_busy`` what neither it nor the server used.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    server_cpu_us: float
    generator_busy: float
    others_busy: float

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


def press(server: Server, exchanges: Sequence[Exchange], *, connections: int, seconds: int) -> Load:
    """Check answers, warm the server up, then load it for some seconds with wrk.

    Raises:
        BenchmarkError: If wrk is missing, or any answer was wrong, late or absent: a rate
            that counts failures is worth nothing.
    """
    check(server, exchanges)
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as folder:
        recording = Path(folder) / "requests"
        recording.write_bytes(b"".join(_records(exchanges, server.port)))
        _wrk(server, recording, connections, _WARM_UP_S)
        return _wrk(server, recording, connections, seconds)


def press_with_images(server: Server, *, connections: int, seconds: int) -> Load:
    """Check answers, warm the server up, then send it images with a client of our own.

    Raises:
        BenchmarkError: If any answer was wrong or absent.
    """
    check(server, inputs.image_identity())
    with client("benchmarks.clients.bulk", server.port, connections, seconds) as generator:
        generator.report()
        use = _Use(server)
        figures = generator.report()
        generator_s = figures.pop("cpu_s")
        return use.load(figures, generator_s)


def press_with_calls(
    server: Server, kind: str, *, connections: int, seconds: int, is_checked: bool = True
) -> Load:
    """Warm the server up, then make gRPC calls with a client of our own.

    Args:
        server: Answers gRPC on its port.
        kind: Which requests: a function of :mod:`benchmarks.messages`.
        connections: With one call at a time on each.
        seconds: How long.
        is_checked: Whether every answer must be right, or only be one.

    Raises:
        BenchmarkError: If any call failed.
    """
    arguments = (server.port, kind, connections, seconds, int(is_checked))
    with client("benchmarks.clients.calls", *arguments) as generator:
        generator.report()
        use = _Use(server)
        figures = generator.report()
        generator_s = figures.pop("cpu_s")
        return use.load(figures, generator_s)


def check(server: Server, exchanges: Sequence[Exchange]) -> None:
    """Make sure that the server is up and answers the first requests rightly.

    Raises:
        BenchmarkError: If one answer is wrong.
    """
    server.await_answer(exchanges[0])
    for exchange in exchanges[:_CHECKED_ANSWERS]:
        if not answers_rightly(server.port, exchange):
            raise BenchmarkError(f"{server.name} answered a request to {exchange.path} wrongly")


def wrk_path() -> str:
    """Find wrk.

    Raises:
        BenchmarkError: If it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise BenchmarkError(
            "wrk, the load generator, is not installed: `apt-get install wrk` on Debian and "
            "Ubuntu, `brew install wrk` on macOS, `dnf install wrk` on Fedora"
        )
    return found


def _wrk(server: Server, recording: Path, connections: int, seconds: int) -> Load:
    # One thread: a second would take the core on which the server runs.
    command = [wrk_path(), "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", "10s", "--script", str(_SCRIPT)]
    command += [f"http://127.0.0.1:{server.port}/", "--", str(recording)]
    use = _Use(server)
    generator_before_s = _children_cpu_seconds()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    generator_s = _children_cpu_seconds() - generator_before_s
    printed = [line for line in finished.stdout.splitlines() if line.startswith("{")]
    if finished.returncode != 0 or not printed:
        raise BenchmarkError(f"wrk failed: {finished.stderr.strip() or finished.stdout.strip()}")
    figures = json.loads(printed[-1])
    failures = figures.pop("failures")
    if any(failures.values()):
        raise BenchmarkError(
            f"{server.name} failed under load: {failures}, of {figures['requests']} requests; "
            f"it wrote: {server.log_tail() or 'nothing'}"
        )
    return use.load(figures, generator_s)


class _Use:
    """Who used the processor since this was made."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._server_before_s = server.cpu_seconds()
        self._all_before_s = machine.busy_seconds()

    def load(self, figures: dict[str, Any], generator_s: float) -> Load:
        """Complete what a generator measured."""
        server_s = self._server.cpu_seconds() - self._server_before_s
        others_s = machine.busy_seconds() - self._all_before_s - server_s - generator_s
        return Load(
            **figures,
            server_cpu_us=server_s * 1e6 / max(1, figures["requests"]),
            generator_busy=generator_s / figures["seconds"],
            others_busy=max(0.0, others_s) / figures["seconds"],
        )


def _children_cpu_seconds() -> float:
    """Give the processor time of all children that have ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _records(exchanges: Iterable[Exchange], port: int) -> Iterable[bytes]:
    for exchange in exchanges:
        request = exchange.request(port)
        yield b"%08x" % len(request)
        yield request
