"""Every text that Triton's clients match on, by a bad request over REST and over gRPC.

The server is a process and the requests come over sockets: what is checked here is what a client
written for Triton sees. The rows follow the tables of the protocol's reference.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.refused_models import write_models
from tests.served import Served, serving

pytestmark = pytest.mark.slow

WITHIN_S = 30
TWO = np.array([1, 2], "<f4").tobytes()
UNKNOWN_ID = "[request id: <id_unknown>] "


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("refusals")
    write_models(root)
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Served]:
    controlled = "--model-control-mode=explicit", "--load-model=*"
    with serving(str(repository), *controlled, "--exit-on-error=false") as served:
        yield served


@pytest.fixture(scope="module")
def strict_server(repository: Path) -> Iterator[Served]:
    """Refuses what Triton refuses, and everything that is not infer without a header."""
    with serving(
        str(repository),
        "--strict-triton",
        "--exit-on-error=false",
        "--http-restricted-api=metadata:key=value",
        "--grpc-restricted-protocol=metadata:key=value",
        "--http-header-forward-pattern=^(x-|priority$)",
        "--grpc-header-forward-pattern=^(x-|priority$)",
    ) as served:
        yield served


@pytest.fixture(scope="module")
def channel(server: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as made:
        yield made


# One request in both forms.


@dataclass
class In:
    """An input; the data are bytes."""

    name: str = "A"
    datatype: str = "FP32"
    shape: Sequence[int] = (2,)
    data: bytes = TWO


@dataclass
class Asked:
    """An inference request, whichever way it is sent."""

    model: str
    inputs: Sequence[In] = (In(),)
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    id: str = ""

    def by_rest(self) -> tuple[str, bytes, dict[str, str]]:
        document: dict[str, Any] = {
            "id": self.id,
            "parameters": dict(self.parameters),
            "inputs": [
                {
                    "name": one.name,
                    "datatype": one.datatype,
                    "shape": list(one.shape),
                    "parameters": {"binary_data_size": len(one.data)},
                }
                for one in self.inputs
            ],
            "outputs": [{"name": name} for name in self.outputs],
        }
        head = json.dumps(document).encode()
        version = f"/versions/{self.version}" if self.version else ""
        body = head + b"".join(one.data for one in self.inputs)
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return f"/v2/models/{self.model}{version}/infer", body, headers

    def by_grpc(self) -> bytes:
        message = pb.ModelInferRequest(
            model_name=self.model, model_version=self.version, id=self.id
        )
        for one in self.inputs:
            message.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
            message.raw_input_contents.append(one.data)
        for name in self.outputs:
            message.outputs.add(name=name)
        for key, value in self.parameters.items():
            message.parameters[key].CopyFrom(parameter(value))
        return message.SerializeToString()


def parameter(value: Any) -> pb.InferParameter:
    match value:
        case bool():
            return pb.InferParameter(bool_param=value)
        case int():
            return pb.InferParameter(int64_param=value)
        case float():
            return pb.InferParameter(double_param=value)
        case _:
            return pb.InferParameter(string_param=value)


def rest(
    served: Served,
    path: str,
    body: Any = b"",
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> tuple[int, str]:
    """Send one request; the status and the text of the error."""
    if not isinstance(body, bytes):
        body = json.dumps(body)
    connection = HTTPConnection(served.address, timeout=WITHIN_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text)["error"] if text else ""
    finally:
        connection.close()


def call(channel: grpc.Channel, method: str, message: bytes, **options: Any) -> tuple[str, str]:
    """Send one message; the name of the status and its text."""
    invoke = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.RpcError) as raised:
        invoke(message, timeout=WITHIN_S, **options)
    return raised.value.code().name, raised.value.details()


SHARED = [
    (
        Asked("nobody"),
        (404, "NOT_FOUND"),
        "Request for unknown model: 'nobody' is not found",
    ),
    (
        Asked("plain", version="7"),
        (404, "NOT_FOUND"),
        "Request for unknown model: 'plain' version 7 is not found",
    ),
    (
        Asked("broken"),
        (404, "NOT_FOUND"),
        "Request for unknown model: 'broken' has no available versions",
    ),
    (
        Asked("broken", version="1"),
        (503, "UNAVAILABLE"),
        "Request for unknown model: 'broken' version 1 is not at ready state",
    ),
    (
        Asked("plain", version="9223372036854775808"),
        (400, "INVALID_ARGUMENT"),
        "failed to get model version from specified version string '9223372036854775808' "
        "(details: stol), version should be an integral value > 0",
    ),
    (
        Asked("two", [In(shape=(1, 3), data=TWO + TWO[:4]), In("B", shape=(1, 2))]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "unexpected shape for input 'A' for model 'two'. Expected [-1,2], got [1,3].",
    ),
    (
        Asked("plain", [In(data=TWO[:4])], id="mine"),
        (400, "INVALID_ARGUMENT"),
        "[request id: mine] input byte size mismatch for input 'A' for model 'plain'. "
        "Expected 8, got 4",
    ),
    (
        Asked("plain", [In(datatype="INT32")]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "inference input 'A' data-type is 'INT32', but model 'plain' expects 'FP32'",
    ),
    (
        Asked("two", [In(shape=(1, 2))]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "expected 2 inputs but got 1 inputs for model 'two'. Got input(s) ['A'], but "
        "missing required input(s) ['B']. Please provide all required input(s).",
    ),
    (
        Asked("plain", [In(), In("B")]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "expected 1 inputs but got 2 inputs for model 'plain'.",
    ),
    (
        Asked("optional", []),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "expected number of inputs between 1 and 2 but got 0 inputs for model "
        "'optional'.",
    ),
    (
        Asked("plain", [In("X")]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "unexpected inference input 'X' for model 'plain'",
    ),
    (
        Asked("plain", outputs=["X"]),
        (400, "INVALID_ARGUMENT"),
        "unexpected inference output 'X' for model 'plain'",
    ),
    (
        Asked("two", [In(shape=(5, 2), data=TWO * 5), In("B", shape=(5, 2), data=TWO * 5)]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "inference request batch-size must be <= 4 for 'two'",
    ),
    (
        Asked("two", [In(shape=(1, 2)), In("B", shape=(2, 2), data=TWO * 2)]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "input 'B' batch size does not match other inputs for 'two'",
    ),
    (
        Asked("two", [In(shape=(), data=TWO[:4]), In("B", shape=(), data=TWO[:4])]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "input 'A' has no shape but model requires batch dimension for 'two'",
    ),
    (
        Asked("two", [In(shape=(1, 2)), In(shape=(1, 2))]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "input 'A' already exists in request",
    ),
    (
        Asked("plain", outputs=["O", "O"]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "output 'O' already exists in request",
    ),
    (
        Asked("text", [In(datatype="BYTES", data=b"\1\0")]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "incomplete string length indicator for inference input 'A' for model "
        "'text', expecting 4 bytes but only 2 bytes available.",
    ),
    (
        Asked("text", [In(datatype="BYTES", data=b"\1\0\0\0a")]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "expected 2 string elements for inference input 'A' for model 'text', got 1",
    ),
    (
        Asked("text", [In(datatype="BYTES", data=b"\0\0\0\0" * 3)]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "unexpected number of string elements 3 for inference input 'A' for model "
        "'text', expecting 2",
    ),
    (
        Asked("text", [In(datatype="BYTES", data=b"\0\0\0\0\7\0\0\0ab")]),
        (400, "INVALID_ARGUMENT"),
        UNKNOWN_ID + "incomplete string data for inference input 'A', expecting string of length "
        "7 but only 2 bytes available",
    ),
    (
        Asked("wide", [In(shape=(2**40, 2**40))]),
        (400, "INVALID_ARGUMENT"),
        "invalid shape for input 'A': shape [1099511627776,1099511627776] causes total element "
        "count to exceed maximum size of 9223372036854775807",
    ),
    (
        Asked("sequence", [In(shape=(1, 2))]),
        (400, "INVALID_ARGUMENT"),
        "inference request to model 'sequence' must specify a non-zero or non-empty correlation ID",
    ),
    (
        Asked("sequence", [In(shape=(1, 2))], parameters={"sequence_id": 5}),
        (400, "INVALID_ARGUMENT"),
        "inference request for sequence 5 to model 'sequence' must specify the START flag on the "
        "first request of the sequence",
    ),
    (
        Asked(
            "sequence",
            [In(shape=(2, 2), data=TWO * 2)],
            parameters={"sequence_id": 6, "sequence_start": True},
        ),
        (400, "INVALID_ARGUMENT"),
        "inference request to model 'sequence' must specify batch-size 1 due to requirements of "
        "sequence batcher",
    ),
    (
        Asked("raising"),
        (500, "INTERNAL"),
        "Failed to process the request(s) for model 'raising_0_0', message: ValueError: this model "
        "never works",
    ),
    (Asked("coded"), (404, "NOT_FOUND"), "not these"),
    (
        Asked("plain", parameters={"triton_mine": True}),
        (400, "INVALID_ARGUMENT"),
        "parameter keys starting with 'triton_' are reserved for Triton usage",
    ),
    (
        Asked("decoupled"),
        (501, "UNIMPLEMENTED"),
        "support models with decoupled transaction policy",
    ),
]


@pytest.mark.parametrize(
    ("asked", "statuses", "text"), SHARED, ids=lambda value: getattr(value, "model", None)
)
def test_a_bad_request_is_told_the_same_over_rest_and_grpc(
    server: Served,
    channel: grpc.Channel,
    asked: Asked,
    statuses: tuple[int, str],
    text: str,
) -> None:
    by_rest = rest(server, *asked.by_rest())
    by_grpc = call(channel, "ModelInfer", asked.by_grpc())
    assert (by_rest[0], by_grpc[0]) == statuses
    for said in (by_rest[1], by_grpc[1]):
        assert text in said
        assert "Traceback" not in said
        if not text.startswith(("support", "parameter")):
            assert said.startswith(text)


@pytest.mark.parametrize(
    ("model", "text"),
    [("full", "Exceeds maximum queue size"), ("hasty", "Request timeout expired")],
)
def test_a_busy_model_says_that_it_is_unavailable(
    server: Served, channel: grpc.Channel, model: str, text: str
) -> None:
    asked = Asked(model, [In(shape=(1, 2))])
    invoke = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def by_grpc() -> tuple[str, str]:
        try:
            invoke(asked.by_grpc(), timeout=WITHIN_S)
        except grpc.RpcError as exc:
            return exc.code().name, exc.details()
        return "", ""

    def by_rest() -> tuple[int, str]:
        path, body, headers = asked.by_rest()
        connection = HTTPConnection(server.address, timeout=WITHIN_S)
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        read = reply.read()
        connection.close()
        return (reply.status, json.loads(read)["error"]) if reply.status != 200 else (0, "")

    for one, status in ((by_rest, 503), (by_grpc, "UNAVAILABLE")):
        with ThreadPoolExecutor(8) as pool:
            answers = [future.result() for future in [pool.submit(one) for _ in range(8)]]
        refused = [answer for answer in answers if answer[1]]
        assert refused
        for code, said in refused:
            assert code == status
            assert said.startswith(text)


# What only REST can get wrong.

JSON_INPUT = {"name": "A", "datatype": "FP32", "shape": [2], "data": [1, 2]}


def with_input(**members: Any) -> dict[str, Any]:
    changed = {**JSON_INPUT, **members}
    return {"inputs": [{key: value for key, value in changed.items() if value is not None}]}


def with_parameters(**parameters: Any) -> dict[str, Any]:
    return {**with_input(), "parameters": parameters}


def with_output(**parameters: Any) -> dict[str, Any]:
    return {**with_input(), "outputs": [{"name": "O", "parameters": parameters}]}


def wrong(key: str, wanted: str, as_type: str = "") -> str:
    return f"Unable to parse '{key}': attempt to access JSON non-{wanted} as {as_type or wanted}"


ONE_SOURCE = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'."
)

ONLY_REST: list[tuple[Any, int, str]] = [
    (b"{", 400, "failed to parse the request JSON buffer: "),
    (
        {},
        400,
        "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'",
    ),
    ({"inputs": {}}, 400, wrong("inputs", "array")),
    ({**with_input(), "outputs": {}}, 400, wrong("outputs", "array")),
    (with_input(shape=2), 400, wrong("shape", "array")),
    (with_input(data=2), 400, wrong("data", "array")),
    (with_input(name=2), 400, wrong("name", "string")),
    ({**with_input(), "id": 2}, 400, wrong("id", "string")),
    (with_input(datatype=2), 400, wrong("datatype", "string")),
    (with_input(shape=[-2]), 400, wrong("shape", "unsigned-integer")),
    (with_input(shape=[2.0]), 400, wrong("shape", "unsigned-integer")),
    (with_input(shape=["2"]), 400, wrong("shape", "unsigned-integer")),
    (
        with_input(data=None, parameters={"binary_data_size": "8"}),
        400,
        wrong("binary_data_size", "unsigned-integer"),
    ),
    (with_parameters(priority=-1), 400, wrong("priority", "unsigned-integer")),
    (with_parameters(timeout="1"), 400, wrong("timeout", "unsigned-integer")),
    (with_input(datatype="INT32", data=["1", 2]), 400, wrong("data", "signed-integer")),
    (with_input(datatype="BOOL", data=[1, 0]), 400, wrong("data", "boolean")),
    (with_input(data=["1", 2]), 400, wrong("data", "number", "double")),
    (with_parameters(binary_data_output=1), 400, wrong("binary_data_output", "boolean")),
    (with_output(binary_data=1), 400, wrong("binary_data", "boolean")),
    (with_parameters(sequence_start=1), 400, wrong("sequence_start", "boolean")),
    (
        {**with_input(), "parameters": []},
        400,
        "failed to get request params.: attempt to get members for non-object",
    ),
    (with_input(data=None), 400, f"{ONE_SOURCE} But no field is set"),
    (with_input(parameters={"binary_data_size": 8}), 400, f"{ONE_SOURCE} But set "),
    (
        with_input(data=[1, 2, 3]),
        400,
        "Unable to parse 'data': Shape does not match true shape of 'data' field",
    ),
    (
        with_input(data=[1]),
        400,
        "Unable to parse 'data': Shape does not match true shape of 'data' field",
    ),
    (with_input(datatype="FP33"), 400, "invalid datatype for input A"),
    (
        with_input(data=None, parameters={"binary_data_size": 8}),
        400,
        "unexpected size for input 'A', expecting 8 additional bytes for model 'plain'",
    ),
    (
        with_input(shape=[2**24, 2], data=[]),
        400,
        "JSON input 'A' has a byte_size (134217728 bytes) that exceeds the maximum allowed value "
        "of 67108864 bytes. Use --http-max-input-size to increase the limit.",
    ),
    (with_input(shape=[2**62, 2], data=[]), 400, "byte size overflow for input 'A': "),
    (
        b'{"inputs":' + b"[" * 200 + b"]" * 200 + b"}",
        400,
        "JSON nesting depth exceeds maximum allowed limit (100)",
    ),
    (
        with_parameters(mine={}),
        400,
        "parameter 'mine' has invalid type. It should be either 'int', 'bool', or 'string'.",
    ),
    (
        with_output(shared_memory_region="r", classification=1),
        400,
        "Output can't set both 'shared_memory_region' and 'classification'",
    ),
    (
        with_output(shared_memory_region="r", binary_data=True),
        400,
        "Output can't set both 'shared_memory_region' and 'binary_data'",
    ),
]


@pytest.mark.parametrize(("body", "status", "text"), ONLY_REST)
def test_a_bad_body_is_told_what_is_wrong(
    server: Served, body: Any, status: int, text: str
) -> None:
    got, said = rest(server, "/v2/models/plain/infer", body)
    assert said.startswith(text)
    assert got == status


@pytest.mark.parametrize(
    ("length", "shown"), [("-1", "-1"), ("999", "999"), ("x", "x")], ids=["less", "more", "none"]
)
def test_a_header_length_out_of_range_is_refused(server: Served, length: str, shown: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    status, said = rest(server, "/v2/models/plain/infer", with_input(), headers)
    assert status == 400
    assert said.startswith("inference header size should be in range (0, ")
    assert f", got: {shown}" in said


def test_bytes_that_no_input_takes_are_refused(server: Served) -> None:
    path, body, headers = Asked("plain").by_rest()
    status, said = rest(server, path, body + b"more", headers)
    assert status == 400
    assert said.startswith("unexpected additional input data for model 'plain'")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            "two",
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'two' "
            "model configuration",
        ),
        (
            "wide",
            "The shape of the raw input 'A' can not be deduced because there are more than one "
            "variable-sized dimension",
        ),
        ("text", "For BYTE datatype raw input 'A', the model must have input shape [1]"),
        ("plain", UNKNOWN_ID + "input byte size mismatch for input 'A' for model 'plain'"),
    ],
)
def test_a_raw_request_that_cannot_be_one_is_refused(server: Served, model: str, text: str) -> None:
    headers = {"Inference-Header-Content-Length": "0"}
    status, said = rest(server, f"/v2/models/{model}/infer", TWO[:4], headers)
    assert status == 400
    assert said.startswith(text)


def test_a_compression_that_is_not_known_is_refused(server: Served) -> None:
    headers = {"Content-Encoding": "br"}
    status, said = rest(server, "/v2/models/plain/infer", with_input(), headers)
    assert (status, said[:28]) == (501, "Unsupported compression type")
    status, said = rest(server, "/v2/models/plain/generate", {}, {"Content-Encoding": "gzip"})
    assert status == 400
    assert said.startswith("Unsupported content-encoding, only 'identity' is supported.")


def test_a_body_in_too_many_chunks_is_refused(server: Served) -> None:
    connection = HTTPConnection(server.address, timeout=WITHIN_S)
    chunks = (b" " for _ in range(65_537))
    chunked = {"Transfer-Encoding": "chunked"}
    connection.request("POST", "/v2/models/plain/infer", chunks, chunked, encode_chunked=True)
    reply = connection.getresponse()
    said = json.loads(reply.read())["error"]
    connection.close()
    assert reply.status == 400
    assert said == (
        "Chunked request body exceeds maximum of 65536 non-empty chunks. Send fewer or larger HTTP "
        "chunks."
    )


def test_half_precision_is_no_json_where_tritons_rules_are_kept(strict_server: Served) -> None:
    typed = with_input(datatype="FP16")
    status, said = rest(strict_server, "/v2/models/half/infer", typed)
    assert status == 400
    assert said.startswith("receiving FP16 data via JSON is not supported. Please use the binary")
    path, body, headers = Asked("half", [In(datatype="FP16", data=TWO[:4])]).by_rest()
    status, said = rest(strict_server, path, body, headers)
    assert status == 400
    assert said.startswith("sending FP16 data via JSON is not supported. Please use the binary")


@pytest.mark.parametrize(
    ("path", "method", "status", "text"),
    [
        ("/v2/nothing", "GET", 404, "Not Found"),
        ("/v2/", "GET", 404, "Not Found"),
        ("/v2/models/plain/versions/x/infer", "POST", 404, "Not Found"),
        ("/v2/models/plain/infer", "GET", 405, "Method Not Allowed"),
        ("/v2/models/broken/versions/1/ready", "GET", 400, "Model version not ready"),
        ("/v2/models/nobody/stats", "GET", 400, "requested model 'nobody' is not available"),
        (
            "/v2/models/plain/versions/7/stats",
            "GET",
            400,
            "requested model version is not available for model 'plain'",
        ),
    ],
)
def test_a_question_about_what_there_is_not_is_refused(
    server: Served, path: str, method: str, status: int, text: str
) -> None:
    got, said = rest(server, path, method=method)
    assert got == status
    assert said.startswith(text)


# What only gRPC can get wrong.


def message(**members: Any) -> bytes:
    request = pb.ModelInferRequest(model_name="plain", **members)
    if not request.inputs:
        request.inputs.add(name="A", datatype="FP32", shape=[2])
    return request.SerializeToString()


def typed(datatype: str = "FP32", shape: Sequence[int] = (2,), **contents: Any) -> dict[str, Any]:
    return {"name": "A", "datatype": datatype, "shape": shape, "contents": contents}


def raw(**members: Any) -> bytes:
    return message(raw_input_contents=[TWO], **members)


WRONG_KIND = "invalid value type for '{}' parameter, expected {}."

ONLY_GRPC = [
    (
        raw(inputs=[typed(fp32_contents=[1, 2])]),
        "contents field must not be specified when using raw_input_contents for 'A' for model "
        "'plain'",
    ),
    (
        message(inputs=[typed("FP32", int_contents=[1, 2])]),
        "unexpected explicit tensor data for input tensor 'A' for model 'plain' of type 'INT32', "
        "expected datatype 'FP32'",
    ),
    (
        message(inputs=[typed("FP16", fp32_contents=[1, 2])]),
        "unexpected explicit tensor data for input tensor 'A' for model 'plain' of type 'FP32', "
        "expected datatype 'FP16'",
    ),
    (
        message(inputs=[typed(fp32_contents=[1, 2], fp64_contents=[1, 2])]),
        "unexpected explicit tensor data for input tensor 'A' for model 'plain', binary data was "
        "already supplied.",
    ),
    (
        message(),
        "unable to find data for input tensor 'A' for model 'plain' in request.",
    ),
    (
        message(inputs=[typed()]),
        "unable to find data for input tensor 'A' for model 'plain' in request.",
    ),
    (
        message(inputs=[typed(fp32_contents=[1])]),
        UNKNOWN_ID + "input byte size mismatch for input 'A' for model 'plain'. Expected 8, got 4",
    ),
    (
        raw(inputs=[{"name": "A", "datatype": "FP33", "shape": [2]}]),
        UNKNOWN_ID
        + "inference input 'A' data-type is '<invalid>', but model 'plain' expects 'FP32'",
    ),
    (
        raw(inputs=[{"name": "A", "datatype": "FP32", "shape": [-2]}]),
        "invalid shape for input 'A': shape [-2] contains one or more invalid dimensions",
    ),
    (
        raw(model_version="x"),
        "failed to get model version from specified version string 'x' (details: stol), version "
        "should be an integral value > 0",
    ),
    (
        raw(model_version="-1"),
        "invalid model version specified '-1' , version should be an integral value > 0",
    ),
    (
        raw(parameters={"sequence_id": parameter(True)}),
        WRONG_KIND.format("sequence_id", "int64_param or string_param"),
    ),
    (
        raw(parameters={"sequence_start": parameter(1)}),
        WRONG_KIND.format("sequence_start", "bool_param"),
    ),
    (
        raw(parameters={"sequence_end": parameter(1)}),
        WRONG_KIND.format("sequence_end", "bool_param"),
    ),
    (
        raw(parameters={"priority": parameter("1")}),
        WRONG_KIND.format("priority", "int64_param or uint64_param"),
    ),
    (raw(parameters={"timeout": parameter(0.5)}), WRONG_KIND.format("timeout", "int64_param")),
    (
        raw(parameters={"x": pb.InferParameter()}),
        WRONG_KIND.format("x", "int64_param, bool_param, or string_param"),
    ),
    (
        raw(outputs=[{"name": "O", "parameters": {"classification": parameter("1")}}]),
        WRONG_KIND.format("classification", "int64_param"),
    ),
    (
        raw(parameters={"triton_x": parameter(True)}),
        "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following "
        "keys starting with 'triton_' are allowed: triton_enable_empty_final_response",
    ),
    (b"\x0a", "the message is malformed"),
]


@pytest.mark.parametrize(("data", "text"), ONLY_GRPC)
def test_a_bad_message_is_told_what_is_wrong(channel: grpc.Channel, data: bytes, text: str) -> None:
    status, said = call(channel, "ModelInfer", data)
    assert said.startswith(text)
    assert status == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"name": "nobody"}, "requested model 'nobody' is not available"),
        (
            {"name": "plain", "version": "7"},
            "requested model version is not available for model 'plain'",
        ),
    ],
)
def test_statistics_of_what_there_is_not_are_an_invalid_argument(
    channel: grpc.Channel, members: Mapping[str, str], text: str
) -> None:
    data = pb.ModelStatisticsRequest(**members).SerializeToString()
    status, said = call(channel, "ModelStatistics", data)
    assert status == "INVALID_ARGUMENT"
    assert said.startswith(text)


def test_classes_of_strings_are_refused(server: Served, channel: grpc.Channel) -> None:
    text = "class result not available for output due to unsupported type 'BYTES'"
    data = b"\0\0\0\0" * 2
    asked = Asked("text", [In(datatype="BYTES", data=data)])
    path = "/v2/models/text/infer"
    body = {
        "inputs": [{"name": "A", "datatype": "BYTES", "shape": [2], "data": ["", ""]}],
        "outputs": [{"name": "O", "parameters": {"classification": 1}}],
    }
    status, said = rest(server, path, body)
    assert (status, said[: len(text)]) == (400, text)
    request = pb.ModelInferRequest.FromString(asked.by_grpc())
    request.outputs.add(name="O").parameters["classification"].int64_param = 1
    name, said = call(channel, "ModelInfer", request.SerializeToString())
    assert (name, said[: len(text)]) == ("INVALID_ARGUMENT", text)


# The repository.


def load(name: str, **parameters: Any) -> bytes:
    request = pb.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        chosen = request.parameters[key.replace("file_", "file:1/")]
        member = "bytes_param" if isinstance(value, bytes) else "string_param"
        setattr(chosen, member, value)
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("name", "statuses", "text"),
    [
        (
            "nobody",
            ("INTERNAL", 500),
            "failed to load 'nobody', failed to poll from model repository",
        ),
        ("broken", ("INVALID_ARGUMENT", 400), "load failed for model 'broken': version 1 is at "
         "UNAVAILABLE state: "),
        (
            "../plain",
            ("INVALID_ARGUMENT", 400),
            "invalid model name '../plain', model name must not contain path traversal characters",
        ),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_loaded_says_why(
    server: Served, channel: grpc.Channel, name: str, statuses: tuple[str, int], text: str
) -> None:
    status, said = call(channel, "RepositoryModelLoad", load(name))
    assert said.startswith(text)
    assert status == statuses[0]
    path = name.replace("/", "%2F")
    status_code, said = rest(server, f"/v2/repository/models/{path}/load")
    assert said.startswith(text)
    assert status_code == statuses[1]


@pytest.mark.parametrize(
    ("by_grpc", "by_rest", "status", "text"),
    [
        ({"x": "1"}, {"x": "1"}, 400, "unrecognized load parameter 'x'."),
        (
            {"config": b"1"},
            {"config": 1},
            400,
            "invalid value type for load parameter 'config', expected string_param.",
        ),
        ({"config": "{"}, {"config": "{"}, 500, "failed to load 'plain'"),
        ({"file_m": b"1"}, {"file:1/m": "MQ=="}, 500, "failed to load 'plain'"),
        (
            {"file_m": "1"},
            {"file:1/m": 1},
            400,
            "invalid value type for load parameter 'file:1/m', expected ",
        ),
    ],
)
def test_a_load_with_wrong_parameters_says_which(
    server: Served,
    channel: grpc.Channel,
    by_grpc: dict[str, Any],
    by_rest: dict[str, Any],
    status: int,
    text: str,
) -> None:
    name, said = call(channel, "RepositoryModelLoad", load("plain", **by_grpc))
    assert said.startswith(text)
    assert name == {400: "INVALID_ARGUMENT", 500: "INTERNAL"}[status]
    path = "/v2/repository/models/plain/load"
    got, said = rest(server, path, {"parameters": by_rest})
    assert said.startswith(text)
    assert got == status


def test_one_of_several_repositories_cannot_be_named(server: Served, channel: grpc.Channel) -> None:
    text = "'repository_name' specification is not supported"
    named = pb.RepositoryModelLoadRequest(repository_name="r", model_name="plain")
    status, said = call(channel, "RepositoryModelLoad", named.SerializeToString())
    assert (status, said[: len(text)]) == ("UNIMPLEMENTED", text)
    got, said = rest(server, "/v2/repository/r/models/plain/load")
    assert (got, said[: len(text)]) == (501, text)


def test_an_index_that_is_asked_for_wrongly_is_refused(server: Served) -> None:
    status, said = rest(server, "/v2/repository/index", {"ready": 1})
    assert (status, said) == (400, "Invalid value for 'ready': expected a boolean")


def test_loading_is_refused_where_models_are_not_controlled(strict_server: Served) -> None:
    text = "explicit model load / unload is not allowed if polling is enabled"
    status, said = rest(strict_server, "/v2/repository/models/plain/load")
    assert (status, said[: len(text)]) == (503, text)
    with grpc.insecure_channel(strict_server.address) as channel:
        name, said = call(channel, "RepositoryModelLoad", load("plain"))
    assert (name, said[: len(text)]) == ("UNAVAILABLE", text)


def test_a_restricted_category_wants_its_header(strict_server: Served) -> None:
    assert rest(strict_server, "/v2", method="GET") == (
        403,
        "This API is restricted, expecting header 'key'",
    )
    header = "triton-grpc-protocol-key"
    invoke = "/inference.GRPCInferenceService/ServerMetadata"
    with grpc.insecure_channel(strict_server.address) as channel:
        for metadata in ((), ((header, "wrong"),)):
            assert call(channel, "ServerMetadata", b"", metadata=metadata) == (
                "UNAVAILABLE",
                f"This protocol is restricted, expecting header '{header}'",
            )
        allowed = channel.unary_unary(invoke)(b"", timeout=WITHIN_S, metadata=((header, "value"),))
    assert pb.ServerMetadataResponse.FromString(allowed).name == "triton"


def test_a_reserved_name_is_not_forwarded(strict_server: Served) -> None:
    text = "Header '{}' is reserved for Triton usage and cannot be forwarded."
    asked = Asked("plain")
    path, body, headers = asked.by_rest()
    assert rest(strict_server, path, body, {**headers, "Priority": "1"}) == (
        400,
        text.format("Priority"),
    )
    with grpc.insecure_channel(strict_server.address) as channel:
        metadata = (("priority", "1"),)
        said = call(channel, "ModelInfer", asked.by_grpc(), metadata=metadata)
    assert said == ("INVALID_ARGUMENT", text.format("priority"))


# Shared memory, where the operator has not allowed it.

SHM_IS_OFF = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)


def test_shared_memory_is_off_unless_it_is_allowed(server: Served, channel: grpc.Channel) -> None:
    key = {"key": "/k", "offset": 0, "byte_size": 8}
    asked = rest(server, "/v2/systemsharedmemory/region/r/register", key)
    assert asked == (501, SHM_IS_OFF)
    register = pb.SystemSharedMemoryRegisterRequest(name="r", key="/k", byte_size=8)
    asked_by_grpc = call(channel, "SystemSharedMemoryRegister", register.SerializeToString())
    assert asked_by_grpc == ("UNIMPLEMENTED", SHM_IS_OFF)


def test_tensors_in_shared_memory_are_refused_with_it(
    server: Served, channel: grpc.Channel
) -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    body = with_input(data=None, parameters=place)
    assert rest(server, "/v2/models/plain/infer", body) == (501, SHM_IS_OFF)
    entry = {
        "name": "A",
        "datatype": "FP32",
        "shape": [2],
        "parameters": {key: parameter(value) for key, value in place.items()},
    }
    assert call(channel, "ModelInfer", message(inputs=[entry])) == ("UNIMPLEMENTED", SHM_IS_OFF)


@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_a_region_that_is_not_there_is_not_found(
    server: Served, channel: grpc.Channel, kind: str
) -> None:
    text = f"Unable to find {kind} shared memory region: 'r'"
    path = f"/v2/{kind}sharedmemory/region/r/status"
    assert rest(server, path, method="GET") == (404, text)
    named = pb.SystemSharedMemoryStatusRequest(name="r").SerializeToString()
    method = f"{kind.capitalize()}SharedMemoryStatus"
    assert call(channel, method, named) == ("NOT_FOUND", text)
