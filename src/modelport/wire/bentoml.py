"""BentoML's protocol: JSON objects of arguments, forms, bare bodies, and what comes back.

Both directions, and no I/O. Its own words: an endpoint has a *route*; a *root* input is the whole
body. Errors are objects here; BentoML 1.4 sends some as arrays of one object, so both are read.

Source: bentoml 1.4.40, as its server and its clients behave.
"""

import codecs
import enum
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from modelport.errors import InvalidRequest

__all__ = [
    "MISSING",
    "NO_FILES",
    "PICKLE",
    "BodyKind",
    "EndpointSchema",
    "ItemFormat",
    "JsonItems",
    "Parameter",
    "ServiceSchema",
    "TextItems",
    "body_kind",
    "decode_error",
    "decode_schema",
    "encode_error",
    "encode_error_record",
    "encode_item",
    "encode_schema",
    "form_value",
    "item_format",
    "read_urlencoded",
]

NO_FILES = "[]"
"""Stands in a form for an empty list of files, which would otherwise be nothing at all."""
PICKLE = "application/vnd.bentoml+pickle"
MOST_FIELDS = 1000
"""Of a form."""


class BodyKind(enum.Enum):
    """How the body of a request is to be read."""

    JSON = enum.auto()
    MULTIPART = enum.auto()
    URLENCODED = enum.auto()
    PICKLE = enum.auto()


def body_kind(content_type: str) -> BodyKind:
    """Tell from a content type; whatever is none of the others is taken for JSON.

    >>> body_kind("")
    <BodyKind.JSON: 1>
    >>> body_kind("multipart/form-data; boundary=x")
    <BodyKind.MULTIPART: 2>
    """
    return _KIND_BY_TYPE.get(content_type.partition(";")[0].strip().lower(), BodyKind.JSON)


# Forms.


def form_value(text: str) -> Any:
    """Read a field of a form that is no file: JSON, or else the text as it is.

    >>> form_value('"quoted"'), form_value("bare"), form_value("[1, 2]")
    ('quoted', 'bare', [1, 2])
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def read_urlencoded(body: bytes | bytearray | memoryview) -> dict[str, list[str]]:
    """Read an ``application/x-www-form-urlencoded`` body: values by name, in their order.

    Raises:
        InvalidRequest: It is not one, or has too many fields.
    """
    try:
        pairs = parse_qsl(
            bytes(body).decode(),
            keep_blank_values=True,
            max_num_fields=MOST_FIELDS,
            errors="strict",
        )
    except ValueError as exc:
        raise InvalidRequest(f"the form cannot be read: {exc}") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


# Errors.


def encode_error(text: str, detail: Sequence[Mapping[str, object]] = ()) -> bytes:
    """Write the body of an error."""
    said: dict[str, object] = {"error": text}
    if detail:
        said["detail"] = list(detail)
    return orjson.dumps(said)


def decode_error(body: bytes) -> str:
    """Read what an error says; a body in no known form is the text itself."""
    text = body.decode(errors="replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(said, list) and said:
        said = said[0]
    if isinstance(said, dict) and isinstance(said.get("error"), str):
        error: str = said["error"]
        return error
    return text


# Streams.


class ItemFormat(enum.Enum):
    """How the items of a stream are told apart."""

    RAW = enum.auto()
    """They are not: text as it is, JSON without anything between, as BentoML sends it."""
    NDJSON = enum.auto()
    SSE = enum.auto()


def item_format(accept: str) -> ItemFormat:
    """Tell from the ``Accept`` header what a caller wants; most want nothing in particular."""
    for each in accept.lower().split(","):
        wanted = each.partition(";")[0].strip()
        if wanted in ("application/x-ndjson", "application/jsonl", "application/ndjson"):
            return ItemFormat.NDJSON
        if wanted == "text/event-stream":
            return ItemFormat.SSE
    return ItemFormat.RAW


def encode_item(item: bytes, wanted: ItemFormat, *, is_text: bool) -> bytes:
    """Write one item of a stream as a record.

    Args:
        item: As it would be sent raw.
        wanted: Not ``RAW``.
        is_text: Whether it is text and not JSON.
    """
    if wanted is ItemFormat.NDJSON:
        return (orjson.dumps(item.decode(errors="replace")) if is_text else item) + b"\n"
    lines = item.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join(b"data: %b\n" % line for line in lines) + b"\n"


def encode_error_record(text: str, wanted: ItemFormat) -> bytes:
    """Write the last record of a stream that failed."""
    said = encode_error(text)
    return b"event: error\ndata: %b\n\n" % said if wanted is ItemFormat.SSE else said + b"\n"


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

    A number at the end may go on in the next piece, so it is given once something follows. A long
    value that comes in pieces is looked at as it comes, and read once: when it ends.

    Args:
        is_whole_in_pieces: No item is cut, so a number ends with its piece: of numbers without
            anything between, as BentoML sends them, nothing else tells them apart.
        most_chars: Of one item; ``None`` for no bound.
    """

    def __init__(self, *, is_whole_in_pieces: bool = False, most_chars: int | None = None) -> None:
        self._is_whole_in_pieces = is_whole_in_pieces
        self._most_chars = most_chars
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._begun = _Begun("")

    def feed(self, data: bytes) -> Iterator[Any]:
        """Give the values that have come whole.

        Raises:
            InvalidRequest: If this is no JSON, or an item is longer than may be.
        """
        try:
            text = self._decoder.decode(data)
        except UnicodeDecodeError as exc:
            raise InvalidRequest("the items of the stream are not UTF-8") from exc
        begun = self._begun
        if begun.length:
            may_be_whole = begun.add(text)
            if self._most_chars is not None and begun.length > self._most_chars:
                raise InvalidRequest(
                    f"an item of the stream is longer than {self._most_chars} characters"
                )
            if not may_be_whole:
                return
            text = begun.text()
        yield from self._take(text, is_end=self._is_whole_in_pieces)

    def end(self) -> Iterator[Any]:
        """Give what is left.

        Raises:
            InvalidRequest: If it ends in the middle of a value.
        """
        yield from self._take(self._begun.text(), is_end=True)
        rest = self._begun.text()
        if rest.strip():
            raise InvalidRequest(f"the stream ended in the middle of an item: {rest[-80:]!r}")

    def _take(self, text: str, *, is_end: bool) -> Iterator[Any]:
        at = 0
        while True:
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            try:
                value, until = _JSON.raw_decode(text, at)
            except ValueError:
                break
            except RecursionError:
                raise InvalidRequest("an item of the stream is too deep to be read") from None
            if not is_end and type(value) in (int, float) and text[until : until + 3] in _GOES_ON:
                break
            at = until
            # What is done with it may raise, or take nothing more.
            self._begun = _Begun("")
            yield value
        self._begun = _Begun(text[at:])
        if self._begun.has_ended:
            raise _no_json(text[at : at + 40])


