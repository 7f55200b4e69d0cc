"""The error tables of the V2 protocol's reference, row by row: the bad request and what it is told.

Each row is a request over REST and the same over gRPC, where both have it. Where one has not, a
sentence says why in its place. The texts are the first sentence that Triton's clients match on;
what Modelport adds after it is tested where it is made.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.message import Message

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.asking import TWO, Asked, In, Rest, Rpc, parameter, parameters

__all__ = ["ROWS", "Row", "Where"]

Where = Literal["open", "strict", "shared"]
"""Which server is asked: one that controls models, one that keeps Triton's rules and restricts
APIs, or one with shared memory and the behaviours of OVMS."""

INVALID = 400, "INVALID_ARGUMENT"
EXISTS = 400, "ALREADY_EXISTS"
ABSENT = 404, "NOT_FOUND"
INTERNAL = 500, "INTERNAL"
UNSUPPORTED = 501, "UNIMPLEMENTED"
UNAVAILABLE = 503, "UNAVAILABLE"
RESTRICTED = 403, "UNAVAILABLE"


@dataclass(frozen=True)
class Row:
    """A row of the reference.

    Attributes:
        case: What is wrong with the request.
        status: Of REST and of gRPC.
        text: What the answer begins with; two where the protocols say it differently.
        rest: The request over REST, or why there is none.
        rpc: The call over gRPC, or why there is none.
        where: Which server is asked.
    """

    case: str
    status: tuple[int, str]
    text: str | tuple[str, str]
    rest: Rest | str
    rpc: Rpc | str
    where: Where = "open"

    @property
    def texts(self) -> tuple[str, str]:
        """Over REST and over gRPC."""
        return (self.text, self.text) if isinstance(self.text, str) else self.text


# Making requests.

INFER = "/v2/models/plain/infer"
UNKNOWN_ID = "[request id: <id_unknown>] "
JSON_INPUT = {"name": "A", "datatype": "FP32", "shape": [2], "data": [1, 2]}

TYPES = "the fields of a message have their types"
PRESENT = "an absent field of a message is its empty value"
HTTP = "it is about HTTP"
ABOUT_JSON = "it is about JSON"
NO_RPC = "gRPC has no call for it"
NO_PATH = "REST says it in the path"
TENSORS = "it is about the fields of tensors in a message"
ONE_OF = "it is about the members of a parameter in a message"


def both(asked: Asked) -> tuple[Rest, Rpc]:
    """Send the same over either."""
    return asked.by_rest(), asked.by_grpc()


def post(body: Any, path: str = INFER, **headers: str) -> Rest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Rest(path, body, named)


def get(path: str) -> Rest:
    return Rest(path, method="GET")


def with_input(**members: Any) -> dict[str, Any]:
    """A good request with other members of its input; ``None`` leaves one out."""
    changed = {**JSON_INPUT, **members}
    return {"inputs": [{key: value for key, value in changed.items() if value is not None}]}


def with_parameters(**given: Any) -> dict[str, Any]:
    return {**with_input(), "parameters": given}


def with_output(**given: Any) -> dict[str, Any]:
    return {**with_input(), "outputs": [{"name": "O", "parameters": given}]}


def rpc(method: str, **members: Any) -> Rpc:
    made: Message = getattr(pb, f"{method}Request")(**members)
    return Rpc(method, made.SerializeToString())


def message(**members: Any) -> Rpc:
    """An inference request without data of its own."""
    members = {"inputs": [{"name": "A", "datatype": "FP32", "shape": [2]}], **members}
    return rpc("ModelInfer", **{"model_name": "plain", **members})


def typed(datatype: str = "FP32", shape: Sequence[int] = (2,), **contents: Any) -> Rpc:
    """One with typed contents."""
    entry = {"name": "A", "datatype": datatype, "shape": shape, "contents": contents}
    return message(inputs=[entry])


def raw(**members: Any) -> Rpc:
    """A good one, with these members."""
    return message(raw_input_contents=[TWO], **members)


def raw_output(**given: Any) -> Rpc:
    return raw(outputs=[{"name": "O", "parameters": parameters(**given)}])


def wrong(key: str, wanted: str, as_type: str = "") -> str:
    return f"Unable to parse '{key}': attempt to access JSON non-{wanted} as {as_type or wanted}"


def wrong_kind(key: str, kinds: str) -> str:
    return f"invalid value type for '{key}' parameter, expected {kinds}."


def in_json(case: str, body: Any, text: str, why: str = TYPES) -> Row:
    return Row(case, INVALID, text, post(body), why)


def mistyped(key: str, wanted: str, body: Any, as_type: str = "") -> Row:
    case = f"wrong JSON type: '{key}' is no {as_type or wanted}"
    return in_json(case, body, wrong(key, wanted, as_type))


def missing(key: str, body: Any) -> Row:
    text = f"Unable to parse '{key}': attempt to access non-existing object member '{key}'"
    return in_json(f"missing JSON key: '{key}'", body, text, PRESENT)


def in_parameter(key: str, value: Any, kinds: str) -> Row:
    """A parameter of the request with the wrong member."""
    call = raw(parameters={key: parameter(value)})
    case = f"wrong member for the parameter '{key}'"
    return Row(case, INVALID, wrong_kind(key, kinds), f"{ONE_OF}; JSON: see its wrong type", call)


# What is asked about servers and models.

ROUTES = [
    Row("no route", ABSENT, "Not Found", get("/v2/nothing"), "an unknown call: see there"),
    Row("a trailing slash", ABSENT, "Not Found", get("/v2/"), HTTP),
    Row("a doubled slash", ABSENT, "Not Found", get("/v2//models"), HTTP),
    Row(
        "a version that is no number in the path",
        ABSENT,
        "Not Found",
        Rest("/v2/models/plain/versions/x/infer"),
        "the version is a field: see bad version",
    ),
    Row(
        "traces of a version",
        ABSENT,
        "Not Found",
        get("/v2/models/plain/versions/1/trace/setting"),
        NO_RPC,
    ),
    Row("a wrong verb", (405, ""), "Method Not Allowed", get(INFER), HTTP),
    Row("HEAD", (405, ""), "", Rest("/v2", method="HEAD"), HTTP),
    Row(
        "an unknown call",
        UNSUPPORTED,
        "the method /inference.GRPCInferenceService/ModelThink is not known here",
        "an unknown path: see no route",
        Rpc("ModelThink"),
    ),
    Row(
        "a version that is not ready",
        INVALID,
        "Model version not ready",
        get("/v2/models/broken/versions/1/ready"),
        "ModelReady answers with ready: false",
    ),
    Row(
        "ready, of an unknown model",
        ABSENT,
        "Request for unknown model: 'nobody' is not found",
        get("/v2/models/nobody/ready"),
        "ModelReady answers with ready: false",
    ),
    *(
        Row(
            f"{what} of an unknown model",
            ABSENT,
            "Request for unknown model: 'nobody' is not found",
            get(f"/v2/models/nobody{path}"),
            rpc(method, name="nobody"),
        )
        for what, path, method in (
            ("metadata", "", "ModelMetadata"),
            ("configuration", "/config", "ModelConfig"),
        )
    ),
    *(
        Row(
            f"{what} of an unknown version",
            ABSENT,
            "Request for unknown model: 'plain' version 7 is not found",
            get(f"/v2/models/plain/versions/7{path}"),
            rpc(method, name="plain", version="7"),
        )
        for what, path, method in (
            ("metadata", "", "ModelMetadata"),
            ("configuration", "/config", "ModelConfig"),
        )
    ),
    Row(
        "statistics of an unknown model",
        INVALID,
        "requested model 'nobody' is not available",
        get("/v2/models/nobody/stats"),
        rpc("ModelStatistics", name="nobody"),
    ),
    Row(
        "statistics of an unknown version",
        INVALID,
        "requested model version is not available for model 'plain'",
        get("/v2/models/plain/versions/7/stats"),
        rpc("ModelStatistics", name="plain", version="7"),
    ),
]

# Inference: what only one of the protocols can get wrong, or says in its own words.

ONE_SOURCE = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'."
)
NO_DATA = "unable to find data for input tensor 'A' for model 'plain' in request."
DATA_SHAPE = "Unable to parse 'data': Shape does not match true shape of 'data' field"
BYTE_SIZE = "input byte size mismatch for input 'A' for model 'plain'. Expected 8, got {}"
GOOD = with_input()

SOURCES = [
    Row("malformed", INVALID, ("failed to parse the request JSON buffer: ", "the message is "
        "malformed"), post(b"{"), Rpc("ModelInfer", b"\x0a")),
    missing("inputs", {}),
    missing("name", with_input(name=None)),
    missing("datatype", with_input(datatype=None)),
    missing("shape", with_input(shape=None)),
    missing("name", {**GOOD, "outputs": [{}]}),
    mistyped("inputs", "array", {"inputs": {}}),
    mistyped("outputs", "array", {**GOOD, "outputs": {}}),
    mistyped("shape", "array", with_input(shape=2)),
    mistyped("data", "array", with_input(data=2)),
    mistyped("name", "string", with_input(name=2)),
    mistyped("id", "string", {**GOOD, "id": 2}),
    mistyped("datatype", "string", with_input(datatype=2)),
    mistyped("shape", "unsigned-integer", with_input(shape=[-2])),
    mistyped("shape", "unsigned-integer", with_input(shape=[2.0])),
    mistyped("shape", "unsigned-integer", with_input(shape=["2"])),
    mistyped(
        "binary_data_size",
        "unsigned-integer",
        with_input(data=None, parameters={"binary_data_size": "8"}),
    ),
    mistyped("priority", "unsigned-integer", with_parameters(priority=-1)),
    mistyped("timeout", "unsigned-integer", with_parameters(timeout="1")),
    mistyped("data", "signed-integer", with_input(datatype="INT32", data=["1", 2])),
    mistyped("data", "unsigned-integer", with_input(datatype="UINT8", data=[-1, 2])),
    mistyped("data", "boolean", with_input(datatype="BOOL", data=[1, 0])),
    mistyped("data", "number", with_input(data=["1", 2]), "double"),
    mistyped("data", "string", with_input(datatype="BYTES", data=[1, 2])),
    mistyped("binary_data_output", "boolean", with_parameters(binary_data_output=1)),
    mistyped("binary_data", "boolean", with_output(binary_data=1)),
    mistyped("sequence_start", "boolean", with_parameters(sequence_start=1)),
    mistyped("sequence_end", "boolean", with_parameters(sequence_end=1)),
    mistyped("classification", "unsigned-integer", with_output(classification="1")),
    in_json(
        "`parameters` no object",
        {**GOOD, "parameters": []},
        "failed to get request params.: attempt to get members for non-object",
    ),
    Row("no source of data", INVALID, (f"{ONE_SOURCE} But no field is set", NO_DATA),
        post(with_input(data=None)), message()),
    Row("typed contents without values", INVALID, NO_DATA, TENSORS, typed()),
    Row(
        "both sources of data",
        INVALID,
        (
            f"{ONE_SOURCE} But set ",
            "contents field must not be specified when using raw_input_contents for 'A' for model "
            "'plain'",
        ),
        post(with_input(parameters={"binary_data_size": 8})),
        raw(
            inputs=[
                {
                    "name": "A",
                    "datatype": "FP32",
                    "shape": [2],
                    "contents": {"fp32_contents": [1, 2]},
                }
            ]
        ),
    ),
    Row("too much `data`", INVALID, (DATA_SHAPE, UNKNOWN_ID + BYTE_SIZE.format(12)),
        post(with_input(data=[1, 2, 3])), typed(fp32_contents=[1, 2, 3])),
    Row("too little `data`", INVALID, (DATA_SHAPE, UNKNOWN_ID + BYTE_SIZE.format(4)),
        post(with_input(data=[1])), typed(fp32_contents=[1])),
    Row(
        "unknown datatype",
        INVALID,
        (
            "invalid datatype for input A",
            UNKNOWN_ID
            + "inference input 'A' data-type is '<invalid>', but model 'plain' expects 'FP32'",
        ),
        post(with_input(datatype="FP33")),
        raw(inputs=[{"name": "A", "datatype": "FP33", "shape": [2]}]),
    ),
    Row(
        "binary body short",
        INVALID,
        ("unexpected size for input 'A', expecting 8 additional bytes for model 'plain'", NO_DATA),
        post(with_input(data=None, parameters={"binary_data_size": 8})),
        message(),
    ),
    Row(
        "binary body long",
        INVALID,
        "unexpected additional input data for model 'plain'",
        Rest(INFER, Asked("plain").by_rest().body + b"more", Asked("plain").by_rest().headers),
        message(raw_input_contents=[TWO, TWO]),
    ),
    *(
        Row(f"header length {length}", INVALID, "inference header size should be in range (0, ",
            post(GOOD, Inference_Header_Content_Length=length), HTTP)
        for length in ("-1", "999", "x")
    ),
    Row(
        "FP16 in JSON",
        INVALID,
        (
            "receiving FP16 data via JSON is not supported. Please use the binary data format for "
            "input A",
            "unexpected explicit tensor data for input tensor 'A' for model 'half' of type 'FP32', "
            "expected datatype 'FP16'",
        ),
        post(with_input(datatype="FP16"), "/v2/models/half/infer"),
        message(
            model_name="half",
            inputs=[
                {
                    "name": "A",
                    "datatype": "FP16",
                    "shape": [2],
                    "contents": {"fp32_contents": [1, 2]},
                }
            ],
        ),
        "strict",
    ),
    Row(
        "FP16 as JSON",
        INVALID,
        "sending FP16 data via JSON is not supported. Please use the binary data format for output",
        Asked("half", [In(datatype="FP16", data=TWO[:4])]).by_rest(),
        "outputs are always raw",
        "strict",
    ),
    Row(
        "typed contents of another datatype",
        INVALID,
        "unexpected explicit tensor data for input tensor 'A' for model 'plain' of type 'INT32', "
        "expected datatype 'FP32'",
        TENSORS,
        typed(int_contents=[1, 2]),
    ),
    Row(
        "two typed contents",
        INVALID,
        "unexpected explicit tensor data for input tensor 'A' for model 'plain', binary data was "
        "already supplied.",
        TENSORS,
        typed(fp32_contents=[1, 2], fp64_contents=[1, 2]),
    ),
    Row(
        "bad dims",
        INVALID,
        (
            wrong("shape", "unsigned-integer"),
            "invalid shape for input 'A': shape [-2] contains one or more invalid dimensions",
        ),
        post(with_input(shape=[-2])),
        raw(inputs=[{"name": "A", "datatype": "FP32", "shape": [-2]}]),
    ),
    Row(
        "element count overflow",
        INVALID,
        "invalid shape for input 'A': shape [1099511627776,1099511627776] causes total element "
        "count to exceed maximum size of 9223372036854775807",
        *both(Asked("wide", [In(shape=(2**40, 2**40))])),
    ),
    Row(
        "byte size overflow",
        INVALID,
        "byte size overflow for input 'A': ",
        *both(Asked("wide", [In(shape=(2**61, 2))])),
    ),
    Row(
        "byte size overflow of values",
        INVALID,
        "byte size overflow for input 'A': ",
        post(with_input(shape=[2**61, 2], data=[])),
        typed(shape=(2**61, 2), fp32_contents=[1, 2]),
    ),
    in_json(
        "over 64 MiB in JSON",
        with_input(shape=[2**24, 2], data=[]),
        "JSON input 'A' has a byte_size (134217728 bytes) that exceeds the maximum allowed value "
        "of 67108864 bytes. Use --http-max-input-size to increase the limit.",
        ABOUT_JSON,
    ),
    in_json(
        "nesting > 100",
        b'{"inputs":' + b"[" * 200 + b"]" * 200 + b"}",
        "JSON nesting depth exceeds maximum allowed limit (100)",
        ABOUT_JSON,
    ),
    Row(
        "reserved parameter",
        INVALID,
        (
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not "
            "be specified.",
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the "
            "following keys starting with 'triton_' are allowed: "
            "triton_enable_empty_final_response",
        ),
        *both(Asked("plain", parameters={"triton_mine": True})),
    ),
    Row(
        "bad parameter type",
        INVALID,
        (
            "parameter 'mine' has invalid type. It should be either 'int', 'bool', or 'string'.",
            wrong_kind("mine", "int64_param, bool_param, or string_param"),
        ),
        post(with_parameters(mine={})),
        raw(parameters={"mine": pb.InferParameter()}),
    ),
    in_parameter("sequence_id", True, "int64_param or string_param"),
    in_parameter("sequence_start", 1, "bool_param"),
    in_parameter("sequence_end", 1, "bool_param"),
    in_parameter("priority", "1", "int64_param or uint64_param"),
    in_parameter("timeout", 0.5, "int64_param"),
    Row("wrong member for the parameter 'classification'", INVALID,
        wrong_kind("classification", "int64_param"), f"{ONE_OF}; JSON: see its wrong type",
        raw_output(classification="1")),
    Row(
        "shared memory and classes of an output",
        INVALID,
        "Output can't set both 'shared_memory_region' and 'classification'",
        post(with_output(shared_memory_region="r", shared_memory_byte_size=8, classification=1)),
        raw_output(shared_memory_region="r", shared_memory_byte_size=8, classification=1),
    ),
    in_json(
        "shared memory and binary data of an output",
        with_output(shared_memory_region="r", binary_data=True),
        "Output can't set both 'shared_memory_region' and 'binary_data'",
        "outputs are always binary",
    ),
    Row(
        "decoupled on infer",
        UNSUPPORTED,
        (
            "HTTP end point doesn't support models with decoupled transaction policy",
            "ModelInfer RPC doesn't support models with decoupled transaction policy",
        ),
        *both(Asked("decoupled")),
    ),
    Row(
        "raw request for several inputs",
        INVALID,
        "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'two' "
        "model configuration",
        post(TWO[:4], "/v2/models/two/infer", Inference_Header_Content_Length="0"),
        HTTP,
    ),
    Row(
        "raw request for several unknown dimensions",
        INVALID,
        "The shape of the raw input 'A' can not be deduced because there are more than one "
        "variable-sized dimension",
        post(TWO[:4], "/v2/models/wide/infer", Inference_Header_Content_Length="0"),
        HTTP,
    ),
    Row(
        "raw request for two texts",
        INVALID,
        "For BYTE datatype raw input 'A', the model must have input shape [1]",
        post(TWO[:4], "/v2/models/text/infer", Inference_Header_Content_Length="0"),
        HTTP,
    ),
    Row(
        "raw request of another size",
        INVALID,
        UNKNOWN_ID + BYTE_SIZE.format(4),
        post(TWO[:4], Inference_Header_Content_Length="0"),
        HTTP,
    ),
    Row(
        "unknown compression",
        (501, ""),
        "Unsupported compression type",
        post(GOOD, Content_Encoding="br"),
        "grpc-encoding is the channel's: tests/server/test_grpc_clients.py",
    ),
    Row(
        "a body that does not decompress",
        (400, ""),
        "failed to decompress the gzip body: ",
        post(b"no gzip", Content_Encoding="gzip"),
        "grpc-encoding is the channel's: tests/server/test_grpc_clients.py",
    ),
]  # fmt: skip

# Inference: what both protocols hold against the model, in the order in which it is held.

TEXT_INDICATOR = (
    "incomplete string length indicator for inference input 'A' for model 'text', expecting 4 "
    "bytes but only 2 bytes available."
)


def shared_row(case: str, text: str, asked: Asked, status: tuple[int, str] = INVALID) -> Row:
    return Row(case, status, text, *both(asked))


SHARED = [
    shared_row(
        "unknown model",
        "Request for unknown model: 'nobody' is not found",
        Asked("nobody"),
        ABSENT,
    ),
    shared_row(
        "unknown version",
        "Request for unknown model: 'plain' version 7 is not found",
        Asked("plain", version="7"),
        ABSENT,
    ),
    shared_row(
        "no version",
        "Request for unknown model: 'broken' has no available versions",
        Asked("broken"),
        ABSENT,
    ),
    shared_row(
        "version not ready",
        "Request for unknown model: 'broken' version 1 is not at ready state",
        Asked("broken", version="1"),
        UNAVAILABLE,
    ),
    shared_row(
        "bad version: over int64",
        "failed to get model version from specified version string '9223372036854775808' "
        "(details: stol), version should be an integral value > 0",
        Asked("plain", version="9223372036854775808"),
    ),
    Row(
        "bad version: no number",
        INVALID,
        "failed to get model version from specified version string 'x' (details: stol), version "
        "should be an integral value > 0",
        f"{NO_PATH}, where it is no route",
        raw(model_version="x"),
    ),
    Row(
        "bad version: negative",
        INVALID,
        "invalid model version specified '-1' , version should be an integral value > 0",
        f"{NO_PATH}, where it is no route",
        raw(model_version="-1"),
    ),
    shared_row(
        "unexpected output",
        "unexpected inference output 'X' for model 'plain'",
        Asked("plain", outputs=["X"]),
    ),
    shared_row(
        "duplicate output",
        UNKNOWN_ID + "output 'O' already exists in request",
        Asked("plain", outputs=["O", "O"]),
    ),
    shared_row(
        "missing input",
        UNKNOWN_ID + "expected 2 inputs but got 1 inputs for model 'two'. Got input(s) ['A'], but "
        "missing required input(s) ['B']. Please provide all required input(s).",
        Asked("two", [In(shape=(1, 2))]),
    ),
    shared_row(
        "too many inputs",
        UNKNOWN_ID + "expected 1 inputs but got 2 inputs for model 'plain'.",
        Asked("plain", [In(), In("B")]),
    ),
    shared_row(
        "optional inputs: too few",
        UNKNOWN_ID
        + "expected number of inputs between 1 and 2 but got 0 inputs for model 'optional'.",
        Asked("optional", []),
    ),
    shared_row(
        "optional inputs: too many",
        UNKNOWN_ID
        + "expected number of inputs between 1 and 2 but got 3 inputs for model 'optional'.",
        Asked("optional", [In(), In("B"), In("C")]),
    ),
    shared_row(
        "unexpected input",
        UNKNOWN_ID + "unexpected inference input 'X' for model 'plain'",
        Asked("plain", [In("X")]),
    ),
    shared_row(
        "duplicate input",
        UNKNOWN_ID + "input 'A' already exists in request",
        Asked("two", [In(shape=(1, 2)), In(shape=(1, 2))]),
    ),
    shared_row(
        "no batch dim",
        UNKNOWN_ID + "input 'A' has no shape but model requires batch dimension for 'two'",
        Asked("two", [In(shape=(), data=TWO[:4]), In("B", shape=(), data=TWO[:4])]),
    ),
    shared_row(
        "batch uneven",
        UNKNOWN_ID + "input 'B' batch size does not match other inputs for 'two'",
        Asked("two", [In(shape=(1, 2)), In("B", shape=(2, 2), data=TWO * 2)]),
    ),
    shared_row(
        "batch too big",
        UNKNOWN_ID + "inference request batch-size must be <= 4 for 'two'",
        Asked("two", [In(shape=(5, 2), data=TWO * 5), In("B", shape=(5, 2), data=TWO * 5)]),
    ),
    shared_row(
        "wrong datatype",
        UNKNOWN_ID + "inference input 'A' data-type is 'INT32', but model 'plain' expects 'FP32'",
        Asked("plain", [In(datatype="INT32")]),
    ),
    shared_row(
        "wrong shape",
        UNKNOWN_ID + "unexpected shape for input 'A' for model 'two'. Expected [-1,2], got [1,3]. "
        "NOTE: ",
        Asked("two", [In(shape=(1, 3), data=TWO + TWO[:4]), In("B", shape=(1, 2))]),
    ),
    shared_row(
        "wrong byte size",
        "[request id: mine] " + BYTE_SIZE.format(4),
        Asked("plain", [In(data=TWO[:4])], id="mine"),
    ),
    shared_row(
        "bad BYTES buffer: length cut off",
        UNKNOWN_ID + TEXT_INDICATOR,
        Asked("text", [In(datatype="BYTES", data=b"\1\0")]),
    ),
    shared_row(
        "bad BYTES buffer: too few",
        UNKNOWN_ID + "expected 2 string elements for inference input 'A' for model 'text', got 1",
        Asked("text", [In(datatype="BYTES", data=b"\1\0\0\0a")]),
    ),
    shared_row(
        "bad BYTES buffer: too many",
        UNKNOWN_ID + "unexpected number of string elements 3 for inference input 'A' for model "
        "'text', expecting 2",
        Asked("text", [In(datatype="BYTES", data=b"\0\0\0\0" * 3)]),
    ),
    shared_row(
        "bad BYTES buffer: text cut off",
        UNKNOWN_ID + "incomplete string data for inference input 'A', expecting string of length 7 "
        "but only 2 bytes available",
        Asked("text", [In(datatype="BYTES", data=b"\0\0\0\0\7\0\0\0ab")]),
    ),
    shared_row(
        "sequence without an id",
        "inference request to model 'sequence' must specify a non-zero or non-empty correlation ID",
        Asked("sequence", [In(shape=(1, 2))]),
    ),
    shared_row(
        "sequence without its start",
        "inference request for sequence 5 to model 'sequence' must specify the START flag on the "
        "first request of the sequence",
        Asked("sequence", [In(shape=(1, 2))], parameters={"sequence_id": 5}),
    ),
    shared_row(
        "sequence with a batch",
        "inference request to model 'sequence' must specify batch-size 1 due to requirements of "
        "sequence batcher",
        Asked(
            "sequence",
            [In(shape=(2, 2), data=TWO * 2)],
            parameters={"sequence_id": 6, "sequence_start": True},
        ),
    ),
    shared_row("error from the model", "not these", Asked("coded"), ABSENT),
    shared_row(
        "an exception in the model",
        "Failed to process the request(s) for model 'raising_0_0', message: ValueError: this model "
        "never works",
        Asked("raising"),
        INTERNAL,
    ),
    Row(
        "classes of texts",
        INVALID,
        "class result not available for output due to unsupported type 'BYTES'",
        post(
            {
                "inputs": [{"name": "A", "datatype": "BYTES", "shape": [2], "data": ["", ""]}],
                "outputs": [{"name": "O", "parameters": {"classification": 1}}],
            },
            "/v2/models/text/infer",
        ),
        message(
            model_name="text",
            inputs=[{"name": "A", "datatype": "BYTES", "shape": [2]}],
            raw_input_contents=[bytes(8)],
            outputs=[{"name": "O", "parameters": parameters(classification=1)}],
        ),
    ),
]

LARGE = In(shape=(1001, 1000), data=bytes(4 * 1001 * 1000))


def large_classes() -> tuple[Rest, Rpc]:
    """Classes of more values than are sorted."""
    document = {
        "inputs": [
            {
                "name": "A",
                "datatype": "FP32",
                "shape": list(LARGE.shape),
                "parameters": {"binary_data_size": len(LARGE.data)},
            }
        ],
        "outputs": [{"name": "O", "parameters": {"classification": 1}}],
    }
    head = json.dumps(document).encode()
    call = message(
        model_name="wide",
        inputs=[{"name": "A", "datatype": "FP32", "shape": LARGE.shape}],
        raw_input_contents=[LARGE.data],
        outputs=[{"name": "O", "parameters": parameters(classification=1)}],
    )
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Rest("/v2/models/wide/infer", head + LARGE.data, headers), call


SHARED.append(
    Row(
        "classes of too many values",
        INVALID,
        "classification output tensor too large",
        *large_classes(),
    )
)

# Generate: REST alone has it.

GENERATE = "/v2/models/wordy/generate"
NO_GENERATE = "gRPC has no generate"
NO_TEXTS: Sequence[Any] = ({}, 7)


def generating(case: str, body: Any, text: str, status: int = 400, verb: str = "generate") -> Row:
    path = f"/v2/models/wordy/{verb}"
    return Row(case, (status, ""), text, post(body, path), NO_GENERATE)


GENERATING = [
    Row(
        "a compressed body",
        INVALID,
        "Unsupported content-encoding, only 'identity' is supported.",
        post({}, GENERATE, Content_Encoding="gzip"),
        NO_GENERATE,
    ),
    generating(
        "'parameters' no object",
        {"A": "x", "parameters": 1},
        "Expected JSON object for keyword: 'parameters'",
    ),
    generating(
        "a parameter that is an object",
        {"A": "x", "parameters": {"nested": {}}},
        "Converting keyword: 'parameters': parameter 'nested' has invalid type.",
    ),
    generating("a top-level parameter that is no scalar", {"A": "x", "mine": {}},
               "parameter 'mine' has invalid type."),
    *(
        generating("no text for a text", {"A": value},
                   "Unable to parse JSON bytes array: attempt to access JSON non-string as string")
        for value in NO_TEXTS
    ),
    generating("a wrong number of values", {"A": ["a", "b"]},
               "The schema can not convert input 'A' to tensor with proper shape"),
    generating("the same input twice", b'{"A":"a","A":"b"}',
               UNKNOWN_ID + "input 'A' already exists in request"),
    generating("a missing input", {}, UNKNOWN_ID + "expected 1 inputs but got 0 inputs for model "
               "'wordy'."),
    *(
        Row(
            "not exactly one response",
            INVALID,
            "generate expects model to produce exactly 1 response, use generate stream for model "
            "that generates various number of responses",
            post({"A": [1, 2]}, f"/v2/models/{model}/generate"),
            NO_GENERATE,
        )
        for model in ("decoupled", "twice")
    ),
    Row("malformed, for a stream", INVALID, "failed to parse the request JSON buffer: ",
        post(b"{", GENERATE + "_stream"), NO_GENERATE),
]  # fmt: skip

# The repository.

LOAD = "/v2/repository/models/plain/load"


def load(name: str, **values: Any) -> Rpc:
    request = pb.RepositoryModelLoadRequest(model_name=name)
    for key, value in values.items():
        chosen = request.parameters[key.replace("file_", "file:1/")]
        setattr(chosen, "bytes_param" if isinstance(value, bytes) else "string_param", value)
    return Rpc("RepositoryModelLoad", request.SerializeToString())


def loading(case: str, status: tuple[int, str], text: str, model: str) -> Row:
    path = f"/v2/repository/models/{model.replace('/', '%2F')}/load"
    return Row(case, status, text, Rest(path), load(model))


def loading_with(
    case: str, text: str, given: Mapping[str, Any], rpc_given: Mapping[str, Any], status: Any
) -> Row:
    return Row(case, status, text, post({"parameters": given}, LOAD), load("plain", **rpc_given))


NAMED = "'repository_name' specification is not supported"
TRAVERSAL = "invalid model name '../plain', model name must not contain path traversal characters"
REPOSITORY = [
    Row("an index with 'ready' no boolean", INVALID,
        "Invalid value for 'ready': expected a boolean",
        post({"ready": 1}, "/v2/repository/index"), TYPES),
    Row("a repository by name, to load", UNSUPPORTED, NAMED,
        Rest("/v2/repository/r/models/plain/load"),
        rpc("RepositoryModelLoad", repository_name="r", model_name="plain")),
    Row("a repository by name, to unload", UNSUPPORTED, NAMED,
        Rest("/v2/repository/r/models/plain/unload"),
        rpc("RepositoryModelUnload", repository_name="r", model_name="plain")),
    Row("a repository by name, for its index", UNSUPPORTED, NAMED,
        "the index over REST ignores it", rpc("RepositoryIndex", repository_name="r")),
    Row("loading where models are not controlled", UNAVAILABLE,
        "explicit model load / unload is not allowed if polling is enabled",
        Rest(LOAD), load("plain"), "strict"),
    Row("unloading where models are not controlled", UNAVAILABLE,
        "explicit model load / unload is not allowed if polling is enabled",
        Rest("/v2/repository/models/plain/unload"),
        rpc("RepositoryModelUnload", model_name="plain"), "strict"),
    loading("a model that is not in the repository", INTERNAL,
            "failed to load 'nobody', failed to poll from model repository", "nobody"),
    loading("a name that is too long for a file", INTERNAL,
            f"failed to load '{'n' * 300}', failed to poll from model repository", "n" * 300),
    loading("a load that fails", INVALID,
            "load failed for model 'broken': version 1 is at UNAVAILABLE state: ", "broken"),
    loading("a model without versions", INVALID,
            "failed to load 'empty', no version is available", "empty"),
    loading("path traversal, to load", INVALID, TRAVERSAL, "../plain"),
    Row("path traversal, to unload", INVALID, TRAVERSAL,
        Rest("/v2/repository/models/..%2Fplain/unload"),
        rpc("RepositoryModelUnload", model_name="../plain")),
    loading_with("an unknown parameter", "unrecognized load parameter 'x'.",
                 {"x": "1"}, {"x": "1"}, INVALID),
    loading_with("a configuration of the wrong kind",
                 "invalid value type for load parameter 'config', expected string_param.",
                 {"config": 1}, {"config": b"1"}, INVALID),
    loading_with("a file of the wrong kind",
                 "invalid value type for load parameter 'file:1/m', expected ",
                 {"file:1/m": 1}, {"file_m": "1"}, INVALID),
    loading_with("a configuration that does not parse", "failed to load 'plain'",
                 {"config": "{"}, {"config": "{"}, INTERNAL),
    loading_with("a file without a configuration", "failed to load 'plain'",
                 {"file:1/m": "MQ=="}, {"file_m": b"1"}, INTERNAL),
    loading_with("a file outside of the model", "failed to load 'plain'",
                 {"config": "{}", "file:../m": "MQ=="}, {"config": "{}", "file_../../m": b"1"},
                 INVALID),
]  # fmt: skip

# Shared memory.

SHM_IS_OFF = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)
KEY = f"/modelport-refusals-{os.getpid()}"


def span(region: str = "r", byte_size: int = 8, offset: int = 0) -> dict[str, Any]:
    return {
        "shared_memory_region": region,
        "shared_memory_byte_size": byte_size,
        "shared_memory_offset": offset,
    }


def registering(case: str, status: tuple[int, str], text: str, name: str = "s", **how: Any) -> Row:
    asked = {"key": KEY, "offset": 0, "byte_size": 64, **how}
    return Row(
        case,
        status,
        text,
        post(asked, f"/v2/systemsharedmemory/region/{name}/register"),
        rpc("SystemSharedMemoryRegister", name=name, **asked),
        "shared",
    )


def unregisterable(key: str) -> Row:
    """A registration that lacks something."""
    asked = {"key": KEY, "byte_size": 64}
    del asked[key]
    path = "/v2/systemsharedmemory/region/s/register"
    text = f"Shared memory register request has no '{key}' field"
    return Row(f"a registration without '{key}'", INVALID, text, post(asked, path), PRESENT,
               "shared")  # fmt: skip


def reading(
    case: str, status: tuple[int, str], text: str, where: Where = "shared", **how: Any
) -> Row:
    place = span(**how)
    entry = {"name": "A", "datatype": "FP32", "shape": [2], "parameters": parameters(**place)}
    body = with_input(data=None, parameters=place)
    return Row(case, status, text, post(body), message(inputs=[entry]), where)


def writing(case: str, status: tuple[int, str], text: str, **how: Any) -> Row:
    place = span(**how)
    return Row(case, status, text, post(with_output(**place)), raw_output(**place), "shared")


CUDA = "/v2/cudasharedmemory/region/g"
HANDLE = {"b64": "A" * 86 + "=="}
REGIONS = [
    Row("registering where it is off", UNSUPPORTED, SHM_IS_OFF,
        post({"key": "/k", "byte_size": 8}, "/v2/systemsharedmemory/region/r/register"),
        rpc("SystemSharedMemoryRegister", name="r", key="/k", byte_size=8)),
    Row("registering memory of a GPU where it is off", UNSUPPORTED, SHM_IS_OFF,
        post({"raw_handle": HANDLE, "device_id": 0, "byte_size": 8}, f"{CUDA}/register"),
        rpc("CudaSharedMemoryRegister", name="g", raw_handle=bytes(64), byte_size=8)),
    reading("inputs where it is off", UNSUPPORTED, SHM_IS_OFF, "open"),
    Row("outputs where it is off", UNSUPPORTED, SHM_IS_OFF,
        post(with_output(**span())), raw_output(**span())),
    *(
        Row(f"the status of an unknown region ({kind})", ABSENT,
            f"Unable to find {kind} shared memory region: 'x'",
            get(f"/v2/{kind}sharedmemory/region/x/status"),
            rpc(f"{kind.capitalize()}SharedMemoryStatus", name="x"), where)
        for kind in ("system", "cuda")
        for where in ("open", "shared")
    ),
    unregisterable("key"),
    unregisterable("byte_size"),
    registering("a name that is taken", EXISTS, "shared memory region 'r' already in manager", "r"),
    registering("no such object", INTERNAL, "Unable to open shared memory region: '/k-absent'",
                key="/k-absent"),
    registering("the key '/'", INTERNAL, "Unable to open shared memory region: '/'", key="/"),
    registering("a reserved prefix", INVALID,
                "cannot register shared memory region 's' with key "
                "'/triton_python_backend_shm_region_1'",
                key="/triton_python_backend_shm_region_1"),
    registering("an object that is too short", INTERNAL, f"Invalid shared memory region: '{KEY}'",
                byte_size=65),
    reading("an unknown region, for an input", ABSENT, "Unable to find shared memory region: 'x'",
            region="x"),
    writing("an unknown region, for an output", ABSENT, "Unable to find shared memory region: 'x'",
            region="x"),
    reading("an offset behind the region", INVALID, "Invalid offset for shared memory region: 'r'",
            offset=65),
    reading("an input that ends behind the region", INVALID,
            "Invalid offset + byte size for shared memory region: 'r'", offset=60),
    writing("an output that ends behind the region", INVALID,
            "Invalid offset + byte size for shared memory region: 'r'", offset=60),
    reading("another size than the input has", INVALID, UNKNOWN_ID + BYTE_SIZE.format(12),
            byte_size=12),
    writing("an output that does not fit", INVALID,
            "shared memory size specified with the request for output 'O' (4 bytes) should be at "
            "least 8 bytes to hold the results", byte_size=4),
    Row(
        "contents beside shared memory",
        INVALID,
        (
            f"{ONE_SOURCE} But set ",
            "unexpected 'content' provided when using shared memory for input tensor 'A' for model "
            "'plain'",
        ),
        post(with_input(parameters=span())),
        message(
            inputs=[
                {
                    "name": "A",
                    "datatype": "FP32",
                    "shape": [2],
                    "parameters": parameters(**span()),
                    "contents": {"fp32_contents": [1, 2]},
                }
            ]
        ),
        "shared",
    ),
    Row("a size of the wrong kind", INVALID,
        (wrong("shared_memory_byte_size", "unsigned-integer"),
         wrong_kind("shared_memory_byte_size", "int64_param")),
        post(with_output(**{**span(), "shared_memory_byte_size": "8"})),
        raw_output(**{**span(), "shared_memory_byte_size": "8"}), "shared"),
    Row("memory of a GPU where none is", INVALID,
        "failed to register CUDA shared memory region: 'g', GPUs not supported",
        post({"raw_handle": HANDLE, "device_id": 0, "byte_size": 8}, f"{CUDA}/register"),
        rpc("CudaSharedMemoryRegister", name="g", raw_handle=bytes(64), byte_size=8), "shared"),
    Row("a handle of another size", INVALID, "'raw_handle' must be 64 bytes",
        post({"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 8}, f"{CUDA}/register"),
        rpc("CudaSharedMemoryRegister", name="g", raw_handle=bytes(3), byte_size=8), "shared"),
]  # fmt: skip

# Traces and the log.


def traced(**settings: Sequence[str]) -> Rpc:
    request = pb.TraceSettingRequest()
    for key, values in settings.items():
        request.settings[key].value.extend(values)
    return Rpc("TraceSetting", request.SerializeToString())


def tracing(case: str, status: tuple[int, str], text: str, key: str, value: str) -> Row:
    return Row(
        case, status, text, post({key: value}, "/v2/trace/setting"), traced(**{key: [value]})
    )


def logged(**settings: Mapping[str, Any]) -> Rpc:
    request = pb.LogSettingsRequest()
    for key, value in settings.items():
        for member, one in dict(value).items():
            setattr(request.settings[key], member, one)
    return Rpc("LogSettings", request.SerializeToString())


def logging(
    case: str, status: tuple[int, str], text: Any, key: str, value: Any, member: Mapping[str, Any]
) -> Row:
    return Row(case, status, text, post({key: value}, "/v2/logging"), logged(**{key: member}))


READ_ONLY = "{} file location can not be updated through network protocol"
SETTINGS = [
    tracing("a rate that is no number", INVALID, "Unable to parse 'trace_rate', got: x",
            "trace_rate", "x"),
    tracing("a negative rate", INVALID, "Unable to parse 'trace_rate', got: -1",
            "trace_rate", "-1"),
    tracing("a count that is no number", INVALID, "Unable to parse 'trace_count', got: x",
            "trace_count", "x"),
    tracing("a frequency that is no number", INVALID, "Unable to parse 'log_frequency', got: x",
            "log_frequency", "x"),
    tracing("an unknown level", INVALID, "unknown trace level 'MOST'", "trace_level", "MOST"),
    tracing("an unknown trace setting", INVALID, "unknown trace setting 'colour'", "colour", "red"),
    tracing("the file of traces", UNSUPPORTED, READ_ONLY.format("trace"), "trace_file", "x"),
    tracing("the mode of traces", UNSUPPORTED, "trace mode can not be updated", "trace_mode",
            "triton"),
    Row("two values where one fits", INVALID, "expect only 1 value for 'trace_rate'",
        post({"trace_rate": ["1", "2"]}, "/v2/trace/setting"), traced(trace_rate=["1", "2"])),
    Row("traces of an unknown model", INVALID, "Request for unknown model : nobody",
        get("/v2/models/nobody/trace/setting"), rpc("TraceSetting", model_name="nobody")),
    logging("the file of the log", UNSUPPORTED, READ_ONLY.format("log"), "log_file", "x",
            {"string_param": "x"}),
    logging("an unknown format of the log", INVALID, "invalid argument for --log_format, got: x",
            "log_format", "x", {"string_param": "x"}),
    logging("a switch of the log of the wrong kind", INVALID,
            wrong("log_info", "boolean"), "log_info", 1, {"uint32_param": 1}),
    logging("a level of the log of the wrong kind", INVALID,
            wrong("log_verbose_level", "unsigned-integer"), "log_verbose_level", "1",
            {"string_param": "1"}),
    logging("an unknown setting of the log", INVALID, "unknown log setting 'colour'", "colour",
            True, {"bool_param": True}),
]  # fmt: skip

# Restricted APIs, and headers that go to the model.

RESTRICTED_TEXTS = (
    "This API is restricted, expecting header 'key'",
    "This protocol is restricted, expecting header 'triton-grpc-protocol-key'",
)
FORWARDED = "Header '{}' is reserved for Triton usage and cannot be forwarded."


def restricted(what: str, asked: Rest, method: str, **metadata: str) -> Row:
    sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    return Row(
        f"restricted: {what}", RESTRICTED, RESTRICTED_TEXTS, asked, Rpc(method, b"", sent), "strict"
    )


DOOR = [
    restricted("no header", get("/v2"), "ServerMetadata"),
    restricted(
        "a wrong header",
        Rest("/v2", headers={"key": "wrong"}, method="GET"),
        "ServerMetadata",
        triton_grpc_protocol_key="wrong",
    ),
    restricted("before the model is looked at", get("/v2/models/nobody"), "ModelMetadata"),
    Row(
        "a reserved name among the forwarded headers",
        INVALID,
        (FORWARDED.format("Priority"), FORWARDED.format("priority")),
        Rest(INFER, GOOD, {"Priority": "1"}),
        Rpc("ModelInfer", raw().message, (("priority", "1"),)),
        "strict",
    ),
]

# OVMS.

PICTURE = {"name": "A", "datatype": "BYTES", "shape": [1]}


def picturing(case: str, text: str, model: str) -> Row:
    body = {"inputs": [{**PICTURE, "data": ["no image"]}]}
    return Row(
        case,
        INVALID,
        text,
        post(body, f"/v2/models/{model}/infer"),
        message(
            model_name=model,
            inputs=[{**PICTURE, "contents": {"bytes_contents": [b"no image"]}}],
        ),
        "shared",
    )


OVMS = [
    picturing("bytes that are no image", UNKNOWN_ID + "Image parsing failed", "picture"),
    picturing(
        "an image for an input of no image's layout",
        UNKNOWN_ID + "Received binary image input but resource not configured to accept NHWC "
        "layout",
        "cube",
    ),
    Row(
        "version 0 of an unknown model",
        ABSENT,
        "Request for unknown model: 'nobody' is not found",
        Rest("/v2/models/nobody/versions/0/infer", GOOD),
        message(model_name="nobody", model_version="0"),
        "shared",
    ),
    *(
        Row(case, (status, ""), text, asked, "the V1 protocol is HTTP's", "shared")
        for case, status, text, asked in (
            ("V1: an unknown model", 404, "Model with requested name is not found",
             get("/v1/models/nobody")),
            ("V1: an unknown version", 404, "Model with requested version is not found",
             get("/v1/models/plain/versions/7")),
            ("V1: no JSON", 412, "The file is not valid json - ",
             post(b"{", "/v1/models/plain:predict")),
        )
    ),
]  # fmt: skip

ROWS: Sequence[tuple[str, Sequence[Row]]] = [
    ("routes", ROUTES),
    ("sources", SOURCES),
    ("shared", SHARED),
    ("generate", GENERATING),
    ("repository", REPOSITORY),
    ("regions", REGIONS),
    ("settings", SETTINGS),
    ("door", DOOR),
    ("ovms", OVMS),
]
"""The tables, by name."""
