"""JSON Schema of a hint, where there is a simple one: scalars, enumerations, lists, dictionaries, unions of these."""

from __future__ import annotations

import collections.abc
import datetime
import enum
import typing
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
}


def schema(hint: Any) -> dict[str, Any] | None:
    """The schema of the plain JSON form of values of `hint`; None where there is none."""
    first, *others = hints.members(hint)
    if others:
        inner = [schema(option) for option in (first, *others)]
        return None if None in inner else {"anyOf": inner}
    hint = first
    literals = hints.literals(hint)
    if literals is not None:
        return {"enum": list(literals)} if all(isinstance(one, str | int | None) for one in literals) else None
    cls = hints.class_of(hint)
    if cls is None:
        return None
    if cls in _SCALARS:
        return dict(_SCALARS[cls])
    if issubclass(cls, enum.Enum):
        return {"enum": list(cls.__members__)}
    if cls in (dict, collections.abc.Mapping):
        return _object(hint)
    if cls in (list, collections.abc.Sequence):
        item = schema(hints.item(hint)) if typing.get_args(hint) else {}
        return None if item is None else {"type": "array", "items": item} if item else {"type": "array"}
    return None


def _object(hint: Any) -> dict[str, Any] | None:
    key, value = hints.entry(hint)
    if hints.strip(key) not in (str, Any):
        return None
    inner = schema(value) if value is not Any else {}
    return None if inner is None else {"type": "object", "additionalProperties": inner} if inner else {"type": "object"}
