"""Dataclasses of the core from and to JSON data, with the standard library only.

For processes that have no pydantic: the steps' own. The data comes from the platform, so it is read, not checked:
unknown fields are ignored, a missing one raises `TypeError`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
from collections.abc import Callable
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

Reader = Callable[[Any], Any]


def read(kind: type[T], data: Any) -> T:
    """Return the object of a class that JSON data describes."""
    return _reader(kind)(data)


def write(value: Any) -> str:
    """Return an object as JSON text."""
    return json.dumps(value, default=fields, separators=(",", ":"))


def fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name."""
    return {name: getattr(value, name) for name in _names(type(value))}


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(one.name for one in dataclasses.fields(kind))


@functools.cache
def _reader(kind: Any) -> Reader:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is tuple:
        return _several(_later(arguments[0]), tuple)
    if origin is list:
        return _several(_later(arguments[0]), list)
    if origin is dict:
        value = _later(arguments[1])
        return lambda data: {name: value(one) for name, one in data.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return cast("Reader", kind)
    return lambda data: data


def _later(kind: Any) -> Reader:
    """A reader that is made when it is first used: classes of values contain each other."""
    return lambda data: _reader(kind)(data)


def _several(entry: Reader, collection: Callable[[Any], Any]) -> Reader:
    return lambda data: collection(entry(one) for one in data)


def _dataclass(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = {one.name: _later(hints[one.name]) for one in dataclasses.fields(kind)}
    return lambda data: kind(**{name: readers[name](value) for name, value in data.items() if name in readers})


def _union(options: tuple[Any, ...]) -> Reader:
    """A reader of one of several classes, which differ in their fields; of other types, the data is returned."""
    shapes = {
        frozenset(_names(one)): _later(one)
        for one in options
        if isinstance(one, type) and dataclasses.is_dataclass(one)
    }
    enums = [one for one in options if isinstance(one, type) and issubclass(one, enum.Enum)]
    plain = [one for one in options if one is not type(None)]

    def read_one(data: Any) -> Any:
        if isinstance(data, dict) and shapes:
            names = cast("dict[str, Any]", data).keys()
            found = next((reader for fields, reader in shapes.items() if names <= fields), None)
            return found(data) if found is not None else next(iter(shapes.values()))(data)
        if data is None or len(plain) != 1 or enums:
            return data if data is None or not enums else enums[0](data)
        return _reader(plain[0])(data)

    return read_one
