"""The kinds of value that a setting can have: each reads the text a person wrote.

A ``parse`` raises ``ValueError`` with what it expected, as the end of a sentence that begins with
"expected"; who called it knows where the text stood and what it was.
"""

import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from modelport.server.flags import SWITCH_WORDS

__all__ = [
    "CACHE_SETTING",
    "COUNT",
    "DEPTH",
    "HEADER_PATTERN",
    "LEASE",
    "METRICS_SETTING",
    "OPTIONAL_PORT",
    "PATH",
    "PIXELS",
    "PORT",
    "POSITIVE_COUNT",
    "RESTRICTION",
    "SECONDS",
    "SECRET",
    "SIZE",
    "SWITCH",
    "TEXT",
    "TRACE_SETTING",
    "CacheConfig",
    "Kind",
    "MetricsConfig",
    "Restriction",
    "choice",
    "gather_cache",
    "gather_metrics",
    "gather_restrictions",
]


class Kind(Struct, frozen=True, eq=False):
    """How one value is written.

    Attributes:
        metavar: What stands for it in help, ``PORT``.
        parse: From text; raises ``ValueError`` with what was expected.
    """

    metavar: str
    parse: Callable[[str], Any]


class Restriction(Struct, frozen=True):
    """API categories that only callers with one header value may use (tritonserver's own lock).

    Attributes:
        categories: Of :data:`RESTRICTED_CATEGORIES`.
        header: Name of the header to send, as written.
        value: What it must hold; a secret.
    """

    categories: tuple[str, ...]
    header: str
    value: str

    def __str__(self) -> str:
        return f"{','.join(self.categories)}:{self.header}=***"

    __repr__ = __str__


class MetricsConfig(Struct, frozen=True):
    """Which families of latency metrics exist.

    Histograms are on, unlike in Triton: they are the only ones that can be added up over several
    servers, and cost one addition per request.
    """

    counter_latencies: bool = True
    summary_latencies: bool = False
    histogram_latencies: bool = True
    summary_quantiles: tuple[tuple[float, float], ...] = (
        (0.5, 0.05),
        (0.9, 0.01),
        (0.95, 0.001),
        (0.99, 0.001),
        (0.999, 0.001),
    )

    def __str__(self) -> str:
        quantiles = ",".join(
            f"{quantile:g}:{error:g}" for quantile, error in self.summary_quantiles
        )
        return (
            f"counter_latencies={str(self.counter_latencies).lower()}"
            f" summary_latencies={str(self.summary_latencies).lower()}"
            f" histogram_latencies={str(self.histogram_latencies).lower()}"
            f" summary_quantiles={quantiles}"
        )


class CacheConfig(Struct, frozen=True):
    """The response cache.

    Attributes:
        size_bytes: What it may take.
    """

    size_bytes: int

    def __str__(self) -> str:
        return f"local,size={self.size_bytes}"


def gather_restrictions(restrictions: tuple[Restriction, ...]) -> tuple[Restriction, ...]:
    """Check that no category is restricted twice: which header would then open it?"""
    seen: set[str] = set()
    for restriction in restrictions:
        for category in restriction.categories:
            if category in seen:
                raise ValueError(f'each category once, but "{category}" is restricted twice')
            seen.add(category)
    return restrictions


def gather_metrics(entries: tuple[tuple[str, Any], ...]) -> MetricsConfig:
    """Join the entries; the last one of a name wins, as in tritonserver."""
    return MetricsConfig(**dict(entries))


def gather_cache(entries: tuple[int, ...]) -> CacheConfig:
    """Join the entries; the last one wins, as in tritonserver."""
    return CacheConfig(entries[-1])


def choice(*words: str, aliases: dict[str, str] | None = None) -> Kind:
    """One of a few words, in any case; ``aliases`` maps other spellings to them."""
    by_lower = {word.lower(): word for word in words}
    by_lower |= {alias.lower(): word for alias, word in (aliases or {}).items()}

    def parse(text: str) -> str:
        try:
            return by_lower[text.lower()]
        except KeyError:
            raise ValueError(f"one of {', '.join(words)}") from None

    return Kind("|".join(words), parse)


def _switch(text: str) -> bool:
    try:
        return SWITCH_WORDS[text.lower()]
    except KeyError:
        raise ValueError("true, on or 1, or false, off or 0") from None


def _text(text: str) -> str:
    if not text:
        raise ValueError("some text")
    return text


