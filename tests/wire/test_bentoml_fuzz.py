"""A short run of fuzz/bentoml.py, so that its invariant is held by every change."""

from itertools import islice

import pytest

from fuzz import bentoml as fuzz
from modelport.wire.bentoml import decode_error, decode_schema, read_urlencoded
from modelport.wire.multipart import read_parts


def test_seeds_are_read_as_what_they_are() -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    for seed in fuzz.SEEDS:
        fuzz.check(seed)
    bodies = [seed[fuzz.SETTINGS :] for seed in fuzz.SEEDS]
    for body, count in ((bodies[0], 2), (bodies[1], 1), (bodies[3], 5), (bodies[4], 1)):
        assert len(read_parts(fuzz.FORM, body)) == count
    assert read_urlencoded(bodies[5])["a"] == ["1", " x"]
    assert [decode_error(body) for body in bodies[7:9]] == ["no", "no"]
    assert [each.name for each in decode_schema(bodies[9]).routes] == ["call", "root"]


@pytest.mark.slow
def test_no_body_gives_anything_but_a_value_or_an_error_of_ours() -> None:
    for data in islice(fuzz.mutations(seed=1), 2000):
        fuzz.check(data)
