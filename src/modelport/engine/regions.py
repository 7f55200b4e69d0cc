"""Regions of POSIX shared memory that clients pass tensors in, by the names they registered.

Data is copied in and out with ``pread`` and ``pwrite`` instead of being mapped. A client that makes
its object shorter would kill the process that has it mapped (SIGBUS), and one that writes to it
while a model runs would change inputs that have been checked already. The copy of a megabyte takes
about 0.1 ms; what shared memory saves, the way through a socket, is saved all the same.

Only what clients make themselves can be registered: a key is one name in the directory of shared
memory, symbolic links are not followed, and nothing of the server's own has a name there: memory
that it shares with its workers is anonymous.

Source: Triton, "Shared-Memory Extension".
"""

import os
import re
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from modelport.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    RegionFailed,
    TooLarge,
)
from modelport.tensors import Array

__all__ = ["MOST_BYTES", "MOST_REGIONS", "Hold", "Regions"]

Buffer = bytes | bytearray | memoryview

MOST_REGIONS: Final = 1024
"""Each costs a file descriptor."""
MOST_BYTES: Final = 2**31 - 1
"""Of all inputs of one request; as much as one message may have."""
DIRECTORY: Final = Path("/dev/shm")
_RESERVED: Final = "triton_python_backend_shm_region_"
# One name, as shm_open(3) wants it; the slash in front may be left out.
_KEY: Final = re.compile(r"/?(?P<name>[^/\0]{1,254})")


class _Region:
    """A registered region.

    Attributes:
        users: Requests that hold it.
        is_registered: Whether it can still be found.
    """

    __slots__ = ("byte_size", "fd", "is_registered", "key", "name", "offset", "users")

    def __init__(self, name: str, key: str, offset: int, byte_size: int, fd: int) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.byte_size = byte_size
        self.fd = fd
        self.users = 0
        self.is_registered = True


class Hold:
    """Some regions, for as long as one request needs them.

    Reading and writing are safe on any thread, and block no longer than a copy takes.
    """

    def __init__(self, regions: "Regions", by_name: dict[str, _Region]) -> None:
        self._regions = regions
        self._by_name = by_name
        self._read_bytes = 0

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """Copy a part of a region; read-only.

        Raises:
            InvalidRequest: It is not inside the region.
            TooLarge: The request has read too much in all.
        """
        region = self._place(name, offset, byte_size)
        self._read_bytes += byte_size
        if self._read_bytes > MOST_BYTES:
            raise TooLarge(
                f"the inputs of the request in shared memory are larger than {MOST_BYTES} bytes "
                "together; send them in several requests"
            )
        # Not zeroed first, and on a boundary that suits whoever computes with it.
        copy: Array = np.empty(byte_size, np.uint8)
        target: memoryview = copy.data
        position = region.offset + offset
        while target:
            count = os.preadv(region.fd, [target], position)
            if not count:
                raise _shortened(name)
            target = target[count:]
            position += count
        return copy.data.toreadonly()

    def write(self, name: str, offset: int, byte_size: int, data: Buffer) -> None:
        """Copy data to the beginning of a part of a region.

        Raises:
            InvalidRequest: It is not inside the region, or the data does not fit into it.
        """
        region = self._place(name, offset, byte_size)
        source = memoryview(data).cast("B")
        position = region.offset + offset
        if os.fstat(region.fd).st_size < position + len(source):
            raise _shortened(name)
        while source:
            count = os.pwrite(region.fd, source, position)
            source = source[count:]
            position += count

    def check(self, name: str, offset: int, byte_size: int) -> None:
        """Refuse a part of a region that is not inside it.

        Raises:
            InvalidRequest: It is not.
        """
        self._place(name, offset, byte_size)

    def release(self) -> None:
        """Need them no longer. Idempotent."""
        by_name, self._by_name = self._by_name, {}
        self._regions.release(by_name.values())

    def _place(self, name: str, offset: int, byte_size: int) -> _Region:
        region = self._by_name[name]
        if offset > region.byte_size:
            raise InvalidRequest(
                f"Invalid offset for shared memory region: '{name}'. Got {offset}, and the region "
                f"has {region.byte_size} bytes."
            )
        if offset + byte_size > region.byte_size:
            raise InvalidRequest(
                f"Invalid offset + byte size for shared memory region: '{name}'. Got {offset} + "
                f"{byte_size}, and the region has {region.byte_size} bytes."
            )
        return region


