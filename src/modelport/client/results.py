"""What a service answers, as Python values.

A framework is imported only when a result is to become an object of it.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol

from modelport.errors import InvalidRequest, TooLarge
from modelport.exceptions import BentoMLException
from modelport.wire.bentoml import JsonItems, TextItems

if TYPE_CHECKING:
    from io import BufferedWriter

    from modelport.wire.multipart import Event, MultipartReader

__all__ = ["FileResult", "Items", "has_files", "items_of", "result_of"]

LONGEST_NAME = 128
"""Of a result's file; the end of a longer one, with its suffix."""
MORE = "max_response_bytes"


def result_of(schema: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> Any:
    """Turn an answer that holds no file into what the endpoint returns.

    Args:
        schema: Of the output.
        headers: Of the answer.
        body: Of the answer.

    Raises:
        ValueError: If it is not what the schema says.
    """
    kind = schema.get("type")
    content_type = _kind_of(headers)
    if kind == "file":
        if body == b"null" and content_type == "application/json":
            return None
        return _image(body)
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
    return _shaped(value, schema)


def _shaped(value: Any, schema: Mapping[str, Any]) -> Any:
    """Make arrays and tables where the schema has them: alone, in lists, and as members."""
    kind = schema.get("type")
    if value is None:
        return None
    if kind == "tensor":
        return _tensor(value, schema)
    if kind == "dataframe":
        return _dataframe(value)
    if kind == "array" and isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, Mapping) and items.get("type") in _SHAPED:
            return [_shaped(each, items) for each in value]
    elif kind == "object" and isinstance(value, dict):
        for name, member in schema.get("properties", _NOTHING).items():
            if name in value and isinstance(member, Mapping) and member.get("type") in _SHAPED:
                value[name] = _shaped(value[name], member)
    return value


class FileResult:
    """An answer with files, taken as it comes: what is a file goes to disk, the rest is held.

    What BentoML has is one file, or none. Modelport also answers with forms: results of which some
    are files, by their names, or in their order where these are numbers.

    Args:
        schema: Of the output.
        headers: Of the answer.
        folder: Makes the place for files; not called without one.
        most_bytes: Of all that is held in memory; ``None`` for no bound.

    Raises:
        InvalidRequest: The answer is a form without a boundary.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        headers: Mapping[str, str],
        folder: Callable[[], Path],
        most_bytes: int | None,
    ) -> None:
        self._schema = schema
        self._folder = folder
        self._most_bytes = most_bytes
        self._held = 0
        self._kept: list[Path] = []
        self._part: _Part | None = None
        self._members: dict[str, Any] = {}
        self._form: MultipartReader | None = None
        if _kind_of(headers) == "multipart/form-data":
            from modelport.wire import multipart  # brings a parser that few calls need

            self._form = multipart.MultipartReader(headers["content-type"])
        else:
            is_null = _kind_of(headers) == "application/json"
            self._part = self._begin(schema, headers, is_file=not is_null)

    def feed(self, data: bytes) -> None:
        """Take what has come. Writes to the disk.

        Raises:
            InvalidRequest: It is not what the headers say.
            TooLarge: There is more than may be held.
            OSError: The disk does not take it.
        """
        if self._form is None:
            assert self._part is not None
            self._take(self._part, data)
            return
        for event in self._form.feed(data):
            self._follow(event)

    def end(self) -> Any:
        """Give the result.

        Raises:
            ValueError: It is not what the schema says.
            InvalidRequest: It is not whole.
        """
        if self._form is None:
            assert self._part is not None
            return self._finish(self._part)
        self._form.end()
        found = self._members
        return list(found.values()) if self._schema.get("type") == "array" else found

    def drop(self) -> None:
        """Remove what was written: the answer is not whole."""
        if self._part is not None and self._part.file is not None:
            self._part.file.close()
        for path in self._kept:
            path.unlink(missing_ok=True)

    def _follow(self, event: "Event") -> None:
        from modelport.wire.multipart import PartBegun, PartData

        if isinstance(event, PartBegun):
            said = {"content-type": event.content_type}
            if event.filename is not None:
                said["content-disposition"] = f'attachment; filename="{event.filename}"'
            schema = _schema_of(self._schema, event.name)
            is_file = _is_kept(schema) if "type" in schema else event.filename is not None
            self._part = self._begin(schema, said, is_file=is_file)
            self._part.name = event.name
        elif self._part is None:
            raise InvalidRequest("the multipart body has data outside of its parts")
        elif isinstance(event, PartData):
            self._take(self._part, event.data)
        else:
            self._members[self._part.name] = self._finish(self._part)
            self._part = None

    def _begin(
        self, schema: Mapping[str, Any], headers: Mapping[str, str], *, is_file: bool
    ) -> "_Part":
        part = _Part(schema, headers)
        if is_file:
            path = _place(headers, self._folder)
            part.file = path.open("xb")
            self._kept.append(path)
        return part

    def _take(self, part: "_Part", data: bytes) -> None:
        if part.file is not None:
            part.file.write(data)
            return
        self._held += len(data)
        if self._most_bytes is not None and self._held > self._most_bytes:
            raise TooLarge(f"it is longer than {self._most_bytes} bytes; allow more with {MORE}")
        part.pieces.append(data)

    def _finish(self, part: "_Part") -> Any:
        if part.file is not None:
            part.file.close()
            return Path(part.file.name)
        return result_of(part.schema, part.headers, b"".join(part.pieces))


def has_files(schema: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Whether an answer is for :class:`FileResult`, and not for :func:`result_of`."""
    return _kind_of(headers) == "multipart/form-data" or _is_kept(schema)


