"""What the kernel tells of this process and its machine, as far as it tells it.

Linux only, apart from processor time; elsewhere a value is absent, and so is its metric. In a
container ``/proc/stat`` and ``/proc/meminfo`` are still those of the whole machine.

Source: ``proc(5)``.
"""

import os
import re
import time
from collections.abc import Callable

from msgspec import Struct

from modelport.clock import Clock, SystemClock

__all__ = ["Machine", "Reading", "processor_ticks"]

LEAST_INTERVAL_NS = 1_000_000_000
"""Shorter intervals are a few ticks of the kernel's clock, so mostly noise."""


class Reading(Struct, frozen=True, kw_only=True):
    """One look; ``None`` is what cannot be known here.

    Attributes:
        uptime_s: Since the ``Machine`` was made.
        started_s: When the process was started, since the epoch.
        cpu_s: Processor time of the process.
        resident_bytes: Of the process, in RAM.
        open_files: Of the process, sockets included.
        max_files: How many it may have.
        machine_cpu_utilization: From 0 to 1, over all processors, since the look before.
        machine_memory_bytes: All there is.
        machine_memory_used_bytes: What a program could not get; caches do not count.
    """

    uptime_s: float
    started_s: float | None
    cpu_s: float
    resident_bytes: int | None
    open_files: int | None
    max_files: int | None
    machine_cpu_utilization: float | None
    machine_memory_bytes: int | None
    machine_memory_used_bytes: int | None


class Machine:
    """Reads ``/proc``, and remembers the look before.

    Args:
        clock: Decides when enough time has passed for another look at the processors.
        read: Gives the text of a file under ``/proc``, "" if there is none.
    """

    def __init__(
        self, clock: Clock | None = None, read: Callable[[str], str] | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._read = read or _read_proc
        self._made_ns = self._looked_ns = self._clock.now_ns()
        self._ticks = processor_ticks(self._read("stat"))
        self._utilization: float | None = None

    def read(self) -> Reading:
        """Look now. Takes about a tenth of a millisecond; longer with thousands of open files."""
        stat = self._read("stat")
        memory = self._read("meminfo")
        total = _number(r"^MemTotal:\s+(\d+) kB", memory)
        available = _number(r"^MemAvailable:\s+(\d+) kB", memory)
        pages = _number(r"^\d+ (\d+)", self._read("self/statm"))
        return Reading(
            uptime_s=(self._clock.now_ns() - self._made_ns) / 1e9,
            started_s=_started_s(stat, self._read("self/stat")),
            cpu_s=time.process_time(),
            resident_bytes=None if pages is None else pages * os.sysconf("SC_PAGE_SIZE"),
            open_files=_open_files(),
            max_files=_number(r"^Max open files\s+(\d+)", self._read("self/limits")),
            machine_cpu_utilization=self._look_at_processors(stat),
            machine_memory_bytes=None if total is None else total * 1024,
            machine_memory_used_bytes=(
                None if total is None or available is None else (total - available) * 1024
            ),
        )

    def _look_at_processors(self, stat: str) -> float | None:
        now_ns = self._clock.now_ns()
        ticks = processor_ticks(stat)
        if self._ticks is None or ticks is None:
            return None
        if self._utilization is None or now_ns - self._looked_ns >= LEAST_INTERVAL_NS:
            busy, total = ticks[0] - self._ticks[0], ticks[1] - self._ticks[1]
            # Not one tick yet: nothing was seen to be busy. The kernel may also count iowait down.
            self._utilization = min(1.0, max(0.0, busy / total)) if total > 0 else 0.0
            self._ticks = ticks
            self._looked_ns = now_ns
        return self._utilization


def processor_ticks(stat: str) -> tuple[int, int] | None:
    """Give the busy and all ticks of all processors from ``/proc/stat``.

    >>> processor_ticks("cpu  70 0 20 100 5 3 2 0 9 0")
    (95, 200)
    """
    fields = stat.partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    # user nice system idle iowait irq softirq steal; the guests' ticks after these are in user.
    ticks = [int(field) for field in fields[1:9]]
    total = sum(ticks)
    return total - ticks[3] - ticks[4], total


def _started_s(stat: str, own_stat: str) -> float | None:
    booted = _number(r"^btime (\d+)", stat)
    # The name in brackets may hold anything, blanks and brackets too.
    fields = own_stat.rpartition(")")[2].split()
    if booted is None or len(fields) < 20:
        return None
    return booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _open_files() -> int | None:
    try:
        # One of them is the folder itself, open while it is listed.
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return None


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return None if found is None else int(found[1])


def _read_proc(name: str) -> str:
    try:
        with open(f"/proc/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
