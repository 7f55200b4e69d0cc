"""A short run of fuzz/websocket.py, so that its invariant is held by every change."""

import importlib.util
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from modelport.wire.websocket import Close, Message


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).parents[2] / "fuzz" / "websocket.py"
    spec = importlib.util.spec_from_file_location("fuzz_websocket", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_seeds_are_read_as_what_they_are(fuzz: ModuleType) -> None:
    """A fuzzer whose seeds are all refused looks at error paths only."""
    for seed in fuzz.SEEDS:
        fuzz.check(seed)
    events, code = fuzz.read([fuzz.SEEDS[0][1:]], is_client=False)
    assert code is None
    assert sum(isinstance(event, Message) for event in events) == 3
    assert isinstance(events[-1], Close)


@pytest.mark.slow
def test_no_bytes_break_a_websocket(fuzz: ModuleType) -> None:
    for data in islice(fuzz.mutations(seed=1), 500):
        fuzz.check(data)
