"""Read parts of values in the SDK's encoding: plain JSON, in which an object with the key `$type` is another type.

Only what conditions and mapped steps need: elements of lists, tuples, dictionaries and data classes, and numbers. The
user's types are neither known nor needed.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar, cast

from penstock_core.errors import PenstockError

TAG = "$type"


class NoSuchPartError(PenstockError, LookupError):
    """A value has no such element; the message says what it is instead."""

    user_fault: ClassVar[bool] = True


def element(data: Any, part: int | str) -> Any:
    """Return an element of a list or tuple by index, or of a dictionary or data class by key.

    Raises:
        NoSuchPartError: it does not exist.
    """
    if isinstance(part, int):
        entries = sequence(data)
        if entries is None:
            raise NoSuchPartError(f"a {kind(data)} has no element [{part}]")
        if not -len(entries) <= part < len(entries):
            raise NoSuchPartError(f"a list of {len(entries)} has no element [{part}]")
        return entries[part]
    fields = mapping(data)
    if fields is None:
        raise NoSuchPartError(f"a {kind(data)} has no field {part!r}")
    if part not in fields:
        has = ", ".join(map(repr, list(fields)[:10])) or "none"
        raise NoSuchPartError(f"there is no field {part!r} (fields: {has})")
    return fields[part]


def sequence(data: Any) -> list[Any] | None:
    """Return the elements of a list or tuple; None for anything else."""
    if isinstance(data, list):
        return cast("list[Any]", data)
    return _tagged(data, "tuple", "items")


def mapping(data: Any) -> dict[str, Any] | None:
    """Return the fields of a dictionary or data class; None for anything else."""
    if not isinstance(data, dict):
        return None
    fields = cast("dict[str, Any]", data)
    tag = fields.get(TAG)
    if tag is None:
        return fields
    if tag == "dict" and isinstance(fields.get("items"), list):
        pairs = cast("list[Any]", fields["items"])
        whole = (cast("list[Any]", pair) for pair in pairs if isinstance(pair, list) and len(pair) == 2)
        return {key: value for key, value in whole if isinstance(key, str)}
    if isinstance(fields.get("model"), dict) and set(fields) <= _MODEL:  # a data class may have a field of this name
        return cast("dict[str, Any]", fields["model"])
    if isinstance(tag, str) and ":" in tag and set(fields) != {TAG, "name"}:  # a member of an enumeration
        return {key: value for key, value in fields.items() if key != TAG}
    return None


_MODEL = {TAG, "model", "set", "extra", "private"}
"""The keys of a pydantic model."""


def plain(data: Any) -> Any:
    """Return a value as Python compares it: numbers, texts, dates and times, members of enumerations by name, lists.

    Other values are unchanged.
    """
    if isinstance(data, list):
        return [plain(entry) for entry in cast("list[Any]", data)]
    if not isinstance(data, dict):
        return data
    fields = cast("dict[str, Any]", data)
    tag, value = fields.get(TAG), fields.get("value")
    if tag is None:
        return {key: plain(entry) for key, entry in fields.items()}
    if tag == "tuple":
        return [plain(entry) for entry in sequence(fields) or ()]
    if set(fields) == {TAG, "name"}:
        return fields["name"]  # a member of an enumeration
    reader = _READERS.get(str(tag))
    if reader is not None:
        try:
            return reader(cast("str", value))
        except (TypeError, ValueError, ArithmeticError):
            return fields
    return plain(value) if "value" in fields else fields


_READERS: dict[str, Callable[[str], Any]] = {
    "float": float,
    "int": lambda text: int(str(text), 0),
    "decimal": Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda text: datetime.timedelta(*map(int, text.split())),
}


def text(data: Any, most: int = 100) -> str:
    """Format a value in at most `most` characters. Python refuses to format numbers with thousands of digits."""
    try:
        return repr(data)[:most]
    except (ValueError, RecursionError):
        return f"a {kind(data)} too large to show"


def kind(data: Any) -> str:
    """Name the type of a value."""
    if isinstance(data, dict) and TAG in data:
        return str(cast("dict[str, Any]", data)[TAG]).rpartition(":")[2]
    return type(data).__name__


def _tagged(data: Any, tag: str, name: str) -> list[Any] | None:
    if isinstance(data, dict) and data.get(TAG) == tag and isinstance(data.get(name), list):
        return cast("list[Any]", data[name])
    return None
