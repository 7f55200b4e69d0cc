"""Everything but inference through the handlers, without a socket."""

import asyncio
from typing import Any

import pytest

from modelport.errors import LoadFailed, Unavailable
from modelport.protocols.base import ADMIN, Access
from modelport.specs import ModelConfig, ModelInput
from modelport.stats import ModelStatistics
from modelport.testing.memory import (
    MemoryCall,
    MemoryDeployment,
    MemoryEngine,
    MemoryGrpcServer,
    MemoryRow,
)
from modelport.wire.proto import grpc_service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"


def server(**engine: Any) -> MemoryGrpcServer:
    models = [
        MemoryDeployment(
            ModelConfig(
                name=name,
                backend="python",
                max_batch_size=4,
                input=(ModelInput(name="I", data_type="TYPE_FP32", dims=(2,)),),
            ),
            lambda request: None,
            version,
        )
        for name, version in (("b", 1), ("a", 1), ("a", 3))
    ]
    return MemoryGrpcServer(MemoryEngine(models, **engine))


def ask(method: str, served: MemoryGrpcServer | None = None, **members: Any) -> Any:
    call = refuse(method, served, **members)
    assert (call.status, call.text) == (0, "")
    (sent,) = call.sent
    return getattr(pb, f"{method}Response").FromString(sent)


def refuse(method: str, served: MemoryGrpcServer | None = None, **members: Any) -> MemoryCall:
    data = getattr(pb, f"{method}Request")(**members).SerializeToString()
    return (served or server()).call(method, data)


def later(method: str, served: MemoryGrpcServer, **members: Any) -> MemoryCall:
    async def main() -> MemoryCall:
        call = refuse(method, served, **members)
        await call.finished.wait()
        return call

    return asyncio.run(main())


def test_there_is_a_row_for_each_method() -> None:
    rows = {path.removeprefix(SERVICE) for path in server().rpc_by_path if SERVICE in path}
    assert rows == set(pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name)
    assert len(rows) == 20


def test_what_changes_the_server_is_for_operators() -> None:
    admin = {
        path.removeprefix(SERVICE)
        for path, rpc in server().rpc_by_path.items()
        if rpc.access in ADMIN
    }
    assert admin == {
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "TraceSetting",
        "LogSettings",
        *(
            f"{kind}SharedMemory{verb}"
            for kind in ("System", "Cuda")
            for verb in ("Status", "Register", "Unregister")
        ),
    }


def test_only_health_is_for_everybody() -> None:
    public = [path for path, rpc in server().rpc_by_path.items() if rpc.access is Access.PUBLIC]
    assert sorted(public) == [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        f"{SERVICE}ServerLive",
        f"{SERVICE}ServerReady",
    ]


def test_the_server_says_how_it_is() -> None:
    assert ask("ServerLive").live
    assert ask("ServerReady").ready
    assert not ask("ServerReady", server(ready=False)).ready
    for method in ("ServerLive", "ServerReady"):
        call = refuse(method, server(is_exiting=True))
        assert (call.status, call.text) == (14, "Server exiting")


def test_a_model_says_how_it_is() -> None:
    assert ask("ModelReady", name="a").ready
    assert ask("ModelReady", name="a", version="3").ready
    assert not ask("ModelReady", name="a", version="2").ready
    assert not ask("ModelReady", name="nobody").ready
    waiting = server(resolve_error=Unavailable("not yet"))
    assert not ask("ModelReady", waiting, name="a").ready


def test_the_server_says_what_it_is() -> None:
    got = ask("ServerMetadata")
    assert got.name == "triton"
    assert got.version
    assert "binary_tensor_data" in got.extensions


def test_a_model_says_what_it_is() -> None:
    got = ask("ModelMetadata", name="a")
    assert (got.name, got.platform, list(got.versions)) == ("a", "python", ["1", "3"])
    (one,) = got.inputs
    assert (one.name, one.datatype, list(one.shape)) == ("I", "FP32", [-1, 2])
    assert list(ask("ModelMetadata", name="a", version="1").versions) == ["1"]
    assert refuse("ModelMetadata", name="nobody").status == 5


def test_a_model_gives_its_configuration() -> None:
    config = ask("ModelConfig", name="a").config
    assert (config.name, config.max_batch_size, config.input[0].dims) == ("a", 4, [2])
    assert refuse("ModelConfig", name="nobody").status == 5


