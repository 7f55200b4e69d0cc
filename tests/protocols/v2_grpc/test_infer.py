"""``ModelInfer`` through the handlers, without a socket."""

import asyncio
import re
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import BYTES, INT32
from modelport.errors import (
    Cancelled,
    Conflict,
    Forbidden,
    InvalidInference,
    Kind,
    LoadFailed,
    ModelFailed,
    ModelportError,
    NotFound,
    Overloaded,
    PollFailed,
    QueueTimedOut,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from modelport.messages import Response
from modelport.protocols.threads import MOST_ON_LOOP
from modelport.protocols.v2.options import V2Options
from modelport.protocols.v2_grpc import error_status
from modelport.tensors import Tensor
from modelport.testing.memory import MemoryCall
from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.v2_grpc.messages import (
    DECOUPLED,
    TWO,
    echo,
    later,
    message,
    response,
    served,
)


def infer(data: bytes, answer: Any = echo, **options: Any) -> MemoryCall:
    server, _ = served(answer, options=V2Options(**options))
    return server.call("ModelInfer", data)


def answer_of(call: MemoryCall) -> pb.ModelInferResponse:
    assert (call.status, call.text) == (0, "")
    (sent,) = call.sent
    return pb.ModelInferResponse.FromString(sent)


def test_a_request_is_answered() -> None:
    got = answer_of(infer(message(id="7")))
    assert (got.model_name, got.model_version, got.id) == ("m", "1", "7")
    assert got.raw_output_contents == [TWO.tobytes()]
    assert "triton_final_response" not in got.parameters


def test_the_engine_gets_what_the_call_says() -> None:
    server, model = served()
    call = MemoryCall("/inference.GRPCInferenceService/ModelInfer")
    call.received_ns, call.deadline_ns, call.principal = 5, 9, "ada"
    server.call("ModelInfer", message(), call=call)
    (request,) = model.requests
    assert (request.received_ns, request.deadline_ns, request.principal) == (5, 9, "ada")


def test_headers_are_forwarded_to_the_model() -> None:
    server, model = served(options=V2Options(forwarded=re.compile("^x-")))
    call = MemoryCall("", {"x-user": "ada", "other": "1"})
    server.call("ModelInfer", message(parameters={"mine": "2"}), call=call)
    assert model.requests[0].parameters == {"mine": "2", "x-user": "ada"}


def test_a_header_with_a_reserved_name_is_not_forwarded() -> None:
    server, _ = served(options=V2Options(forwarded=re.compile(".")))
    call = server.call("ModelInfer", message(), call=MemoryCall("", {"priority": "1"}))
    assert (call.status, call.text) == (
        3,
        "Header 'priority' is reserved for Triton usage and cannot be forwarded.",
    )


def test_outputs_may_be_classes() -> None:
    three = pb.InferParameter(int64_param=1)
    wanted = {"name": "O", "parameters": {"classification": three}}
    got = answer_of(infer(message(outputs=[wanted])))
    assert got.outputs[0].datatype == "BYTES"
    assert got.raw_output_contents == [b"\x0a\0\0\x002.000000:1"]


def test_many_classes_are_found_on_a_thread() -> None:
    scores = np.arange(30_000, dtype=np.int32).reshape(1, -1)
    server, _ = served(lambda request: [Response([Tensor("O", INT32, scores)])])
    wanted = {"name": "O", "parameters": {"classification": pb.InferParameter(int64_param=1)}}

    async def main() -> MemoryCall:
        call = server.call("ModelInfer", message(outputs=[wanted]))
        assert call.status is None, "nobody waits for it"
        await call.finished.wait()
        return call

    got = answer_of(asyncio.run(main()))
    assert got.raw_output_contents == [b"\x0b\0\0\x0029999:29999"]


def test_classes_that_there_cannot_be_are_an_error() -> None:
    def strings(request: Any) -> list[Response]:
        tensor = response().outputs[0]
        tensor.datatype = BYTES
        return [Response([tensor])]

    wanted = {"name": "O", "parameters": {"classification": pb.InferParameter(int64_param=1)}}
    call = infer(message(outputs=[wanted]), strings)
    assert call.status == 3
    assert call.text.startswith("class result not available for output due to unsupported type")


def test_an_unknown_model_is_said_before_what_else_is_wrong() -> None:
    call = infer(message("nobody", parameters={"triton_x": True}))
    assert (call.status, call.text) == (
        5,
        "Request for unknown model: 'nobody' is not found",
    )


def test_a_decoupled_model_is_not_asked() -> None:
    server, model = served(echo, DECOUPLED)
    call = server.call("ModelInfer", message("d"))
    assert call.status == 12
    assert call.text.startswith(
        "ModelInfer RPC doesn't support models with decoupled transaction policy"
    )
    assert not model.requests


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInference("no"), 3),
        (Unauthenticated("no"), 16),
        (Forbidden("no"), 7),
        (NotFound("no"), 5),
        (Conflict("no"), 6),
        (TooLarge("no"), 8),
        (Overloaded("no"), 14),
        (Unavailable("no"), 14),
        (TimedOut("no"), 4),
        (Cancelled("no"), 1),
        (Unsupported("no"), 12),
        (ModelFailed("no"), 13),
        (ModelFailed("no", code=Kind.NOT_FOUND), 5),
        (LoadFailed("no"), 3),
        (PollFailed("no"), 13),
        (QueueTimedOut("no"), 14),
        (ModelportError("no"), 2),
    ],
)
def test_each_kind_of_error_has_its_status(error: ModelportError, status: int) -> None:
    call = infer(message(), lambda request: [error])
    assert call.status == status
    assert call.text.endswith("no")
    assert not call.sent


