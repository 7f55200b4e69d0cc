"""Tasks over HTTP, with real processes: what was accepted is never lost."""

import base64
import contextlib
import hmac
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from modelport.client.bentoml import SyncHTTPClient, TaskStatus
from tests.served import Served, clean_environment, serving
from tests.waiting import eventually

PATIENCE_S = 120
"""For what takes starts and deaths of several servers."""

SERVICE = """
import asyncio
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
    def looking(self, context: modelport.Context) -> str:
        note("looking", "begun")
        while not context.is_cancelled:
            time.sleep(0.01)
        note("looking", "stopped")
        return "stopped"

    @modelport.task
    async def waiting(self) -> str:
        note("waiting", "begun")
        try:
            await asyncio.sleep(60)
        finally:
            note("waiting", "stopped")

    @modelport.task
    def fail(self, text: str) -> str:
        raise modelport.exceptions.InvalidArgument(text)

    @modelport.task
    def size(self, file: Path) -> int:
        return len(file.read_bytes())

    @modelport.task
    def copy(self, file: Path, context: modelport.Context) -> Path:
        context.response.headers["X-Copied"] = "yes"
        context.response.status_code = 201
        path = Path(context.temp_dir) / "copy.bin"
        path.write_bytes(file.read_bytes())
        return path

    @modelport.task
    def long(self, texts: list[str]) -> list[str]:
        return texts[::-1]

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


@pytest.mark.parametrize("endpoint", ["looking", "waiting"])
def test_cancelling_stops_what_runs(served: Served, tmp_path: Path, endpoint: str) -> None:
    _, task = ask(served, "POST", f"/{endpoint}/submit", {})
    eventually(lambda: started(tmp_path)[f"{endpoint} begun"] == 1, PATIENCE_S)
    status, said = ask(served, "PUT", f"/{endpoint}/cancel?task_id={task['task_id']}")
    assert (status, said) == (200, {"task_id": task["task_id"], "status": "canceled"})
    eventually(lambda: started(tmp_path)[f"{endpoint} stopped"] == 1, 5)
    found = over(served, task["task_id"], endpoint)
    assert (found["status"], found["reason"]) == ("canceled", "canceled while it was running")
    status, said = ask(served, "GET", f"/{endpoint}/get?task_id={task['task_id']}")
    assert status == 400
    assert "canceled while it was running" in said["error"]


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


def test_large_requests_and_results_are_files_meanwhile(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(9_000_000))
    texts = ["a" * 1000] * 2000
    with SyncHTTPClient(served.url) as client:
        copy: Any = client.copy  # type: ignore[attr-defined]
        task = copy.submit(path)
        assert Path(task.wait(10)).read_bytes() == path.read_bytes()
        long: Any = client.long  # type: ignore[attr-defined]
        assert long.submit(texts).wait(10) == texts
    with urllib.request.urlopen(f"{served.url}/copy/get?task_id={task.id}") as answer:
        assert (answer.status, answer.headers["X-Copied"]) == (201, "yes")
        assert "copy.bin" in answer.headers["Content-Disposition"]
        assert answer.read() == path.read_bytes()
    sizes = sorted(file.stat().st_size for file in (tmp_path / "data" / "tasks").iterdir())
    assert len(sizes) == 4
    assert sizes[2] == 9_000_000
    status, again = ask(served, "POST", f"/copy/retry?task_id={task.id}")
    assert status == 200
    assert over(served, again["task_id"], "copy")["status"] == "completed"


def test_nothing_is_accepted_while_the_disk_is_broken(served: Served, tmp_path: Path) -> None:
    ask(served, "POST", "/once/submit", {"number": 1})
    folder = tmp_path / "data" / "tasks"
    folder.write_text("in the way")
    body = {"texts": ["a" * 1000] * 2000}
    status, said = ask(served, "POST", "/long/submit", body)
    assert status == 503
    assert "the server cannot write to its disk now, so nothing was accepted" in said["error"]
    folder.unlink()
    assert ask(served, "GET", "/long/list") == (200, [])
    assert ask(served, "POST", "/long/submit", body)[0] == 200


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


def test_one_key_does_not_fill_the_queue_for_the_others(serve: Serve) -> None:
    options = ("--task-queue-size-per-key", "1", "--task-concurrency", "1")
    with serve("--api-key", "ann", "--api-key", "bob", *options) as served:
        ann, bob = ({"Authorization": f"Bearer {key}"} for key in ("ann", "bob"))
        slow = {"number": 1, "seconds": 1.0}
        answers = [ask(served, "POST", "/once/submit", slow, **ann) for _ in range(4)]
        assert {status for status, _ in answers} == {200, 429}
        assert "of your tasks wait already" in answers[-1][1]["error"]
        assert ask(served, "POST", "/once/submit", slow, **bob)[0] == 200


def test_list_leaves_out_what_is_in_another_state(served: Served) -> None:
    done = ask(served, "POST", "/once/submit", {"number": 1})[1]["task_id"]
    for _ in range(100):
        if ask(served, "GET", f"/once/status?task_id={done}")[1]["status"] == "completed":
            break
        time.sleep(0.05)
    ask(served, "POST", "/once/submit", {"number": 2, "seconds": 5.0})

    def listed(query: str) -> list[str]:
        status, rows = ask(served, "GET", f"/once/list?{query}")
        assert status == 200
        return [row["status"] for row in rows]

    assert listed("") == ["in_progress", "completed"]
    assert listed("status=completed") == ["completed"]
    assert listed("status=in_progress") == ["in_progress"]
    assert listed("status=failed&status=completed") == ["completed"]
    assert listed("status=canceled") == []
    status, said = ask(served, "GET", "/once/list?status=done")
    assert status == 400
    assert "'status' is one of in_progress, completed, failed, canceled" in said["error"]


def test_task_that_was_not_started_in_time_expires(serve: Serve) -> None:
    with serve("--task-concurrency", "1", "--task-lease-secs", "1") as served:
        ask(served, "POST", "/once/submit", {"number": 1, "seconds": 6})
        _, late = ask(served, "POST", "/once/submit?expires_in=1", {"number": 2})
        found = over(served, late["task_id"], "once")
        assert (found["status"], found["reason"]) == (
            "failed",
            "expired: it was not started in time",
        )
        status, said = ask(served, "POST", "/once/submit?expires_in=soon", {"number": 2})
        assert status == 400
        assert "'expires_in' is a whole number" in said["error"]
        for state, count in (("running", 1), ("failed", 1), ("queued", 0)):
            line = f'modelport_tasks{{state="{state}",task="Trainer.once"}} {count}\n'
            eventually(partial(is_told, served, line), PATIENCE_S)


def is_told(served: Served, line: str) -> bool:
    with urllib.request.urlopen(f"{served.url}/metrics") as page:
        return line in page.read().decode()


def test_owners_see_their_own_tasks_only(serve: Serve, tmp_path: Path) -> None:
    with serve("--api-key", "ann", "--api-key", "bob", "--admin-key", "root") as served:
        ann, bob, root = ({"Authorization": f"Bearer {key}"} for key in ("ann", "bob", "root"))
        _, task = ask(served, "POST", "/once/submit", {"number": 1}, Idempotency_Key="k", **ann)
        verbs = (("GET", "status"), ("GET", "get"), ("PUT", "cancel"), ("POST", "retry"))
        for other in (bob, root):
            for method, verb in verbs:
                path = f"/once/{verb}?task_id={task['task_id']}"
                assert ask(served, method, path, **other) == (404, {"error": "task_id not found"})
            before = f"/once/list?before={task['task_id']}"
            assert ask(served, "GET", before, **other)[0] == 404
            assert ask(served, "GET", "/once/list", **other) == (200, [])
        assert len(ask(served, "GET", "/once/list", **ann)[1]) == 1
        assert ask(served, "GET", f"/once/status?task_id={task['task_id']}")[0] == 401
        # The same idempotency key of somebody else, with another request, is another task.
        status, own = ask(served, "POST", "/once/submit", {"number": 2}, Idempotency_Key="k", **bob)
        assert (status, own["task_id"] != task["task_id"]) == (200, True)
        assert b"ann" not in (tmp_path / "data" / "tasks.sqlite").read_bytes()


class Hook:
    """A receiver of webhooks, which refuses the first so many."""

    def __init__(self, refusals: int = 0) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append(({name.lower(): each for name, each in self.headers.items()}, body))
                self.send_response(500 if len(hook.got) <= refusals else 204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return quote(f"http://127.0.0.1:{self._server.server_port}/hook?a=b", safe="")

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


WEBHOOKS = ("--task-webhook-allow", "127.0.0.1", "--task-webhook-secret", "whsec_c2VjcmV0")


@pytest.mark.slow
def test_webhook_is_told_and_told_again_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    with contextlib.closing(Hook(refusals=1)) as hook:
        with serve(*WEBHOOKS) as served:
            path = f"/once/submit?webhook={hook.url}"
            task_id = ask(served, "POST", path, {"number": 4})[1]["task_id"]
            eventually(lambda: len(hook.got) == 1, 10)
            eventually(lambda: any("again in 5 s" in line for line in served.lines), 10)
            served.process.kill()
            served.process.wait()
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "tasks.sqlite")) as database:
            # As if the five seconds were over.
            assert database.execute("UPDATE notices SET due_s = 0").rowcount == 1
            database.commit()
        with serve(*WEBHOOKS):
            eventually(lambda: len(hook.got) == 2, 20)
    (first, body), (second, again) = hook.got
    assert body == again
    said = json.loads(body)
    assert said["type"] == "task.completed"
    assert said["data"]["task"] == "Trainer.once"
    assert (said["data"]["task_id"], said["data"]["status"]) == (task_id, "completed")
    for headers in (first, second):
        assert headers["webhook-id"] == f"msg_{task_id}"
        signed = f"msg_{task_id}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.digest(b"secret", signed, "sha256")
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_webhook_that_is_not_allowed_is_refused_before_anything_is_kept(served: Served) -> None:
    for url in ("http://127.0.0.1/", "https://example.com/"):
        status, said = ask(served, "POST", f"/once/submit?webhook={quote(url)}", {"number": 1})
        assert status == 403
        assert "--task-webhook-allow" in said["error"]
    assert ask(served, "GET", "/once/list") == (200, [])


def start(
    service: Path, data: Path, port: int, *options: str, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "modelport", "serve", f"{service}:Trainer"]
    command += ["--data-dir", str(data), "--http-port", str(port)]
    command += ["--grpc-port", "off", "--metrics-port", "off", *options]
    return subprocess.Popen(
        command,
        env={**clean_environment(), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Submitters:
    """Threads that submit tasks until all numbers are used up, each again until it is accepted.

    Attributes:
        accepted: Kind and number by the id of the task.
    """

    def __init__(self, port: int, count: int) -> None:
        self.accepted: dict[str, tuple[str, int]] = {}
        self._numbers = iter(range(count))
        self._port = port
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(8)]
        for thread in self._threads:
            thread.start()

    def have(self, count: int) -> bool:
        return len(self.accepted) >= count

    def join(self) -> None:
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection):
            # Each number goes to one thread: the next of a range is one step of the interpreter.
            for number in self._numbers:
                kind = "once" if number % 2 else "again"
                self.accepted[self._submit(connection, kind, number)] = (kind, number)

    def _submit(self, connection: http.client.HTTPConnection, kind: str, number: int) -> str:
        body = json.dumps({"number": number, "seconds": 0.01})
        headers = {"Idempotency-Key": f"number {number}"}
        while True:
            try:
                connection.request("POST", f"/{kind}/submit", body, headers)
                answer = connection.getresponse()
                said = json.load(answer)
                assert answer.status == 200, said
                return str(said["task_id"])
            except (OSError, http.client.HTTPException, ValueError):
                connection.close()
                time.sleep(0.02)


ENDS_ARE_COUNTED = """
CREATE TABLE ends (id TEXT, state TEXT);
CREATE TRIGGER count_ends AFTER UPDATE OF state ON tasks
WHEN NEW.state NOT IN ('queued', 'running')
BEGIN INSERT INTO ends VALUES (NEW.id, NEW.state); END;
"""


@pytest.mark.slow
def test_every_accepted_task_ends_once_although_servers_are_killed(
    service: Path, tmp_path: Path, unused_port: int
) -> None:
    """Killed twice while tasks come, run and wait, and started again on the same folder."""
    count = int(os.environ.get("MODELPORT_TEST_TASKS", "500"))
    data = tmp_path / "data"
    environment = {"STARTS": str(tmp_path / "starts")}

    def begin() -> "subprocess.Popen[bytes]":
        return start(service, data, unused_port, environment=environment)

    server = begin()
    try:
        with SyncHTTPClient(f"http://127.0.0.1:{unused_port}"):
            pass  # It is ready.
        with contextlib.closing(sqlite3.connect(data / "tasks.sqlite")) as database:
            database.executescript(ENDS_ARE_COUNTED)
        submitters = Submitters(unused_port, count)
        for kill_at in (count // 3, count * 2 // 3):
            eventually(partial(submitters.have, kill_at), PATIENCE_S)
            server.kill()
            server.wait()
            server = begin()
        submitters.join()

        def all_over() -> bool:
            with contextlib.closing(sqlite3.connect(data / "tasks.sqlite")) as database:
                query = "SELECT count(*) FROM tasks WHERE state IN ('queued', 'running')"
                (left,) = database.execute(query).fetchone()
                return bool(left == 0)

        eventually(all_over, PATIENCE_S)
        endings = {}
        with SyncHTTPClient(f"http://127.0.0.1:{unused_port}") as client:
            for task_id, (kind, _) in submitters.accepted.items():
                endings[task_id] = str(getattr(client, kind).get_status(task_id=task_id))
    finally:
        server.kill()
        server.wait()
    with contextlib.closing(sqlite3.connect(data / "tasks.sqlite")) as database:
        ends = dict(database.execute("SELECT id, count(*) FROM ends GROUP BY id").fetchall())
        tasks = dict(database.execute("SELECT id, reason FROM tasks").fetchall())
    starts = started(tmp_path)
    # One task for each number, although some were submitted again after the server had gone.
    assert len(submitters.accepted) == count
    assert ends == dict.fromkeys(tasks, 1)
    assert set(submitters.accepted) == set(tasks)
    interrupted = 0
    for task_id, (kind, number) in submitters.accepted.items():
        runs = starts[f"{kind} {number}"]
        if kind == "again":
            assert (runs >= 1, endings[task_id]) == (True, "completed")
        elif endings[task_id] == "failed":
            interrupted += 1
            assert runs <= 1
            assert "it is not run again" in tasks[task_id]
        else:
            assert (runs, endings[task_id]) == (1, "completed")
    # Those that were running, and no others.
    assert interrupted <= 2 * 8


@pytest.mark.slow
def test_two_servers_share_one_queue(serve: Serve, tmp_path: Path) -> None:
    options = ("--task-concurrency", "1", "--task-lease-secs", "3")
    with serve(*options) as here:
        _, once = ask(here, "POST", "/once/submit", {"number": 1, "seconds": 30})
        _, again = ask(here, "POST", "/again/submit", {"number": 2, "seconds": 3})
        _, patient = ask(here, "POST", "/patient/submit", {"steps": 10_000})
        eventually(lambda: started(tmp_path) == {"once 1": 1, "again 2": 1}, PATIENCE_S)
        with serve(*options) as there:
            # One is busy, so the other does it; both tell of all.
            _, third = ask(here, "POST", "/again/submit", {"number": 3})
            assert over(there, third["task_id"], "again")["status"] == "completed"
            assert ask(here, "GET", f"/again/get?task_id={third['task_id']}") == (200, 6)
            assert started(tmp_path)["again 2"] == 1
            # Cancelled by the one that does not run it.
            path = f"/patient/cancel?task_id={patient['task_id']}"
            status = ask(there, "PUT", path)
            assert status == (200, {"task_id": patient["task_id"], "status": "canceled"})
            here.process.kill()
            here.process.wait()
            failed = over(there, once["task_id"], "once")
            assert failed["status"] == "failed"
            assert "the server that ran it ended" in failed["reason"]
            assert over(there, again["task_id"], "again")["status"] == "completed"
    assert started(tmp_path) == {"once 1": 1, "again 2": 2, "again 3": 1}


@pytest.mark.slow
def test_server_that_hangs_loses_its_tasks_when_its_lease_runs_out(
    serve: Serve, tmp_path: Path
) -> None:
    with serve("--task-lease-secs", "1") as here:
        _, once = ask(here, "POST", "/once/submit", {"number": 1, "seconds": 2})
        _, again = ask(here, "POST", "/again/submit", {"number": 2, "seconds": 2})
        eventually(lambda: len(started(tmp_path)) == 2, PATIENCE_S)
        with serve("--task-lease-secs", "1") as there:
            suspend(here, tmp_path / "data" / "tasks.sqlite")
            try:
                assert over(there, once["task_id"], "once")["status"] == "failed"
                eventually(lambda: started(tmp_path)["again 2"] == 2, PATIENCE_S)
            finally:
                here.process.send_signal(signal.SIGCONT)
            # What it has done meanwhile does not count.
            assert over(there, again["task_id"], "again")["status"] == "completed"
            eventually(
                lambda: any("another server's by now" in line for line in here.lines), PATIENCE_S
            )
            assert over(here, once["task_id"], "once")["status"] == "failed"
    assert started(tmp_path) == {"once 1": 1, "again 2": 2}


def suspend(served: Served, database: Path) -> None:
    """Stop a process, but not in the middle of a commit, which would hold up everybody else."""
    for _ in range(100):
        served.process.send_signal(signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(database, timeout=0.2)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                served.process.send_signal(signal.SIGCONT)
                time.sleep(0.01)
            else:
                return
    raise AssertionError("it is always in the middle of a commit")


def started(folder: Path) -> Counter[str]:
    """How often each task was started, by its kind and number."""
    file = folder / "starts"
    return Counter(file.read_text().splitlines() if file.exists() else ())
