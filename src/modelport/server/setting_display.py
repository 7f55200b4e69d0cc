"""Settings as text for people and as JSON for programs; secrets leave here masked or not at all."""

import re
from typing import Any

import msgspec.structs

from modelport.server.setting_values import OPTIONAL_PORT, CacheConfig, MetricsConfig, Restriction
from modelport.server.settings import Setting

__all__ = ["MASK", "json_value", "shown", "shown_default"]

MASK = "***"


def shown(setting: Setting, value: Any) -> str:
    """Write a value as the help and ``modelport config`` show it; "-" where there is none."""
    if value is None:
        return "off" if setting.kind is OPTIONAL_PORT else "-"
    if isinstance(value, tuple):
        return " ".join(MASK if setting.is_secret else str(item) for item in value) or "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, re.Pattern):
        return _pattern_text(value)
    return str(value)


def shown_default(setting: Setting) -> str | None:
    """Write a default for the help; ``None`` where there is none."""
    if setting.default_text is not None:
        return setting.default_text
    text = shown(setting, setting.default)
    return None if text == "-" else text


def json_value(setting: Setting, value: Any) -> Any:
    """Give a value as what JSON knows."""
    if isinstance(value, tuple):
        return [MASK if setting.is_secret else json_value(setting, item) for item in value]
    if isinstance(value, Restriction):
        return str(value)
    if isinstance(value, MetricsConfig | CacheConfig):
        return msgspec.structs.asdict(value)
    if isinstance(value, re.Pattern):
        return _pattern_text(value)
    return value


def _pattern_text(pattern: re.Pattern[str]) -> str:
    return pattern.pattern if pattern.flags & re.IGNORECASE else f"(?-i){pattern.pattern}"
