"""OpenAPI 3.1 of everything that can be called."""

import copy
from collections.abc import Mapping
from typing import Any

from modelport._version import __version__
from modelport.protocols.bentoml.ports import ServedEndpoint
from modelport.wire import json
from modelport.wire.bentoml import EndpointSchema, ServiceSchema

__all__ = ["openapi"]


def openapi(schema: ServiceSchema, services: Mapping[str, tuple[str, ServedEndpoint]]) -> bytes:
    """Write the document.

    Args:
        schema: Of all services and models.
        services: Name of the service and endpoint by route; models are not among them.
    """
    paths: dict[str, Any] = {}
    models = _Models()
    for each in schema.routes:
        owner = services[each.route][0] if each.route in services else "models"
        paths[each.route] = {"post": _operation(owner, each, models)}
        if each.is_task:
            paths |= _task_paths(owner, each, models)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": schema.name,
            "description": schema.description,
            "version": __version__,
        },
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR, **models.by_name}},
    }
    return json.encode(document)


class _Models:
    """Schemas that others refer to. They stand in one place, each under a name of its own."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}
        self._origins: dict[str, Any] = {}

    def hoisted(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Take definitions out of a schema, and refer to where they stand now."""
        definitions = schema.get("$defs", {})
        name_by_name: dict[str, str] = {}
        for name, definition in definitions.items():
            given, at = name, 2
            # Two services may call different things by one name.
            origin = (definition, definitions)
            while given == "Error" or self._origins.setdefault(given, origin) != origin:
                given, at = f"{name}_{at}", at + 1
            name_by_name[name] = given
        for name, definition in definitions.items():
            self.by_name[name_by_name[name]] = _referring(definition, name_by_name)
        rewritten: dict[str, Any] = _referring(
            {key: value for key, value in schema.items() if key != "$defs"}, name_by_name
        )
        return rewritten


def _referring(value: Any, name_by_name: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_referring(each, name_by_name) for each in value]
    if not isinstance(value, dict):
        return value
    said = {key: _referring(each, name_by_name) for key, each in value.items()}
    reference = said.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        name = reference.removeprefix("#/$defs/")
        said["$ref"] = f"#/components/schemas/{name_by_name.get(name, name)}"
    return said


def _operation(owner: str, each: EndpointSchema, models: _Models) -> dict[str, Any]:
    said: dict[str, Any] = {
        # A route is unique, a name need not be.
        "operationId": f"{owner}__{each.name}",
        "tags": [owner],
        "summary": each.name,
        "x-bentoml-name": each.name,
        "requestBody": {"required": True, "content": _request(each, models)},
        "responses": {
            "200": {"description": "the result", "content": _response(each, models)},
            "400": _error("the arguments do not fit"),
            "429": _error("too many requests are under way"),
            "500": _error("the call failed"),
            "504": _error("the call took too long"),
        },
    }
    if each.doc:
        said["description"] = each.doc
    return said


def _task_paths(owner: str, each: EndpointSchema, models: _Models) -> dict[str, Any]:
    """Describe how a task is submitted and asked for."""
    base = each.route.rstrip("/")
    body = {"requestBody": {"required": True, "content": _request(each, models)}}
    known = {"application/json": {"schema": _TASK}}
    rows: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
        ("post", "submit", "the task is accepted", body, known),
        ("get", "status", "how far the task has come", _BY_ID, known),
        ("get", "get", "what the task answered", _BY_ID, _response(each, models)),
        ("put", "cancel", "the task is cancelled", _BY_ID, known),
        ("post", "retry", "the task runs again, as another one", _BY_ID, known),
    ]
    return {
        f"{base}/{verb}": {
            method: {
                "operationId": f"{owner}__{each.name}__{verb}",
                "tags": [owner],
                "summary": f"{each.name}: {verb}",
                **asked,
                "responses": {
                    "200": {"description": description, "content": content},
                    "400": _error("this cannot be done now, or the id is missing"),
                    "404": _error("there is no such task"),
                },
            }
        }
        for method, verb, description, asked, content in rows
    }


