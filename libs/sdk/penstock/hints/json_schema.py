"""JSON Schema of hints, by which the platform checks inputs of runs; see `penstock_core.json_schema`.

Of scalars, enumerations, literals, collections, dataclasses, NamedTuples, TypedDicts, pydantic models, and unions.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import importlib
import pathlib
import sys
import typing
import uuid
from typing import Any

from penstock import hints

_SCALARS: dict[type, dict[str, Any]] = {
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
    datetime.timedelta: {"type": ["string", "number"], "format": "duration"},
    decimal.Decimal: {"type": ["string", "number"], "format": "decimal"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    complex: {"type": ["string", "number"], "format": "complex"},
}
_LISTS = (list, set, frozenset, collections.abc.Sequence, collections.abc.Set)
_MAPPINGS = (dict, collections.abc.Mapping)


def schema(hint: Any) -> dict[str, Any] | None:
    """The schema of the plain JSON form of values of `hint`; None where there is none."""
    return _schema(hint, ())


def _schema(hint: Any, within: tuple[Any, ...]) -> dict[str, Any] | None:
    """`within` are the classes whose fields are being read: a class inside of itself has no schema there."""
    first, *others = hints.members(hint)
    if others:
        inner = [_schema(option, within) for option in (first, *others)]
        return None if None in inner else {"anyOf": inner}
    hint = first
    literals = hints.literals(hint)
    if literals is not None:
        return {"enum": list(literals)} if all(isinstance(one, str | int | None) for one in literals) else None
    cls = hints.class_of(hint)
    if cls is None or cls in within:
        return None
    if cls in _SCALARS:
        return dict(_SCALARS[cls])
    if issubclass(cls, enum.Enum):
        return _enum(cls)
    if issubclass(cls, pathlib.PurePath):
        return {"type": "string", "format": "path"}
    if cls in _MAPPINGS:
        return _mapping(hint, within)
    if cls in _LISTS:
        return {"type": "array", **_named("items", _schema(hints.item(hint), within))}
    return _tuple(hint, within) if cls is tuple else _class(cls, (*within, cls))


def _named(name: str, inner: dict[str, Any] | None) -> dict[str, Any]:
    return {} if inner is None else {name: inner}


def _enum(cls: type[enum.Enum]) -> dict[str, Any]:
    """Members by name, or by value where that is plain."""
    names = list(cls.__members__)
    values = [one.value for one in cls if type(one.value) in (str, int, bool) and one.value not in names]
    return {"enum": [*names, *values], **({"members": names} if values else {})}


def _mapping(hint: Any, within: tuple[Any, ...]) -> dict[str, Any] | None:
    key, value = hints.entry(hint)
    known = hints.strip(key)
    if known not in (str, int, Any):
        return None
    keys = {"keys": "int"} if known is int else {}
    return {"type": "object", **keys, **_named("additionalProperties", _schema(value, within))}


def _tuple(hint: Any, within: tuple[Any, ...]) -> dict[str, Any]:
    args = typing.get_args(hint)
    if not args or args[-1] is Ellipsis:
        return {"type": "array", **_named("items", _schema(hints.item(hint), within))}
    first = [_schema(arg, within) or {} for arg in args]
    return {"type": "array", "prefixItems": first, "minItems": len(args), "maxItems": len(args)}


def _class(cls: type, within: tuple[Any, ...]) -> dict[str, Any] | None:
    """A class with fields."""
    if hints.is_pydantic(cls):
        return _model(cls)
    if dataclasses.is_dataclass(cls):
        found = _hints(cls)
        own = [one for one in dataclasses.fields(cls) if one.init]
        required = [
            one.name for one in own if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        ]
        return _fields(cls, {one.name: found.get(one.name, Any) for one in own}, required, within)
    if hints.is_named_tuple(cls):
        known: Any = cls
        required = [name for name in known._fields if name not in known._field_defaults]
        return _fields(cls, hints.fields(cls), required, within) | {"type": ["object", "array"]}
    if hints.is_typed_dict(cls):
        required = sorted(typing.cast("Any", cls).__required_keys__)
        return _fields(cls, hints.typed_dict_fields(cls), required, within, others=True)
    return None


def _fields(
    cls: type, fields: dict[str, Any], required: list[str], within: tuple[Any, ...], *, others: bool = False
) -> dict[str, Any]:
    return {
        "title": hints.show(cls),
        "type": "object",
        "properties": {name: _schema(inner, within) or {} for name, inner in fields.items()},
        "required": required,
        **({} if others else {"additionalProperties": False}),
    }


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError, SyntaxError):
        return {}


# ----------------------------------------------------------------------------------------------------------- pydantic

_KEPT = (
    "$ref", "type", "enum", "const", "items", "prefixItems", "properties", "required", "additionalProperties", "anyOf",
    "oneOf", "allOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength",
    "minItems", "maxItems", "format", "title",
)  # fmt: skip
"""The keywords that the platform checks: others differ between versions of pydantic, and so would versions."""


_NO_VALIDATION = ("metadata", "serialization", "default")


def _model(cls: Any) -> dict[str, Any] | None:
    """The schema of a pydantic model, if its own code does not accept more than that shows."""
    pydantic = sys.modules["pydantic"]
    try:
        core = cls.__pydantic_core_schema__
        if _converts(core):
            return None
        found = cls.model_json_schema(schema_generator=_generator())
    except (pydantic.errors.PydanticUserError, AttributeError, TypeError, KeyError, RecursionError):
        return None
    definitions = {name: _kept(one, name) for name, one in found.pop("$defs", {}).items()}
    return _kept(found, cls.__name__) | {"lax": True} | ({"$defs": definitions} if definitions else {})


@functools.cache
def _generator() -> Any:
    """The generator of pydantic, which describes decimals as such instead of as a number or any text."""
    base: Any = importlib.import_module("pydantic.json_schema").GenerateJsonSchema

    class Generator(base):
        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            return dict(_SCALARS[decimal.Decimal])

    return Generator


def _converts(core: Any) -> bool:
    """Whether validators see values before their type is checked, or fields are accepted under two names."""
    if isinstance(core, dict):
        entry = typing.cast("dict[str, Any]", core)
        kind = entry.get("type")
        if kind in ("function-before", "function-wrap", "function-plain", "custom-error", "call"):
            return True
        if any(entry.get(name) for name in ("populate_by_name", "validate_by_name", "validation_alias_choices")):
            return True
        if isinstance(entry.get("validation_alias"), list):
            return True
        return any(_converts(one) for name, one in entry.items() if name not in _NO_VALIDATION)
    if isinstance(core, list | tuple):
        return any(_converts(one) for one in typing.cast("list[Any]", core))
    return False


def _kept(schema: Any, title: str = "") -> Any:
    if not isinstance(schema, dict):
        return schema
    found = {name: one for name, one in typing.cast("dict[str, Any]", schema).items() if name in _KEPT}
    found.pop("title", None)
    if isinstance(found.get("properties"), dict):
        found["properties"] = {name: _kept(one) for name, one in found["properties"].items()}
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if name in found:
            found[name] = [_kept(one) for one in found[name]]
    for name in ("items", "additionalProperties"):
        if name in found:
            found[name] = _kept(found[name])
    return {**({"title": title} if title and found.get("type") == "object" else {}), **found}
