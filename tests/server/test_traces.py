"""Traces of requests that come over sockets, in the file that the server writes."""

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.asking import TWO, WITHIN_S, stream
from tests.protocols.refused_models import PLAIN, write_models
from tests.served import Served, serving

pytestmark = pytest.mark.slow

HTTP = ["HTTP_RECV_START", "HTTP_RECV_END"], ["HTTP_SEND_START", "HTTP_SEND_END"]
GRPC = ["GRPC_WAITREAD_START", "GRPC_WAITREAD_END"], ["GRPC_SEND_START", "GRPC_SEND_END"]
QUEUED = ["REQUEST_START", "QUEUE_START"]
COMPUTED = ["COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END"]
ANSWERED = ["REQUEST_END", "INFER_RESPONSE_COMPLETE"]

ENSEMBLE = """
name: 'pair' platform: 'ensemble'
input [{ name: 'A' data_type: TYPE_FP32 dims: [ 2 ] }]
output [{ name: 'O' data_type: TYPE_FP32 dims: [ 2 ] }]
ensemble_scheduling {
  step [
    { model_name: 'plain' model_version: -1
      input_map { key: 'A' value: 'A' } output_map { key: 'O' value: 'M' } },
    { model_name: 'gone' model_version: -1
      input_map { key: 'A' value: 'M' } output_map { key: 'O' value: 'O' } }
  ]
}
"""
ASKING = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        asked = pb_utils.InferenceRequest("{model}", ["O"], request.inputs(), "inner", {more})
        return pb_utils.InferenceResponse([asked.exec().output_tensors()[0]])
"""
FUNCTION = """
import modelport


@modelport.model(inputs={"A": "FP32[2]"}, outputs={"O": "FP32[2]"})
def function(A):
    return modelport.call_model("plain", {"A": A})["O"]
"""
PROCESS = "parameters { key: 'execution' value { string_value: 'process' } }"
BODY = json.dumps(
    {"inputs": [{"name": "A", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}
).encode()


class Traced:
    """A server that traces every request, and what it has written."""

    def __init__(self, served: Served, file: Path) -> None:
        self.served = served
        self._file = file

    def post(self, path: str, body: Any = BODY, **headers: str) -> None:
        """Send a request, and read its answer."""
        connection = HTTPConnection(self.served.address, timeout=WITHIN_S)
        is_chunked = not isinstance(body, bytes)
        connection.request("POST", path, body, headers, encode_chunked=is_chunked)
        connection.getresponse().read()
        connection.close()

    def rows(self) -> list[dict[str, Any]]:
        """End the server and read what it wrote."""
        assert self.served.stop() == 0
        rows: list[dict[str, Any]] = json.loads(self._file.read_text())
        return rows


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    models = tmp_path / "models"
    models.mkdir()
    write_models(models)
    (models / "pair" / "1").mkdir(parents=True)
    (models / "pair" / "config.pbtxt").write_text(ENSEMBLE)
    for name, (model, more, config) in {
        "asks": ("plain", "trace=request.trace()", PLAIN),
        "asks_apart": ("pair", "trace=request.trace()", PLAIN + PROCESS),
        "asks_twice": ("asks", "trace=request.trace()", PLAIN),
        "asks_alone": ("plain", "", PLAIN),
    }.items():
        (models / name / "1").mkdir(parents=True)
        code = ASKING.format(model=model, more=more)
        (models / name / "1" / "model.py").write_text(code)
        (models / name / "config.pbtxt").write_text(f"backend: 'python' {config}")
    (tmp_path / "function.py").write_text(FUNCTION)
    file = tmp_path / "trace.json"
    with serving(
        str(models),
        str(tmp_path / "function.py"),
        "--exit-on-error=false",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=1",
        f"--trace-config=triton,file={file}",
    ) as served:
        yield Traced(served, file)


def stages(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The names of the stages by the request's id; their times must rise."""
    names: dict[str, list[str]] = {}
    id_by_trace = {row["id"]: row["request_id"] for row in rows if "request_id" in row}
    for row in rows:
        if "timestamps" in row and row["id"] in id_by_trace:
            times = [stage["ns"] for stage in row["timestamps"]]
            assert times == sorted(times)
            names[id_by_trace[row["id"]]] = [stage["name"] for stage in row["timestamps"]]
    return names


def named(id: str, **members: Any) -> bytes:
    request = pb.ModelInferRequest(model_name=members.pop("model", "plain"), id=id, **members)
    request.inputs.add(name="A", datatype="FP32", shape=[2])
    request.raw_input_contents.append(TWO)
    return request.SerializeToString()


def with_id(id: str) -> bytes:
    return json.dumps({**json.loads(BODY), "id": id}).encode()


