"""Steps that compare calls of a deployment with the data that its model was trained on."""

from __future__ import annotations

import pandas as pd

from penstock.authoring import step
from penstock.monitoring import figures, statistics
from penstock.monitoring.reports import DRIFT_DETECTED, ColumnDrift, DriftReport
from penstock.reports import Markdown
from penstock.step_context.contexts import context

_METRICS = 400
_NAMED = 50
"""Most columns that are named in the event."""


@step
def data_drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    deployment: str = "",
    prefix: str = "",
    columns: list[str] | None = None,
    psi: float = 0.2,
    p_value: float = 0.01,
    min_columns: int = 1,
    min_rows: int = 30,
) -> DriftReport:
    """Compare each column of the inputs with the reference, such as the rows that the model was trained on.

    A column drifted if its population stability index is at least `psi`, and the chance that both samples have one
    distribution is below `p_value` divided by the number of columns. That chance is the p-value of the two-sample
    Kolmogorov-Smirnov test for numbers, and of the chi-squared test for categories (texts, booleans, and numbers with
    at most 10 distinct values in the reference). Where numbers are missing, a chi-squared test also compares the
    shares of missing ones.

    Logs the metrics `drifted_columns`, `drift_share`, `max_psi` and `psi/COLUMN`, a table `drift`, a text `report`
    and, where matplotlib is installed, a figure `distributions`. If at least `min_columns` drifted, it sends the event
    `penstock.drift.detected.v1` with `deployment`, `kind`, `run_id`, `columns`, `share`, `max_psi`, `rows`, `reason`.

    Args:
        reference: the expected distribution.
        current: calls, as `collect_calls` returns them, or any table.
        deployment: for the event and the report.
        prefix: columns of `current` are those of the reference with this prefix, such as `inputs.customer.`.
        columns: columns of the reference; default all.
        psi: 0.1 is usually called a moderate and 0.25 a major shift.
        p_value: error rate of the tests of all columns together.
        min_columns: drifted columns at which the event is sent.
        min_rows: with fewer rows nothing is compared.

    Raises:
        ValueError: none of the columns is in `current`, or one of `columns` is not in the reference.
    """
    reference, current = reference.rename(columns=str), current.rename(columns=str)
    if wrong := [name for name in columns or [] if name not in reference.columns]:
        raise ValueError(f"data_drift: the reference has no column {wrong[0]!r}; it has {_list(reference)}")
    names = columns or [*reference.columns]
    pairs = {name: f"{prefix}{name}" for name in names}
    return _compare("data", deployment, reference, current, pairs, (psi, p_value, min_columns, min_rows))


@step
def prediction_drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    deployment: str = "",
    column: str = "outputs.result",
    reference_column: str = "",
    psi: float = 0.2,
    p_value: float = 0.01,
    min_rows: int = 30,
) -> DriftReport:
    """Compare the predictions with those of the reference: of training, or of earlier calls.

    Tests, thresholds, metrics and event are those of `data_drift`.

    Args:
        reference: earlier calls, or a table with the column `reference_column`.
        current: calls, as `collect_calls` returns them.
        deployment: for the event and the report.
        column: the predictions in `current`.
        reference_column: the predictions, or labels, in the reference; default `column`.
        psi: as in `data_drift`.
        p_value: as in `data_drift`.
        min_rows: with fewer rows nothing is compared.

    Raises:
        ValueError: one of the tables has no such column.
    """
    expected = reference_column or column
    if expected not in reference.columns:
        raise ValueError(f"prediction_drift: the reference has no column {expected!r}; it has {_list(reference)}")
    return _compare("prediction", deployment, reference, current, {expected: column}, (psi, p_value, 1, min_rows))


