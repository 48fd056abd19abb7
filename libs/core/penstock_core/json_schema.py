"""Check a JSON value against the JSON Schema that the compiler writes beside each parameter of a pipeline.

Supported keywords: `type`, `enum`, `const`, `items`, `prefixItems`, `properties`, `required`, `additionalProperties`,
`anyOf`, `oneOf`, `allOf`, `$ref` to `$defs`, limits of numbers and lengths, and `format` of `formats`. Three more are
Penstock's: `members`, the names that errors list instead of `enum`; `keys`, the format of the keys of an object; and
`lax`, for models of pydantic, which converts texts to numbers. Other keywords are ignored here; the step checks its own
inputs. A schema that makes no sense accepts every value.
"""

from __future__ import annotations

import difflib
import json
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from penstock_core import formats

Schema = Mapping[str, Any]
Problem = tuple[str, str]
"""A path, such as `.layers[2]`, and what is wrong there."""

_NAMES = {
    "null": "None",
    "boolean": "bool",
    "integer": "int",
    "number": "float",
    "string": "str",
    "array": "list",
    "object": "dict",
}
_EXAMPLES = {"boolean": "true or false", "array": "[1, 2]", "object": '{"a": 1}'}
_SHOWN = 60
_MOST_REFERENCES = 50
_MOST_SHOWN = 20
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", operator.ge),
    "maximum": ("at most", operator.le),
    "exclusiveMinimum": ("greater than", operator.gt),
    "exclusiveMaximum": ("less than", operator.lt),
}
_LENGTHS: dict[str, tuple[type, str, Callable[[Any, Any], bool]]] = {
    "minLength": (str, "at least {} characters", operator.ge),
    "maxLength": (str, "at most {} characters", operator.le),
    "minItems": (list, "at least {} items", operator.ge),
    "maxItems": (list, "at most {} items", operator.le),
}


def mismatch(value: Any, schema: Any) -> str | None:
    """Describe the first violation of the schema, such as `[1].a: expected str, got 3`; None where it conforms."""
    for path, message in problems(value, schema):
        return f"{path.lstrip('.')}: {message}" if path else message
    return None


def problems(value: Any, schema: Any) -> Iterator[Problem]:
    """Yield each part of a value that violates the schema, with its path."""
    return _Check(schema).value(value, schema, "", lax=False)


def kind(value: Any) -> str:
    """Name the JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


def dump(value: Any) -> str:
    """Encode a value as compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def shown(value: Any) -> str:
    """Show a value in an error; of a long one only its kind and beginning."""
    text = dump(value)
    return text if len(text) <= _SHOWN else f"{kind(value)} ({text[:40]}…)"


def takes_text(schema: Any) -> bool:
    """Whether a schema accepts any text."""
    return any(one.get("type") == "string" and "format" not in one for one in alternatives(schema))


def lists_value(schema: Any, value: Any) -> bool:
    """Whether a value is one of those that a schema enumerates."""
    return any(value in _list(one, "enum") or one.get("const") == value for one in alternatives(schema))


def alternatives(schema: Any, root: Any = None) -> list[Schema]:
    """Return the schemas of which a value has to match one; of a schema without alternatives itself."""
    whole = schema if root is None or (isinstance(schema, dict) and "$defs" in schema) else root
    found = _Check(whole).resolved(schema)
    if found is None:
        return []
    options = _list(found, "anyOf") or _list(found, "oneOf")
    if options:
        return [one for option in options for one in alternatives(option, whole)]
    names = found.get("type")
    if isinstance(names, list):
        return [{**found, "type": name} for name in cast("list[Any]", names)]
    return [found]


