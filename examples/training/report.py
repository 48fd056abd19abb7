"""The training report: plots and one HTML page that holds them, with nothing to load from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a2433; }
h1 { margin-bottom: 0; } .lead { color: #5a6a80; margin-top: .2rem; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .35rem .9rem; border-bottom: 1px solid #d9e0e8; }
td { text-align: right; font-variant-numeric: tabular-nums; } th, td:first-child { text-align: left; }
tr.best td { font-weight: 600; background: #eef6f1; } img { max-width: 100%; height: auto; }
"""
_COLORS = ("#1f6feb", "#d9822b", "#2e9e6b", "#8957c8")


def draw(evaluations: list[dict[str, Any]], final: dict[str, Any], importances: dict[str, float]) -> dict[str, Figure]:
    """The plots by name, from evaluations as dictionaries."""
    # matplotlib takes longer to import than most steps run, and this is the only one that draws.
    from matplotlib.figure import Figure

    return {
        "roc_curves": _roc_curves(Figure(figsize=(6, 5), layout="constrained"), evaluations),
        "confusion_matrix": _confusion(Figure(figsize=(5, 4.4), layout="constrained"), final),
        "feature_importances": _bars(Figure(figsize=(8, 5), layout="constrained"), importances),
    }


def _roc_curves(figure: Figure, evaluations: list[dict[str, Any]]) -> Figure:
    axes = figure.subplots()
    for color, one in zip(_COLORS, evaluations, strict=False):
        false_rate, true_rate = one["roc_curve"]
        axes.plot(false_rate, true_rate, color=color, label=f"{one['candidate']} ({one['roc_auc']:.3f})")
    axes.plot([0, 1], [0, 1], color="#9aa7b8", linestyle=":", label="guessing (0.500)")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curves on the validation rows")
    axes.legend(loc="lower right")
    return figure


def _confusion(figure: Figure, final: dict[str, Any]) -> Figure:
    axes = figure.subplots()
    counts, classes = final["confusion"], final["classes"]
    largest = max(max(row) for row in counts)
    axes.imshow(counts, cmap="Blues")
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            axes.text(x, y, str(count), ha="center", va="center", color="white" if count > largest / 2 else "#1a2433")
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix on the test rows")
    return figure


def _bars(figure: Figure, importances: dict[str, float]) -> Figure:
    axes = figure.subplots()
    top = list(importances.items())[:15][::-1]
    axes.barh([name for name, _ in top], [value for _, value in top], color=_COLORS[0])
    axes.set(xlabel="rise of the log loss when the column is shuffled", title="Feature importances on the test rows")
    return figure


def page(metrics: dict[str, Any], figures: dict[str, Figure]) -> str:
    """The page."""
    test = metrics["test"]
    rows = "".join(_row(name, one, best=name == metrics["selected"]) for name, one in metrics["validation"].items())
    images = "".join(
        f'<p><img alt="{html.escape(name)}" src="{_inline(figure)}"></p>' for name, figure in figures.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Training report</title><style>{_STYLE}</style>
<h1>Training report</h1>
<p class="lead">{html.escape(metrics["selected"])} was selected. On {test["rows"]} test rows that no candidate had seen:
accuracy {test["accuracy"]:.3f}, precision {test["precision"]:.3f}, recall {test["recall"]:.3f},
ROC AUC {test["roc_auc"]:.3f}.</p>
<h2>Candidates on the validation rows</h2>
<table><tr><th>candidate<th>accuracy<th>precision<th>recall<th>ROC AUC</tr>{rows}</table>
{images}</html>
"""


def _row(name: str, one: dict[str, Any], *, best: bool) -> str:
    cells = "".join(f"<td>{one[key]:.3f}" for key in ("accuracy", "precision", "recall", "roc_auc"))
    return f"<tr{' class=best' if best else ''}><td>{html.escape(name)}{cells}</tr>"


def _inline(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
