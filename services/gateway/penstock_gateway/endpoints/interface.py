"""What an endpoint takes and returns, from the types of its pipeline: as JSON Schema and as OpenAPI."""

from __future__ import annotations

import re
from typing import Any, cast

from penstock_core import json_schema
from penstock_core.deployments.definition import Definition
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import Pipeline, Port
from penstock_core.pipeline.streams import streamed_node
from penstock_gateway.endpoints.stream_formats import DESCRIPTIONS, Format
from penstock_gateway.http.problems import MEDIA_TYPE as PROBLEM

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_ARTIFACT = {
    "type": "object",
    "required": ["artifact"],
    "properties": {
        "artifact": {
            "type": "object",
            "required": ["sha256", "size"],
            "properties": {"sha256": {"type": "string"}, "size": {"type": "integer"}},
        }
    },
}
_LINK = {
    "type": "object",
    "required": ["href", "sha256", "size", "media_type"],
    "properties": {
        "href": {"type": "string", "description": "download it from this path of the platform"},
        "sha256": {"type": "string"},
        "size": {"type": "integer", "description": "bytes"},
        "media_type": {"type": "string"},
        "filename": {"type": "string"},
    },
}
_PENDING = {
    "type": "object",
    "required": ["id", "status_url"],
    "properties": {
        "id": {"type": "string"},
        "status_url": {"type": "string", "description": "returns the same answer when the run has finished"},
        "run_id": {"type": ["string", "null"]},
    },
}
_FILE = re.compile(r"\bPath\b")


def is_file(port: Port) -> bool:
    """Return whether a parameter is a file or folder."""
    if port.schema is None:
        return _FILE.search(port.type) is not None
    return any(_is_path(option) for option in json_schema.alternatives(port.schema))


def contains_paths(port: Port) -> bool:
    """Return whether a value of a parameter is a path or contains some."""
    return is_file(port) or _mentions_path(port.schema)


def input_schema(pipeline: Pipeline, definition: Definition) -> dict[str, Any]:
    """Return the schema of the body of a request: an object with the inputs of the run."""
    fixed = definition.inputs
    return {
        "$schema": DIALECT,
        "title": pipeline.name,
        **({"description": pipeline.description} if pipeline.description else {}),
        "type": "object",
        "properties": {port.name: _input(port, fixed) for port in pipeline.params},
        "required": [port.name for port in pipeline.params if port.required and port.name not in fixed],
        "additionalProperties": False,
    }


def output_schema(pipeline: Pipeline) -> dict[str, Any]:
    """Return the schema of the answer: of the only output, else of an object by name."""
    found = {name: _output(pipeline, binding) for name, binding in pipeline.outputs.items()}
    if [*found] == ["result"]:
        return {"$schema": DIALECT, **found["result"]}
    return {"$schema": DIALECT, "type": "object", "properties": found, "required": [*found]}


def example(pipeline: Pipeline, definition: Definition) -> dict[str, Any]:
    """Return a body that a request could have: required inputs, and defaults of the others."""
    found: dict[str, Any] = {}
    for port in pipeline.params:
        if port.required and port.name not in definition.inputs:
            found[port.name] = _sample(port.schema)
        elif not is_file(port):
            found[port.name] = definition.inputs.get(port.name, port.default)
    return found


