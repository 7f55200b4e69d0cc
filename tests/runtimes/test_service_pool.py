"""The server's end of a service with workers, without a server."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from modelport.errors import InvalidArguments, LoadFailed, Unavailable
from modelport.messages import Arguments, Request
from modelport.runtimes.base import Batch
from modelport.runtimes.service_pool import ServiceSetup, ServiceWorkers
from modelport.services.distant import SENT, Sent
from modelport.testing.fakes import FakeHost

SERVICE = """
import os
import modelport

DEVICES = os.environ.get("CUDA_VISIBLE_DEVICES", "")

@modelport.service
class Small:
    def __init__(self):
        {init}

    @modelport.api
    def devices(self, name: str) -> str:
        return f"{{name}} sees {{DEVICES}}"

    def __is_ready__(self):
        return False
"""


class Work:
    """A request, and what became of it."""

    rows = 1
    is_cancelled = False

    def __init__(self, request: Request) -> None:
        self.request = request

    def send(self, response: Any, *, final: bool) -> None:
        raise AssertionError("a function answers with its outcome")

    async def drained(self) -> None:
        """Nothing waits."""

    def reschedule(self) -> None:
        """Nothing comes again."""


def workers_of(directory: Path, init: str, **options: Any) -> ServiceWorkers:
    file = directory / "small_service.py"
    file.write_text(SERVICE.format(init=init))
    setup = ServiceSetup("Small", str(file), 0, threads=None, streams=4, **options)
    return ServiceWorkers(setup, 1, grace_s=0)


def test_a_call_goes_to_a_worker_and_comes_back(tmp_path: Path) -> None:
    async def run() -> None:
        environment = {"CUDA_VISIBLE_DEVICES": "1,3"}
        workers = workers_of(tmp_path, "pass", environment=environment)
        await workers.open(FakeHost())
        try:
            endpoint = workers.endpoint("devices", 4)
            changes: list[int] = []
            endpoint.attach(lambda: changes.append(endpoint.capacity))
            assert endpoint.capacity == 4
            assert endpoint.is_shared

            async def outcome(body: bytes) -> Any:
                values = {SENT: Sent("json", body)}
                outcomes = await endpoint.execute(Batch([Work(Request(Arguments(values)))], 1))
                assert outcomes is not None
                return outcomes[0]

            answer = await outcome(json.dumps({"name": "it"}).encode())
            assert answer.value.body == b"it sees 1,3"
            assert dict(answer.value.headers)["Content-Type"].startswith("text/plain")
            refused = await outcome(b"{}")
            assert isinstance(refused, InvalidArguments)
            assert refused.detail[0]["loc"] == ["name"]
            assert not await workers.says("__is_ready__")
            assert await workers.says("__is_alive__")
        finally:
            await workers.close()
        assert endpoint.capacity == 0
        assert not await workers.says("__is_ready__")

    asyncio.run(run())


def test_an_object_that_cannot_be_made_is_told_with_its_reason(tmp_path: Path) -> None:
    async def run() -> None:
        workers = workers_of(tmp_path, 'raise ValueError("no weights")')
        with pytest.raises(LoadFailed, match="'Small' could not be started: ValueError: no weigh"):
            await workers.open(FakeHost())
        await workers.close()

    asyncio.run(run())


def test_a_worker_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    async def run() -> None:
        workers = workers_of(tmp_path, "pass", hang_timeout_s=0.4)
        await workers.open(FakeHost())
        try:
            endpoint = workers.endpoint("devices", 4)
            changes = asyncio.Queue[int]()
            endpoint.attach(lambda: changes.put_nowait(endpoint.capacity))
            ((_, worker),) = workers.members
            os.kill(getattr(worker, "pid"), signal.SIGSTOP)  # noqa: B009
            sent = {SENT: Sent("json", b'{"name": "it"}')}
            with pytest.raises(Unavailable, match=r"had not been heard of for 0.4 s"):
                await endpoint.execute(Batch([Work(Request(Arguments(sent)))], 1))
            async with asyncio.timeout(30):
                while await changes.get() != 4:
                    pass
            outcomes = await endpoint.execute(Batch([Work(Request(Arguments(sent)))], 1))
            assert outcomes is not None
        finally:
            await workers.close()

    asyncio.run(run())
