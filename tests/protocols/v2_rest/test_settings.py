from typing import Any

import pytest

from modelport.engine.trace_settings import TraceSettings
from modelport.engine.tracing import Traces
from modelport.protocols.v2_rest import RestOptions
from modelport.specs import ModelConfig
from modelport.testing.clock import ManualClock
from modelport.testing.memory import MemoryDeployment, MemoryEngine, MemoryExchange, MemoryServer

LOG = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
TRACE = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "trace.json",
    "trace_mode": "triton",
}


class FakeLogs:
    """A log that only remembers how it is to be."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = dict(LOG)

    def settings(self) -> dict[str, Any]:
        return self.now

    def change(self, changes: Any) -> None:
        self.now.update(changes)


def server() -> MemoryServer:
    engine = MemoryEngine([MemoryDeployment(ModelConfig(name="a"), lambda request: None)])
    traces = Traces(TraceSettings(), "trace.json", lambda trace: None, ManualClock())
    return MemoryServer(engine, RestOptions(logs=FakeLogs(), traces=traces))


def error_of(exchange: MemoryExchange) -> tuple[int, str]:
    return exchange.status, exchange.json["error"]


def test_the_log_is_told_and_changed() -> None:
    served = server()
    assert served.send("GET", "/v2/logging").json == LOG
    changes = {"log_info": False, "log_verbose_level": 2, "log_format": "ISO8601"}
    assert served.send("POST", "/v2/logging", changes).json == {**LOG, **changes}
    assert served.send("POST", "/v2/logging").json == {**LOG, **changes}


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"log_file": "x"}, 501, "log file location can not be updated through network protocol"),
        ({"log_info": 1}, 400, "Unable to parse 'log_info': attempt to access JSON non-boolean"),
        ({"log_verbose_level": -1}, 400, "Unable to parse 'log_verbose_level': attempt to access"),
        ({"log_verbose_level": True}, 400, "Unable to parse 'log_verbose_level': attempt to"),
        ({"log_format": "loud"}, 400, "invalid argument for --log_format, got: loud"),
        ({"log_format": None}, 400, "Unable to parse 'log_format': attempt to access JSON non-str"),
        ({"colour": True}, 400, "unknown log setting 'colour'"),
        ([], 400, "attempt to get members for non-object"),
        (b"{", 400, "failed to parse the request JSON buffer"),
    ],
)
def test_a_bad_change_of_the_log_changes_nothing(changes: Any, status: int, text: str) -> None:
    served = server()
    body = {"log_warning": False, **changes} if isinstance(changes, dict) else changes
    got, error = error_of(served.send("POST", "/v2/logging", body))
    assert (got, error[: len(text)]) == (status, text)
    assert served.send("GET", "/v2/logging").json == LOG


def test_traces_are_told_and_changed() -> None:
    served = server()
    assert served.send("GET", "/v2/trace/setting").json == TRACE
    changed = {**TRACE, "trace_level": ["TIMESTAMPS"], "trace_rate": "5"}
    changes: dict[str, Any] = {"trace_level": ["TIMESTAMPS"], "trace_rate": "5"}
    assert served.send("POST", "/v2/trace/setting", changes).json == changed
    assert served.send("GET", "/v2/models/a/trace/setting").json == changed
    own = {"trace_level": "OFF", "trace_rate": 7}
    told = served.send("POST", "/v2/models/a/trace/setting", own).json
    assert told == {**TRACE, "trace_rate": "7"}
    assert served.send("GET", "/v2/trace/setting").json == changed
    back = {"trace_level": None, "trace_rate": None}
    assert served.send("POST", "/v2/models/a/trace/setting", back).json == changed
    assert served.send("POST", "/v2/trace/setting", back).json == TRACE


@pytest.mark.parametrize(
    ("path", "changes", "status", "text"),
    [
        ("/v2/models/x/trace/setting", {}, 400, "Request for unknown model : x"),
        ("/v2/trace/setting", {"trace_rate": "x"}, 400, "Unable to parse 'trace_rate', got: x"),
        ("/v2/trace/setting", {"trace_rate": 0.5}, 400, "Unable to parse 'trace_rate': a setting"),
        ("/v2/trace/setting", {"trace_level": [True]}, 400, "Unable to parse 'trace_level': a set"),
        (
            "/v2/trace/setting",
            {"trace_file": "x"},
            501,
            "trace file location can not be updated through network protocol",
        ),
    ],
)
def test_a_bad_change_of_traces_changes_nothing(
    path: str, changes: Any, status: int, text: str
) -> None:
    served = server()
    got, error = error_of(served.send("POST", path, {**changes, "log_frequency": "3"}))
    assert (got, error[: len(text)]) == (status, text)
    assert served.send("GET", "/v2/trace/setting").json == TRACE


def test_a_server_without_a_log_or_traces_says_so() -> None:
    bare = MemoryServer(MemoryEngine())
    for path in ("/v2/logging", "/v2/trace/setting"):
        for method in ("GET", "POST"):
            assert bare.send(method, path).status == 501
