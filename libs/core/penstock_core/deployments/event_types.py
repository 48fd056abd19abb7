"""JSON Schemas of types of events: which are accepted, and what expressions may read of such events. Pure.

A schema is bounded, so that checking an event takes bounded time: it refers to itself only, without recursion.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from penstock_core.deployments import matching
from penstock_core.deployments.definition import Problem, is_event_type

SCHEMA_LIMIT = 64 * 1024
"""Largest schema as JSON, in bytes."""

EXPANDED_LIMIT = 5_000
"""Most subschemas, with each reference replaced by what it refers to; those below `unevaluated…` count three times."""

_NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions")
"""Keywords with a schema for each name, which can be that of a keyword."""

_DEFINITIONS = ("$defs", "definitions")
_LITERALS = ("const", "enum", "default", "examples")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
_IDS = ("$id", "id")

_PLATFORM = "penstock."
_FIELD = re.compile(r"""\.(\w+)|\[["'](.*?)["']\]|(\[\d+\])""")
_HAS = re.compile(r"\bhas\(([^()]*)\)")
_CEL_TYPES = {"integer": "int", "string": "string", "boolean": "bool", "array": "list", "object": "map"}
"""The CEL type of values of a JSON type; a number can be an integer or a double, so it is checked by neither."""


def type_problem(type: str) -> str:
    """Return why a type of events cannot have a schema; empty if it can."""
    if not is_event_type(type):
        return "must be words of letters, digits, '_' and '-', separated by dots"
    if type.startswith(_PLATFORM):
        return f"must not begin with {_PLATFORM!r}, as those of the platform do"
    return ""


def schema_problems(schema: Any) -> Iterator[Problem]:
    """Yield why a schema cannot be used, each with its path."""
    if not isinstance(schema, dict):
        yield "schema", "must be an object"
        return
    root = cast("dict[str, Any]", schema)
    if found := [*_part_problems(root)]:
        yield from found
        return
    try:
        if _expanded(root, root) > EXPANDED_LIMIT:
            yield "schema", f"is larger than {EXPANDED_LIMIT} subschemas, with each $ref replaced by what it refers to"
    except _ReferenceError as error:
        yield "schema", str(error)


def expression_problems(expression: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield which fields an expression reads that events with a schema do not have, with their positions.

    A field counts as unknown if the schema lists `properties` and not this one, and does not allow more by
    `additionalProperties` or `patternProperties`.
    """
    for start, path in matching.placed_paths(expression):
        if not path.startswith("data") or expression[start - 1 : start] == ".":
            continue
        found: Any = schema
        for part in _FIELD.finditer(path):
            name = part[1] or part[2]
            found = _resolve(schema, found)
            known = _properties(found)
            if name is None or known is None:
                break
            if name not in known:
                line, column = _position(expression, start + part.start() + 1)
                place = f"column {column}" if line == 1 else f"line {line}, column {column}"
                yield f"{place}: there is no field {name[:100]!r} {_hint(name, known)}"
                break
            found = known[name]


def cel_types(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the CEL types of the fields of events with a schema, by path such as `data.rows`, where they are clear."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [("data", schema)]
    while waiting and len(found) < EXPANDED_LIMIT:
        path, given = waiting.pop()
        one = _resolve(schema, given)
        if not isinstance(one, dict):
            continue
        if path != "data" and (name := _CEL_TYPES.get(str(cast("dict[str, Any]", one).get("type")))):
            found[path] = name
        for name, field in (_properties(one) or {}).items():
            if name.isidentifier():
                waiting.append((f"{path}.{name}", field))
    return found


def without_has(expression: str) -> str:
    """Return an expression with `has(…)` replaced by `true` and blanks, so that positions stay the same."""
    return _HAS.sub(lambda found: "true".ljust(len(found[0])), expression)


class _ReferenceError(Exception):
    """A reference cannot be followed."""


def _part_problems(root: dict[str, Any]) -> Iterator[Problem]:
    """Yield the references that cannot be followed, and ids that change what references mean."""
    for path, part in _subschemas(root):
        for name in _REFERENCES:
            if name in part and (problem := _reference_problem(root, part[name])):
                yield f"{path}.{name}", problem
        for name in _IDS:
            if part is not root and isinstance(part.get(name), str):
                # References below it would be relative to it, so they could lead elsewhere than is checked here.
                yield f"{path}.{name}", "only the whole schema can have an id"


def _reference_problem(root: Mapping[str, Any], reference: Any) -> str:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return "must refer to a part of this schema, such as '#/$defs/address'"
    return "" if _resolved(root, reference) is not None else f"there is no {reference[:100]!r} in this schema"


def _parts(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, Any]]:
    """Yield keyword, path and value of what can be a subschema, or a list of them."""
    for name, value in schema.items():
        if name in _NAMED and isinstance(value, dict):
            for key, one in cast("dict[str, Any]", value).items():
                yield name, f"{path}.{name}.{key}", one
        elif name not in _LITERALS:
            yield name, f"{path}.{name}", value


def _subschemas(root: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a schema and all of its subschemas with their paths."""
    waiting: list[tuple[str, Any]] = [("schema", root)]
    while waiting:
        path, one = waiting.pop()
        if isinstance(one, dict):
            found = cast("dict[str, Any]", one)
            yield path, found
            waiting += [(at, value) for _, at, value in _parts(found, path)]
        elif isinstance(one, list):
            waiting += [(f"{path}[{n}]", value) for n, value in enumerate(cast("list[Any]", one))]


def _expanded(root: Mapping[str, Any], node: Any, inside: tuple[str, ...] = (), times: int = 1) -> int:
    """Count the parts of a schema with its references replaced.

    Raises:
        _ReferenceError: a reference leads nowhere, or into itself.
    """
    count = 0
    waiting: list[tuple[Any, int]] = [(node, times)]
    while waiting and count <= EXPANDED_LIMIT:
        one, weight = waiting.pop()
        if isinstance(one, list):
            waiting += [(part, weight) for part in cast("list[Any]", one)]
        if not isinstance(one, dict):
            continue
        found = cast("dict[str, Any]", one)
        count += weight
        if any(name in found for name in _UNEVALUATED):
            weight *= 3  # to find what was not evaluated, everything below is evaluated again
        for name, _, value in _parts(found, ""):
            if name in _REFERENCES:
                if problem := _reference_problem(root, value):
                    raise _ReferenceError(f"{name} {problem}")
                if value in inside or len(inside) > 50:
                    raise _ReferenceError(f"refers to itself by {value[:100]}: recursive schemas are not supported")
                count += _expanded(root, _resolved(root, value), (*inside, value), weight)
            elif name not in _DEFINITIONS:
                waiting.append((value, weight))
    return count


def _resolved(root: Mapping[str, Any], reference: str) -> Any:
    found: Any = root
    for word in reference.removeprefix("#/").split("/"):
        name = word.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict):
            return None
        found = cast("dict[str, Any]", found).get(name)
    return found


def _resolve(root: Mapping[str, Any], schema: Any) -> Any:
    for _ in range(50):
        if not isinstance(schema, dict) or not isinstance(reference := cast("dict[str, Any]", schema).get("$ref"), str):
            return schema
        schema = _resolved(root, reference)
    return None


def _properties(schema: Any) -> dict[str, Any] | None:
    """Return the fields that objects with a schema can have; None if they can have others."""
    if not isinstance(schema, dict):
        return None
    given = cast("dict[str, Any]", schema)
    known = given.get("properties")
    open_ended = given.get("additionalProperties") not in (None, False) or any(
        name in given for name in ("patternProperties", "anyOf", "oneOf", "allOf", "if", "dependentSchemas")
    )
    return None if open_ended or not isinstance(known, dict) else cast("dict[str, Any]", known)


def _hint(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"(did you mean {close[0]!r}?)" if close else f"(fields: {', '.join([*known][:20]) or 'none'})"


def _position(text: str, at: int) -> tuple[int, int]:
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
