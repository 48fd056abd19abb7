"""Encode Python values as JSON data that preserves types; see the package's docstring for the forms."""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
import sys
from collections.abc import Callable
from typing import Any

from penstock import hints
from penstock.codec import scalars
from penstock.codec.scalars import TAG
from penstock_core.pipeline.tagged import VALUE

_INT64 = 1 << 63
_CONTAINERS = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, BaseException)


class NotJsonError(TypeError):
    """A value has no lossless JSON form."""


def encode(value: object, hint: Any = Any, *, paths: bool = True) -> Any:
    """Return the JSON form of a value.

    Args:
        value: the value.
        hint: what the reader expects: numpy numbers become plain ones where it says `float`, `int` or `bool`.
        paths: write paths as text; otherwise they are refused, because the files would be lost.

    Raises:
        NotJsonError: it, or a part of it, has no exact JSON form.
    """
    try:
        return _Encoder(paths).any(value, hint)
    except RecursionError as error:
        raise NotJsonError("the data is nested too deeply, or contains itself") from error


class _Encoder:
    def __init__(self, paths: bool) -> None:
        self.paths = paths
        self.by_type: dict[type, Callable[[Any, Any], Any]] = {
            bool: _same,
            type(None): _same,
            str: _text,
            int: _integer,
            float: _float,
            list: self.list,
            dict: self.dict,
            tuple: self.tuple,
            set: self.set,
            frozenset: self.set,
            bytes: _bytes,
        }

    def any(self, value: Any, hint: Any) -> Any:
        method = self.by_type.get(type(value))
        return method(value, hint) if method is not None else self.other(value, hint)

    def list(self, value: list[Any], hint: Any) -> Any:
        inner = hints.item(hint) if hint is not Any else Any
        return [self.any(entry, inner) for entry in value]

    def dict(self, value: dict[Any, Any], hint: Any) -> Any:
        keys, inner = hints.entry(hint) if hint is not Any else (Any, Any)
        if TAG not in value and all(type(key) is str for key in value):
            return {_text_or_refuse(key): self.any(entry, inner) for key, entry in value.items()}
        return {TAG: "dict", "items": [[self.any(key, keys), self.any(entry, inner)] for key, entry in value.items()]}

    def tuple(self, value: tuple[Any, ...], hint: Any) -> Any:
        return {TAG: "tuple", "items": [self.any(entry, hints.item(hint, i)) for i, entry in enumerate(value)]}

    def set(self, value: set[Any] | frozenset[Any], hint: Any) -> Any:
        inner = hints.item(hint)
        items = sorted((self.any(entry, inner) for entry in value), key=lambda one: json.dumps(one, sort_keys=True))
        return {TAG: type(value).__name__, "items": items}

    def other(self, value: Any, hint: Any) -> Any:
        cls: type[Any] = type(value)
        name = scalars.BY_TYPE.get(cls)
        if name is not None:
            text = scalars.TEXTS[name]
            if not text.exact(value):
                raise NotJsonError(f"this {cls.__name__} is not restored exactly from its text")
            return {TAG: name, "value": text.write(value)}
        if cls in scalars.PATHS:
            if not self.paths:
                raise NotJsonError("it contains a path")
            return {TAG: "path", "value": _text_or_refuse(str(value))}
        number = _numpy_number(value, hint)
        return number if number is not None else self.object(value, cls)

    def object(self, value: Any, cls: type) -> Any:
        known = isinstance(value, enum.Enum) or dataclasses.is_dataclass(cls) or hints.is_named_tuple(cls)
        if not known and not _is_pydantic(value):
            raise NotJsonError(f"a {cls.__qualname__} cannot be stored as JSON")
        name = scalars.name_of(cls)
        if name is None:
            raise NotJsonError(f"the class {cls.__qualname__} cannot be found in its module {cls.__module__!r}")
        if isinstance(value, enum.Enum):
            if type(value).__members__.get(value.name or "") is value:
                return {TAG: name, "name": value.name, **self.mixed_in(value)}
            return {TAG: name, "value": self.any(value.value, Any), **self.mixed_in(value)}
        if hints.is_named_tuple(cls):
            found = hints.fields(cls)
            return {TAG: name, **{key: self.any(getattr(value, key), inner) for key, inner in found.items()}}
        if dataclasses.is_dataclass(cls):
            return {TAG: name, **self.dataclass_fields(value, cls)}
        return {TAG: name, **self.model(value, cls)}

    def mixed_in(self, member: enum.Enum) -> dict[str, Any]:
        """What a member is beside a member: "fast" of `class Mode(str, Enum)`, so that conditions can compare it."""
        readers: list[tuple[type, Callable[[Any], Any]]]
        readers = [(str, str.__str__), (int, int.__int__), (float, float.__float__)]
        for kind, read in readers:
            if isinstance(member, kind):
                return {VALUE: self.any(read(member), Any)}
        value = member.value
        if type(value) in scalars.BY_TYPE and isinstance(member, type(value)):
            return {VALUE: self.any(value, Any)}
        return {}

    def dataclass_fields(self, value: Any, cls: type) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(cls)]
        more = set(getattr(value, "__dict__", ())) - set(names)
        if isinstance(value, _CONTAINERS) or more or not all(hasattr(value, name) for name in names):
            raise NotJsonError(f"this {cls.__qualname__} has other attributes than its fields")
        return {name: self.any(getattr(value, name), Any) for name in names}

    def model(self, value: Any, cls: Any) -> dict[str, Any]:
        """The fields of a pydantic model by name, those that were given if not all, and what it holds beside fields."""
        fields = {name: entry for name, entry in vars(value).items() if name in cls.model_fields}
        if len(fields) < len(cls.model_fields):
            raise NotJsonError(f"this {cls.__qualname__} has not all of its fields")
        found: dict[str, Any] = {"model": self.named(fields)}
        given, extra = value.model_fields_set, value.model_extra
        if given != set(fields):
            found["set"] = sorted(given)
        if extra is not None:
            found["extra"] = self.named(extra)
        if value.__pydantic_private__ is not None:
            found["private"] = self.named(value.__pydantic_private__)
        return found

    def named(self, entries: dict[str, Any]) -> dict[str, Any]:
        return {_text_or_refuse(name): self.any(entry, Any) for name, entry in entries.items()}


