"""Bodies with files, and a disk that can be stopped: a pipe that nobody reads."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from modelport.errors import ModelportError, Overloaded
from modelport.protocols.bentoml.upload import MOST_UNWRITTEN_BYTES, BodyReader
from modelport.services.declaration import api
from modelport.services.endpoint import Endpoint
from modelport.services.files import Folder, Upload
from modelport.testing.memory import MemoryExchange
from modelport.wire.bentoml import BodyKind

PIECE = bytes(65_536)


class Sample:
    @api
    def size(self, file: Path, /) -> int:
        return file.stat().st_size


class Served:
    """What a reader asks of the endpoint that it reads for."""

    def __init__(self, folder: Folder) -> None:
        declared = cast(Any, Sample.size).__modelport_api__
        self.method = Endpoint(declared, "Sample")
        self.new_upload = Upload
        self.new_folder = lambda principal: folder


class Exchange(MemoryExchange):
    """One whose body comes piece by piece."""

    def __init__(self) -> None:
        super().__init__("POST", "/size", headers={"content-type": "application/octet-stream"})
        self.is_held = False

    def receive(self, receiver: Any) -> None:
        self.receiver = receiver

    def hold_body(self) -> None:
        self.is_held = True

    def release_body(self) -> None:
        self.is_held = False


class Reading:
    """A body on its way."""

    def __init__(self, folder: Folder) -> None:
        self.exchange = Exchange()
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        reader = BodyReader(
            self.exchange, cast(Any, Served(folder)), BodyKind.JSON, self._bound, self._failed
        )
        reader.begin()

    def _bound(self, exchange: Any, values: dict[str, Any], folder: Any) -> None:
        self.outcome.set_result(values)

    def _failed(self, exchange: Any, error: ModelportError) -> None:
        self.outcome.set_result(error)

    def send(self, count: int) -> None:
        for _ in range(count):
            self.exchange.receiver.data(PIECE)


async def gone(directory: Path) -> None:
    for _ in range(10_000):
        if not await asyncio.to_thread(directory.exists):
            return
        await asyncio.sleep(0.001)
    pytest.fail("the directory is still there")


def test_a_client_waits_while_the_disk_is_behind(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    folder = Folder(place=lambda: tmp_path)
    folder.new_file = lambda name: pipe  # type: ignore[method-assign]  # a disk to be stopped
    read: list[bytes] = []

    async def run() -> None:
        reading = Reading(folder)
        # The first ones are kept in memory; the thread then waits for the reader of the pipe.
        count = MOST_UNWRITTEN_BYTES // len(PIECE) + 40
        reading.send(count)
        assert reading.exchange.is_held
        reading.exchange.receiver.complete()
        await asyncio.sleep(0)
        assert not reading.outcome.done()
        reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        reader.start()
        values = await asyncio.wait_for(reading.outcome, 10)
        reader.join()
        assert values == {"file": pipe}
        assert len(read[0]) == count * len(PIECE)
        assert not reading.exchange.is_held

    asyncio.run(run())


def test_a_disk_that_takes_no_more_is_told_and_everything_is_gone(tmp_path: Path) -> None:
    folder = Folder(place=lambda: tmp_path)
    directory = folder.path

    async def run() -> None:
        folder.new_file = lambda name: tmp_path / "missing" / "file"  # type: ignore[method-assign]
        reading = Reading(folder)
        reading.send(20)
        reading.exchange.receiver.complete()
        assert isinstance(await asyncio.wait_for(reading.outcome, 10), Overloaded)
        await gone(directory)

    asyncio.run(run())


@pytest.mark.parametrize("count", [1, 40])
def test_a_client_that_leaves_takes_its_files_along(tmp_path: Path, count: int) -> None:
    folder = Folder(place=lambda: tmp_path)
    directory = folder.path

    async def run() -> None:
        reading = Reading(folder)
        reading.send(count)
        assert reading.exchange.on_disconnect is not None
        reading.exchange.on_disconnect()
        await gone(directory)
        assert not reading.outcome.done()

    asyncio.run(run())
