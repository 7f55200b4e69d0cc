"""The machine under the benchmark: its cores, its limits, what a process uses of it."""

import os
import platform
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_REPORTED_PACKAGES = ("modelport", "uvicorn", "uvloop", "httptools", "numpy")


class CannotKeepAwakeError(Exception):
    """The cores cannot be kept from sleeping; the text says why."""


_LATENCY_DEVICE = "/dev/cpu_dma_latency"


def may_be_kept_awake() -> bool:
    """Whether the system lets this user keep cores from sleeping."""
    return os.access(_LATENCY_DEVICE, os.W_OK)


@contextmanager
def kept_awake() -> Iterator[None]:
    """Keep idle cores from sleeping, for every process on this machine.

    A core of a virtual machine that sleeps takes 50 to 150 µs to come back, several times in one
    round trip. That is the machine's doing and depends on its mood.

    Source: Linux, "PM Quality Of Service Interface", ``/dev/cpu_dma_latency``.

    Raises:
        CannotKeepAwakeError: Where the system does not offer it, or not to this user.
    """
    try:
        device = os.open(_LATENCY_DEVICE, os.O_WRONLY)
    except OSError as error:
        raise CannotKeepAwakeError(
            f"cannot keep the cores awake: {error}; run as root on Linux, or with --no-keep-awake"
        ) from error
    try:
        os.write(device, struct.pack("i", 0))
        yield
    finally:
        os.close(device)


def free_port() -> int:
    """Give a port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def resident_bytes(pid: int) -> int:
    """Give the resident memory of a process together with its descendants."""
    return sum(_own_resident_bytes(member) for member in _family(pid))


def cpu_seconds(pid: int) -> float:
    """Give the processor time, user and system, that a process and its descendants have used."""
    return sum(_own_cpu_seconds(member) for member in _family(pid))


def busy_seconds() -> float:
    """Give the processor time that everybody on this machine has used, over all cores."""
    user, nice, system, _idle, _wait, *interrupts = (
        int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / _TICKS_PER_S


def raise_open_files_limit() -> int:
    """Allow this process and its children as many open files as the system lets them have.

    The workloads with 1 000 connections need about twice as many descriptors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def server_and_client_cores() -> tuple[int, int] | None:
    """Give two different cores that this process may use, or None on a single core."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


def description() -> dict[str, str]:
    """Describe machine and versions, as they belong beside every number."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _REPORTED_PACKAGES},
    }


def _own_resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _own_cpu_seconds(pid: int) -> float:
    try:
        # The command's name stands in parentheses and may hold blanks: count after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _family(pid: int) -> list[int]:
    members = [pid]
    for member in members:
        members.extend(_children(member))
    return members


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.extend(int(child) for child in listing.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
