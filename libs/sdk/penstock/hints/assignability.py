"""Assignability of type hints, as in a type checker.

`Any`, missing hints and hints that are not understood fit everything. Containers are covariant: a list of dogs is
accepted for a list of animals, because each step receives its own copy.
"""

from __future__ import annotations

import collections.abc
import typing
from typing import Any

from penstock import hints
from penstock.hints import value_check

_NUMBERS: dict[type, tuple[type, ...]] = {float: (int,), complex: (int, float)}


def is_assignable(source: Any, target: Any) -> bool:
    """Whether every value of `source` may be a value of `target`."""
    sources, targets = hints.members(source), hints.members(target)
    if Any in sources or Any in targets:
        return True
    return all(any(_fits(one, other) for other in targets) or _split(one, targets) for one in sources)


def _split(source: Any, targets: tuple[Any, ...]) -> bool:
    """A literal may fit a union value by value."""
    values = hints.literals(source)
    return values is not None and all(
        any(value_check.problem(value, target) is None for target in targets) for value in values
    )


def _fits(source: Any, target: Any) -> bool:
    values = hints.literals(source)
    if values is not None:
        return all(value_check.problem(value, target) is None for value in values)
    if hints.literals(target) is not None:
        return False
    source_class, target_class = hints.class_of(source), hints.class_of(target)
    if source_class is None or target_class is None:
        return True
    if not _is_subclass(source_class, target_class):
        return False
    return _arguments_fit(source, target, source_class, target_class)


def _is_subclass(source: type, target: type) -> bool:
    if hints.is_typed_dict(target) or hints.is_typed_dict(source):
        return _is_dict(source) and _is_dict(target)
    if target is collections.abc.Callable:
        return True
    if any(issubclass(source, number) for number in _NUMBERS.get(target, ())):
        return True
    try:
        return issubclass(source, target)
    except TypeError:
        # A protocol with data members cannot be checked this way.
        return True


def _is_dict(cls: type) -> bool:
    return hints.is_typed_dict(cls) or issubclass(cls, collections.abc.Mapping)


def _arguments_fit(source: Any, target: Any, source_class: type, target_class: type) -> bool:
    if not typing.get_args(source) or not typing.get_args(target):
        return True
    if issubclass(source_class, tuple):
        return _tuple_fits(source, target, target_class)
    if issubclass(source_class, collections.abc.Mapping):
        if not issubclass(target_class, collections.abc.Mapping):
            return is_assignable(hints.entry(source)[0], hints.item(target))
        keys, entries = zip(hints.entry(source), hints.entry(target), strict=True)
        return is_assignable(*keys) and is_assignable(*entries)
    return is_assignable(hints.item(source), hints.item(target))


def _tuple_fits(source: Any, target: Any, target_class: type) -> bool:
    args = typing.get_args(source)
    endless = len(args) == 2 and args[1] is Ellipsis
    if issubclass(target_class, tuple):
        target_args = typing.get_args(target)
        target_endless = len(target_args) == 2 and target_args[1] is Ellipsis
        if not target_endless and (endless or len(args) != len(target_args)):
            return False
    count = 1 if endless else len(args)
    return all(
        is_assignable(hints.item(source, index), hints.item(target, index if issubclass(target_class, tuple) else 0))
        for index in range(count)
    )
