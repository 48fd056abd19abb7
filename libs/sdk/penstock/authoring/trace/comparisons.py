"""Conditions as users write them: comparisons of references, and `&`, `|`, `~` of these.

A condition is evaluated by the platform, which opens no artifacts and knows no class of the user's. So what can be
compared are plain data: numbers, texts, flags, members of enumerations, and lists and dictionaries of them. What can
never be true, or never be compared, is an error at the user's line.
"""

from __future__ import annotations

import collections.abc
import enum
import math
import operator
import typing
from typing import Any, NoReturn, cast

from penstock import codec, hints, tracebacks
from penstock.authoring.trace import field_hints
from penstock.authoring.trace.drafts import Compilation
from penstock.authoring.trace.placeholders import Placeholder, refuse
from penstock.hints import value_check
from penstock_core.errors import DefinitionError
from penstock_core.pipeline import conditions, values
from penstock_core.pipeline.conditions import AllOf, AnyOf, Compare, Not, Operator, Truth

_SIGNS: dict[Operator, str] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_PLAIN = (str, int, float, type(None), enum.Enum, collections.abc.Mapping, collections.abc.Sequence)


class Condition(Placeholder):
    """A condition on what the run will know: give it to `when`, or combine it with `&`, `|` and `~`."""

    __slots__ = ("_condition", "_tracer")

    def __init__(self, tracer: Compilation, condition: conditions.Condition) -> None:
        self._tracer = tracer
        self._condition = condition

    def _describe(self) -> str:
        return f"the condition '{conditions.describe(self._condition)}'"

    def __and__(self, other: Any) -> Condition:
        return _combined(self, other, "&")

    def __rand__(self, other: Any) -> Condition:
        return _combined(self, other, "&")

    def __or__(self, other: Any) -> Condition:
        return _combined(self, other, "|")

    def __ror__(self, other: Any) -> Condition:
        return _combined(self, other, "|")

    def __invert__(self) -> Condition:
        return Condition(self._tracer, Not(self._condition))


class Comparable(Placeholder):
    """A placeholder for one value that can be compared."""

    __slots__ = ("_binding", "_hint", "_owner", "_text", "_tracer")

    _binding: values.Binding
    _hint: Any
    _tracer: Compilation

    def __eq__(self, other: object) -> Any:
        return _compare(self, "eq", other)

    def __ne__(self, other: object) -> Any:
        return _compare(self, "ne", other)

    def __lt__(self, other: Any) -> Condition:
        return _compare(self, "lt", other)

    def __le__(self, other: Any) -> Condition:
        return _compare(self, "le", other)

    def __gt__(self, other: Any) -> Condition:
        return _compare(self, "gt", other)

    def __ge__(self, other: Any) -> Condition:
        return _compare(self, "ge", other)

    def __and__(self, other: Any) -> Condition:
        return _combined(_flag(self, "&"), other, "&")

    def __rand__(self, other: Any) -> Condition:
        return _combined(_flag(self, "&"), other, "&")

    def __or__(self, other: Any) -> Condition:
        return _combined(_flag(self, "|"), other, "|")

    def __ror__(self, other: Any) -> Condition:
        return _combined(_flag(self, "|"), other, "|")

    def __invert__(self) -> Condition:
        return ~_flag(self, "~")

    # Defining `__eq__` would take it away.
    __hash__ = Placeholder.__hash__


def inspect_reference(reference: Comparable) -> tuple[Compilation, values.Binding, Any]:
    """The compilation, the binding and the hint of a reference; for this package only."""
    return reference._tracer, reference._binding, reference._hint  # pyright: ignore[reportPrivateUsage]


def read(given: object, what: str) -> tuple[Compilation, conditions.Condition]:
    """The condition that a user gave to `what`: a condition, or a reference whose truth counts.

    Raises:
        DefinitionError: it is neither.
    """
    if isinstance(given, Condition):
        return given._tracer, given._condition  # pyright: ignore[reportPrivateUsage]
    if isinstance(given, Comparable):
        return read(truth(given), what)
    if isinstance(given, Placeholder):
        refuse(given, f"given to {what}")
    raise DefinitionError(
        f"{what} takes a condition on results, such as best.accuracy >= 0.9, "
        f"not {hints.short_repr(given)}: for what is "
        "known when the pipeline is compiled, use 'if'",
        *tracebacks.caller(),
    )


def truth(reference: Comparable) -> Condition:
    """The truth of a value as a condition."""
    _check_plain(reference)
    tracer, binding, _ = inspect_reference(reference)
    return Condition(tracer, Truth(binding))


