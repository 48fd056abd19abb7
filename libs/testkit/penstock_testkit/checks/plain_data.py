"""Values of facts as plain data: lists, dictionaries and inline values; artifacts are kept as references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from penstock_core.facts import AttemptRequested, Fact, StepExpanded, StepSkipped
from penstock_core.pipeline import values

MISSING = "(there is no such part)"


def part(value: Any, path: tuple[Any, ...]) -> Any:
    """Return an element of plain data; for values that only readers open, a reference to the element."""
    for depth, step in enumerate(path):
        if isinstance(value, Joined):
            return _part_of_joined(value, path[depth:])
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


@dataclass(frozen=True)
class Joined:
    """Lists one after the other, of which only readers open at least one."""

    lists: tuple[Any, ...]


def joined(lists: list[Any]) -> Any:
    """Return lists one after the other: of items, where all are plain; `MISSING` if one is no list."""
    several = [part for one in lists for part in (one.lists if isinstance(one, Joined) else (one,))]
    if not all(isinstance(one, list | values.Stored | values.Collected | tuple) for one in several):
        return MISSING
    if all(isinstance(one, list) for one in several):
        return [item for one in several for item in one]
    return Joined(tuple(several))


def length(value: Any) -> int | None:
    """Return the length of a list; None where only readers know it."""
    if isinstance(value, list):
        return len(cast("list[Any]", value))
    if isinstance(value, values.Stored):
        return value.artifact.items
    if isinstance(value, values.Collected):
        return value.collected.count
    if isinstance(value, Joined):
        found = [length(one) for one in value.lists]
        return None if None in found else sum(one or 0 for one in found)
    return None


def _part_of_joined(value: Joined, path: tuple[Any, ...]) -> Any:
    index, left = path[0], value.lists
    while isinstance(index, int) and index >= 0 and left and (count := length(left[0])) is not None:
        if index < count:
            return part(left[0], (index, *path[1:]))
        index, left = index - count, left[1:]
    if not left:
        return MISSING
    return (left[0] if len(left) == 1 else Joined(left), (index, *path[1:]))


def artifacts(value: Any) -> bool:
    """Whether plain data contains artifacts, which conditions cannot read."""
    if isinstance(value, dict):
        return any(artifacts(one) for one in value.values())
    if isinstance(value, list):
        return any(artifacts(one) for one in value)
    return value is MISSING or isinstance(value, values.Stored | values.Collected | Joined | tuple)


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
