"""BentoML's clients, unmodified, against our server."""

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from bentoml.exceptions import BentoMLException, InvalidArgument, NotFound, ServiceUnavailable

URL = os.environ["SERVICE_URL"]


@pytest.fixture(scope="module")
def client() -> Any:
    with bentoml.SyncHTTPClient(URL, timeout=20) as client:
        yield client


def test_json_with_defaults(client: Any) -> None:
    assert client.classify(text="a") == {"text": "a", "n": 3, "opt": None}
    assert client.classify("a", n=4, opt=0.5) == {"text": "a", "n": 4, "opt": 0.5}


def test_hooks_have_run(client: Any) -> None:
    assert client.started_by() == ["init", "startup"]


def test_coroutines(client: Any) -> None:
    assert client.shout(text="hällo") == "HÄLLO"


def test_tensors(client: Any) -> None:
    result = client.add(x=np.array([[1, 2], [3, 4]], np.float32))
    assert isinstance(result, np.ndarray)
    assert result.tolist() == [[2, 3], [4, 5]]
    assert client.add(x=[[1, 2], [3, 4]]).tolist() == [[2, 3], [4, 5]]
    assert np.isnan(client.not_finite()[1])


def test_dataframes(client: Any) -> None:
    result = client.table(data=pd.DataFrame({"a": [1, 2], "b": [3, 4]}))
    assert isinstance(result, pd.DataFrame)
    assert result["c"].tolist() == [4, 6]
    assert client.table(data=[{"a": 1, "b": 2}])["c"].tolist() == [3]
    assert client.table(data={"a": [1], "b": [2]})["c"].tolist() == [3]


def test_images(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    PIL.Image.new("RGB", (4, 2), (255, 0, 0)).save(path)
    result = client.image(image=path)
    assert isinstance(result, PIL.Image.Image)
    assert result.size == (2, 4)
    assert client.image(image=PIL.Image.open(path), params={"temperature": 0}).size == (4, 2)


def test_files(client: Any, tmp_path: Path) -> None:
    wav = tmp_path / "a.wav"
    wav.write_bytes(b"abc")
    result = client.audio(audio=wav)
    assert Path(result).read_bytes() == b"cba"
    assert Path(result).suffix == ".mp3"
    assert client.suffixes() == "none"
    assert client.suffixes(file=wav).endswith("a.wav")


def test_lists_of_files(client: Any, tmp_path: Path) -> None:
    paths = []
    for size in (1, 3_000_000):
        path = tmp_path / f"{size}.bin"
        path.write_bytes(b"x" * size)
        paths.append(path)
    assert client.files(files=paths) == [1, 3_000_000]
    assert client.files(files=paths[:1], scale=2) == [2]


def test_root_inputs(client: Any, tmp_path: Path) -> None:
    assert client.root_text("hello root") == "hello root!"
    assert client.root_list([4, 5]) == 9
    assert client.root_model({"temperature": 1.5}) == {"temperature": 1.5, "tags": []}
    path = tmp_path / "big.bin"
    path.write_bytes(b"x" * 2_000_000)
    assert client.root_file(path) == 2_000_000


def test_streams(client: Any) -> None:
    assert list(client.stream(prompt="one two three")) == ["one", "two", "three"]
    assert list(client.count(n=3)) == [{"i": 0}, {"i": 1}, {"i": 2}]


def test_a_stream_that_breaks_does_not_look_whole(client: Any) -> None:
    with pytest.raises(Exception, match=r"peer closed connection|incomplete"):
        list(client.breaks(after=2))
    with pytest.raises(BentoMLException, match="unexpected error"):
        list(client.breaks(after=0))


def test_other_routes_and_names(client: Any) -> None:
    assert client.routed(kind="b") == "b"
    assert client.anything(a=1, b="x") == {"a": 1, "b": "x"} if _takes_kwargs(client) else True


def _takes_kwargs(client: Any) -> bool:
    # Their client refuses names that the schema does not list.
    try:
        client.anything(a=1)
    except TypeError:
        return False
    return True


def test_batches(client: Any) -> None:
    assert client.lengths(["a", "bb"]) == [1, 2]
    assert client.lengths(["x" * at for at in range(20)]) == list(range(20))


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("bad", InvalidArgument, "no such thing"),
        ("missing", NotFound, "not here"),
        ("teapot", BentoMLException, "short and stout"),
        ("forbidden", BentoMLException, "Authorization error"),
        ("down", ServiceUnavailable, "unexpected error"),
        ("other", BentoMLException, "unexpected error"),
    ],
)
def test_errors(client: Any, how: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as raised:
        client.failing(how=how)
    assert "secret" not in str(raised.value)


def test_faults_of_arguments(client: Any) -> None:
    with pytest.raises(InvalidArgument, match="validation error"):
        client.classify(text=5)
    with pytest.raises(InvalidArgument, match="validation error"):
        client.add(x=np.array([1, 2, 3]))


def test_timeout(client: Any) -> None:
    with pytest.raises(BentoMLException, match="Not able to process the request in 5 seconds"):
        client.slow(seconds=6)


def test_a_task_can_be_called(client: Any) -> None:
    assert client.train(text="abc") == "cba"


def test_the_asynchronous_client() -> None:
    async def talk() -> None:
        async with bentoml.AsyncHTTPClient(URL) as client:
            assert await client.shout(text="a") == "A"
            assert [each async for each in client.stream(prompt="a b")] == ["a", "b"]
            results = await asyncio.gather(*(client.lengths([str(at)]) for at in range(20)))
            assert results == [[len(str(at))] for at in range(20)]

    asyncio.run(talk())


def test_in_memory_images_are_read(client: Any) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("L", (3, 3)).save(buffer, "PNG")
    reply = client.request("POST", "/image", files={"image": ("a.png", buffer.getvalue())})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "image/png"
