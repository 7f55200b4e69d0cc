"""Everything but inference through the handlers, without a socket."""

import asyncio
import base64
import threading
from typing import Any

import pytest

from modelport.errors import LoadFailed, PollFailed, Unavailable
from modelport.protocols.base import ADMIN, Access
from modelport.protocols.v2_rest import RestOptions, routes
from modelport.specs import ModelConfig
from modelport.testing.memory import (
    MemoryDeployment,
    MemoryEngine,
    MemoryExchange,
    MemoryRow,
    MemoryServer,
)
from modelport.wire import v2_admin


def server(**engine: Any) -> MemoryServer:
    models = [
        MemoryDeployment(ModelConfig(name=name, backend="python"), lambda request: None, version)
        for name, version in (("b", 1), ("a", 1), ("a", 3))
    ]
    return MemoryServer(MemoryEngine(models, **engine))


def get(path: str, served: MemoryServer | None = None) -> MemoryExchange:
    return (served or server()).send("GET", path)


def later(served: MemoryServer, path: str, body: Any = b"") -> MemoryExchange:
    """Send a request that is answered by a task."""

    async def main() -> MemoryExchange:
        exchange = served.send("POST", path, body)
        await exchange.finished.wait()
        return exchange

    return asyncio.run(main())


def test_the_server_says_what_it_is() -> None:
    document = get("/v2").json
    assert list(document) == ["name", "version", "extensions"]
    assert document["name"] == "triton"
    assert {"classification", "binary_tensor_data", "model_repository(unload_dependents)",
            "statistics", "trace", "logging", "system_shared_memory"} <= set(
        document["extensions"]
    )  # fmt: skip
    named = MemoryServer(MemoryEngine(), RestOptions(server_name="x", server_version="9"))
    assert get("/v2", named).json["name"] == "x"


def test_health_is_said_by_status_and_in_words() -> None:
    live = get("/v2/health/live")
    assert (live.status, live.json) == (200, {"live": True})
    ready = get("/v2/health/ready")
    assert (ready.status, ready.json) == (200, {"ready": True})
    unready = server(ready=False)
    assert get("/v2/health/live", unready).status == 200
    assert get("/v2/health/ready", unready).status == 400
    hanging = MemoryServer(MemoryEngine(live=False))
    assert (get("/v2/health/live", hanging).status) == 400
    lenient = MemoryServer(unready.engine, RestOptions(is_readiness_strict=False))
    assert get("/v2/health/ready", lenient).status == 200


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_an_exiting_server_says_so(path: str) -> None:
    exchange = get(path, server(is_exiting=True))
    assert (exchange.status, exchange.json) == (503, {"error": "Server exiting"})


def test_models_are_listed_as_by_kserve() -> None:
    assert get("/v2/models").json == {"models": ["a", "b"]}


def test_readiness_of_models() -> None:
    served = server()
    assert get("/v2/models/a/ready", served).json == {"name": "a", "ready": True}
    assert get("/v2/models/a/versions/3/ready", served).status == 200
    assert get("/v2/models/a/versions/2/ready", served).status == 404
    assert get("/v2/models/x/ready", served).status == 404
    for model in served.engine.models:
        model.ready = False
    unready = get("/v2/models/a/ready", served)
    assert (unready.status, unready.json) == (400, {"error": "Model version not ready"})
    loading = server(resolve_error=Unavailable("Request for unknown model: 'a' version 1 ..."))
    assert get("/v2/models/a/ready", loading).status == 400
    assert get("/v2/models/a", loading).status == 503


def test_metadata_lists_all_versions_or_the_one_asked_for() -> None:
    assert get("/v2/models/a").json["versions"] == ["1", "3"]
    assert get("/v2/models/a/versions/1").json["versions"] == ["1"]
    assert get("/v2/models/x").json["error"].startswith("Request for unknown model: 'x'")


def test_the_configuration_is_given_as_it_is_kept() -> None:
    assert get("/v2/models/a/config").json == {"name": "a"}
    assert get("/v2/models/a/versions/3/config").json == {"name": "a"}


def test_statistics_of_all_models_of_one_and_of_one_version() -> None:
    def listed(path: str) -> list[tuple[str, str]]:
        return [(row["name"], row["version"]) for row in get(path).json["model_stats"]]

    assert listed("/v2/models/stats") == [("a", "1"), ("a", "3"), ("b", "1")]
    assert listed("/v2/models/a/stats") == [("a", "1"), ("a", "3")]
    assert listed("/v2/models/a/versions/3/stats") == [("a", "3")]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v2/models/x/stats", "requested model 'x' is not available"),
        ("/v2/models/a/versions/2/stats", "requested model version is not available for model 'a'"),
        ("/v2/models/a/versions/0/stats", "requested model version is not available for model 'a'"),
    ],
)
def test_statistics_of_what_is_not_there(path: str, text: str) -> None:
    exchange = get(path)
    assert exchange.status == 400
    assert exchange.json["error"].startswith(text)


ROWS = [
    MemoryRow("a", "1", "READY", ""),
    MemoryRow("a", "2", "UNAVAILABLE", "unloaded"),
    MemoryRow("never"),
]


def test_the_index_leaves_out_what_there_is_nothing_to_say_of() -> None:
    served = server(rows=ROWS)
    everything = [
        {"name": "a", "version": "1", "state": "READY"},
        {"name": "a", "version": "2", "state": "UNAVAILABLE", "reason": "unloaded"},
        {"name": "never"},
    ]
    for body in (b"", b"{}", {"ready": False}):
        assert served.send("POST", "/v2/repository/index", body).json == everything
    only_ready = served.send("POST", "/v2/repository/index", {"ready": True})
    assert only_ready.json == everything[:1]
    assert served.send("POST", "/v2/repository/some/index", b"").json == everything
    bad = served.send("POST", "/v2/repository/index", {"ready": "yes"})
    assert (bad.status, bad.json) == (
        400, {"error": "Invalid value for 'ready': expected a boolean"},
    )  # fmt: skip


