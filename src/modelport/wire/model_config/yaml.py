"""YAML text → ``ModelConfig``.

Only YAML's node graph is taken from the library; the values are made here, as JSON's would be,
because YAML's own rules make dates, base-60 numbers and objects out of innocent words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from modelport.specs import ModelConfig
from modelport.wire.model_config.json import decode_dict
from modelport.wire.model_config.schema import failed, refuse_unreadable, shown

if TYPE_CHECKING:
    import yaml

__all__ = ["decode_yaml"]


def decode_yaml(text: str) -> ModelConfig:
    """Read a configuration from YAML text; an empty one is an empty configuration.

    Raises:
        LoadFailed: If it is no YAML, or has unknown fields, wrong types or unknown values.
    """
    import yaml

    refuse_unreadable(text)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise failed(where, f"no YAML: {exc.problem or exc.context}") from exc
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        # A character that YAML forbids; nesting; an escape beyond Unicode.
        what = "nested too deeply" if isinstance(exc, RecursionError) else "a forbidden character"
        raise failed("", f"no YAML: {what}") from exc
    return ModelConfig() if root is None else decode_dict(_Values().value(root, 0))


class _Values:
    """Turns nodes into values, counting them: an alias in an alias can stand for billions."""

    def __init__(self) -> None:
        self._left = _MOST_NODES

    def value(self, node: yaml.Node, depth: int) -> object:
        """Give the plain value of one node."""
        self._left -= 1
        if self._left < 0 or depth > _MOST_DEPTH:
            raise failed(_place(node), "too many values, or nested too deeply; mind the aliases")
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "map":
            return self._map(node.value, depth)
        if kind == "seq":
            return [self.value(each, depth + 1) for each in node.value]
        if kind not in _SCALARS or not isinstance(node.value, str):
            raise failed(_place(node), f"the tag {shown(node.tag)} has no meaning here; remove it")
        return _scalar(kind, node)

    def _map(self, pairs: list[tuple[yaml.Node, yaml.Node]], depth: int) -> dict[object, object]:
        made: dict[object, object] = {}
        for key_node, value_node in pairs:
            key = self.value(key_node, depth + 1)
            if isinstance(key, dict | list):
                raise failed(_place(key_node), f"a name has to be a text, not {shown(key)}")
            if key in made:
                raise failed(_place(key_node), f"{shown(key)} is given twice; keep one")
            made[key] = self.value(value_node, depth + 1)
        return made


def _scalar(kind: str, node: yaml.Node) -> object:
    text: str = node.value
    if kind == "null":
        return None
    if kind == "bool":
        # "y" is a text in every YAML library that people use, "yes" is not in most.
        return text.lower() in ("true", "yes", "on")
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text, 16 if "x" in text else 10)
    if kind == "float" and _FLOAT.fullmatch(text.lower()):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _place(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"


_SCALARS: Final = ("str", "null", "bool", "int", "float", "timestamp", "value", "merge")
# Octal and base 60 stay texts: whoever writes 010 or 1:30 should hear that no number was read.
_INTEGER: Final = re.compile(r"[+-]?(0|[1-9][0-9]{0,39}|0x[0-9a-fA-F]{1,16})")
_FLOAT: Final = re.compile(r"[+-]?(\.inf|\.nan|[0-9]{0,40}\.?[0-9]{1,40}\.?(e[+-]?[0-9]{1,3})?)")
_MOST_NODES: Final = 200_000
_MOST_DEPTH: Final = 32