def _no_json(begun: str) -> InvalidRequest:
    return InvalidRequest(f"an item of the stream is no JSON: {begun!r}")


class _Begun:
    """A value that has not come whole.

    Attributes:
        length: Characters of it.
        has_ended: Whether its last quote or bracket has come.
    """

    __slots__ = ("_depth", "_is_escaped", "_is_in_string", "_pieces", "has_ended", "length")

    def __init__(self, text: str) -> None:
        self._pieces: list[str] = []
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False
        self.length = 0
        self.has_ended = False
        if text:
            self.add(text)

    def text(self) -> str:
        return "".join(self._pieces)

    def add(self, text: str) -> bool:
        """Take more of it, and say whether it may be whole now.

        Raises:
            InvalidRequest: It is a number or a word, and longer than any is.
        """
        self._pieces.append(text)
        self.length += len(text)
        start = 1 if self._is_escaped and text else 0
        self._is_escaped &= not text
        for found in _STRUCTURE.finditer(text, start):
            sign = found[0]
            if self._is_in_string:
                if sign == '"':
                    self._is_in_string = False
                    self.has_ended |= self._depth == 0
                self._is_escaped = sign == "\\"
            elif sign == '"':
                self._is_in_string = True
            elif sign in "{[":
                self._depth += 1
            elif sign in "}]":
                self._depth -= 1
                self.has_ended |= self._depth <= 0
        is_bare = self._depth == 0 and not self._is_in_string and not self.has_ended
        if is_bare and self.length > LONGEST_BARE:
            raise _no_json(self.text()[:40])
        return self.has_ended or is_bare


_STRUCTURE = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
"""What matters for where a value ends; of an escape at the end of a piece only the backslash."""
LONGEST_BARE = 8192
"""Characters of a number or word: Python reads no integer with more than 4300 digits."""


# The schema.


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


