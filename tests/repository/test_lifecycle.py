from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.repository.lifecycle import (
    UNLOADED,
    Drained,
    Event,
    Failed,
    IllegalEvent,
    Loaded,
    Loading,
    Phase,
    Retired,
    VersionState,
    advance,
)

LOADING, LOADED, RETIRED, DRAINED = Loading(), Loaded(), Retired(), Drained()
BROKEN = Failed("the file is broken")


def after(events: Sequence[Event]) -> VersionState:
    state = VersionState()
    for event in events:
        state = advance(state, event)
    return state


@pytest.mark.parametrize(
    ("events", "phase", "reason"),
    [
        ([], Phase.UNKNOWN, ""),
        ([RETIRED], Phase.UNKNOWN, ""),
        ([LOADING], Phase.LOADING, ""),
        ([LOADING, LOADED], Phase.READY, ""),
        ([LOADING, BROKEN], Phase.UNAVAILABLE, "the file is broken"),
        ([LOADING, BROKEN, LOADING, LOADED], Phase.READY, ""),
        ([LOADING, BROKEN, RETIRED], Phase.UNAVAILABLE, UNLOADED),
        ([LOADING, LOADED, LOADING], Phase.READY, ""),
        ([LOADING, LOADED, LOADING, BROKEN], Phase.READY, ""),
        ([LOADING, LOADED, RETIRED], Phase.UNLOADING, UNLOADED),
        ([LOADING, LOADED, RETIRED, DRAINED], Phase.UNAVAILABLE, UNLOADED),
        ([LOADING, LOADED, RETIRED, LOADING], Phase.LOADING, UNLOADED),
        ([LOADING, LOADED, RETIRED, LOADING, LOADED, DRAINED], Phase.READY, ""),
        ([LOADING, LOADED, RETIRED, LOADING, BROKEN], Phase.UNLOADING, "the file is broken"),
        ([LOADING, LOADED, Retired("its member is gone"), DRAINED], Phase.UNAVAILABLE,
         "its member is gone"),
    ],
)  # fmt: skip
def test_events_lead_to(events: list[Event], phase: Phase, reason: str) -> None:
    state = after(events)
    assert (state.phase, state.reason) == (phase, reason)


@pytest.mark.parametrize(
    "events",
    [[LOADED], [BROKEN], [DRAINED], [LOADING, LOADING], [LOADING, LOADED, LOADED],
     [LOADING, LOADED, DRAINED], [LOADING, Failed("")]],
)  # fmt: skip
def test_what_cannot_happen_is_a_bug(events: list[Event]) -> None:
    with pytest.raises(IllegalEvent, match="cannot happen"):
        after(events)


def test_being_unloaded_is_no_failure() -> None:
    assert not after([LOADING, LOADED, RETIRED, DRAINED]).has_failed
    assert not after([LOADING, BROKEN, RETIRED]).has_failed
    assert after([LOADING, BROKEN]).has_failed
    assert not after([LOADING, LOADED, LOADING, BROKEN]).has_failed


_EVENTS = st.lists(
    st.sampled_from([LOADING, LOADED, BROKEN, RETIRED, Retired("moved"), DRAINED]), max_size=40
)


@given(_EVENTS)
def test_every_history_keeps_the_facts_together(events: list[Event]) -> None:
    state = VersionState()
    loads = generations = drained = 0
    for event in events:
        try:
            state = advance(state, event)
        except IllegalEvent:
            continue
        match event:
            case Loading():
                loads += 1
            case Loaded() | Failed():
                loads -= 1
            case Drained():
                drained += 1
        generations = state.draining + drained
        assert loads == state.is_loading
        assert state.draining >= 0
        assert generations >= drained
        assert (state.phase is Phase.READY) == state.is_serving
        assert not (state.is_serving and state.reason)
        if state.phase in (Phase.UNAVAILABLE, Phase.UNLOADING):
            assert state.reason


@given(_EVENTS)
def test_every_history_can_end_in_peace(events: list[Event]) -> None:
    state = VersionState()
    for event in events:
        try:
            state = advance(state, event)
        except IllegalEvent:
            continue
    if state.is_loading:
        state = advance(state, LOADED)
    state = advance(state, RETIRED)
    while state.draining:
        assert state.phase is Phase.UNLOADING
        state = advance(state, DRAINED)
    assert state.phase in (Phase.UNAVAILABLE, Phase.UNKNOWN)
    assert not state.has_failed
