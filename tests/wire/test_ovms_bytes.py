"""Both dialects of BYTES, literally and by property."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport import dtypes
from modelport.errors import InvalidRequest
from modelport.wire.ovms_bytes import implied_size, sizes_of, split

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"
PNG = b"\x89PNG\r\n\x1a\n...."


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        (370, [370]),
        (0, [0]),
        ("370", [370]),
        ("370,480,500", [370, 480, 500]),
        (" 370 , 480", [370, 480]),
        ([370, 480], [370, 480]),
    ],
)
def test_sizes_come_as_a_number_a_list_or_a_text(value: object, sizes: list[int]) -> None:
    assert sizes_of(value, "image") == sizes


@pytest.mark.parametrize(
    "value",
    [-1, True, 1.0, None, {}, [], "", "370,", "-1", "1.5", "x", "1 2", [1, "2"], [-1], "9" * 30,
     "1" + ",1" * 70_000],
)  # fmt: skip
def test_other_sizes_are_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="'binary_data_size' of input 'image' must be"):
        sizes_of(value, "image")


def test_what_does_not_say_its_size_takes_what_its_shape_says_or_all_that_is_left() -> None:
    assert implied_size(dtypes.FP32, (2, 3), 1000) == 24
    assert implied_size(dtypes.BYTES, (1,), 1000) == 1000


def test_elements_with_lengths_are_of_the_new_kind() -> None:
    data = b"\x03\x00\x00\x00abc\x00\x00\x00\x00"
    assert split(data, [len(data)], 2) == [b"abc", b""]


def test_one_bare_image_is_of_the_old_kind() -> None:
    assert split(JPEG, [len(JPEG)], 1) == [JPEG]


def test_listed_bare_elements_are_cut_where_the_list_says() -> None:
    assert split(JPEG + PNG, [len(JPEG), len(PNG)], 2) == [JPEG, PNG]


@pytest.mark.parametrize(
    ("data", "sizes", "count"),
    [(b"abc", [3], 1), (JPEG + PNG, [10 + 12], 2), (JPEG + PNG, [10, 12], 3), (b"", [0], 1)],
)
def test_what_is_neither_is_not_guessed(data: bytes, sizes: list[int], count: int) -> None:
    assert split(data, sizes, count) is None


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_elements_with_lengths_come_back(elements: list[bytes]) -> None:
    data = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    assert split(data, [len(data)], len(elements)) == elements


@given(st.lists(st.tuples(st.sampled_from([JPEG, PNG]), st.binary(max_size=50)), min_size=1))
def test_bare_images_come_back(parts: list[tuple[bytes, bytes]]) -> None:
    images = [magic + rest for magic, rest in parts]
    assert split(b"".join(images), [len(image) for image in images], len(images)) == images
