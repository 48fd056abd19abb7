"""Compare runs: plain data in, rows out.

A side is what is known of one run: by section, then by step and name, a plain JSON value. The order of the runs only
determines the order of the values, and a run compared with itself has no differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

SECTIONS = ("run", "inputs", "params", "tags", "metrics", "outputs", "code", "environment", "git", "durations")
"""The sections in the order in which they are shown."""

MOST = 20
"""Most runs in one comparison."""

Name: TypeAlias = tuple[str, str]
"""A step, empty for the run as a whole, and a name."""

Side: TypeAlias = Mapping[str, Mapping[Name, Any]]


@dataclass(frozen=True, slots=True)
class Missing:
    """The value of a run that has none, which is not the same as null."""


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class Row:
    """The values of the runs under one name, in their order; `same` if they are all equal."""

    section: str
    step: str
    name: str
    values: tuple[Any, ...]
    same: bool


def compare(sides: Sequence[Side]) -> list[Row]:
    """Return everything that any of the sides has, by section, step and name."""
    rows: list[Row] = []
    for section in SECTIONS:
        parts = [side.get(section, {}) for side in sides]
        names = {name for part in parts for name in part}
        for step, name in sorted(names, key=lambda one: (_natural(one[0]), _natural(one[1]))):
            values = tuple(part.get((step, name), MISSING) for part in parts)
            same = all(equal(values[0], value) for value in values[1:])
            rows.append(Row(section, step, name, values, same))
    return rows


def equal(one: Any, other: Any) -> bool:
    """Whether two values are equal: 1 equals 1.0 and not true, NaN equals NaN, lists and objects by their parts."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list) and isinstance(other, list):
        some, others = cast("list[Any]", one), cast("list[Any]", other)
        return len(some) == len(others) and all(map(equal, some, others))
    if isinstance(one, dict) and isinstance(other, dict):
        first, second = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return first.keys() == second.keys() and all(equal(value, second[key]) for key, value in first.items())
    return type(one) is type(other) and one == other


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key under which `train[10]` comes after `train[9]`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", text)] + [(0, text)]
