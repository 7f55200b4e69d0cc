"""From results to answers: media type, headers and bytes, decided once from the annotation."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, BinaryIO, get_args, get_origin
from urllib.parse import quote

import numpy as np
from msgspec import Struct
from pydantic import ConfigDict, TypeAdapter

from modelport.services.files import guess_type, last_component
from modelport.services.schema import Lenient, inlined
from modelport.services.values import (
    FileKind,
    ImageKind,
    TableKind,
    dump_json,
    dump_rows,
    kind_of,
    rewrite,
)
from modelport.validators import ContentType

__all__ = ["Encoded", "Part", "ResultKind", "without_app"]

SMALL_FILE_BYTES = 1 << 20
"""Files up to this are read at once; larger ones are sent piece by piece."""

HeaderRows = tuple[tuple[str, str], ...]

JSON_HEADERS: HeaderRows = (("Content-Type", "application/json"),)
TEXT_HEADERS: HeaderRows = (("Content-Type", "text/plain; charset=utf-8"),)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an answer with files: a file, or a value as JSON."""

    name: str
    content_type: str
    data: bytes
    filename: str = ""


class Encoded(Struct):
    """An answer, ready to be written.

    Attributes:
        headers: Its media type at least; shared by all answers of a kind.
        body: Its bytes.
        status: ``None`` for the usual one.
        file: What follows ``body``: open, positioned, and closed by whoever reads it.
        parts: In place of the body, several parts; its media type is then the writer's business.
        app: In place of all else, an ASGI application that answers by itself.
        is_text: Of an item of a stream, whether it was text or bytes and not made into JSON.
    """

    headers: HeaderRows
    body: bytes = b""
    status: int | None = None
    file: BinaryIO | None = None
    parts: Sequence[Part] = ()
    app: Any = None
    is_text: bool = False

    def __len__(self) -> int:
        """Bytes that it holds in memory."""
        return len(self.body)


class ResultKind:
    """How results of one annotation are written, and what the schema says of them.

    Attributes:
        schema: In the form of ``/schema.json``.
        media_type: Of a stream.
    """

    def __init__(self, schema: dict[str, Any], encode: Any, media_type: str = "") -> None:
        self.schema = schema
        self.encode = encode
        self.media_type = media_type

    @classmethod
    def of(cls, annotation: Any, is_stream: bool) -> "ResultKind":
        """Read an annotation."""
        declared = _content_type(annotation)
        kind = kind_of(annotation)
        schema = _schema(annotation, declared)
        if is_stream:
            media_type = declared or "text/event-stream; charset=utf-8"
            schema |= {"is_stream": True, "media_type": declared or "text/event-stream"}
            return cls(schema, _encode_item, media_type)
        if isinstance(kind, ImageKind):
            return cls(schema, _ImageWriter(kind))
        if isinstance(kind, FileKind):
            return cls(schema, _FileWriter(declared))
        if isinstance(kind, TableKind):
            return cls(schema, _TableWriter(kind))
        if _has_files(annotation):
            return cls(schema, _encode_parts)
        if schema.get("type") == "string":
            headers = (("Content-Type", declared),) if declared else TEXT_HEADERS
            return cls(schema, _TextWriter(headers))
        if declared:
            schema["media_type"] = declared
            return cls(schema, _TextWriter((("Content-Type", declared),)))
        return cls(schema, _encode_json)

    def encode_rows(self, result: "np.ndarray[Any, Any]") -> list[Encoded] | None:
        """Make an answer of each row of a result at once, if they are numbers and become JSON.

        Args:
            result: [rows, ...].
        """
        if self.encode is not _encode_json:
            return None
        texts = dump_rows(result)
        return None if texts is None else [Encoded(JSON_HEADERS, text) for text in texts]


def _encode_json(value: Any) -> Encoded:
    if _is_response(value):
        return _passed_through(value)
    return Encoded(JSON_HEADERS, dump_json(value))


def _encode_item(value: Any) -> Encoded:
    """Write an item of a stream: text and bytes as they are, anything else as JSON."""
    if isinstance(value, str):
        return Encoded((), value.encode(), is_text=True)
    if isinstance(value, bytes | bytearray | memoryview):
        return Encoded((), bytes(value), is_text=True)
    return Encoded((), dump_json(value))


class _TextWriter:
    def __init__(self, headers: HeaderRows) -> None:
        self._headers = headers

    def __call__(self, value: Any) -> Encoded:
        if isinstance(value, str):
            return Encoded(self._headers, value.encode())
        if isinstance(value, bytes | bytearray | memoryview):
            return Encoded(self._headers, bytes(value))
        return _encode_json(value)


class _ImageWriter:
    def __init__(self, kind: ImageKind) -> None:
        self._kind = kind

    def __call__(self, value: Any) -> Encoded:
        if isinstance(value, PurePath):
            return _FileWriter("")(value)
        if not hasattr(value, "save"):
            return _encode_json(value)
        media_type, data = self._kind.encode(value)
        return Encoded((("Content-Type", media_type),), data)


