from hypothesis import given
from hypothesis import strategies as st

from modelport.repository.polling import Changes, find_changes

STAMPS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


def test_what_came_is_loaded_once_it_stands_still() -> None:
    assert find_changes({}, {}, {"m": 1}) == Changes(is_unsettled=True)
    assert find_changes({}, {"m": 1}, {"m": 2}) == Changes(is_unsettled=True)
    assert find_changes({}, {"m": 2}, {"m": 2}) == Changes(loads=("m",))


def test_what_changed_is_loaded_once_it_stands_still() -> None:
    assert find_changes({"m": 1}, {"m": 1}, {"m": 2}) == Changes(is_unsettled=True)
    assert find_changes({"m": 1}, {"m": 2}, {"m": 2}) == Changes(loads=("m",))
    assert find_changes({"m": 2}, {"m": 2}, {"m": 2}) == Changes()


def test_what_went_is_unloaded_once_it_stays_away() -> None:
    assert find_changes({"m": 1}, {"m": 1}, {}) == Changes(is_unsettled=True)
    assert find_changes({"m": 1}, {}, {}) == Changes(unloads=("m",))
    assert find_changes({"m": 1}, {}, {"m": 1}) == Changes()


@given(STAMPS, STAMPS, STAMPS)
def test_only_what_two_looks_agree_on_is_done(
    known: dict[str, int], before: dict[str, int], now: dict[str, int]
) -> None:
    changes = find_changes(known, before, now)
    for name in changes.loads:
        assert before[name] == now[name] != known.get(name)
    for name in changes.unloads:
        assert name in known
        assert name not in before
        assert name not in now
    if not changes.is_unsettled:
        # All that differs from what is known is taken care of, and the next look finds nothing.
        done = {name: stamp for name, stamp in known.items() if name not in changes.unloads}
        done |= {name: now[name] for name in changes.loads}
        assert done == now
        assert find_changes(done, now, now) == Changes()


@given(STAMPS, STAMPS)
def test_what_is_said_to_have_settled_is_done_at_once(
    known: dict[str, int], now: dict[str, int]
) -> None:
    assert not find_changes(known, now, now).is_unsettled
