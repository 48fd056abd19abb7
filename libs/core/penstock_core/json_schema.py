"""Check a JSON value against the JSON Schema that the compiler writes beside each parameter of a pipeline.

Supported keywords: `type`, `enum`, `const`, `items`, `properties`, `required`, `additionalProperties`, `anyOf`. Other
keywords are ignored here; the step checks its own inputs. A schema that makes no sense accepts every value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

_NAMES = {
    "null": "null",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "an object",
}
_SHOWN = 60


Mismatch = tuple[str, str]
"""A path in a value, such as `[1].a` or empty, and what is wrong there."""


def mismatch(value: Any, schema: Any) -> str | None:
    """Describe how a value violates its schema, such as `[1].a must be text, not 3`; None where it conforms."""
    found = find_mismatch(value, schema)
    if found is None:
        return None
    path, message = found
    return f"{path.removeprefix('.')} {message}".lstrip()


def find_mismatch(value: Any, schema: Any, where: str = "") -> Mismatch | None:
    """Return where a value violates its schema, and how; None where it conforms. Paths begin with `where`."""
    if not isinstance(schema, dict):
        return None
    if isinstance(value, dict) and "$type" in value:
        # The SDK's encoding of values that JSON has no type for (NaN, dates, enumerations): the step decodes it.
        return None
    return _mismatch(value, cast("Schema", schema), where)


def kind(value: Any) -> str:
    """Name the JSON type of a value."""
    match value:
        case None:
            return _NAMES["null"]
        case bool():
            return _NAMES["boolean"]
        case int():
            return _NAMES["integer"]
        case float():
            return _NAMES["number"]
        case str():
            return _NAMES["string"]
        case list():
            return _NAMES["array"]
        case _:
            return _NAMES["object"]


def dump(value: Any) -> str:
    """Encode a value as compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _mismatch(value: Any, schema: Schema, where: str) -> Mismatch | None:
    options = schema.get("anyOf")
    if isinstance(options, list):
        found = [find_mismatch(value, option, where) for option in cast("list[Any]", options)]
        if found and all(found):
            return where, f"must be {_expected(schema)}, not {_shown(value)}"
    if "const" in schema and not _same(value, schema["const"]):
        return where, f"must be {_shown(schema['const'])}, not {_shown(value)}"
    allowed = schema.get("enum")
    if isinstance(allowed, list) and not any(_same(value, item) for item in cast("list[Any]", allowed)):
        options = ", ".join(_shown(item) for item in cast("list[Any]", allowed)[:20])
        return where, f"must be one of {options}, not {_shown(value)}"
    types = _types(schema)
    if types and not any(_is(value, name) for name in types):
        return where, f"must be {_expected(schema)}, not {_shown(value)}"
    if isinstance(value, list):
        return _in_list(cast("list[Any]", value), schema, where)
    if isinstance(value, dict):
        return _in_object(cast("dict[str, Any]", value), schema, where)
    return None


def _in_list(value: list[Any], schema: Schema, where: str) -> Mismatch | None:
    items = schema.get("items")
    if isinstance(items, dict):
        for n, item in enumerate(value):
            problem = find_mismatch(item, items, f"{where}[{n}]")
            if problem:
                return problem
    return None


def _in_object(value: dict[str, Any], schema: Schema, where: str) -> Mismatch | None:
    known: Any = schema.get("properties")
    properties = cast("dict[str, Any]", known) if isinstance(known, dict) else {}
    required: Any = schema.get("required")
    for name in cast("list[Any]", required) if isinstance(required, list) else []:
        if isinstance(name, str) and name not in value:
            return f"{where}.{name}", "is missing"
    others = schema.get("additionalProperties")
    for name, item in value.items():
        path = f"{where}.{name[:100]}"
        if name not in properties and others is False:
            return path, "is not a known field"
        problem = find_mismatch(item, properties.get(name, others), path)
        if problem:
            return problem
    return None


def _types(schema: Schema) -> list[str]:
    names = schema.get("type")
    if isinstance(names, str):
        return [names]
    return [str(name) for name in cast("list[Any]", names)] if isinstance(names, list) else []


def _is(value: Any, name: str) -> bool:
    match name:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return True


def _expected(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "a value of its schema"
    found = cast("Schema", schema)
    options = found.get("anyOf")
    if isinstance(options, list) and options:
        return " or ".join(dict.fromkeys(_expected(option) for option in cast("list[Any]", options)))
    if "const" in found:
        return _shown(found["const"])
    names = _types(found)
    return " or ".join(_NAMES.get(name, name) for name in names) if names else "a value of its schema"


def _same(left: Any, right: Any) -> bool:
    """Compare as JSON: true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _shown(value: Any) -> str:
    text = dump(value)
    return text if len(text) <= _SHOWN else f"{kind(value)} ({text[:40]}…)"
