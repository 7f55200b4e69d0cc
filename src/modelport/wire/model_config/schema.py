"""What fields a configuration has, read from the annotations in ``specs``.

Readers and writers of every form walk these tables, so none of them lists a field itself.
"""

import json
import struct
import types
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from functools import cache
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from modelport.errors import LoadFailed
from modelport.specs import (
    InitialState,
    ModelConfig,
    OneOf,
    SequenceBatching,
    Single,
    VersionPolicy,
    WarmupInput,
    Within,
)

__all__ = [
    "MOST_CHARACTERS",
    "ONE_OF_BY_RECORD",
    "Field",
    "Item",
    "Record",
    "dotted",
    "failed",
    "fields_of",
    "meant",
    "refuse_unreadable",
    "shown",
    "single",
]

MOST_CHARACTERS: Final = 1 << 18
"""Longest text that is read; the longest real ones, of large ensembles, have some ten thousand.

The libraries that parse pbtxt and YAML are slow, and on hostile text worse than linear.
"""

Record = type
"""A dataclass of ``specs``."""

Item = Within | OneOf | Single | Record
"""What one value is: a marker of ``specs``, ``str``, ``bool``, ``float``, or a record."""


class Field(Struct, frozen=True):
    """One field of a record.

    Attributes:
        name: In every written form.
        attribute: In the dataclass; differs from ``name`` only for Python's keywords.
        container: Whether it holds one value, a list, or a map.
        item: What one value is.
        key: What a map's keys are.
        may_be_absent: ``None`` is not the same as the default.
        default: Makes the value of a field that is not given.
    """

    name: str
    attribute: str
    container: Literal["one", "list", "map"]
    item: Item
    key: Item
    may_be_absent: bool
    default: Callable[[], Any]

    @property
    def is_record(self) -> bool:
        """Whether each value has fields of its own."""
        return isinstance(self.item, type) and self.item not in _PLAIN


def fields_of(record: type[Any]) -> dict[str, Field]:
    """Map the names of a record's fields to the fields, in the order in which they are written."""
    # mypy takes the __hash__ of the class's instances for that of the class.
    return _fields_of(record)  # type: ignore[arg-type]


def dotted(path: str, name: str) -> str:
    """Give the path of a field: ``input[0].dims``."""
    return f"{path}.{name}" if path else name


def failed(path: str, text: str) -> LoadFailed:
    """Make the error for what stands at ``path``; an empty one is the whole configuration."""
    where = f"model configuration, {path}" if path else "model configuration"
    return LoadFailed(f"{where}: {text}")


def refuse_unreadable(text: str | bytes) -> None:
    """Keep from the parsers what makes them slow, or fail in ways of their own.

    Raises:
        LoadFailed: Above ``MOST_CHARACTERS``, or if a text is no Unicode.
    """
    if len(text) > MOST_CHARACTERS:
        raise failed("", f"{len(text)} characters are more than the {MOST_CHARACTERS} it may have")
    # A lone surrogate makes protobuf 6.33 raise a SystemError.
    if isinstance(text, str) and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise failed(f"character {exc.start}", "half a character (a lone surrogate)") from exc


def meant(name: str, names: Iterable[str]) -> str:
    """Say which of ``names`` was probably meant, or which there are."""
    import difflib  # only a mistake needs it

    known = list(names)
    close = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"there are: {', '.join(known)}" if known else "there are none here"


def shown(value: object) -> str:
    """Describe a value from outside briefly, and safely for any terminal and log."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if abs(value) < 1 << 128 else "a number of very many digits"
        case float():
            return repr(value)
        case str():
            text = value if len(value) <= 60 else value[:57] + "..."
            return json.dumps(text, ensure_ascii=not text.isprintable())
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
    return f"a value of type {type(value).__name__}"


def single(value: float) -> float:
    """Round to single precision and give the shortest number that reads back as the same one.

    Raises:
        OverflowError: If it is too large.
    """
    packed = struct.pack("<f", value)
    for digits in range(6, 9):
        candidate = float(f"{value:.{digits}g}")
        if struct.pack("<f", candidate) == packed:
            return candidate
    return float(f"{struct.unpack('<f', packed)[0]:.9g}")


@cache
def _fields_of(record: type) -> dict[str, Field]:
    hints = get_type_hints(record, include_extras=True)
    found = {}
    for declared in fields(record):
        name = declared.metadata.get("name", declared.name)
        container, item, key, may_be_absent = _read(hints[declared.name])
        value, factory = declared.default, declared.default_factory
        default = factory if factory is not MISSING else _constant(value)
        found[name] = Field(name, declared.name, container, item, key, may_be_absent, default)
    return found


def _read(hint: Any) -> tuple[Literal["one", "list", "map"], Item, Item, bool]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return "list", _item(arguments[0]), str, False
    if origin is dict:
        return "map", _item(arguments[1]), _item(arguments[0]), False
    if origin in (Union, types.UnionType):
        return "one", _item(arguments[0]), str, True
    return "one", _item(hint), str, False


def _item(hint: Any) -> Item:
    if get_origin(hint) is Annotated:
        marker: Item = get_args(hint)[1]
        return marker
    item: Record = hint
    return item


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


_PLAIN: Final = (str, bool, float)

ONE_OF_BY_RECORD: Final[dict[Record, tuple[tuple[str, ...], ...]]] = {
    ModelConfig: (("dynamic_batching", "sequence_batching", "ensemble_scheduling"),),
    VersionPolicy: (("latest", "all", "specific"),),
    SequenceBatching: (("direct", "oldest"),),
    InitialState: (("zero_data", "data_file"),),
    WarmupInput: (("zero_data", "random_data", "input_data_file"),),
}
"""Fields of which at most one may be given."""
