"""Python values as a service wants them, and what it answers as Python values.

Frameworks are known by what their objects can do; one is imported only when a result is to become
an object of it.
"""

import contextlib
import dataclasses
import datetime
import decimal
import enum
import io
import json
import mimetypes
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np

from modelport.exceptions import BentoMLException
from modelport.wire.bentoml import EndpointSchema, JsonItems, Parameter, TextItems

__all__ = ["File", "bind", "file_of", "items_of", "plain", "result_of"]

BLOCK_BYTES = 1 << 20
LONGEST_NAME = 128
"""Of a result's file; the end of a longer one, with its suffix."""


@dataclasses.dataclass(frozen=True, slots=True)
class File:
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
        return bytes(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID | PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
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
        return dataclasses.replace(found, name=PurePath(name).name, content_type=kind)
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
    return known or mimetypes.guess_type(name)[0] or "application/octet-stream"


def result_of(
    schema: Mapping[str, Any], headers: Mapping[str, str], body: bytes, folder: Callable[[], Path]
) -> Any:
    """Turn an answer into what the endpoint returns.

    Args:
        schema: Of the output.
        headers: Of the answer.
        body: Of the answer.
        folder: Makes the place for files; not called without one.

    Raises:
        ValueError: If it is not what the schema says.
    """
    kind = schema.get("type")
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        return _parts(schema, headers["content-type"], body, folder)
    if kind == "file":
        if body == b"null" and content_type == "application/json":
            return None
        if schema.get("pil"):
            return _image(body)
        return _file(headers, body, folder)
    if kind == "string" and content_type != "application/json":
        return body if schema.get("format") == "binary" else body.decode()
    if not body:
        return None
    try:
        # Not json.loads, which looks for encodings that nobody sends.
        value = _JSON.decode(body.decode())
    except RecursionError:
        raise ValueError("it is JSON too deep to be read") from None
    except ValueError:
        # BentoML sends an Optional[str] as bare text and calls it JSON.
        if content_type == "application/json" and kind in (
            "tensor",
            "dataframe",
            "object",
            "array",
        ):
            raise
        return body.decode()
    if kind == "tensor":
        return _tensor(value, schema)
    if kind == "dataframe":
        return _dataframe(value)
    return value


def items_of(
    schema: Mapping[str, Any], headers: Mapping[str, str]
) -> "TextItems | JsonItems | BinaryItems | TextRecords":
    """What cuts a stream into the items of an endpoint."""
    if headers.get("content-type", "").startswith("application/x-ndjson"):
        return TextRecords()
    if schema.get("type") != "string":
        return JsonItems()
    return BinaryItems() if schema.get("format") == "binary" else TextItems()


class TextRecords:
    """Pieces of text, each in a record of its own; what is no text is the failure of the stream."""

    def __init__(self) -> None:
        self._records = JsonItems()

    def feed(self, data: bytes) -> Iterator[str]:
        """Give those that have come whole.

        Raises:
            BentoMLException: The stream has failed.
        """
        for record in self._records.feed(data):
            yield self._text(record)

    def end(self) -> Iterator[str]:
        """Give what is left."""
        for record in self._records.end():
            yield self._text(record)

    def _text(self, record: Any) -> str:
        if not isinstance(record, str):
            raise BentoMLException(json.dumps(record))
        return record


class BinaryItems:
    """Pieces of bytes as they come."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give them."""
        yield data

    def end(self) -> Iterator[bytes]:
        """Nothing is held back."""
        return iter(())


def _image(body: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(body))


def _file(headers: Mapping[str, str], body: bytes, folder: Callable[[], Path]) -> Path:
    name = _filename(headers.get("content-disposition", ""))
    if name in ("", ".", ".."):
        content_type = headers.get("content-type", "").partition(";")[0].strip()
        name = "result" + (mimetypes.guess_extension(content_type) or "")
    path = folder() / f"{uuid.uuid4().hex}-{name}"
    path.write_bytes(body)
    return path


def _filename(disposition: str) -> str:
    """The last component of the name in ``Content-Disposition`` (RFC 6266); "" for none."""
    import email.message  # costs more than the rest of this module, and few calls need it

    found = email.message.Message()
    found["Content-Disposition"] = disposition
    name = (found.get_filename("") or "").replace("\\", "/").replace("\0", "")
    return PurePath(name).name[-LONGEST_NAME:]


def _parts(
    schema: Mapping[str, Any], content_type: str, body: bytes, folder: Callable[[], Path]
) -> dict[str, Any] | list[Any]:
    """Results of which some are files: by their names, or in their order where these are numbers.

    BentoML has no such answers; Modelport gives them for tuples, lists and mappings with files.
    """
    from modelport.wire.multipart import read_parts  # brings a parser that few calls need

    found: dict[str, Any] = {}
    for begun, data in read_parts(content_type, body):
        said = {"content-type": begun.content_type}
        if begun.filename is not None:
            said["content-disposition"] = f'attachment; filename="{begun.filename}"'
        found[begun.name] = result_of(_schema_of(schema, begun.name), said, data, folder)
    if schema.get("type") == "array":
        return list(found.values())
    return found


def _schema_of(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the schema of a collection says of one of its members."""
    listed = schema.get("prefixItems")
    if isinstance(listed, list) and name.isdigit() and int(name) < len(listed):
        found = listed[int(name)]
    elif name in schema.get("properties", {}):
        found = schema["properties"][name]
    else:
        found = schema.get("items", schema.get("additionalProperties"))
    return found if isinstance(found, Mapping) else {}


def _tensor(value: Any, schema: Mapping[str, Any]) -> Any:
    dtype = schema.get("dtype") or None
    if schema.get("format") == "torch-tensor":
        import torch

        return torch.tensor(value, dtype=getattr(torch, str(dtype or ""), None))
    array = np.array(value, dtype=dtype)
    if array.dtype == object:
        # BentoML writes numbers that are not finite as null.
        with contextlib.suppress(TypeError, ValueError):
            return array.astype(np.float64)
    return array


def _dataframe(value: Any) -> Any:
    import pandas

    return pandas.DataFrame(value)


_JSON = json.JSONDecoder()
