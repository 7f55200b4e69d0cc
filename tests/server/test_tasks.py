"""Tasks over HTTP, with real processes: what was accepted is never lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from modelport.client.bentoml import SyncHTTPClient, TaskStatus
from tests.served import Served, serving

SERVICE = """
import os
import time
from pathlib import Path

import modelport

STARTS = Path(os.environ["STARTS"])


def note(kind, number):
    with STARTS.open("a") as file:
        file.write(f"{kind} {number}\\n")


@modelport.service(name="Trainer")
class Trainer:
    @modelport.task
    def once(self, number: int, seconds: float = 0.0) -> int:
        note("once", number)
        time.sleep(seconds)
        return number * 2

    @modelport.task(retry="on_interrupt")
    def again(self, number: int, seconds: float = 0.0) -> int:
        note("again", number)
        time.sleep(seconds)
        return number * 2

    @modelport.task
    def patient(self, steps: int) -> str:
        for step in range(steps):
            modelport.report_progress(step / steps, f"step {step}")
            time.sleep(0.02)
        return "done"

    @modelport.task
    def fail(self, text: str) -> str:
        raise modelport.exceptions.InvalidArgument(text)

    @modelport.task
    def size(self, file: Path) -> int:
        return len(file.read_bytes())

    @modelport.api
    def ordinary(self) -> str:
        return "here"
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    file = tmp_path / "trainer.py"
    file.write_text(SERVICE)
    return file


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture
def serve(service: Path, tmp_path: Path) -> Serve:
    def start(*options: str) -> AbstractContextManager[Served]:
        return serving(
            f"{service}:Trainer",
            "--data-dir",
            str(tmp_path / "data"),
            *options,
            environment={"STARTS": str(tmp_path / "starts")},
        )

    return start


