"""What a service's code does wrong harms the call that it does it in, and nobody else's."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from tests.served import Served, call, get, serving

FILE = Path(__file__).parent / "hostile_sample.py"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(str(FILE)) as running:
        yield running
        # Nothing is left under way by those that failed.
        assert running.stop() == 0


@pytest.fixture(autouse=True)
def others_are_answered(served: Served) -> Iterator[None]:
    yield
    assert call(served, "/ok", {})[2] == call(served, "/ok_async", {})[2] == b"fine"


@pytest.mark.parametrize("endpoint", ["quits", "leaves"])
def test_a_coroutine_that_ends_processes_ends_its_call(served: Served, endpoint: str) -> None:
    status, _, body = call(served, f"/{endpoint}", {})
    assert status == 500
    assert list(json.loads(body)) == ["error"]


@pytest.mark.parametrize("endpoint", ["quits_in_stream", "quits_in_async_stream"])
def test_a_generator_that_ends_processes_breaks_its_stream_off(
    served: Served, endpoint: str
) -> None:
    with pytest.raises(IncompleteRead):
        call(served, f"/{endpoint}", {})
    records = call(served, f"/{endpoint}", {}, {"Accept": "application/x-ndjson"})[2].splitlines()
    assert [type(json.loads(record)) for record in records] == [str, dict]


def test_a_row_that_ends_processes_leaves_the_others_of_its_batch_alone(served: Served) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(
            lambda word: call(served, "/rows", {"words": [word]}), ["a", "quit", "b", "c"]
        )
        assert [answer[0] for answer in answers] == [200, 500, 200, 200]


@pytest.mark.parametrize("code", [0, 99, 100, 101, 600, 1000, -1, "404"])
@pytest.mark.parametrize("endpoint", ["status", "status_of_stream"])
def test_what_is_no_status_is_500(served: Served, endpoint: str, code: Any) -> None:
    assert call(served, f"/{endpoint}", {"code": code})[0] == 500


@pytest.mark.parametrize("code", [99, 100, 101, 600, 1000, -1])
@pytest.mark.parametrize("endpoint", ["error", "whole"])
def test_neither_is_one_of_an_error_or_an_answer(served: Served, endpoint: str, code: int) -> None:
    assert call(served, f"/{endpoint}", {"code": code})[0] == 500


@pytest.mark.parametrize("code", [204, 304])
@pytest.mark.parametrize("endpoint", ["status", "status_of_stream", "error", "whole"])
def test_what_comes_behind_an_answer_without_a_body_is_the_next_answer(
    served: Served, endpoint: str, code: int
) -> None:
    host, _, port = served.address.partition(":")
    body = json.dumps({"code": code}).encode()
    head = f"POST /{endpoint} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as peer:
        peer.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        peer.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b"".join(iter(lambda: peer.recv(65536), b""))
    first, _, rest = received.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d" % code)
    assert rest.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", "a\r\nB: c"), ("X-A", "\0"), ("X\r\nY", "a"), ("X: Y", "a"), ("", "a"), ("x-é", "a")],
)
@pytest.mark.parametrize("endpoint", ["header", "header_of_stream"])
def test_what_is_no_header_is_500(served: Served, endpoint: str, name: str, value: str) -> None:
    status, headers, body = call(served, f"/{endpoint}", {"name": name, "value": value})
    assert status == 500
    assert b"server log" in body
    assert "b" not in headers


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection", "upgrade"])
@pytest.mark.parametrize("endpoint", ["header", "header_of_stream"])
def test_how_an_answer_is_framed_is_not_for_its_author_to_say(
    served: Served, endpoint: str, name: str
) -> None:
    answer = call(served, f"/{endpoint}", {"name": name, "value": "3"})
    assert (answer[0], answer[2]) == (200, b"body")
    assert answer[1].get(name.lower()) != "3"


def test_a_cookie_that_breaks_its_line_fails_the_download(served: Served) -> None:
    assert call(served, "/cookie_of_file", {})[0] == 500


def test_a_check_that_ends_processes_is_a_no(served: Served) -> None:
    call(served, "/set_mood", {"mood": "quit"})
    assert get(served, "/readyz")[0] == get(served, "/livez")[0] == 503
    call(served, "/set_mood", {"mood": ""})
    assert get(served, "/readyz")[0] == get(served, "/livez")[0] == 200


@pytest.mark.parametrize("path", ["quits", "status", "header"])
def test_an_application_that_cannot_answer_is_500(served: Served, path: str) -> None:
    assert get(served, f"/app/{path}")[0] == 500
