"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.client import views
from penstock.client.views import Run


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One property of the compared runs.

    Attributes:
        section: one of run, inputs, params, tags, metrics, outputs, code, environment, git, durations.
        step: key of a step; empty for the run as a whole.
        values: plain data by run, in the order of the runs; None for a run without this property.
        has: by run, whether it has this property.
        same: whether the value is the same in all runs.
    """

    section: str
    name: str
    step: str = ""
    values: tuple[Any, ...] = ()
    has: tuple[bool, ...] = ()
    same: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side. An artifact is `{"artifact": its SHA-256}`; long data is replaced by a digest.

    Attributes:
        runs: in the requested order, without their steps.
        rows: the properties that differ, or all of them.
        compared: number of compared properties, including those that are the same.
    """

    runs: tuple[Run, ...]
    rows: tuple[ComparisonRow, ...] = ()
    compared: int = 0


def parse_comparison(data: Mapping[str, Any]) -> Comparison:
    """Read a comparison from the API's JSON."""
    runs = tuple(views.build(Run, row) for row in data["runs"])
    return Comparison(runs, tuple(_row(row) for row in data["rows"]), data["compared"])


def _row(row: Mapping[str, Any]) -> ComparisonRow:
    cells: Sequence[Mapping[str, Any] | None] = row["values"]
    values = tuple(None if cell is None else cell["value"] for cell in cells)
    return views.build(ComparisonRow, row, values=values, has=tuple(cell is not None for cell in cells))
