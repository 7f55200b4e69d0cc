"""A short run of fuzz/v2_rest.py, so that its invariant is held by every change."""

import importlib.util
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest


def _fuzz() -> ModuleType:
    path = Path(__file__).parents[2] / "fuzz" / "v2_rest.py"
    spec = importlib.util.spec_from_file_location("fuzz_v2_rest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_seeds_are_read_as_what_they_are() -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    fuzz = _fuzz()
    for seed in fuzz.SEEDS:
        fuzz.check(seed)
    body = fuzz.SEEDS[0][3:]
    assert fuzz.decode_infer_request(body, None, "m", fuzz.OPTIONS).request.payload.tensors


@pytest.mark.slow
def test_no_body_gives_anything_but_a_message_or_an_error_of_ours() -> None:
    fuzz = _fuzz()
    for data in islice(fuzz.mutations(seed=1), 1500):
        fuzz.check(data)
