"""Bodies that are too large for a database: a file each, in one folder beside it.

A file is written and flushed to the disk before the row that names it, and deleted after the row:
so a row never names a file that is not whole, and a crash leaves at the worst a file that no row
names. Names begin with the process that made them, which tells those apart that have been left from
those whose row is still to come.
"""

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from modelport.stores.base import unwritable, unwritable_by

__all__ = ["BodyFiles"]

log = logging.getLogger("modelport.stores")


class BodyFiles:
    """The folder of one process; several processes may share it. Safe to use from any thread.

    Args:
        folder: Made when it is needed, readable for this user alone.
        worker: Names this process, in hexadecimal digits.
        kept_free_bytes: Of the disk, for everybody else.
    """

    def __init__(self, folder: Path, worker: str, kept_free_bytes: int) -> None:
        self._folder = folder
        self._worker = worker
        self._kept_free = kept_free_bytes

    def __repr__(self) -> str:
        return f"<BodyFiles {self._folder.name}>"

    def check_room(self, size: int = 0) -> None:
        """See that there is room for so many bytes.

        Raises:
            Unavailable: There is none.
        """
        if shutil.disk_usage(self._folder.parent).free < self._kept_free + size:
            raise unwritable(is_full=True)

    def new(self) -> Path:
        """Give a name for a file.

        Raises:
            Unavailable: The folder cannot be made.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise unwritable_by(exc) from exc
        return self._folder / f"{self._worker}-{secrets.token_hex(16)}"

    def path(self, name: str) -> Path:
        """Where the file with this name lies."""
        return self._folder / name

    def write(self, body: bytes) -> Path:
        """Write a file; it is on disk when this returns."""
        path = self.new()
        try:
            path.write_bytes(body)
            self.flush(path)
        except OSError:
            self.remove([path.name])
            raise
        return path

    def flush(self, path: Path) -> None:
        """Have a file, and its name, on disk."""
        path.chmod(0o600)
        for each in (path, self._folder):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def another_name(self, name: str) -> Path:
        """Give a file a second name of its own."""
        path = self.new()
        try:
            os.link(self.path(name), path)
        except OSError:
            # Not every file system knows links.
            shutil.copyfile(self.path(name), path)
        return path

    def remove(self, names: Iterable[str]) -> None:
        """Delete files that no row names; those that are gone already do not matter."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                try:
                    self.path(name).unlink()
                except OSError as exc:
                    log.warning("the body %s could not be deleted: %s", name, exc)

    def of_others(self, living: Collection[str]) -> list[str]:
        """List the files of processes that are none of these."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return [name for name in names if name.partition("-")[0] not in living]