class _TableWriter:
    def __init__(self, kind: TableKind) -> None:
        self._kind = kind

    def __call__(self, value: Any) -> Encoded:
        if hasattr(value, "to_dict"):
            value = self._kind.plain(value.astype(object).where(value.notna(), None))
        return _encode_json(value)


class _FileWriter:
    def __init__(self, declared: str) -> None:
        self._declared = "" if "*" in declared else declared

    def __call__(self, value: Any) -> Encoded:
        if value is None or _is_response(value):
            return _encode_json(value)
        path = Path(value)
        # Opened here: the directory that it lies in may be gone when it is sent.
        file = path.open("rb")
        status = os.fstat(file.fileno())
        media_type = self._declared or guess_type(path.name)
        kind = "inline" if media_type.startswith("image/") else "attachment"
        tag = hashlib.blake2b(
            f"{status.st_mtime_ns}-{status.st_size}".encode(), digest_size=16
        ).hexdigest()
        headers = (
            ("Content-Type", media_type),
            ("Content-Disposition", f"{kind}; {_filename(path.name)}"),
            ("ETag", f'"{tag}"'),
            ("Accept-Ranges", "bytes"),
        )
        if status.st_size > SMALL_FILE_BYTES:
            return Encoded(headers, file=file)
        with file:
            return Encoded(headers, file.read())


def _encode_parts(value: Any) -> Encoded:
    """Write a result that has files in it, and maybe other values: a part for each."""
    if value is None or _is_response(value):
        return _encode_json(value)
    if isinstance(value, Mapping):
        named = [(str(name), each) for name, each in value.items()]
    else:
        named = [(str(at), each) for at, each in enumerate(value)]
    return Encoded((), parts=[_part(name, each) for name, each in named])


def _part(name: str, value: Any) -> Part:
    if isinstance(value, PurePath):
        path = Path(value)
        return Part(name, guess_type(path.name), path.read_bytes(), last_component(path.name))
    if hasattr(value, "save") and hasattr(value, "getpixel"):
        media_type, data = ImageKind().encode(value)
        return Part(name, media_type, data, f"{name}.{media_type.partition('/')[2]}")
    return Part(name, "application/json", dump_json(value))


def _is_response(value: Any) -> bool:
    return hasattr(value, "raw_headers") and hasattr(value, "status_code")


def _passed_through(value: Any) -> Encoded:
    """Take an answer of Starlette's as it is; one without a body is left to answer by itself."""
    whole = without_app(value) if value.background is None else None
    return Encoded((), app=value) if whole is None else whole


def without_app(value: Any) -> Encoded | None:
    """Write an answer of Starlette's without its help, if it has a body or is a file."""
    body = getattr(value, "body", None)
    if body is None:
        path = getattr(value, "path", None)
        if path is None:
            return None
        # Opened now: the directory of the call is gone when it is sent.
        encoded = _FileWriter("")(path)
        own = _headers_of(value)
        names = {name.lower() for name, _ in own}
        others = tuple(row for row in encoded.headers if row[0].lower() not in names)
        return Encoded((*own, *others), encoded.body, value.status_code, encoded.file)
    return Encoded(_headers_of(value), bytes(body), status=value.status_code)


def _headers_of(response: Any) -> HeaderRows:
    return tuple(
        (name.decode("latin-1"), text.decode("latin-1"))
        for name, text in response.raw_headers
        if name.lower() not in (b"content-length", b"transfer-encoding", b"connection")
    )


def _schema(annotation: Any, declared: str) -> dict[str, Any]:
    kind = kind_of(annotation)
    if kind is not None:
        said = dict(kind.schema())
        if declared and isinstance(kind, FileKind):
            said["media_type"] = declared
        return said
    if annotation is Any or _names_response(annotation):
        return {}
    # TypeAdapter refuses a configuration beside a model's own.
    for config in (ConfigDict(arbitrary_types_allowed=True), None):
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(rewrite(annotation), config=config)
            said = adapter.json_schema(mode="serialization", schema_generator=Lenient)
            return inlined(said)
        except Exception:
            continue
    return {}


def _names_response(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "raw_headers")


def _content_type(annotation: Any) -> str:
    if get_origin(annotation) is not Annotated:
        return ""
    found = [each for each in get_args(annotation)[1:] if isinstance(each, ContentType)]
    return found[0].content_type if found else ""


def _has_files(annotation: Any) -> bool:
    base = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    for each in get_args(base):
        kind = kind_of(each)
        if (kind is not None and kind.is_file) or _has_files(each):
            return True
    return False


def _filename(name: str) -> str:
    """Write a file name for ``Content-Disposition`` (RFC 6266)."""
    if name.isascii() and name.isprintable() and '"' not in name and "\\" not in name:
        return f'filename="{name}"'
    return f"filename*=utf-8''{quote(name)}"
