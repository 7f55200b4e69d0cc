"""Where files of requests lie while they are needed: private, counted, and gone in the end.

Each call gets a directory with a name that nobody can guess. Bytes are counted for each principal
and together, and refused before the disk is full; what a crash has left behind is deleted at the
next start.
"""

import os
import shutil
import tempfile
import threading
from collections import Counter
from functools import partial
from pathlib import Path

from modelport.errors import Overloaded
from modelport.services.files import Folder

__all__ = ["Spool"]

KEPT_FREE_BYTES = 512 << 20
"""Of the disk, for everybody else."""
CHECK_EVERY_BYTES = 64 << 20
"""Between two looks at the disk."""


class Spool:
    """Gives calls their directories. Safe to use from any thread.

    Args:
        root: Where they lie; made when the first one is needed.
        most_bytes: Of all together.
        most_principal_bytes: Of one principal, where principals are told apart.
    """

    def __init__(
        self, root: Path | None = None, *, most_bytes: int, most_principal_bytes: int
    ) -> None:
        self._root = root
        self._most = most_bytes
        self._most_principal = most_principal_bytes
        self._used = 0
        self._unchecked = CHECK_EVERY_BYTES
        self._used_by: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._place: Path | None = None

    def __repr__(self) -> str:
        return f"<Spool {self._used} of {self._most} bytes>"

    def folder(self, principal: str = "") -> Folder:
        """Give a call its directory."""
        return Folder(
            take=partial(self._take, principal),
            give_back=partial(self._give_back, principal),
            place=self._open,
        )

    def close(self) -> None:
        """Delete everything."""
        with self._lock:
            place, self._place = self._place, None
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)

    def _open(self) -> Path:
        with self._lock:
            if self._place is None:
                if self._root is not None:
                    self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
                    _sweep(self._root)
                prefix = f"calls-{os.getpid()}-"
                self._place = Path(tempfile.mkdtemp(prefix=prefix, dir=self._root))
            return self._place

    def _take(self, principal: str, size: int) -> None:
        with self._lock:
            if self._used + size > self._most:
                raise Overloaded(
                    f"the files of all requests together are over {self._most} bytes; try again "
                    "later, or raise --max-spool-size",
                    retry_after_s=5,
                )
            mine = self._used_by[principal] + size
            if principal and mine > self._most_principal:
                raise Overloaded(
                    f"your files together are over {self._most_principal} bytes; finish other "
                    "requests first",
                    retry_after_s=5,
                )
            self._used += size
            self._used_by[principal] = mine
            self._unchecked += size
            if self._unchecked < CHECK_EVERY_BYTES:
                return
            self._unchecked = 0
        if shutil.disk_usage(self._open()).free < KEPT_FREE_BYTES + size:
            self._give_back(principal, size)
            self._unchecked = CHECK_EVERY_BYTES
            raise Overloaded("there is no room for files now; try again later", retry_after_s=5)

    def _give_back(self, principal: str, size: int) -> None:
        with self._lock:
            self._used -= size
            self._used_by[principal] -= size
            if not self._used_by[principal]:
                del self._used_by[principal]


def _sweep(root: Path) -> None:
    """Delete what processes that are gone have left."""
    for each in root.glob("calls-*-*"):
        number = each.name.split("-")[1]
        if number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(each, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
