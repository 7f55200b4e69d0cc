"""A short run of fuzz/http2_server.py, so that its invariant is held by every change."""

from collections.abc import Iterable
from itertools import islice

import pytest

from fuzz import http2_server as fuzz
from modelport.server.grpc import GrpcCall
from modelport.wire.http2 import Endpoint, Stream


def test_seeds_are_understood() -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    seen = [call for seed in fuzz.SEEDS for call in fuzz.Run([[seed[1:]]], is_stuck=False).seen]
    assert {path for path, _ in seen} >= {"/e", "/b", "/l", "/s", "/g", "/p"}
    for seed in fuzz.SEEDS:
        fuzz.check(seed)


@pytest.mark.slow
def test_no_bytes_break_the_listener() -> None:
    for data in islice(fuzz.mutations(seed=1), 400):
        fuzz.check(data)


def test_credit_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariant can fail."""

    def account(self: Endpoint, stream: Stream | None, count: int) -> None:
        pass

    monkeypatch.setattr(Endpoint, "_account", account)
    assert _breaks(islice(fuzz.mutations(seed=1), 50))


def test_a_call_that_is_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GrpcCall, "_cancel", lambda self: None)
    assert _breaks(islice(fuzz.mutations(seed=1), 100))


def _breaks(inputs: Iterable[bytes]) -> bool:
    try:
        for data in inputs:
            fuzz.check(data)
    except AssertionError:
        return True
    return False
