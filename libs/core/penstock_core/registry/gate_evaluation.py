"""What comes of a gate: whether it holds, and each comparison with the numbers on both sides.

A comparison with an alias that stands for nothing yet holds: the first champion has nobody to beat. One with a metric
that is missing, or is no number, does not.
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
        """Its measurements."""
        ...

    @property
    def non_finite(self) -> Mapping[str, str]:
        """Those that are no finite numbers, as text."""
        ...


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison: whether it holds, and how it reads with its numbers."""

    holds: bool
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a gate holds, and all of its comparisons."""

    holds: bool
    clauses: tuple[Clause, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The comparisons for people."""
        return tuple(clause.text for clause in self.clauses)


class _AbsentError(Exception):
    """A number is not there. `holds` tells what that makes of the comparison."""

    def __init__(self, why: str, *, holds: bool = False) -> None:
        self.why = why
        self.holds = holds
        super().__init__(why)


def judge(gate: Gate, version: Measured, standing: Mapping[str, Measured]) -> Verdict:
    """What comes of a gate for a version; `standing` are the versions that the aliases stand for, by alias."""
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
        return Clause(absent.holds, f"{asked}: {absent.why}" + ("" if absent.holds else ", so it does not hold"))
    holds = _COMPARE[gate.sign](left, right)
    numbers = f"{_number(left)} {gate.sign} {_number(right)}"
    return Clause(holds, f"{asked}: {numbers} {'holds' if holds else 'does not hold'}")


def _value(term: Term, version: Measured, standing: Mapping[str, Measured]) -> float:
    match term:
        case Number():
            return term.value
        case Metric(name, ""):
            return _metric(name, version, f"version {version.version}")
        case Metric(name, alias):
            if alias not in standing:
                raise _AbsentError(f"there is no {alias} yet, so it holds", holds=True)
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
                raise _AbsentError(f"{_number(one)} {sign} {_number(other)} is no number")
            return found


def _both(left: Term, right: Term, version: Measured, standing: Mapping[str, Measured]) -> tuple[float, float]:
    """Two numbers. Both are looked at: a metric that is missing matters more than a champion that is not there."""
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
    raise _AbsentError(f"{whose} has no metric {_name(name)} (it has: {listed or 'none'})")


def _number(value: float) -> str:
    return f"{value:.10g}"


# -------------------------------------------------------------------------------------------------------------- words


def describe(gate: Gate) -> str:
    """A gate as text; reading it gives the same gate."""
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
