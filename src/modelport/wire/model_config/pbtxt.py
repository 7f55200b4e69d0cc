"""protobuf text and messages ⇄ ``ModelConfig``.

The text is parsed by protobuf itself; this file gives its errors the words of the other forms.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from modelport.specs import ModelConfig, OneOf, Single
from modelport.wire.model_config.schema import (
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

if TYPE_CHECKING:
    from modelport.wire.proto import model_config_pb2

__all__ = ["decode_pbtxt", "encode_pbtxt", "from_proto", "to_proto"]


def decode_pbtxt(text: str) -> ModelConfig:
    """Read a configuration from protobuf text, ``config.pbtxt``.

    Raises:
        LoadFailed: If it is no protobuf text, or has unknown fields, wrong types or unknown values.
    """
    from google.protobuf import text_format

    from modelport.wire.proto import model_config_pb2

    refuse_unreadable(text)
    if _MANY_BACKSLASHES in text:
        raise failed("", "hundreds of backslashes in a row are no configuration")
    message = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as exc:
        line, column = exc.GetLine() or 1, exc.GetColumn() or 1
        raise failed(f"line {line}, column {column}", _in_our_words(exc)) from exc
    except ValueError as exc:
        # What the parser lets through and the message does not take: an enumeration's number
        # of more than 32 bits (protobuf 6.33).
        raise failed("", f"a number does not fit its field: {_readable(str(exc))}") from exc
    return from_proto(message)


def encode_pbtxt(config: ModelConfig) -> str:
    """Write protobuf text that Triton reads too, with what differs from the defaults."""
    from google.protobuf import text_format

    return text_format.MessageToString(
        to_proto(config), as_utf8=True, use_short_repeated_primitives=True, use_index_order=True
    )


def to_proto(config: ModelConfig) -> model_config_pb2.ModelConfig:
    """Make the message of a configuration."""
    from modelport.wire.proto import model_config_pb2

    message = model_config_pb2.ModelConfig()
    _fill(message, config)
    return message


def from_proto(message: model_config_pb2.ModelConfig) -> ModelConfig:
    """Make the configuration of a message; what was not given in it has our default.

    Raises:
        LoadFailed: If an enumeration has a number that is not known.
    """
    config: ModelConfig = _record(ModelConfig, message, "")
    return config


def _fill(message: Any, record: object) -> None:
    for name, field in fields_of(type(record)).items():
        value = getattr(record, field.attribute)
        if value is None:
            continue
        match field.container:
            case "one" if field.is_record:
                target = getattr(message, name)
                target.SetInParent()
                _fill(target, value)
            case "one":
                setattr(message, name, _number(field.item, value))
            case "list" if field.is_record:
                for each in value:
                    _fill(getattr(message, name).add(), each)
            case "list":
                getattr(message, name).extend(_number(field.item, each) for each in value)
            case "map" if field.is_record:
                for key, each in value.items():
                    target = getattr(message, name)[key]
                    _fill(target, each)
            case "map":
                getattr(message, name).update(value)


def _number(item: Item, value: Any) -> Any:
    return item.names.index(value) if isinstance(item, OneOf) else value


def _record(record: Record, message: Any, path: str) -> Any:
    known = fields_of(record)
    given = {}
    for descriptor, value in message.ListFields():
        field = known[descriptor.name]
        given[field.attribute] = _value(field, value, dotted(path, field.name))
    return record(**given)


def _value(field: Field, value: Any, path: str) -> Any:
    match field.container:
        case "one":
            return _item(field.item, value, path)
        case "list":
            return tuple(_item(field.item, each, f"{path}[{i}]") for i, each in enumerate(value))
        case "map":
            return {key: _item(field.item, value[key], f"{path}[{shown(key)}]") for key in value}


def _item(item: Item, value: Any, path: str) -> Any:
    match item:
        case OneOf():
            if not 0 <= value < len(item.names):
                known = ", ".join(item.names)
                raise failed(path, f"{value} is no value of this field; there are: {known}")
            return item.names[value]
        case Single():
            return single(value)
    if isinstance(item, type) and item not in (str, bool, float):
        return _record(item, value, path)
    return value


def _in_our_words(error: Exception) -> str:
    """Say what protobuf's parser found, with what was probably meant.

    Falls back to the parser's own words, without the line that it quotes.
    """
    from modelport.wire.proto import model_config_pb2

    text = error.args[0]
    if found := re.search(_UNKNOWN_FIELD, text, re.S):
        message = model_config_pb2.DESCRIPTOR.pool.FindMessageTypeByName(found[1])
        names = [field.name for field in message.fields]
        return f"there is no field {shown(found[2])} in {message.name}; {meant(found[2], names)}"
    if found := re.search(_UNKNOWN_VALUE, text, re.S):
        enum = model_config_pb2.DESCRIPTOR.pool.FindEnumTypeByName(found[1])
        names = [value.name for value in enum.values]
        return f"{shown(found[2])} is no value of {enum.name}; {meant(found[2], names)}"
    if found := re.search(_TWICE, text, re.S):
        return f"{found[1]} is given twice; keep one"
    if found := re.search(_EXCLUDED, text, re.S):
        return f"{found[2]} and {found[1]} exclude one another; keep one"
    if found := re.search(_NO_INTEGER, text, re.S):
        return f"expected an integer, got {_readable(found[1])}"
    if found := re.search(_OUT_OF_RANGE, text, re.S):
        return f"{_readable(found[1])} is too large or too small for this field"
    if found := re.search(_NO_TEXT, text, re.S):
        return f"expected a text in quotes, got {_readable(found[1])}"
    if "missing ending quote" in text:
        return "a text has no closing quote"
    found = re.search(_OWN_WORDS, text, re.S)
    return f"no protobuf text: {_readable(found[1] if found else text)}"


def _readable(text: str) -> str:
    text = text if len(text) <= 80 else text[:77] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]


# protobuf 6.33 needs time in the square of their number: seconds for some ten thousand.
_MANY_BACKSLASHES: Final = 200 * "\\"
_UNKNOWN_FIELD: Final = r'Message type "([\w.]+)" has no field named "(.*)"\.$'
_UNKNOWN_VALUE: Final = r'Enum type "([\w.]+)" has no value named (.*)\.$'
_TWICE: Final = r'should not have multiple "(\w+)" fields'
_EXCLUDED: Final = r'Field "(\w+)" is specified along with field "(\w+)"'
_NO_INTEGER: Final = r"Couldn't parse integer: (.*)$"
_OUT_OF_RANGE: Final = r"(?:Value|Integer) out of range: (.*)$"
_OWN_WORDS: Final = r"^[0-9:]+ : (?:'.*': )?(.*)$"
_NO_TEXT: Final = r"Expected string but found: '(.*)'$"