MISSING = _Missing()
"""Stands where a parameter has no default."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Parameter(NamedTuple):
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
        return _is_file(self.schema) or _is_file(self.schema.get("items"))


class EndpointSchema:
    """What ``/schema.json`` says of one endpoint, and what follows from it for each call.

    Attributes:
        name: Of the method of a client.
        route: The whole path.
        input: JSON schema of its arguments, or with ``root_input`` of its body.
        output: JSON schema of its result; with ``is_stream`` of one item.
        is_task: Whether it can be submitted.
        batchable: Whether it is run for several requests at once.
        doc: For people; BentoML's server does not send it.
        is_root: Whether its one argument is the whole body.
        is_stream: Whether it gives any number of items.
        takes_more: Whether it takes arguments that are not listed (``**kwargs``).
        is_multipart: Whether a call is a multipart body.
        gives_files: Whether its result is a file, or may hold some.
        parameters: By their names, in the order of the method's signature; a root input as
            ``root``.
        required: Names of the arguments that have no default.
    """

    __slots__ = (
        "batchable",
        "doc",
        "gives_files",
        "input",
        "is_multipart",
        "is_root",
        "is_stream",
        "is_task",
        "name",
        "output",
        "parameters",
        "required",
        "route",
        "takes_more",
    )

    def __init__(
        self,
        name: str,
        route: str,
        input: Mapping[str, Any] = _NOTHING,
        output: Mapping[str, Any] = _NOTHING,
        is_task: bool = False,
        batchable: bool = False,
        doc: str = "",
    ) -> None:
        self.name = name
        self.route = route
        self.input = input
        self.output = output
        self.is_task = is_task
        self.batchable = batchable
        self.doc = doc
        self.is_root = bool(input.get("root_input"))
        self.is_stream = bool(output.get("is_stream"))
        self.takes_more = bool(input.get("additionalProperties"))
        self.parameters = _parameters(input)
        self.required = frozenset(
            each.name for each in self.parameters.values() if each.default is MISSING
        )
        self.is_multipart = not self.is_root and any(
            each.is_file for each in self.parameters.values()
        )
        self.gives_files = _gives_files(output)

    def __repr__(self) -> str:
        return f"<EndpointSchema {self.name} {self.route}>"


def _parameters(input: Mapping[str, Any]) -> Mapping[str, Parameter]:
    if input.get("root_input"):
        return {"root": Parameter("root", input, input.get("default", MISSING))}
    required = input.get("required", ())
    return {
        name: Parameter(
            name, schema, MISSING if name in required else schema.get("default", MISSING)
        )
        for name, schema in input.get("properties", {}).items()
    }


def _is_file(schema: object) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "file"


def _gives_files(output: Mapping[str, Any]) -> bool:
    if output.get("pil"):
        return False
    members = output.get("properties")
    listed = output.get("prefixItems")
    return any(
        _is_file(each)
        for each in (
            output,
            output.get("items"),
            output.get("additionalProperties"),
            *(members.values() if isinstance(members, Mapping) else ()),
            *(listed if isinstance(listed, list) else ()),
        )
    )


class ServiceSchema(NamedTuple):
    """``/schema.json``.

    Attributes:
        paths: Whether each path is that of a mounted application.
    """

    name: str
    description: str = ""
    routes: tuple[EndpointSchema, ...] = ()
    paths: Mapping[str, bool] = _NOTHING


def encode_schema(schema: ServiceSchema) -> bytes:
    """Write ``/schema.json``; routes by their names."""
    routes = [
        {
            "name": each.name,
            "route": each.route,
            "batchable": each.batchable,
            "input": dict(each.input),
            "output": dict(each.output),
            "is_task": each.is_task,
            **({"doc": each.doc} if each.doc else {}),
        }
        for each in sorted(schema.routes, key=lambda each: each.name)
    ]
    said = {
        "name": schema.name,
        "type": "service",
        "description": schema.description,
        "routes": routes,
        "paths": {path: {"mounted": mounted} for path, mounted in schema.paths.items()},
    }
    return json.dumps(said).encode()


def decode_schema(body: bytes) -> ServiceSchema:
    """Read ``/schema.json``.

    Raises:
        InvalidRequest: It is not one.
    """
    try:
        said = json.loads(body)
        routes = tuple(
            EndpointSchema(
                str(each["name"]),
                str(each["route"]),
                each.get("input") or {},
                each.get("output") or {},
                bool(each.get("is_task")),
                bool(each.get("batchable")),
                str(each.get("doc") or ""),
            )
            for each in said["routes"]
        )
        paths = {path: bool(each.get("mounted")) for path, each in said.get("paths", {}).items()}
        return ServiceSchema(
            str(said.get("name") or ""), str(said.get("description") or ""), routes, paths
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        # An error of the decoder holds all that it was given.
        raise InvalidRequest(f"this is no schema of a service: {repr(exc)[:200]}") from None


_KIND_BY_TYPE = {
    "multipart/form-data": BodyKind.MULTIPART,
    "application/x-www-form-urlencoded": BodyKind.URLENCODED,
    PICKLE: BodyKind.PICKLE,
}
_JSON = json.JSONDecoder()
_GOES_ON = frozenset(("", ".", "e", "E", "e+", "e-", "E+", "E-"))
"""What may be left after a number of which more is to come: ``1`` has been read of ``1e-``."""
