"""A short run of fuzz/http_server.py, so that its invariant is held by every change."""

import re
from collections.abc import Iterable
from itertools import islice

import pytest

from fuzz import http_server as fuzz
from modelport.server.http import Connection
from modelport.wire import chunked


def test_seeds_are_understood() -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    seen = [len(fuzz.Run([seed[1:]], is_stuck=False).seen) for seed in fuzz.SEEDS]
    assert seen == [5, 3, 2, 3, 1, 1, 5, 1, 2]
    for seed in fuzz.SEEDS:
        fuzz.check(seed)


@pytest.mark.slow
def test_no_bytes_break_the_listener() -> None:
    for data in islice(fuzz.mutations(seed=1), 1000):
        fuzz.check(data)


def test_what_is_lost_between_pieces_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariant can fail."""
    monkeypatch.setattr(Connection, "_keep_for_later", lambda self, data: None)
    assert _breaks(islice(fuzz.mutations(seed=1), 200))


def test_a_body_that_llhttp_reads_differently_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"\0POST /a" + fuzz.CHUNKED + b"\r\n 5\r\nhello\r\n0\r\n\r\n"
    assert not _breaks([body])
    monkeypatch.setattr(chunked, "_SIZE_LINE", re.compile(rb"\s*([0-9A-Fa-f]+)\r\n"))
    assert _breaks([body])


def _breaks(inputs: Iterable[bytes]) -> bool:
    try:
        for data in inputs:
            fuzz.check(data)
    except AssertionError:
        return True
    return False
