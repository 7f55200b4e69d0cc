"""Inference through the handlers, without a socket."""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from modelport import dtypes
from modelport.errors import (
    InvalidInference,
    Kind,
    LoadFailed,
    ModelFailed,
    ModelportError,
    Overloaded,
    TimedOut,
    TooLarge,
    Unavailable,
)
from modelport.messages import Request, Response
from modelport.protocols.threads import MOST_ON_LOOP
from modelport.protocols.v2_rest import RestOptions, encode_error
from modelport.specs import ModelConfig, ModelInput, ModelOutput, TransactionPolicy
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryDeployment, MemoryEngine, MemoryExchange, MemoryServer
from modelport.wire.json_arrays import LONG_VALUES
from modelport.wire.v2_rest import CodecOptions

CONFIG = ModelConfig(
    name="m",
    max_batch_size=8,
    input=(ModelInput(name="I", data_type="TYPE_FP32", dims=(2,)),),
    output=(ModelOutput(name="O", data_type="TYPE_FP32", dims=(2,)),),
)
BODY: dict[str, Any] = {
    "inputs": [{"name": "I", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]
}
INFER = "/v2/models/m/infer"


def echo(request: Request) -> list[Response | ModelportError]:
    return [Response([Tensor("O", t.datatype, t.array) for t in request.payload.tensors])]


def server(
    answer: Any = echo, config: ModelConfig = CONFIG, options: RestOptions | None = None
) -> MemoryServer:
    return MemoryServer(MemoryEngine([MemoryDeployment(config, answer)]), options)


def settled(served: MemoryServer, body: Any, headers: Mapping[str, str]) -> MemoryExchange:
    """Send a request that a thread takes part in, and wait for the answer."""

    async def main() -> MemoryExchange:
        exchange = served.send("POST", INFER, body, headers)
        await exchange.finished.wait()
        return exchange

    return asyncio.run(main())


def infer(
    body: Any = BODY,
    headers: Mapping[str, str] | None = None,
    answer: Any = echo,
    options: RestOptions | None = None,
) -> MemoryExchange:
    return server(answer, options=options).send("POST", INFER, body, headers)


def error_of(exchange: MemoryExchange) -> str:
    assert exchange.sent_headers["content-type"] == "application/json"
    (key,) = exchange.json
    assert key == "error"
    return str(exchange.json["error"])


def test_json_in_and_json_out() -> None:
    exchange = infer()
    assert exchange.status == 200
    assert exchange.sent_headers == {"content-type": "application/json"}
    assert exchange.json == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "O", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}],
    }
    assert exchange.is_finished


def test_binary_in_and_binary_out() -> None:
    head = json.dumps(
        {
            "inputs": [{"name": "I", "datatype": "FP32", "shape": [1, 2],
                        "parameters": {"binary_data_size": 8}}],
            "outputs": [{"name": "O", "parameters": {"binary_data": True}}],
        }
    ).encode()  # fmt: skip
    data = np.array([1, 2], "<f4").tobytes()
    exchange = infer(head + data, {"Inference-Header-Content-Length": str(len(head))})
    length = int(exchange.sent_headers["inference-header-content-length"])
    assert exchange.sent_headers["content-type"] == "application/octet-stream"
    assert exchange.answer[length:] == data
    assert json.loads(exchange.answer[:length])["outputs"][0]["parameters"] == {
        "binary_data_size": 8
    }


def test_a_raw_request_is_answered_in_binary() -> None:
    data = np.array([1, 2], "<f4").tobytes()
    exchange = infer(data, {"Inference-Header-Content-Length": "0"})
    assert exchange.status == 200
    assert exchange.answer.endswith(data)


def test_what_follows_from_the_head_is_kept_with_it() -> None:
    served = server()
    first = served.send("POST", INFER, BODY)
    route, params = served.route("POST", INFER)
    assert route is not None
    again = MemoryExchange("POST", INFER, json.dumps(BODY).encode(), {}, params)
    again.memo = first.memo
    route.handler(again)
    assert again.memo is first.memo
    assert again.answer == first.answer


def test_the_request_carries_who_asks_and_when() -> None:
    served = server()
    route, params = served.route("POST", INFER)
    assert route is not None
    exchange = MemoryExchange("POST", INFER, json.dumps(BODY).encode(), {}, params)
    exchange.principal = "alice"
    exchange.received_ns = 77
    route.handler(exchange)
    (request,) = served.engine.models[0].requests
    assert (request.principal, request.received_ns) == ("alice", 77)


