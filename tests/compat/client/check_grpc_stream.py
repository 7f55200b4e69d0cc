"""Many requests on one call, and models that answer as often as they like."""

import inspect
from typing import Any

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.compat.client.grpc_tensors import floats, is_final, streaming, tensor, words

STREAM = inspect.signature(triton.InferenceServerClient.async_stream_infer).parameters
WISHES_FINAL = "enable_empty_final_response" in STREAM
needs_wish = pytest.mark.skipif(not WISHES_FINAL, reason="this client knows no final response")


def test_responses_of_ordinary_models_come_in_order(grpc_client: Any) -> None:
    with streaming(grpc_client) as results:
        for number in range(50):
            inputs = [tensor("INPUT0", floats(number))]
            grpc_client.async_stream_infer("identity", inputs, request_id=str(number))
        for number in range(50):
            result = results.next()
            assert result.get_response().id == str(number)
            assert result.as_numpy("OUTPUT0").tolist() == [number]
            assert is_final(result)


def test_a_fast_model_waits_for_a_slow_one_before_it(grpc_client: Any) -> None:
    with streaming(grpc_client) as results:
        for seconds in (0.3, 0):
            grpc_client.async_stream_infer("sleeping", [tensor("seconds", floats(seconds))])
        assert results.next().as_numpy("slept")[0] > 0
        assert results.next().as_numpy("slept")[0] == 0


def test_a_decoupled_model_answers_many_times(grpc_client: Any) -> None:
    with streaming(grpc_client) as results:
        grpc_client.async_stream_infer("repeat", words("one two three"), request_id="r")
        assert [results.next_word() for _ in range(3)] == ["one", "two", "three"]
    assert results.is_empty()


def test_a_stream_that_is_closed_gets_all_that_is_due(grpc_client: Any) -> None:
    text = " ".join(map(str, range(500)))
    with streaming(grpc_client) as results:
        grpc_client.async_stream_infer("repeat", words(text))
    assert [results.next_word() for _ in range(500)] == text.split()


def test_many_decoupled_requests_share_a_stream(grpc_client: Any) -> None:
    with streaming(grpc_client) as results:
        for number in range(20):
            grpc_client.async_stream_infer(
                "repeat", words(f"{number} " * 5), request_id=str(number)
            )
        got = [results.next() for _ in range(100)]
    for result in got:
        assert result.as_numpy("text_output")[0].decode() == result.get_response().id


@needs_wish
def test_the_end_comes_as_a_response_if_that_is_wished(grpc_client: Any) -> None:
    with streaming(grpc_client) as results:
        for text in ("one two", ""):
            grpc_client.async_stream_infer(
                "repeat", words(text), request_id="r", enable_empty_final_response=True
            )
            for word in text.split():
                result = results.next()
                assert result.as_numpy("text_output")[0].decode() == word
                assert not is_final(result)
            last = results.next()
            assert is_final(last)
            assert not last.get_response().outputs
            assert (last.get_response().model_name, last.get_response().id) == ("repeat", "r")


def test_an_error_is_one_response_and_the_stream_goes_on(grpc_client: Any) -> None:
    with streaming(grpc_client) as results:
        grpc_client.async_stream_infer("nobody", [tensor("x", floats(1))])
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nobody'"):
            results.next()
        grpc_client.async_stream_infer("failing", [tensor("x", floats(1))])
        with pytest.raises(InferenceServerException, match="this model never works"):
            results.next()
        grpc_client.async_stream_infer("identity", [tensor("INPUT0", floats(1))])
        assert results.next().as_numpy("OUTPUT0").tolist() == [1]


def test_an_error_ends_the_stream_with_its_status_if_that_is_wished(grpc_client: Any) -> None:
    with streaming(grpc_client, headers={"triton_grpc_error": "true"}) as results:
        grpc_client.async_stream_infer("nobody", [tensor("x", floats(1))])
        with pytest.raises(InferenceServerException) as raised:
            results.next()
    assert "NOT_FOUND" in str(raised.value.status())


def test_a_stream_may_be_given_up(grpc_client: Any) -> None:
    if "cancel_requests" not in inspect.signature(grpc_client.stop_stream).parameters:
        pytest.skip("this client cannot cancel a stream")
    with streaming(grpc_client) as results:
        grpc_client.async_stream_infer("sleeping", [tensor("seconds", floats(2))])
        grpc_client.stop_stream(cancel_requests=True)
    with pytest.raises(InferenceServerException, match=r"(?i)cancel"):
        results.next()
    assert grpc_client.infer("identity", [tensor("INPUT0", floats(1))])


def test_a_stream_may_have_a_time_limit(grpc_client: Any) -> None:
    with streaming(grpc_client, stream_timeout=0.5) as results:
        grpc_client.async_stream_infer("sleeping", [tensor("seconds", floats(2))])
        with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
            results.next()
