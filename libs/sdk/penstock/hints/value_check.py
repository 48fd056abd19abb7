"""Checks of values against type hints.

Large lists, sets and dictionaries are sampled: all items up to 10,000, beyond that about 1,000 spread over the whole.
"""

from __future__ import annotations

import collections.abc
import itertools
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, cast

from penstock import hints

_ALL = 10_000
_SAMPLE = 1_000


def problem(value: object, hint: Any) -> str | None:
    """Return why `value` does not fit `hint`, or None if it fits."""
    if hint is Any or value.__class__ is hint:
        return None
    options = hints.members(hint)
    if len(options) == 1:
        return _problem(value, options[0])
    if all(_problem(value, option) is not None for option in options):
        return f"{hints.short_repr(value)} is not {hints.show(hint)}"
    return None


def _problem(value: object, hint: Any) -> str | None:
    if hint is Any:
        return None
    literals = hints.literals(hint)
    if literals is not None:
        known = any(value == literal and type(value) is type(literal) for literal in literals)
        return None if known else f"{hints.short_repr(value)} is not one of {', '.join(map(repr, literals))}"
    cls = hints.class_of(hint)
    if cls is None:
        return None
    if not _is_instance(value, cls):
        return f"{hints.short_repr(value)} is not {hints.show(hint)}"
    if hints.is_typed_dict(cls):
        return _typed_dict_problem(cast("dict[str, Any]", value), cls)
    args = typing.get_args(hint)
    return _items_problem(value, hint, cls, args) if args else None


def _is_instance(value: object, cls: type) -> bool:
    if cls is collections.abc.Callable:
        return callable(value)
    if hints.is_typed_dict(cls):
        return isinstance(value, dict)
    try:
        if isinstance(value, cls):
            return True
    except TypeError:
        # A protocol that cannot be checked at run time.
        return True
    return _is_number(value, cls)


def _is_number(value: object, cls: type) -> bool:
    """The numeric tower of type hints (an int is accepted for a float), numpy's numbers included."""
    if cls is float or cls is complex:
        accepted: tuple[type, ...] = (int, float) if cls is float else (int, float, complex)
        return isinstance(value, accepted + _numpy("floating", "integer"))
    if cls is int:
        return isinstance(value, _numpy("integer"))
    return cls is bool and isinstance(value, _numpy("bool_"))


def _numpy(*names: str) -> tuple[type, ...]:
    """Classes of numpy when the user's code has imported it; a value of theirs cannot exist otherwise."""
    numpy = sys.modules.get("numpy")
    return tuple(cast("type", getattr(numpy, name)) for name in names) if numpy is not None else ()


def _typed_dict_problem(value: dict[str, Any], cls: Any) -> str | None:
    missing = sorted(cls.__required_keys__ - set(value))
    if missing:
        return f"a dictionary without {missing[0]!r} is not {hints.show(cls)}"
    for name, inner in hints.typed_dict_fields(cls).items():
        found = problem(value[name], inner) if name in value else None
        if found is not None:
            return f"under key {name!r}, {found}"
    return None


def _items_problem(value: object, hint: Any, cls: type, args: tuple[Any, ...]) -> str | None:
    if issubclass(cls, tuple):
        return _tuple_problem(cast("tuple[object, ...]", value), hint, args)
    if issubclass(cls, collections.abc.Mapping):
        key_hint, value_hint = hints.entry(hint)
        for key, entry in _sample(cast("Mapping[object, object]", value).items(), len(cast("Any", value))):
            found = problem(key, key_hint)
            if found is not None:
                return f"key {found}"
            found = problem(entry, value_hint)
            if found is not None:
                return f"under key {key!r}, {found}"
        return None
    # Only collections that iteration does not consume.
    if isinstance(value, collections.abc.Collection) and not isinstance(value, str | bytes):
        return _first_problem(cast("Collection[object]", value), lambda index: hints.item(hint, index))
    return None


def _tuple_problem(value: tuple[object, ...], hint: Any, args: tuple[Any, ...]) -> str | None:
    fixed = not (len(args) == 2 and args[1] is Ellipsis)
    if fixed and len(value) != len(args):
        return f"a tuple of {len(value)} items is not {hints.show(hint)}"
    return _first_problem(value, lambda index: hints.item(hint, index))


def _first_problem(values: Collection[object], hint_at: Callable[[int], Any]) -> str | None:
    first = hint_at(0)
    if first is Any and not isinstance(values, tuple):
        return None
    for index, entry in _sample(enumerate(values), len(values)):
        found = problem(entry, hint_at(index) if isinstance(values, tuple) else first)
        if found is not None:
            return f"item {index}: {found}"
    return None


_T = typing.TypeVar("_T")


def _sample(values: Iterable[_T], length: int) -> Iterable[_T]:
    return values if length <= _ALL else itertools.islice(values, 0, None, length // _SAMPLE)
