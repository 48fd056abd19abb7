"""Responses of the HTTP API about metrics of runs and differences between runs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.api import RunSummary
from penstock_core.queries.series import Number


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class SeriesView(_Model):
    """A metric series of one attempt of a step. `min` and `max` are null if all values are NaN.

    `points` are `[step, time, value]`, in order; null in summaries. `thinned` points are a sample that includes the
    first, the last, the smallest and the largest.
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
    """The metric series of a run by name and step; of each step those of its last attempt that logged them.

    `next` is the cursor of the next page of points; `more` says that there are more series. `lag` counts messages with
    metrics that the read model lacks; it is 0 except under heavy load.
    """

    run_id: str
    series: list[SeriesView]
    next: str | None = None
    more: bool = False
    lag: int = 0


class Present(_Model):
    """The value of one run; null instead of this object means that the run has none."""

    value: Any


class Difference(_Model):
    """The values of the runs under a name, in their order. An artifact is `{"artifact": SHA-256}`, long data a digest.

    Sections are run, inputs, params, tags, metrics, outputs, code, environment, git and durations. `step` is the key of
    a step, empty for the run as a whole.
    """

    section: str
    step: str = ""
    name: str
    values: list[Present | None]
    same: bool


class Comparison(_Model):
    """Runs side by side: the `rows` that differ, or all; `compared` is the number of all rows."""

    runs: list[RunSummary]
    rows: list[Difference]
    compared: int
