"""What has changed in the repositories between two looks at them, and whether it has settled.

Models are copied, not conjured: a look may find half a file. So a change counts only once two
looks in a row have seen the same, and what has not settled yet is left alone. Nothing here reads
a disk or a clock; a stamp is whatever equals another one while nothing has changed.
"""

from collections.abc import Mapping

from msgspec import Struct

__all__ = ["Changes", "Stamps", "find_changes"]

Stamps = Mapping[str, object]
"""What a look has seen: of each model that is there, something that changes with its files."""


class Changes(Struct, frozen=True):
    """What a look asks for.

    Attributes:
        loads: Models that came or changed, and stand still.
        unloads: Models that have gone, and stay away.
        is_unsettled: Whether something else is on the move, so that another look is worth while.
    """

    loads: tuple[str, ...] = ()
    unloads: tuple[str, ...] = ()
    is_unsettled: bool = False


def find_changes(known: Stamps, before: Stamps, now: Stamps) -> Changes:
    """Say what to do about what two looks have seen.

    Args:
        known: As of the last load of each model, whether that went well or not.
        before: Of the look before. Pass ``now`` again to take everything as settled.
        now: Of this look.
    """
    loads = [name for name, stamp in now.items() if name not in known or known[name] != stamp]
    unloads = [name for name in known if name not in now]
    settled_loads = [name for name in loads if name in before and before[name] == now[name]]
    settled_unloads = [name for name in unloads if name not in before]
    return Changes(
        tuple(sorted(settled_loads)),
        tuple(sorted(settled_unloads)),
        len(settled_loads) < len(loads) or len(settled_unloads) < len(unloads),
    )
