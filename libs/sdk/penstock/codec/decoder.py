"""Decode JSON data into Python values: the forms that `encode` writes, and plain data converted to a type hint.

The second is for what people write: `{"depth": 3}` for a dataclass, `"RED"` for an enumeration, `"2024-05-01"` for a
date, `[1, 2]` for a tuple, a text for a path.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import pathlib
import sys
import typing
from collections.abc import Callable
from typing import Any, cast

from penstock import hints
from penstock.codec import scalars
from penstock.codec.scalars import TAG
from penstock.hints import value_check
from penstock_core.durations import parse_duration

_EXACT_FLOAT = 1 << 53
_PLAIN = (float, int, str, bool)
"""Types whose values are decoded to themselves."""


class MismatchError(ValueError):
    """Data does not fit the type hint. `path` leads to the part that does not, such as `.layers[2]`."""

    def __init__(self, message: str, path: str = "") -> None:
        self.message = message
        self.path = path
        super().__init__(f"{path.lstrip('.')}: {message}" if path else message)

    def within(self, path: str) -> MismatchError:
        """The error of the whole, of which the part at `path` does not fit."""
        return MismatchError(self.message, path + self.path)


def decode(data: Any, hint: Any = Any) -> Any:
    """Decode JSON data for a reader that expects `hint`.

    Data that cannot be converted is returned unchanged; check the result with `penstock.hints.value_check.problem`.

    Raises:
        MismatchError: the data has an unknown form, or cannot be converted to the hint.
    """
    if isinstance(data, dict) and TAG in data:
        return _tagged(cast("dict[str, Any]", data))
    options = hints.members(hint)
    if len(options) == 1:
        return _single(data, options[0])
    for option in options:
        if value_check.problem(data, option) is None:
            return _single(data, option)
    errors: list[MismatchError] = []
    for option in options:
        try:
            value = _single(data, option)
        except MismatchError as error:
            errors.append(error)
            continue
        if value_check.problem(value, option) is None:
            return value
    if len(errors) == 1 and errors[0].path:
        raise errors[0]
    return _plain(data)


def _single(data: Any, hint: Any) -> Any:
    cls = hints.class_of(hint)
    if data is None or cls is None:
        return _plain(data)
    if isinstance(data, list):
        return _sequence(cast("list[Any]", data), hint, cls)
    if isinstance(data, dict):
        return _mapping(cast("dict[str, Any]", data), hint, cls)
    if cls is float and type(data) is int:
        return float(data) if abs(data) <= _EXACT_FLOAT else data
    if issubclass(cls, enum.Enum) and isinstance(data, str | int):
        return _enum(data, cls)
    if isinstance(data, str):
        return _from_text(data, cls)
    return _from_number(data, cls)


def _plain(data: Any) -> Any:
    """Decode data without a hint: only tagged parts change."""
    if isinstance(data, list):
        return [decode(entry) for entry in cast("list[Any]", data)]
    if isinstance(data, dict):
        return {key: decode(entry) for key, entry in cast("dict[str, Any]", data).items()}
    return data


def _sequence(data: list[Any], hint: Any, cls: type) -> Any:
    if cls is list and (inner := hints.item(hint)) in _PLAIN and all(type(entry) is inner for entry in data):
        return [*data]
    items: list[Any] = []
    try:
        for index, entry in enumerate(data):
            items.append(decode(entry, hints.item(hint, index)))
    except MismatchError as error:
        raise error.within(f"[{len(items)}]") from error
    if hints.is_named_tuple(cls):
        return _build(cls, dict(zip(hints.fields(cls), data, strict=False)), hints.fields(cls), len(data))
    if cls in (tuple, set, frozenset):
        try:
            return cls(items)
        except TypeError as error:
            raise MismatchError(f"a list with items that cannot be in a {cls.__name__}: {error}") from error
    return items


def _mapping(data: dict[str, Any], hint: Any, cls: type) -> Any:
    if dataclasses.is_dataclass(cls):
        found = _dataclass_hints(cls)
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        return _build(cls, data, {name: found.get(name, Any) for name in names})
    if hints.is_named_tuple(cls):
        return _build(cls, data, hints.fields(cls))
    if hints.is_pydantic(cls):
        return _validate(cls, data)
    keys, inner = hints.entry(hint)
    own = hints.typed_dict_fields(cls) if hints.is_typed_dict(cls) else {}
    found: dict[Any, Any] = {}
    key = ""
    try:
        for key, entry in data.items():
            found[_key(key, keys)] = decode(entry, own.get(key, inner))
    except MismatchError as error:
        raise error.within(f".{key}") from error
    return found


def _key(key: str, hint: Any) -> Any:
    """Convert keys: JSON has text keys only, the hint may declare numbers."""
    options = hints.members(hint)
    if str in options or Any in options:
        return key
    if int in options and key.removeprefix("-").isdecimal():
        return int(key)
    return decode(key, hint)


def _build(cls: type, data: dict[str, Any], fields: dict[str, Any], count: int | None = None) -> Any:
    unknown = [name for name in data if name not in fields]
    if unknown or (count is not None and count > len(fields)):
        raise MismatchError(
            f"{hints.show(cls)} has no field {unknown[0]!r}" if unknown else f"too many fields: {count}"
        )
    values: dict[str, Any] = {}
    for name, entry in data.items():
        try:
            values[name] = decode(entry, fields[name])
        except MismatchError as error:
            raise error.within(f".{name}") from error
        found = value_check.problem(values[name], fields[name])
        if found is not None:
            raise MismatchError(found, f".{name}")
    try:
        return cls(**values)
    except Exception as error:
        raise MismatchError(f"it is not a valid {hints.show(cls)}: {error}") from error


def _dataclass_hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError, SyntaxError):
        return {}


def _enum(data: str | int, cls: type[enum.Enum]) -> Any:
    if isinstance(data, str) and data in cls.__members__:
        return cls.__members__[data]
    try:
        return cls(data)
    except ValueError as error:
        names = ", ".join(cls.__members__)
        raise MismatchError(f"{data!r} is not one of {names}") from error


def _from_text(data: str, cls: type) -> Any:
    if issubclass(cls, pathlib.PurePath):
        return cls(data)
    if cls is datetime.timedelta:
        return _seconds(data)
    name = scalars.BY_TYPE.get(cls)
    return _read(name, data) if name is not None else data


def _from_number(data: Any, cls: type) -> Any:
    if cls is datetime.timedelta and type(data) in (int, float):
        return _seconds(str(data))
    if scalars.BY_TYPE.get(cls) == "decimal" and type(data) in (int, float):
        return _read("decimal", str(data))
    return data


def _seconds(data: str) -> datetime.timedelta:
    """A duration as people write it: seconds, or numbers with units."""
    try:
        return datetime.timedelta(seconds=parse_duration(data))
    except (ValueError, OverflowError) as error:
        raise MismatchError(f"{data!r} is not a duration: write seconds, or 90s, 10m, 1h30m, 2d") from error


def _read(name: str, data: Any) -> Any:
    try:
        return scalars.TEXTS[name].read(data)
    except (ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise MismatchError(f"{data!r} is not a valid {name}") from error


# ---------------------------------------------------------------------------------------------------- tagged forms


def _tagged(data: dict[str, Any]) -> Any:
    name = data[TAG]
    if not isinstance(name, str):
        raise MismatchError(f"{TAG!r} must be a string, not {name!r}")
    try:
        if ":" in name:
            return _object(name, {key: entry for key, entry in data.items() if key != TAG})
        if name in scalars.TEXTS:
            return _read(name, data["value"])
        reader = _READERS.get(name)
        if reader is None:
            raise MismatchError(f"{name!r} is not a known {TAG}")
        return reader(data)
    except (KeyError, TypeError, LookupError, AttributeError) as error:
        raise MismatchError(f"a value of {TAG} {name!r} cannot be read: {error}") from error


def _items(data: dict[str, Any]) -> list[Any]:
    return [decode(entry) for entry in data["items"]]


def _numpy(data: dict[str, Any]) -> Any:
    # Read where it was written by a step that uses numpy; imported for those only.
    import numpy as np

    return np.dtype(str(data["dtype"])).type(decode(data["value"]))


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "float": lambda data: float(data["value"]),
    "int": lambda data: int(data["value"], 16),
    "str": lambda data: base64.b64decode(data["base64"]).decode("utf-8", "surrogatepass"),
    "bytes": lambda data: base64.b64decode(data["base64"]),
    "tuple": lambda data: tuple(_items(data)),
    "set": lambda data: set(_items(data)),
    "frozenset": lambda data: frozenset(_items(data)),
    "dict": lambda data: {decode(key): decode(entry) for key, entry in data["items"]},
    "path": lambda data: pathlib.Path(data["value"]),
    "numpy": _numpy,
}


def _object(name: str, data: dict[str, Any]) -> Any:
    cls = scalars.find(name)
    if not isinstance(cls, type):
        raise MismatchError(f"{name!r} is not a class")
    if issubclass(cls, enum.Enum):
        return cls.__members__[data["name"]] if "name" in data else cls(decode(data["value"]))
    if hints.is_pydantic(cls):
        return _model(cls, data)
    values = {key: decode(entry) for key, entry in data.items()}
    if hints.is_named_tuple(cls):
        return cast("Any", cls)(**values)
    if not dataclasses.is_dataclass(cls):
        raise MismatchError(f"{name!r} is not a dataclass, NamedTuple, enumeration or pydantic model")
    names = {field.name for field in dataclasses.fields(cls)}
    if names != set(values):
        raise MismatchError(f"{name!r} has the fields {sorted(names)} now, but was stored with {sorted(values)}")
    # Restored without `__init__` and `__post_init__`: these ran when the object was created.
    made = object.__new__(cls)
    for key, value in values.items():
        object.__setattr__(made, key, value)
    return made


def _model(cls: Any, data: dict[str, Any]) -> Any:
    """Restore a pydantic model without validation, which ran when the object was created."""
    fields = {name: decode(entry) for name, entry in data["model"].items()}
    unknown = set(fields) - set(cls.model_fields)
    if unknown:
        raise MismatchError(f"{hints.show(cls)} has no field {min(unknown)!r} now, but was written with it")
    for name, field in cls.model_fields.items():
        if name not in fields:
            if field.is_required():
                raise MismatchError(f"{hints.show(cls)} has the field {name!r} now, but was written without it")
            fields[name] = field.get_default(call_default_factory=True)
    others = {
        key: {name: decode(one) for name, one in data[key].items()} for key in ("extra", "private") if key in data
    }
    made = cls.__new__(cls)
    sys.modules["pydantic"].BaseModel.__setstate__(
        made,
        {
            "__dict__": fields,
            "__pydantic_fields_set__": set(data.get("set", data["model"])),
            "__pydantic_extra__": others.get("extra"),
            "__pydantic_private__": others.get("private"),
        },
    )
    return made


def _validate(cls: Any, data: Any) -> Any:
    try:
        return cls.model_validate(data)
    except ValueError as error:
        listed = getattr(error, "errors", None)
        first: Any = listed(include_url=False)[0] if listed is not None else None
        if first is None or not first["loc"]:
            raise MismatchError(f"it is not a valid {hints.show(cls)}: {first['msg'] if first else error}") from error
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise MismatchError(f"{first['msg']}, got {hints.short_repr(first['input'])}", path) from error