def test_every_kind_has_a_status() -> None:
    for kind in Kind:
        error_status(ModelFailed("", code=kind))


def test_only_what_the_core_says_of_a_request_has_its_id_before_it() -> None:
    for id, shown in (("7", "7"), ("", "<id_unknown>")):
        call = infer(message(id=id), lambda request: [InvalidInference("no")])
        assert call.text == f"[request id: {shown}] no"
    assert infer(message(id="7"), lambda request: [ModelFailed("no")]).text == "no"


def test_a_long_text_is_cut_to_what_a_header_holds() -> None:
    assert len(infer(message("m" * 10_000)).text) < 2100


def test_an_ordinary_model_without_a_response_is_an_error() -> None:
    call = infer(message(), lambda request: [])
    assert (call.status, call.text) == (13, "model 'm' gave no response")


def test_what_is_no_message_is_the_callers_fault() -> None:
    call = infer(b"\x0a")
    assert call.status == 3
    assert call.text.startswith("the message is malformed")


def test_a_client_that_goes_away_cancels() -> None:
    server, model = served(later)
    call = server.call("ModelInfer", message())
    call.cancel()
    assert model.tickets[0].is_cancelled
    model.sinks[0].fail(Cancelled("gone"))
    assert call.status is None


def large(value: int = 0) -> bytes:
    count = MOST_ON_LOOP // 4
    request = pb.ModelInferRequest(model_name="m", id="big")
    entry = request.inputs.add(name="I", datatype="UINT8", shape=[count])
    entry.contents.uint_contents.extend([value] * count)
    return request.SerializeToString()


def test_a_large_message_is_read_on_a_thread() -> None:
    async def main() -> MemoryCall:
        server, _ = served()
        call = server.call("ModelInfer", large(200))
        assert call.status is None
        await call.finished.wait()
        return call

    got = answer_of(asyncio.run(main()))
    assert np.frombuffer(got.raw_output_contents[0], np.uint8).min() == 200


@pytest.mark.parametrize(
    ("data", "text"),
    [(large(256), "value 256 of input 'I' is out of the range"), (large() + b"\x0a", "malformed")],
    ids=["value", "message"],
)
def test_what_is_wrong_with_a_large_message_is_said(data: bytes, text: str) -> None:
    async def main() -> MemoryCall:
        call = served()[0].call("ModelInfer", data)
        await call.finished.wait()
        return call

    call = asyncio.run(main())
    assert call.status == 3
    assert text in call.text


def test_nobody_is_asked_for_a_client_that_went_while_its_message_was_read() -> None:
    async def main() -> None:
        server, model = served()
        server.call("ModelInfer", large()).cancel()
        call = server.call("ModelInfer", large())
        await call.finished.wait()
        assert len(model.requests) == 1

    asyncio.run(main())