def _request(each: EndpointSchema, models: _Models) -> dict[str, Any]:
    plain = models.hoisted(_standard(each.input))
    if each.is_root and each.input.get("type") == "string":
        return {"text/plain": {"schema": plain}}
    if each.is_root and each.input.get("type") == "file":
        return {each.input.get("content_type", "application/octet-stream"): {"schema": plain}}
    if _has_files(each.input):
        return {"multipart/form-data": {"schema": plain}}
    return {"application/json": {"schema": plain}}


def _response(each: EndpointSchema, models: _Models) -> dict[str, Any]:
    output = each.output
    plain = models.hoisted(_standard(output))
    if each.is_stream:
        return {output.get("media_type", "text/event-stream"): {"schema": plain}}
    if output.get("type") == "string":
        return {output.get("media_type", "text/plain"): {"schema": plain}}
    if output.get("type") == "file":
        kind = "image/*" if output.get("format") == "image" else "application/octet-stream"
        return {output.get("media_type", kind): {"schema": plain}}
    if _mentions_file(output):
        return {"multipart/form-data": {"schema": plain}}
    return {"application/json": {"schema": plain}}


def _has_files(schema: Mapping[str, Any]) -> bool:
    for each in schema.get("properties", {}).values():
        if each.get("type") == "file" or each.get("items", {}).get("type") == "file":
            return True
    return False


def _mentions_file(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_mentions_file, schema))
    if not isinstance(schema, dict):
        return False
    return schema.get("type") == "file" or any(map(_mentions_file, schema.values()))


def _standard(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Say in the words of JSON schema what BentoML has words of its own for."""
    said = copy.deepcopy(dict(schema))
    for key in ("root_input", "is_stream", "media_type"):
        said.pop(key, None)
    return _standardised(said)


def _standardised(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if kind == "tensor":
        shape, dtype = schema.get("shape"), schema.get("dtype", "")
        note = f"{schema.get('format')} {dtype}{list(shape) if shape else ''}".strip()
        return _kept(schema) | {"type": "array", "items": {}, "description": note}
    if kind == "dataframe":
        if schema.get("orient") == "columns":
            inner: dict[str, Any] = {"type": "array", "items": {}}
            return _kept(schema) | {"type": "object", "additionalProperties": inner}
        return _kept(schema) | {"type": "array", "items": {"type": "object"}}
    if kind == "file":
        media_type = schema.get("content_type", "application/octet-stream")
        return _kept(schema) | {"type": "string", "contentMediaType": media_type}
    if "default" in schema and schema["default"] is None and isinstance(kind, str):
        # Of an optional type, BentoML's form has the first branch only.
        schema["type"] = [kind, "null"]
    for key in ("properties", "$defs"):
        if isinstance(schema.get(key), dict):
            schema[key] = {
                name: _standardised(each) if isinstance(each, dict) else each
                for name, each in schema[key].items()
            }
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = _standardised(schema[key])
    for key in ("anyOf", "allOf", "oneOf", "prefixItems"):
        if isinstance(schema.get(key), list):
            schema[key] = [_standardised(each) for each in schema[key]]
    return schema


def _kept(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in ("title", "default") if key in schema}


def _error(description: str) -> dict[str, Any]:
    reference = {"schema": {"$ref": "#/components/schemas/Error"}}
    return {"description": description, "content": {"application/json": reference}}


_BY_ID: dict[str, Any] = {
    "parameters": [
        {"name": "task_id", "in": "query", "required": True, "schema": {"type": "string"}}
    ]
}
_TASK = {
    "type": "object",
    "required": ["task_id", "status"],
    "properties": {
        "task_id": {"type": "string"},
        "status": {"enum": ["in_progress", "completed", "failed", "canceled"]},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "detail": {"type": "array", "items": {"type": "object"}},
    },
}