def openapi(name: str, url: str, path: str, pipeline: Pipeline, definition: Definition) -> dict[str, Any]:
    """Return the description of an endpoint, to generate clients from."""
    schema = _plain(input_schema(pipeline, definition))
    content: dict[str, Any] = {"application/json": {"schema": schema, "example": example(pipeline, definition)}}
    files = {port.name for port in pipeline.params if is_file(port)}
    if files:
        binary = {"type": "string", "format": "binary"}
        parts = {one: binary if one in files else shape for one, shape in schema["properties"].items()}
        content["multipart/form-data"] = {"schema": {**schema, "properties": parts}}
    status = {"schema": {"type": "string"}, "description": "status address of the request"}
    answers = {
        "200": {"description": "The output of the run", "content": _answers(pipeline)},
        "202": {"description": "The run has not finished", "headers": {"Location": status}, **_json(_PENDING)},
        **{
            code: {"description": text, "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
            for code, text in _PROBLEMS.items()
        },
    }
    wait = {"type": "number", "minimum": 0, "maximum": 300}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": "1", "description": definition.description or pipeline.description},
        "servers": [{"url": url}],
        "security": [{"token": []}],
        "paths": {
            path: {
                "post": {
                    "operationId": name.replace("-", "_"),
                    "summary": f"Run {pipeline.name} and return its output",
                    "parameters": [
                        {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}},
                        {"name": "Prefer", "in": "header", "schema": {"type": "string"}, "example": "wait=10"},
                        {"name": "wait", "in": "query", "schema": wait, "description": "seconds, as in Prefer"},
                    ],
                    "requestBody": {"required": bool(schema["required"]), "content": content},
                    "responses": answers,
                }
            }
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _PROBLEM},
        },
    }


_PROBLEMS = {
    "401": "The token is missing or wrong",
    "409": "The deployment is paused, or the idempotency key was used for another request",
    "422": "The body does not fit the pipeline",
    "429": "A limit of the endpoint is exceeded; Retry-After says when to repeat the request",
    "500": "The run failed",
}
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


def _is_path(schema: Any) -> bool:
    return isinstance(schema, dict) and cast("dict[str, Any]", schema).get("format") == "path"


def _mentions_path(schema: Any) -> bool:
    match schema:
        case dict():
            inner = [*cast("dict[str, Any]", schema).values()]
            return _is_path(cast("Any", schema)) or any(_mentions_path(one) for one in inner)
        case list():
            return any(_mentions_path(one) for one in cast("list[Any]", schema))
        case _:
            return False


def _answers(pipeline: Pipeline) -> dict[str, Any]:
    schema = _plain(output_schema(pipeline))
    found: dict[str, Any] = {"application/json": {"schema": schema}}
    if streamed_node(pipeline) is not None:
        found |= {name: {"schema": {"type": "string", "description": text}} for name, text in DESCRIPTIONS.items()}
        for shape in Format:
            found[shape.value]["x-item-schema"] = schema.get("items", {})
    return found


def _json(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "$schema"}


def _input(port: Port, fixed: dict[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = dict(_ARTIFACT) if is_file(port) else dict(port.schema or {})
    shape.setdefault("description", port.type)
    if port.name in fixed:
        return {**shape, "default": fixed[port.name]}
    return shape if port.required else {**shape, "default": port.default}


def _output(pipeline: Pipeline, binding: values.Binding) -> dict[str, Any]:
    match binding:
        case values.Inline(value):
            return {"const": value}
        case values.BoundItems(items):
            return {"type": "array", "prefixItems": [_output(pipeline, item) for item in items]}
        case values.BoundLists():
            return {"type": "array"}
        case values.BoundFields(fields):
            shapes = {name: _output(pipeline, item) for name, item in fields.items()}
            return {"type": "object", "properties": shapes, "required": [*shapes]}
        case values.Output(node, output):
            return _result(pipeline, node, output)
        case values.Param(param):
            port = next((one for one in pipeline.params if one.name == param), None)
            return dict(port.schema or {}) if port is not None else {}
        case _:
            return {}


def _result(pipeline: Pipeline, key: str, output: str) -> dict[str, Any]:
    node = next(one for one in pipeline.nodes if one.key == key)
    port = next((one for one in pipeline.steps[node.step].outputs if one.name == output), None)
    if port is None:
        return {}
    shape: dict[str, Any] = dict(_LINK) if is_file(port) else dict(port.schema or {"description": port.type})
    return shape if node.mapped is None else {"type": "array", "items": shape}


def _sample(schema: dict[str, Any] | None) -> Any:
    match schema or {}:
        case {"enum": [first, *_]} | {"const": first}:
            return first
        case {"anyOf": [first, *_]}:
            return _sample(first)
        case {"type": "integer" | "number"}:
            return 1
        case {"type": "boolean"}:
            return True
        case {"type": "array"}:
            return []
        case {"type": "object"}:
            return {}
        case _:
            return "text"