def _compare(
    kind: str,
    deployment: str,
    reference: pd.DataFrame,
    current: pd.DataFrame,
    pairs: dict[str, str],
    thresholds: tuple[float, float, int, int],
) -> DriftReport:
    psi, p_value, min_columns, min_rows = thresholds
    rows = min(len(reference), len(current))
    if rows < min_rows:
        note = f"{len(current)} rows, and {len(reference)} of the reference, are fewer than {min_rows}"
        return _logged(DriftReport(kind, deployment, len(reference), len(current), note=note))
    known = {name: column for name, column in pairs.items() if column in current.columns}
    if not known:
        wanted = next(iter(pairs.values()), "any")
        raise ValueError(f"{kind}_drift: there is no column {wanted!r} to compare; the table has {_list(current)}")
    chance = p_value / len(known)
    found = [
        statistics.compare(name, reference[name], current[column], psi=psi, p_value=chance)
        for name, column in known.items()
    ]
    found.sort(key=lambda one: (-one.psi, one.name))
    missing = [name for name in pairs if name not in known]
    drifted = sum(one.drifted for one in found) + len(missing)  # a feature that is no longer sent has drifted, too
    report = DriftReport(
        kind=kind,
        deployment=deployment,
        reference_rows=len(reference),
        current_rows=len(current),
        drifted=drifted >= min_columns,
        share=drifted / len(pairs),
        columns=found,
        missing=missing,
    )
    figures.log_distributions(report, reference, current, known)
    return _logged(report)


def _logged(report: DriftReport) -> DriftReport:
    run = context()
    run.log_metric("drifted_columns", len(report.drifted_columns))
    run.log_metric("drift_share", report.share)
    run.log_metric("max_psi", max((column.psi for column in report.columns), default=0.0))
    for column in report.columns[:_METRICS]:
        run.log_metric(f"psi/{column.name}"[:200], column.psi)
    if report.columns:
        run.log_table("drift", [_row(column) for column in report.columns])
    run.log_artifact("report", markdown(report))
    if report.drifted:
        run.send_event(DRIFT_DETECTED, _event(report), key=report.deployment)
    return report


def _event(report: DriftReport) -> dict[str, object]:
    return {
        "kind": report.kind,
        "deployment": report.deployment,
        "run_id": context().run_id,
        "pipeline": context().pipeline,
        "columns": [name[:200] for name in report.drifted_columns[:_NAMED]],
        "share": report.share,
        "max_psi": report.columns[0].psi,
        "rows": report.current_rows,
        "reason": _reason(report),
    }


def _reason(report: DriftReport) -> str:
    """Return what drifted in a sentence, for notifications."""
    names = [f"{name[:100]} (missing)" if name in report.missing else name for name in report.drifted_columns]
    shown = ", ".join(name[:110] for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{report.kind} drift of {shown} in {report.current_rows} rows"


def _row(column: ColumnDrift) -> dict[str, object]:
    return {
        "column": column.name,
        "drifted": column.drifted,
        "psi": round(column.psi, 4),
        "test": column.test,
        "statistic": round(column.statistic, 4),
        "p_value": column.p_value,
        "reference": column.reference,
        "current": column.current,
    }


def markdown(report: DriftReport) -> Markdown:
    """Return a report as a text with a table of its columns."""
    about = f" of {report.deployment}" if report.deployment else ""
    lines = [f"# {report.kind.capitalize()} drift{about}: {'yes' if report.drifted else 'no'}", ""]
    lines += [f"{report.current_rows} rows, compared with {report.reference_rows}. {report.note}".rstrip(), ""]
    if report.columns:
        lines += ["| column | drifted | PSI | test | p-value | reference | current |", "|---|---|---|---|---|---|---|"]
        lines += [
            f"| {_cell(one.name)} | {'yes' if one.drifted else ''} | {one.psi:.3f} | {one.test} | {one.p_value:.2g} "
            f"| {_cell(one.reference)} | {_cell(one.current)} |"
            for one in report.columns
        ]
    if report.missing:
        lines += ["", f"Not in the calls: {', '.join(report.missing[:_NAMED])}"]
    return Markdown("\n".join(lines) + "\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:100]


def _list(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns[:20])) or "none"
