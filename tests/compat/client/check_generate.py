"""The routes that the client has no call for, over plain HTTP."""

import http.client
import json
from typing import Any

import pytest


def post(address: str, path: str, body: bytes, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(
        "POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    reply = connection.getresponse()
    answer = reply.status, reply.headers, reply.read()
    connection.close()
    return answer


def test_generate_answers_flat(address: str) -> None:
    body = json.dumps({"text": "I absolutely love this product!", "id": "g"}).encode()
    status, _, answer = post(address, "/v2/models/sentiment/generate", body)
    told = json.loads(answer)
    assert (status, told["model_name"], told["id"]) == (200, "sentiment", "g")
    assert told["label"] in ("4 stars", "5 stars")


def test_generate_stream_sends_an_event_for_each_response(address: str) -> None:
    body = json.dumps({"text_input": "one two three"}).encode()
    status, headers, answer = post(address, "/v2/models/repeat/generate_stream", body)
    assert status == 200
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    events = [json.loads(event.removeprefix(b"data: ")) for event in answer.split(b"\n\n") if event]
    assert [event["text_output"].strip() for event in events] == ["one", "two", "three"]


def test_generate_wants_exactly_one_response(address: str) -> None:
    body = json.dumps({"text_input": "one two"}).encode()
    status, _, answer = post(address, "/v2/models/repeat/generate", body)
    assert status >= 400
    assert "generate expects model to produce exactly 1 response" in json.loads(answer)["error"]


@pytest.mark.parametrize("file", ["examples/data/three.jpg", "examples/data/seven.png"])
def test_a_raw_request_is_the_bytes_alone(address: str, file: str) -> None:
    with open(file, "rb") as opened:
        image = opened.read()
    status, headers, answer = post(
        address, "/v2/models/digit_photo/infer", image, Inference_Header_Content_Length="0"
    )
    assert status == 200
    length = int(headers["Inference-Header-Content-Length"])
    label = json.loads(answer[:length])["outputs"][0]
    assert (label["name"], label["shape"]) == ("class_label", [1, 1])
    digit = b"3" if "three" in file else b"7"
    assert answer[length:].startswith(b"\x01\x00\x00\x00" + digit)
