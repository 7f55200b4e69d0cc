"""JSON schemas as clients of BentoML read them: references put in place, one branch each."""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

__all__ = ["Lenient", "inlined"]

MOST_DEEP = 12
"""Models may contain themselves; below this a reference stays one."""


class Lenient(GenerateJsonSchema):
    """Says nothing of what has no JSON schema, such as a class of the author's own.

    One argument or field like that shall not keep clients from all other endpoints.
    """

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> dict[str, Any]:
        """Allow anything there."""
        return {}


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a schema of pydantic's into the form of ``/schema.json``.

    References are put in place in the properties of objects and the items of arrays; of ``anyOf``
    and ``allOf`` in a property the first branch counts. Elsewhere both stay, with ``$defs``.
    """
    definitions = schema.get("$defs", {})
    whole = _object(dict(schema), definitions, 0)
    if "$ref" not in str(whole):
        whole.pop("$defs", None)
    return whole


def _object(schema: dict[str, Any], definitions: Mapping[str, Any], depth: int) -> dict[str, Any]:
    if "$ref" in schema and depth < MOST_DEEP:
        name = schema["$ref"].rpartition("/")[2]
        others = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**definitions.get(name, {}), **others}
    if "properties" in schema:
        properties = schema["properties"].items()
        schema = {
            **schema,
            "properties": {
                name: _property(dict(each), definitions, depth + 1) for name, each in properties
            },
        }
    if isinstance(schema.get("items"), dict):
        schema = {**schema, "items": _property(dict(schema["items"]), definitions, depth + 1)}
    return schema


def _property(schema: dict[str, Any], definitions: Mapping[str, Any], depth: int) -> dict[str, Any]:
    for key in ("anyOf", "allOf"):
        branches = schema.get(key)
        if branches:
            others = {name: value for name, value in schema.items() if name != key}
            schema = {**branches[0], **others}
    return _object(schema, definitions, depth)
