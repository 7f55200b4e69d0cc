"""A short run of fuzz/websocket.py, so that its invariant is held by every change."""

from itertools import islice

import pytest

from fuzz import websocket as fuzz
from modelport.wire.websocket import Close, Message


def test_seeds_are_read_as_what_they_are() -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    for seed in fuzz.SEEDS:
        fuzz.check(seed)
    events, code = fuzz.read([fuzz.SEEDS[0][1:]], is_client=False)
    assert code is None
    assert sum(isinstance(event, Message) for event in events) == 3
    assert isinstance(events[-1], Close)


@pytest.mark.slow
def test_no_bytes_break_a_websocket() -> None:
    for data in islice(fuzz.mutations(seed=1), 500):
        fuzz.check(data)