class _Check:
    """A check against one schema, whose `$defs` its references name."""

    def __init__(self, root: Any) -> None:
        self.definitions: Any = cast("Schema", root).get("$defs") if isinstance(root, dict) else None

    def resolved(self, schema: Any) -> Schema | None:
        """The schema itself, or what it refers to; None if that does not exist."""
        for _ in range(_MOST_REFERENCES):
            if not isinstance(schema, dict):
                return None
            found = cast("dict[str, Any]", schema)
            reference = found.get("$ref")
            if not isinstance(reference, str):
                return found
            name = reference.removeprefix("#/$defs/")
            known = cast("dict[str, Any]", self.definitions) if isinstance(self.definitions, dict) else {}
            schema = known.get(name)
        return None

    def value(self, value: Any, schema: Any, path: str, *, lax: bool) -> Iterator[Problem]:
        if not isinstance(schema, dict) or (isinstance(value, dict) and "$type" in value):
            # `$type`: the SDK's encoding of values that JSON has no type for (NaN, dates, enumerations).
            return
        given = cast("Schema", schema)
        lax = lax or given.get("lax") is True
        if "$defs" in given and given["$defs"] is not self.definitions:
            yield from _Check(given).value(value, given, path, lax=lax)
            return
        found = self.resolved(given)
        if found is None:
            return
        for one in _list(found, "allOf"):
            yield from self.value(value, one, path, lax=lax)
        options = _list(found, "anyOf") or _list(found, "oneOf")
        if options:
            yield from self.union(value, found, options, path, lax=lax)
            return
        if not self.fits(value, found, lax=lax):
            yield path, f"expected {self.expected(found)}, got {shown(value)}"
            return
        yield from ((path, f"expected {limit}, got {shown(value)}") for limit in _exceeded(value, found, lax=lax))
        if isinstance(value, list):
            yield from self.items(cast("list[Any]", value), found, path, lax=lax)
        if isinstance(value, dict):
            yield from self.fields(cast("dict[str, Any]", value), found, path, lax=lax)

    def union(self, value: Any, schema: Schema, options: list[Any], path: str, *, lax: bool) -> Iterator[Problem]:
        """Several schemas, of which one has to match. A list or object has the problems of the closest one."""
        found = [list(self.value(value, option, path, lax=lax)) for option in options]
        if not all(found):
            return
        deeper = [one for one in found if all(at != path for at, _ in one)] if isinstance(value, list | dict) else []
        if deeper:
            yield from min(deeper, key=len)
        else:
            yield path, f"expected {self.expected(schema)}, got {shown(value)}"

    def fits(self, value: Any, schema: Schema, *, lax: bool) -> bool:
        """Whether a value has the type, is one of the values and has the format that the schema declares."""
        if "const" in schema and not _same(value, schema["const"]):
            return False
        if isinstance(schema.get("enum"), list) and not any(_same(value, one) for one in _list(schema, "enum")):
            return False
        names = _types(schema)
        if names and not any(_is(value, name) or (lax and _converts(value, name, schema)) for name in names):
            return False
        format = schema.get("format")
        return lax or not isinstance(value, str) or not isinstance(format, str) or formats.fits(value, format)

    def items(self, value: list[Any], schema: Schema, path: str, *, lax: bool) -> Iterator[Problem]:
        first = _list(schema, "prefixItems")
        if not first and _all_fit(value, schema.get("items")):
            return
        for n, item in enumerate(value):
            inner = first[n] if n < len(first) else schema.get("items")
            if inner is not None:
                yield from self.value(item, inner, f"{path}[{n}]", lax=lax)

    def fields(self, value: dict[str, Any], schema: Schema, path: str, *, lax: bool) -> Iterator[Problem]:
        known: Any = schema.get("properties")
        properties = cast("dict[str, Any]", known) if isinstance(known, dict) else {}
        for name in _list(schema, "required"):
            if isinstance(name, str) and name not in value:
                expected = self.expected(properties.get(name))
                yield _field(path, name), f"missing{f', expected {expected}' if expected else ''}"
        others = schema.get("additionalProperties")
        keys = schema.get("keys")
        for name, item in value.items():
            at = _field(path, name)
            if name not in properties and others is False:
                yield at, unknown(name, properties, "field")
            elif isinstance(keys, str) and name not in properties and not formats.fits(name, keys):
                yield at, f"expected a key that is {formats.describe(keys)}, got {shown(name)}"
            else:
                yield from self.value(item, properties.get(name, others), at, lax=lax)

    def expected(self, schema: Any) -> str:
        """Name what a schema accepts, as in Python; empty for everything."""
        found = self.resolved(schema)
        if found is None:
            return ""
        options = _list(found, "anyOf") or _list(found, "oneOf")
        if options:
            return " or ".join(dict.fromkeys(filter(None, map(self.expected, options))))
        if "const" in found:
            return shown(found["const"])
        if isinstance(found.get("enum"), list):
            members = [str(one) for one in _list(found, "members")] or [shown(one) for one in _list(found, "enum")]
            more = f", … ({len(members)} in all)" if len(members) > _MOST_SHOWN else ""
            return f"{'one of ' if len(members) > 1 else ''}{', '.join(members[:_MOST_SHOWN])}{more}"
        title, format, names = found.get("title"), found.get("format"), _types(found)
        if isinstance(title, str) and title:
            return title
        if isinstance(format, str) and formats.describe(format):
            return formats.describe(format)
        return " or ".join(map(_type_name, names))


