"""Run a client process and read what it found."""

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.servers import BenchmarkError, Child, child

_REPORT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Client(Child):
    """A running client process; each thing it reports is one JSON line."""

    def report(self) -> dict[str, Any]:
        """Wait for the next report.

        Raises:
            BenchmarkError: If the client ended without one, or gave none in a minute.
        """
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _REPORT_TIMEOUT_S)
        if not ready:
            raise BenchmarkError(f"{self.name} reported nothing for {_REPORT_TIMEOUT_S:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise BenchmarkError(
                f"{self.name} ended without a result: {_last_words(self.log_tail())}"
            )
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> dict[str, Any]:
        """Ask a client that runs without an end to stop, and give its last report."""
        self.process.terminate()
        return self.report()


@contextmanager
def client(
    module: str, *arguments: object, core: int | None = None, python: str | None = None
) -> Iterator[Client]:
    """Run ``python -m MODULE ARGUMENTS...``, on one core and by another Python if told so."""
    command = [python or sys.executable, "-m", module, *(str(each) for each in arguments)]
    with child(module, command, core=core, output=subprocess.PIPE) as started:
        yield Client(started.process, module, started.log)


def measured_by(
    module: str, *arguments: object, core: int | None = None, python: str | None = None
) -> dict[str, Any]:
    """Run a client that ends by itself and give its one report."""
    with client(module, *arguments, core=core, python=python) as running:
        return running.report()


def _last_words(log: str) -> str:
    """Give the last line of a traceback, also where exceptions are drawn as a group."""
    lines = [line.strip(" |+-") for line in log.splitlines()]
    return next((line for line in reversed(lines) if line), "it wrote nothing")