def _flag(reference: Comparable, sign: str) -> Condition:
    """The truth of a value that is combined with others; of a number it is a mistake of brackets."""
    options = hints.members(inspect_reference(reference)[2])
    if not all(option is Any or hints.class_of(option) is bool for option in options):
        _brackets(reference, sign)
    return truth(reference)


def _brackets(given: object, sign: str) -> NoReturn:
    shown = repr(given) if isinstance(given, Placeholder) else hints.short_repr(given)
    raise DefinitionError(
        f"{sign} combines conditions, but {shown} is not a condition. "
        "Put each comparison in parentheses, as in (a > 1) & (b < 2)",
        *tracebacks.caller(),
    )


def _combined(one: Condition, other: Any, sign: str) -> Condition:
    if isinstance(other, Comparable):
        other = _flag(other, sign)
    if not isinstance(other, Condition):
        _brackets(other, sign)
    tracer, first = read(one, sign)
    other_tracer, second = read(other, sign)
    if other_tracer is not tracer:
        raise DefinitionError(f"{other!r} belongs to another pipeline", *tracebacks.caller())
    kind: Any = AllOf if sign == "&" else AnyOf
    parts = [*(_parts(first, kind)), *(_parts(second, kind))]
    return Condition(tracer, kind(tuple(parts)))


def _parts(condition: conditions.Condition, kind: type) -> tuple[conditions.Condition, ...]:
    """The parts of a condition of a kind, so that `a & b & c` is one of three; else itself."""
    match condition:
        case AllOf(parts) | AnyOf(parts) if isinstance(condition, kind):
            return parts
        case _:
            return (condition,)


def _compare(one: Comparable, name: Operator, other: object) -> Condition:
    _check_plain(one)
    tracer, binding, hint = inspect_reference(one)
    names = False
    if isinstance(other, Comparable):
        _check_plain(other)
        other_tracer, right, other_hint = inspect_reference(other)
        if other_tracer is not tracer:
            raise DefinitionError(f"{other!r} belongs to another pipeline", *tracebacks.caller())
        _check_members(one, other)
        names = _has_members(hint) or _has_members(other_hint)
    elif isinstance(other, Placeholder):
        refuse(other, "compared")
    else:
        classes = _enumerations(hint)
        if classes and other is not None:
            return _compare_members(one, name, other, classes)
        # Members inside of a parameter may be given by their names.
        names = _has_members(hint) and next(values.params(binding), None) is not None
        # A member of `Mode(str, Enum)` is the text "fast" wherever text is compared.
        mixed_in = isinstance(other, enum.Enum) and isinstance(other, str | int | float) and not names
        plain = cast("Any", other).value if mixed_in else other
        right, other_hint = values.Inline(_literal(plain, names=names)), type(plain)
    _check_kinds(one, name, other, (hint, other_hint))
    return Condition(tracer, Compare(name, binding, right, names))


def _has_members(hint: Any) -> bool:
    """Whether values of a hint are, or contain, members of enumerations."""
    options = hints.members(hint)
    return any(
        issubclass(hints.class_of(option) or object, enum.Enum) or any(map(_has_members, typing.get_args(option)))
        for option in options
        if hints.literals(option) is None
    )


def _enumerations(hint: Any) -> list[type[enum.Enum]]:
    """The enumerations whose members values of a hint are; empty if they can be anything else but None."""
    classes = [hints.class_of(option) for option in hints.members(hint) if option is not type(None)]
    found = [
        cls for cls in classes if cls is not None and issubclass(cls, enum.Enum) and not issubclass(cls, enum.Flag)
    ]
    return found if len(found) == len(classes) else []


def _check_members(one: Comparable, other: Comparable) -> None:
    """Members are known by name, so they can be compared with members of the same enumeration only."""
    left, right = (_enumerations(inspect_reference(side)[2]) for side in (one, other))
    if (left or right) and set(left) != set(right):
        raise DefinitionError(
            f"{one!r} is {hints.show(inspect_reference(one)[2])} and cannot be compared with {_shown(other)}: "
            "compare them in a step that returns True or False",
            *tracebacks.caller(),
        )


