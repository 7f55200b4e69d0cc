"""W5: 32 streams of 100 chunks every 2 ms, against the same generators drained in-process."""

import math
import statistics
from collections.abc import Iterator

from benchmarks import servers
from benchmarks.clients.launch import measured_by
from benchmarks.clients.streams import STREAM
from benchmarks.lanes import CHUNK_INTERVAL_S, CHUNKS
from benchmarks.load import check
from benchmarks.machine import server_and_client_cores
from benchmarks.plan import Plan
from benchmarks.report import Row, at_least, at_most, compared, value
from benchmarks.workloads import turns

_LANES = 32


def rate(plan: Plan) -> Iterator[Row]:
    """Compare chunks per second, and time the first chunk of each stream.

    The rate is left to the scheduler. The first chunk is timed with server and client on a core
    each, as W1-lat, where there are two: a caller's machine is another one, and on one core the
    one waits for the other.
    """
    streams = max(2, math.ceil(plan.seconds / (CHUNKS * CHUNK_INTERVAL_S)))
    wrong_streams = 0

    def drained() -> float:
        found = measured_by("benchmarks.baselines.generators", _LANES, streams)
        return float(found["chunks_per_s"])

    with servers.repository("stream") as repository:

        def served(server_core: int | None, client_core: int | None) -> tuple[float, float]:
            nonlocal wrong_streams
            with servers.modelport(repository, core=server_core) as server:
                check(server, [STREAM])
                found = measured_by(
                    "benchmarks.clients.streams", server.port, _LANES, streams, core=client_core
                )
            wrong_streams += found["wrong_streams"]
            return float(found["chunks_per_s"]), float(found["first_chunk_p50_ms"])

        first_chunk_ms: list[float] = []

        def scheduled() -> float:
            chunks_per_s, first_ms = served(None, None)
            first_chunk_ms.append(first_ms)
            return chunks_per_s

        theirs, mine = turns.in_turn(plan.rounds, drained, scheduled)
        cores = server_and_client_cores()
        apart_ms = [served(*cores)[1] for _ in range(plan.rounds)] if cores else []
    plan.tell_figures("W5, drained in-process", theirs, "chunks/s")
    plan.tell_figures("W5, modelport", mine, "chunks/s")
    plan.tell_figures("W5, first chunk, as scheduled", first_chunk_ms, "ms")
    plan.tell_figures("W5, first chunk, a core each", apart_ms, "ms")
    yield compared("W5", "chunks of 32 streams", "chunks/s", theirs, mine, at_least(0.97))
    scheduled_ms = statistics.median(first_chunk_ms)
    if apart_ms:
        apart = statistics.median(apart_ms)
        yield value("W5", "first chunk p50, a core each", "ms", apart, at_most(0.4))
        yield value("W5", "first chunk p50, as scheduled", "ms", scheduled_ms)
    else:
        yield value("W5", "first chunk p50", "ms", scheduled_ms, at_most(0.4))
    yield value("W5", "streams with wrong chunks", "", wrong_streams, at_most(0))
