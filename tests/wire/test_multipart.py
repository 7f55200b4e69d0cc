"""Multipart bodies as bytes, whole, in pieces, and wrong."""

import contextlib
import time

import pytest

from modelport.errors import InvalidRequest, TooLarge
from modelport.wire.multipart import (
    MultipartReader,
    PartBegun,
    PartData,
    PartEnded,
    encode_part,
    encode_parts,
    read_parts,
)

FORM = "multipart/form-data; boundary=b"
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n[1]\r\n'
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n\x89\r\n-\r\n--b--\r\n"
)
PARTS = [
    (PartBegun("n", None, ""), b"[1]"),
    (PartBegun("f", "a.png", "image/png"), b"\x89\r\n-"),
]


def test_parts_are_read_and_written() -> None:
    assert read_parts(FORM, BODY) == PARTS
    heads = [
        (
            encode_part("b", begun.name, filename=begun.filename, content_type=begun.content_type),
            data,
        )
        for begun, data in PARTS
    ]
    assert b"".join(encode_parts("b", heads)) == BODY


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_body_says_the_same_in_any_pieces(step: int) -> None:
    reader = MultipartReader(FORM)
    events = [
        event
        for at in range(0, len(BODY), step)
        for event in reader.feed(memoryview(BODY)[at : at + step])
    ]
    reader.end()
    begun = [event for event in events if isinstance(event, PartBegun)]
    assert begun == [part for part, _ in PARTS]
    data = b"".join(event.data for event in events if isinstance(event, PartData))
    assert data == b"[1]\x89\r\n-"
    assert events.count(PartEnded()) == 2


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize(
    ("before", "is_good"), [(b"", True), (b"\r\n\r\n", True), (b"\nx\r\n", False), (b"x", False)]
)
def test_only_empty_lines_may_come_before_the_first_part(
    before: bytes, is_good: bool, step: int
) -> None:
    body = before + BODY
    reader = MultipartReader(FORM)

    def read() -> None:
        for at in range(0, len(body), step):
            list(reader.feed(body[at : at + step]))
        reader.end()

    if is_good:
        read()
    else:
        with pytest.raises(InvalidRequest):
            read()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "ends before its last boundary"),
        (BODY[:-6], "ends before its last boundary"),
        (b"--c\r\n", "cannot be read"),
        (b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--\r\n", "has no name"),
        (b"--b\r\nX: " + b"x" * 5000 + b"\r\n\r\n\r\n--b--\r\n", "cannot be read"),
    ],
)
def test_a_bad_body_says_what_is_wrong(body: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        read_parts(FORM, body)


def test_there_are_only_so_many_parts() -> None:
    body = b"".join(encode_parts("b", [(encode_part("b", "n"), b"")] * 3))
    assert len(list(MultipartReader(FORM, most_parts=3).feed(body))) == 6
    with pytest.raises(TooLarge, match="more than 2 parts"):
        MultipartReader(FORM, most_parts=2).feed(body)


@pytest.mark.parametrize("content_type", ["", "multipart/form-data", FORM + "b" * 70])
def test_a_body_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest, match="no boundary"):
        MultipartReader(content_type)


@pytest.mark.parametrize(
    ("said", "filename"),
    [
        (b"filename*=UTF-8''%e2%82%ac%20rates.txt", "€ rates.txt"),
        (b"filename*=utf-8'en'a.txt", "a.txt"),
        (b"filename*=ISO-8859-1''%A3.txt", "£.txt"),
        (b"FileName* = \"UTF-8''quoted.txt\"", "quoted.txt"),
        (b"filename*=UTF-8''%ff", "\ufffd"),
        (b"filename*=unreadable", ""),
        (b"filename=plain.txt; filename*=UTF-8''other.txt", "plain.txt"),
        (b"x=\"; filename*=UTF-8''inside.txt\"", None),
        (b"x=1", None),
    ],
)
def test_the_extended_form_of_a_name_makes_a_file(said: bytes, filename: str | None) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="f"; ' + said + b"\r\n\r\n1\r\n--b--\r\n"
    ((begun, data),) = read_parts(FORM, body)
    assert (begun.name, begun.filename, data) == ("f", filename, b"1")


@pytest.mark.parametrize(
    "said",
    [b"; " + b" " * 3900 + b"x", b'; a="' * 700, b";filename*" * 380, b'"\\' * 1900, b"='" * 1900],
)
def test_a_head_that_is_made_to_be_slow_is_read_at_once(said: bytes) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="f"' + said + b"\r\n\r\n"
    started = time.perf_counter()
    with contextlib.suppress(InvalidRequest):
        for _ in range(10):
            read_parts(FORM, head + b"1\r\n--b--\r\n")
    assert time.perf_counter() - started < 1
