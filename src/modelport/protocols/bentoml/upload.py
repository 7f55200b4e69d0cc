"""Bodies that are not one JSON object of arguments: forms, files, bare text.

They are read as they come. A small file stays in memory; one that grows goes to the directory of
its call, so a body of any size needs a bounded amount of memory. Fields that are no files are
bounded together.

Files are written on a thread. The kernel takes 64 KiB into its cache in some 20 µs, but makes
whoever writes wait for tens of milliseconds, now and then for seconds, when the disk is behind;
on the event loop all other callers would wait with it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from modelport.errors import InvalidArguments, ModelportError, Overloaded, TooLarge
from modelport.protocols.base import Buffer, Exchange
from modelport.protocols.bentoml.ports import ServedEndpoint
from modelport.wire import bentoml
from modelport.wire.bentoml import BodyKind
from modelport.wire.multipart import MultipartReader, PartBegun, PartData

__all__ = ["BodyReader"]

log = logging.getLogger("modelport.services")

SMALL_FILE_BYTES = 1 << 20
"""Files up to this are kept in memory."""
MOST_FIELD_BYTES = 64 << 20
"""Of all that is no file, together."""
LONGEST_URL = 4096
MOST_UNWRITTEN_BYTES = 4 << 20
"""Of one body that wait for the disk; above this its client waits."""

Bound = Callable[[Exchange, dict[str, Any], Any], None]
Failed = Callable[[Exchange, ModelportError], None]


class BodyReader:
    """Reads one body and gives the bound arguments on.

    Args:
        exchange: Whose body it is.
        endpoint: That is called.
        kind: Of the body.
        bound: Called with the arguments and the directory of the call, which is then its own.
        failed: Called with what is wrong; the directory is gone by then.
    """

    def __init__(
        self,
        exchange: Exchange,
        endpoint: ServedEndpoint,
        kind: BodyKind,
        bound: Bound,
        failed: Failed,
    ) -> None:
        self._exchange = exchange
        self._endpoint = endpoint
        self._kind = kind
        self._bound = bound
        self._failed = failed
        self._folder = endpoint.new_folder(exchange.principal)
        self._values: dict[str, list[Any]] = {}
        self._form: MultipartReader | None = None
        self._name = ""
        self._part: _File | bytearray | None = None
        self._kept_bytes = 0
        self._is_over = False
        self._has_links = False
        self._disk = _Disk(exchange)

    def begin(self) -> None:
        """Ask for the body.

        Raises:
            InvalidRequest: It is a multipart body without a boundary.
        """
        exchange = self._exchange
        content_type = exchange.headers.get("content-type", "")
        method = self._endpoint.method
        if self._kind is BodyKind.MULTIPART:
            self._form = MultipartReader(content_type)
        elif method.is_root and method.root_kind == "file":
            self._part = _File(self._folder, self._disk, "", content_type.partition(";")[0].strip())
        else:
            self._part = bytearray()
        exchange.on_disconnect = self._drop
        exchange.receive(self)

    # Called as the body comes.

    def data(self, piece: Buffer) -> None:
        """Take a piece.

        Raises:
            ModelportError: It is malformed, or too much. The directory is gone then.
        """
        if self._is_over:
            return
        try:
            if self._form is not None:
                self._read_form(piece)
            else:
                self._keep(piece)
        except BaseException:
            self._drop()
            raise

    def complete(self) -> None:
        """It has come whole: bind it when it is on the disk."""
        if self._is_over:
            return
        try:
            if self._form is not None:
                self._form.end()
            bind = self._binder()
        except ModelportError as exc:
            self._fail(exc)
            return
        self._disk.finish(lambda: self._written(bind))

    def _written(self, bind: Callable[[], dict[str, Any]]) -> None:
        if self._is_over:
            return
        self._exchange.on_disconnect = None
        if self._disk.error is not None:
            self._fail(self._disk.error)
            return
        if self._kept_bytes > SMALL_FILE_BYTES or self._has_links:
            self._bind_beside_loop(bind)
            return
        try:
            values = bind()
        except ModelportError as exc:
            self._fail(exc)
            return
        self._is_over = True
        self._bound(self._exchange, values, self._folder)

    def _fail(self, error: ModelportError) -> None:
        self._drop()
        self._failed(self._exchange, error)

    def _drop(self) -> None:
        self._is_over = True
        self._part = None
        self._disk.drop(self._folder.close)

    def _bind_beside_loop(self, bind: Callable[[], dict[str, Any]]) -> None:
        exchange = self._exchange
        gone = False

        def left() -> None:
            nonlocal gone
            gone = True

        def done(future: "asyncio.Future[dict[str, Any]]") -> None:
            exchange.on_disconnect = None
            try:
                values = future.result()
            except ModelportError as exc:
                self._fail(exc)
                return
            except BaseException:
                self._drop()
                exchange.abort()
                raise
            if gone:
                self._drop()
                return
            self._is_over = True
            self._bound(exchange, values, self._folder)

        exchange.on_disconnect = left
        asyncio.get_running_loop().run_in_executor(None, bind).add_done_callback(done)

    # Forms.

    def _read_form(self, piece: Buffer) -> None:
        assert self._form is not None
        for event in self._form.feed(piece):
            if isinstance(event, PartBegun):
                self._begin_part(event)
            elif isinstance(event, PartData):
                self._keep(event.data)
            else:
                self._end_part()

    def _begin_part(self, part: PartBegun) -> None:
        self._name = part.name
        is_file = part.filename is not None
        if is_file and (part.name in self._endpoint.method.file_fields):
            name = part.filename or ""
            self._part = _File(self._folder, self._disk, name, part.content_type)
        else:
            self._part = bytearray()

    def _keep(self, piece: Buffer) -> None:
        part = self._part
        if isinstance(part, _File):
            self._kept_bytes += part.write(piece)
            return
        assert part is not None
        self._kept_bytes += len(piece)
        if self._kept_bytes > MOST_FIELD_BYTES:
            raise TooLarge(
                f"the fields that are no files are over {MOST_FIELD_BYTES >> 20} MB together"
            )
        part += piece

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if isinstance(part, _File):
            self._values.setdefault(self._name, []).append(part.upload(self._endpoint.new_upload))
        elif part is not None:
            self._keep_field(self._name, part.decode(errors="replace"))

    def _keep_field(self, name: str, text: str) -> None:
        values = self._values.setdefault(name, [])
        is_list_of_files = self._endpoint.method.file_fields.get(name)
        if is_list_of_files is None:
            values.append(bentoml.form_value(text))
        elif not (is_list_of_files and text.strip() == bentoml.NO_FILES):
            values.append(self._linked(text))

    def _linked(self, text: str) -> Any:
        """What a text stands for where a file should be: the file behind a URL."""
        url = text.strip().strip("\"'")
        if not url or url == "null":
            return None
        if not url.startswith(("http://", "https://")):
            raise _no_file(self._name)
        self._has_links = True
        return _Link(url[:LONGEST_URL])

    # Binding.

    def _binder(self) -> Callable[[], dict[str, Any]]:
        endpoint = self._endpoint
        method = endpoint.method
        is_form = self._kind is BodyKind.URLENCODED
        if is_form and isinstance(self._part, bytearray) and self._part.lstrip()[:1] == b"{":
            # curl -d '{...}' says that this is a form.
            is_form, self._kind = False, BodyKind.JSON
        if is_form and not method.is_root:
            assert isinstance(self._part, bytearray)
            for name, texts in bentoml.read_urlencoded(self._part).items():
                self._name = name
                for text in texts:
                    self._keep_field(name, text)
        if self._form is None and (method.is_root or self._kind is BodyKind.JSON):
            return self._bare_binder()
        values = {
            name: each if self._is_list(name, each) else each[-1]
            for name, each in self._values.items()
        }
        values = {
            name: each
            for name, each in values.items()
            if each is not None or name not in method.file_fields
        }
        return lambda: method.bind_values(self._fetched(values))

    def _bare_binder(self) -> Callable[[], dict[str, Any]]:
        method = self._endpoint.method
        part = self._part
        if isinstance(part, _File):
            link = self._root_link(part)
            if link is not None:
                return lambda: method.bind_root(self._fetch(link))
            upload = part.upload(self._endpoint.new_upload)
            return lambda: method.bind_root(upload)
        assert part is not None
        body = bytes(part)
        if not method.is_root or method.root_kind == "json":
            return lambda: method.bind_json(body)
        if method.root_kind == "bytes":
            return lambda: method.bind_root(body)
        try:
            text = body.decode()
        except UnicodeDecodeError as exc:
            raise InvalidArguments(
                "1 validation error for Input",
                [{"type": "string_unicode", "loc": [], "msg": f"not UTF-8: {exc.reason}"}],
            ) from None
        return lambda: method.bind_root(text)

    def _root_link(self, part: "_File") -> "_Link | None":
        """A client that was given a URL for a root file sends it as if it were JSON."""
        start = part.head(LONGEST_URL)
        is_json = "json" in self._exchange.headers.get("content-type", "")
        if is_json and start.startswith((b"http://", b"https://")) and len(start) < LONGEST_URL:
            self._has_links = True
            return _Link(start.decode(errors="replace").strip())
        return None

    def _is_list(self, name: str, values: list[Any]) -> bool:
        is_list_of_files = self._endpoint.method.file_fields.get(name)
        return is_list_of_files if is_list_of_files is not None else len(values) > 1

    def _fetched(self, values: dict[str, Any]) -> dict[str, Any]:
        return {name: self._resolved(each) for name, each in values.items()}

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, _Link):
            return self._fetch(value)
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        return value

    def _fetch(self, link: "_Link") -> Any:
        return self._endpoint.fetch(link.url, self._folder)


class _Link:
    """A URL in place of a file."""

    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url


class _Disk:
    """Writes what came of one body, on a thread and in its order; the client waits if it is behind.

    Attributes:
        error: Why no more can be written.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._steps: list[Callable[[], object]] = []
        self._unwritten_bytes = 0
        self._files: list[Any] = []
        self._is_busy = False
        self._then: Callable[[], object] | None = None
        self.error: ModelportError | None = None

    @property
    def is_used(self) -> bool:
        """Whether anything was to be written."""
        return self._is_busy or bool(self._files)

    def open(self, path: Any) -> "_OnDisk":
        """Begin a file."""
        file = _OnDisk(path)
        self._files.append(file)
        self._put(file.open, 0)
        return file

    def write(self, file: "_OnDisk", piece: bytes) -> None:
        """Append to it.

        Raises:
            ModelportError: The disk took no more.
        """
        if self.error is not None:
            raise self.error
        self._put(lambda: file.write(piece), len(piece))
        if self._unwritten_bytes > MOST_UNWRITTEN_BYTES:
            self._exchange.hold_body()

    def close(self, file: "_OnDisk") -> None:
        """End it."""
        self._put(file.close, 0)

    def finish(self, then: Callable[[], object]) -> None:
        """Call ``then`` on the loop when all is written, or cannot be."""
        if self._is_busy:
            self._then = then
        else:
            then()

    def drop(self, then: Callable[[], object]) -> None:
        """Write no more, and call ``then`` where it holds up nobody."""
        self._steps.clear()
        self._then = None
        if not self.is_used:
            then()
            return
        self._put_all([*(file.close for file in self._files), then])

    def _put(self, step: Callable[[], object], size: int) -> None:
        self._unwritten_bytes += size
        self._put_all([step])

    def _put_all(self, steps: list[Callable[[], object]]) -> None:
        self._steps += steps
        if not self._is_busy:
            self._go_on()

    def _go_on(self) -> None:
        steps, self._steps = self._steps, []
        self._is_busy = True
        # What comes meanwhile is written together: the faster it comes, the fewer the hops.
        self._unwritten_bytes = 0
        future = asyncio.get_running_loop().run_in_executor(None, _do_all, steps)
        future.add_done_callback(self._done)

    def _done(self, future: "asyncio.Future[None]") -> None:
        self._is_busy = False
        if future.cancelled():
            return
        failure = future.exception()
        if failure is not None and self.error is None:
            log.error("a file that was sent could not be written: %s", failure)
            self.error = Overloaded("there is no room for files now; try again later")
        self._exchange.release_body()
        if self._steps:
            self._go_on()
        elif self._then is not None:
            then, self._then = self._then, None
            then()


