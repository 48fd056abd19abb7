"""The simplest JSON of a value whose type the reader knows: what a person would write."""

from __future__ import annotations

import dataclasses
import enum
import math
from pathlib import PurePath
from typing import Any, cast

from penstock import hints
from penstock.codec import scalars
from penstock.codec.decoder import MismatchError, decode
from penstock.codec.encoder import encode


def plain(value: object, hint: Any) -> Any:
    """Return plain JSON if decoding it with `hint` gives an equal value of the same type, else the tagged form.

    Raises:
        NotJsonError: there is no exact JSON form.
    """
    exact = encode(value, hint)
    simple = _simplify(value)
    if simple == exact:
        return exact
    try:
        # Only what needs no tag at all is simpler.
        if encode(simple) == simple and _same(decode(simple, hint), value):
            return simple
    except (MismatchError, TypeError):
        pass
    return exact


def _simplify(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, PurePath):
        return str(value)
    name = scalars.BY_TYPE.get(type(value))
    if name in ("datetime", "date", "time", "decimal", "uuid"):
        return scalars.TEXTS[name].write(value)
    if hints.is_named_tuple(type(value)):
        return {field: _simplify(getattr(value, field)) for field in value._fields}
    if isinstance(value, list | tuple | set | frozenset):
        return [_simplify(entry) for entry in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: _simplify(entry) for key, entry in cast("dict[Any, Any]", value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _simplify(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def _same(found: Any, value: Any) -> bool:
    if type(found) is not type(value):
        return False
    if isinstance(found, float) and math.isnan(found):
        return math.isnan(value)
    return bool(found == value)
