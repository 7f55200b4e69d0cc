"""SIGTERM: a server told to stop answers what it has received."""

import subprocess
import time
from collections.abc import Iterator

from benchmarks import inputs, servers
from benchmarks.clients.launch import client
from benchmarks.load import check
from benchmarks.plan import Plan
from benchmarks.report import Row, at_most, value
from benchmarks.servers import BenchmarkError, Server

_UNDER_LOAD_S = 0.5
_EXIT_TIMEOUT_S = 15.0


def under_load(plan: Plan) -> Iterator[Row]:
    """Count requests that were sent whole and never answered, over all rounds."""
    answered = lost = wrong = 0
    exits: list[int] = []
    exit_s: list[float] = []
    reasons: list[str] = []
    with servers.repository("affine", "sleeping") as repository:
        for _ in range(plan.rounds):
            with servers.modelport(repository) as server:
                check(server, [*inputs.affine(1), *inputs.slow("sleeping", 1)])
                with client("benchmarks.clients.drain", server.port) as load:
                    load.report()
                    time.sleep(_UNDER_LOAD_S)
                    exit_s.append(_stop(server))
                    found = load.report()
            exits.append(server.process.returncode)
            answered += found["answered"]
            lost += found["lost"]
            wrong += found["wrong"]
            reasons += found["reasons"]
    plan.tell(f"SIGTERM: {answered} requests answered in {plan.rounds} rounds")
    yield value("SIGTERM", "requests lost", "", lost, at_most(0), "; ".join(reasons[:3]))
    yield value("SIGTERM", "wrong answers", "", wrong, at_most(0))
    yield value("SIGTERM", "exits with an error", "", sum(map(bool, exits)), at_most(0))
    yield value("SIGTERM", "slowest exit", "s", max(exit_s))


def _stop(server: Server) -> float:
    started_at = time.perf_counter()
    server.process.terminate()
    try:
        server.process.wait(_EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(
            f"the server still runs {_EXIT_TIMEOUT_S:.0f} s after SIGTERM"
        ) from error
    return time.perf_counter() - started_at
