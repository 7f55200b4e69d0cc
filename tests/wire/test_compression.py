import gzip
import random
import time
import tracemalloc
import zlib

import pytest

from modelport.errors import InvalidRequest, TooLarge, Unsupported
from modelport.wire.compression import (
    PIECE_BYTES,
    check_coding,
    choose_coding,
    compress,
    decompress,
)

TEXT = b"tensors " * 1000


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        (" GZip ", "gzip"),
        ("deflate", "deflate"),
    ],
)
def test_codings_of_requests(header: str | None, coding: str | None) -> None:
    assert check_coding(header) == coding


@pytest.mark.parametrize("header", ["br", "gzip, deflate", "zstd"])
def test_other_codings_are_not_supported(header: str) -> None:
    with pytest.raises(Unsupported, match=r"^Unsupported compression type"):
        check_coding(header)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0.5, deflate;q=0.5", "gzip"),
        ("identity, gzip", None),
        ("identity;q=0.1, gzip;q=0.2", "gzip"),
        ("gzip;q=0", None),
        ("br, *", None),
        ("br;q=1, GZIP;q=0.1", "gzip"),
        ("gzip;q=nonsense, deflate;q=0.1", "deflate"),
        ("gzip;q=7", None),
        (",,;q=1,", None),
    ],
)
def test_the_best_liked_coding_is_chosen(header: str | None, coding: str | None) -> None:
    assert choose_coding(header) == coding


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_pieces_come_back_as_one(coding: str) -> None:
    pieces = compress([TEXT[:10], memoryview(TEXT)[10:]], coding)
    folded = b"".join(pieces)
    assert len(folded) < len(TEXT)
    assert decompress(folded, coding, len(TEXT)) == TEXT
    assert decompress(memoryview(folded), coding, len(TEXT)) == TEXT


def test_other_programs_read_and_write_the_same() -> None:
    assert gzip.decompress(b"".join(compress([TEXT], "gzip"))) == TEXT
    assert zlib.decompress(b"".join(compress([TEXT], "deflate"))) == TEXT
    assert decompress(gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), "gzip", 10_000) == TEXT


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b[:5], lambda b: b"x" + b, lambda b: b + b"x", lambda b: b""],
)
def test_what_is_damaged_is_refused(coding: str, damage: object) -> None:
    assert callable(damage)
    folded = b"".join(compress([TEXT], coding))
    with pytest.raises(InvalidRequest, match=f"^failed to decompress the {coding} body: "):
        decompress(damage(folded), coding, 10_000)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_stops_at_the_limit(coding: str) -> None:
    bomb = b"".join(compress([bytes(50_000_000)], coding))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="maximum of 100000 bytes after decompression"):
        decompress(bomb, coding, 100_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_many_members_count_together() -> None:
    bomb = gzip.compress(bytes(1000)) * 101
    with pytest.raises(TooLarge):
        decompress(bomb, "gzip", 100_000)


def test_members_of_any_size_are_read() -> None:
    folded = b"".join(gzip.compress(bytes([at % 256]) * at * 3) for at in range(2000))
    assert len(folded) > PIECE_BYTES
    whole = b"".join(bytes([at % 256]) * at * 3 for at in range(2000))
    assert decompress(folded, "gzip", len(whole)) == whole
    noise = random.Random(0).randbytes(3 * PIECE_BYTES)
    assert decompress(gzip.compress(noise) + gzip.compress(b""), "gzip", len(noise)) == noise


def test_millions_of_empty_members_are_refused_at_once() -> None:
    """They took hours, each one of them a copy of all that followed."""
    body = gzip.compress(b"") * 1_000_000
    started = time.perf_counter()
    with pytest.raises(InvalidRequest, match="has more than 4096 members"):
        decompress(body, "gzip", 1000)
    assert time.perf_counter() - started < 2
