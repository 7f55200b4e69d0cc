"""BentoML's protocol from the client's side: what a schema says, and bytes of answers.

Values of frameworks are the client's business; here are JSON, multipart bodies, and streams that
come in pieces of any size.

Source: bentoml 1.4, ``/schema.json`` and its client.
"""

import codecs
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelport.errors import InvalidRequest

__all__ = [
    "MISSING",
    "BadSchema",
    "Endpoint",
    "JsonItems",
    "Parameter",
    "Part",
    "TextItems",
    "encode_json",
    "multipart",
    "read_schema",
]


class BadSchema(InvalidRequest):
    """What a server sent as its schema is none."""


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


MISSING = _Missing()
"""Stands where a parameter has no default."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of an endpoint.

    Attributes:
        schema: In JSON Schema, with BentoML's types ``file``, ``tensor`` and ``dataframe``.
        default: ``MISSING`` where the argument is required.
    """

    name: str
    schema: Mapping[str, Any]
    default: Any = MISSING

    @property
    def is_file(self) -> bool:
        """Whether it is sent as a part of its own: a file or a list of files."""
        items = self.schema.get("items")
        return self.schema.get("type") == "file" or (
            isinstance(items, Mapping) and items.get("type") == "file"
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of a service.

    Attributes:
        route: Its path, with what is before it on the server.
        parameters: In the order of the method's signature.
        is_root: Whether its one argument is the body itself.
        takes_more: Whether it takes arguments that are not listed (``**kwargs``).
        output: Schema of the result, or of each item of a stream.
    """

    name: str
    route: str
    parameters: Sequence[Parameter] = ()
    is_root: bool = False
    takes_more: bool = False
    output: Mapping[str, Any] = field(default_factory=dict)
    is_stream: bool = False
    is_task: bool = False
    doc: str = ""

    @property
    def is_multipart(self) -> bool:
        """Whether a call is a multipart body."""
        return not self.is_root and any(parameter.is_file for parameter in self.parameters)


def read_schema(body: bytes) -> dict[str, Endpoint]:
    """Read ``/schema.json``: endpoints by the name of their method.

    Raises:
        BadSchema: If it is none.
    """
    try:
        routes = json.loads(body)["routes"]
        return {route["name"]: _endpoint(route) for route in routes}
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise BadSchema(
            "the server's /schema.json is not the schema of a service; is this a Modelport or "
            "BentoML server?"
        ) from exc


def _endpoint(route: Mapping[str, Any]) -> Endpoint:
    asked: Mapping[str, Any] = route.get("input") or {}
    output: Mapping[str, Any] = route.get("output") or {}
    is_root = bool(asked.get("root_input"))
    if is_root:
        parameters = [Parameter("root", asked, asked.get("default", MISSING))]
    else:
        required = set(asked.get("required", ()))
        parameters = [
            Parameter(name, schema, MISSING if name in required else schema.get("default", MISSING))
            for name, schema in asked.get("properties", {}).items()
        ]
    return Endpoint(
        name=str(route["name"]),
        route=str(route["route"]),
        parameters=tuple(parameters),
        is_root=is_root,
        takes_more=bool(asked.get("additionalProperties")),
        output=output,
        is_stream=bool(output.get("is_stream")),
        is_task=bool(route.get("is_task")),
        doc=str(route.get("doc") or ""),
    )


def encode_json(value: Any) -> bytes:
    """Write plain values; NaN and Infinity as bare words, text as UTF-8.

    Raises:
        TypeError: If a value has no form in JSON.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a multipart body.

    Attributes:
        name: Of the field.
        head_bytes: What comes before its content.
        content: Whole; ``None`` where somebody else supplies ``size`` bytes.
        size: Bytes of the content.
    """

    name: str
    content: bytes | None
    size: int
    filename: str | None = None
    content_type: str | None = None

    def head(self, boundary: str) -> bytes:
        """Write what comes before the content.

        Source: RFC 7578 §4.2; the characters that HTML escapes in names.
        """
        text = f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(self.name)}"'
        if self.filename is not None:
            text += f'; filename="{_escaped(self.filename)}"'
        if self.content_type is not None:
            text += f"\r\nContent-Type: {self.content_type}"
        return text.encode() + b"\r\n\r\n"


def multipart(parts: Sequence[Part]) -> tuple[str, list[bytes], bytes, int]:
    """Frame parts.

    Returns:
        The content type; what comes before the content of each part; what ends the body; the
        bytes of it all. A line break follows each content.
    """
    boundary = secrets.token_hex(16)
    heads = [part.head(boundary) for part in parts]
    end = f"--{boundary}--\r\n".encode()
    length = sum(map(len, heads)) + sum(part.size + 2 for part in parts) + len(end)
    return f"multipart/form-data; boundary={boundary}", heads, end, length


def _escaped(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


class TextItems:
    """Pieces of text, whatever characters the network has cut in two."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> Iterator[str]:
        """Give the text that has come whole."""
        if text := self._decoder.decode(data):
            yield text

    def end(self) -> Iterator[str]:
        """Give what is left."""
        if text := self._decoder.decode(b"", True):
            yield text


class JsonItems:
    """JSON values one after another, with or without anything between, cut anywhere.

    A number at the end may go on in the next piece, so it is given once something follows.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._text = ""
        self._tried_at = 0

    def feed(self, data: bytes) -> Iterator[Any]:
        """Give the values that have come whole.

        Raises:
            InvalidRequest: If this is no JSON.
        """
        try:
            self._text += self._decoder.decode(data)
        except UnicodeDecodeError as exc:
            raise InvalidRequest("the items of the stream are not UTF-8") from exc
        # A long value that comes in small pieces is not read anew with each of them.
        if len(self._text) >= self._tried_at or self._text.endswith(("}", "]", '"')):
            yield from self._take(is_end=False)

    def end(self) -> Iterator[Any]:
        """Give what is left.

        Raises:
            InvalidRequest: If it ends in the middle of a value.
        """
        yield from self._take(is_end=True)
        if self._text.strip():
            raise InvalidRequest(f"the stream ended in the middle of an item: {self._text[-80:]!r}")

    def _take(self, *, is_end: bool) -> Iterator[Any]:
        text = self._text
        at = 0
        while True:
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            try:
                value, until = _JSON.raw_decode(text, at)
            except ValueError:
                break
            if until == len(text) and not is_end and type(value) in (int, float):
                break
            at = until
            yield value
        self._text = text[at:]
        self._tried_at = len(self._text) * 5 // 4 if len(self._text) > 4096 else 0


_JSON = json.JSONDecoder()
