"""Dictionaries and JSON text ⇄ ``ModelConfig``.

What is written is Triton's form: snake_case names, scalars and enumerations also at their
defaults, empty lists and maps, 64-bit integers as numbers, absent sub-messages left out.
What is read is that, and what people and protobuf's own JSON write: camelCase names, numbers as
strings, enumeration values by number, datatypes by their name on the wire (``FP32``), parameters
as plain values. It all has to have the right type: nothing is guessed.

Source: Triton's model configuration extension; protobuf's "ProtoJSON Format".
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from functools import cache
from typing import Any, Final

from modelport.specs import ModelConfig, OneOf, Parameter, Single, Within
from modelport.wire.model_config.schema import (
    ONE_OF_BY_RECORD,
    Field,
    Item,
    Record,
    dotted,
    failed,
    fields_of,
    meant,
    refuse_unreadable,
    shown,
    single,
)

__all__ = ["decode_dict", "decode_json", "encode_json"]


def decode_json(data: bytes | str) -> ModelConfig:
    """Read a configuration from JSON text.

    Raises:
        LoadFailed: If it is no JSON, or has unknown fields, wrong types or unknown values.
    """
    refuse_unreadable(data)
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as exc:
        raise failed(f"line {exc.lineno}, column {exc.colno}", f"no JSON: {exc.msg}") from exc
    except UnicodeDecodeError as exc:
        raise failed(f"byte {exc.start}", "no UTF-8; write the file in that encoding") from exc
    except RecursionError as exc:
        raise failed("", "lists and objects are nested too deeply") from exc
    except ValueError as exc:  # an integer of more digits than Python converts
        raise failed("", "a number has too many digits") from exc
    return decode_dict(value)


def decode_dict(value: object) -> ModelConfig:
    """Read a configuration from what JSON or YAML text was parsed to.

    Raises:
        LoadFailed: If it has unknown fields, wrong types or unknown values.
    """
    config: ModelConfig = _record(ModelConfig, value, "")
    return config


def encode_json(config: ModelConfig) -> dict[str, object]:
    """Give Triton's JSON form, as values for any JSON writer; the dictionary is the caller's."""
    return _plain(config)


def _plain(record: object) -> dict[str, object]:
    plain: dict[str, object] = {}
    for name, field in fields_of(type(record)).items():
        value = getattr(record, field.attribute)
        if value is None:
            continue
        match field.container:
            case "one":
                plain[name] = _plain_item(field, value)
            case "list":
                plain[name] = [_plain_item(field, each) for each in value]
            case "map":
                plain[name] = {str(key): _plain_item(field, each) for key, each in value.items()}
    return plain


def _plain_item(field: Field, value: Any) -> object:
    if field.is_record:
        return _plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def _record(record: Record, value: object, path: str) -> Any:
    if not isinstance(value, dict):
        raise failed(path, f"expected an object with fields, got {shown(value)}")
    given: dict[str, Any] = {}
    names = _names(record)
    for key, each in value.items():
        if key == _DUPLICATE:
            raise failed(dotted(path, each), "given twice; keep one")
        field = names.get(key) if isinstance(key, str) else None
        if field is None:
            known = fields_of(record)
            raise failed(path, f"there is no field {shown(key)}; {meant(str(shown(key)), known)}")
        if each is None:
            continue
        if field.attribute in given:
            raise failed(dotted(path, field.name), "given twice, in two spellings; keep one")
        given[field.attribute] = _field(field, each, dotted(path, field.name))
    for group in ONE_OF_BY_RECORD.get(record, ()):
        both = [name for name in group if name in given]
        if len(both) > 1:
            raise failed(path, f"{' and '.join(both)} exclude one another; keep one")
    return record(**given)


def _field(field: Field, value: object, path: str) -> Any:
    match field.container:
        case "list":
            if not isinstance(value, list | tuple):
                raise failed(path, f"expected a list, got {shown(value)}; put it in [ ]")
            return tuple(_item(field.item, each, f"{path}[{i}]") for i, each in enumerate(value))
        case "map":
            return _map(field, value, path)
        case "one":
            read = _item(field.item, value, path)
            # proto3 cannot tell a zero from a field that is not given, so neither form may.
            return field.default() if read in _ZEROS and not field.may_be_absent else read


def _map(field: Field, value: object, path: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise failed(path, f"expected an object of names and values, got {shown(value)}")
    read: dict[Any, Any] = {}
    for key, each in value.items():
        if key == _DUPLICATE:
            raise failed(f"{path}[{shown(each)}]", "given twice; keep one")
        if field.item is Parameter and isinstance(each, str | bool | int | float):
            each = {"string_value": _text_of(each)}
        place = f"{path}[{shown(key)}]"
        # YAML's keys may be numbers, JSON's cannot.
        name = _item(field.key, key, place)
        if name in read:
            raise failed(place, "given twice; keep one")
        read[name] = _item(field.item, each, place)
    return read


def _item(item: Item, value: object, path: str) -> Any:
    match item:
        case Within():
            return _integer(item, value, path)
        case OneOf():
            return _name(item, value, path)
        case Single():
            try:
                return single(_float(value, path))
            except OverflowError as exc:
                raise failed(path, f"{shown(value)} is too large for single precision") from exc
    if item is str:
        return _text(value, path)
    if item is bool:
        if not isinstance(value, bool):
            raise failed(path, f"expected true or false, got {shown(value)}")
        return value
    if item is float:
        return _float(value, path)
    return _record(item, value, path)


def _integer(item: Within, value: object, path: str) -> int:
    number = value
    match value:
        case str() if _INTEGER.fullmatch(value):
            number = int(value)
        case float() if value.is_integer():
            number = int(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise failed(path, f"expected an integer, got {shown(value)}")
    if not item.least <= number <= item.most:
        expected = f"expected an integer from {item.least} to {item.most}"
        raise failed(path, f"{expected}, got {shown(number)}")
    return number


def _float(value: object, path: str) -> float:
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, str) and _FLOAT.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise failed(path, f"expected a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError as exc:
        raise failed(path, f"{shown(value)} is too large") from exc


def _name(item: OneOf, value: object, path: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(item.names):
        return item.names[value]
    if isinstance(value, str):
        for name in (value, f"TYPE_{value}", _ALIASES.get(value, "")):
            if name in item.names:
                return name
        hint = meant(value, item.names)
    else:
        hint = f"there are: {', '.join(item.names)}"
    raise failed(path, f"{shown(value)} is no value of this field; {hint}")


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise failed(path, f"expected a text, got {shown(value)}; put it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise failed(path, f"{shown(value)} has half a character (a lone surrogate)") from exc
    return value


def _text_of(value: str | bool | int | float) -> str:
    return value if isinstance(value, str) else shown(value)


@cache
def _names(record: type) -> dict[str, Field]:
    known = fields_of(record)
    return {_camel(name): field for name, field in known.items()} | known


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _object(pairs: list[tuple[str, object]]) -> dict[object, object]:
    """Make a dictionary that remembers a name given twice, until its path is known."""
    made: dict[object, object] = dict(pairs)
    if len(made) < len(pairs):
        made[_DUPLICATE] = Counter(name for name, _ in pairs).most_common(1)[0][0]
    return made


class _Duplicate:
    """A key that no text can give."""


_DUPLICATE: Final = _Duplicate()
_ZEROS: Final = (0, "")
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,39})")
_FLOAT: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_ALIASES: Final = {"BYTES": "TYPE_STRING", "TYPE_BYTES": "TYPE_STRING"}
