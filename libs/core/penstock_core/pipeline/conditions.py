"""Conditions on small results: their form in the IR, their evaluation, their description.

A condition reads bindings whose values are plain JSON in the log (never artifacts, which only user code loads). It is a
function of them, so every replica gets the same answer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, Union

from penstock_core.errors import PenstockError
from penstock_core.pipeline import tagged, values
from penstock_core.pipeline.values import Binding

Operator: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge"]

_OPERATORS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "eq": ("==", operator.eq),
    "ne": ("!=", operator.ne),
    "lt": ("<", operator.lt),
    "le": ("<=", operator.le),
    "gt": (">", operator.gt),
    "ge": (">=", operator.ge),
}


class ConditionError(PenstockError):
    """A condition cannot be evaluated: it reads a missing value, or compares values that cannot be compared."""

    user_fault: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison of two values. With `names`, members of enumerations are compared by their names."""

    compare: Operator
    left: Binding
    right: Binding
    names: bool = False


@dataclass(frozen=True, slots=True)
class Truth:
    """Whether a value is true in Python's sense: not None, False, 0 or empty."""

    truth: Binding


@dataclass(frozen=True, slots=True)
class Not:
    """The negation of a condition."""

    negated: Condition


@dataclass(frozen=True, slots=True)
class AllOf:
    """Whether all conditions are true. They are evaluated in order, as far as needed."""

    all_of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Whether one of the conditions is true. They are evaluated in order, as far as needed."""

    any_of: tuple[Condition, ...]


Condition: TypeAlias = Union[Compare, Truth, Not, AllOf, AnyOf]  # noqa: UP007 - recursive, with names in quotes


def bindings(condition: Condition) -> Iterator[Binding]:
    """Return the bindings that a condition reads, in order."""
    match condition:
        case Compare(left=left, right=right):
            yield from (left, right)
        case Truth(binding):
            yield binding
        case Not(inner):
            yield from bindings(inner)
        case AllOf(several) | AnyOf(several):
            for one in several:
                yield from bindings(one)


def sources(condition: Condition) -> Iterator[values.Output]:
    """Return the outputs of nodes that a condition reads, in order."""
    for binding in bindings(condition):
        yield from values.sources(binding)


def evaluate(condition: Condition, read: Callable[[Binding], Any]) -> bool:
    """Evaluate a condition. `read` returns the plain value of a binding, and may raise `ConditionError`.

    Raises:
        ConditionError: a value is missing, or two values cannot be compared.
    """
    match condition:
        case Compare(name, left, right, names):
            sign, compare = _OPERATORS[name]
            one, other = read(left), read(right)
            if names:
                one, other = tagged.names(one), tagged.names(other)
            try:
                return bool(compare(one, other))
            except TypeError as error:
                kinds = f"{_kind(one)} {sign} {_kind(other)}"
                raise ConditionError(f"{describe(condition)}: {kinds} cannot be compared") from error
        case Truth(binding):
            return bool(read(binding))
        case Not(inner):
            return not evaluate(inner, read)
        case AllOf(several):
            return all(evaluate(one, read) for one in several)
        case AnyOf(several):
            return any(evaluate(one, read) for one in several)


def _kind(value: Any) -> str:
    return value.type.rpartition(":")[2] if isinstance(value, tagged.Member) else type(value).__name__


def describe(condition: Condition) -> str:
    """Describe a condition, much as the user wrote it."""
    match condition:
        case Compare(name, left, right):
            return f"{name_of(left)} {_OPERATORS[name][0]} {name_of(right)}"
        case Truth(binding):
            return name_of(binding)
        case Not(inner):
            return f"not ({describe(inner)})"
        case AllOf(several):
            return " and ".join(_inner(one) for one in several)
        case AnyOf(several):
            return " or ".join(_inner(one) for one in several)


def _inner(condition: Condition) -> str:
    text = describe(condition)
    return f"({text})" if isinstance(condition, AllOf | AnyOf) else text


def name_of(binding: Binding) -> str:
    """Describe a binding."""
    match binding:
        case values.Inline(value):
            return repr(tagged.plain(value, members=True))
        case values.Param(name):
            return name
        case values.Output(node, "result"):
            return node
        case values.Output(node, output):
            return f"{node}.{output}"
        case values.Pick(of, path):
            return name_of(of) + "".join(f".{p}" if isinstance(p, str) else f"[{p}]" for p in path)
        case values.OneOf(options):
            return f"one_of({', '.join(name_of(option) for option in options)})"
        case values.Ending(what):
            return what
        case values.BoundItems(items):
            return f"[{', '.join(name_of(item) for item in items)}]"
        case values.BoundLists(lists):
            return " + ".join(name_of(one) for one in lists)
        case values.BoundFields(fields):
            return f"{{{', '.join(f'{key!r}: {name_of(item)}' for key, item in fields.items())}}}"