def _compare_members(one: Comparable, name: Operator, other: object, classes: list[type[enum.Enum]]) -> Condition:
    """Whether a value is one of the members for which the comparison with a literal holds in Python.

    The platform knows members by their names. A parameter may have the name of an alias, or a member's value instead.
    """
    tracer, binding, hint = inspect_reference(one)
    compare: Any = getattr(operator, "eq" if name == "ne" else name)
    found: dict[Any, None] = {}
    try:
        for cls in classes:
            members = {text: member for text, member in cls.__members__.items() if compare(member, other)}
            found |= dict.fromkeys(text for text, member in members.items() if text == member.name)
            if next(values.params(binding), None) is not None:
                plain = [member.value for member in members.values() if type(member.value) in (str, int)]
                found |= dict.fromkeys([*members, *(value for value in plain if value not in cls.__members__)])
    except TypeError as error:
        raise DefinitionError(
            f"{one!r} is {hints.show(hint)} and cannot be compared ({_SIGNS[name]}) with {_shown(other)}: {error}",
            *tracebacks.caller(),
        ) from error
    if not found:
        what = "equal to" if name in ("eq", "ne") else _SIGNS[name]
        raise DefinitionError(
            f"{one!r} is {hints.show(hint)}, so it is never {what} {_shown(other)}", *tracebacks.caller()
        )
    equal = tuple(Compare("eq", binding, values.Inline(text), names=True) for text in found)
    if name == "ne" and len(equal) == 1:
        return Condition(tracer, Compare("ne", binding, equal[0].right, names=True))
    condition = equal[0] if len(equal) == 1 else AnyOf(equal)
    return Condition(tracer, Not(condition) if name == "ne" else condition)


def _literal(value: object, *, names: bool) -> Any:
    """A literal as conditions see it: tuples as lists, members of enumerations with their type, or by name."""
    if names and isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, list | tuple):
        return [_literal(entry, names=names) for entry in cast("list[object]", value)]
    if isinstance(value, dict):
        entries = cast("dict[Any, object]", value)
        if all(isinstance(key, str) for key in entries):
            return {key: _literal(entry, names=names) for key, entry in entries.items()}
    try:
        data = codec.encode(value, float)
    except codec.NotJsonError:
        data = {}
    if isinstance(value, enum.Enum) and data:
        return data
    if isinstance(data, dict) or (isinstance(data, float) and not math.isfinite(data)):
        raise DefinitionError(
            f"{hints.short_repr(value)} cannot be used in a condition: use numbers, strings, members of "
            "enumerations, lists or dictionaries, or compare in a step that returns True or False",
            *tracebacks.caller(),
        )
    return data


def _kinds(hint: Any) -> set[str]:
    """What values of a hint are in comparisons; nothing where it is not known."""
    found: set[str] = set()
    for option in hints.members(hint):
        literals = hints.literals(option)
        if literals is not None:
            found |= {kind for literal in literals for kind in _kinds(type(literal))}
            continue
        cls = hints.class_of(option)
        if cls is None or option is Any:
            return set()
        if issubclass(cls, enum.Enum):
            found.add("member")
        elif issubclass(cls, int | float) or field_hints.is_numpy_number(cls):
            found.add("number")
        elif cls is not type(None):
            found.add("text" if issubclass(cls, str) else cls.__name__)
    return found


def _check_kinds(one: Comparable, name: Operator, other: object, both: tuple[Any, Any]) -> None:
    left, right = map(_kinds, both)
    if other is None and name in ("eq", "ne"):
        return
    sign = _SIGNS[name]
    if name in ("eq", "ne"):
        literal_misses = not isinstance(other, Placeholder) and left <= {"text", "member"} and bool(left)
        found = value_check.problem(other, both[0]) if literal_misses else None
        if found is not None or (left and right and left.isdisjoint(right)):
            raise DefinitionError(
                f"{one!r} is {hints.show(both[0])}, so it is never equal to {_shown(other)}", *tracebacks.caller()
            )
        return
    if (
        (left | right) - {"number", "text"}
        or len(left & right or left | right) > 1
        or (left and right and left.isdisjoint(right))
        or other is None
    ):
        raise DefinitionError(
            f"{one!r} is {hints.show(both[0])} and cannot be compared ({sign}) with {_shown(other)}: numbers and "
            "strings can be. Compare in a step that returns True or False",
            *tracebacks.caller(),
        )


def _shown(other: object) -> str:
    if isinstance(other, Comparable):
        return f"{other!r}, which is {hints.show(inspect_reference(other)[2])}"
    return hints.short_repr(other)


def _check_plain(reference: Comparable) -> None:
    """Only plain data can be in a condition; anything else is an artifact, which no service opens."""
    for option in hints.members(inspect_reference(reference)[2]):
        cls = hints.class_of(option)
        if option is Any or cls is None or (issubclass(cls, _PLAIN) and not issubclass(cls, bytes | bytearray)):
            continue
        if field_hints.fields(cls) is not None or field_hints.is_numpy_number(cls):
            continue
        refuse(reference, "compared or used in a condition")