def unknown(name: str, known: Mapping[str, Any], what: str) -> str:
    """Describe an unknown name, with the known ones and the most similar one."""
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    names = ", ".join(list(known)[:_MOST_SHOWN]) + (", …" if len(known) > _MOST_SHOWN else "")
    return f"unknown {what} ({what}s: {names or 'none'}){hint}"


def _field(path: str, name: str) -> str:
    return f"{path}.{name[:100]}"


def _type_name(name: str) -> str:
    example = f" such as {_EXAMPLES[name]}" if name in ("array", "object") else f" ({_EXAMPLES['boolean']})"
    return _NAMES.get(name, name) + (example if name in _EXAMPLES else "")


_SCALARS: dict[str, frozenset[type]] = {
    "number": frozenset({int, float}),
    "integer": frozenset({int}),
    "string": frozenset({str}),
    "boolean": frozenset({bool}),
}


def _all_fit(items: list[Any], schema: Any) -> bool:
    """Whether all items certainly fit: a quick look at long lists of numbers and texts without further conditions."""
    match schema:
        case {"type": str(name), **rest} if not rest and name in _SCALARS:
            return _SCALARS[name].issuperset(map(type, items))
        case _:
            return False


def _list(schema: Schema, keyword: str) -> list[Any]:
    found = schema.get(keyword)
    return cast("list[Any]", found) if isinstance(found, list) else []


def _types(schema: Schema) -> list[str]:
    names = schema.get("type")
    return [names] if isinstance(names, str) else [str(name) for name in _list(schema, "type")]


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


def _converts(value: Any, name: str, schema: Schema) -> bool:
    """Whether pydantic may convert a value to a type. What it refuses after that, it refuses in the step."""
    match name:
        case "integer" | "number":
            return isinstance(value, int | float) or _number(value) is not None
        case "boolean":
            return isinstance(value, int | float) or (isinstance(value, str) and value.lower() in formats.FLAGS)
        case "string":
            return "format" in schema and isinstance(value, int | float)
        case _:
            return False


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        return None


def _exceeded(value: Any, schema: Schema, *, lax: bool) -> Iterator[str]:
    number = _number(value) if lax else value
    if isinstance(number, int | float) and not isinstance(value, bool):
        for keyword, (words, holds) in _BOUNDS.items():
            limit = schema.get(keyword)
            if isinstance(limit, int | float) and not isinstance(limit, bool) and not holds(number, limit):
                yield f"{' or '.join(_NAMES.get(name, name) for name in _types(schema))} {words} {limit}".lstrip()
    for keyword, (kind_of, words, holds) in _LENGTHS.items():
        limit = schema.get(keyword)
        if isinstance(value, kind_of) and isinstance(limit, int) and not holds(len(cast("Any", value)), limit):
            yield words.format(limit)


def _same(left: Any, right: Any) -> bool:
    """Compare as JSON: true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)
