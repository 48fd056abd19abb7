"""The figure of a drift report: distributions of the columns that differ most."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from penstock.monitoring.reports import ColumnDrift, DriftReport
from penstock.monitoring.statistics import Series
from penstock.step_context.contexts import context

_SHOWN = 6
_COLORS = ("#8a94a6", "#d9822b")
_BARS = 12


def log_distributions(
    report: DriftReport, reference: pd.DataFrame, current: pd.DataFrame, columns: dict[str, str]
) -> None:
    """Log a figure of the columns with the largest PSI; nothing where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return
    # matplotlib is optional, and takes longer to import than the comparison.
    from matplotlib.figure import Figure

    shown = report.columns[:_SHOWN]
    wide = min(3, len(shown))
    high = -(-len(shown) // wide)
    figure = Figure(figsize=(4 * wide, 2.8 * high), layout="constrained")
    panels: Any = figure.subplots(high, wide, squeeze=False)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, column in zip(panels.flat, shown, strict=False):
        _draw(axes, column, reference[column.name], current[columns[column.name]])
    panels.flat[0].legend(fontsize=8)
    context().log_figure("distributions", figure)


def _draw(axes: Any, column: ColumnDrift, reference: Series, current: Series) -> None:
    if column.kind == "numeric":
        numbers: list[Series] = [pd.to_numeric(one, errors="coerce") for one in (reference, current)]
        samples = [one.dropna().to_numpy(float) for one in numbers]
        samples = [one[np.isfinite(one)] for one in samples]
        edges = np.histogram_bin_edges(np.concatenate(samples), bins=20)
        for sample, label, color in zip(samples, ("reference", "current"), _COLORS, strict=True):
            weights = np.full(len(sample), 1 / max(len(sample), 1))
            axes.hist(sample, bins=edges, weights=weights, alpha=0.6, label=label, color=color)
    else:
        shares = [one.astype(str).value_counts(normalize=True) for one in (reference, current)]
        table = pd.concat(shares, axis=1, keys=["reference", "current"]).fillna(0).iloc[:_BARS]
        at = np.arange(len(table))
        for n, label in enumerate(table.columns):
            axes.bar(at + 0.4 * n - 0.2, table[label].to_numpy(), width=0.4, label=label, color=_COLORS[n], alpha=0.8)
        axes.set_xticks(at, [str(name)[:12] for name in table.index], fontsize=8)
    mark = " (drifted)" if column.drifted else ""
    axes.set_title(f"{column.name[:30]}{mark}\nPSI {column.psi:.2f}", fontsize=9)
