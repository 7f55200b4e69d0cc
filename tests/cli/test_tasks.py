import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from modelport.cli import main
from modelport.cli.tasks import describe, overview
from modelport.client.bentoml import SyncHTTPClient
from tests.served import Served, serving

SERVICE = """
import time
import modelport

@modelport.service(name="Trainer")
class Trainer:
    @modelport.task
    def train(self, steps: int) -> str:
        for step in range(steps):
            modelport.report_progress(step / steps, "learning")
            time.sleep(0.01)
        return "learned"

    @modelport.task
    def fail(self, text: str) -> str:
        raise modelport.exceptions.InvalidArgument(text)

    @modelport.api
    def hello(self) -> str:
        return "hello"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("trainer")
    (folder / "trainer.py").write_text(SERVICE)
    with serving(str(folder / "trainer.py"), "--data-dir", str(folder / "data")) as server:
        yield server


Output = pytest.CaptureFixture[str]


def tasks(served: Served, *words: str) -> int:
    return main(["tasks", *words, "--url", served.url])


def submitted(served: Served, endpoint: str, **arguments: Any) -> str:
    with SyncHTTPClient(served.url) as client:
        return str(getattr(client, endpoint).submit(**arguments).id)


def test_tasks_of_all_endpoints_are_listed_the_newest_first(served: Served, capsys: Output) -> None:
    first = submitted(served, "train", steps=0)
    time.sleep(1)  # They are told to the second.
    second = submitted(served, "fail", text="no such leaf")
    assert tasks(served, "--watch", "0.2") == 0
    assert tasks(served, "list", "--limit", "2") == 0
    *_, heading, newest, oldest = capsys.readouterr().out.splitlines()
    assert heading.split() == ["id", "task", "status", "created", "reason"]
    assert newest.split()[:3] == [second, "fail", "failed"]
    assert newest.endswith("it answered with status 400")
    assert oldest.split()[:3] == [first, "train", "completed"]
    assert tasks(served, "--limit", "1", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["task_id"], row["task"], row["status"]) == (second, "fail", "failed")
    assert tasks(served, "--status", "completed", "--json") == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"completed"}


def test_one_task_is_watched_cancelled_and_asked_again(served: Served, capsys: Output) -> None:
    task_id = submitted(served, "train", steps=100)
    assert tasks(served, "show", task_id, "--watch", "0.2") == 0
    told = capsys.readouterr().out
    assert re.match(rf"{task_id} in_progress\n  task      train\n  created   20\d\d-", told)
    assert re.search(r"  progress  \d+% learning\n", told)
    assert re.search(rf"{task_id} completed\n(.*\n)+  over      20", told)
    assert "\x1b" not in told
    long = submitted(served, "train", steps=100_000)
    assert tasks(served, "cancel", long) == 0
    assert capsys.readouterr().out.startswith(f"{long} canceled\n")
    assert tasks(served, "retry", task_id, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["task_id"] not in (task_id, long)
    assert (again["task"], again["status"]) == ("train", "in_progress")
    assert tasks(served, "cancel", again["task_id"]) == 0


def test_what_the_server_refuses_is_said_in_its_words(served: Served, capsys: Output) -> None:
    assert tasks(served, "show", "nobody") == 1
    assert capsys.readouterr().err == (
        "modelport tasks: there is no task nobody of yours; modelport tasks lists them\n"
    )
    running = submitted(served, "train", steps=100_000)
    assert tasks(served, "retry", running) == 1
    assert "is not completed yet" in capsys.readouterr().err
    assert tasks(served, "cancel", running) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["delete"],
        ["show"],
        ["cancel", "a", "b"],
        ["list", "a"],
        ["--limit", "0"],
        ["--status", "done"],
    ],
)
def test_wrong_words_are_a_wrong_command_line(words: list[str], capsys: Output) -> None:
    assert main(["tasks", *words]) == 2
    assert capsys.readouterr().err.startswith("modelport tasks: ")


def test_server_that_is_not_there_is_told(capsys: Output) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert main(["tasks", "--url", f"http://127.0.0.1:{taken.getsockname()[1]}"]) == 1
    assert capsys.readouterr().err.startswith("modelport tasks: ")


def test_on_a_terminal_there_is_colour_and_what_changed_is_drawn_anew(
    served: Served, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor=1: os.terminal_size((40, 24)))
    task_id = submitted(served, "train", steps=20)
    assert tasks(served, "show", task_id, "--watch", "0.2") == 0
    told = capfd.readouterr().out
    assert "\x1b[33min_progress\x1b[0m" in told
    assert told.startswith("\x1b[2J\x1b[H")
    assert told.rstrip().endswith("\x1b[K\x1b[J")
    assert "\x1b[32mcompleted\x1b[0m" in told
    row = {
        "task": "train",
        "task_id": "7f",
        "status": "failed",
        "created_at": "2026-11-20T23:46:33",
    }
    lines = overview([{**row, "reason": "no such leaf in this tree"}], is_on=False).splitlines()
    assert max(map(len, lines)) <= 40


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    row = {
        "task": "train",
        "task_id": "7f",
        "status": "failed",
        "created_at": "2026-11-20T23:46:33",
        "progress_text": "\x1b[2J",
        "reason": "\x1b]0;title\x07\nfailed",
    }
    for text in (overview([row], is_on=False), describe([row], is_on=False)):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\\x1b]0;title\\x07 failed" in text


def test_texts() -> None:
    row = {
        "task": "train",
        "task_id": "7f",
        "status": "in_progress",
        "created_at": "2026-11-20T23:46:33",
        "executed_at": None,
        "progress": None,
        "progress_text": "reading\nfiles",
    }
    assert overview([], is_on=False) == "no tasks"
    assert overview([row], is_on=False).splitlines()[1] == (
        "7f  train  in_progress  2026-11-20 23:46:33  reading files"
    )
    assert describe([{**row, "progress": 0.256}], is_on=False) == (
        "7f in_progress\n"
        "  task      train\n"
        "  created   2026-11-20 23:46:33\n"
        "  progress  26% reading files"
    )
