"""``ModelStreamInfer`` through the handlers, without a socket."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import FP16, INT32
from modelport.errors import Cancelled, InvalidInference, ModelFailed
from modelport.messages import Response
from modelport.protocols.base import Receiver
from modelport.protocols.v2_grpc import stream
from modelport.tensors import Tensor
from modelport.testing.memory import (
    MemoryCall,
    MemoryDeployment,
    MemoryEngine,
    MemoryGrpcServer,
)
from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.v2_grpc.messages import (
    CONFIG,
    DECOUPLED,
    echo,
    later,
    message,
    response,
)
from tests.protocols.v2_grpc.test_infer import large
from tests.waiting import until

FINAL = "triton_final_response"


class Opened:
    """One stream to a server with an ordinary model ``m`` and a decoupled model ``d``."""

    def __init__(self, answer: Any = later, metadata: dict[str, str] | None = None) -> None:
        self.m = MemoryDeployment(CONFIG, answer)
        self.d = MemoryDeployment(DECOUPLED, answer)
        server = MemoryGrpcServer(MemoryEngine([self.m, self.d]))
        self.call: MemoryCall
        self.receiver: Receiver
        self.call, self.receiver = server.open(metadata=metadata)

    def send(self, model: str, id: str = "", **members: Any) -> bool:
        return self.receiver.message(message(model, id=id, **members))

    def is_open(self) -> bool:
        return self.call.status is None

    @property
    def got(self) -> Sequence[pb.ModelStreamInferResponse]:
        return [pb.ModelStreamInferResponse.FromString(sent) for sent in self.call.sent]

    @property
    def ids(self) -> list[str]:
        return [one.infer_response.id for one in self.got]


def test_requests_are_answered_on_one_call() -> None:
    opened = Opened(echo)
    assert opened.send("m", "1")
    assert opened.send("m", "2")
    opened.receiver.half_closed()
    assert opened.ids == ["1", "2"]
    assert all(one.infer_response.parameters[FINAL].bool_param for one in opened.got)
    assert (opened.call.status, opened.call.text) == (0, "")


def test_a_stream_without_requests_ends_well() -> None:
    opened = Opened()
    opened.receiver.half_closed()
    assert opened.call.status == 0


def test_a_half_closed_stream_gets_what_is_due() -> None:
    opened = Opened()
    opened.send("m", "1")
    opened.send("d", "2")
    opened.receiver.half_closed()
    assert opened.is_open()
    opened.m.sinks[0].push(response(), True)
    opened.d.sinks[0].push(response(), False)
    assert opened.is_open()
    opened.d.sinks[0].end()
    assert opened.call.status == 0
    assert opened.ids == ["1", "2"]


def test_ordinary_models_are_answered_in_the_order_of_the_requests() -> None:
    opened = Opened()
    for id in "123":
        opened.send("m", id)
    for index in (1, 2):
        opened.m.sinks[index].push(response(), True)
    assert opened.ids == []
    opened.m.sinks[0].push(response(), True)
    assert opened.ids == ["1", "2", "3"]


def test_a_decoupled_model_may_overtake() -> None:
    opened = Opened()
    opened.send("m", "slow")
    opened.send("d", "a")
    opened.send("d", "b")
    opened.d.sinks[1].push(response(), False)
    opened.d.sinks[0].push(response(), False)
    assert opened.ids == ["b", "a"]


def test_an_error_waits_for_its_turn_too() -> None:
    opened = Opened()
    opened.send("m", "1")
    opened.send("nobody", "2")
    opened.send("m", "3", outputs=[{"name": "X"}, {"name": "X"}])
    assert opened.ids == []
    opened.m.sinks[0].push(response(), True)
    assert [(one.infer_response.id, one.error_message) for one in opened.got] == [
        ("1", ""),
        ("2", "Request for unknown model: 'nobody' is not found"),
        ("3", "[request id: 3] output 'X' already exists in request"),
    ]
    assert opened.is_open()


def test_a_failed_response_says_whose_it_is() -> None:
    opened = Opened(lambda request: [ModelFailed("no")])
    opened.send("m", "1")
    opened.send("d", "2")
    for one, model in zip(opened.got, "md", strict=True):
        assert one.error_message == "no"
        assert one.infer_response.model_name == model
        assert one.infer_response.parameters[FINAL].bool_param
    assert opened.ids == ["1", "2"]
    assert opened.is_open()


def test_an_ordinary_model_without_a_response_is_an_error() -> None:
    opened = Opened(lambda request: [])
    opened.send("m")
    assert opened.got[0].error_message == "model 'm' gave no response"


@pytest.mark.parametrize("wish", ["true", "True "])
def test_the_first_error_ends_the_stream_if_that_is_wished(wish: str) -> None:
    opened = Opened(metadata={"triton_grpc_error": wish})
    opened.send("m", "1")
    opened.send("m", "2")
    opened.send("d", "3")
    opened.m.sinks[1].fail(InvalidInference("no"))
    assert opened.is_open()
    opened.m.sinks[0].push(response(), True)
    assert (opened.call.status, opened.call.text) == (3, "[request id: 2] no")
    assert opened.ids == ["1"]
    assert opened.d.tickets[0].is_cancelled
    opened.d.sinks[0].fail(Cancelled("gone"))
    assert opened.send("m", "4")
    assert len(opened.m.requests) == 2


def test_errors_stay_in_the_stream_by_default() -> None:
    opened = Opened(metadata={"triton_grpc_error": "false"})
    opened.send("nobody")
    opened.receiver.half_closed()
    assert opened.call.status == 0
    assert opened.got[0].error_message


# Decoupled models.


def finals(opened: Opened) -> list[tuple[bool, int]]:
    return [
        (one.infer_response.parameters[FINAL].bool_param, len(one.infer_response.outputs))
        for one in opened.got
    ]


def test_a_decoupled_model_answers_any_number_of_times() -> None:
    for count in (0, 1, 3):
        opened = Opened(lambda request, count=count: [response()] * count)
        opened.send("d")
        assert finals(opened) == [(False, 1)] * count
        opened.receiver.half_closed()
        assert opened.call.status == 0


def test_the_end_is_a_response_if_that_is_wished() -> None:
    wish = {"triton_enable_empty_final_response": True}
    for count in (0, 2):
        opened = Opened(lambda request, count=count: [response()] * count)
        opened.send("d", "7", parameters=wish)
        assert finals(opened) == [(False, 1)] * count + [(True, 0)]
        last = opened.got[-1].infer_response
        assert (last.model_name, last.model_version, last.id) == ("d", "1", "7")


def test_the_wish_changes_nothing_for_an_ordinary_model() -> None:
    opened = Opened(echo)
    opened.send("m", parameters={"triton_enable_empty_final_response": True})
    assert finals(opened) == [(True, 1)]


def test_a_response_that_is_known_to_be_the_last_says_so() -> None:
    opened = Opened()
    opened.send("d", parameters={"triton_enable_empty_final_response": True})
    opened.d.sinks[0].push(response(), True)
    assert finals(opened) == [(True, 1)]
    opened.receiver.half_closed()
    assert opened.call.status == 0


def test_many_classes_are_found_on_a_thread_and_keep_their_place() -> None:
    scores = np.arange(30_000, dtype=np.int32).reshape(1, -1)

    def answer(request: Any) -> Any:
        return [Response([Tensor("O", INT32, scores)])] if request.id == "1" else echo(request)

    wanted = {"name": "O", "parameters": {"classification": pb.InferParameter(int64_param=1)}}

    async def main() -> Opened:
        opened = Opened(answer)
        opened.send("m", "1", outputs=[wanted])
        opened.send("m", "2")
        opened.receiver.half_closed()
        assert opened.ids == []
        await opened.call.finished.wait()
        return opened

    opened = asyncio.run(main())
    assert opened.ids == ["1", "2"]
    assert opened.got[0].infer_response.raw_output_contents == [b"\x0b\0\0\x0029999:29999"]
    assert opened.call.status == 0


def test_a_stream_that_ends_while_classes_are_found_stays_ended() -> None:
    scores = np.arange(30_000, dtype=np.int32).reshape(1, -1)
    wanted = {"name": "O", "parameters": {"classification": pb.InferParameter(int64_param=1)}}

    async def main() -> Opened:
        opened = Opened(lambda request: [Response([Tensor("O", INT32, scores)])])
        opened.send("m", "1", outputs=[wanted])
        opened.call.cancel()
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0)
        return opened

    assert asyncio.run(main()).got == []


def test_classes_that_there_cannot_be_end_the_request_and_not_the_stream() -> None:
    wanted = {"name": "O", "parameters": {"classification": pb.InferParameter(int64_param=1)}}
    opened = Opened()
    opened.send("d", outputs=[wanted])
    opened.send("m", outputs=[wanted])
    for model in (opened.d, opened.m):
        tensor = response().outputs[0]
        tensor.array = tensor.array.astype("<f2")
        tensor.datatype = FP16
        model.sinks[0].push(Response([tensor]), model is opened.m)
    for one in opened.got:
        assert one.error_message.startswith("class result not available for output")
    assert opened.d.tickets[0].is_cancelled
    assert opened.is_open()


# A client that does not keep up, or goes away.


def test_a_producer_waits_while_the_client_does_not_read() -> None:
    opened = Opened()
    for id in "ab":
        opened.send("d", id)
    opened.call.is_full = True
    assert [sink.push(response(), False) for sink in opened.d.sinks] == [False, False]
    assert [ticket.resumed for ticket in opened.d.tickets] == [0, 0]
    opened.call.read_again()
    assert [ticket.resumed for ticket in opened.d.tickets] == [1, 1]
    assert opened.d.sinks[0].push(response(), False)


def test_producers_are_let_go_one_by_one_while_there_is_room() -> None:
    opened = Opened()
    for id in "ab":
        opened.send("d", id)
    opened.call.is_full = True
    for sink in opened.d.sinks:
        sink.push(response(), False)
    first = opened.d.tickets[0]

    def fill() -> None:
        first.resumed += 1
        opened.call.is_full = True
        opened.d.sinks[0].push(response(), False)

    first.resume = fill  # type: ignore[method-assign]
    opened.call.read_again()
    assert [ticket.resumed for ticket in opened.d.tickets] == [1, 0]
    opened.call.read_again()
    assert [ticket.resumed for ticket in opened.d.tickets] == [2, 1]


def test_nothing_more_is_read_while_the_client_does_not_read() -> None:
    opened = Opened(echo)
    opened.call.is_full = True
    assert not opened.send("m")
    assert opened.call.resumed == 0
    opened.call.read_again()
    assert opened.call.resumed == 1


def test_what_is_in_flight_is_bounded_in_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_IN_FLIGHT", 3)
    opened = Opened()
    assert [opened.send("m") for _ in range(3)] == [True, True, False]
    opened.m.sinks[1].push(response(), True)
    assert opened.call.resumed == 0
    opened.m.sinks[0].push(response(), True)
    assert opened.call.resumed == 1


def test_what_is_in_flight_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_IN_FLIGHT_BYTES", 100)
    opened = Opened()
    welcome = [opened.send("d", "x" * 40) for _ in range(2)]
    assert welcome == [True, False]
    opened.d.sinks[0].end()
    assert opened.call.resumed == 1


def test_a_client_that_goes_away_cancels_everything() -> None:
    opened = Opened()
    opened.send("m")
    opened.send("d")
    opened.call.cancel()
    for model in (opened.m, opened.d):
        assert model.tickets[0].is_cancelled
        model.sinks[0].fail(Cancelled("gone"))
    assert opened.call.sent == []


def test_a_request_whose_stream_ends_while_it_is_taken_is_cancelled() -> None:
    opened = Opened(lambda request: [ModelFailed("no")], {"triton_grpc_error": "true"})
    opened.send("d")
    assert opened.call.status == 13
    assert opened.d.tickets[0].is_cancelled


def test_what_is_no_message_ends_the_stream() -> None:
    opened = Opened()
    opened.send("m")
    opened.receiver.message(b"\x0a")
    assert opened.call.status == 3
    assert opened.call.text.startswith("the message is malformed")
    assert opened.m.tickets[0].is_cancelled


def test_a_stream_ends_with_the_server_when_all_is_answered() -> None:
    opened = Opened()
    opened.send("m", "1")
    opened.call.drain()
    assert opened.is_open()
    opened.m.sinks[0].push(response(), True)
    assert opened.is_open()
    opened.call.drain()
    assert (opened.call.status, opened.call.text) == (14, "Server exiting")
    opened.call.drain()
    assert opened.ids == ["1"]


# Large messages.


def test_a_large_message_is_read_on_a_thread_and_keeps_its_place() -> None:
    async def main() -> Opened:
        opened = Opened(echo)
        assert not opened.receiver.message(large())
        opened.receiver.half_closed()
        await opened.call.finished.wait()
        return opened

    opened = asyncio.run(main())
    assert opened.ids == ["big"]
    assert opened.call.status == 0


def test_more_is_read_after_a_large_message() -> None:
    async def main() -> None:
        opened = Opened(echo)
        opened.receiver.message(large())
        await until(lambda: opened.call.resumed)
        opened.send("m", "2")
        assert opened.ids == ["big", "2"]

    asyncio.run(main())


def test_a_large_message_that_is_none_ends_the_stream() -> None:
    async def main() -> Opened:
        opened = Opened(echo)
        opened.receiver.message(large(256))
        await until(lambda: opened.call.sent)
        opened.receiver.message(large() + b"\x0a")
        await opened.call.finished.wait()
        return opened

    opened = asyncio.run(main())
    assert "value 256" in opened.got[0].error_message
    assert opened.call.status == 3


def test_a_client_that_goes_away_while_its_message_is_read_is_forgotten() -> None:
    async def main() -> None:
        opened = Opened(echo)
        opened.send("d")
        opened.receiver.message(large())
        opened.call.cancel()
        await asyncio.sleep(0.05)
        assert not opened.m.requests

    asyncio.run(main())
