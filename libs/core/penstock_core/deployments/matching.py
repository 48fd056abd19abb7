"""Match an event with a subscription: filter, key, start time and inputs. Pure, apart from the given evaluator.

The same function decides when an event arrives and explains the decision later, with the event from the stream and
the definition of that moment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol, TypeAlias, cast

from penstock_core import git_sources
from penstock_core.deployments import webhooks
from penstock_core.deployments.definition import Subscription
from penstock_core.deployments.events import Event
from penstock_core.errors import PenstockError
from penstock_core.frozen import frozen

KEY_LIMIT = 1_000
"""Longest key of an event, in characters."""

_VALUE_LIMIT = 200
_CLOSED_BY = {"(": ")", "[": "]", "{": "}"}
_PATH = re.compile(r"""\b(?:data|event)(?:\.[A-Za-z_]\w*(?!\w*\()|\[\d+\]|\["[^"\\]*"\]|\['[^'\\]*'\])*""")
_PART = re.compile(r"""\.(\w+)|\[(\d+)\]|\[["'](.*?)["']\]""")


class ExpressionError(PenstockError):
    """An expression cannot be compiled, or cannot be evaluated for an event."""

    user_fault: ClassVar[bool] = True


class Evaluator(Protocol):
    """Evaluates CEL expressions."""

    def evaluate(self, expression: str, scope: Mapping[str, Any]) -> Any:
        """Return the value of an expression, as JSON data or a datetime.

        Raises:
            ExpressionError: it cannot be compiled or evaluated.
        """
        ...


@frozen(kw_only=True)
class Clause:
    """A part of a filter: its text, whether it is true (None: it failed with `error`), and the values that it saw."""

    text: str
    holds: bool | None
    values: dict[str, Any]
    error: str = ""


@frozen(kw_only=True)
class Matched:
    """The event counts. `start_at` is the earliest start of the run in Unix seconds, if the trigger sets one."""

    key: str = ""
    start_at: float | None = None


@frozen(kw_only=True)
class Filtered:
    """The filter is false for this event."""

    clauses: tuple[Clause, ...]


@frozen(kw_only=True)
class Failed:
    """An expression failed for this event: `where` is its path in the trigger."""

    where: str
    error: str
    clauses: tuple[Clause, ...] = ()


Match: TypeAlias = Matched | Filtered | Failed


def match(subscription: Subscription, event: Event, evaluator: Evaluator, *, explain: bool = True) -> Match:
    """Return whether an event of a subscribed type counts, with its key and start time.

    Without `explain`, the parts of a filter that is false are left out: evaluating them costs several times the filter.
    """
    scope = event.scope()
    where = "filter"
    try:
        if subscription.filter:
            found = evaluator.evaluate(subscription.filter, scope)
            if not isinstance(found, bool):
                raise ExpressionError(f"the value must be true or false, not {_shown(found)}")
            if not found:
                return Filtered(clauses=clauses(subscription.filter, scope, evaluator) if explain else ())
        if subscription.publish and not webhooks.pushes_to(event.data, git_sources.parse(subscription.publish).ref):
            text = f"the push is to the branch or tag of {subscription.publish}"
            return Filtered(clauses=(Clause(text=text, holds=False, values=_pushed(event.data)),))
        where = "key"
        key = _key(evaluator.evaluate(subscription.key, scope)) if subscription.key else ""
        where = "not_before"
        start = _time(evaluator.evaluate(subscription.not_before, scope)) if subscription.not_before else None
    except ExpressionError as error:
        parts = clauses(subscription.filter, scope, evaluator) if explain and where == "filter" else ()
        return Failed(where=where, error=str(error), clauses=parts)
    return Matched(key=key, start_at=start)


def _pushed(data: Any) -> dict[str, Any]:
    return {"data.ref": data.get("ref")} if isinstance(data, dict) else {}


def run_inputs(
    subscription: Subscription, events: Sequence[Event], fixed: Mapping[str, Any], evaluator: Evaluator
) -> dict[str, Any]:
    """Return the inputs of the run for some events, the last of which is `data` and `event` in the expressions.

    Args:
        subscription: maps the events to inputs.
        events: one event, or those of a window, oldest first.
        fixed: inputs of the deployment; those of the trigger override them.
        evaluator: evaluates the mappings.

    Raises:
        ExpressionError: with the path of the mapping that failed.
    """
    scope = {**events[-1].scope(), "events": [event.scope() for event in events]}
    given = dict(fixed)
    if subscription.inputs_from:
        whole = _mapped("inputs_from", subscription.inputs_from, scope, evaluator)
        if not isinstance(whole, dict):
            raise ExpressionError(f"inputs_from: the value must be an object with the inputs, not {_shown(whole)}")
        given |= cast("dict[str, Any]", whole)
    for name, expression in subscription.inputs.items():
        given[name] = _mapped(f"inputs.{name}", expression, scope, evaluator)
    return given


def partition_key(subscription: Subscription, events: Sequence[Event], evaluator: Evaluator) -> str:
    """Return the key of the partition that events are for.

    Raises:
        ExpressionError: the expression failed, or its value is not text.
    """
    scope = {**events[-1].scope(), "events": [event.scope() for event in events]}
    found = _mapped("partition", subscription.partition, scope, evaluator)
    if not isinstance(found, str):
        raise ExpressionError(f"partition: the value must be text, the key of a partition, not {_shown(found)}")
    return found


def _mapped(where: str, expression: str, scope: Mapping[str, Any], evaluator: Evaluator) -> Any:
    try:
        return _json(evaluator.evaluate(expression, scope))
    except ExpressionError as error:
        raise ExpressionError(f"{where}: {error}") from error


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value


def _key(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ExpressionError(f"the value must be text or a number, not {_shown(value)}")
    text = str(value)
    if len(text) > KEY_LIMIT:
        raise ExpressionError(f"the value has {len(text)} characters; the limit is {KEY_LIMIT}")
    return text


def _time(value: Any) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError as error:
            raise ExpressionError(f"{value[:100]!r} is not a time in RFC 3339") from error
        if found.tzinfo is None:
            raise ExpressionError(f"{value[:100]!r} has no time zone")
        return found.timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1e11:
        return float(value)
    raise ExpressionError(f"the value must be a time, not {_shown(value)}")


# --------------------------------------------------------------------------------------------------------- explanation


def clauses(expression: str, scope: Mapping[str, Any], evaluator: Evaluator) -> tuple[Clause, ...]:
    """Evaluate each part of a filter by itself, with the values that it saw."""
    return tuple(_clause(part, scope, evaluator) for part in conjuncts(expression))


def _clause(text: str, scope: Mapping[str, Any], evaluator: Evaluator) -> Clause:
    values = {path: _lookup(path, scope) for path in paths(text)}
    try:
        return Clause(text=text, holds=evaluator.evaluate(text, scope) is True, values=values)
    except ExpressionError as error:
        return Clause(text=text, holds=None, values=values, error=str(error))


def conjuncts(expression: str) -> list[str]:
    """Split a CEL expression at its outermost `&&`. One with an outermost `||` or `?` is one part."""
    parts: list[str] = []
    start = 0
    for at, operator in _outer_operators(expression):
        if operator != "&&":
            return [expression.strip()]
        parts.append(expression[start:at].strip())
        start = at + 2
    return [*parts, expression[start:].strip()]


def _outer_operators(expression: str) -> Iterator[tuple[int, str]]:
    """The positions of `&&`, `||` and `?` outside of brackets and text."""
    closing: list[str] = []
    at = 0
    while at < len(expression):
        letter = expression[at]
        if letter in "\"'":
            at = _end_of_text(expression, at)
            continue
        if letter in _CLOSED_BY:
            closing.append(_CLOSED_BY[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif not closing and (letter == "?" or expression[at : at + 2] in ("&&", "||")):
            yield at, letter if letter == "?" else expression[at : at + 2]
            at += 0 if letter == "?" else 1
        at += 1


def _end_of_text(expression: str, start: int) -> int:
    """The position after a text literal; in a raw literal a backslash is a character like others."""
    quote = expression[start : start + 3] if expression[start : start + 3] in ('"""', "'''") else expression[start]
    raw = start > 0 and expression[start - 1] in "rR"
    at = start + len(quote)
    while at < len(expression):
        if expression[at] == "\\" and not raw:
            at += 2
        elif expression.startswith(quote, at):
            return at + len(quote)
        else:
            at += 1
    return at


def paths(expression: str) -> list[str]:
    """The paths into `data` and `event` that an expression reads, such as `data.rows`, each once."""
    return list(dict.fromkeys(path for _, path in placed_paths(expression)))


def placed_paths(expression: str) -> list[tuple[int, str]]:
    """The paths into `data` and `event` that an expression reads, each with its position, from 0."""
    return [(found.start(), found[0]) for found in _PATH.finditer(_without_text(expression))]


def _without_text(expression: str) -> str:
    """The expression with blanks instead of text literals, except for those that are keys."""
    kept, at = "", 0
    while at < len(expression):
        if expression[at] in "\"'":
            end = _end_of_text(expression, at)
            kept += expression[at:end] if expression[at - 1 : at] == "[" else " " * (end - at)
            at = end
        else:
            kept += expression[at]
            at += 1
    return kept


def _lookup(path: str, scope: Mapping[str, Any]) -> Any:
    value: Any = scope[path.split(".")[0].split("[")[0]]
    for name, index, key in _PART.findall(path):
        try:
            value = value[int(index)] if index else value[name or key]
        except (KeyError, IndexError, TypeError):
            return None
    return _shortened(value)


def _shortened(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= _VALUE_LIMIT else value[:_VALUE_LIMIT] + "…"
    text = str(value)
    return value if len(text) <= _VALUE_LIMIT else text[:_VALUE_LIMIT] + "…"


def _shown(value: Any) -> str:
    return repr(value)[:80]
