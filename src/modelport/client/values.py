"""Python values as a service wants them.

Frameworks are known by what their objects can do; none is imported.
"""

import datetime
import enum
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

from modelport.wire.bentoml import EndpointSchema, Parameter

__all__ = ["File", "bind", "file_of", "plain"]

BLOCK_BYTES = 1 << 20


class File(NamedTuple):
    """A file on its way to a server.

    Attributes:
        content: Whole, or ``None`` for a file on disk.
        path: Of a file on disk.
        url: Where the server shall fetch it itself; "" otherwise.
        size: Bytes.
    """

    name: str
    content_type: str
    size: int
    content: bytes | None = None
    path: Path | None = None
    url: str = ""

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, read as they are asked for."""
        if self.path is None:
            yield self.content or b""
            return
        with self.path.open("rb") as opened:
            left = self.size
            # Exactly as many as were announced, even if it grows meanwhile.
            while left and (block := opened.read(min(BLOCK_BYTES, left))):
                left -= len(block)
                yield block


def bind(
    endpoint: EndpointSchema, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Pair arguments with parameters.

    Raises:
        TypeError: If one is missing, unknown, or given twice; with the names of those there are.
    """
    name, parameters = endpoint.name, endpoint.parameters
    if endpoint.is_root:
        if kwargs or len(args) > 1:
            raise TypeError(f"{name}() takes one positional argument, which becomes the body")
        if not args and endpoint.required:
            raise TypeError(f"{name}() is missing its argument")
        return {"root": args[0]} if args else {}
    if len(args) > len(parameters):
        raise TypeError(
            f"{name}() takes {len(parameters)} arguments by position and was given {len(args)}"
        )
    bound = kwargs
    if args:
        positional = dict(zip(parameters, args, strict=False))
        if twice := positional.keys() & kwargs.keys():
            raise TypeError(f"{name}() got argument '{min(twice)}' twice")
        bound = {**positional, **kwargs}
    if not endpoint.takes_more and (unknown := kwargs.keys() - parameters.keys()):
        takes = ", ".join(parameters) or "none"
        raise TypeError(f"{name}() got an unexpected argument '{min(unknown)}'; it takes {takes}")
    if missing := endpoint.required - bound.keys():
        wanted = ", ".join(each for each in parameters if each in missing)
        raise TypeError(f"{name}() is missing {wanted}")
    return bound


def plain(value: Any, schema: Mapping[str, Any]) -> Any:
    """Turn a value into what JSON has.

    Raises:
        TypeError: If that cannot be done; files have to be files, for example.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if schema.get("type") == "dataframe" and hasattr(value, "to_dict"):
        is_columns = schema.get("orient") == "columns"
        return plain(value.to_dict(orient="list" if is_columns else "records"), {})
    if isinstance(value, enum.Enum):
        return plain(value.value, {})
    if isinstance(value, Mapping):
        return {str(key): plain(item, {}) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, {}) for item in value]
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise TypeError(
                "bytes that are no UTF-8 cannot be sent as JSON; a file or a root input can be any"
            ) from None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, PurePath) or _is_number_or_id(value):
        return str(value)
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses

        # Not asdict, which copies what it does not know.
        return {
            entry.name: plain(getattr(value, entry.name), {}) for entry in dataclasses.fields(value)
        }
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "to_dict"):
        return plain(value.to_dict(orient="records"), {})
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "tolist"):
        return plain(value.tolist(), {})
    raise TypeError(f"a {type(value).__name__} cannot be sent as JSON")


def _is_number_or_id(value: Any) -> bool:
    import decimal  # both are slow to import, and whoever has such a value has imported them
    import uuid

    return isinstance(value, decimal.Decimal | uuid.UUID)


def file_of(value: Any, parameter: Parameter) -> File:
    """Make a file of what was given for one.

    Takes a path, a URL, bytes, an open file, a picture of PIL, or a tuple of name, content and
    perhaps content type.

    Raises:
        TypeError: For anything else.
        OSError: If the file cannot be read.
    """
    items = parameter.schema.get("items")
    schema = items if isinstance(items, Mapping) else parameter.schema
    wanted = str(schema.get("content_type") or "")
    if isinstance(value, File):
        return value
    if isinstance(value, tuple) and len(value) in (2, 3):
        name, content = str(value[0]), value[1]
        found = file_of(content, parameter)
        kind = str(value[2]) if len(value) == 3 else _content_type(name, wanted)
        return found._replace(name=PurePath(name).name, content_type=kind)
    if isinstance(value, str) and urlsplit(value).scheme in ("http", "https"):
        return File("", "", len(value.encode()), value.encode(), url=value)
    if isinstance(value, str | os.PathLike):
        path = Path(os.fspath(value))
        return File(path.name, _content_type(path.name, wanted), path.stat().st_size, path=path)
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        return File(parameter.name, _content_type("", wanted), len(content), content)
    if hasattr(value, "read"):
        return _opened(value, parameter.name, wanted)
    if hasattr(value, "save") and hasattr(value, "getpixel"):
        return _picture(value, parameter.name)
    raise TypeError(
        f"argument '{parameter.name}' is a file: give a path, a URL, bytes, an open file or a PIL "
        f"image, not {type(value).__name__}"
    )


def _opened(file: BinaryIO, name: str, wanted: str) -> File:
    read: Any = file.read()
    content: bytes = read.encode() if isinstance(read, str) else read
    called = getattr(file, "name", None)
    name = PurePath(called).name if isinstance(called, str) else name
    return File(name, _content_type(name, wanted), len(content), content)


def _picture(image: Any, name: str) -> File:
    # As it was stored, if it was; PNG keeps every pixel.
    kind = image.format or "PNG"
    import io

    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    content = buffer.getvalue()
    called = PurePath(getattr(image, "filename", "") or f"{name}.{kind.lower()}").name
    return File(called, f"image/{kind.lower()}", len(content), content)


_CONTENT_TYPES = {
    # What the world calls them; the tables of systems differ.
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".webp": "image/webp",
    ".jsonl": "application/jsonl",
}


def _content_type(name: str, wanted: str) -> str:
    if wanted and not any(sign in wanted for sign in "*?["):
        return wanted
    known = _CONTENT_TYPES.get(PurePath(name).suffix.lower())
    if known:
        return known
    import mimetypes

    return mimetypes.guess_type(name)[0] or "application/octet-stream"