def _do_all(steps: list[Callable[[], object]]) -> None:
    for step in steps:
        step()


class _OnDisk:
    """A file that is being written; used on one thread at a time."""

    def __init__(self, path: Any) -> None:
        self.path = path
        self._file: Any = None

    def open(self) -> None:
        self._file = self.path.open("wb", buffering=0)

    def write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _File:
    """A file that is coming: in memory at first, in the directory of its call when it grows."""

    def __init__(self, folder: Any, disk: _Disk, filename: str, content_type: str) -> None:
        self._folder = folder
        self._disk = disk
        self._filename = filename
        self._content_type = content_type
        self._data = bytearray()
        self._file: _OnDisk | None = None

    def write(self, piece: Buffer) -> int:
        """Take a piece; gives how many bytes of memory it needs."""
        self._folder.count(len(piece))
        if self._file is not None:
            self._disk.write(self._file, bytes(piece))
            return 0
        self._data += piece
        if len(self._data) <= SMALL_FILE_BYTES:
            return len(piece)
        self._file = self._disk.open(self._folder.new_file(self._filename or "upload"))
        self._disk.write(self._file, bytes(self._data))
        self._data = bytearray()
        return 0

    def head(self, most: int) -> bytes:
        """Give the beginning, if it is in memory."""
        return bytes(self._data[:most])

    def upload(self, new_upload: Callable[..., Any]) -> Any:
        """It has come whole: make an upload of it."""
        if self._file is not None:
            self._disk.close(self._file)
        return new_upload(
            self._folder,
            filename=self._filename,
            content_type=self._content_type,
            data=None if self._file is not None else self._data,
            path=self._file.path if self._file is not None else None,
        )


def _no_file(name: str) -> InvalidArguments:
    return InvalidArguments(
        "1 validation error for Input",
        [{"type": "path_type", "loc": [name], "msg": "Invalid file type"}],
    )
