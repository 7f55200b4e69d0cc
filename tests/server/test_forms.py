"""Forms and files as clients send them, to a service over sockets."""

import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Iterator
from contextlib import closing

import h2.config
import h2.connection
import h2.events
import pytest

import modelport
from tests.served import Served, call, serving

SAMPLE = """
from pathlib import Path

import modelport


@modelport.service
class Desk:
    @modelport.api
    def names(self, files: list[Path]) -> list[str]:
        return [file.name.partition("-")[2] for file in files]

    @modelport.api
    def some(self, files: list[Path] | None = None) -> int:
        return -1 if files is None else len(files)

    @modelport.api
    def content(self, file: Path) -> str:
        return file.name.partition("-")[2] + ": " + file.read_text()

    @modelport.api
    def double(self, number: int) -> int:
        return 2 * number
"""
MODELS = """
import modelport


@modelport.model(inputs={"x": "FP32[2]"}, outputs={"y": "FP32[2]"})
def affine(x):
    return 2 * x + 1
"""
MOST = 100_000
FORM = "multipart/form-data; boundary=xyz"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("desk")
    (folder / "desk.py").write_text(SAMPLE)
    (folder / "models.py").write_text(MODELS)
    targets = [str(folder / "desk.py"), str(folder / "models.py")]
    with serving(*targets, f"--max-upload-size={MOST}") as running:
        yield running


def form(*parts: tuple[str, bytes]) -> bytes:
    """Write parts of dispositions and data."""
    written = [
        f"--xyz\r\nContent-Disposition: form-data; {said}\r\n\r\n".encode() + data + b"\r\n"
        for said, data in parts
    ]
    return b"".join(written) + b"--xyz--\r\n"


LARGE = form(('name="file"; filename="a.txt"', bytes(MOST)))
TOO_LARGE = (
    f"request body of {len(LARGE)} bytes exceeds the maximum allowed input size of {MOST} bytes. "
    "Use --max-upload-size to increase the limit."
)


def test_an_upload_over_its_limit_names_the_setting(served: Served) -> None:
    status, _, said = call(served, "/content", LARGE, {"Content-Type": FORM})
    assert status == 413
    assert json.loads(said)["error"] == TOO_LARGE


def test_an_upload_in_chunks_over_its_limit_names_the_setting(served: Served) -> None:
    with closing(http.client.HTTPConnection(served.address, timeout=30)) as connection:
        connection.request(
            "POST", "/content", iter([LARGE]), {"Content-Type": FORM}, encode_chunked=True
        )
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["error"] == TOO_LARGE


def test_an_upload_over_http2_over_its_limit_names_the_setting(served: Served) -> None:
    host, _, port = served.address.partition(":")
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", served.address)]
    peer.send_headers(1, [*fields, (":path", "/content"), ("content-type", FORM)])
    said = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(peer.data_to_send())
        for at in range(0, len(LARGE), 10_000):
            while peer.local_flow_control_window(1) < 10_000:
                peer.receive_data(connection.recv(65_536))
            peer.send_data(1, LARGE[at : at + 10_000])
            connection.sendall(peer.data_to_send())
        is_over = False
        while not is_over:
            for event in peer.receive_data(connection.recv(65_536)):
                if isinstance(event, h2.events.DataReceived):
                    said += event.data or b""
                is_over |= isinstance(event, h2.events.StreamEnded)
    error = json.loads(said)["error"]
    assert error.endswith("Use --max-upload-size to increase the limit.")


def test_other_bodies_over_their_limit_name_theirs(served: Served) -> None:
    with closing(http.client.HTTPConnection(served.address, timeout=30)) as connection:
        connection.putrequest("POST", "/double")
        connection.putheader("Content-Length", str(10**9))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert "--http-max-input-size" in json.loads(answer.read())["error"]


def test_a_part_whose_name_is_only_given_in_the_extended_form_is_a_file(served: Served) -> None:
    body = form(("name=\"file\"; filename*=UTF-8''%e2%82%ac%20rates.txt", b"1.5"))
    status, _, said = call(served, "/content", body, {"Content-Type": FORM})
    assert (status, said.decode()) == (200, "€ rates.txt: 1.5")
    body = form(("name=\"file\"; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", b"1.5"))
    status, _, said = call(served, "/content", body, {"Content-Type": FORM})
    assert (status, said.decode()) == (200, "passwd: 1.5")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_compressed_form_is_refused_with_what_to_do(served: Served, coding: str) -> None:
    body = form(('name="file"; filename="a.txt"', b"1"))
    headers = {"Content-Type": FORM, "Content-Encoding": coding}
    status, _, said = call(served, "/content", gzip.compress(body), headers)
    assert status == 415
    assert json.loads(said)["error"] == (
        f"Content-Encoding '{coding}': only JSON may be compressed as a whole here; "
        "send the body as it is"
    )
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    assert call(served, "/double", gzip.compress(b"number=4"), headers)[0] == 415
    assert call(served, "/content", body, {"Content-Type": FORM})[0] == 200


@pytest.mark.parametrize(
    ("coding", "fold"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("Identity", bytes)]
)
def test_compressed_json_is_taken(served: Served, coding: str, fold: object) -> None:
    assert callable(fold)
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    for _ in range(2):
        status, _, said = call(served, "/double", fold(b'{"number": 21}'), headers)
        assert (status, said) == (200, b"42")
    status, _, said = call(served, "/affine", fold(b'{"x": [1, 2]}'), headers)
    assert (status, json.loads(said)) == (200, [3.0, 5.0])


def test_json_that_is_compressed_in_another_way_is_refused(served: Served) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    status, _, said = call(served, "/double", b"\x0b\x02", headers)
    assert status == 415
    assert json.loads(said)["error"] == (
        "Content-Encoding 'br': gzip, deflate and identity are accepted"
    )


def test_json_that_unfolds_to_too_much_is_refused(served: Served) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b'{"number": 1' + b" " * 40_000_000 + b"}")
    for path in ("/double", "/affine"):
        status, _, said = call(served, path, bomb, headers)
        assert status == 413
        assert b"after decompression" in said


def test_an_empty_list_of_files_can_be_sent(served: Served) -> None:
    with modelport.SyncHTTPClient(served.url) as client:
        assert client.call("names", files=[]) == []
        assert client.call("some", files=[]) == 0
        assert client.call("some") == -1
        assert client.call("some", files=None) == -1
        assert client.call("names", files=[b"1", b"2"]) == ["files", "files"]


def test_a_missing_list_of_files_is_still_an_error(served: Served) -> None:
    body = form(('name="other"', b"1"))
    assert call(served, "/names", body, {"Content-Type": FORM})[0] == 400
