"""What loading, serving and unloading leave behind: nothing.

The bounded form runs always; ``MODELPORT_SOAK=1`` runs 200 cycles and 100 000 requests.
"""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modelport.repository.options import ControlMode
from tests.runtimes.worker.conftest import CONFIG, PROCESS, Bench
from tests.served import clean_environment
from tests.waiting import until

pytestmark = pytest.mark.slow

IS_SOAK = bool(os.environ.get("MODELPORT_SOAK"))
CYCLES = {"": 200, PROCESS: 200 if IS_SOAK else 24}
REQUESTS = 100_000 if IS_SOAK else 10_000
KB_PER_CYCLE = 50
DOUBLES = """
def execute(self, requests):
    return [y(2 * x_of(request)) for request in requests]
"""

where = pytest.mark.parametrize("place", ["", PROCESS], ids=["thread", "process"])


def resident_kb() -> int:
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@where
def test_cycles_of_loading_and_unloading_leave_nothing(bench: Bench, place: str) -> None:
    bench.mode = ControlMode.EXPLICIT
    bench.write("m", DOUBLES, CONFIG + place)
    cycles = CYCLES[place]
    large = np.zeros(100_000, np.float32)

    async def cycle() -> None:
        await bench.engine.load("m")
        sink, _ = bench.submit("m", large)
        await sink.over
        await bench.engine.unload("m")
        await until(lambda: all(row.state != "UNLOADING" for row in bench.engine.index()))

    async def test() -> None:
        for _ in range(cycles // 2):
            await cycle()
        gc.collect()
        kb, fds = resident_kb(), descriptors()
        for _ in range(cycles // 2):
            await cycle()
        gc.collect()
        assert descriptors() <= fds
        # A page more or less for the allocator's own affairs.
        assert (resident_kb() - kb) / (cycles // 2) <= KB_PER_CYCLE

    before = set(os.listdir("/dev/shm"))
    bench.run(test, limit_s=300)
    assert set(os.listdir("/dev/shm")) <= before


@where
def test_many_requests_leave_nothing(bench: Bench, place: str) -> None:
    bench.write("m", DOUBLES, CONFIG + place)
    shapes = [np.zeros(size, np.float32) for size in (1, 10, 5_000, 50_000)]

    async def ask(count: int) -> None:
        for number in range(count):
            sink, _ = bench.submit("m", shapes[number % len(shapes) if number % 16 == 0 else 0])
            await sink.over

    async def test() -> None:
        await asyncio.gather(*(ask(REQUESTS // 32) for _ in range(16)))
        kb, fds = resident_kb(), descriptors()
        await asyncio.gather(*(ask(REQUESTS // 32) for _ in range(16)))
        assert resident_kb() - kb <= 4_000
        assert descriptors() <= fds

    bench.run(test, limit_s=300)


def test_workers_do_not_outlive_a_server_that_is_killed(bench: Bench) -> None:
    bench.write("m", DOUBLES)
    options = ["--http-port", "0", "--metrics-port", "off", "--grpc-port", "off"]
    server = subprocess.Popen(
        [sys.executable, "-m", "modelport", "serve", str(bench.directory), *options],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        while "is ready" not in server.stdout.readline():
            assert server.poll() is None
        worker = children_of(server.pid)
        assert len(worker) == 1
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.stdout.close()
    assert wait_for_end(worker[0])


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def wait_for_end(pid: int, limit_s: float = 5.0) -> bool:
    async def gone() -> None:
        async with asyncio.timeout(limit_s):
            await until(lambda: not Path(f"/proc/{pid}").exists())

    asyncio.run(gone())
    return True
