import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from modelport.errors import Forbidden, InvalidRequest, ModelportError
from modelport.server.webhooks import Webhooks
from modelport.stores.base import Notice, Task, TaskState

TASK = Task(
    id="7f",
    owner="ann",
    endpoint="Trainer.train",
    state=TaskState.FAILED,
    finished_s=1_700_000_000.5,
    reason="no such leaf",
)
paths: list[str] = []


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        paths.append(self.path)
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    paths.clear()
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def told(webhooks: Webhooks, url: str) -> str:
    return asyncio.run(webhooks.deliver(Notice(1, url, TASK, 1)))


def webhooks(*allowed: str, address: str = "127.0.0.1") -> Webhooks:
    return Webhooks(allowed, ["one", "two"], lambda: 1.7e9, resolve=lambda host, port: [address])


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, ""),
        (204, ""),
        (302, "it answered with status 302"),
        (404, "it answered with status 404"),
        (500, "it answered with status 500"),
    ],
)
def test_only_a_success_is_a_delivery(port: int, status: int, said: str) -> None:
    """A redirect is none, and nobody follows it."""
    url = f"http://127.0.0.1:{port}/{status}"
    assert told(webhooks("127.0.0.1"), url) == said
    assert paths == [f"/{status}"]


def test_every_secret_signs(port: int) -> None:
    hooks = webhooks("127.0.0.1")
    signatures = hooks._headers(Notice(1, "", TASK, 1), b"{}")["webhook-signature"].split()
    assert [each.partition(",")[0] for each in signatures] == ["v1", "v1"]
    assert len(set(signatures)) == 2


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://other.example/", Forbidden),
        ("http://hook.example:81/", Forbidden),
        ("ftp://hook.example/", InvalidRequest),
        ("http://user:password@hook.example/", InvalidRequest),
        ("nonsense", InvalidRequest),
        ("http://hook.example/" + "a" * 3000, InvalidRequest),
    ],
)
def test_what_may_not_be_called_is_said_at_once(url: str, error: type[ModelportError]) -> None:
    with pytest.raises(error):
        webhooks("hook.example:80").check(url)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1"])
def test_listed_name_that_leads_into_a_private_network_is_not_called(address: str) -> None:
    hooks = webhooks("hook.example", address=address)
    hooks.check("http://hook.example/")
    assert "private network" in told(hooks, "http://hook.example/")


def test_nobody_there_is_said(port: int) -> None:
    assert told(webhooks("127.0.0.1"), "http://127.0.0.1:1/200") == "ConnectionRefusedError"
