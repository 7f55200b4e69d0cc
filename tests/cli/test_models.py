import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modelport.cli import main
from modelport.cli.models import Row, describe, overview
from modelport.cli.terminal import terminal_width
from tests.cli.conftest import EchoServer
from tests.served import bounded, clean_environment


def test_models_are_listed_with_state_inputs_and_outputs(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--url", server.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "version", "state", "inputs", "outputs", "reason"]
    assert lines[1].split() == ["sentiment", "1", "READY", "text", "BYTES[-1,1]", "text",
                                "BYTES[-1,1]"]  # fmt: skip
    assert lines[2].split()[:7] == ["numbers", "2", "READY", "x", "FP32[-1,2],", "n", "INT64[-1]"]
    assert lines[3].split() == ["broken", "1", "UNAVAILABLE", "no", "such", "file"]
    assert lines[4].split() == ["never"]


def test_one_model_is_described(server: EchoServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "numbers", "--url", server.url]) == 0
    assert capsys.readouterr().out == (
        "numbers version 2 READY\n"
        "  platform  onnxruntime_onnx\n"
        "  input     x FP32[-1,2]\n"
        "  input     n INT64[-1]\n"
        "  output    y FP32[-1,2]\n"
    )


def test_a_model_that_failed_says_why(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "broken", "--url", server.url]) == 0
    assert "  reason    no such\nfile" in capsys.readouterr().out


def test_json_has_all_of_it(server: EchoServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", server.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in told] == ["sentiment", "numbers", "broken", "never"]
    assert told[0]["metadata"]["inputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1, 1]}
    ]
    assert told[2]["metadata"] is None


def test_a_server_without_an_index_is_asked_for_its_list(
    server_without_index: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--url", server_without_index.url]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["sentiment", "1"]


def test_an_unknown_model_is_told_in_the_servers_words(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "nobody", "--url", server.url]) == 1
    assert capsys.readouterr().err == (
        "modelport models: [404] Request for unknown model: 'nobody' is not found\n"
    )


def test_the_server_and_the_key_can_come_from_the_environment(
    server: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPORT_URL", server.url.removeprefix("http://"))
    monkeypatch.setenv("MODELPORT_API_KEY", "hush")
    assert main(["models", "sentiment"]) == 0
    assert server.calls[0][2]["authorization"] == "Bearer hush"


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["models", "--url", url]) == 1
    assert capsys.readouterr().err == (
        f"modelport models: cannot call {url}: nothing listens there; is the server running?\n"
    )


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:port"])
def test_a_url_that_is_none_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", url]) == 1
    assert f'cannot call "{url}"' in capsys.readouterr().err


METRICS = """\
# TYPE modelport_instances gauge
modelport_instances{model="numbers",version="2",team="a"} 2
modelport_instances{model="sentiment",version="1"} 1
modelport_busy_instances{model="numbers",version="2",team="a"} 1
modelport_busy_instances{model="sentiment",version="1"} 0
nv_inference_pending_request_count{model="numbers",version="2",team="a"} 7
nv_inference_pending_request_count{model="sentiment",version="1"} 0
"""


def test_how_busy_a_model_is_is_told_where_there_is_something_to_tell(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.metrics = METRICS
    assert main(["models", "--url", server.url]) == 0
    heading, sentiment, numbers, *_ = capsys.readouterr().out.splitlines()
    at = heading.index("load")
    assert sentiment[at:].strip() == ""
    assert numbers[at:].strip() == "1/2 busy, 7 waiting"


def test_one_model_tells_how_busy_it_is_in_any_case(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.metrics = METRICS
    assert main(["models", "sentiment", "--url", server.url]) == 0
    assert "\n  load      0/1 busy, 0 waiting\n" in capsys.readouterr().out
    assert main(["models", "--url", server.url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told[1]["load"] == {"instances": 2, "busy": 1, "pending": 7}
    assert told[2]["load"] is None


def test_page_that_is_no_metrics_is_passed_over(
    server: EchoServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.metrics = "<html>metrics</html>"
    assert main(["models", "sentiment", "--url", server.url]) == 0
    assert "load" not in capsys.readouterr().out


HOSTILE = Row("m\x1b[2J", "1", "READY", "gone\x07", None)


def test_what_a_server_says_cannot_steer_the_terminal() -> None:
    for text in (overview([HOSTILE], is_on=False), describe([HOSTILE], is_on=False)):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "m\\x1b[2J" in text


@pytest.mark.parametrize("most", [20, 50, 80])
def test_lines_fit_and_the_widest_columns_give_way(most: int) -> None:
    rows = [
        Row("sentiment", "1", "READY", "", None),
        Row("broken", "12", "UNAVAILABLE", "no such file " * 20, None),
    ]
    lines = overview(rows, is_on=False, most=most).splitlines()
    assert all(len(line) <= max(most, 4 * 6 + 3 * 2) for line in lines)
    assert lines[2].endswith("…")
    if most >= 50:
        assert lines[1].split() == ["sentiment", "1", "READY"]
        assert lines[2].startswith("broken     12       UNAVAILABLE  no such")


@contextmanager
def watching(*words: str, **streams: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "modelport", "models", "--watch", "0.05", *words]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=streams.get("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env=clean_environment() | {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    with bounded(process):
        yield process


def test_watching_tells_what_changes_until_it_is_interrupted(server: EchoServer) -> None:
    server.metrics = METRICS
    with watching("numbers", "--json", "--url", server.url) as watcher:
        assert watcher.stdout is not None
        assert json.loads(watcher.stdout.readline())[0]["load"]["pending"] == 7
        server.metrics = METRICS.replace("} 7", "} 9")
        told = 7
        while told == 7:
            told = json.loads(watcher.stdout.readline())[0]["load"]["pending"]
        assert told == 9
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(10) == 130


def test_watching_survives_a_server_that_goes_away(server: EchoServer) -> None:
    with watching("--json", "--url", server.url) as watcher:
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        assert json.loads(watcher.stdout.readline())
        server.is_away = True
        assert watcher.stderr.readline().startswith("modelport models: cannot call")
        server.is_away = False
        server.metrics = METRICS
        while json.loads(watcher.stdout.readline())[0]["load"] is None:
            pass
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(10) == 130


@contextmanager
def terminal(columns: int, lines: int) -> Iterator[tuple[int, int]]:
    """Make one; gives our end and the program's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def test_terminal_shows_one_table_that_fits(server: EchoServer) -> None:
    server.metrics = METRICS
    with (
        terminal(columns=64, lines=4) as (ours, theirs),
        watching("--url", server.url, stdout=theirs) as watcher,
    ):
        shown = b""
        while shown.count(b"\x1b[H") < 3:
            assert select.select([ours], [], [], 30)[0], f"nothing comes after {shown!r}"
            shown += os.read(ours, 4096)
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(10) == 130
    page = shown.split(b"\x1b[H")[1].decode().replace("\x1b[K", "").replace("\x1b[J", "")
    heading, *rows, last = re.sub("\x1b\\[[0-9]*m", "", page).splitlines()
    assert heading.split()[:4] == ["model", "version", "state", "load"]
    assert rows[0].split() == ["sentiment", "1", "READY", "0/1", "busy,", "0", "waiting"]
    assert last == "… 3 more lines"
    assert all(len(line) <= 64 for line in (heading, *rows))


def test_a_terminal_without_a_size_is_taken_for_one_of_usual_size() -> None:
    """Those of containers and of ``script`` begin so; a width of 0 would leave six letters each."""
    with terminal(columns=0, lines=0) as (_, theirs), open(theirs, "w", closefd=False) as stream:
        assert terminal_width(stream) == 80