@pytest.fixture
def served(serve: Serve) -> Iterator[Served]:
    with serve() as server:
        yield server


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def ask(served: Served, method: str, path: str, body: Any = None, **headers: str) -> Any:
    request = urllib.request.Request(
        served.url + path,
        None if body is None else json.dumps(body).encode(),
        {name.replace("_", "-"): value for name, value in headers.items()},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def over(served: Served, task_id: str, endpoint: str) -> dict[str, Any]:
    for _ in range(1000):
        status, found = ask(served, "GET", f"/{endpoint}/status?task_id={task_id}")
        assert status == 200
        if found["status"] != "in_progress":
            return dict(found)
        time.sleep(0.01)
    raise AssertionError(task_id)


def test_every_route_says_what_bentoml_says(served: Served) -> None:
    status, submitted = ask(served, "POST", "/once/submit", {"number": 4})
    assert (status, set(submitted), submitted["status"]) == (
        200,
        {"task_id", "status"},
        "in_progress",
    )
    task_id = submitted["task_id"]
    assert len(task_id) == 32
    found = over(served, task_id, "once")
    assert set(found) == {"task_id", "status", "created_at", "executed_at"}
    assert found["status"] == "completed"
    assert len(found["created_at"]) == len("2026-11-20T23:46:33")
    assert ask(served, "GET", f"/once/get?task_id={task_id}") == (200, 8)
    status, again = ask(served, "POST", f"/once/retry?task_id={task_id}")
    assert (status, again["status"]) == (200, "in_progress")
    assert again["task_id"] != task_id
    over(served, again["task_id"], "once")
    status, listed = ask(served, "GET", "/once/list")
    assert [row["task_id"] for row in listed] == [again["task_id"], task_id]
    assert ask(served, "POST", "/once", {"number": 5}) == (200, 10)


@pytest.mark.parametrize(
    ("method", "verb"),
    [("GET", "status"), ("GET", "get"), ("PUT", "cancel"), ("POST", "retry")],
)
def test_missing_unknown_and_foreign_ids(served: Served, method: str, verb: str) -> None:
    assert ask(served, method, f"/once/{verb}") == (400, {"error": "task_id is required"})
    unknown = (404, {"error": "task_id not found"})
    assert ask(served, method, f"/once/{verb}?task_id=x") == unknown
    _, other = ask(served, "POST", "/again/submit", {"number": 1})
    assert ask(served, method, f"/once/{verb}?task_id={other['task_id']}") == unknown


def test_result_is_replayed_with_its_status_and_headers(served: Served) -> None:
    _, submitted = ask(served, "POST", "/fail/submit", {"text": "no such leaf"})
    assert over(served, submitted["task_id"], "fail")["status"] == "failed"
    path = f"/fail/get?task_id={submitted['task_id']}"
    assert ask(served, "GET", path) == (400, {"error": "no such leaf"})
    _, submitted = ask(served, "POST", "/once/submit", {"number": "many"})
    assert over(served, submitted["task_id"], "once")["status"] == "failed"
    status, said = ask(served, "GET", f"/once/get?task_id={submitted['task_id']}")
    assert status == 400
    assert "validation error" in said["error"]


def test_task_in_progress_has_no_result_yet_and_tells_how_far_it_is(served: Served) -> None:
    with SyncHTTPClient(served.url) as client:
        patient: Any = client.patient  # type: ignore[attr-defined]
        task = patient.submit(steps=10_000)
        status, said = ask(served, "GET", f"/patient/get?task_id={task.id}")
        assert (status, said) == (400, {"error": f"task {task.id} is not completed yet"})
        status, said = ask(served, "POST", f"/patient/retry?task_id={task.id}")
        assert (status, said) == (400, {"error": f"task {task.id} is not completed yet"})
        for _ in range(500):
            found = ask(served, "GET", f"/patient/status?task_id={task.id}")[1]
            if "progress" in found:
                break
            time.sleep(0.01)
        assert 0 <= found["progress"] < 1
        assert found["progress_text"].startswith("step ")
        task.cancel()
        assert task.get_status() is TaskStatus.CANCELED
        # The thread is free again: the function ended at its next report.
        assert patient.submit(steps=1).wait(10) == "done"


def test_same_key_is_the_same_task_and_not_another_request(served: Served) -> None:
    def submit(number: int) -> Any:
        return ask(served, "POST", "/once/submit", {"number": number}, Idempotency_Key="a")

    first = submit(1)
    assert submit(1)[1]["task_id"] == first[1]["task_id"]
    status, said = submit(2)
    assert status == 409
    assert "idempotency key" in said["error"]


def test_files_go_to_a_task_as_to_a_call(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(3_000_000))
    with SyncHTTPClient(served.url) as client:
        size: Any = client.size  # type: ignore[attr-defined]
        assert size(path) == 3_000_000
        assert size.submit(path).wait(10) == 3_000_000


def test_pickles_are_refused_before_they_are_kept(served: Served) -> None:
    kind = "application/vnd.bentoml+pickle"
    status, _ = ask(served, "POST", "/once/submit", {"number": 1}, Content_Type=kind)
    assert status == 415


def test_full_queue_is_refused(serve: Serve) -> None:
    with serve("--task-queue-size", "2", "--task-concurrency", "1") as served:
        answers = [
            ask(served, "POST", "/once/submit", {"number": n, "seconds": 1.0})[0] for n in range(6)
        ]
        assert set(answers) == {200, 429}


def test_owners_see_their_own_tasks_only(serve: Serve, tmp_path: Path) -> None:
    with serve("--api-key", "ann", "--api-key", "bob") as served:
        ann, bob = ({"Authorization": f"Bearer {name}"} for name in ("ann", "bob"))
        _, task = ask(served, "POST", "/once/submit", {"number": 1}, **ann)
        for method, verb in (("GET", "status"), ("GET", "get"), ("PUT", "cancel")):
            path = f"/once/{verb}?task_id={task['task_id']}"
            assert ask(served, method, path, **bob)[0] == 404
        assert ask(served, "GET", "/once/list", **bob) == (200, [])
        assert len(ask(served, "GET", "/once/list", **ann)[1]) == 1
        assert b"ann" not in (tmp_path / "data" / "tasks.sqlite").read_bytes()


def start(service: Path, data: Path, port_file: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "modelport", "serve", f"{service}:Trainer"]
    command += ["--data-dir", str(data), "--http-port", port_file.read_text()]
    command += ["--grpc-port", "off", "--metrics-port", "off", "--task-queue-size", "100000"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(fact: Callable[[], bool], seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_every_accepted_task_ends_once_although_the_server_is_killed(
    service: Path, tmp_path: Path, unused_port: int
) -> None:
    count = int(os.environ.get("MODELPORT_TEST_TASKS", "400"))
    data, port_file = tmp_path / "data", tmp_path / "port"
    port_file.write_text(str(unused_port))
    url = f"http://127.0.0.1:{unused_port}"
    accepted: list[tuple[str, str]] = []
    server = start(service, data, port_file)
    try:
        with SyncHTTPClient(url) as client:
            for number in range(count):
                kind = "once" if number % 2 else "again"
                task = getattr(client, kind).submit(number=number, seconds=0.01)
                accepted.append((kind, task.id))
        # In the middle: some are over, some run, some wait.
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = start(service, data, port_file)
        with SyncHTTPClient(url) as client:
            endings = {task_id: "" for _, task_id in accepted}

            def all_over() -> bool:
                for kind, task_id in accepted:
                    if not endings[task_id]:
                        status = getattr(client, kind).get_status(task_id=task_id)
                        endings[task_id] = str(status) if status.is_over else ""
                return all(endings.values())

            until(all_over)
    finally:
        server.kill()
        server.wait()
    starts = [tuple(line.split()) for line in (tmp_path / "starts").read_text().splitlines()]
    for number, (kind, task_id) in enumerate(accepted):
        runs = starts.count((kind, str(number)))
        if kind == "once":
            assert runs <= 1
            assert endings[task_id] in ("completed", "failed")
            assert runs == 1 or endings[task_id] == "failed"
        else:
            assert runs >= 1
            assert endings[task_id] == "completed"
    interrupted = sum(ending == "failed" for ending in endings.values())
    assert interrupted <= 8
