"""How a line of the log looks: text for people, JSON for programs. Pure; nothing is written here.

A name or a path in a message may hold anything that a client sent. In text, whatever could pass
for the start of another line, or drive a terminal, is escaped or moved in; JSON escapes by itself.
"""

import logging
import re
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from modelport.server.http import AccessRecord
from modelport.wire import json

__all__ = ["ACCESS_LOGGER", "AccessLine", "json_line", "local_time", "text_line", "utc_time"]

ACCESS_LOGGER = "modelport.access"


class AccessLine(logging.LogRecord):
    """A request that was answered, as a record of the logger ``modelport.access``.

    Made for every request, so no more is done here than must be; the message is written when
    somebody asks for it.
    """

    def __init__(self, access: AccessRecord) -> None:
        self.__dict__.update(_NEW_ACCESS_LINE)
        self.created = time.time()
        self.access = access

    def getMessage(self) -> str:  # noqa: N802 - the standard library's name
        """Tell of the request in the words of its first line."""
        access = self.access
        return (
            f"{access.peer or '-'} {access.method} {_without_secrets(access.target)} "
            f"{access.status} {access.body_bytes} bytes {access.duration_s * 1000:.2f} ms"
        )


def local_time(created: float) -> str:
    """Write a time as the clock on the wall tells it: ``2026-11-21 08:23:45.123``."""
    second = int(created)
    return f"{_local_second(second)}.{int((created - second) * 1000):03d}"


def utc_time(created: float) -> str:
    """Write a time by ISO 8601, in UTC: ``2026-11-21T08:23:45.123Z``."""
    second = int(created)
    return f"{_utc_second(second)}.{int((created - second) * 1000):03d}Z"


def text_line(
    record: logging.LogRecord,
    write_time: Callable[[float], str] = local_time,
    *,
    is_coloured: bool = False,
) -> str:
    """Write a record as a line of text; if it has more than one, the others are moved in."""
    level = record.levelname
    name = record.name.removeprefix("modelport.")
    facts = "".join([f" {key}={_shown(value)}" for key, value in _facts(record).items()])
    time_ = write_time(record.created)
    head = f"{time_} {level:<7} {name}:"
    if is_coloured:
        colour = _COLOUR_BY_LEVEL.get(record.levelno, "")
        head = f"\x1b[2m{time_}\x1b[0m {colour}{level:<7}\x1b[0m \x1b[2m{name}:\x1b[0m"
        facts = f"\x1b[2m{facts}\x1b[0m" if facts else ""
    trace = _exception(record)
    message = _shown(f"{record.getMessage()}\n{trace}" if trace else record.getMessage())
    first, mark, rest = message.partition(_INDENT)
    return f"{head} {first}{facts}{mark}{rest}\n"


def json_line(record: logging.LogRecord) -> str:
    """Write a record as a JSON object on one line; keys without a value are left out."""
    members: dict[str, Any] = {
        "ts": utc_time(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        **_facts(record),
    }
    if record.__class__ is AccessLine:
        access = record.access
        members["peer"] = access.peer
        members["method"] = access.method
        members["target"] = _without_secrets(access.target)
        members["status"] = access.status
        members["body_bytes"] = access.body_bytes
        members["duration_s"] = round(access.duration_s, 6)
    trace = _exception(record)
    if trace:
        members["exception"] = trace
    return json.encode(members).decode() + "\n"


def _facts(record: logging.LogRecord) -> dict[str, str]:
    """What is known beside the message."""
    found = record.__dict__
    if record.__class__ is AccessLine:
        found = {"principal": record.access.principal, "request_id": record.access.request_id}
    return {key: str(found[key]) for key in ("model", "principal", "request_id") if found.get(key)}


def _exception(record: logging.LogRecord) -> str:
    lines = []
    if record.exc_info and record.exc_info[0] is not None:
        lines += traceback.format_exception(*record.exc_info)
    if record.stack_info:
        lines.append(record.stack_info)
    return "".join(lines).rstrip("\n")


@lru_cache(maxsize=2)
def _local_second(second: int) -> str:
    return datetime.fromtimestamp(second).isoformat(" ")


@lru_cache(maxsize=2)
def _utc_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).replace(tzinfo=None).isoformat()


def _shown(text: str) -> str:
    """Make text harmless: more lines are moved in, other control characters escaped."""
    if text.isprintable():
        return text
    text = text.rstrip("\n").replace("\r\n", "\n").replace("\n", _INDENT)
    return _UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def _without_secrets(target: str) -> str:
    """Mask the values of queries that look like keys; some clients can send theirs in no header.

    >>> _without_secrets("/v2/models?api_key=abc&page=2")
    '/v2/models?api_key=***&page=2'
    """
    if "?" not in target:
        return target
    path, _, query = target.partition("?")
    return path + "?" + _SECRET_QUERY.sub(r"\1***", query)


_INDENT = "\n    "
# C0 and C1 but tab and line feed, line and paragraph separators, changes of direction.
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SECRET_QUERY = re.compile(
    r"((?:^|(?<=&))[^=&]*(?:key|token|passw|secret|signature|credential|auth)[^=&]*=)[^&]*",
    re.IGNORECASE,
)
_COLOUR_BY_LEVEL = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}
# What any record holds, so that any formatter can have one of ours.
_NEW_ACCESS_LINE = logging.LogRecord(ACCESS_LOGGER, logging.INFO, "", 0, "", None, None).__dict__
