"""Throughput and its latencies, measured with wrk replaying recorded requests."""

import json
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.exchange import Exchange, answers_rightly
from benchmarks.servers import BenchmarkError, Server

_SCRIPT = Path(__file__).with_name("replay.lua")
_WARM_UP_S = 1
_CHECKED_ANSWERS = 64


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the generator measured.

    Latencies count from a request's first byte; ``generator_busy`` is the share of one core
    that wrk itself used.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    refused: int
    broken: int
    late: int
    bad_status: int
    server_cpu_us: float
    generator_busy: float

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds

    @property
    def errors(self) -> int:
        return self.refused + self.broken + self.late + self.bad_status


def press(server: Server, exchanges: Sequence[Exchange], *, connections: int, seconds: int) -> Load:
    """Check answers, warm the server up, then load it for some seconds.

    Raises:
        BenchmarkError: If wrk is missing, or any answer was wrong, late or absent: a rate
            that counts failures is worth nothing.
    """
    check(server, exchanges)
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as folder:
        recording = Path(folder) / "requests"
        recording.write_bytes(b"".join(_records(exchanges, server.port)))
        _wrk(server, recording, connections, _WARM_UP_S)
        load = _wrk(server, recording, connections, seconds)
    if load.errors:
        raise BenchmarkError(
            f"{server.name} failed under load: {load.refused} connections refused, "
            f"{load.broken} broken, {load.late} answers late, {load.bad_status} with an error "
            f"status, of {load.requests} requests; it wrote: {server.log_tail() or 'nothing'}"
        )
    return load


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
    cpu_before_s = server.cpu_seconds()
    generator_before_s = _children_cpu_seconds()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    cpu_s = server.cpu_seconds() - cpu_before_s
    measured = [line for line in finished.stdout.splitlines() if line.startswith("{")]
    if finished.returncode != 0 or not measured:
        raise BenchmarkError(f"wrk failed: {finished.stderr.strip() or finished.stdout.strip()}")
    figures = json.loads(measured[-1])
    return Load(
        **figures,
        server_cpu_us=cpu_s * 1e6 / max(1, figures["requests"]),
        generator_busy=(_children_cpu_seconds() - generator_before_s) / figures["seconds"],
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
