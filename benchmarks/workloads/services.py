"""Services: B1 small JSON against BentoML, B2 batches, B3 streams, B4 streams that nobody reads."""

import json
import math
import random
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import inputs, servers
from benchmarks.clients.launch import client, measured_by
from benchmarks.clients.streams import stream_at
from benchmarks.exchange import Exchange
from benchmarks.lanes import CHUNK_INTERVAL_S, CHUNKS
from benchmarks.load import Load, check, press
from benchmarks.plan import Plan
from benchmarks.replies import Reply
from benchmarks.report import Bar, Row, at_least, at_most, compared, value
from benchmarks.servers import BenchmarkError, Server
from benchmarks.workloads import turns
from benchmarks.workloads.hostile import PeakMemory

CONNECTIONS = 32
_BATCHING_CONNECTIONS = 64
_IDEAL_PER_S = 32 / 0.005
_LANES = 32
_SILENT = 1000
# Of one stream: 65 items of 4 KiB with what the interpreter needs for each, and what the listener
# and the kernel hold before they say that it is full.
_STREAM_BOUND_MB = 65 * (4096 + 600) / 1e6 + 0.1
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

    def measured(server: Server, seconds: int) -> Load:
        return press(server, exchanges, connections=CONNECTIONS, seconds=seconds)

    with (
        servers.bentoml(BENTOML, "benchmarks.services.theirs:Iris") as bentoml,
        servers.modelport(SERVICES / "ours.py") as modelport,
    ):
        bentoml.await_answer(exchanges[0], every_s=0.05)
        yield from turns.throughput(
            plan,
            "B1",
            "32 connections",
            baseline=partial(measured, bentoml),
            ours=partial(measured, modelport),
            bar=at_least(25),
            against="bentoml",
        )


def batches(plan: Plan) -> Iterator[Row]:
    """Tell how near a batchable endpoint comes to one full batch each 5 ms."""
    exchanges = [
        Exchange(
            name="batched",
            path="/batched",
            body=json.dumps({"x": [[at]]}).encode(),
            is_right=partial(_is, expected=[[at + 1]]),
        )
        for at in range(256)
    ]
    loads = []
    for _ in range(plan.rounds):
        with servers.modelport(SERVICES / "ours.py") as server:
            loads.append(
                press(server, exchanges, connections=_BATCHING_CONNECTIONS, seconds=plan.seconds)
            )
    rates = [load.requests_per_s for load in loads]
    plan.tell_figures("B2", rates, "req/s")
    share = 100 * statistics.median(rates) / _IDEAL_PER_S
    yield value("B2", "share of the ideal 6 400 req/s", "%", share, at_least(90))
    yield value("B2", "p99", "ms", statistics.median(load.p99_ms for load in loads))


def streams(plan: Plan) -> Iterator[Row]:
    """Compare chunks per second with the same generators drained in-process."""
    yield from _streams(plan, "/numbers", "coroutines", at_least(0.97), at_most(1))
    yield from _streams(plan, "/numbers_on_threads", "threads", None, None)


def _streams(
    plan: Plan, path: str, kind: str, rate: Bar | None, first: Bar | None
) -> Iterator[Row]:
    count = max(2, math.ceil(plan.seconds / (CHUNKS * CHUNK_INTERVAL_S)))
    first_chunk_ms: list[float] = []
    wrong_streams = 0

    def drained() -> float:
        return float(measured_by("benchmarks.baselines.generators", _LANES, count)["chunks_per_s"])

    def served() -> float:
        nonlocal wrong_streams
        with servers.modelport(SERVICES / "ours.py") as server:
            check(server, [stream_at(path)])
            found = measured_by("benchmarks.clients.streams", server.port, _LANES, count, path)
        first_chunk_ms.append(found["first_chunk_p50_ms"])
        wrong_streams += found["wrong_streams"]
        return float(found["chunks_per_s"])

    theirs, mine = turns.in_turn(plan.rounds, drained, served)
    yield compared("B3", f"chunks of 32 streams, {kind}", "chunks/s", theirs, mine, rate)
    found_ms = statistics.median(first_chunk_ms)
    yield value("B3", f"first chunk p50, {kind}", "ms", found_ms, first)
    yield value("B3", f"streams with wrong chunks, {kind}", "", wrong_streams, at_most(0))


def unread(plan: Plan) -> Iterator[Row]:
    """Tell what 1 000 clients cost that stop reading, in memory and for those beside them."""
    exchanges = classified()
    for path, kind in (("/endless", "coroutines"), ("/endless_on_threads", "threads")):
        alone_ms: list[float] = []
        beside_ms: list[float] = []
        grown_mb: list[float] = []
        for _ in range(plan.rounds):
            peak = PeakMemory()
            with servers.modelport(SERVICES / "ours.py") as server:
                check(server, exchanges[:1])
                idle = server.resident_bytes()
                alone = press(server, exchanges, connections=CONNECTIONS, seconds=plan.seconds)
                silent = client("benchmarks.clients.unread", server.port, _SILENT, path)
                with peak.watch(server), silent as running:
                    running.report()
                    beside = press(server, exchanges, connections=CONNECTIONS, seconds=plan.seconds)
                    running.stop()
            alone_ms.append(alone.p99_ms)
            beside_ms.append(beside.p99_ms)
            grown_mb.append((peak.most_bytes - idle) / 1e6)
        most_mb = 64 + _SILENT * _STREAM_BOUND_MB
        yield compared("B4", f"p99 beside them, {kind}", "ms", alone_ms, beside_ms, at_most(2))
        yield value("B4", f"memory over idle, {kind}", "MB", max(grown_mb), at_most(most_mb))


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


def _is(reply: Reply, *, expected: list[Any]) -> bool:
    return reply.status == 200 and json.loads(reply.body) == expected
