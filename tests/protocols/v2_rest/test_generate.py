"""generate and generate_stream through the handlers, without a socket."""

from typing import Any

import numpy as np
import pytest

from modelport import dtypes
from modelport.errors import InvalidInference, ModelFailed, ModelportError
from modelport.messages import Request, Response
from modelport.specs import ModelConfig, ModelInput, ModelOutput, TransactionPolicy
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryDeployment, MemoryEngine, MemoryExchange, MemoryServer

Answers = list[Response | ModelportError]


def config(*, is_decoupled: bool) -> ModelConfig:
    return ModelConfig(
        name="m",
        input=(ModelInput(name="text_input", data_type="TYPE_STRING", dims=(1,)),),
        output=(ModelOutput(name="text_output", data_type="TYPE_STRING", dims=(1,)),),
        model_transaction_policy=TransactionPolicy(decoupled=is_decoupled),
    )


def text(value: str) -> Response:
    return Response([Tensor("text_output", dtypes.BYTES, np.array([value.encode()], object))])


def served(answers: Answers | None, *, is_decoupled: bool = True) -> MemoryServer:
    model = MemoryDeployment(config(is_decoupled=is_decoupled), lambda request: answers)
    return MemoryServer(MemoryEngine([model]))


def call(
    verb: str, answers: Answers | None, body: Any = None, *, is_decoupled: bool = True
) -> MemoryExchange:
    return served(answers, is_decoupled=is_decoupled).send(
        "POST", f"/v2/models/m/{verb}", body or {"text_input": "hi"}
    )


def flat(value: str) -> dict[str, str]:
    return {"model_name": "m", "model_version": "1", "text_output": value}


@pytest.mark.parametrize("is_decoupled", [False, True])
def test_generate_answers_with_one_object(is_decoupled: bool) -> None:
    exchange = call("generate", [text("a")], is_decoupled=is_decoupled)
    assert exchange.status == 200
    assert exchange.sent_headers["content-type"] == "application/json"
    assert exchange.json == flat("a")


def test_generate_gives_the_id_back() -> None:
    exchange = call("generate", [text("a")], {"text_input": "x", "id": "7"})
    assert exchange.json == {"id": "7", **flat("a")}


@pytest.mark.parametrize("answers", [[], [text("a"), text("b")], [text("a")] * 3])
def test_generate_needs_exactly_one_response(answers: Answers) -> None:
    exchange = call("generate", answers)
    assert exchange.status == 400
    assert exchange.json["error"].startswith(
        "generate expects model to produce exactly 1 response, use generate stream for model that "
        "generates various number of responses"
    )


def test_generate_stops_a_model_that_says_too_much() -> None:
    server = served(None)
    exchange = server.send("POST", "/v2/models/m/generate", {"text_input": "x"})
    (model,) = server.engine.models
    model.sinks[0].push(text("a"), final=False)
    assert exchange.status == 0
    model.sinks[0].push(text("b"), final=False)
    assert exchange.status == 400
    assert model.tickets[0].is_cancelled


@pytest.mark.parametrize("verb", ["generate", "generate_stream"])
def test_errors_before_execution_are_plain(verb: str) -> None:
    exchange = call(verb, [], b"{")
    assert (exchange.status, exchange.sent_headers["content-type"]) == (400, "application/json")
    assert exchange.json["error"].startswith("failed to parse the request JSON buffer: ")
    exchange = call(verb, [], b'{"text_input":"a","text_input":"b"}')
    assert exchange.json["error"] == (
        "[request id: <id_unknown>] input 'text_input' already exists in request"
    )
    assert served([]).send("POST", f"/v2/models/x/{verb}", {}).status == 404


@pytest.mark.parametrize("verb", ["generate", "generate_stream"])
def test_bodies_are_taken_as_they_are(verb: str) -> None:
    server = served([text("a")])
    path = f"/v2/models/m/{verb}"
    exchange = server.send("POST", path, b"x", {"Content-Encoding": "gzip"})
    assert (exchange.status, exchange.json["error"]) == (
        400, "Unsupported content-encoding, only 'identity' is supported.",
    )  # fmt: skip
    headers = {"Content-Encoding": "identity", "Accept-Encoding": "gzip"}
    exchange = server.send("POST", path, {"text_input": "x"}, headers)
    assert exchange.status == 200
    assert "content-encoding" not in exchange.sent_headers


