"""``multipart/form-data`` both ways: read piece by piece, written as a list of buffers.

Reading is bounded in parts and in bytes of their heads; how large the parts may be is the business
of whoever takes them. What a part holds is given on as it comes, so a file of any size passes
through without being kept.

Source: RFC 7578, RFC 2046 §5.1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from modelport.errors import InvalidRequest, TooLarge

__all__ = [
    "Event",
    "MultipartReader",
    "PartBegun",
    "PartData",
    "PartEnded",
    "encode_part",
    "encode_parts",
    "read_parts",
]

MOST_PARTS = 1000
LONGEST_BOUNDARY = 70
"""RFC 2046 §5.1.1."""


@dataclass(frozen=True, slots=True)
class PartBegun:
    """A part has begun.

    Attributes:
        name: Of the field.
        filename: ``None`` if it is no file.
        content_type: "" where nothing was said.
    """

    name: str
    filename: str | None
    content_type: str


@dataclass(frozen=True, slots=True)
class PartData:
    """A piece of the part that has begun."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnded:
    """The part is whole."""


Event = PartBegun | PartData | PartEnded


class MultipartReader:
    """Reads one body.

    Args:
        content_type: Of the request; holds the boundary.
        most_parts: Above this the body is refused.

    Raises:
        InvalidRequest: There is no boundary.
    """

    def __init__(self, content_type: str, most_parts: int = MOST_PARTS) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 0 < len(boundary) <= LONGEST_BOUNDARY:
            raise InvalidRequest("the multipart body has no boundary in its Content-Type")
        self._events: list[Event] = []
        self._most_parts = most_parts
        self._parts = 0
        self._is_begun = False
        self._is_ended = False
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begun,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ended,
                "on_headers_finished": self._headers_ended,
                "on_part_data": self._data,
                "on_part_end": self._part_ended,
                "on_end": self._ended,
            },
        )

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Read further.

        Raises:
            InvalidRequest: It is malformed.
            TooLarge: It has too many parts.
        """
        piece = bytes(data)
        if not self._is_begun:
            # python-multipart 0.0.34 passes over what stands in one piece with these, so that a
            # body would be good or bad by how the network has cut it.
            piece = piece.lstrip(b"\r\n")
            self._is_begun = bool(piece)
        try:
            self._parser.write(piece)
        except FormParserError as exc:
            raise InvalidRequest(f"the multipart body cannot be read: {exc}") from None
        events, self._events = self._events, []
        return iter(events)

    def end(self) -> None:
        """Say that the body is whole.

        Raises:
            InvalidRequest: It is not.
        """
        if not self._is_ended:
            raise InvalidRequest("the multipart body ends before its last boundary")

    def _part_begun(self) -> None:
        self._parts += 1
        if self._parts > self._most_parts:
            raise TooLarge(f"the multipart body has more than {self._most_parts} parts")
        self._headers = {}
        self._name = self._value = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ended(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_ended(self) -> None:
        said = self._headers.get(b"content-disposition", b"")
        disposition, options = parse_options_header(said)
        if disposition != b"form-data" or b"name" not in options:
            raise InvalidRequest("a part of the multipart body has no name")
        filename = options.get(b"filename")
        self._events.append(
            PartBegun(
                options[b"name"].decode(errors="replace"),
                _extended_filename(said) if filename is None else filename.decode(errors="replace"),
                self._headers.get(b"content-type", b"").decode("latin-1"),
            )
        )

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(data[start:end]))

    def _part_ended(self) -> None:
        self._events.append(PartEnded())

    def _ended(self) -> None:
        self._is_ended = True


def read_parts(content_type: str, body: bytes) -> list[tuple[PartBegun, bytes]]:
    """Read a body that is there as a whole.

    Raises:
        InvalidRequest: It is malformed.
        TooLarge: It has too many parts.
    """
    reader = MultipartReader(content_type)
    parts: list[tuple[PartBegun, list[bytes]]] = []
    for event in reader.feed(body):
        if isinstance(event, PartBegun):
            parts.append((event, []))
        elif isinstance(event, PartData):
            parts[-1][1].append(event.data)
    reader.end()
    return [(begun, b"".join(pieces)) for begun, pieces in parts]


def encode_part(
    boundary: str, name: str, *, filename: str | None = None, content_type: str = ""
) -> bytes:
    """Write what comes before the data of a part; for the first one too."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(name)}"'
    if filename is not None:
        head += f'; filename="{_escaped(filename)}"'
    if content_type:
        head += f"\r\nContent-Type: {content_type}"
    return f"{head}\r\n\r\n".encode()


def encode_parts(boundary: str, parts: Sequence[tuple[bytes, Any]]) -> list[Any]:
    """Write a whole body of heads, as :func:`encode_part` gives them, and data."""
    buffers: list[Any] = []
    for head, data in parts:
        buffers += [head, data, b"\r\n"]
    return [*buffers, f"--{boundary}--\r\n".encode()]


def _extended_filename(disposition: bytes) -> str | None:
    """Read ``filename*=UTF-8''name``; ``None`` if there is none, "" if it cannot be read.

    RFC 7578 §4.2 forbids senders to use it; some do all the same, and mean a file.

    Source: RFC 8187 §3.2 (of old RFC 5987), RFC 6266 §4.3.
    """
    # Every second piece is quoted. Plain cuts, for a pattern could be made to try for seconds.
    pieces = disposition.decode("latin-1").replace("\\\\", "").replace('\\"', "").split('"')
    for at in range(0, len(pieces), 2):
        for parameter in pieces[at].split(";"):
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "filename*":
                # Some quote it, though that is not allowed either.
                return _extended_value(value.strip() or "".join(pieces[at + 1 : at + 2]))
    return None


def _extended_value(value: str) -> str:
    charset, _, rest = value.partition("'")
    _, _, encoded = rest.partition("'")
    is_latin = charset.lower() == "iso-8859-1"
    return unquote(encoded, "latin-1" if is_latin else "utf-8", errors="replace")


def _escaped(text: str) -> str:
    # As browsers do, since the HTML standard of 2021.
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
