import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from modelport.cli.reloading import changed, folders_of, snapshot
from tests.served import bounded, clean_environment

SERVICE = """
import modelport

@modelport.service
class Echo:
    @modelport.api
    def answer(self) -> str:
        return "{word}"
"""


def test_changes_are_seen_where_they_count(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    for name in ("a.py", "b.py", "c.txt", ".venv/d.py"):
        (tmp_path / name).write_text("")
    before = snapshot([tmp_path])
    assert {path.name for path in before} == {"a.py", "b.py"}
    os.utime(tmp_path / "a.py", ns=(1, 1))
    (tmp_path / "b.py").unlink()
    (tmp_path / "e.py").write_text("")
    assert changed(before, snapshot([tmp_path])) == {"a.py", "b.py", "e.py"}


def test_the_folders_of_targets_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "service.py"
    file.write_text("")
    assert folders_of([f"{file}:Echo", str(file), str(tmp_path)]) == [tmp_path.resolve()]


@pytest.mark.slow
def test_a_changed_service_is_served_anew(tmp_path: Path) -> None:
    file = tmp_path / "service.py"
    file.write_text(SERVICE.format(word="first"))
    ports = {"MODELPORT_HTTP_PORT": "0", "MODELPORT_METRICS_PORT": "off"}
    process = subprocess.Popen(
        [sys.executable, "-m", "modelport", "serve", str(file), "--reload", "--grpc-port=off"],
        env=clean_environment() | ports | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with bounded(process, within_s=120):
        assert answer_of(next_url(process)) == "first"
        file.write_text(SERVICE.format(word="second"))
        assert answer_of(next_url(process)) == "second"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def next_url(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"is ready on (\S+)", line)
        if found:
            return found[1]
    raise AssertionError("the server has ended")


def answer_of(url: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(f"{url}/answer", b"{}")) as reply:
        text: str = reply.read().decode()
        return text
