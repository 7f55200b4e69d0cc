"""A short run of fuzz/v2_rest.py, so that its invariant is held by every change."""

from itertools import islice

import pytest

from fuzz import v2_rest as fuzz
from modelport.wire.v2_rest import decode_infer_request


def test_seeds_are_read_as_what_they_are() -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    for seed in fuzz.SEEDS:
        fuzz.check(seed)
    body = fuzz.SEEDS[0][3:]
    assert decode_infer_request(body, None, "m", fuzz.OPTIONS).request.payload.tensors


@pytest.mark.slow
def test_no_body_gives_anything_but_a_message_or_an_error_of_ours() -> None:
    for data in islice(fuzz.mutations(seed=1), 1500):
        fuzz.check(data)
