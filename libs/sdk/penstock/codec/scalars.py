"""Types of the standard library that are written as text, and how classes are named."""

from __future__ import annotations

import datetime
import decimal
import importlib
import pathlib
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.reports import Html, Markdown

TAG = "$type"


@dataclass(frozen=True, slots=True)
class Text:
    """A type that is written as text. `exact` returns whether a value round-trips."""

    type: type
    write: Callable[[Any], str]
    read: Callable[[str], Any]
    exact: Callable[[Any], bool] = lambda _: True


def _plain_zone(value: datetime.datetime | datetime.time) -> bool:
    """A named zone would come back as a fixed offset, and `fold` not at all."""
    return not value.fold and (value.tzinfo is None or type(value.tzinfo) is datetime.timezone)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _duration(value: datetime.timedelta) -> str:
    return f"{value.days} {value.seconds} {value.microseconds}"


def _read_duration(text: str) -> datetime.timedelta:
    return datetime.timedelta(*map(int, text.split()))


TEXTS: dict[str, Text] = {
    "datetime": Text(datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat, _plain_zone),
    "date": Text(datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": Text(datetime.time, datetime.time.isoformat, datetime.time.fromisoformat, _plain_zone),
    "timedelta": Text(datetime.timedelta, _duration, _read_duration),
    "decimal": Text(decimal.Decimal, str, decimal.Decimal),
    "uuid": Text(uuid.UUID, str, uuid.UUID),
    "complex": Text(complex, repr, complex),
    "markdown": Text(Markdown, str, Markdown, _is_unicode),
    "html": Text(Html, str, Html, _is_unicode),
}
BY_TYPE: dict[type, str] = {text.type: name for name, text in TEXTS.items()}
PATHS = (pathlib.PosixPath, pathlib.WindowsPath)


def name_of(cls: type) -> str | None:
    """`module:Class`, or None when the class cannot be found under that name."""
    name = f"{cls.__module__}:{cls.__qualname__}"
    module = sys.modules.get(cls.__module__)
    return name if module is not None and _walk(module, cls.__qualname__) is cls else None


def find(name: str) -> object:
    """What `module:Class` names; imports the module where needed.

    Raises:
        LookupError: there is no such module or name.
    """
    module_name, _, path = name.partition(":")
    try:
        module = sys.modules.get(module_name) or importlib.import_module(module_name)
    except Exception as error:
        raise LookupError(f"its module {module_name!r} cannot be imported: {error}") from error
    found = _walk(module, path)
    if found is None:
        raise LookupError(f"module {module_name!r} has no {path!r}")
    return found


def _walk(start: object, path: str) -> object | None:
    found: object | None = start
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
