"""Gates: conditions that a version must meet before an alias may point at it: `accuracy > champion.accuracy + 0.01`.

gate       = all {"or" all}
all        = one {"and" one}
one        = "not" one | "(" gate ")" | comparison
comparison = sum ("<" | "<=" | ">" | ">=" | "==" | "!=") sum {… sum}
sum        = product {("+" | "-") product}
product    = factor {("*" | "/") factor}
factor     = number | metric | "-" factor | "(" sum ")"
metric     = name | alias "." name          names that are not words are quoted: 'val/loss'

A metric alone is the version's own; with an alias, it is that of the version which the alias points at now. Nothing of
it is evaluated as Python: it is parsed here, and evaluated by `gate_evaluation`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn, TypeAlias, Union

from penstock_core.registry.errors import GateError

LIMIT = 1_000
"""Longest gate in characters."""

_DEPTH = 50
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![A-Za-z0-9_])|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<quoted>'[^']+'|\"[^\"]+\")|(?P<sign><=|>=|==|!=|<|>|[-+*/().]))"
)
_WORDS = ("and", "or", "not")

Sign: TypeAlias = Literal["<", "<=", ">", ">=", "==", "!="]
_OPPOSITE: dict[Sign, Sign] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


@dataclass(frozen=True, slots=True)
class Number:
    """A number, as it was written."""

    text: str

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: of the version itself, or of the one that the alias `of` points at."""

    name: str
    of: str = ""


@dataclass(frozen=True, slots=True)
class Computed:
    """A sum, difference, product or quotient of two numbers."""

    sign: Literal["+", "-", "*", "/"]
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Negative:
    """A negated number."""

    of: Term


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of two numbers."""

    sign: Sign
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Every:
    """All of several conditions."""

    parts: tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of several conditions."""

    parts: tuple[Gate, ...]


Term: TypeAlias = Union[Number, Metric, Computed, Negative]  # noqa: UP007 - recursive, with names in quotes
Gate: TypeAlias = Union[Comparison, Every, Either]  # noqa: UP007


def parse(text: str) -> Gate:
    """Parse a gate. A `not` is moved into the comparisons, so that each of them can be reported as it is meant.

    Raises:
        GateError: it is invalid; says where and why.
    """
    if len(text) > LIMIT:
        raise GateError(text, LIMIT, f"it has {len(text)} characters; the limit is {LIMIT}")
    reader = _Reader(text)
    found = reader.either()
    if reader.token.kind != "end":
        reader.fail(f"expected 'and', 'or' or the end, not {reader.token.text!r}")
    return found


def negated(gate: Gate) -> Gate:
    """Return the negation of a gate."""
    match gate:
        case Comparison(sign, left, right):
            return Comparison(_OPPOSITE[sign], left, right)
        case Every(parts):
            return Either(tuple(map(negated, parts)))
        case Either(parts):
            return Every(tuple(map(negated, parts)))


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class _Reader:
    """Parses from left to right; `token` is the next one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        self._depth = 0
        self.token = self._next()

    def fail(self, problem: str) -> NoReturn:
        raise GateError(self._text, self.token.at, problem)

    def _next(self) -> _Token:
        rest = self._text[self._end :]
        start = self._end + len(rest) - len(rest.lstrip())
        if not rest.strip():
            return _Token("end", "", start)
        match = _TOKEN.match(self._text, self._end)
        if match is None or match.lastgroup is None:
            shown = self._text[start : start + 12]
            raise GateError(self._text, start, f"{shown!r} is not a number, a name or a known operator")
        self._end = match.end()
        text = match.group(match.lastgroup)
        kind = text if match.lastgroup == "sign" or text in _WORDS else match.lastgroup
        return _Token(kind, text, start)

    def _take(self) -> _Token:
        taken, self.token = self.token, self._next()
        return taken

    def either(self) -> Gate:
        parts = [self._every()]
        while self.token.kind == "or":
            self._take()
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _every(self) -> Gate:
        parts = [self._one()]
        while self.token.kind == "and":
            self._take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self) -> Gate:
        self._deeper()
        try:
            if self.token.kind == "not":
                self._take()
                return negated(self._one())
            if self.token.kind == "(" and self._is_gate():
                self._take()
                found = self.either()
                self._close()
                return found
            return self._comparison()
        finally:
            self._depth -= 1

    def _is_gate(self) -> bool:
        """Whether the parenthesis that opens here contains a gate and not a number: whether a comparison is in it."""
        depth = 0
        for match in _TOKEN.finditer(self._text, self.token.at):
            text = match.group().strip()
            depth += (text == "(") - (text == ")")
            if depth == 0:
                return False
            if depth and (text in _OPPOSITE or text in _WORDS):
                return True
        return False

    def _comparison(self) -> Gate:
        left, parts = self._sum(), list[Gate]()
        while self.token.kind in _OPPOSITE:
            sign: Sign = self._take().kind  # type: ignore[assignment]
            right = self._sum()
            parts.append(Comparison(sign, left, right))
            left = right
        if not parts:
            what = repr(self.token.text) if self.token.text else "the end"
            self.fail(f"expected a comparison such as '> 0.9', not {what}")
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _sum(self) -> Term:
        found = self._product()
        while self.token.kind in ("+", "-"):
            sign = self._take().kind
            found = Computed(sign, found, self._product())  # type: ignore[arg-type]
        return found

    def _product(self) -> Term:
        found = self._factor()
        while self.token.kind in ("*", "/"):
            sign = self._take().kind
            found = Computed(sign, found, self._factor())  # type: ignore[arg-type]
        return found

    def _factor(self) -> Term:
        self._deeper()
        try:
            match self.token.kind:
                case "number":
                    if not math.isfinite(float(self.token.text)):
                        self.fail(f"{self.token.text} is too large")
                    return Number(self._take().text)
                case "-":
                    self._take()
                    return Negative(self._factor())
                case "(":
                    self._take()
                    found = self._sum()
                    self._close()
                    return found
                case "word" | "quoted":
                    return self._metric()
                case _:
                    what = repr(self.token.text) if self.token.text else "the end"
                    self.fail(f"expected a number or a metric, not {what}")
        finally:
            self._depth -= 1

    def _metric(self) -> Metric:
        name = _unquoted(self._take().text)
        if self.token.kind != ".":
            return Metric(name)
        self._take()
        return Metric(self._name(f"expected the name of a metric of {name!r}"), of=name)

    def _name(self, otherwise: str) -> str:
        if self.token.kind not in ("word", "quoted"):
            self.fail(otherwise)
        return _unquoted(self._take().text)

    def _close(self) -> None:
        if self.token.kind != ")":
            what = repr(self.token.text) if self.token.text else "the end"
            self.fail(f"expected ')', not {what}")
        self._take()

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > 2 * _DEPTH:
            self.fail("it is nested too deeply")


def is_word(name: str) -> bool:
    """Whether a name needs no quotes in a gate."""
    return name not in _WORDS and re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) is not None


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] in "'\"" else text
