"""Feed anything to the readers of BentoML's bodies: multipart forms, other forms, streams, schemas.

The invariant: whatever the bytes, a reader gives a value or raises a ``ModelportError`` with a text
that can be sent, and nothing else. A multipart body says the same in whatever pieces it comes: each
part begins, has data and ends, there are no more parts than allowed, and no more data than came.
What was read of one, written again under another boundary, is read as the same. So it is with the
items of a stream, and with a schema. A form gives no more fields than allowed. The work is bounded
by the bytes that came.

    python -m fuzz.bentoml [RUNS]           with a plain mutator of its own
    python -m fuzz.bentoml --atheris ...    guided by coverage, with libFuzzer's options;
                                            needs `pip install atheris`
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from fuzz import harness
from fuzz.harness import attempt, check_text
from modelport.errors import ModelportError
from modelport.wire import bentoml
from modelport.wire.bentoml import ItemFormat, JsonItems, TextItems
from modelport.wire.multipart import (
    MOST_PARTS,
    MultipartReader,
    PartBegun,
    PartData,
    PartEnded,
    encode_part,
    encode_parts,
    read_parts,
)

FORM = "multipart/form-data; boundary=b"
SETTINGS = 2
"""Bytes in front of each input: how large its pieces are, and which header is made of it."""


def _form(*parts: tuple[bytes, bytes]) -> bytes:
    return b"\0\0" + b"".join(encode_parts("b", parts))


SEEDS = (
    _form((encode_part("b", "text"), b"some"), (encode_part("b", "n"), b"[1, 2]")),
    _form((encode_part("b", "f", filename="a.png", content_type="image/png"), b"\x89PNG\r\n\0")),
    _form((encode_part("b", 'q"\r\n', filename='"\u00e9'), b"\r\n--c\r\n-"), (b"--b\r\n\r\n", b"")),
    _form(*[(encode_part("b", f"p{number}"), b"") for number in range(5)]),
    b'\x05\0--b\r\nContent-Disposition: form-data; name="a"; '
    b"filename*=UTF-8''%e2%82\r\n\r\nx\r\n--b--",
    b"\1\0a=1&b=%7B%22c%22%3A2%7D&a=+x&d",
    b'\2\0{"a": 1}[2]"three"4 5\n{"b": [null, true]}',
    b'\3\0{"error": "no"}',
    b'\3\0[{"error": "no", "detail": []}]',
    b"\0\0" + bentoml.encode_schema(
        bentoml.ServiceSchema(
            "S",
            "about",
            (
                bentoml.EndpointSchema(
                    "call",
                    "/call",
                    {
                        "properties": {"image": {"type": "file"}, "n": {"default": 3}},
                        "required": ["image"],
                        "additionalProperties": True,
                    },
                    {"is_stream": True},
                    is_task=True,
                ),
                bentoml.EndpointSchema("root", "/root", {"root_input": True, "type": "tensor"}),
            ),
            {"/app": True},
        )
    ),
    b"\0\1multipart/form-data; boundary=\"a;b\"; charset=utf-8",
    b"\0\2text/event-stream;q=0.5, application/jsonl",
)  # fmt: skip

WORDS = (
    b"--b", b"--b--", b"\r\n--b", b"\r\n", b"\r", b"\n", b"--", b"-", b"\r\n\r\n", b":", b";", b"=",
    b'"', b"\\", b"%", b"%zz", b"&", b"+", b"Content-Disposition: form-data; name=\"x\"\r\n",
    b"Content-Type: a/b\r\n", b"filename=", b"filename*=", b"name=", b"boundary=", b"b" * 71,
    b"{", b"}", b"[", b"]", b",", b"null", b"NaN", b"-1e400", b"1" * 30, b'"\\ud800"', b"\xff",
    b"\xc3", b"\xf0\x9f", b"[" * 2000, b"\0", b'"routes":', b'"input":', b'"properties":',
    b'"required":', b'"items":', b'"paths":', b'"error":',
)  # fmt: skip

Shown = list[tuple[PartBegun, bytes]]


def check(data: bytes) -> None:
    """Hold the invariant on one input.

    Raises:
        Exception: Whatever broke it.
    """
    with harness.in_time(time.process_time):
        step, chosen, body = _settings(data)
        _multipart(body, step)
        attempt(lambda: _urlencoded(body))
        _items(body, step)
        attempt(lambda: _schema(body))
        _values(body)
        if chosen:
            _headers(body.decode("latin-1"))


def mutations(seed: int) -> Iterator[bytes]:
    """Give inputs without end."""
    return harness.mutations(seed, SEEDS, WORDS, settings=SETTINGS)


def _settings(data: bytes) -> tuple[int, bool, bytes]:
    step, chosen = data[:SETTINGS].ljust(SETTINGS, b"\0")
    return 1 + step % 40, bool(chosen & 1), data[SETTINGS:]


def _pieces(body: bytes, step: int) -> Iterator[bytes]:
    for at in range(0, len(body), step):
        yield body[at : at + step]


# Multipart.


def _multipart(body: bytes, step: int) -> None:
    whole, is_whole = _read([body])
    in_pieces, is_in_pieces = _read(_pieces(body, step))
    assert is_whole == is_in_pieces
    # What is read before an error depends on how much came with it.
    if is_whole:
        assert in_pieces == whole
        _written_again(whole)
        assert read_parts(FORM, body) == whole
    assert sum(len(data) for _, data in whole) <= len(body)


def _read(pieces: Sequence[bytes] | Iterator[bytes]) -> tuple[Shown, bool]:
    """Read a body; the parts that came, and whether it was good."""
    reader = MultipartReader(FORM)
    parts: Shown = []
    is_open = False
    try:
        for piece in pieces:
            for event in reader.feed(piece):
                match event:
                    case PartBegun():
                        assert not is_open
                        is_open = True
                        parts.append((event, b""))
                    case PartData(data):
                        assert is_open
                        parts[-1] = (parts[-1][0], parts[-1][1] + data)
                    case PartEnded():
                        assert is_open
                        is_open = False
        reader.end()
    except ModelportError as exc:
        check_text(exc)
        return parts, False
    assert not is_open
    assert len(parts) <= MOST_PARTS
    return parts, True


def _written_again(parts: Shown) -> None:
    boundary = "a-boundary-that-is-in-none"
    if any(boundary.encode() in data for _, data in parts):
        return
    written = [
        (
            encode_part(
                boundary,
                begun.name,
                filename=begun.filename,
                content_type=begun.content_type.encode("latin-1").decode("ascii", "replace"),
            ),
            data,
        )
        for begun, data in parts
    ]
    body = b"".join(encode_parts(boundary, written))
    again = read_parts(f"multipart/form-data; boundary={boundary}", body)
    assert [data for _, data in again] == [data for _, data in parts]
    assert [begun.filename is None for begun, _ in again] == [
        begun.filename is None for begun, _ in parts
    ]


# Other bodies.


def _urlencoded(body: bytes) -> None:
    values = bentoml.read_urlencoded(body)
    assert sum(map(len, values.values())) <= bentoml.MOST_FIELDS
    for texts in values.values():
        for text in texts:
            bentoml.form_value(text)


def _items(body: bytes, step: int) -> None:
    """Values of a stream are the same whole and in pieces, as JSON tells them."""
    whole, is_whole = _stream([body])
    in_pieces, is_in_pieces = _stream(_pieces(body, step))
    assert is_whole == is_in_pieces
    if is_whole:
        assert in_pieces == whole
    text = TextItems()
    heard = [part for piece in _pieces(body, step) for part in text.feed(piece)]
    assert "".join([*heard, *text.end()]) == body.decode(errors="replace")
    record = bentoml.encode_item(body, ItemFormat.NDJSON, is_text=True)
    assert record.count(b"\n") == 1
    assert list(JsonItems().feed(record)) == [body.decode(errors="replace")]
    event = bentoml.encode_item(body, ItemFormat.SSE, is_text=True)
    assert event.endswith(b"\n\n")
    assert all(line.startswith(b"data: ") for line in event[:-2].split(b"\n"))


def _stream(pieces: Sequence[bytes] | Iterator[bytes]) -> tuple[list[str], bool]:
    items = JsonItems()
    values: list[Any] = []
    try:
        for piece in pieces:
            values += items.feed(piece)
        values += items.end()
    except ModelportError as exc:
        check_text(exc)
        return [], False
    return [json.dumps(value) for value in values], True


def _schema(body: bytes) -> None:
    schema = bentoml.decode_schema(body)
    again = bentoml.decode_schema(bentoml.encode_schema(schema))
    assert bentoml.encode_schema(again) == bentoml.encode_schema(schema)


def _values(body: bytes) -> None:
    assert type(bentoml.decode_error(body)) is str
    bentoml.form_value(body.decode(errors="replace"))
    said = bentoml.encode_error(body.decode(errors="replace"))
    assert bentoml.decode_error(said) == body.decode(errors="replace")


def _headers(text: str) -> None:
    bentoml.body_kind(text)
    bentoml.item_format(text)
    attempt(lambda: MultipartReader(text))
    attempt(lambda: MultipartReader(f"multipart/form-data; boundary={text}"))


if __name__ == "__main__":
    # The parser writes a line about every body that it refuses.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    harness.main(check, mutations)
