"""Configurations and sources as plain JSON values: what a worker is told when it loads a model."""

import types
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

__all__ = ["from_plain", "to_plain"]

_T = TypeVar("_T")


def to_plain(value: Any) -> Any:
    """Give records as objects of their fields, tuples as lists, paths as text."""
    fields = _fields(type(value))
    if fields:
        return {name: to_plain(getattr(value, name)) for name in fields}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): to_plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def from_plain(type_: type[_T], value: Any) -> _T:
    """Make what ``to_plain`` was given, by the annotations of its class.

    >>> from modelport.specs import InstanceGroup
    >>> group = InstanceGroup(name="g", count=2, gpus=(0, 1))
    >>> from_plain(InstanceGroup, to_plain(group)) == group
    True
    """
    made: _T = _made(type_, value)
    return made


def _made(type_: Any, value: Any) -> Any:
    if value is None or type_ is Any:
        return value
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return _made(arguments[0], value)
    if origin in (Union, types.UnionType):
        (chosen,) = (each for each in arguments if each is not type(None))
        return _made(chosen, value)
    if origin is tuple:
        return tuple(_made(arguments[0], each) for each in value)
    if origin is dict:
        return {_key(arguments[0], key): _made(arguments[1], each) for key, each in value.items()}
    if type_ is Path:
        return Path(value)
    if _fields(type_):
        hints = _hints(type_)
        return type_(**{name: _made(hints[name], each) for name, each in value.items()})
    return value


def _fields(type_: Any) -> tuple[str, ...]:
    if isinstance(type_, type) and issubclass(type_, Struct):
        return type_.__struct_fields__
    return tuple(getattr(type_, "__dataclass_fields__", ()))


def _key(type_: Any, text: str) -> Any:
    plain = get_args(type_)[0] if get_origin(type_) is Annotated else type_
    return int(text) if plain is int else text


@cache
def _hints(type_: type) -> dict[str, Any]:
    return get_type_hints(type_, include_extras=True)
