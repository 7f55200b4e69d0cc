"""gRPC: W3 tiny messages, W2G large ones, W5G streams, against bare grpc.aio or generators."""

import math
import statistics
from collections.abc import Iterator

from benchmarks import inputs, messages, servers
from benchmarks.baselines.grpc_aio import REPLY_VARIABLE
from benchmarks.clients.launch import measured_by
from benchmarks.lanes import CHUNK_INTERVAL_S, CHUNKS
from benchmarks.load import Load, check, press, press_with_calls
from benchmarks.plan import Plan
from benchmarks.report import Row, at_least, at_most, compared, value
from benchmarks.workloads import turns
from benchmarks.workloads.tiny import fixed_reply

_TINY_CONNECTIONS = 32
_LARGE_CONNECTIONS = 8
_LANES = 32


def tiny(plan: Plan) -> Iterator[Row]:
    """Compare calls per second on 32 connections, one call at a time on each."""
    reply = {REPLY_VARIABLE: messages.affine_reply().hex()}
    uvicorn_rates: list[float] = []
    our_rates: list[float] = []

    def baseline() -> Load:
        with servers.bare_grpc(environment=reply) as server:
            server.await_connection()
            return press_with_calls(
                server,
                "affine",
                connections=_TINY_CONNECTIONS,
                seconds=plan.seconds,
                is_checked=False,
            )

    with servers.repository("affine") as repository:

        def ours() -> Load:
            with servers.modelport(repository) as server:
                check(server, inputs.affine(1))
                load = press_with_calls(
                    server, "affine", connections=_TINY_CONNECTIONS, seconds=plan.seconds
                )
            our_rates.append(load.requests_per_s)
            with fixed_reply() as server:
                anything = inputs.unchecked(inputs.affine())
                fixed = press(server, anything, connections=_TINY_CONNECTIONS, seconds=plan.seconds)
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
    """Compare calls per second with 602 112 bytes in and out, 8 in flight."""

    def baseline() -> Load:
        with servers.bare_grpc() as server:
            server.await_connection()
            return press_with_calls(
                server, "image_identity", connections=_LARGE_CONNECTIONS, seconds=plan.seconds
            )

    with servers.repository("identity") as repository:

        def ours() -> Load:
            with servers.modelport(repository) as server:
                check(server, inputs.image_identity(1))
                return press_with_calls(
                    server, "image_identity", connections=_LARGE_CONNECTIONS, seconds=plan.seconds
                )

        yield from turns.throughput(
            plan,
            "W2G",
            "8 connections",
            baseline=baseline,
            ours=ours,
            bar=at_least(3),
            against="grpc.aio",
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
