"""Which of a model's versions are served, as its version policy says.

Pure: numbers in, numbers out. Which versions there are is :mod:`.layout`'s business.
"""

from collections.abc import Iterable

from modelport.specs import VersionPolicy

__all__ = ["absent_versions", "choose_versions"]


def choose_versions(policy: VersionPolicy | None, available: Iterable[int]) -> tuple[int, ...]:
    """Pick the versions to serve, lowest first.

    Without a policy only the highest is served. A specific version that is not there is left out,
    as Triton does: the operator may list one that has yet to be copied into place.
    """
    present = sorted(set(available))
    if policy is not None and policy.all is not None:
        return tuple(present)
    if policy is not None and policy.specific is not None:
        wanted = set(policy.specific.versions)
        return tuple(version for version in present if version in wanted)
    latest = policy.latest if policy is not None else None
    # 0 is what proto3 reads for a number that was not written.
    count = (latest.num_versions or 1) if latest is not None else 1
    return tuple(present[-count:])


def absent_versions(policy: VersionPolicy | None, available: Iterable[int]) -> tuple[int, ...]:
    """Give the versions that a policy names and that are not there, lowest first."""
    if policy is None or policy.specific is None:
        return ()
    return tuple(sorted(set(policy.specific.versions).difference(available)))
