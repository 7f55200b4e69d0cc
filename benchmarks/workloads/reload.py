"""RELOAD: a model is reloaded under mixed load and no caller notices but by newer answers."""

from collections.abc import Iterator

from benchmarks import inputs, servers
from benchmarks.clients.launch import measured_by
from benchmarks.load import check
from benchmarks.plan import Plan
from benchmarks.report import Row, at_least, at_most, value

_CONNECTIONS = 200
_RELOADS = 5
_MODELS = ("affine", "generations")


def under_load(plan: Plan) -> Iterator[Row]:
    """Count wrong, lost and outdated answers while five reloads complete and as many fail."""
    options = ["--model-control-mode", "explicit"]
    for model in _MODELS:
        options += ["--load-model", model]
    with (
        servers.repository(*_MODELS) as repository,
        servers.modelport(repository, *options) as server,
    ):
        check(server, inputs.affine(1))
        found = measured_by(
            "benchmarks.clients.reload", server.port, repository, _CONNECTIONS, _RELOADS
        )
    plan.tell(f"RELOAD: {found['answered']} answers, the slowest took {found['slowest_ms']:.0f} ms")
    reasons = "; ".join(found["reasons"])
    yield value("RELOAD", "reloads completed", "", found["completed"], at_least(_RELOADS))
    yield value("RELOAD", "failing reloads refused", "", found["refused"], at_least(1))
    yield value("RELOAD", "requests lost", "", found["lost"], at_most(0), reasons)
    yield value("RELOAD", "wrong answers", "", found["wrong"], at_most(0))
    yield value("RELOAD", "outdated answers", "", found["stale"], at_most(0))
    yield value("RELOAD", "answers", "", found["answered"])
    yield value("RELOAD", "slowest answer", "ms", found["slowest_ms"])
