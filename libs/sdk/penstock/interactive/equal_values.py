"""Whether values of a session are those that its module has, where the assignments ran again."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, cast

from penstock.authoring import Pipeline, Step
from penstock.errors import SourceError

_CODE = (FunctionType, BuiltinFunctionType, ModuleType, type, Step, Pipeline)
_DEPTH = 8


def check(names: tuple[str, ...], session: Mapping[str, Any], module: Mapping[str, Any]) -> None:
    """Check the values of names.

    Raises:
        SourceError: one is another value in the session.
    """
    for name in names:
        if name in module and not may_be_equal(session[name], module[name]):
            raise SourceError(
                f"{name!r} is another value in this session than its assignment gives when it runs again: "
                "it was changed since, or is random. Pass it as an input of the pipeline"
            )


def may_be_equal(first: Any, second: Any, depth: int = _DEPTH) -> bool:
    """Whether two values are equal, as far as can be known; code counts as equal.

    Objects of the session's classes have another class in the module: their fields count.
    """
    if first is second or isinstance(first, _CODE) or depth == 0:
        return True
    if type(first).__qualname__ != type(second).__qualname__:
        return False
    if isinstance(first, dict):
        one, other = cast("dict[Any, Any]", first), cast("dict[Any, Any]", second)
        return one.keys() == other.keys() and all(may_be_equal(one[key], other[key], depth - 1) for key in one)
    if isinstance(first, list | tuple):
        items = zip(cast("list[Any]", first), cast("list[Any]", second), strict=False)
        return len(cast("list[Any]", first)) == len(second) and all(may_be_equal(*pair, depth - 1) for pair in items)
    try:
        return _equal(first, second, depth)
    except Exception:
        return True  # they cannot be compared


def _equal(first: Any, second: Any, depth: int) -> bool:
    if hasattr(first, "equals"):  # tables of pandas and polars
        return bool(first.equals(second))
    if getattr(first, "shape", None) != getattr(second, "shape", None):
        return False
    kind: Any = type(first)
    by_identity = kind.__eq__ is object.__eq__
    if by_identity or kind.__module__ == "__main__":
        if (fields := getattr(first, "__dict__", None)) and kind.__reduce__ is object.__reduce__:
            return may_be_equal(dict(fields), dict(vars(second)), depth - 1)
        return not by_identity or pickle.dumps(first) == pickle.dumps(second)
    found = first == second
    return bool(found.all()) if hasattr(found, "all") else bool(found) or bool(first != first and second != second)