class Regions:
    """What is registered. Safe to use from any thread.

    Args:
        directory: Where objects of shared memory lie.
    """

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory
        self._region_by_name: dict[str, _Region] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Regions {sorted(self._region_by_name)}>"

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make a part of an object of shared memory known by a name.

        Args:
            name: For requests.
            key: Of the object, as for ``shm_open``.
            offset: Where the region begins in the object, 0 or more.
            byte_size: At least 1.

        Raises:
            Conflict: The name is taken.
            InvalidRequest: The key is reserved.
            RegionFailed: There is no such object, or it is shorter than that.
            Overloaded: Too many are registered.
        """
        with self._lock:
            if name in self._region_by_name:
                raise Conflict(
                    f"shared memory region '{name}' already in manager; unregister it first"
                )
            if len(self._region_by_name) >= MOST_REGIONS:
                raise Overloaded(
                    f"{MOST_REGIONS} shared memory regions are registered already; unregister "
                    "those that are not needed"
                )
            fd = self._open(name, key)
            try:
                self._check(fd, key, offset, byte_size)
            except BaseException:
                os.close(fd)
                raise
            self._region_by_name[name] = _Region(name, key, offset, byte_size, fd)

    def unregister(self, name: str | None = None) -> None:
        """Forget a region, known or not, or all; requests that hold it finish first."""
        with self._lock:
            names = list(self._region_by_name) if name is None else [name]
            for each in names:
                region = self._region_by_name.pop(each, None)
                if region is not None:
                    region.is_registered = False
                    self._close_if_unused(region)

    def status(self, name: str | None = None) -> list[dict[str, str | int]]:
        """Say what is registered, or what one region is.

        Raises:
            NotFound: There is no such region.
        """
        with self._lock:
            regions = [r for r in self._region_by_name.values() if name in (None, r.name)]
        if name is not None and not regions:
            raise NotFound(f"Unable to find system shared memory region: '{name}'")
        return [
            {"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.byte_size}
            for r in regions
        ]

    def hold(self, names: Iterable[str]) -> Hold:
        """Keep some regions for a request, until its ``release``.

        Raises:
            NotFound: One of them is not registered.
        """
        by_name: dict[str, _Region] = {}
        with self._lock:
            for name in names:
                region = self._region_by_name.get(name)
                if region is None:
                    raise NotFound(
                        f"Unable to find shared memory region: '{name}'; register it first"
                    )
                by_name[name] = region
            for region in by_name.values():
                region.users += 1
        return Hold(self, by_name)

    def release(self, regions: Iterable[_Region]) -> None:
        """A request needs these no longer."""
        with self._lock:
            for region in regions:
                region.users -= 1
                self._close_if_unused(region)

    def _close_if_unused(self, region: _Region) -> None:
        if not region.is_registered and not region.users:
            os.close(region.fd)

    def _open(self, name: str, key: str) -> int:
        match = _KEY.fullmatch(key)
        if match is None or match["name"] in (".", ".."):
            raise RegionFailed(
                f"Unable to open shared memory region: '{key[:300]}'. A key is the name of one "
                "object of shared memory: a slash, and then no other."
            )
        if match["name"].startswith(_RESERVED):
            raise InvalidRequest(
                f"cannot register shared memory region '{name}' with key '{key}': the prefix "
                f"'{_RESERVED}' is reserved"
            )
        # A FIFO would be waited for, but for O_NONBLOCK; anything that is no file is refused below.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self._directory / match["name"], flags)
        except OSError as exc:
            raise RegionFailed(
                f"Unable to open shared memory region: '{key}'. {exc.strerror}; the client makes "
                "the object with shm_open, on the machine of the server."
            ) from exc

    def _check(self, fd: int, key: str, offset: int, byte_size: int) -> None:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise RegionFailed(
                f"Unable to open shared memory region: '{key}'. It is no object of shared memory."
            )
        if not byte_size or offset + byte_size > found.st_size:
            raise RegionFailed(
                f"Invalid shared memory region: '{key}'. It has {found.st_size} bytes; asked for "
                f"were {byte_size} from byte {offset} on, and at least one is needed."
            )


def _shortened(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid shared memory region: '{name}'. Its object has become shorter than it was when "
        "it was registered."
    )
