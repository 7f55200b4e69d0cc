"""What is known of one model: the states of its versions, which of them serve, and why not.

Bookkeeping only, on the event loop; what is done about it is :mod:`.rollout`'s business and
:mod:`.repository`'s. How a state follows from the one before stands in :mod:`.lifecycle`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct, field

from modelport.repository.ensembles import member_names
from modelport.repository.lifecycle import UNLOADED, Event, Phase, VersionState, advance
from modelport.repository.loading import ModelVersion
from modelport.repository.reading import Override

__all__ = ["IndexRow", "Live", "Model", "absent_text"]


class IndexRow(Struct, frozen=True):
    """One line of the index.

    Attributes:
        name: Of the model.
        version: ``None`` where nothing is known but the model's name.
        state: ``None`` for a model that nobody has loaded yet.
        reason: Why it does not serve; "" where there is nothing to say.
    """

    name: str
    version: str | None = None
    state: Phase | None = None
    reason: str = ""


class Live(Struct, eq=False):
    """A version that serves, and what it was made of.

    Attributes:
        version: It.
        signature: Of its files, as they were read; see ``Reading.signature_by_version``.
    """

    version: ModelVersion
    signature: tuple[object, ...]


class Model(Struct, eq=False):
    """What is known of one model.

    Attributes:
        name: Of the model.
        lock: Held by who loads or unloads it; see ``held``.
        holders: How many hold the lock, or wait for it.
        states: Of every version that was ever loaded, or was to be.
        live: The versions that serve.
        override: What the last load request replaced, and no later one has taken back.
        needs: The models that it is made of, as it was read last.
        failure: What the last load failed with; "" if it did not.
        is_named: Whether somebody asked for it by name, and not only for an ensemble of it.
        went_with: The member that was unloaded, and took this ensemble along; "" if none was.
        absent: Versions that its version policy names and that were not there to be loaded.
    """

    name: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    states: dict[int, VersionState] = field(default_factory=dict)
    live: dict[int, Live] = field(default_factory=dict)
    override: Override | None = None
    needs: frozenset[str] = frozenset()
    failure: str = ""
    is_named: bool = False
    went_with: str = ""
    holders: int = 0
    absent: tuple[int, ...] = ()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait for the lock and hold it; who does either way is not forgotten meanwhile."""
        self.holders += 1
        try:
            async with self.lock:
                yield
        finally:
            self.holders -= 1

    def replace_override(self, override: Override | None) -> None:
        """Hold what a load request brought, and let go of what the one before did."""
        if override is not None:
            override.hold()
        if self.override is not None:
            self.override.release()
        self.override = override

    def tell(self, version: int, event: Event) -> None:
        """Take down what happened to a version."""
        self.states[version] = advance(self.states.get(version, VersionState()), event)

    @property
    def members(self) -> set[str]:
        """The models that its live versions are made of."""
        return {name for live in self.live.values() for name in member_names(live.version.config)}

    def is_over(self) -> bool:
        """Whether nothing of it is left, and nobody is about to change that."""
        is_down = all(state.phase is Phase.UNAVAILABLE for state in self.states.values())
        return is_down and not self.live and not self.failure and not self.holders

    @property
    def is_unready(self) -> bool:
        """Whether it, or a version of it, does not serve although it should."""
        return bool(self.failure and not self.live) or any(
            state.has_failed or state.phase is Phase.LOADING for state in self.states.values()
        )

    def rows(self) -> list[IndexRow]:
        """Give its lines of the index, but for versions that were never there."""
        if not self.states:
            failed = Phase.UNAVAILABLE if self.failure else None
            return [IndexRow(self.name, None, failed, self.failure)]
        return [
            IndexRow(self.name, str(version), state.phase, _reason(self, state))
            for version, state in sorted(self.states.items())
        ]

    def rows_with_absent(self) -> list[IndexRow]:
        """Give its lines of the index, also for versions that are asked for and were never there.

        These count for nothing but the index: no request finds them, and the server is ready
        without them, as Triton is.
        """
        rows = self.rows()
        if self.live:
            rows += [
                IndexRow(
                    self.name, str(version), Phase.UNAVAILABLE, absent_text(self.name, version)
                )
                for version in self.absent
                if version not in self.states
            ]
            rows.sort(key=lambda row: int(row.version or 0))
        return rows


def absent_text(name: str, version: int) -> str:
    """Say that a version is asked for and not there."""
    return (
        f"version {version} is specified for model '{name}', but the version directory is not "
        f"present; add {version}/ to the model's directory, or take {version} out of its "
        "version_policy"
    )


def _reason(model: Model, state: VersionState) -> str:
    if state.phase is Phase.READY:
        # A version that failed tells of it itself.
        has_told = any(each.has_failed for each in model.states.values())
        is_told = not model.failure or has_told
        return "" if is_told else f"serves as it was, and could not be loaded anew: {model.failure}"
    if state.phase is not Phase.UNAVAILABLE:
        return ""
    if state.reason == UNLOADED and model.went_with:
        return f"{UNLOADED}, because model '{model.went_with}', which it needs, was unloaded"
    # A load that did not get as far as any version says more than how the last one ended.
    return state.reason if state.has_failed or model.live else model.failure or state.reason
