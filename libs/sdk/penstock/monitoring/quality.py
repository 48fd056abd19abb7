"""The step that measures predictions with labels that arrived later."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from penstock.authoring import step
from penstock.monitoring import statistics
from penstock.monitoring.calls import joined
from penstock.monitoring.reports import METRIC_CROSSED, Crossing, QualityReport
from penstock.monitoring.statistics import Series
from penstock.step_context.contexts import context

_METRICS = {
    "classification": ("accuracy", "precision", "recall", "f1"),
    "regression": ("mae", "rmse", "bias"),
}
"""Metrics by kind."""


@step
def live_quality(
    calls: pd.DataFrame,
    labels: pd.DataFrame,
    deployment: str = "",
    prediction: str = "outputs.result",
    kind: str = "",
    at_least: dict[str, float] | None = None,
    at_most: dict[str, float] | None = None,
    min_rows: int = 30,
) -> QualityReport:
    """Measure the predictions of the calls that have a label.

    Logs the metrics, a table `quality` by model version and, for each metric beyond its threshold, sends the event
    `penstock.metric.crossed.v1` with `deployment`, `metric`, `value` (null: not a number), `threshold`, `direction`,
    `run_id` and `rows`.

    Args:
        calls: as `collect_calls` returns them.
        labels: a table with `request_id` and `label`, as `collect_labels` returns it.
        deployment: for the event and the report.
        prediction: the column with the predictions.
        kind: `classification` or `regression`; default by the metrics with thresholds, else by the labels: regression
            for numbers with more than 10 distinct values.
        at_least: lowest acceptable value by metric, such as `{"accuracy": 0.9}`.
        at_most: highest acceptable value by metric, such as `{"mae": 2.5}`.
        min_rows: with fewer labelled calls, thresholds are not checked.

    Raises:
        ValueError: `prediction` is no column of the calls, `kind` is another text, or a threshold is for an unknown
            metric.
    """
    if kind not in ("", *_METRICS):
        raise ValueError(f"live_quality: kind must be 'classification' or 'regression', got {kind!r}")
    rows = joined(calls, labels)
    found = kind or _kind_of({**(at_least or {}), **(at_most or {})}) or _kind_of_labels(rows["label"])
    measure = _regression if found == "regression" else _classification
    if rows.empty:
        return QualityReport(found, deployment, len(calls), 0, note="no call has a label")
    if prediction not in rows.columns:
        shown = ", ".join(map(str, rows.columns[:20]))
        raise ValueError(f"live_quality: the calls have no column {prediction!r}; they have {shown}")
    metrics = measure(rows["label"], rows[prediction])
    versions = rows["model"].where(rows["model"] != "", "v" + rows["version"].astype(str))
    by_model = {
        str(name): {"rows": float(len(part)), **measure(part["label"], part[prediction])}
        for name, part in rows.groupby(versions, sort=True)
    }
    crossed = [*_crossed(metrics, at_least or {}, "below"), *_crossed(metrics, at_most or {}, "above")]
    note = "" if len(rows) >= min_rows else f"{len(rows)} labelled calls are fewer than {min_rows}"
    report = QualityReport(
        kind=found,
        deployment=deployment,
        calls=len(calls),
        labelled=len(rows),
        metrics=metrics,
        by_model=by_model,
        crossed=[] if note else crossed,
        note=note,
    )
    _log(report)
    return report


def _log(report: QualityReport) -> None:
    run = context()
    run.log_metrics({**report.metrics, "labelled": report.labelled})
    run.log_table("quality", [{"model": name, **values} for name, values in report.by_model.items()])
    for one in report.crossed:
        data = {
            "deployment": report.deployment,
            "metric": one.metric,
            "value": one.value if math.isfinite(one.value) else None,
            "threshold": one.threshold,
            "direction": one.direction,
            "run_id": run.run_id,
            "pipeline": run.pipeline,
            "rows": report.labelled,
        }
        run.send_event(METRIC_CROSSED, data, key=report.deployment)


def _kind_of(thresholds: dict[str, float]) -> str:
    """Return the kind whose metrics have thresholds: the first labels of a regression may have few distinct values."""
    return next((kind for kind, names in _METRICS.items() if any(name in names for name in thresholds)), "")


def _kind_of_labels(labels: Series) -> str:
    return "regression" if statistics.is_numeric(labels) else "classification"


def _crossed(metrics: dict[str, float], thresholds: dict[str, float], direction: str) -> list[Crossing]:
    if unknown := [name for name in thresholds if name not in metrics]:
        raise ValueError(f"live_quality: there is no metric {unknown[0]!r}; there are {', '.join(metrics)}")
    sign = 1 if direction == "above" else -1
    return [
        Crossing(name, metrics[name], threshold, direction)
        for name, threshold in thresholds.items()
        if not sign * metrics[name] <= sign * threshold  # also NaN: no prediction is a number
    ]


def _classification(labels: Series, predictions: Series) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 as means over the classes of the labels."""
    truth, found = (_classes(column) for column in (labels, predictions))
    scores: list[tuple[float, float, float]] = []
    for name in np.unique(truth):
        right = float(((truth == name) & (found == name)).sum())
        precision, recall = right / max((found == name).sum(), 1), right / (truth == name).sum()
        scores.append((precision, recall, 2 * right / ((found == name).sum() + (truth == name).sum())))
    precision, recall, f1 = (float(np.mean(values)) for values in zip(*scores, strict=True))
    return {"accuracy": float((truth == found).mean()), "precision": precision, "recall": recall, "f1": f1}


def _classes(column: Series) -> np.ndarray:
    # JSON of one system has 1 where that of another one has 1.0 or "1".
    return column.map(statistics.category).to_numpy(str)


def _regression(labels: Series, predictions: Series) -> dict[str, float]:
    """Return the mean absolute error, the root of the mean squared error, and the mean error."""
    errors = predictions.astype(float) - labels.astype(float)
    return {
        "mae": float(errors.abs().mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "bias": float(errors.mean()),
    }
