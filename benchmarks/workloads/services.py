"""B1: a typed method called with small JSON, against BentoML in an environment of its own."""

import json
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from benchmarks import inputs, servers
from benchmarks.exchange import Exchange
from benchmarks.load import Load, press
from benchmarks.plan import Plan
from benchmarks.replies import Reply
from benchmarks.report import Row, at_least
from benchmarks.servers import BenchmarkError, Server
from benchmarks.workloads import turns

CONNECTIONS = 32
_ROOT = Path(__file__).parents[2]
BENTOML = _ROOT / ".venv-compat" / "bentoml" / "bin" / "bentoml"
SERVICES = Path(__file__).parents[1] / "services"


def throughput(plan: Plan) -> Iterator[Row]:
    """Compare requests per second on 32 connections.

    Raises:
        BenchmarkError: If there is no environment with BentoML.
    """
    if not BENTOML.exists():
        raise BenchmarkError("needs BentoML in .venv-compat/bentoml; run make compat")
    exchanges = classified()

    def measured(start: AbstractContextManager[Server]) -> Load:
        with start as server:
            server.await_answer(exchanges[0], every_s=0.05)
            return press(server, exchanges, connections=CONNECTIONS, seconds=plan.seconds)

    yield from turns.throughput(
        plan,
        "B1",
        "32 connections",
        baseline=lambda: measured(servers.bentoml(BENTOML, "benchmarks.services.theirs:Iris")),
        ours=lambda: measured(servers.modelport(SERVICES / "ours.py")),
        bar=at_least(25),
        against="bentoml",
    )


def classified(count: int = 200, *, seed: int = inputs.SEED) -> list[Exchange]:
    """Give requests of a few rows of four numbers each."""
    numbers = random.Random(seed)
    exchanges = []
    for _ in range(count):
        rows = [[round(numbers.uniform(0, 8), 1) for _ in range(4)] for _ in range(3)]
        expected = [row.index(max(row)) for row in rows]
        exchanges.append(
            Exchange(
                name="classify",
                path="/classify",
                body=json.dumps({"input_series": rows}).encode(),
                is_right=partial(_is, expected=expected),
            )
        )
    return exchanges


def _is(reply: Reply, *, expected: list[int]) -> bool:
    return reply.status == 200 and json.loads(reply.body) == expected