def _is_kept(schema: Mapping[str, Any]) -> bool:
    """Whether it goes to disk; a picture becomes an object."""
    return schema.get("type") == "file" and not schema.get("pil")


class _Part:
    """One result that is coming: a file on disk, or pieces in memory."""

    def __init__(self, schema: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self.schema = schema
        self.headers = headers
        self.name = ""
        self.file: BufferedWriter | None = None
        self.pieces: list[bytes] = []


def _kind_of(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


class Items(Protocol):
    """Cuts the bytes of a stream into its items."""

    def feed(self, data: bytes) -> Iterator[Any]:
        """Give the items that are whole with these bytes."""
        ...

    def end(self) -> Iterator[Any]:
        """Give what is left.

        Raises:
            InvalidRequest: If that is no whole item.
        """
        ...


def items_of(
    schema: Mapping[str, Any], headers: Mapping[str, str], most_chars: int | None
) -> Items:
    """What cuts a stream into the items of an endpoint, each of which has so many characters."""
    if headers.get("content-type", "").startswith("application/x-ndjson"):
        return _Made(JsonItems(most_chars=most_chars), _item_of_record)
    match schema.get("type"):
        case "string":
            return BinaryItems() if schema.get("format") == "binary" else TextItems()
        case "integer" | "number":
            return JsonItems(is_whole_in_pieces=True, most_chars=most_chars)
        case "tensor" | "dataframe" | "array" | "object":
            return _Made(JsonItems(most_chars=most_chars), lambda item: _shaped(item, schema))
    return JsonItems(most_chars=most_chars)


class _Made:
    """Items made of JSON values."""

    def __init__(self, values: JsonItems, make: Callable[[Any], Any]) -> None:
        self._values = values
        self._make = make

    def feed(self, data: bytes) -> Iterator[Any]:
        """Give those that have come whole.

        Raises:
            BentoMLException: The stream has failed.
            InvalidRequest: An item is not what the schema says.
        """
        return self._all(self._values.feed(data))

    def end(self) -> Iterator[Any]:
        """Give what is left."""
        return self._all(self._values.end())

    def _all(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            try:
                item = self._make(value)
            except (ValueError, TypeError) as exc:
                raise InvalidRequest(f"an item is not what the schema says: {exc}") from exc
            yield item


def _item_of_record(record: Any) -> Any:
    """Only streams of text, numbers and the like are asked for in records."""
    if isinstance(record, dict):
        # The server tells that it failed.
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
    import io

    from PIL import Image

    return Image.open(io.BytesIO(body))


def _place(headers: Mapping[str, str], folder: Callable[[], Path]) -> Path:
    """Where a file goes: a name of its own, which ends in the last component of the sent one."""
    name = _filename(headers.get("content-disposition", ""))
    if name in ("", ".", ".."):
        import mimetypes

        content_type = headers.get("content-type", "").partition(";")[0].strip()
        name = "result" + (mimetypes.guess_extension(content_type) or "")
    return folder() / f"{os.urandom(16).hex()}-{name}"


def _filename(disposition: str) -> str:
    """The last component of the name in ``Content-Disposition`` (RFC 6266); "" for none."""
    import email.message  # costs more than the rest of this module, and few calls need it

    found = email.message.Message()
    found["Content-Disposition"] = disposition
    name = (found.get_filename("") or "").replace("\\", "/").replace("\0", "")
    return PurePath(name).name[-LONGEST_NAME:]


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
    import numpy as np

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
_NOTHING: Mapping[str, Any] = {}
_SHAPED = frozenset({"tensor", "dataframe", "array", "object"})
"""Types that are arrays or tables, or may hold some."""
