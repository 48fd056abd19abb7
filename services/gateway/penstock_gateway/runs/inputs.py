"""Checks the inputs of a run against the parameters of its pipeline and makes the run's values of them.

Types are checked by the JSON Schema that the compiler wrote beside a parameter, as far as it uses `type`, `enum`,
`const`, `items`, `properties`, `required`, `additionalProperties` and `anyOf`. Other keywords are left to the step.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson
import pydantic

from penstock_core import ids
from penstock_core.errors import InputError, InvalidIdError
from penstock_core.pipeline.ir import Port
from penstock_core.pipeline.values import INLINE_LIMIT, ArtifactRef, Inline, Stored, Value
from penstock_gateway.http.bodies import kind
from penstock_gateway.http.problems import InvalidInputsError, from_validation, sentence

Schema = Mapping[str, Any]

_REFERENCE = pydantic.TypeAdapter(ArtifactRef)


def check(
    pipeline: str, params: Sequence[Port], given: Mapping[str, Any], kept: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """The values of all parameters, defaults filled in, in the order of the pipeline.

    An input of the form `{"artifact": {"sha256": …, "size": …, …}}` names a stored object. `kept` are the values of an
    earlier run, which count where nothing is given.

    Raises:
        InvalidInputs: names every input that is unknown, missing, too large or of the wrong type.
    """
    known = [port.name for port in params]
    kept = kept or {}
    names = dict.fromkeys([*given, *kept])
    errors = [(f"inputs.{name[:100]}", _unknown(name, known)) for name in names if name not in known]
    values: dict[str, Value] = {}
    for port in params:
        if port.name in given or port.name in kept:
            try:
                values[port.name] = (
                    _value(port, given[port.name]) if port.name in given else _kept(port, kept[port.name])
                )
            except InputError as error:
                errors.append((f"inputs.{port.name}", str(error)))
        elif port.required:
            errors.append((f"inputs.{port.name}", f"is missing; it must be {port.type}"))
        else:
            values[port.name] = Inline(port.default)
    if errors:
        raise InvalidInputsError(f"The inputs do not fit pipeline {pipeline!r}", errors)
    return values


def _value(port: Port, given: Any) -> Value:
    if isinstance(given, dict) and list(cast("dict[str, Any]", given)) == ["artifact"]:
        fields: Any = given["artifact"]
        if isinstance(fields, dict) and "sha256" in fields:
            return _stored(cast("dict[str, Any]", fields))
    problem = _too_large(given) or mismatch(given, port.schema)
    if problem:
        raise InputError(problem)
    return Inline(given)


def _kept(port: Port, value: Value) -> Value:
    # A default may be of another type than its parameter: `depth: int = None`.
    if isinstance(value, Inline) and (port.required or value.value != port.default):
        problem = mismatch(value.value, port.schema)
        if problem:
            raise InputError(problem)
    return value


def _stored(fields: dict[str, Any]) -> Stored:
    try:
        reference = _REFERENCE.validate_python({"media_type": "application/octet-stream", "format": "file"} | fields)
        ids.check_digest(reference.sha256)
    except pydantic.ValidationError as error:
        raise InputError(f"is no artifact: {sentence(from_validation(error))}") from error
    except InvalidIdError as error:
        raise InputError(f"is no artifact: {error}") from error
    return Stored(reference)


def mismatch(value: Any, schema: Any, where: str = "") -> str | None:
    """What is wrong with a JSON value by its schema, in words, or None when nothing is or the schema makes no sense."""
    if not isinstance(schema, dict):
        return None
    if isinstance(value, dict) and "$type" in value:
        # The SDK's exact form of what JSON has no type for (NaN, dates, enumerations …): the step reads and checks it.
        return None
    return _mismatch(value, cast("Schema", schema), where)


def _mismatch(value: Any, schema: Schema, where: str) -> str | None:
    at = f"{where} " if where else ""
    options = schema.get("anyOf")
    if isinstance(options, list):
        found = [mismatch(value, option, where) for option in cast("list[Any]", options)]
        if found and all(found):
            return f"{at}must be {_expected(schema)}, not {_shown(value)}"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{at}must be {_shown(schema['const'])}, not {_shown(value)}"
    allowed = schema.get("enum")
    if isinstance(allowed, list) and not any(_same(value, item) for item in cast("list[Any]", allowed)):
        options = ", ".join(_shown(item) for item in cast("list[Any]", allowed)[:20])
        return f"{at}must be one of {options}, not {_shown(value)}"
    types = _types(schema)
    if types and not any(_is(value, name) for name in types):
        return f"{at}must be {_expected(schema)}, not {_shown(value)}"
    if isinstance(value, list):
        return _in_list(cast("list[Any]", value), schema, where)
    if isinstance(value, dict):
        return _in_object(cast("dict[str, Any]", value), schema, where)
    return None


def _in_list(value: list[Any], schema: Schema, where: str) -> str | None:
    items = schema.get("items")
    if isinstance(items, dict):
        for n, item in enumerate(value):
            problem = mismatch(item, items, f"{where}[{n}]")
            if problem:
                return problem
    return None


def _in_object(value: dict[str, Any], schema: Schema, where: str) -> str | None:
    known: Any = schema.get("properties")
    properties = cast("dict[str, Any]", known) if isinstance(known, dict) else {}
    required: Any = schema.get("required")
    for name in cast("list[Any]", required) if isinstance(required, list) else []:
        if isinstance(name, str) and name not in value:
            return f"{where}.{name} is missing".lstrip(".")
    others = schema.get("additionalProperties")
    for name, item in value.items():
        place = f"{where}.{name[:100]}".lstrip(".")
        if name not in properties and others is False:
            return f"{place} is not known here"
        problem = mismatch(item, properties.get(name, others), place)
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


_WORDS = {
    "null": "null",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "an object",
}


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
    return " or ".join(_WORDS.get(name, name) for name in names) if names else "a value of its schema"


def _same(left: Any, right: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{kind(value)} ({text[:40]}…)"


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"is no parameter of this pipeline (it has: {', '.join(known) or 'none'}){hint}"


def _too_large(value: Any) -> str | None:
    size = len(orjson.dumps(value))
    if size <= INLINE_LIMIT:
        return None
    return (
        f"has {size} bytes as JSON; the limit is {INLINE_LIMIT}: pass a file or an artifact instead "
        '(put the bytes to /v1/artifacts/{sha256}, then give {"artifact": {"sha256": …, "size": …}})'
    )
