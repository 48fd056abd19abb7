"""Searches of runs as data: filters, an order, a cursor. Texts are parsed here.

    loss<0.2    depth=4    team=vision    -metric:accuracy

In: texts as users type them. Out: a `RunQuery`, which every read model answers alike. Pages are cut by the sort key and
the run's id, so a page stays the same while runs are added.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from penstock_core.errors import InputError

Operator: TypeAlias = Literal["<", "<=", ">", ">=", "=", "!="]

NEWEST = "-created_at"
"""The default order."""

COLUMNS = ("created_at", "finished_at", "duration")
"""The columns to sort by, besides `metric:NAME` and `param:NAME`."""

LIMIT = 500
"""Most runs of a page."""

_CONDITION = re.compile(r"\s*(?P<name>[^<>=!]+?)\s*(?P<operator><=|>=|!=|<|>|=)\s*(?P<value>.*?)\s*\Z", re.DOTALL)
_NAME_LIMIT = 200
_TEXT_LIMIT = 1000


class InvalidQueryError(InputError):
    """A filter, an order or a cursor is invalid; the message says how to write it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A named value compared with a number or, with `number` None, with a text (only `=` and `!=`)."""

    name: str
    operator: Operator
    text: str
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A label or tag of this name; any value if `text` is None."""

    name: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Sort:
    """An order: by a column of `COLUMNS`, or by the metric or parameter `name` if `column` is `metric` or `param`."""

    column: str = "created_at"
    name: str = ""
    descending: bool = True

    def __str__(self) -> str:
        return f"{'-' if self.descending else ''}{self.column}{':' + self.name if self.name else ''}"


@dataclass(frozen=True, slots=True)
class Key:
    """The position of a run in a list: its sort key and its id."""

    value: float
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Runs that match every filter. Times are Unix seconds: created at or after `since`, before `until`."""

    project: str = "default"
    pipeline: str | None = None
    deployment: str | None = None
    state: str | None = None
    trigger: str | None = None
    requested_by: str | None = None
    prefix: str | None = None
    labels: tuple[Label, ...] = ()
    since: float | None = None
    until: float | None = None
    metrics: tuple[Condition, ...] = ()
    params: tuple[Condition, ...] = ()
    sort: Sort = Sort()
    after: Key | None = None
    limit: int = 50


def condition(text: str, *, numeric: bool = False) -> Condition:
    """Parse `loss<0.2` or `model=forest`; with `numeric`, only numbers can be compared with.

    Raises:
        InvalidQueryError: it is not of this form.
    """
    found = _CONDITION.match(text)
    if found is None or len(found["name"]) > _NAME_LIMIT or len(found["value"]) > _TEXT_LIMIT:
        raise InvalidQueryError(f"{text[:100]!r} is not a condition: write a name, one of < <= > >= = !=, and a value")
    operator = cast("Operator", found["operator"])
    number = number_of(found["value"])
    if number is None and numeric:
        raise InvalidQueryError(f"{text[:100]!r} compares with {found['value'][:50]!r}, which is not a number")
    if number is None and operator not in ("=", "!="):
        raise InvalidQueryError(f"{text[:100]!r}: text can be compared with = and != only")
    return Condition(found["name"], operator, found["value"], number)


def label(text: str) -> Label:
    """Parse `name=text`, or `name` for any text.

    Raises:
        InvalidQueryError: it has no name.
    """
    name, equals, value = text.partition("=")
    if not name or len(name) > _NAME_LIMIT or len(value) > _TEXT_LIMIT:
        raise InvalidQueryError(f"{text[:100]!r} is not a label: write name=text, or the name alone")
    return Label(name, value if equals else None)


def sort(text: str) -> Sort:
    """Parse `duration`, `-created_at`, `metric:loss`, `-param:depth`; a minus sorts in descending order.

    Raises:
        InvalidQueryError: runs cannot be sorted by that.
    """
    column, colon, name = text.removeprefix("-").partition(":")
    named = column in ("metric", "param") and bool(colon) and 0 < len(name) <= _NAME_LIMIT
    if not named and (colon or column not in COLUMNS):
        known = ", ".join(COLUMNS)
        raise InvalidQueryError(f"runs cannot be sorted by {text[:100]!r}: use {known}, metric:NAME or param:NAME")
    return Sort(column, name, text.startswith("-"))


def cursor(order: Sort, key: Key) -> str:
    """Encode the end of a page for a URL."""
    raw = json.dumps([str(order), key.value, key.run_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def parse_cursor(text: str, order: Sort) -> Key:
    """Decode a cursor of a list in this order.

    Raises:
        InvalidQueryError: it is not a cursor of a list in this order.
    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        given, value, run_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if given == str(order) and isinstance(run_id, str) and "\0" not in run_id and math.isfinite(value):
            return Key(float(value), run_id)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _no_cursor() from error
    raise _no_cursor()


def _no_cursor() -> InvalidQueryError:
    return InvalidQueryError("the cursor is not one of a list in this order: omit it to start with the first page")


def number_of(text: str) -> float | None:
    """Parse a finite number; None if the text is not one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