@pytest.mark.parametrize(
    ("coding", "fold", "unfold"),
    [("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)],
)
def test_bodies_may_be_compressed_both_ways(
    coding: str, fold: Callable[[bytes], bytes], unfold: Callable[[bytes], bytes]
) -> None:
    body = fold(json.dumps(BODY).encode())
    exchange = settled(server(), body, {"Content-Encoding": coding, "Accept-Encoding": coding})
    assert exchange.sent_headers["content-encoding"] == coding
    assert json.loads(unfold(exchange.answer))["outputs"][0]["data"] == [1.0, 2.0]


def test_the_header_length_counts_bytes_before_compression() -> None:
    body = {**BODY, "parameters": {"binary_data_output": True}}
    exchange = infer(body, {"Accept-Encoding": "gzip"})
    plain = gzip.decompress(exchange.answer)
    length = int(exchange.sent_headers["inference-header-content-length"])
    assert json.loads(plain[:length])["model_name"] == "m"
    assert plain[length:] == np.array([1, 2], "<f4").tobytes()


def large_body() -> bytes:
    config: dict[str, Any] = {"name": "I", "datatype": "INT64", "shape": [1, 2**17]}
    return json.dumps({"inputs": [{**config, "data": [10**7] * 2**17}]}).encode()


def test_large_bodies_are_read_and_compressed_on_a_thread() -> None:
    body = large_body()
    assert len(body) > MOST_ON_LOOP
    exchange = settled(server(), body, {"Accept-Encoding": "gzip"})
    (output,) = json.loads(gzip.decompress(exchange.answer))["outputs"]
    assert output["shape"] == [1, 2**17]
    assert set(output["data"]) == {10**7}


def long_answer(request: Request) -> list[Response | ModelportError]:
    return [Response([Tensor("O", dtypes.UINT8, np.ones(LONG_VALUES + 1, np.uint8))])]


@pytest.mark.parametrize("headers", [{}, {"Accept-Encoding": "gzip"}])
def test_long_answers_are_written_on_a_thread(headers: Mapping[str, str]) -> None:
    served = server(long_answer)

    async def main() -> MemoryExchange:
        exchange = served.send("POST", INFER, {"id": "7", **BODY}, headers)
        assert exchange.status == 0, "nobody waits for it"
        await exchange.finished.wait()
        return exchange

    exchange = asyncio.run(main())
    answer = exchange.answer
    found = json.loads(gzip.decompress(answer) if headers else answer)
    assert found["id"] == "7"
    assert found["outputs"][0]["data"] == [1] * (LONG_VALUES + 1)


def test_many_classes_are_found_on_a_thread() -> None:
    served = server(lambda request: [Response([Tensor("O", dtypes.INT32, SCORES)])])
    output = {"name": "O", "parameters": {"classification": 2}}

    async def main() -> MemoryExchange:
        exchange = served.send("POST", INFER, {**BODY, "outputs": [output]})
        assert exchange.status == 0, "nobody waits for it"
        await exchange.finished.wait()
        return exchange

    (found,) = asyncio.run(main()).json["outputs"]
    assert found["data"] == ["29999:29999", "29998:29998"]
    served = server(lambda request: [Response([Tensor("O", dtypes.BOOL, SCORES > 0)])])
    exchange = settled(served, {**BODY, "outputs": [output]}, {})
    assert error_of(exchange).startswith("class result not available")


SCORES = np.arange(30_000, dtype=np.int32).reshape(1, -1)


def test_a_client_that_goes_away_while_its_answer_is_written_is_forgotten() -> None:
    served = server(long_answer)

    async def main() -> MemoryExchange:
        exchange = served.send("POST", INFER, BODY)
        assert exchange.on_disconnect is not None
        exchange.on_disconnect()
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0)
        return exchange

    assert asyncio.run(main()).status == 0


def test_errors_from_a_thread_are_answers() -> None:
    exchange = settled(server(), large_body()[:-9], {})
    assert exchange.status == 400
    twice = json.dumps({"id": "x", "inputs": BODY["inputs"] * 2}).encode()
    exchange = settled(server(), gzip.compress(twice), {"Content-Encoding": "gzip"})
    assert error_of(exchange) == "[request id: x] input 'I' already exists in request"


def test_a_client_that_goes_away_while_a_thread_reads_is_forgotten() -> None:
    served = server()

    async def main() -> MemoryExchange:
        exchange = served.send("POST", INFER, large_body())
        assert exchange.on_disconnect is not None
        exchange.on_disconnect()
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0)
        return exchange

    assert asyncio.run(main()).status == 0
    assert served.engine.models[0].requests == []


