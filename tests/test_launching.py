import urllib.request
from pathlib import Path

import pytest

import modelport
from modelport.launching import serve

SERVICE = """
import modelport

@modelport.service
class Echo:
    @modelport.api
    def echo(self, text: str) -> str:
        return text
"""


def test_a_server_runs_for_a_block(tmp_path: Path) -> None:
    file = tmp_path / "service.py"
    file.write_text(SERVICE)
    with serve(f"{file}:Echo") as server:
        assert server.process.poll() is None
        request = urllib.request.Request(f"{server.url}/echo", b'{"text": "a"}')
        with urllib.request.urlopen(request) as reply:
            assert reply.read() == b"a"
    assert not server.running
    server.stop()


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"nothing\.py"):
        serve(tmp_path / "nothing.py")


def test_what_is_in_no_file_cannot_be_started_elsewhere() -> None:
    with pytest.raises(TypeError, match="path of its file"):
        serve(object())


def test_the_cloud_is_not_here() -> None:
    with pytest.raises(RuntimeError, match="SyncHTTPClient"):
        modelport.get_client("name")