def test_a_stream_is_one_event_per_response() -> None:
    exchange = call("generate_stream", [text("a"), text("b")])
    assert exchange.status == 200
    assert exchange.sent_headers["content-type"] == "text/event-stream; charset=utf-8"
    assert exchange.sent == [
        b'data: {"model_name":"m","model_version":"1","text_output":"a"}\n\n',
        b'data: {"model_name":"m","model_version":"1","text_output":"b"}\n\n',
    ]
    assert exchange.is_finished


def test_ordinary_models_stream_one_event() -> None:
    exchange = call("generate_stream", [text("a")], is_decoupled=False)
    assert len(exchange.sent) == 1
    assert exchange.is_finished


def test_a_stream_without_responses_is_empty() -> None:
    exchange = call("generate_stream", [])
    assert (exchange.status, exchange.sent, exchange.is_finished) == (200, [], True)


def test_each_event_is_sent_as_soon_as_it_is_there() -> None:
    server = served(None)
    exchange = server.send("POST", "/v2/models/m/generate_stream", {"text_input": "x"})
    (model,) = server.engine.models
    (sink,) = model.sinks
    assert exchange.status == 0
    for count in range(1, 4):
        assert sink.push(text("a"), final=False)
        assert len(exchange.sent) == count
        assert not exchange.is_finished
    sink.end()
    assert exchange.is_finished


def test_the_first_error_decides_the_status() -> None:
    exchange = call("generate_stream", [ModelFailed("boom")])
    assert exchange.status == 500
    assert exchange.sent_headers["content-type"].startswith("text/event-stream")
    assert exchange.sent == [b'data: {"error":"boom"}\n\n']
    assert exchange.is_finished


def test_later_errors_are_events() -> None:
    exchange = call("generate_stream", [text("a"), ModelFailed("boom")])
    assert exchange.status == 200
    assert exchange.sent[1] == b'data: {"error":"boom"}\n\n'
    assert exchange.is_finished


def test_errors_of_the_inference_carry_the_request_id_in_events_too() -> None:
    exchange = call("generate_stream", [InvalidInference("no")], {"text_input": "x", "id": "7"})
    assert exchange.sent == [b'data: {"error":"[request id: 7] no"}\n\n']


def test_responses_that_cannot_be_said_end_the_stream() -> None:
    bad = Response([Tensor("text_output", dtypes.BYTES, np.array([b"\xff"], object))])
    exchange = call("generate_stream", [text("a"), bad, text("b")])
    assert len(exchange.sent) == 2
    assert b"not UTF-8" in exchange.sent[1]
    assert call("generate", [bad]).status == 400


def test_a_slow_reader_holds_the_model_back() -> None:
    server = served(None)
    exchange = server.send("POST", "/v2/models/m/generate_stream", {"text_input": "x"})
    (model,) = server.engine.models
    exchange.is_full = True
    assert model.sinks[0].push(text("a"), final=False) is False
    assert exchange.on_writable is not None
    exchange.on_writable()
    assert model.tickets[0].resumed == 1


@pytest.mark.parametrize("verb", ["generate", "generate_stream"])
def test_a_client_that_goes_away_cancels(verb: str) -> None:
    server = served(None)
    exchange = server.send("POST", f"/v2/models/m/{verb}", {"text_input": "x"})
    assert exchange.on_disconnect is not None
    exchange.on_disconnect()
    assert server.engine.models[0].tickets[0].is_cancelled


def test_parameters_reach_the_model() -> None:
    server = served([text("a")])
    body = {"text_input": "x", "stream": False, "parameters": {"max_tokens": 3}}
    server.send("POST", "/v2/models/m/versions/1/generate", body)
    request: Request = server.engine.models[0].requests[0]
    assert request.parameters == {"stream": False, "max_tokens": 3}