def _same(value: Any, hint: Any) -> Any:
    del hint
    return value


def _text(value: str, hint: Any) -> Any:
    del hint
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return {TAG: "str", "base64": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}
    return value


def _text_or_refuse(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise NotJsonError("a string is not valid Unicode") from error
    return value


def _integer(value: int, hint: Any) -> Any:
    del hint
    return value if -_INT64 <= value < _INT64 else {TAG: "int", "value": hex(value)}


def _float(value: float, hint: Any) -> Any:
    del hint
    return value if math.isfinite(value) else {TAG: "float", "value": repr(value)}


def _bytes(value: bytes, hint: Any) -> Any:
    del hint
    return {TAG: "bytes", "base64": base64.b64encode(value).decode()}


def _numpy_number(value: Any, hint: Any) -> Any:
    """A numpy number of at most 64 bits: plain if it is declared as a number of Python, else with its type."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic) or value.dtype.kind not in "biuf":
        return None
    if value.dtype.itemsize > 8 or type(value) is not value.dtype.type:
        return None
    plain = value.item()
    if {float, int, bool} & set(hints.members(hint)):
        return _float(plain, Any) if isinstance(plain, float) else _integer(plain, Any)
    encoded = _float(plain, Any) if isinstance(plain, float) else _integer(plain, Any)
    return {TAG: "numpy", "dtype": value.dtype.name, "value": encoded}


def _is_pydantic(value: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)
