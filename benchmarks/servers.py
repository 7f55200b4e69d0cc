"""Start the servers that are measured, and end them whatever happens.

Every child is ended by its own process id. Children live in sessions of their own, so
that Ctrl-C reaches the benchmark alone, which then ends them in order.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.exchange import Exchange, answers_rightly

MODELS = Path(__file__).parent / "models"
_ROOT = Path(__file__).parent.parent
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0
_LOG_TAIL_BYTES = 2_000

# Large blocks stay in the process instead of being handed back to the kernel and faulted
# in again, which costs a 602 KB request up to 1 ms.
GENEROUS_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}

# What glibc begins with. Said aloud it stays so; else it is raised by what happens to be freed.
DEFAULT_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(128 << 10)}


class BenchmarkError(Exception):
    """A workload could not be measured; the text says what happened and what to do."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that this benchmark started and must end."""

    process: "subprocess.Popen[bytes]"
    name: str
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def log_tail(self) -> str:
        """Give the last lines that the process wrote."""
        return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()

    def resident_bytes(self) -> int:
        return machine.resident_bytes(self.pid)

    def cpu_seconds(self) -> float:
        return machine.cpu_seconds(self.pid)


@dataclass(frozen=True, slots=True)
class Server(Child):
    """A child that listens on a port of 127.0.0.1."""

    port: int
    started_at: float

    def await_answer(self, exchange: Exchange, *, every_s: float = 0.002) -> float:
        """Wait for the first right answer and give the seconds since the process was started.

        Raises:
            BenchmarkError: If the process ended, or gave no right answer in 20 s.
        """
        while True:
            if answers_rightly(self.port, exchange):
                return time.perf_counter() - self.started_at
            if self.process.poll() is not None:
                raise BenchmarkError(
                    f"{self.name} ended with status {self.process.returncode} before its first "
                    f"right answer; it wrote: {self.log_tail() or 'nothing'}"
                )
            if time.perf_counter() - self.started_at > _START_TIMEOUT_S:
                raise BenchmarkError(
                    f"{self.name} gave no right answer to {exchange.name} in "
                    f"{_START_TIMEOUT_S:.0f} s; it wrote: {self.log_tail() or 'nothing'}"
                )
            time.sleep(every_s)

    def await_connection(self) -> None:
        """Wait until the port takes connections.

        Raises:
            BenchmarkError: If it does not in 20 s.
        """
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError as error:
                if time.perf_counter() - self.started_at > _START_TIMEOUT_S:
                    raise BenchmarkError(
                        f"{self.name} takes no connections; it wrote: "
                        f"{self.log_tail() or 'nothing'}"
                    ) from error
                time.sleep(0.01)


@contextmanager
def child(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    core: int | None = None,
    output: int | None = None,
) -> Iterator[Child]:
    """Run a command, on one core if told so, and end it on leaving."""
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                _pinned(command, core),
                cwd=_ROOT,
                env={**inherited_environment(), **(environment or {})},
                # Unbuffered, so that waiting for a line and reading it see the same bytes.
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=sink if output is None else output,
                stderr=sink,
                start_new_session=True,
            )
        try:
            yield Child(process, name, log)
        finally:
            _end(process)


@contextmanager
def bare_uvicorn(
    app: str, *, environment: Mapping[str, str] | None = None, core: int | None = None
) -> Iterator[Server]:
    """Run ``benchmarks.baselines.<app>`` under uvicorn with uvloop, httptools and no access log."""
    port = machine.free_port()
    command = (
        f"{sys.executable} -m uvicorn benchmarks.baselines.{app}:app --host 127.0.0.1 "
        f"--port {port} --loop uvloop --http httptools --interface asgi3 --lifespan off "
        f"--ws none --no-access-log --log-level warning"
    ).split()
    with _server("bare uvicorn", command, port, environment, core) as server:
        yield server


@contextmanager
def bare_grpc(*, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run ``benchmarks.baselines.grpc_aio``."""
    port = machine.free_port()
    command = [sys.executable, "-m", "benchmarks.baselines.grpc_aio", str(port)]
    with _server("bare grpc.aio", command, port, environment, None) as server:
        yield server


@contextmanager
def modelport(
    repository: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    core: int | None = None,
) -> Iterator[Server]:
    """Serve a model repository with Modelport, default limits and statistics on."""
    port = machine.free_port()
    command = [sys.executable, "-m", "modelport", "serve", str(repository)]
    command += ["--http-port", str(port), "--metrics-port", "off", "--grpc-port", "off", *options]
    with _server("modelport", command, port, environment, core) as server:
        yield server


@contextmanager
def bentoml(program: Path, target: str) -> Iterator[Server]:
    """Serve a service with BentoML's own program, one worker, telemetry off."""
    port = machine.free_port()
    command = [str(program), "serve", target, "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"BENTOML_DO_NOT_TRACK": "True"}
    with _server("bentoml", command, port, quiet, None) as server:
        yield server


@contextmanager
def repository(*models: str) -> Iterator[Path]:
    """Lay out a model repository with the named models of ``benchmarks/models``."""
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as folder:
        root = Path(folder)
        for model in models:
            shutil.copytree(
                MODELS / model, root / model, ignore=shutil.ignore_patterns("__pycache__")
            )
        yield root


@contextmanager
def _server(
    name: str,
    command: Sequence[str],
    port: int,
    environment: Mapping[str, str] | None,
    core: int | None,
) -> Iterator[Server]:
    started_at = time.perf_counter()
    with child(name, command, environment=environment, core=core) as started:
        yield Server(started.process, name, started.log, port, started_at)


def inherited_environment() -> dict[str, str]:
    """This process's environment, with which modules are compiled once."""
    # Installed packages have compiled modules; a source tree gets them on its first start
    # unless this is set, and START would time the compiler.
    return {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _pinned(command: Sequence[str], core: int | None) -> list[str]:
    return list(command) if core is None else ["taskset", "-c", str(core), *command]


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
