"""The reports of monitoring steps, and the events that they send."""

from __future__ import annotations

from dataclasses import dataclass, field

DRIFT_DETECTED = "penstock.drift.detected.v1"
"""Type of the event that `data_drift` and `prediction_drift` send; its key is the deployment."""

METRIC_CROSSED = "penstock.metric.crossed.v1"
"""Type of the event that `live_quality` sends for a metric that crossed its threshold; its key is the deployment."""


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How the values of a column differ from its reference.

    Attributes:
        kind: `numeric` or `categorical`.
        test: `ks` (two-sample Kolmogorov-Smirnov) for numbers, `chi2` (chi-squared) for categories, and for numbers
            of which another share is missing.
        statistic, p_value: of the test.
        psi: population stability index; missing values are a group of their own.
        drifted: whether the p-value and the PSI are beyond their thresholds.
        reference, current: mean of a numeric column, most frequent value of a categorical one, as text.
    """

    name: str
    kind: str
    test: str
    statistic: float
    p_value: float
    psi: float
    drifted: bool
    reference: str = ""
    current: str = ""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The result of `data_drift` or `prediction_drift`.

    Attributes:
        kind: `data` or `prediction`.
        deployment: the deployment that was compared; may be empty.
        drifted: whether enough columns drifted; an event was sent.
        share: share of the columns that drifted or are missing.
        columns: the compared columns, largest PSI first.
        missing: columns of the reference that the calls lack.
        note: why nothing was compared; empty if it was.
    """

    kind: str
    deployment: str
    reference_rows: int
    current_rows: int
    drifted: bool = False
    share: float = 0.0
    columns: list[ColumnDrift] = field(default_factory=list[ColumnDrift])
    missing: list[str] = field(default_factory=list[str])
    note: str = ""

    @property
    def drifted_columns(self) -> list[str]:
        """Names of the columns that drifted, after those that the calls lack."""
        return [*self.missing, *(column.name for column in self.columns if column.drifted)]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A metric that is `below` or `above` its threshold. One that is NaN, as without predictions, is beyond each."""

    metric: str
    value: float
    threshold: float
    direction: str


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The result of `live_quality`.

    Attributes:
        kind: `classification` or `regression`.
        calls: number of calls; `labelled` is the number of those with a label.
        metrics: of all labelled calls: `accuracy`, `precision`, `recall`, `f1` (means over classes), or `mae`, `rmse`
            and `bias`.
        by_model: the same metrics and the number of `rows`, by model version; by pipeline version for calls without
            a model.
        crossed: the metrics that crossed a threshold; an event was sent for each.
        note: why nothing was measured; empty if it was.
    """

    kind: str
    deployment: str
    calls: int
    labelled: int
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    by_model: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    crossed: list[Crossing] = field(default_factory=list[Crossing])
    note: str = ""
