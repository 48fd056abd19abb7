"""Values that JSON has no type for and that people write as text: dates, durations, exact decimals, paths."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

from penstock_core.durations import parse_duration

FLAGS = frozenset({"true", "false", "yes", "no", "on", "off", "t", "f", "y", "n", "1", "0"})
"""Texts that pydantic takes for true or false."""


def _path(text: str) -> str:
    if not text:
        raise ValueError("a path is not empty")
    return text


def _uuid(text: str) -> None:
    digits = text.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "")
    if len(digits) != 32:
        raise ValueError("a UUID has 32 hexadecimal digits")
    int(digits, 16)


_FORMATS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "date": ("date such as 2026-03-01", datetime.date.fromisoformat),
    "date-time": ("datetime such as 2026-03-01T08:00:00", datetime.datetime.fromisoformat),
    "time": ("time such as 08:30", datetime.time.fromisoformat),
    "duration": ("timedelta in seconds or such as 90s, 10m, 1h30m or 2d", parse_duration),
    "decimal": ("Decimal", decimal.Decimal),
    "uuid": ("UUID", _uuid),
    "complex": ("complex such as 1+2j", complex),
    "path": ("Path", _path),
    "int": ("int", int),
}


def fits(text: str, format: str) -> bool:
    """Whether a text has a format; unknown formats fit every text."""
    read = _FORMATS.get(format)
    if read is None:
        return True
    try:
        read[1](text)
    except (ValueError, ArithmeticError, TypeError):
        return False
    return True


def describe(format: str) -> str:
    """Name a format, with an example; empty for unknown ones."""
    return _FORMATS[format][0] if format in _FORMATS else ""
