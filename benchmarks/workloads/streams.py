"""W5: 32 streams of 100 chunks every 2 ms, against the same generators drained in-process."""

import math
import statistics
from collections.abc import Iterator

from benchmarks import servers
from benchmarks.clients.launch import measured_by
from benchmarks.clients.streams import STREAM
from benchmarks.lanes import CHUNK_INTERVAL_S, CHUNKS
from benchmarks.load import check
from benchmarks.plan import Plan
from benchmarks.report import Row, at_least, at_most, compared, value
from benchmarks.workloads import turns

_LANES = 32


def rate(plan: Plan) -> Iterator[Row]:
    """Compare chunks per second, and time the first chunk of each stream."""
    streams = max(2, math.ceil(plan.seconds / (CHUNKS * CHUNK_INTERVAL_S)))
    first_chunk_ms: list[float] = []
    wrong_streams = 0

    def drained() -> float:
        found = measured_by("benchmarks.baselines.generators", _LANES, streams)
        return float(found["chunks_per_s"])

    with servers.repository("stream") as repository:

        def served() -> float:
            nonlocal wrong_streams
            with servers.modelport(repository) as server:
                check(server, [STREAM])
                found = measured_by("benchmarks.clients.streams", server.port, _LANES, streams)
            first_chunk_ms.append(found["first_chunk_p50_ms"])
            wrong_streams += found["wrong_streams"]
            return float(found["chunks_per_s"])

        theirs, mine = turns.in_turn(plan.rounds, drained, served)
    plan.tell_figures("W5, drained in-process", theirs, "chunks/s")
    plan.tell_figures("W5, modelport", mine, "chunks/s")
    yield compared("W5", "chunks of 32 streams", "chunks/s", theirs, mine, at_least(0.97))
    yield value("W5", "first chunk p50", "ms", statistics.median(first_chunk_ms), at_most(0.4))
    yield value("W5", "streams with wrong chunks", "", wrong_streams, at_most(0))
