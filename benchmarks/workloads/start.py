"""START: from the process's start to its first right answer, and the memory it holds then."""

from collections.abc import Iterator

from benchmarks import inputs, servers
from benchmarks.exchange import Exchange
from benchmarks.plan import Plan
from benchmarks.report import Row, at_most, compared
from benchmarks.workloads import turns
from benchmarks.workloads.tiny import fixed_reply


def time_and_memory(plan: Plan) -> Iterator[Row]:
    """Compare both, after one start of each that leaves compiled modules and warm files."""
    exchange = inputs.affine(1)[0]
    with servers.repository("affine") as repository:
        theirs, mine = turns.in_turn(
            plan.rounds + 1,
            lambda: _start(fixed_reply, exchange),
            lambda: _start(lambda: servers.modelport(repository), exchange),
        )
    times_ms, times_ours_ms = (
        [taken_s * 1e3 for taken_s, _ in side[1:]] for side in (theirs, mine)
    )
    memory_mb, memory_ours_mb = ([held / 1e6 for _, held in side[1:]] for side in (theirs, mine))
    plan.tell_figures("START, uvicorn", times_ms, "ms")
    plan.tell_figures("START, modelport", times_ours_ms, "ms")
    yield compared("START", "first right answer", "ms", times_ms, times_ours_ms, at_most(2.2))
    yield compared("START", "memory then", "MB", memory_mb, memory_ours_mb, at_most(1.7))


def _start(start: turns.Start, exchange: Exchange) -> tuple[float, int]:
    with start() as server:
        taken_s = server.await_answer(exchange)
        return taken_s, server.resident_bytes()