def test_a_load_is_answered_when_it_is_done() -> None:
    served = server()
    files = {"file:1/model.py": base64.b64encode(b"code").decode(), "config": "{}"}
    exchange = later(served, "/v2/repository/models/a/load", {"parameters": files})
    assert (exchange.status, exchange.answer) == (200, b"")
    later(served, "/v2/repository/models/b/load")
    assert served.engine.calls == [
        ("load", "a", "{}", {"1/model.py": b"code"}),
        ("load", "b", None, None),
    ]


def test_a_large_load_is_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    decode = v2_admin.decode_load_request

    def noted(*args: Any) -> v2_admin.LoadRequest:
        threads.append(threading.current_thread())
        return decode(*args)

    monkeypatch.setattr(v2_admin, "decode_load_request", noted)
    served = server()
    large = {"file:1/model.py": base64.b64encode(bytes(2**20)).decode(), "config": "{}"}
    exchange = later(served, "/v2/repository/models/a/load", {"parameters": large})
    assert (exchange.status, exchange.answer) == (200, b"")
    assert served.engine.calls == [("load", "a", "{}", {"1/model.py": bytes(2**20)})]
    bad = later(served, "/v2/repository/models/a/load", {"parameters": {**large, "x": 1}})
    assert bad.status == 400
    assert len(served.engine.calls) == 1
    assert threading.main_thread() not in threads


def test_a_failed_load_says_why() -> None:
    text = "load failed for model 'a': version 1 is at UNAVAILABLE state: boom;\n"
    exchange = later(server(load_error=LoadFailed(text)), "/v2/repository/models/a/load")
    assert (exchange.status, exchange.json) == (400, {"error": text})


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_what_fails_by_a_bug_is_answered_all_the_same(
    verb: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError("a secret path")

    monkeypatch.setattr(MemoryEngine, verb, fail)
    exchange = later(server(), f"/v2/repository/models/m/{verb}")
    assert exchange.status == 500
    assert exchange.json == {"error": "internal error; the log of the server tells more"}
    assert "a secret path" in caplog.text


def test_a_load_of_what_is_not_there_is_a_failure_inside_as_in_triton() -> None:
    text = "failed to load 'a', failed to poll from model repository"
    exchange = later(server(load_error=PollFailed(text)), "/v2/repository/models/a/load")
    assert (exchange.status, exchange.json) == (500, {"error": text})


def test_a_bad_load_reaches_nobody() -> None:
    served = server()
    exchange = served.send("POST", "/v2/repository/models/a/load", {"parameters": {"x": 1}})
    assert exchange.status == 400
    assert "failed to load" in exchange.json["error"]
    assert served.engine.calls == []


def test_unloads() -> None:
    served = server()
    body = {"parameters": {"unload_dependents": True}}
    assert later(served, "/v2/repository/models/a/unload").status == 200
    assert later(served, "/v2/repository/models/a/unload", body).status == 200
    assert served.engine.calls == [("unload", "a", False), ("unload", "a", True)]


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_repositories_cannot_be_named(verb: str) -> None:
    exchange = server().send("POST", f"/v2/repository/some/models/a/{verb}")
    assert exchange.status == 501
    assert exchange.json["error"].startswith("'repository_name' specification is not supported")


@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_shared_memory_is_off_and_says_so(kind: str) -> None:
    served = server()
    base = f"/v2/{kind}sharedmemory"
    assert get(f"{base}/status", served).json == []
    missing = get(f"{base}/region/r/status", served)
    assert missing.status == 404
    assert missing.json["error"] == f"Unable to find {kind} shared memory region: 'r'"
    refused = served.send("POST", f"{base}/region/r/register", {"key": "/k", "byte_size": 1})
    assert refused.status == 501
    assert refused.json["error"].startswith(
        "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to "
        "enable."
    )
    assert served.send("POST", f"{base}/unregister").status == 200
    assert served.send("POST", f"{base}/region/r/unregister").status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v2/trace/setting", "/v2/models/a/trace/setting", "/v2/logging"])
def test_settings_are_not_offered_yet(method: str, path: str) -> None:
    exchange = server().send(method, path, {})
    assert exchange.status == 501
    assert exchange.json["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/"),
        ("GET", "/v2//health/live"),
        ("GET", "/v2/models/a/"),
        ("GET", "/v2/models/a/versions/x"),
        ("GET", "/v2/models/a/versions/-1"),
        ("POST", "/v2/models/a/versions/1.0/infer"),
        ("GET", "/v2/models/a/versions/1/trace/setting"),
    ],
)
def test_what_is_no_route(method: str, path: str) -> None:
    assert server().route(method, path)[0] is None


def test_who_may_call_what() -> None:
    access = {(r.method, r.pattern): r.access for r in routes(MemoryEngine(), RestOptions())}
    assert access["GET", "/v2/health/live"] is Access.PUBLIC
    assert access["GET", "/v2/health/ready"] is Access.PUBLIC
    public = [row for row, who in access.items() if who is Access.PUBLIC]
    assert len(public) == 2
    admin = {pattern for (_, pattern), who in access.items() if who in ADMIN}
    assert "/v2/repository/models/{model}/load" in admin
    assert "/v2/repository/index" not in admin
    assert access["POST", "/v2/models/{model}/infer"] is Access.INFERENCE


def test_only_infer_places_tensors_in_its_body() -> None:
    aligned = {r.pattern for r in routes(MemoryEngine(), RestOptions()) if r.align_header}
    assert aligned == {
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version:int}/infer",
    }
