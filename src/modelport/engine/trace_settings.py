"""What may be set about traces; apart from them, because a launch line is read before all else."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from modelport.errors import InvalidRequest

__all__ = ["TraceSettings", "parse_setting"]

LEVELS: Final = ("OFF", "TIMESTAMPS", "TENSORS")


class TraceSettings(Struct, frozen=True, kw_only=True):
    """What is traced.

    Attributes:
        levels: ``TIMESTAMPS`` and ``TENSORS``; empty for off.
        rate: One of so many requests is traced.
        count: How many more are; -1 for no limit.
        log_frequency: Traces to a file; 0 for all in one.
    """

    levels: tuple[str, ...] = ()
    rate: int = 1000
    count: int = -1
    log_frequency: int = 0


def parse_setting(name: str, values: Sequence[str]) -> Any:
    """Read a setting.

    Args:
        name: ``trace_level``, ``trace_rate``, ``trace_count`` or ``log_frequency``.
        values: One, but for the level.

    Raises:
        InvalidRequest: A value is none of those that there are.
    """
    if name == "trace_level":
        return _levels(values)
    if len(values) != 1:
        raise InvalidRequest(f"expect only 1 value for '{name}', got {len(values)}")
    text = values[0]
    least = _LEAST[name]
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18 and int(text) >= least):
        raise InvalidRequest(
            f"Unable to parse '{name}', got: {text[:40]}. An integer from {least} on is needed."
        )
    return int(text)


def _levels(values: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        if value not in LEVELS:
            raise InvalidRequest(
                f"unknown trace level '{value[:40]}'. There are {', '.join(LEVELS)}."
            )
    if "OFF" in values:
        return ()
    return tuple(level for level in LEVELS if level in values)


_LEAST: Final = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}
