"""What the operator decides about models as a whole: what is loaded, when, and how."""

import enum

from msgspec import Struct, field

from modelport.repository.loading import LoadOptions

__all__ = ["ControlMode", "LoadOptions", "RepositoryOptions"]


class ControlMode(enum.StrEnum):
    """Who decides what is loaded."""

    NONE = "none"
    """The repository: all of it is loaded at start, and nothing changes afterwards."""

    POLL = "poll"
    """The repository, also afterwards: what comes, changes or goes there does so here."""

    EXPLICIT = "explicit"
    """The operator: names at start, load and unload requests afterwards."""


class RepositoryOptions(Struct, frozen=True, kw_only=True):
    """What the operator decides.

    Attributes:
        control_mode: Who decides what is loaded.
        load_models: In explicit mode, what is loaded at start; ``*`` is everything.
        config_name: Picks one of several configurations of each model; "" for the usual one.
        load: How models are loaded.
        most_loading: Versions that may come up at once. Triton's default is 4 too: loading is
            half reading files, half work that frameworks spread over cores themselves.
        poll_s: In poll mode, seconds between two looks at the disk.
        settle_s: Seconds for which files must have stood still before they are loaded; longer
            ones are cut to ``poll_s``.
    """

    control_mode: ControlMode = ControlMode.NONE
    load_models: tuple[str, ...] = ()
    config_name: str = ""
    load: LoadOptions = field(default_factory=LoadOptions)
    most_loading: int = 4
    poll_s: float = 15.0
    settle_s: float = 2.0
