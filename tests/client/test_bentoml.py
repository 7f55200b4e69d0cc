import asyncio
import datetime
import inspect
import io
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest

from modelport.client.bentoml import AsyncHTTPClient, SyncHTTPClient, TaskStatus, calls
from modelport.client.flows import Retries
from modelport.client.results import FileResult
from modelport.exceptions import (
    BentoMLException,
    InvalidArgument,
    NotFound,
    ServiceUnavailable,
    UnprocessableEntity,
)

from .scripted import CLOSE, Answer, Asked, Scripted, chunked, reply, scripted

ROUTES: list[dict[str, Any]] = [
    {
        "name": "classify",
        "route": "/classify",
        "doc": "Say what it is.",
        "input": {
            "properties": {
                "text": {"type": "string"},
                "n": {"type": "integer", "default": 3},
                "x": {"type": "tensor", "dtype": "float32", "default": None},
            },
            "required": ["text"],
        },
        "output": {"type": "object"},
    },
    {
        "name": "tensor",
        "route": "/tensor",
        "input": {"properties": {"x": {"type": "tensor"}}, "required": ["x"]},
        "output": {"type": "tensor", "dtype": "float32"},
    },
    {
        "name": "upload",
        "route": "/upload",
        "input": {
            "properties": {
                "audio": {"type": "file", "content_type": "audio/*"},
                "more": {"type": "array", "items": {"type": "file"}, "default": []},
                "lang": {"type": "string", "default": "en"},
            },
            "required": ["audio"],
        },
        "output": {"type": "file"},
    },
    {
        "name": "root",
        "route": "/root",
        "input": {"type": "string", "root_input": True},
        "output": {"type": "string"},
    },
    {
        "name": "words",
        "route": "/words",
        "input": {"properties": {}},
        "output": {"type": "string", "is_stream": True},
    },
    {
        "name": "numbers",
        "route": "/numbers",
        "input": {"properties": {}},
        "output": {"type": "object", "is_stream": True},
    },
    {
        "name": "both",
        "route": "/both",
        "input": {"properties": {}},
        "output": {"type": "array", "prefixItems": [{"type": "file"}, {"type": "tensor"}]},
    },
    {
        "name": "close",
        "route": "/close",
        "input": {"properties": {}},
        "output": {"type": "string"},
    },
    {
        "name": "train",
        "route": "/train",
        "input": {"properties": {"text": {"type": "string"}}, "required": ["text"]},
        "output": {"type": "string"},
        "is_task": True,
    },
]


def service(**answers: list[Answer]) -> dict[str, list[Answer]]:
    schema = json.dumps({"name": "Probe", "routes": ROUTES}).encode()
    return {
        "/readyz": [reply(b"\n")],
        "/schema.json": [reply(schema)],
        **{f"/{name.replace('__', '/')}": answer for name, answer in answers.items()},
    }


def giving(output: dict[str, Any], answers: list[Answer]) -> dict[str, list[Answer]]:
    """A service with one endpoint, ``given``, of this output."""
    route = {"name": "given", "route": "/given", "input": {"properties": {}}, "output": output}
    schema = json.dumps({"name": "Probe", "routes": [route]}).encode()
    return {"/readyz": [reply(b"\n")], "/schema.json": [reply(schema)], "/given": answers}


