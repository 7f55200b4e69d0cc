"""A short run of fuzz/v2_grpc.py, so that its invariant is held by every change."""

from itertools import islice

import pytest

from fuzz import v2_grpc as fuzz
from modelport.wire.v2_grpc import read_message


def test_seeds_are_read_as_what_they_are() -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    for seed in fuzz.SEEDS:
        fuzz.check(seed)
    for seed in fuzz.SEEDS[:5]:
        assert read_message(seed).bind().payload.tensors


@pytest.mark.slow
def test_no_message_gives_anything_but_a_request_or_an_error_of_ours() -> None:
    for data in islice(fuzz.mutations(seed=1), 5000):
        fuzz.check(data)
