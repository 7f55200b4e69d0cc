"""Files of one call: what was sent for it, and a directory that is gone when it ends."""

import io
import mimetypes
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Folder", "Upload", "guess_type", "last_component"]


class Folder:
    """A private directory of one call, made when it is first asked for.

    Args:
        place: Says where it is made; by default in the system's place for temporary files.
        take: Called with bytes that are to be stored, before they are; raises to refuse them.
        give_back: Called with all of them when they are gone.
    """

    def __init__(
        self,
        *,
        place: Callable[[], Path] | None = None,
        take: Callable[[int], object] | None = None,
        give_back: Callable[[int], object] | None = None,
    ) -> None:
        self._place = place
        self._take = take
        self._give_back = give_back
        self._counted = 0
        self._path: Path | None = None
        self._promised: Path | None = None
        self._lock = threading.Lock()
        self._is_claimed = False
        self._is_closed = False

    @property
    def path(self) -> Path:
        """Of the directory; nobody else may read it."""
        with self._lock:
            if self._path is None:
                place = self._place() if self._place is not None else None
                self._path = Path(tempfile.mkdtemp(prefix="call-", dir=place))
            elif self._promised is not None:
                self._path.mkdir(mode=0o700, exist_ok=True)
            return self._path

    def promise(self) -> Path:
        """Say where ``path`` is or will be, for another process that makes it when it needs it."""
        with self._lock:
            if self._promised is None:
                place = self._place() if self._place is not None else Path(tempfile.gettempdir())
                self._promised = self._path or place / f"call-{secrets.token_hex(16)}"
                self._path = self._promised
            return self._promised

    def new_file(self, name: str) -> Path:
        """Give a path for a file; its name ends in the last component of ``name``."""
        return self.path / f"{secrets.token_hex(8)}-{last_component(name)}"

    def count(self, size_bytes: int) -> None:
        """Ask for room for what is to be kept.

        Raises:
            ModelportError: There is none.
        """
        if self._take is not None:
            self._take(size_bytes)
            self._counted += size_bytes

    def claim(self) -> None:
        """The call has begun: from here on it is the one to close this."""
        with self._lock:
            self._is_claimed = True

    def close(self) -> None:
        """Delete everything. Doing it again does nothing."""
        with self._lock:
            path, self._path = self._path, None
            self._is_closed = True
            counted, self._counted = self._counted, 0
        if counted and self._give_back is not None:
            self._give_back(counted)
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)

    def close_unclaimed(self) -> None:
        """Delete everything, unless the call has begun and will do so itself."""
        with self._lock:
            if self._is_claimed or self._is_closed:
                return
        self.close()


class Upload:
    """One file that was sent: in memory, or in the directory of its call.

    Attributes:
        filename: As the client said; only its last component is ever used.
        content_type: As the client said, else guessed from the name.
    """

    __slots__ = ("_data", "_folder", "_path", "content_type", "filename")

    def __init__(
        self,
        folder: Folder,
        *,
        filename: str = "",
        content_type: str = "",
        data: bytes | bytearray | memoryview | None = None,
        path: Path | None = None,
    ) -> None:
        self._folder = folder
        self.filename = filename
        self.content_type = content_type or guess_type(filename)
        self._data = data
        self._path = path

    def __repr__(self) -> str:
        return f"<Upload {self.filename!r} {self.content_type}>"

    @property
    def kept(self) -> bytes | bytearray | memoryview | Path:
        """Where it is: its bytes if they are in memory, else a path."""
        if self._path is not None:
            return self._path
        return self._data or b""

    def path(self) -> Path:
        """Give it as a file."""
        if self._path is None:
            name = self.filename or f"upload{mimetypes.guess_extension(self.content_type) or ''}"
            self._path = self._folder.new_file(name)
            self._path.write_bytes(self._data or b"")
        return self._path

    def open(self) -> Any:
        """Open it for reading."""
        return io.BytesIO(self._data) if self._data is not None else self.path().open("rb")

    def read(self) -> bytes:
        """Give all of it."""
        return bytes(self._data) if self._data is not None else self.path().read_bytes()


def guess_type(filename: str) -> str:
    """Guess a media type from a name."""
    return mimetypes.guess_type(filename)[0] or "application/octet-stream"


def last_component(name: str) -> str:
    r"""Give what stands behind the last slash of either kind, made harmless and short.

    >>> last_component("../../etc/pass\x00wd")
    'passwd'
    >>> last_component("C:\\photos\\cat.png")
    'cat.png'
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if char.isprintable()).strip()
    if kept in ("", ".", ".."):
        return "upload"
    # 255 bytes are what file systems take; the suffix is what has to hold.
    while len(kept.encode()) > 200:
        kept = kept[len(kept) // 4 + 1 :]
    return kept
