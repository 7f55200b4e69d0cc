"""gRPC: W3 tiny messages, W2G large ones, W5G streams, against bare grpc.aio or generators."""

import math
import statistics
from collections.abc import Iterator
from functools import partial

from benchmarks import inputs, messages, servers
from benchmarks.baselines.grpc_aio import REPLY_VARIABLE
from benchmarks.clients.launch import measured_by
from benchmarks.lanes import CHUNK_INTERVAL_S, CHUNKS
from benchmarks.load import Load, check, press, press_with_calls
from benchmarks.plan import Plan
from benchmarks.report import Bar, Row, at_least, at_most, compared, value
from benchmarks.servers import Server
from benchmarks.workloads import turns
from benchmarks.workloads.tiny import fixed_reply

_TINY_CONNECTIONS = 32
_LARGE_CONNECTIONS = 8
_LANES = 32
_LARGE_SETTINGS: tuple[tuple[str, dict[str, str], dict[str, str], Bar | None], ...] = (
    ("heap given back", servers.DEFAULT_MALLOC, {}, at_least(3)),
    ("equal malloc", servers.GENEROUS_MALLOC, servers.GENEROUS_MALLOC, None),
)
"""What it is called, the environment of grpc.aio and ours, and the bar."""


def tiny(plan: Plan) -> Iterator[Row]:
    """Compare calls per second on 32 connections, one call at a time on each."""
    reply = {REPLY_VARIABLE: messages.affine_reply().hex()}
    anything = inputs.unchecked(inputs.affine())
    uvicorn_rates: list[float] = []
    our_rates: list[float] = []
    with (
        servers.repository("affine") as repository,
        servers.bare_grpc(environment=reply) as grpc,
        servers.modelport(repository) as modelport,
        fixed_reply() as uvicorn,
    ):
        grpc.await_connection()
        check(modelport, inputs.affine(1))
        pressed = partial(press_with_calls, connections=_TINY_CONNECTIONS)

        def baseline(seconds: int) -> Load:
            return pressed(grpc, "affine", seconds=seconds, is_checked=False)

        def ours(seconds: int) -> Load:
            load = pressed(modelport, "affine", seconds=seconds)
            our_rates.append(load.requests_per_s)
            fixed = press(uvicorn, anything, connections=_TINY_CONNECTIONS, seconds=seconds)
            uvicorn_rates.append(fixed.requests_per_s)
            return load

        yield from turns.throughput(
            plan,
            "W3",
            "32 connections",
            baseline=baseline,
            ours=ours,
            bar=at_least(5),
            against="grpc.aio",
        )
    yield compared(
        "W3", "beside uvicorn's fixed reply", "req/s", uvicorn_rates, our_rates, at_least(0.7)
    )


def large(plan: Plan) -> Iterator[Row]:
    """Compare calls per second with 602 112 bytes in and out, 8 in flight.

    How quick grpc.aio is depends on whether the heap of its process is given back to the kernel
    after each message. As shipped that is a throw of dice for each process, so both are measured.
    """
    with servers.repository("identity") as repository:
        for variant, environment, our_environment, bar in _LARGE_SETTINGS:
            with (
                servers.bare_grpc(environment=environment) as grpc,
                servers.modelport(repository, environment=our_environment) as modelport,
            ):
                grpc.await_connection()
                check(modelport, inputs.image_identity(1))
                yield from turns.throughput(
                    plan,
                    "W2G",
                    variant,
                    baseline=partial(_pressed_large, grpc),
                    ours=partial(_pressed_large, modelport),
                    bar=bar,
                    against="grpc.aio",
                )


def _pressed_large(server: Server, seconds: int) -> Load:
    return press_with_calls(
        server, "image_identity", connections=_LARGE_CONNECTIONS, seconds=seconds
    )


def streams(plan: Plan) -> Iterator[Row]:
    """Compare chunks per second of 32 decoupled streams with the same generators drained."""
    count = max(2, math.ceil(plan.seconds / (CHUNKS * CHUNK_INTERVAL_S)))
    first_chunk_ms: list[float] = []
    wrong_streams = 0

    def drained() -> float:
        found = measured_by("benchmarks.baselines.generators", _LANES, count)
        return float(found["chunks_per_s"])

    with servers.repository("stream", "affine") as repository:

        def served() -> float:
            nonlocal wrong_streams
            with servers.modelport(repository) as server:
                check(server, inputs.affine(1))
                found = measured_by("benchmarks.clients.grpc_streams", server.port, _LANES, count)
            first_chunk_ms.append(found["first_chunk_p50_ms"])
            wrong_streams += found["wrong_streams"]
            return float(found["chunks_per_s"])

        theirs, mine = turns.in_turn(plan.rounds, drained, served)
    plan.tell_figures("W5G, drained in-process", theirs, "chunks/s")
    plan.tell_figures("W5G, modelport", mine, "chunks/s")
    yield compared("W5G", "chunks of 32 streams", "chunks/s", theirs, mine, at_least(0.95))
    yield value("W5G", "first chunk p50", "ms", statistics.median(first_chunk_ms))
    yield value("W5G", "streams with wrong chunks", "", wrong_streams, at_most(0))
