"""Strict equality, for checking that a value comes back as it was.

Python's `==` is not enough: `1 == True`, `Decimal("1.0") == Decimal("1.00")`, and times in two zones can be equal.
"""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any, cast


def identical(one: Any, other: Any) -> bool:
    """Whether two values have the same type and content, their items and fields included. NaN is identical to NaN."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is float:
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if kind is decimal.Decimal:
        return cast("decimal.Decimal", one).as_tuple() == other.as_tuple()
    if kind in (datetime.datetime, datetime.time):
        return one.isoformat() == other.isoformat() and one.fold == other.fold and _zone(one) == _zone(other)
    if kind in (list, tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    if kind is dict:
        return identical(list(one.items()), list(other.items()))
    return bool(one == other) or (one != one and other != other)


def _zone(value: Any) -> tuple[type, str]:
    return type(value.tzinfo), str(value.tzinfo)
