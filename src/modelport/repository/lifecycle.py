"""The life of one version of one model, as a pure state machine.

A version can be in two minds: it serves while its successor loads, and what it has given up drains
while it loads anew. So the state keeps the facts apart, and the phase that clients see in the
index follows from them::

                     is_serving ──────────────────────────▶ READY
                     else is_loading ─────────────────────▶ LOADING
                     else draining > 0 ───────────────────▶ UNLOADING
                     else a reason ───────────────────────▶ UNAVAILABLE
                     else ────────────────────────────────▶ UNKNOWN

This file knows neither threads nor files: it is told what happened.
"""

import enum

from msgspec import Struct
from msgspec.structs import replace

__all__ = [
    "UNLOADED",
    "Drained",
    "Event",
    "Failed",
    "IllegalEvent",
    "Loaded",
    "Loading",
    "Phase",
    "Retired",
    "VersionState",
    "advance",
]

UNLOADED = "unloaded"
"""The one reason for being unavailable that is nobody's fault."""


class Phase(enum.StrEnum):
    """What the index calls it."""

    UNKNOWN = "UNKNOWN"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class VersionState(Struct, frozen=True):
    """What is known of one version.

    Attributes:
        is_serving: Whether it answers requests.
        is_loading: Whether instances of it are coming up, be it for the first time or again.
        draining: Generations of it that take no new requests and have not finished the old ones.
        reason: Why it does not serve; "" while it does, and before anything happened.
    """

    is_serving: bool = False
    is_loading: bool = False
    draining: int = 0
    reason: str = ""

    @property
    def phase(self) -> Phase:
        """The state that the index shows."""
        if self.is_serving:
            return Phase.READY
        if self.is_loading:
            return Phase.LOADING
        if self.draining:
            return Phase.UNLOADING
        return Phase.UNAVAILABLE if self.reason else Phase.UNKNOWN

    @property
    def has_failed(self) -> bool:
        """Whether it does not serve although it should."""
        return not self.is_serving and self.reason not in ("", UNLOADED)


class Loading(Struct, frozen=True):
    """Instances began to come up."""


class Loaded(Struct, frozen=True):
    """They are up and serve, in place of those before them."""


class Failed(Struct, frozen=True):
    """They did not come up; what served before still does."""

    reason: str


class Retired(Struct, frozen=True):
    """It takes no new requests from now on."""

    reason: str = UNLOADED


class Drained(Struct, frozen=True):
    """A generation that was retired has given everything back."""


Event = Loading | Loaded | Failed | Retired | Drained


class IllegalEvent(Exception):
    """An event came that cannot come in this state: a bug in who reports events."""


def advance(state: VersionState, event: Event) -> VersionState:
    """Give the state after an event.

    Raises:
        IllegalEvent: If it cannot happen in this state.
    """
    match event:
        case Loading():
            _expect(not state.is_loading, state, event)
            return replace(state, is_loading=True)
        case Loaded():
            _expect(state.is_loading, state, event)
            return replace(state, is_loading=False, is_serving=True, reason="")
        case Failed(reason):
            _expect(state.is_loading and bool(reason), state, event)
            return replace(state, is_loading=False, reason="" if state.is_serving else reason)
        case Retired(reason):
            _expect(bool(reason), state, event)
            if state.is_serving:
                return replace(state, is_serving=False, draining=state.draining + 1, reason=reason)
            # Taking down what never came up forgives its failure.
            return replace(state, reason=reason) if state.reason else state
        case Drained():
            _expect(state.draining > 0, state, event)
            return replace(state, draining=state.draining - 1)


def _expect(fact: bool, state: VersionState, event: Event) -> None:
    if not fact:
        raise IllegalEvent(f"{event} cannot happen in {state}")
