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
    for each in schema.routes:
        owner = services[each.route][0] if each.route in services else "models"
        paths[each.route] = {"post": _operation(owner, each)}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": schema.name,
            "description": schema.description,
            "version": __version__,
        },
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }
    return json.encode(document)


def _operation(owner: str, each: EndpointSchema) -> dict[str, Any]:
    said: dict[str, Any] = {
        # A route is unique, a name need not be.
        "operationId": f"{owner}__{each.name}",
        "tags": [owner],
        "summary": each.name,
        "x-bentoml-name": each.name,
        "requestBody": {"required": True, "content": _request(each)},
        "responses": {
            "200": {"description": "the result", "content": _response(each)},
            "400": _error("the arguments do not fit"),
            "429": _error("too many requests are under way"),
            "500": _error("the call failed"),
            "504": _error("the call took too long"),
        },
    }
    if each.doc:
        said["description"] = each.doc
    return said


def _request(each: EndpointSchema) -> dict[str, Any]:
    plain = _standard(each.input)
    if each.is_root and each.input.get("type") == "string":
        return {"text/plain": {"schema": plain}}
    if each.is_root and each.input.get("type") == "file":
        return {each.input.get("content_type", "application/octet-stream"): {"schema": plain}}
    if _has_files(each.input):
        return {"multipart/form-data": {"schema": plain}}
    return {"application/json": {"schema": plain}}


def _response(each: EndpointSchema) -> dict[str, Any]:
    output = each.output
    plain = _standard(output)
    if each.is_stream:
        return {output.get("media_type", "text/event-stream"): {"schema": plain}}
    if output.get("type") == "string":
        return {output.get("media_type", "text/plain"): {"schema": plain}}
    if output.get("type") == "file":
        kind = "image/*" if output.get("format") == "image" else "application/octet-stream"
        return {output.get("media_type", kind): {"schema": plain}}
    return {"application/json": {"schema": plain}}


def _has_files(schema: Mapping[str, Any]) -> bool:
    for each in schema.get("properties", {}).values():
        if each.get("type") == "file" or each.get("items", {}).get("type") == "file":
            return True
    return False


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


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "detail": {"type": "array", "items": {"type": "object"}},
    },
}
