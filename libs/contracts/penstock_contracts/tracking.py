"""Bodies of the HTTP API about what runs measured, and about what tells runs from each other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.api import RunSummary

Number = float | Literal["nan", "inf", "-inf"]
"""A number, or the text for one that JSON does not have."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class SeriesView(_Model):
    """A series of measurements of one attempt of a step. `min` and `max` are null where all values are NaN.

    `points` are `[step, time, value]`, in order; null where they were not asked for. With `thinned` they are some of
    `count`, among them the first, the last, the smallest and the largest.
    """

    name: str
    step: str = Field(description="key of the step")
    attempt: int
    count: int
    min: Number | None = None
    max: Number | None = None
    last: Number
    last_step: int | None = None
    last_at: float
    points: list[tuple[int | None, float, Number]] | None = None
    thinned: bool = False


class SeriesPage(_Model):
    """The series of a run, by name and step; of each step those of its last attempt that measured them.

    `next` continues the points of a series that was asked for in pages; `more` says that there are more series.
    `lag` counts messages with measurements that are stored and not looked at yet: 0 but where there are very many.
    """

    run_id: str
    series: list[SeriesView]
    next: str | None = None
    more: bool = False
    lag: int = 0


class Present(_Model):
    """What a run has; one that has nothing has null in its place."""

    value: Any


class Difference(_Model):
    """What the runs have under a name, in their order. An artifact is `{"artifact": its SHA-256}`, long data a digest.

    Sections are run, inputs, params, tags, metrics, outputs, code, environment, git and durations. `step` is the key of
    a step, empty for the run as a whole.
    """

    section: str
    step: str = ""
    name: str
    values: list[Present | None]
    same: bool


class Comparison(_Model):
    """Runs side by side: the `rows` in which they differ, of all that were `compared`; or all of these."""

    runs: list[RunSummary]
    rows: list[Difference]
    compared: int