def test_statistics_are_given_of_all_or_one() -> None:
    served = server()
    counted = ModelStatistics()
    counted.record_single(2, 10, 20, 50, counted.rest)
    served.engine.models[0].statistics = counted
    every = ask("ModelStatistics", served).model_stats
    assert [(one.name, one.version) for one in every] == [("a", "1"), ("a", "3"), ("b", "1")]
    (one,) = ask("ModelStatistics", served, name="b").model_stats
    assert (one.inference_count, one.execution_count) == (2, 1)
    assert one.inference_stats.success.count == 1
    assert one.batch_stats[0].batch_size == 2
    (one,) = ask("ModelStatistics", served, name="a", version="3").model_stats
    assert one.version == "3"


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"name": "nobody"}, "requested model 'nobody' is not available"),
        (
            {"name": "a", "version": "2"},
            "requested model version is not available for model 'a'",
        ),
    ],
)
def test_statistics_of_what_there_is_not_are_refused(members: Any, text: str) -> None:
    call = refuse("ModelStatistics", **members)
    assert call.status == 3
    assert call.text.startswith(text)


def test_the_index_lists_what_there_is() -> None:
    rows = [
        MemoryRow("a", "1", "READY"),
        MemoryRow("b", "1", "UNAVAILABLE", "unloaded"),
        MemoryRow("c"),
    ]
    models = ask("RepositoryIndex", server(rows=rows)).models
    assert [(m.name, m.version, m.state, m.reason) for m in models] == [
        ("a", "1", "READY", ""),
        ("b", "1", "UNAVAILABLE", "unloaded"),
        ("c", "", "", ""),
    ]
    (ready,) = ask("RepositoryIndex", server(rows=rows), ready=True).models
    assert ready.name == "a"


def test_a_model_is_loaded() -> None:
    served = server()
    call = later("RepositoryModelLoad", served, model_name="a")
    assert (call.status, call.sent) == (0, [b""])
    assert served.engine.calls == [("load", "a", None, None)]


def test_a_model_is_loaded_from_the_request() -> None:
    served = server()
    later(
        "RepositoryModelLoad",
        served,
        model_name="a",
        parameters={
            "config": pb.ModelRepositoryParameter(string_param="{}"),
            "file:1/model.onnx": pb.ModelRepositoryParameter(bytes_param=b"\0onnx"),
        },
    )
    assert served.engine.calls == [("load", "a", "{}", {"1/model.onnx": b"\0onnx"})]


def test_a_load_that_fails_says_why() -> None:
    call = later("RepositoryModelLoad", server(load_error=LoadFailed("load failed for model")))
    assert (call.status, call.text) == (3, "load failed for model")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("config", b"{}", "invalid value type for load parameter 'config', expected string_param."),
        ("file:1/x", "x", "invalid value type for load parameter 'file:1/x', expected bytes_param"),
        ("else", "x", "unrecognized load parameter 'else'."),
    ],
)
def test_a_load_with_wrong_parameters_is_refused(key: str, value: Any, text: str) -> None:
    member = "bytes_param" if isinstance(value, bytes) else "string_param"
    parameters = {key: pb.ModelRepositoryParameter(**{member: value})}
    call = refuse("RepositoryModelLoad", model_name="a", parameters=parameters)
    assert call.status == 3
    assert call.text.startswith(text)
    assert "failed to load 'a'" in call.text.lower()


def test_a_model_is_unloaded() -> None:
    served = server()
    wish = {"unload_dependents": pb.ModelRepositoryParameter(bool_param=True)}
    later("RepositoryModelUnload", served, model_name="a")
    later("RepositoryModelUnload", served, model_name="b", parameters=wish)
    assert served.engine.calls == [("unload", "a", False), ("unload", "b", True)]


def test_an_unload_with_a_wrong_parameter_is_refused() -> None:
    wish = {"unload_dependents": pb.ModelRepositoryParameter(string_param="true")}
    call = refuse("RepositoryModelUnload", model_name="a", parameters=wish)
    assert call.status == 3
    assert "expected bool_param" in call.text


@pytest.mark.parametrize(
    "method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"]
)
def test_one_of_several_repositories_cannot_be_named(method: str) -> None:
    call = refuse(method, repository_name="r")
    assert call.status == 12
    assert call.text.startswith("'repository_name' specification is not supported")


@pytest.mark.parametrize("method", ["ModelReady", "ModelConfig", "RepositoryModelLoad"])
def test_what_is_no_message_is_refused(method: str) -> None:
    call = server().call(method, b"\x0a")
    assert call.status == 3
    assert "malformed" in call.text


@pytest.mark.parametrize("kind", ["System", "Cuda"])
def test_there_is_no_shared_memory(kind: str) -> None:
    assert not ask(f"{kind}SharedMemoryStatus").regions
    call = refuse(f"{kind}SharedMemoryStatus", name="r")
    expected = f"Unable to find {kind.lower()} shared memory region: 'r'"
    assert (call.status, call.text) == (5, expected)
    assert refuse(f"{kind}SharedMemoryRegister", name="r").status == 12
    ask(f"{kind}SharedMemoryUnregister", name="r")


@pytest.mark.parametrize("method", ["TraceSetting", "LogSettings"])
def test_what_is_not_offered_yet_says_so(method: str) -> None:
    call = refuse(method)
    assert call.status == 12
    assert call.text