def test_other_codings_are_named() -> None:
    exchange = infer(b"x", {"Content-Encoding": "br"})
    assert exchange.status == 501
    assert error_of(exchange).startswith("Unsupported compression type")
    assert exchange.sent_headers["accept-encoding"] == "gzip, deflate"


def test_bodies_are_bounded_after_decompression() -> None:
    body = gzip.compress(bytes(10_000))
    options = RestOptions(max_body_bytes=9_999)
    headers = {"Content-Encoding": "gzip"}
    assert settled(server(options=options), body, headers).status == 413
    damaged = settled(server(), body[:-3], headers)
    assert damaged.status == 400
    assert "failed to decompress" in error_of(damaged)


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b"", {}, "failed to parse the request JSON buffer: "),
        (b"{}", {}, "Unable to parse 'inputs': attempt to access non-existing object member"),
        (b"{}", {"Inference-Header-Content-Length": "3"}, "inference header size should be in "
         "range (0, 2), got: 3"),
        (b"{}", {"Inference-Header-Content-Length": "x"}, "inference header size should be in "),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, "inference header size should be in "),
    ],
)  # fmt: skip
def test_errors_of_the_body_have_no_request_id(
    body: bytes, headers: dict[str, str], text: str
) -> None:
    exchange = infer(body, headers)
    assert exchange.status == 400
    assert error_of(exchange).startswith(text)


def test_errors_of_the_inference_begin_with_the_request_id() -> None:
    def refuse(request: Request) -> None:
        raise InvalidInference("no")

    assert error_of(infer({**BODY, "id": "7"}, answer=refuse)) == "[request id: 7] no"
    assert error_of(infer(BODY, answer=refuse)) == "[request id: <id_unknown>] no"
    twice = {"id": "x", "inputs": BODY["inputs"] * 2}
    assert error_of(infer(twice)) == "[request id: x] input 'I' already exists in request"


def test_faults_of_the_data_begin_with_the_request_id() -> None:
    exchange = infer(bytes(7), {"Inference-Header-Content-Length": "0"})
    assert exchange.status == 400
    assert error_of(exchange).startswith(
        "[request id: <id_unknown>] input byte size mismatch for input 'I' for model 'm'. "
        "Expected 8, got 7"
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelFailed("boom"), 500),
        (ModelFailed("gone", code=Kind.NOT_FOUND), 404),
        (ModelFailed("later", code=Kind.UNAVAILABLE), 503),
        (ModelFailed("bad", code=Kind.INVALID), 400),
        (ModelFailed("cannot", code=Kind.UNSUPPORTED), 501),
        (ModelFailed("there", code=Kind.CONFLICT), 400),
        (ModelFailed("stopped", code=Kind.CANCELLED), 400),
        (ModelFailed("what", code=Kind.UNKNOWN), 400),
        (TimedOut("Request timeout expired"), 503),
        (Overloaded("Exceeds maximum queue size"), 503),
        (Unavailable("Server exiting"), 503),
    ],
)
def test_failures_get_the_status_of_their_kind(error: ModelportError, status: int) -> None:
    exchange = infer(answer=lambda request: [error])
    assert exchange.status == status
    assert error_of(exchange) == str(error)


def test_names_as_long_as_a_body_do_not_come_back_whole() -> None:
    part = {**BODY["inputs"][0], "name": "n" * 100_000, "datatype": "?"}
    text = error_of(infer({"inputs": [part]}))
    assert text.startswith("invalid datatype for input nnn")
    assert len(text) < 10_000


def test_every_kind_has_a_status() -> None:
    for kind in Kind:
        assert 400 <= encode_error(ModelFailed("x", code=kind)).status < 600
    assert encode_error(LoadFailed("x")).status == 400
    assert encode_error(TooLarge("x")).status == 413


def test_a_full_queue_says_when_to_come_back() -> None:
    exchange = infer(answer=lambda request: [Overloaded("full", retry_after_s=7)])
    assert exchange.sent_headers["retry-after"] == "7"
    assert dict(encode_error(Overloaded("full", retry_after_s=7)).headers)["Retry-After"] == "7"


def test_unknown_models_come_before_anything_in_the_body() -> None:
    exchange = server().send("POST", "/v2/models/other/infer", b"{")
    assert exchange.status == 404
    assert error_of(exchange).startswith("Request for unknown model: 'other' is not found")


