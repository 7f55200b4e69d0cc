"""What the index says of a model, from what happened to its versions."""

import asyncio

import pytest

from modelport.repository.lifecycle import (
    Drained,
    Event,
    Failed,
    Loaded,
    Loading,
    Phase,
    Retired,
)
from modelport.repository.model import IndexRow, Model


def told(*events: Event, failure: str = "", went_with: str = "") -> Model:
    """Make a model whose version 1 has been through these events."""
    model = Model("m", failure=failure, went_with=went_with)
    for event in events:
        model.tell(1, event)
    return model


@pytest.mark.parametrize(
    ("model", "state", "reason"),
    [
        (told(Loading()), Phase.LOADING, ""),
        (told(Loading(), Loaded()), Phase.READY, ""),
        (told(Loading(), Failed("no room")), Phase.UNAVAILABLE, "no room"),
        (told(Loading(), Failed("no room"), failure="all"), Phase.UNAVAILABLE, "no room"),
        (told(Loading(), Loaded(), Retired()), Phase.UNLOADING, ""),
        (told(Loading(), Loaded(), Retired(), Drained()), Phase.UNAVAILABLE, "unloaded"),
        (
            told(Loading(), Loaded(), Retired(), Drained(), went_with="part"),
            Phase.UNAVAILABLE,
            "unloaded, because model 'part', which it needs, was unloaded",
        ),
        (
            told(Loading(), Loaded(), Retired(), Drained(), failure="unreadable"),
            Phase.UNAVAILABLE,
            "unreadable",
        ),
        (
            told(Loading(), Loaded(), failure="unreadable"),
            Phase.READY,
            "serves as it was, and could not be loaded anew: unreadable",
        ),
    ],
)
def test_a_version_says_its_state_and_why_it_does_not_serve(
    model: Model, state: Phase, reason: str
) -> None:
    assert model.rows() == [IndexRow("m", "1", state, reason)]


def test_a_model_without_versions_tells_only_what_failed() -> None:
    assert Model("m").rows() == [IndexRow("m")]
    failed = Model("m", failure="unreadable")
    assert failed.rows() == [IndexRow("m", None, Phase.UNAVAILABLE, "unreadable")]


def test_versions_are_listed_by_number() -> None:
    model = Model("m")
    for version in (10, 9):
        model.tell(version, Loading())
    assert [row.version for row in model.rows()] == ["9", "10"]


def test_a_model_is_not_over_while_somebody_holds_it() -> None:
    async def main() -> None:
        model = told(Loading(), Loaded(), Retired(), Drained())
        assert model.is_over()
        async with model.held():
            assert not model.is_over()
        assert model.is_over()

    asyncio.run(main())