def _count(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise ValueError("a whole number, 0 or more")
    return int(text)


def _positive_count(text: str) -> int:
    if not _DIGITS.fullmatch(text) or int(text) == 0:
        raise ValueError("a whole number, 1 or more")
    return int(text)


DEEPEST = 500
"""That of ``wire.json``, which takes too long to import for a line of help."""


def _depth(text: str) -> int:
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= DEEPEST:
        raise ValueError(f"a whole number from 1 to {DEEPEST}")
    return int(text)


def _pixels(text: str) -> int:
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MOST_PIXELS:
        raise ValueError(f"a whole number from 1 to {MOST_PIXELS}")
    return int(text)


MOST_PIXELS = 89_478_485
"""Where Pillow begins to warn, and later to refuse."""


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("a number of bytes, 1 or more, such as 67108864 or 64MiB")
    size = int(found["number"]) * _UNIT_BYTES[(found["unit"] or "").lower()]
    if size == 0:
        raise ValueError("a number of bytes, 1 or more, such as 67108864 or 64MiB")
    return size


def _seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise ValueError("a number of seconds, such as 30 or 0.5")
    return float(text)


def _port(text: str) -> int:
    if not _DIGITS.fullmatch(text) or int(text) > 65535:
        raise ValueError("a port from 1 to 65535, or 0 for any free one")
    return int(text)


def _optional_port(text: str) -> int | None:
    if text.lower() == "off":
        return None
    try:
        return _port(text)
    except ValueError:
        raise ValueError('a port from 1 to 65535, 0 for any free one, or "off" for none') from None


def _secret(text: str) -> str:
    # A key travels in a header: what cannot stand there could never be matched.
    if not text.isascii() or not text.isprintable() or not text or " " in text:
        raise ValueError("a key of printable ASCII characters without spaces, or @FILE with keys")
    return text


def _lease(text: str) -> float:
    # Below, a process that is merely busy for a moment would be taken for dead.
    try:
        seconds = _seconds(text)
    except ValueError:
        seconds = 0.0
    if seconds < 1:
        raise ValueError("a number of seconds from 1 on")
    return seconds


def _restriction(text: str) -> Restriction:
    expected = "CATEGORY[,CATEGORY...]:HEADER=VALUE, such as model-repository:x-admin=secret"
    names, colon, assignment = text.partition(":")
    header, equals, value = assignment.partition("=")
    if not (names and colon and header and equals and value):
        raise ValueError(expected)
    categories = tuple(name.strip() for name in names.split(","))
    for category in categories:
        if category not in RESTRICTED_CATEGORIES:
            raise ValueError(f'categories of {", ".join(RESTRICTED_CATEGORIES)}, not "{category}"')
    return Restriction(categories, header, value)


def _header_pattern(text: str) -> re.Pattern[str]:
    # RE2, which tritonserver uses, takes "(?-i)" for the rest of a pattern; Python knows it only
    # around a group. Without it the pattern ignores case.
    is_case_sensitive = text.startswith("(?-i)")
    try:
        return re.compile(text.removeprefix("(?-i)"), 0 if is_case_sensitive else re.IGNORECASE)
    except re.error as exc:
        raise ValueError(f"a regular expression ({exc})") from exc


def _metrics_setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if name == "summary_quantiles" and equals:
        return name, tuple(_quantile(pair) for pair in value.split(","))
    if name in _METRICS_SWITCHES and equals:
        try:
            return name, _switch(value)
        except ValueError as exc:
            raise ValueError(f"{name}={exc}") from None
    raise ValueError(
        f"{', '.join(f'{name}=BOOL' for name in _METRICS_SWITCHES)}"
        " or summary_quantiles=QUANTILE:ERROR[,...]"
    )


def _cache_setting(text: str) -> int:
    name, comma, setting = text.partition(",")
    key, equals, value = setting.partition("=")
    if not (comma and equals) or name != "local" or key != "size":
        raise ValueError(
            "local,size=BYTES, such as local,size=256MiB; the cache in this process is the only one"
        )
    try:
        return _size(value)
    except ValueError as exc:
        raise ValueError(f"local,size= and {exc}") from None


def _quantile(text: str) -> tuple[float, float]:
    found = _QUANTILE.fullmatch(text.strip())
    if found is None or not (0 < float(found[1]) < 1 and 0 <= float(found[2]) < 1):
        raise ValueError("summary_quantiles=QUANTILE:ERROR[,...], such as 0.5:0.05,0.99:0.001")
    return float(found[1]), float(found[2])


def _trace_setting(text: str) -> str:
    if not _TRACE_SETTING.fullmatch(text):
        raise ValueError("[MODE,]SETTING=VALUE, such as level=TIMESTAMPS or triton,file=trace.json")
    return text


RESTRICTED_CATEGORIES = (
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
)

SWITCH = Kind("BOOL", _switch)
TEXT = Kind("TEXT", _text)
PATH = Kind("PATH", _text)
COUNT = Kind("N", _count)
POSITIVE_COUNT = Kind("N", _positive_count)
DEPTH = Kind("N", _depth)
PIXELS = Kind("N", _pixels)
SIZE = Kind("BYTES", _size)
SECONDS = Kind("SECONDS", _seconds)
LEASE = Kind("SECONDS", _lease)
PORT = Kind("PORT", _port)
OPTIONAL_PORT = Kind("PORT|off", _optional_port)
SECRET = Kind("KEY|@FILE", _secret)
RESTRICTION = Kind("CATEGORY,...:HEADER=VALUE", _restriction)
HEADER_PATTERN = Kind("REGEX", _header_pattern)
CACHE_SETTING = Kind("local,size=BYTES", _cache_setting)
METRICS_SETTING = Kind("NAME=VALUE", _metrics_setting)
TRACE_SETTING = Kind("[MODE,]NAME=VALUE", _trace_setting)

# Sixteen digits hold every count that makes sense, and keep int() away from a megabyte of digits.
_DIGITS = re.compile(r"[0-9]{1,16}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SIZE = re.compile(r"(?P<number>[0-9]{1,16}) ?(?P<unit>[KMGT]i?B?)?", re.IGNORECASE)
_QUANTILE = re.compile(r"([0-9]*\.?[0-9]+):([0-9]*\.?[0-9]+)")
_TRACE_SETTING = re.compile(r"([^,=\s]+,)?[^,=\s]+=[^\s]*")
_UNIT_BYTES: dict[str, int] = {"": 1} | {
    f"{letter}{suffix}": 1 << 10 * power
    for power, letter in enumerate("kmgt", start=1)
    for suffix in ("", "i", "b", "ib")
}
_METRICS_SWITCHES = ("counter_latencies", "summary_latencies", "histogram_latencies")