def test_every_way_into_the_server_is_traced_from_receiving_to_sending(traced: Traced) -> None:
    infer = "/v2/models/plain/infer"
    traced.post(infer, with_id("whole"))
    traced.post(infer, iter([with_id("chunks")]), **{"Transfer-Encoding": "chunked"})
    in_two(traced.served, infer, with_id("pieces"))
    traced.post("/v2/models/plain/generate", b'{"A":[1,2],"id":"one"}')
    traced.post("/v2/models/twice/generate_stream", b'{"A":[1,2],"id":"many"}')
    traced.post("/v2/models/raising/infer", with_id("raising"))
    with grpc.insecure_channel(traced.served.grpc_address) as channel:
        invoke = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        invoke(named("unary"), timeout=WITHIN_S)
        stream(channel, named("streamed"))
        stream(channel, named("free", model="twice"))
    got = stages(traced.rows())
    for id in ("whole", "chunks", "pieces", "one", "raising"):
        assert got[id] == [*HTTP[0], *QUEUED, *COMPUTED, *ANSWERED, *HTTP[1]], id
    for id in ("unary", "streamed"):
        assert got[id] == [*GRPC[0], *QUEUED, *COMPUTED, *ANSWERED, *GRPC[1]], id
    # What a model gives bit by bit is sent while it computes.
    for id, (before, after) in (("many", HTTP), ("free", GRPC)):
        assert got[id][:4] == [*before, *QUEUED]
        assert sorted(got[id]) == sorted([*before, *QUEUED, *COMPUTED, *ANSWERED, *after])
        assert got[id][-1] == after[-1]


def in_two(served: Served, path: str, body: bytes) -> None:
    """Send a request whose body comes later than its head."""
    host, _, port = served.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=WITHIN_S) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:10])
        # Whatever the server does next, it does after it has seen that.
        other = HTTPConnection(served.address, timeout=WITHIN_S)
        other.request("GET", "/v2/health/live")
        other.getresponse().read()
        other.close()
        connection.sendall(body[10:])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_steps_of_an_ensemble_are_its_children(traced: Traced) -> None:
    traced.post("/v2/models/pair/infer", with_id("rest"))
    with grpc.insecure_channel(traced.served.grpc_address) as channel:
        invoke = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        invoke(named("grpc", model="pair"), timeout=WITHIN_S)
    rows = traced.rows()
    for id, (before, after) in (("rest", HTTP), ("grpc", GRPC)):
        (whole,) = [row for row in rows if row.get("request_id") == id and "parent_id" not in row]
        steps = [row for row in rows if row.get("parent_id") == whole["id"]]
        assert [step["model_name"] for step in steps] == ["plain", "gone"]
        names = {
            row["id"]: [stage["name"] for stage in row["timestamps"]]
            for row in rows
            if "timestamps" in row
        }
        assert names[whole["id"]] == [*before, *QUEUED, *ANSWERED, *after]
        for step in steps:
            assert names[step["id"]] == [*QUEUED, *COMPUTED, "REQUEST_END"]


def test_requests_that_a_model_makes_are_children_of_the_one_it_names(traced: Traced) -> None:
    """However much of the models that it asks is traced for themselves: nothing, here."""
    traced.post("/v2/models/plain/trace/setting", b'{"trace_level": ["OFF"]}')
    with grpc.insecure_channel(traced.served.grpc_address) as channel:
        change = pb.TraceSettingRequest(model_name="gone")
        change.settings["trace_level"].value.append("OFF")
        setting = channel.unary_unary("/inference.GRPCInferenceService/TraceSetting")
        setting(change.SerializeToString(), timeout=WITHIN_S)
        invoke = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for name in ("asks", "asks_apart", "asks_twice", "asks_alone", "function", "plain"):
            traced.post(f"/v2/models/{name}/infer", with_id(f"{name} rest"))
            invoke(named(f"{name} grpc", model=name), timeout=WITHIN_S)
    rows = traced.rows()
    about = [row for row in rows if "model_name" in row]
    names = {
        row["id"]: [stage["name"] for stage in row["timestamps"]]
        for row in rows
        if "timestamps" in row
    }

    def tree(parent: Mapping[str, Any]) -> list[Any]:
        children = [row for row in about if row.get("parent_id") == parent["id"]]
        return [parent["model_name"], *map(tree, children)]

    roots = {row["request_id"]: tree(row) for row in about if "parent_id" not in row}
    for way in ("rest", "grpc"):
        assert roots.pop(f"asks {way}") == ["asks", ["plain"]]
        assert roots.pop(f"asks_twice {way}") == ["asks_twice", ["asks", ["plain"]]]
        apart = ["asks_apart", ["pair", ["plain"], ["gone"]]]
        assert roots.pop(f"asks_apart {way}") == apart
        assert roots.pop(f"asks_alone {way}") == ["asks_alone"]
        assert roots.pop(f"function {way}") == ["function", ["plain"]]
    assert roots == {}
    for row in about:
        if row["model_name"] in ("plain", "gone"):
            assert names[row["id"]] == [*QUEUED, *COMPUTED, "REQUEST_END"]
    assert {row.get("request_id") for row in about if row["model_name"] == "pair"} == {"inner"}
