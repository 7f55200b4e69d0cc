"""C1: a small JSON call by our client, by bentoml's and as bare bytes; C2: what importing costs."""

import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks import servers
from benchmarks.clients import launch
from benchmarks.plan import Plan
from benchmarks.report import Row, at_least, at_most, compared, value
from benchmarks.servers import BenchmarkError, Server
from benchmarks.workloads import services

_MODULE = "benchmarks.clients.one_call"
_PYTHON = services.BENTOML.with_name("python")


def small_calls(plan: Plan) -> Iterator[Row]:
    """Compare the time of a call, one after another on one connection.

    Raises:
        BenchmarkError: If there is no environment with BentoML.
    """
    if not _PYTHON.exists():
        raise BenchmarkError("needs BentoML in .venv-compat/bentoml; run make compat")
    found: dict[str, list[dict[str, float]]] = {"raw": [], "modelport": [], "bentoml": []}
    with servers.modelport(services.SERVICES / "ours.py") as server:
        server.await_answer(services.classified(1)[0], every_s=0.05)
        for index in range(plan.rounds):
            # Who goes first changes from round to round.
            callers = list(found) if index % 2 else list(reversed(found))
            for caller in callers:
                found[caller].append(_measured(server, caller, plan.seconds))
    times_us = {caller: [each["call_us"] for each in rounds] for caller, rounds in found.items()}
    for caller, figures in times_us.items():
        plan.tell_figures(f"C1, {caller}", figures, "µs")
    row = partial(compared, "C1", unit="µs")
    ours = times_us["modelport"]
    yield row("call, against the bare bytes", baseline=times_us["raw"], ours=ours, bar=at_most(2))
    cpu_us = {caller: [each["cpu_us"] for each in rounds] for caller, rounds in found.items()}
    yield row("client CPU, the same", baseline=cpu_us["raw"], ours=cpu_us["modelport"])
    yield compared(
        "C1",
        "calls, against bentoml's client",
        "/s",
        [1e6 / each for each in times_us["bentoml"]],
        [1e6 / each for each in ours],
        at_least(5),
    )


def import_time(plan: Plan) -> Iterator[Row]:
    """Take the processor time of importing our client, beyond what it is made of."""
    program = (
        "import numpy, asyncio, ssl, time; at = time.process_time()\n"
        "from modelport.client.bentoml import SyncHTTPClient; print(time.process_time() - at)"
    )
    environment = servers.inherited_environment()
    found_ms = []
    for _ in range(plan.rounds + 1):
        command = [sys.executable, "-c", program]
        found = subprocess.run(command, env=environment, capture_output=True, check=True)
        found_ms.append(float(found.stdout) * 1e3)
    # The first one leaves compiled modules.
    plan.tell_figures("C2, import", found_ms[1:], "ms")
    median_ms = statistics.median(found_ms[1:])
    yield value("C2", "import of SyncHTTPClient", "ms", median_ms, at_most(40))


def _measured(server: Server, caller: str, seconds: int) -> dict[str, float]:
    python = str(_PYTHON) if caller == "bentoml" else None
    return launch.measured_by(_MODULE, server.port, caller, seconds, python=python)