def test_a_version_in_the_path_is_asked_for() -> None:
    served = server()
    assert served.send("POST", "/v2/models/m/versions/1/infer", BODY).status == 200
    assert served.send("POST", "/v2/models/m/versions/2/infer", BODY).status == 404


def test_decoupled_models_need_a_stream() -> None:
    config = ModelConfig(name="m", model_transaction_policy=TransactionPolicy(decoupled=True))
    exchange = server(config=config).send("POST", INFER, BODY)
    assert exchange.status == 501
    assert error_of(exchange).startswith(
        "HTTP end point doesn't support models with decoupled transaction policy"
    )


def test_what_has_come_is_answered_while_the_server_exits() -> None:
    """A drain keeps serving: only readiness tells that the end is near."""
    served = server()
    served.engine.is_exiting = True
    assert served.send("POST", "/v2/models/m/infer", BODY).status == 200


def test_classes_have_labels_and_may_be_binary() -> None:
    served = server()
    served.engine.models[0].labels = {"O": ["cat", "dog"]}
    wanted: dict[str, Any] = {"name": "O", "parameters": {"classification": 1}}
    exchange = served.send("POST", INFER, {**BODY, "outputs": [wanted]})
    (output,) = exchange.json["outputs"]
    assert output == {
        "name": "O", "datatype": "BYTES", "shape": [1, 1], "data": ["2.000000:1:dog"],
    }  # fmt: skip
    wanted["parameters"]["binary_data"] = True
    exchange = served.send("POST", INFER, {**BODY, "outputs": [wanted]})
    assert exchange.answer.endswith(b"\x0e\0\0\x002.000000:1:dog")


def test_outputs_that_cannot_be_said_are_an_error_of_the_request() -> None:
    def strings(request: Request) -> list[Response]:
        return [Response([Tensor("O", dtypes.BYTES, np.array([[b"\xff"]], object))])]

    exchange = infer(answer=strings)
    assert exchange.status == 400
    assert "not UTF-8" in error_of(exchange)
    wanted = [{"name": "O", "parameters": {"classification": 1}}]
    exchange = infer({**BODY, "outputs": wanted}, answer=strings)
    assert exchange.status == 400
    assert error_of(exchange).startswith("class result not available for output due to unsupported")


def test_a_model_that_answers_nothing_is_said_to() -> None:
    exchange = infer(answer=lambda request: [])
    assert exchange.status == 500
    assert "gave no response" in error_of(exchange)


def test_a_client_that_goes_away_cancels() -> None:
    served = server(answer=lambda request: None)
    exchange = served.send("POST", INFER, BODY)
    assert exchange.status == 0
    assert exchange.on_disconnect is not None
    exchange.on_disconnect()
    assert served.engine.models[0].tickets[0].is_cancelled


def test_late_answers_are_written_too() -> None:
    served = server(answer=lambda request: None)
    exchange = served.send("POST", INFER, BODY)
    (model,) = served.engine.models
    model.sinks[0].push(echo(model.requests[0])[0], final=True)  # type: ignore[arg-type]  # no error
    assert exchange.status == 200


def test_an_answer_at_once_leaves_nothing_to_cancel() -> None:
    assert infer().on_disconnect is None


def test_headers_may_be_forwarded_as_parameters() -> None:
    options = RestOptions(forwarded=re.compile("(?i)my_"))
    served = server(options=options)
    body = {**BODY, "parameters": {"a": 1}}
    served.send("POST", INFER, body, {"My_Header": "x", "other": "y"})
    assert served.engine.models[0].requests[0].parameters == {"a": 1, "My_Header": "x"}
    reserved = RestOptions(forwarded=re.compile("(?i)priority"))
    exchange = infer(headers={"Priority": "1"}, options=reserved)
    assert error_of(exchange).startswith(
        "Header 'Priority' is reserved for Triton usage and cannot be forwarded."
    )


def test_strictness_reaches_both_directions() -> None:
    options = RestOptions(codec=CodecOptions(is_strict=True))
    body = {"inputs": [{**BODY["inputs"][0], "datatype": "FP16"}]}
    assert error_of(infer(body, options=options)).startswith("receiving FP16 data via JSON")
    half = Response([Tensor("O", dtypes.FP16, np.zeros((1, 2), np.float16))])
    exchange = infer(answer=lambda request: [half], options=options)
    assert error_of(exchange).startswith("sending FP16 data via JSON is not supported")
