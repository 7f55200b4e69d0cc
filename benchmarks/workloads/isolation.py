"""W6: W1 beside a model that takes 200 ms and is called all the time."""

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks import inputs, servers
from benchmarks.clients.launch import client
from benchmarks.load import check, press
from benchmarks.plan import Plan
from benchmarks.report import Bar, Row, at_most, value
from benchmarks.servers import BenchmarkError, Server
from benchmarks.workloads.tiny import CONNECTIONS

_CALLERS = 2
_CALL_S = 0.2
# One thread for the matrices: two of them, the server and wrk do not fit on two cores.
_ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_NEIGHBOURS: tuple[tuple[str, str, Bar | None], ...] = (
    ("sleeping", "beside a waiting model", at_most(5)),
    ("multiplying", "beside a model in numpy", at_most(5)),
    # No bar: as long as one interpreter's lock is shared, this is what threads can give.
    ("spinning", "beside a model in pure Python", None),
)


def beside_slow_models(plan: Plan) -> Iterator[Row]:
    """Give the p99 of W1 alone and beside each kind of slow model."""
    models = [model for model, _, _ in _NEIGHBOURS]
    with servers.repository("affine", *models) as repository:
        yield value("W6", "W1 p99, alone", "ms", _p99_ms(plan, repository, None))
        for model, subject, bar in _NEIGHBOURS:
            p99_ms = _p99_ms(plan, repository, model)
            yield value("W6", f"W1 p99, {subject}", "ms", p99_ms, bar)


def _p99_ms(plan: Plan, repository: Path, neighbour: str | None) -> float:
    measured = []
    for _ in range(plan.rounds):
        with servers.modelport(repository, environment=_ONE_BLAS_THREAD) as server:
            measured.append(
                _press(plan, server)
                if neighbour is None
                else _press_beside(plan, server, neighbour)
            )
    plan.tell_figures(f"W6, {neighbour or 'alone'}", measured, "ms")
    return statistics.median(measured)


def _press(plan: Plan, server: Server) -> float:
    return press(server, inputs.affine(), connections=CONNECTIONS, seconds=plan.seconds).p99_ms


def _press_beside(plan: Plan, server: Server, neighbour: str) -> float:
    check(server, inputs.slow(neighbour, 1))
    with client("benchmarks.clients.repeat", server.port, neighbour, _CALLERS) as callers:
        callers.report()
        p99_ms = _press(plan, server)
        calls = callers.stop()
    # A neighbour that was starved instead would make W1 look well.
    if calls["wrong"] or calls["right"] < 0.5 * plan.seconds / _CALL_S:
        raise BenchmarkError(f"the model {neighbour} was not served beside W1: {calls}")
    return p99_ms
