"""Our client against BentoML's own server, unmodified, and against ours: the same table of cases.

BentoML stands in an environment of its own (see ``test_bentoml``) and serves the same file.
"""

import asyncio
import contextlib
import inspect
import io
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from modelport import AsyncHTTPClient, SyncHTTPClient
from modelport.client.bentoml import TaskStatus
from modelport.exceptions import BentoMLException, InvalidArgument, NotFound, ServiceUnavailable
from tests.client.scripted import reply, scripted
from tests.compat.test_tritonclient import python_of
from tests.served import clean_environment, serving

HERE = Path(__file__).parent
READY_WITHIN_S = 60

pytestmark = [pytest.mark.compat, pytest.mark.slow]

Call = Callable[..., Any]


@contextlib.contextmanager
def serving_bentoml(target: str, directory: Path) -> Iterator[str]:
    """Serve ``services.py`` with BentoML's own program."""
    text = (HERE / "services.py").read_text()
    for ours, theirs in (
        ("import modelport as bentoml", "import bentoml"),
        ("from modelport.validators", "from bentoml.validators"),
    ):
        assert ours in text
        text = text.replace(ours, theirs)
    (directory / "services.py").write_text(text)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    program = python_of("bentoml").with_name("bentoml")
    log = directory / "log.txt"
    with log.open("w") as written:
        process = subprocess.Popen(
            [program, "serve", f"services:{target}", "--host", "127.0.0.1", "--port", port],
            cwd=directory,
            env=clean_environment()
            | {"BENTOML_HOME": str(directory / "home"), "BENTOML_DO_NOT_TRACK": "True"},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url + ("/team/readyz" if target == "Team" else "/readyz"))
        yield url
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str) -> None:
    until_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(f"{url} did not become ready")


@pytest.fixture(scope="module", params=["modelport", "bentoml"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _served(kind: str, target: str, directory: Path) -> Iterator[str]:
    if kind == "bentoml":
        with serving_bentoml(target, directory) as url:
            yield url
    else:
        options = ("--url-allow", "127.0.0.1")
        with serving(f"{HERE / 'services.py'}:{target}", *options) as served:
            yield served.url


@pytest.fixture(scope="module")
def url(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _served(kind, "Probe", tmp_path_factory.mktemp(f"probe-{kind}"))


@pytest.fixture(scope="module")
def team_url(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _served(kind, "Team", tmp_path_factory.mktemp(f"team-{kind}"))


@pytest.fixture(scope="module", params=["sync", "async"])
def call(request: pytest.FixtureRequest, url: str) -> Iterator[Call]:
    """Call an endpoint by either client; a stream gives the list of its items."""
    if request.param == "sync":
        with SyncHTTPClient(url, timeout=20) as client:

            def by_sync(name: str, /, *args: Any, **kwargs: Any) -> Any:
                result = client.call(name, *args, **kwargs)
                return list(result) if inspect.isgenerator(result) else result

            yield by_sync
        return
    with asyncio.Runner() as runner:
        late = AsyncHTTPClient(url, timeout=20)

        async def ask(name: str, args: Any, kwargs: Any) -> Any:
            result = await late.call(name, *args, **kwargs)
            return [item async for item in result] if inspect.isasyncgen(result) else result

        yield lambda name, /, *args, **kwargs: runner.run(ask(name, args, kwargs))
        runner.run(late.close())


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """Plain use, closed in the end: no ``with`` is needed."""
    client = SyncHTTPClient(url, timeout=20)
    yield client
    client.close()


# Values, and what comes back.

SQUARE = np.array([[1, 2], [3, 4]], np.float32)
PICTURE = PIL.Image.new("RGB", (4, 2), (255, 0, 0))

PLAIN: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("classify", ("hällo",), {}, {"text": "hällo", "n": 3, "opt": None}),
    ("classify", ("a",), {"n": 4, "opt": 0.5}, {"text": "a", "n": 4, "opt": 0.5}),
    ("classify", ("a", 5), {}, {"text": "a", "n": 5, "opt": None}),
    ("started_by", (), {}, ["init", "startup"]),
    ("shout", ("hällo ✓ 𝄞",), {}, "HÄLLO ✓ 𝄞"),
    ("routed", (), {}, "a"),
    ("routed", (), {"kind": "b"}, "b"),
    ("lengths", (["a", "bb"],), {}, [1, 2]),
    ("lengths", (["x" * at for at in range(20)],), {}, list(range(20))),
    ("root_text", ('a "b" ü',), {}, 'a "b" ü!'),
    ("root_list", ([4, 5],), {}, 9),
    ("root_list", (np.arange(4),), {}, 6),
    ("root_model", ({"temperature": 1.5},), {}, {"temperature": 1.5, "tags": []}),
    ("stream", ("one two three",), {}, ["one", "two", "three"]),
    ("count", (3,), {}, [{"i": 0}, {"i": 1}, {"i": 2}]),
    ("count", (0,), {}, []),
    ("suffixes", (), {}, "none"),
    ("suffixes", (None,), {}, "none"),
    ("train", ("abc",), {}, "cba"),
    ("shaped", (), {}, {"agent": ""}),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "expected"), PLAIN)
def test_plain_values(
    call: Call, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Any
) -> None:
    assert call(name, *args, **kwargs) == expected


@pytest.mark.parametrize("given", [SQUARE, SQUARE.astype(np.int8), SQUARE.tolist()])
def test_tensors(call: Call, given: Any) -> None:
    result = call("add", given)
    assert isinstance(result, np.ndarray)
    assert result.tolist() == [[2, 3], [4, 5]]


def test_tensors_of_torch(call: Call) -> None:
    torch = pytest.importorskip("torch")
    assert call("add", torch.from_numpy(SQUARE)).tolist() == [[2, 3], [4, 5]]


def test_numbers_that_are_not_finite(call: Call, kind: str) -> None:
    result = call("not_finite")
    # BentoML writes null for both.
    expected = [1, np.nan, np.nan] if kind == "bentoml" else [1, np.nan, np.inf]
    np.testing.assert_array_equal(result, np.array(expected))


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame({"a": [1, 2], "b": [3, 4]}),
        [{"a": 1, "b": 3}, {"a": 2, "b": 4}],
        {"a": [1, 2], "b": [3, 4]},
    ],
    ids=["frame", "rows", "columns"],
)
def test_dataframes(call: Call, given: Any) -> None:
    result = call("table", given)
    assert isinstance(result, pd.DataFrame)
    assert result["c"].tolist() == [4, 6]


