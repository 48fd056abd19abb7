"""Evaluate gates: whether a gate passes, and each comparison with the numbers on both sides.

A comparison with an alias that does not exist yet is true, so that the first champion passes. A comparison with a
metric that is missing, or is not a number, is false.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from penstock_core.registry import gates
from penstock_core.registry.gates import Comparison, Computed, Either, Every, Gate, Metric, Negative, Number, Term

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_COMPUTE: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
_SHOWN = 8


class Measured(Protocol):
    """A version as gates see it."""

    @property
    def version(self) -> int:
        """Its number."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Its metrics."""
        ...

    @property
    def non_finite(self) -> Mapping[str, str]:
        """Those that are not finite numbers, as text."""
        ...


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison: whether it is true, and its text with the numbers."""

    holds: bool
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a gate passes, and all of its comparisons."""

    holds: bool
    clauses: tuple[Clause, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The comparisons as text."""
        return tuple(clause.text for clause in self.clauses)


class _AbsentError(Exception):
    """A number is missing. `holds` is the result of the comparison then."""

    def __init__(self, why: str, *, holds: bool = False) -> None:
        self.why = why
        self.holds = holds
        super().__init__(why)


def judge(gate: Gate, version: Measured, standing: Mapping[str, Measured]) -> Verdict:
    """Evaluate a gate for a version; `standing` are the versions that the aliases point at, by alias."""
    match gate:
        case Comparison():
            clause = _clause(gate, version, standing)
            return Verdict(clause.holds, (clause,))
        case Every(parts) | Either(parts):
            found = [judge(part, version, standing) for part in parts]
            holds = (all if isinstance(gate, Every) else any)(one.holds for one in found)
            return Verdict(holds, tuple(clause for one in found for clause in one.clauses))


def _clause(gate: Comparison, version: Measured, standing: Mapping[str, Measured]) -> Clause:
    asked = describe(gate)
    try:
        left, right = _both(gate.left, gate.right, version, standing)
    except _AbsentError as absent:
        return Clause(absent.holds, f"{asked}: {absent.why}" + ("" if absent.holds else ", so it is false"))
    holds = _COMPARE[gate.sign](left, right)
    numbers = f"{_number(left)} {gate.sign} {_number(right)}"
    return Clause(holds, f"{asked}: {numbers} is {'true' if holds else 'false'}")


def _value(term: Term, version: Measured, standing: Mapping[str, Measured]) -> float:
    match term:
        case Number():
            return term.value
        case Metric(name, ""):
            return _metric(name, version, f"version {version.version}")
        case Metric(name, alias):
            if alias not in standing:
                raise _AbsentError(f"there is no {alias} yet, so it is true", holds=True)
            other = standing[alias]
            return _metric(name, other, f"{alias} (version {other.version})")
        case Negative(of):
            return -_value(of, version, standing)
        case Computed(sign, left, right):
            one, other = _both(left, right, version, standing)
            try:
                found = _COMPUTE[sign](one, other)
            except ZeroDivisionError:
                raise _AbsentError(f"{_number(one)} is divided by 0") from None
            if math.isnan(found):
                raise _AbsentError(f"{_number(one)} {sign} {_number(other)} is not a number")
            return found


def _both(left: Term, right: Term, version: Measured, standing: Mapping[str, Measured]) -> tuple[float, float]:
    """Evaluate two sides. Both are evaluated: a missing metric takes precedence over a missing alias."""
    found: list[float] = []
    absent: list[_AbsentError] = []
    for term in (left, right):
        try:
            found.append(_value(term, version, standing))
        except _AbsentError as error:
            absent.append(error)
    if absent:
        raise min(absent, key=lambda error: error.holds)
    return found[0], found[1]


def _metric(name: str, of: Measured, whose: str) -> float:
    if name in of.metrics:
        return of.metrics[name]
    if name in of.non_finite:
        raise _AbsentError(f"{_name(name)} of {whose} is {of.non_finite[name]}")
    known = sorted({*of.metrics, *of.non_finite})
    listed = ", ".join(known[:_SHOWN]) + (" …" if len(known) > _SHOWN else "")
    raise _AbsentError(f"{whose} has no metric {_name(name)} (metrics: {listed or 'none'})")


def _number(value: float) -> str:
    return f"{value:.10g}"


# ----------------------------------------------------------------------------------------------------- gates as text


def describe(gate: Gate) -> str:
    """Format a gate; parsing it gives the same gate."""
    match gate:
        case Comparison(sign, left, right):
            return f"{_term(left)} {sign} {_term(right)}"
        case Every(parts):
            return " and ".join(_bracketed(part) for part in parts)
        case Either(parts):
            return " or ".join(_bracketed(part) for part in parts)


def _bracketed(gate: Gate) -> str:
    return describe(gate) if isinstance(gate, Comparison) else f"({describe(gate)})"


def _term(term: Term) -> str:
    match term:
        case Number(text):
            return text
        case Metric(name, of):
            return f"{_name(of)}.{_name(name)}" if of else _name(name)
        case Negative(of):
            return f"-{_factor(of)}"
        case Computed(sign, left, right):
            if sign in "+-":
                return f"{_term(left)} {sign} {_factor(right) if _is_sum(right) else _term(right)}"
            return f"{_factor(left) if _is_sum(left) else _term(left)} {sign} {_factor(right)}"


def _is_sum(term: Term) -> bool:
    return isinstance(term, Computed) and term.sign in "+-"


def _factor(term: Term) -> str:
    return f"({_term(term)})" if isinstance(term, Computed) else _term(term)


def _name(name: str) -> str:
    if gates.is_word(name):
        return name
    return f'"{name}"' if "'" in name else f"'{name}'"
