"""What the process asks of the system: memory that is reused, timers on time, enough open files.

glibc hands every large block back to the kernel when it is freed, and the kernel fills it with
zeros when it is wanted again: up to 1 ms for a request of 602 KB. With higher thresholds the
blocks are kept and used again; what is kept for nothing is given back once the server is idle.

Linux lets timers be 50 µs late so that it can wake for several at once. A batch that is cut 50 µs
late every 5 ms is a percent of throughput, so it is asked not to.

Every connection is an open file. Most systems begin with 1024 of them, for programs that wait with
``select``, and let a program that does not have many more: it only has to ask.

Source: ``mallopt(3)``, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD; ``prctl(2)``, PR_SET_TIMERSLACK;
``getrlimit(2)``, RLIMIT_NOFILE.
"""

import asyncio
import ctypes
import sys

from modelport.server.http import HttpServer

__all__ = ["allow_connections", "trim_when_idle", "tune"]

MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024  # the largest that glibc accepts
TRIM_THRESHOLD_BYTES = 256 * 1024 * 1024
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_PR_SET_TIMERSLACK = 29

IDLE_CHECK_S = 2.0

SPARE_FILES = 1024
"""Open files beside those of connections: models, uploads, stores, workers, shared memory."""


def tune() -> bool:
    """Keep large blocks for reuse, and timers of this thread and those it starts on time.

    Returns:
        Whether this system can.
    """
    library = _glibc()
    if library is None:
        return False
    library.mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    library.mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    library.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    return True


def allow_connections(wanted: int) -> int:
    """Have the system let this process open so many connections, and what else it opens.

    Returns:
        How many it may have: ``wanted``, or fewer where the system insists.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    files = wanted + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if resource.RLIM_INFINITY != soft < files:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
        except (OSError, ValueError):  # macOS has another limit below this one
            files = soft
    return min(wanted, files - min(SPARE_FILES, files // 2))


async def trim_when_idle(*servers: HttpServer) -> None:
    """Give free memory back whenever a busy time has ended. Runs until cancelled."""
    library = _glibc()
    if library is None:
        return
    seen_ns = max(server.last_sent_ns for server in servers)
    is_trimmed = True
    while True:
        await asyncio.sleep(IDLE_CHECK_S)
        last_ns = max(server.last_sent_ns for server in servers)
        if last_ns != seen_ns:
            seen_ns = last_ns
            is_trimmed = False
        elif not is_trimmed:
            # Takes a millisecond per some hundred MB: off the loop.
            await asyncio.to_thread(library.malloc_trim, 0)
            is_trimmed = True


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt, library.malloc_trim  # noqa: B018 - musl has neither
    except (OSError, AttributeError):
        return None
    return library