# Files, in every form there is.


def _wav(folder: Path) -> Path:
    path = folder / "a.wav"
    path.write_bytes(b"abc")
    return path


def _picture(folder: Path) -> Path:
    path = folder / "in.png"
    PICTURE.save(path)
    return path


@pytest.mark.parametrize(
    "make",
    [
        _wav,
        lambda folder: str(_wav(folder)),
        lambda folder: io.BytesIO(b"abc"),
        lambda folder: b"abc",
        lambda folder: ("grüße ✓.wav", b"abc"),
        lambda folder: ("a.bin", b"abc", "audio/wav"),
    ],
    ids=["path", "str", "buffer", "bytes", "named", "typed"],
)
def test_files_in_and_out(call: Call, tmp_path: Path, make: Callable[[Path], Any]) -> None:
    result = call("audio", make(tmp_path))
    assert isinstance(result, Path)
    assert result.read_bytes() == b"cba"
    assert result.name.endswith("result.mp3")


def test_open_files(call: Call, tmp_path: Path) -> None:
    with _wav(tmp_path).open("rb") as file:
        assert call("audio", file).read_bytes() == b"cba"
        assert call("suffixes", _wav(tmp_path)).endswith("a.wav")


def test_lists_of_files(call: Call, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(b"x" * 3_000_000)
    assert call("files", [large, b"12345", _wav(tmp_path), io.BytesIO(b"1")]) == [
        3_000_000,
        5,
        3,
        1,
    ]
    assert call("files", [_wav(tmp_path)], scale=2) == [6]


@pytest.mark.parametrize(
    "make",
    [
        _picture,
        lambda folder: PICTURE,
        lambda folder: PIL.Image.open(_picture(folder)),
        lambda folder: _picture(folder).read_bytes(),
    ],
    ids=["path", "made", "opened", "bytes"],
)
def test_images(call: Call, tmp_path: Path, make: Callable[[Path], Any]) -> None:
    turned = call("image", make(tmp_path))
    assert isinstance(turned, PIL.Image.Image)
    assert turned.size == (2, 4)
    assert turned.getpixel((0, 0)) == (255, 0, 0)
    assert call("image", make(tmp_path), params={"temperature": 0}).size == (4, 2)


def test_urls_of_files_are_fetched_by_the_server(call: Call, kind: str) -> None:
    if kind == "bentoml":
        # It has read the URL as one: from this machine it fetches nothing.
        with pytest.raises(BentoMLException, match="unexpected error"):
            call("audio", "http://127.0.0.1:9/b.wav")
        return
    with scripted(
        {"/far/b.wav": [reply(b"far away", 200, "audio/wav")], "/c": [reply(b"12")]}
    ) as far:
        assert call("audio", f"{far.url}/far/b.wav").read_bytes() == b"yawa raf"
        assert call("suffixes", f"{far.url}/far/b.wav").endswith("b.wav")
        assert call("root_file", f"{far.url}/far/b.wav") == 8
        # BentoML's client makes one of them.
        assert call("files", [f"{far.url}/far/b.wav", f"{far.url}/c", b"1"]) == [8, 2, 1]


def test_files_that_are_the_body(call: Call, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(b"x" * 2_000_000)
    assert call("root_file", large) == 2_000_000
    assert call("root_file", b"12") == 2
    assert call("root_file", io.BytesIO(b"123")) == 3


# What goes wrong.


@pytest.mark.parametrize(
    ("how", "kind_of_error", "code", "text"),
    [
        ("bad", InvalidArgument, HTTPStatus.BAD_REQUEST, "no such thing"),
        ("missing", NotFound, HTTPStatus.NOT_FOUND, "not here"),
        ("teapot", BentoMLException, HTTPStatus.IM_A_TEAPOT, "short and stout"),
        ("forbidden", BentoMLException, HTTPStatus.FORBIDDEN, "Authorization error"),
        ("down", ServiceUnavailable, HTTPStatus.SERVICE_UNAVAILABLE, "unexpected error"),
        ("other", BentoMLException, HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error"),
    ],
)
def test_errors(
    call: Call, how: str, kind_of_error: type[BentoMLException], code: HTTPStatus, text: str
) -> None:
    with pytest.raises(kind_of_error, match=text) as raised:
        call("failing", how)
    assert raised.value.error_code is code
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("classify", 5), ("add", [1, 2, 3]), ("add", [["a", "b"], ["c", "d"]]), ("root_list", "x")],
)
def test_arguments_that_the_server_refuses(call: Call, name: str, argument: Any) -> None:
    with pytest.raises(InvalidArgument, match="validation error"):
        call(name, argument)


def test_arguments_that_are_never_sent(call: Call) -> None:
    with pytest.raises(TypeError, match="missing text"):
        call("classify")
    with pytest.raises(TypeError, match="unexpected argument 'size'"):
        call("classify", "a", size=1)
    with pytest.raises(NotFound, match="no endpoint 'fly'"):
        call("fly")
    with pytest.raises(TypeError, match="give a path, a URL"):
        call("audio", 5)


def test_failure_before_the_first_item(call: Call) -> None:
    with pytest.raises(BentoMLException, match="unexpected error"):
        call("breaks", 0)


def test_failure_after_some_items(call: Call, kind: str) -> None:
    if kind == "bentoml":
        # It ends such a stream as if it were whole; nobody can tell.
        assert "".join(call("breaks", 2)) == "item 0item 1"
    else:
        with pytest.raises(BentoMLException, match="unexpected error"):
            call("breaks", 2)


def test_waiting_has_an_end(client: Any) -> None:
    with pytest.raises(BentoMLException) as raised:
        client.slow(seconds=5.5)
    assert raised.value.error_code is HTTPStatus.GATEWAY_TIMEOUT


# Tasks.


def test_tasks(client: Any, kind: str) -> None:
    submitted = client.train.submit(text="abc")
    assert submitted.wait(20) == "cba"
    assert submitted.get_status() is TaskStatus.COMPLETED
    assert client.train.get(task_id=submitted.id) == "cba"
    again = submitted.retry()
    assert again.id != submitted.id
    assert again.wait(20) == "cba"
    if kind == "bentoml":
        with pytest.raises(InvalidArgument, match="not supported in local development"):
            submitted.cancel()
    else:
        submitted.cancel()
    for verb in (client.train.get, client.train.get_status, client.train.retry):
        with pytest.raises(NotFound, match="task_id not found"):
            verb(task_id="0" * 32)


def test_tasks_of_the_async_client(url: str) -> None:
    async def main() -> None:
        client: Any = AsyncHTTPClient(url)
        submitted = await client.train.submit("abc")
        assert await submitted.wait(20) == "cba"
        assert await client.train.get_status(task_id=submitted.id) is TaskStatus.COMPLETED
        assert await (await submitted.retry()).wait(20) == "cba"
        await client.close()

    asyncio.run(main())


# The object.


def test_methods_have_signatures(client: Any) -> None:
    assert str(inspect.signature(client.classify)).startswith("(text: str, n: int = 3, opt")
    assert inspect.isgenerator(client.stream("a"))
    assert client.is_ready(5) is True


def test_any_request(client: Any) -> None:
    answer = client.request("POST", "/shaped", json={}, headers={"X-Asked": "me"})
    assert (answer.status_code, answer.headers["x-own"]) == (201, "yes")
    assert answer.json() == {"agent": "me"}
    assert "taste=sweet" in answer.headers["set-cookie"]
    assert client.request("GET", "/nowhere").status_code == 404


def test_many_calls_at_a_time(url: str) -> None:
    async def main() -> None:
        async with AsyncHTTPClient(url) as client:
            found = await asyncio.gather(*(client.call("shout", f"a{at}") for at in range(50)))
            assert found == [f"A{at}" for at in range(50)]

    asyncio.run(main())


@pytest.mark.parametrize("suffix", ["", "/", "/team", "/team/"])
def test_services_behind_a_prefix(team_url: str, kind: str, suffix: str) -> None:
    # BentoML has no /readyz outside of the prefix; 0 asks for none.
    ready_s = 0 if kind == "bentoml" and "team" not in suffix else 20
    with SyncHTTPClient(team_url + suffix, server_ready_timeout=ready_s) as client:
        assert client.call("shout", "a") == "A"
        assert client.later.submit("ab").wait(20) == "ba"  # type: ignore[attr-defined]


def test_what_bentoml_cannot_do(client: Any, kind: str) -> None:
    if kind == "bentoml":
        with pytest.raises(TypeError, match="unexpected argument 'a'; it takes kwargs"):
            client.anything(a=1)
        return
    path, said = client.mixed()
    assert path.read_text() == "hello"
    assert said == {"n": 1}
    assert client.anything(a=1, b="x") == {"a": 1, "b": "x"}
