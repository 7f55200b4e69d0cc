import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.repository.versions import absent_versions, choose_versions
from modelport.specs import All, Latest, Specific, VersionPolicy


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (None, (12,)),
        (VersionPolicy(), (12,)),
        (VersionPolicy(latest=Latest()), (12,)),
        (VersionPolicy(latest=Latest(num_versions=2)), (3, 12)),
        (VersionPolicy(latest=Latest(num_versions=0)), (12,)),
        (VersionPolicy(latest=Latest(num_versions=9)), (1, 3, 12)),
        (VersionPolicy(all=All()), (1, 3, 12)),
        (VersionPolicy(specific=Specific(versions=(3, 1))), (1, 3)),
        (VersionPolicy(specific=Specific(versions=(2, 12))), (12,)),
        (VersionPolicy(specific=Specific(versions=(2,))), ()),
    ],
)
def test_policy_picks(policy: VersionPolicy | None, chosen: tuple[int, ...]) -> None:
    assert choose_versions(policy, [12, 1, 3]) == chosen


@pytest.mark.parametrize("policy", [None, VersionPolicy(all=All())])
def test_nothing_is_picked_from_nothing(policy: VersionPolicy | None) -> None:
    assert choose_versions(policy, []) == ()


def test_versions_that_are_asked_for_and_not_there_are_named() -> None:
    policy = VersionPolicy(specific=Specific(versions=(7, 1, 2, 7)))
    assert absent_versions(policy, [1, 3]) == (2, 7)
    for other in (None, VersionPolicy(all=All()), VersionPolicy(latest=Latest(num_versions=9))):
        assert absent_versions(other, [1]) == ()


_VERSIONS = st.lists(st.integers(1, 2**63 - 1))


@given(_VERSIONS, st.integers(1, 50))
def test_latest_picks_the_highest_in_rising_order(available: list[int], count: int) -> None:
    chosen = choose_versions(VersionPolicy(latest=Latest(num_versions=count)), available)
    left = set(available) - set(chosen)
    assert len(chosen) == min(count, len(set(available)))
    assert list(chosen) == sorted(chosen)
    assert all(version < min(chosen) for version in left)


@given(_VERSIONS, _VERSIONS)
def test_specific_picks_what_is_both_wanted_and_there(
    available: list[int], wanted: list[int]
) -> None:
    policy = VersionPolicy(specific=Specific(versions=tuple(wanted)))
    assert set(choose_versions(policy, available)) == set(available) & set(wanted)
