"""W1: a tiny JSON inference through the whole engine, against a fixed reply of the same size."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial

from benchmarks import inputs, servers
from benchmarks.baselines.fixed_reply import BODY_VARIABLE
from benchmarks.clients.launch import measured_by
from benchmarks.load import Load, check, press
from benchmarks.machine import server_and_client_cores
from benchmarks.plan import Plan
from benchmarks.report import Row, at_least, at_most, compared
from benchmarks.servers import BenchmarkError, Server
from benchmarks.workloads import turns

CONNECTIONS = 32
_ROUND_TRIPS_PER_S = 4_000


def fixed_reply(*, core: int | None = None) -> AbstractContextManager[Server]:
    """Start a bare uvicorn whose reply to everything is the right one to the first request."""
    body = inputs.affine_reply_body(inputs.affine(1)[0]).decode()
    return servers.bare_uvicorn("fixed_reply", environment={BODY_VARIABLE: body}, core=core)


def throughput(plan: Plan) -> Iterator[Row]:
    """Compare requests per second on 32 connections."""
    exchanges = inputs.affine()
    anything = inputs.unchecked(exchanges)

    with (
        servers.repository("affine") as repository,
        fixed_reply() as uvicorn,
        servers.modelport(repository) as modelport,
    ):

        def baseline(seconds: int) -> Load:
            return press(uvicorn, anything, connections=CONNECTIONS, seconds=seconds)

        def ours(seconds: int) -> Load:
            return press(modelport, exchanges, connections=CONNECTIONS, seconds=seconds)

        yield from turns.throughput(
            plan, "W1", "32 connections", baseline=baseline, ours=ours, bar=at_least(1.1)
        )


def latency(plan: Plan) -> Iterator[Row]:
    """Compare round trips on one connection, server and client on a core each.

    Raises:
        BenchmarkError: On a machine with one core, where they cannot be apart.
    """
    cores = server_and_client_cores()
    if cores is None:
        raise BenchmarkError("needs two cores, one for the server and one for the client")
    server_core, client_core = cores
    first = inputs.affine(1)

    def p50_us(start: turns.Start) -> float:
        with start() as server:
            check(server, first)
            count = _ROUND_TRIPS_PER_S * plan.seconds
            found = measured_by(
                "benchmarks.clients.roundtrip", server.port, count, core=client_core
            )
            return float(found["p50_us"])

    with servers.repository("affine") as repository:
        theirs, mine = turns.in_turn(
            plan.rounds,
            lambda: p50_us(partial(fixed_reply, core=server_core)),
            lambda: p50_us(partial(servers.modelport, repository, core=server_core)),
        )
    plan.tell_figures("W1-lat, uvicorn", theirs, "µs")
    plan.tell_figures("W1-lat, modelport", mine, "µs")
    yield compared("W1-lat", "p50, 1 connection, pinned", "µs", theirs, mine, at_most(1.1))