def echo(asked: Asked) -> bytes:
    return reply(asked.body)


Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call ``name`` of the service at ``url`` by either client, a stream as the list of items."""

    def by_sync(url: str, name: str, *args: Any, **kwargs: Any) -> Any:
        with SyncHTTPClient(url, timeout=5) as client:
            result = client.call(name, *args, **kwargs)
            return list(result) if inspect.isgenerator(result) else result

    def by_async(url: str, name: str, *args: Any, **kwargs: Any) -> Any:
        async def main() -> Any:
            async with AsyncHTTPClient(url, timeout=5) as client:
                result = await client.call(name, *args, **kwargs)
                return [item async for item in result] if inspect.isasyncgen(result) else result

        return asyncio.run(main())

    return by_sync if request.param == "sync" else by_async


class Awaiting:
    """An asynchronous client whose coroutines are run to their end at once."""

    def __init__(self, wrapped: Any, runner: asyncio.Runner) -> None:
        self._wrapped, self._runner = wrapped, runner

    def __getattr__(self, name: str) -> Any:
        return Awaiting(getattr(self._wrapped, name), self._runner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            return await self._wrapped(*args, **kwargs)

        return self._runner.run(call())


ClientOf = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(params=["sync", "async"])
def client_of(request: pytest.FixtureRequest) -> ClientOf:
    """Make either client, both to be used without ``await``."""

    @contextmanager
    def awaiting(url: str, **options: Any) -> Iterator[Any]:
        with asyncio.Runner() as runner:
            client = Awaiting(AsyncHTTPClient(url, **options), runner)
            yield client
            client.close()

    return SyncHTTPClient if request.param == "sync" else awaiting


# Arguments.


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (datetime.timedelta(minutes=1.5), 90.0),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (HTTPStatus.OK, 200),
    ],
)
def test_values_of_the_standard_library_go_as_their_json(ask: Ask, value: Any, sent: Any) -> None:
    with scripted(service(classify=[echo])) as server:
        assert ask(server.url, "classify", "t", n=value) == {"text": "t", "n": sent}


def test_bytes_that_are_no_text_are_refused_with_what_takes_them(ask: Ask) -> None:
    with scripted(service()) as server, pytest.raises(TypeError, match="a file or a root input"):
        ask(server.url, "classify", b"\xff")


def test_arguments_go_as_json_and_those_left_out_do_not_go(ask: Ask) -> None:
    with scripted(service(classify=[echo])) as server:
        assert ask(server.url, "classify", "hi") == {"text": "hi"}
        array = np.arange(4, dtype=np.float32).reshape(2, 2)
        assert ask(server.url, "classify", "hi", x=array) == {"text": "hi", "x": [[0, 1], [2, 3]]}


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing text"),
        (("a",), {"text": "b"}, "'text' twice"),
        (("a",), {"size": 1}, "unexpected argument 'size'; it takes text, n, x"),
        (("a", 1, 2, 3), {}, "takes 3 arguments by position and was given 4"),
    ],
)
def test_wrong_arguments_are_a_type_error_before_anything_is_sent(
    ask: Ask, args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    with scripted(service(classify=[echo])) as server:
        with pytest.raises(TypeError, match=said):
            ask(server.url, "classify", *args, **kwargs)
        assert [asked.path for asked in server.asked] == ["/readyz", "/schema.json"]


def test_unknown_endpoint_is_not_found_before_anything_is_sent(ask: Ask) -> None:
    with scripted(service()) as server:
        with pytest.raises(NotFound, match="'fly'; it has both, classify"):
            ask(server.url, "fly")
        assert len(server.asked) == 2


def test_root_input_is_the_body_itself(ask: Ask) -> None:
    with scripted(service(root=[lambda asked: reply(asked.body, 200, "text/plain")])) as server:
        assert ask(server.url, "root", 'a "b"') == 'a "b"'
        for args, kwargs in (((), {"text": "a"}), (("a", "b"), {}), ((), {})):
            with pytest.raises(TypeError, match="argument"):
                ask(server.url, "root", *args, **kwargs)


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "buffer", "open", "named"])
def test_files_come_in_every_form_there_is(ask: Ask, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(b"RIFF\r\n--x" * 1000)
    with scripted(service(upload=[reply(b"", 200, "text/plain")])) as server, path.open("rb") as f:
        given: Any = {
            "path": path,
            "str": str(path),
            "bytes": path.read_bytes(),
            "buffer": io.BytesIO(path.read_bytes()),
            "open": f,
            "named": ("song.wav", path.read_bytes(), "audio/wav"),
        }[kind]
        ask(server.url, "upload", given, more=[b"1", path], lang="fr")
        body = server.asked[-1].body
    assert body.count(b"RIFF\r\n--x" * 1000) == 2
    assert body.count(b'; name="more"') == 2
    assert b'name="lang"\r\n\r\n"fr"\r\n' in body
    if kind in ("path", "str", "open", "named"):
        assert b'name="audio"; filename="song.wav"\r\nContent-Type: audio/wav' in body


def test_url_for_a_file_goes_as_text_and_names_cannot_break_out(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / 'a"\r\nX: y.txt'
    path.write_bytes(b"1")
    with scripted(service(upload=[reply(b"", 200, "text/plain")])) as server:
        ask(server.url, "upload", "http://example.com/a.wav", more=[path])
        body = server.asked[-1].body
    assert b'name="audio"\r\n\r\nhttp://example.com/a.wav\r\n' in body
    assert b"\nX: y" not in body


def test_what_is_no_file_is_refused_with_what_would_be(ask: Ask) -> None:
    with scripted(service()) as server, pytest.raises(TypeError, match="give a path, a URL"):
        ask(server.url, "upload", None)


# Results.


def test_tensor_has_the_dtype_of_the_schema(ask: Ask) -> None:
    with scripted(service(tensor=[reply(b"[[1, 2.5]]")])) as server:
        found = ask(server.url, "tensor", [[1]])
        assert found.dtype == np.float32
        assert found.tolist() == [[1, 2.5]]


def test_file_lies_in_the_clients_own_folder_until_it_is_closed() -> None:
    named = {"Content_Disposition": 'attachment; filename="../../etc/report.txt"'}
    with scripted(service(upload=[reply(b"the text", 200, "text/plain", **named)])) as server:
        with SyncHTTPClient(server.url) as client:
            path = client.call("upload", b"")
            assert path.name.endswith("report.txt")
            assert path.read_bytes() == b"the text"
            assert os.sep not in path.name
            assert path.parent.stat().st_mode & 0o077 == 0
        assert not path.exists()


@pytest.mark.parametrize(
    ("disposition", "ending"),
    [
        ('attachment; filename="a b.txt"', "-a b.txt"),
        ("attachment; filename*=utf-8''gr%C3%BC%C3%9Fe.txt", "-grüße.txt"),
        ('attachment; filename="..\\\\..\\\\x.txt"', "-x.txt"),
        ("attachment; filename*=utf-8''..%2F..%2Fx.txt", "-x.txt"),
        ("attachment; filename=..", "-result.txt"),
        ("attachment; filename=" + "x" * 3000 + ".txt", "x.txt"),
        ("", "-result.txt"),
    ],
)
def test_file_is_named_like_the_last_component(ask: Ask, disposition: str, ending: str) -> None:
    answer = reply(b"", 200, "text/plain", Content_Disposition=disposition)
    with scripted(service(upload=[answer])) as server:
        assert ask(server.url, "upload", b"").name.endswith(ending)


def test_large_file_goes_to_disk_as_it_comes(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [bytes([n]) * 100_000 for n in range(30)]
    sizes: list[int] = []
    kept: list[bytes] = []

    class Noted(FileResult):
        def feed(self, data: bytes) -> None:
            sizes.append(len(data))
            super().feed(data)

        def end(self) -> Any:
            kept.append(super().end().read_bytes())

    monkeypatch.setattr(calls, "FileResult", Noted)
    answer = chunked(*pieces, content_type="application/octet-stream")
    with scripted(service(upload=[answer])) as server:
        ask(server.url, "upload", b"")
    assert kept == [b"".join(pieces)]
    assert max(sizes) < 2_000_000


def test_file_that_does_not_come_whole_is_removed(ask: Ask, tmp_path: Path) -> None:
    begun = chunked(b"x" * 1000, content_type="text/plain", is_whole=False)
    with scripted(service(upload=[begun])) as server, pytest.MonkeyPatch.context() as patched:
        patched.setattr(calls.Client, "_files", lambda self: tmp_path)
        with pytest.raises(ServiceUnavailable, match="in the middle of its answer"):
            ask(server.url, "upload", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_chunked", [False, True])
def test_answer_is_not_held_beyond_its_bound(client_of: ClientOf, is_chunked: bool) -> None:
    text = b'"' + b"x" * 500_000 + b'"'
    answer = chunked(text, content_type="application/json") if is_chunked else reply(text)
    answers: dict[str, list[Answer]] = service(classify=[answer], upload=[answer])
    with scripted(answers) as server:
        said = "400000 bytes; allow more with max_response_bytes"
        with (
            client_of(server.url, max_response_bytes=400_000) as client,
            pytest.raises(BentoMLException, match=said),
        ):
            client.call("classify", "a")
        with client_of(server.url, max_response_bytes=600_000) as client:
            assert len(client.call("classify", "a")) == 500_000


def test_bound_holds_for_an_answer_that_comes_with_its_head(client_of: ClientOf) -> None:
    answers: dict[str, list[Answer]] = service(classify=[reply(b'"' + b"x" * 30_000 + b'"')])
    with (
        scripted(answers) as server,
        client_of(server.url, max_response_bytes=20_000) as client,
        pytest.raises(BentoMLException, match="longer than 20000 bytes"),
    ):
        client.call("classify", "a")


def test_several_results_of_which_some_are_files_come_apart() -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="0"; filename="a.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\nhello\r\n"
        b'--b\r\nContent-Disposition: form-data; name="1"\r\n'
        b"Content-Type: application/json\r\n\r\n[1,2]\r\n--b--\r\n"
    )
    answer = reply(body, 200, "multipart/form-data; boundary=b")
    with scripted(service(both=[answer])) as server, SyncHTTPClient(server.url) as client:
        path, tensor = client.call("both")
        assert path.read_text() == "hello"
        assert tensor.tolist() == [1, 2]


def test_items_of_a_stream_are_whole_whatever_the_network_cuts(ask: Ask) -> None:
    glued = chunked(b'{"i":', b' 0}{"i": 1}', b'\n{"s": "\xc3', b'\xa9}"}', b"12", b"34 5")
    split = chunked(b"caf\xc3", b"\xa9 ", b"x")
    with scripted(service(numbers=[glued], words=[split])) as server:
        assert ask(server.url, "numbers") == [{"i": 0}, {"i": 1}, {"s": "é}"}, 1234, 5]
        assert "".join(ask(server.url, "words")) == "café x"


def test_records_of_text_keep_apart_and_tell_of_failures(ask: Ask) -> None:
    good = chunked(b'"a"\n"b', b'"\n', content_type="application/x-ndjson")
    bad = chunked(b'"a"\n{"error": "burst"}\n', content_type="application/x-ndjson")
    with scripted(service(words=[good, bad])) as server:
        assert ask(server.url, "words") == ["a", "b"]
        assert server.asked[-1].headers["accept"].startswith("application/x-ndjson")
        with pytest.raises(BentoMLException, match="burst"):
            ask(server.url, "words")


@pytest.mark.parametrize(
    "output",
    [{"type": "integer"}, {"type": "boolean"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}],
)
def test_items_that_would_run_together_are_asked_for_in_records(
    ask: Ask, output: dict[str, Any]
) -> None:
    good = chunked(b"9\n1", b"0\n11\n", content_type="application/x-ndjson")
    bad = chunked(b'9\n{"error": "burst"}\n', content_type="application/x-ndjson")
    with scripted(giving({**output, "is_stream": True}, [good, bad])) as server:
        assert ask(server.url, "given") == [9, 10, 11]
        assert server.asked[-1].headers["accept"].startswith("application/x-ndjson")
        with pytest.raises(BentoMLException, match="burst"):
            ask(server.url, "given")


def test_number_without_anything_behind_it_ends_with_its_piece() -> None:
    answers: list[Answer] = [chunked(b"10", is_whole=False)]
    with (
        scripted(giving({"type": "integer", "is_stream": True}, answers)) as server,
        SyncHTTPClient(server.url) as client,
    ):
        items = client.call("given")
        assert next(items) == 10
        with pytest.raises(ServiceUnavailable, match="in the middle of its answer"):
            next(items)


def test_items_and_members_become_arrays_and_tables(ask: Ask) -> None:
    tensor = {"type": "tensor", "format": "numpy-array", "dtype": "float32"}
    with scripted(giving({**tensor, "is_stream": True}, [chunked(b"[1,2][3]")])) as server:
        items = ask(server.url, "given")
        assert [(each.dtype, each.tolist()) for each in items] == [
            (np.float32, [1, 2]),
            (np.float32, [3]),
        ]
    wrong = giving({**tensor, "is_stream": True}, [chunked(b'["a"]')])
    with scripted(wrong) as server, pytest.raises(BentoMLException, match="what the schema says"):
        ask(server.url, "given")
    whole = {"type": "object", "properties": {"rows": {"type": "array", "items": tensor}}}
    with scripted(giving(whole, [reply(b'{"rows": [[1], [2, 3]], "n": 1}')])) as server:
        result = ask(server.url, "given")
        assert [each.tolist() for each in result["rows"]] == [[1], [2, 3]]
        assert result["n"] == 1


def test_tensor_that_is_not_there_is_none(ask: Ask) -> None:
    with scripted(giving({"type": "tensor", "format": "numpy-array"}, [reply(b"null")])) as server:
        assert ask(server.url, "given") is None


def test_item_is_given_as_soon_as_it_has_come() -> None:
    with (
        scripted(service(numbers=[chunked(b'{"i": 0}', is_whole=False)])) as server,
        SyncHTTPClient(server.url) as client,
    ):
        items = client.call("numbers")
        assert inspect.isgenerator(items)
        assert len(server.asked) == 2  # sent at the first item
        assert next(items) == {"i": 0}
        with pytest.raises(ServiceUnavailable, match="in the middle of its answer"):
            next(items)


def test_stream_that_breaks_off_does_not_look_like_a_success(ask: Ask) -> None:
    broken = chunked(b"some", is_whole=False)
    with scripted(service(words=[broken])) as server, pytest.raises(ServiceUnavailable):
        ask(server.url, "words")


def test_answer_that_is_not_what_the_schema_says_is_told(ask: Ask) -> None:
    with (
        scripted(service(classify=[reply(b"<html>")])) as server,
        pytest.raises(BentoMLException, match="not what the schema says"),
    ):
        ask(server.url, "classify", "a")


# Errors.


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidArgument),
        (404, NotFound),
        (422, UnprocessableEntity),
        (503, ServiceUnavailable),
        (418, BentoMLException),
        (500, BentoMLException),
        (599, BentoMLException),
    ],
)
@pytest.mark.parametrize("body", [b'[{"error":"bad"}]', b'{"error":"bad"}', b"bad"])
def test_error_keeps_its_status_and_its_text(
    ask: Ask, status: int, kind: type[BentoMLException], body: bytes
) -> None:
    with scripted(service(classify=[reply(body, status)])) as server:
        with pytest.raises(kind) as raised:
            ask(server.url, "classify", "a")
        assert body.decode() in str(raised.value)
        if status != 599:
            assert raised.value.error_code == HTTPStatus(status)


@pytest.mark.parametrize(
    "answer",
    [[CLOSE], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", CLOSE], [b"hello", CLOSE]],
)
def test_no_whole_answer_is_service_unavailable_and_is_not_tried_again(
    ask: Ask, answer: list[bytes]
) -> None:
    with scripted(service(classify=[answer])) as server:
        with pytest.raises(ServiceUnavailable) as raised:
            ask(server.url, "classify", "a")
        assert raised.value.__cause__ is not None
        assert sum(asked.path == "/classify" for asked in server.asked) == 1


def test_server_that_is_not_there_is_waited_for_and_then_told(ask: Ask) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        before_s = time.process_time()
        with pytest.raises(ServiceUnavailable, match=r"not ready after 0\.4 seconds"):
            SyncHTTPClient(url, server_ready_timeout=0.4)
        assert time.process_time() - before_s < 0.3  # it does not spin


def test_is_ready_says_no_and_does_not_raise() -> None:
    async def main(url: str) -> bool:
        client = AsyncHTTPClient(url)
        ready = await client.is_ready(1)
        await client.close()
        return ready

    with scripted(service() | {"/readyz": [reply(), reply(b"", 503), [CLOSE]]}) as server:
        client = SyncHTTPClient(server.url)
        assert client.is_ready(1) is False
        assert client.is_ready(1) is False
        client.close()
        assert asyncio.run(main(server.url)) is False


# Connections, keys, redirections, retries.


def test_one_connection_serves_many_calls(ask: Ask) -> None:
    with scripted(service(classify=[echo])) as server:
        with SyncHTTPClient(server.url) as client:
            for _ in range(10):
                client.call("classify", "a")
        assert server.connections == 1


def test_connection_that_the_server_has_closed_is_not_used_again() -> None:
    closing: list[Answer] = [[reply(b"{}"), CLOSE]]
    with scripted(service(classify=closing)) as server, SyncHTTPClient(server.url) as client:
        for _ in range(3):
            assert client.call("classify", "a") == {}
            time.sleep(0.05)


def test_token_goes_with_every_request_and_nowhere_else(ask: Ask) -> None:
    with scripted({"/": [reply(b"{}")]}) as elsewhere:
        moved = reply(b"", 307, Location=elsewhere.url + "/")
        with scripted(service(classify=[moved])) as server:
            with SyncHTTPClient(server.url, token="secret") as client:
                client.call("classify", "a")
            assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer secret"}
        (asked,) = elsewhere.asked
        assert "authorization" not in asked.headers
        assert asked.body == b'{"text":"a"}'


def test_key_in_the_environment_is_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTO_CLOUD_API_KEY", "secret")
    with scripted(service()) as server:
        SyncHTTPClient(server.url).close()
        assert all("authorization" not in asked.headers for asked in server.asked)


def test_prefix_of_the_address_is_kept_and_not_doubled() -> None:
    routes = [{**ROUTES[0], "route": "/team/classify"}, ROUTES[1]]
    answers: dict[str, list[Answer]] = {
        "/team/readyz": [reply()],
        "/schema.json": [reply(json.dumps({"routes": routes}).encode())],
        "/team/classify": [echo],
        "/team/tensor": [reply(b"[1]")],
    }
    with scripted(answers) as server, SyncHTTPClient(server.url + "/team") as client:
        assert client.call("classify", "a") == {"text": "a"}
        assert client.call("tensor", [1]).tolist() == [1]


def test_refused_calls_are_sent_again_after_the_time_the_server_names(ask: Ask) -> None:
    busy = reply(b"busy", 429, Retry_After="0")
    quick = Retries(count=3, first_wait_s=0.01)
    with scripted(service(classify=[busy, busy, echo])) as server:
        with SyncHTTPClient(server.url, retries=quick) as client:
            assert client.call("classify", "a") == {"text": "a"}
        server.answers["/classify"] = [busy]
        with SyncHTTPClient(server.url) as client, pytest.raises(BentoMLException):
            client.call("classify", "a")


@pytest.mark.parametrize("lost", [reply(b"", 503, Retry_After="0"), [CLOSE]])
def test_call_that_was_perhaps_made_is_sent_again_only_if_it_may_be_made_twice(
    lost: bytes | list[bytes],
) -> None:
    """A worker that died, or a proxy that lost its server, answers with 503 as well."""
    with scripted(service(classify=[lost, echo])) as server:
        quick = Retries(count=3, first_wait_s=0.01)
        with SyncHTTPClient(server.url, retries=quick) as client, pytest.raises(ServiceUnavailable):
            client.call("classify", "a")
        assert sum(asked.path == "/classify" for asked in server.asked) == 1
    with scripted(service(classify=[lost, echo])) as server:
        quick = Retries(count=3, first_wait_s=0.01, calls_are_idempotent=True)
        with SyncHTTPClient(server.url, retries=quick) as client:
            assert client.call("classify", "a") == {"text": "a"}


def test_submission_that_was_perhaps_accepted_is_sent_again_only_with_a_key() -> None:
    accepted = reply(b'{"task_id": "1", "status": "in_progress"}')
    policy = Retries(count=3, first_wait_s=0.01, calls_are_idempotent=True)
    answers = service(train=[echo], train__submit=[[CLOSE], accepted])
    with (
        scripted(answers) as server,
        SyncHTTPClient(server.url, retries=policy) as client,
        pytest.raises(ServiceUnavailable),
    ):
        client.train.submit("a")  # type: ignore[attr-defined]
    answers = service(train=[echo], train__submit=[[CLOSE], accepted])
    with scripted(answers) as server, SyncHTTPClient(server.url, retries=policy) as client:
        task = client.train.submit("a", task_idempotency_key="k")  # type: ignore[attr-defined]
        assert task.id == "1"
        asked = server.asked[-1]
        assert asked.headers["idempotency-key"] == "k"
        assert json.loads(asked.body) == {"text": "a"}


def test_what_is_for_the_queue_does_not_go_to_the_task(client_of: ClientOf) -> None:
    accepted = reply(b'{"task_id": "1", "status": "in_progress"}')
    url = "https://hooks.example.com/?a=b&c"
    with scripted(service(train__submit=[accepted])) as server, client_of(server.url) as client:
        options = {"task_priority": -5, "task_expires_in": 60, "task_webhook": url}
        client.train.submit(text="a", **options)
        query = {"priority": ["-5"], "expires_in": ["60"], "webhook": [url]}
        assert parse_qs(server.asked[-1].path.partition("?")[2]) == query
        assert json.loads(server.asked[-1].body) == {"text": "a"}
        with pytest.raises(TypeError, match="task_priority is int, not str"):
            client.train.submit("a", task_priority="high")


def test_tasks_are_listed_by_their_status(client_of: ClientOf) -> None:
    row = {"task_id": "1", "status": "failed", "created_at": "2026-11-21T14:02:11", "reason": "no"}
    listed: list[Answer] = [reply(json.dumps([row]).encode()), reply(b"{}")]
    with scripted(service(train__list=listed)) as server, client_of(server.url) as client:
        (task,) = client.train.list(TaskStatus.FAILED, limit=7, before="9")
        assert server.asked[-1].path == "/train/list?limit=7&status=failed&before=9"
        assert (task.id, task.status, task.reason) == ("1", TaskStatus.FAILED, "no")
        with pytest.raises(BentoMLException, match="no list of tasks"):
            client.train.list()


def test_waits_grow_and_are_bounded() -> None:
    policy = Retries(count=9, first_wait_s=1.0, most_wait_s=5.0, jitter=lambda: 1.0)
    assert [policy.wait_s(attempt) for attempt in range(4)] == [1.0, 2.0, 4.0, 5.0]
    assert policy.wait_s(9999) == 5.0


@pytest.mark.parametrize(
    ("named", "wait_s"),
    [
        ("3", 3.0),
        ("3600", None),
        ("soon", 1.0),
        ("Sat, 21 Nov 2026 12:00:07 GMT", 7.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 22 Nov 2026 12:00:00 GMT", None),
    ],
)
def test_wait_is_the_one_that_the_server_names(named: str, wait_s: float | None) -> None:
    policy = Retries(first_wait_s=1.0, jitter=lambda: 1.0)
    headers = {"retry-after": named, "date": "Sat, 21 Nov 2026 12:00:00 GMT"}
    assert policy.wait_s(0, headers) == wait_s


def test_server_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = SyncHTTPClient.__new__(SyncHTTPClient)
        with pytest.raises(ServiceUnavailable):
            client.__init__(url, timeout=0.2)  # type: ignore[misc]


# The object.


def test_methods_look_like_the_services_own() -> None:
    with (
        scripted(service(close=[reply(b"shut", 200, "text/plain")])) as server,
        SyncHTTPClient(server.url) as client,
    ):
        found: Any = client
        signature = inspect.signature(found.classify)
        assert str(signature).startswith("(text: str, n: int = 3,")
        assert found.classify.__doc__ == "Say what it is."
        assert found.api_close() == "shut"
        assert client.call("close") == "shut"
        assert set(client.endpoints) == {route["name"] for route in ROUTES}
        assert not hasattr(client, "fly")


def test_request_gives_any_answer_back() -> None:
    with (
        scripted(service(form=[echo], gone=[reply(b"gone", 410)])) as server,
        SyncHTTPClient(server.url) as client,
    ):
        answer = client.request("post", "/form?a=1", data={"x": "ü"}, params={"b": 2})
        assert (answer.status_code, answer.text) == (200, "x=%C3%BC")
        assert server.asked[-1].path == "/form?a=1&b=2"
        answer = client.request("POST", server.url + "/form", json={"a": 1})
        assert answer.json() == {"a": 1}
        answer = client.request("POST", "/form", files={"f": ("n.txt", b"1")}, data={"g": 2})
        assert b'filename="n.txt"' in answer.content
        gone = client.request("GET", "/gone", headers={"User-Agent": "me"})
        assert gone.status_code == 410
        assert server.asked[-1].headers["user-agent"] == "me"
        with pytest.raises(BentoMLException, match="gone"):
            gone.raise_for_status()


def test_async_client_works_without_a_with_block() -> None:
    async def main(url: str) -> None:
        client: Any = AsyncHTTPClient(url)
        assert await client.classify("a") == {"text": "a"}
        assert await asyncio.gather(*(client.classify(str(n)) for n in range(30))) == [
            {"text": str(n)} for n in range(30)
        ]
        await client.close()
        late: Any = AsyncHTTPClient(url)
        assert [item async for item in late.words()] == ["a"]
        assert inspect.isasyncgen(late.words())
        with pytest.raises(AttributeError, match="no endpoint 'fly'"):
            late.fly()
        await late.close()

    with scripted(service(classify=[echo], words=[chunked(b"a")])) as server:
        asyncio.run(main(server.url))


def test_call_of_a_client_that_has_yet_to_connect_is_a_coroutine() -> None:
    async def main(url: str) -> None:
        client: Any = AsyncHTTPClient(url)
        task = asyncio.create_task(client.classify("a"))
        async with asyncio.TaskGroup() as group:
            other = group.create_task(client.classify("b"))
        assert (await task, other.result()) == ({"text": "a"}, {"text": "b"})
        await client.close()

    with scripted(service(classify=[echo])) as server:
        asyncio.run(main(server.url))


def test_cancelling_closes_the_connection() -> None:
    async def main(server: Scripted) -> None:
        async with AsyncHTTPClient(server.url) as client:
            call = asyncio.ensure_future(client.call("words"))
            items = await call
            assert await anext(items) == "a"
            waiting = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await client.call("classify", "b") == {"text": "b"}

    stuck: list[Answer] = [chunked(b"a")[:-1]]
    with scripted(service(words=stuck, classify=[echo])) as server:
        asyncio.run(main(server))


# Tasks.


def task(status: str, task_id: str = "1") -> bytes:
    return reply(json.dumps({"task_id": task_id, "status": status}).encode())


def tasks() -> dict[str, list[Answer]]:
    return service(
        train__submit=[task("in_progress")],
        train__status=[task("in_progress"), task("completed")],
        train__get=[reply(b"done", 200, "text/plain")],
        train__retry=[task("in_progress", "2")],
        train__cancel=[reply(b'{"error":"no"}', 400)],
        train=[reply(b"at once", 200, "text/plain")],
    )


def test_task_can_be_submitted_watched_and_asked_again() -> None:
    with scripted(tasks()) as server, SyncHTTPClient(server.url) as client:
        train: Any = client.train  # type: ignore[attr-defined]
        assert train("x") == "at once"
        submitted = train.submit(text="x")
        assert submitted.id == "1"
        assert submitted.get_status() is TaskStatus.IN_PROGRESS
        assert submitted.wait(5) == "done"
        assert submitted.retry().id == "2"
        assert train.get(task_id="1") == "done"
        with pytest.raises(InvalidArgument):
            submitted.cancel()
        assert server.asked[-1].line.startswith("PUT /train/cancel?task_id=1 ")


def test_task_of_the_async_client() -> None:
    async def main(url: str) -> None:
        client: Any = AsyncHTTPClient(url)
        submitted = await client.train.submit("x")
        assert await submitted.wait(5) == "done"
        assert (await submitted.retry()).id == "2"
        assert await client.train.get_status(task_id="1") is TaskStatus.COMPLETED
        await client.close()

    with scripted(tasks()) as server:
        asyncio.run(main(server.url))


def test_waiting_for_a_task_ends_with_the_patience() -> None:
    answers = tasks() | {"/train/status": [task("in_progress")]}
    with (
        scripted(answers) as server,
        SyncHTTPClient(server.url) as client,
        pytest.raises(TimeoutError, match="not over yet"),
    ):
        client.train.submit("x").wait(0.2)  # type: ignore[attr-defined]
