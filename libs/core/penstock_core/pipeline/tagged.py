"""Read parts of values in the SDK's encoding: plain JSON, in which an object with the key `$type` is another type.

Only what conditions and mapped steps need: elements of lists, tuples, dictionaries and data classes, and numbers. The
user's types are neither known nor needed.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, cast

from penstock_core.errors import PenstockError

TAG = "$type"


VALUE = "$value"
"""The key of the text or number that a member of an enumeration is, as in `class Mode(str, Enum)`."""


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
    if isinstance(tag, str) and ":" in tag and not _is_member(fields):
        return {key: value for key, value in fields.items() if key != TAG}
    return None


_MODEL = {TAG, "model", "set", "extra", "private"}
"""The keys of a pydantic model."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A member of an enumeration, which compares as in Python.

    `value` is the text or number that it is, as in a `StrEnum`; None if it equals other members only.
    """

    type: str
    name: str
    value: Any = None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Member) and (self.type, self.name) == (other.type, other.name):
            return True
        return self.value is not None and self.value == (other.value if isinstance(other, Member) else other)

    def __hash__(self) -> int:
        return hash(self.name if self.value is None else self.value)

    def __bool__(self) -> bool:
        return self.value is None or bool(self.value)

    def __lt__(self, other: Any) -> Any:
        return self._content() < _content(other)

    def __le__(self, other: Any) -> Any:
        return self._content() <= _content(other)

    def __gt__(self, other: Any) -> Any:
        return self._content() > _content(other)

    def __ge__(self, other: Any) -> Any:
        return self._content() >= _content(other)

    def __repr__(self) -> str:
        return f"{self.type.rpartition(':')[2]}.{self.name}"

    def _content(self) -> Any:
        if self.value is None:
            raise TypeError(f"{self!r} has no order")
        return self.value


def _content(other: Any) -> Any:
    return other._content() if isinstance(other, Member) else other  # pyright: ignore[reportPrivateUsage]


def plain(data: Any, *, members: bool = False) -> Any:
    """Return a value as Python compares it: numbers, texts, dates and times, lists.

    Other values are unchanged. Members of enumerations are their names, or with `members` a `Member`.
    """
    if isinstance(data, list):
        return [plain(entry, members=members) for entry in cast("list[Any]", data)]
    if not isinstance(data, dict):
        return data
    fields = cast("dict[str, Any]", data)
    tag, value = fields.get(TAG), fields.get("value")
    if tag is None:
        return {key: plain(entry, members=members) for key, entry in fields.items()}
    if tag == "tuple":
        return [plain(entry, members=members) for entry in sequence(fields) or ()]
    if _is_member(fields):
        return Member(str(tag), fields["name"], plain(fields.get(VALUE))) if members else fields["name"]
    if members and ":" in str(tag):  # a data class, or several members of a flag
        return Member(str(tag), str(value), plain(fields[VALUE])) if VALUE in fields else fields
    reader = _READERS.get(str(tag))
    if reader is not None:
        try:
            return reader(cast("str", value))
        except (TypeError, ValueError, ArithmeticError):
            return fields
    return plain(value, members=members) if "value" in fields else fields


def names(value: Any) -> Any:
    """Return a plain value with the names of members of enumerations in their place."""
    if isinstance(value, Member):
        return value.name
    if isinstance(value, list):
        return [names(entry) for entry in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: names(entry) for key, entry in cast("dict[str, Any]", value).items()}
    return value


def _is_member(fields: dict[str, Any]) -> bool:
    return fields.keys() - {VALUE} == {TAG, "name"} and isinstance(fields["name"], str)


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
