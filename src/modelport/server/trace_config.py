"""``--trace-config``: what is traced from the start, and where to."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from modelport.engine.trace_settings import TraceSettings, parse_setting
from modelport.errors import InvalidRequest

__all__ = ["TraceStart", "parse_trace_config"]


class TraceStart(Struct, frozen=True):
    """What is traced from the start.

    Attributes:
        settings: For all models.
        file: Where traces go; "" for nowhere.
    """

    settings: TraceSettings = field(default_factory=TraceSettings)
    file: str = ""


def parse_trace_config(texts: Sequence[str]) -> TraceStart:
    """Read the values of the option, each ``[MODE,]SETTING=VALUE``.

    Raises:
        ValueError: With what is wrong, and what would be right.
    """
    levels: list[str] = []
    given: dict[str, Any] = {}
    file = ""
    for text in texts:
        key, _, value = text.partition("=")
        match key:
            case "level":
                levels.append(value)
            case "rate" | "count" | "log-frequency" | "triton,log-frequency":
                name = _NAMES[key.removeprefix("triton,")]
                given[name.removeprefix("trace_")] = _parsed(name, value)
            case "mode":
                _check_mode(value)
            case "triton,file" | "file":
                file = value
            case _:
                _check_mode(key.partition(",")[0] if "," in key else "triton")
                raise ValueError(
                    f"has no setting {key}; there are level, rate, count, mode, triton,file and "
                    "triton,log-frequency"
                )
    if levels:
        try:
            given["levels"] = parse_setting("trace_level", levels)
        except InvalidRequest as exc:
            raise ValueError(exc.text) from None
    if given.get("levels") and not file:
        raise ValueError("has a level and no file; add triton,file=trace.json")
    return TraceStart(TraceSettings(**given), file)


def _parsed(name: str, value: str) -> Any:
    try:
        return parse_setting(name, [value])
    except InvalidRequest as exc:
        raise ValueError(exc.text) from None


def _check_mode(mode: str) -> None:
    if mode != "triton":
        raise ValueError(f"has the mode {mode}, which is not offered; say triton")


_NAMES = {"rate": "trace_rate", "count": "trace_count", "log-frequency": "log_frequency"}
