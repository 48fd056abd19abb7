"""Values of facts as plain data: lists, dictionaries and inline values; artifacts are kept as references."""

from __future__ import annotations

from typing import Any

from penstock_core.facts import AttemptRequested, Fact, StepExpanded, StepSkipped
from penstock_core.pipeline import values

MISSING = "(there is no such part)"


def part(value: Any, path: tuple[Any, ...]) -> Any:
    """Return an element of plain data; for values that only readers open, a reference to the element."""
    for depth, step in enumerate(path):
        if isinstance(value, values.Stored | values.Collected):
            return (value, path[depth:])
        if isinstance(value, tuple):
            return (value[0], (*value[1], *path[depth:]))
        try:
            value = value[step] if isinstance(value, list if isinstance(step, int) else dict) else MISSING
        except LookupError:
            return MISSING
        if value is MISSING:
            return MISSING
    return value


def artifacts(value: Any) -> bool:
    """Whether plain data contains artifacts, which conditions cannot read."""
    if isinstance(value, dict):
        return any(artifacts(one) for one in value.values())
    if isinstance(value, list):
        return any(artifacts(one) for one in value)
    return value is MISSING or isinstance(value, values.Stored | values.Collected | tuple)


def unreadable(fact: Fact) -> bool:
    """Whether a fact is the placeholder of an unreadable message (`penstock_contracts.fact_codec.placeholder_fact`)."""
    match fact:
        case AttemptRequested():
            return fact.project == "unreadable"
        case StepSkipped():
            return "unreadable" in fact.reason
        case StepExpanded():
            return fact.error is not None and fact.error.type == "CorruptEvent"
        case _:
            return False
