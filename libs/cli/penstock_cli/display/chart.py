"""A finished run as a Gantt chart: one line per step, on a common time scale."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.client.views import Run, Step
from penstock_cli.display import output
from penstock_cli.display.formats import duration, metrics
from penstock_cli.display.output import Segments
from penstock_cli.display.progress import Attempt, StepHistory

CHART_LIMIT = 40
_EXCERPT = 24
_LABEL_LIMIT = 28
_METRICS = 2
_METRICS_LIMIT = 36
_UNSUCCESSFUL = ("failed", "cancelled")
"""States of items of a mapped step that get a line of their own."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time span of a chart, and its width in characters."""

    start: float
    end: float
    width: int

    def column(self, at: float) -> int:
        """Return the column of a time."""
        whole = max(self.end - self.start, 1e-9)
        return min(self.width, max(0, round((at - self.start) / whole * self.width)))


def chart(run: Run, step_histories: Mapping[str, StepHistory]) -> Iterable[Segments]:
    """Yield one line per step: its state, duration, time in the queue, time running, and metrics."""
    steps = [step for step in run.steps.values() if step.item_of is None or step.state in _UNSUCCESSFUL]
    if not steps:
        return
    shown = steps if len(steps) <= CHART_LIMIT else _excerpt(steps)
    label = min(_LABEL_LIMIT, max(len(step.key) for step in shown))
    measured = min(_METRICS_LIMIT, max(len(_details(step)) for step in shown))
    room = shutil.get_terminal_size((100, 24)).columns - label - measured - 30
    span = _span(run, step_histories, max(16, min(60, room)))
    scale = duration(span.end - span.start)
    ruler = "0 s " + output.symbols("─", "-") * max(0, span.width - len(scale) - 5) + " " + scale
    yield [(f"  {'STEP':<{label}}  {'STATE':<9}  {'DURATION':>9}  ", "dim"), (ruler, "dim")]
    for step in shown:
        key = output.short(step.key, label)
        took = _duration_of(step, step_histories.get(step.key))
        yield [
            (f"  {key:<{label}}  ", ""),
            (f"{step.state:<9}", output.STYLES.get(step.state, "")),
            (f"  {took:>9}  ", ""),
            *_bar(step, step_histories.get(step.key), span),
            (f"  {_details(step)}" if step.metrics or step.items else "", "dim"),
        ]
    if len(shown) < len(steps):
        yield [(f"  … and {len(steps) - len(shown)} more; failed and longest steps are shown", "dim")]


def _details(step: Step) -> str:
    """Return the metrics of a step; of a mapped step, the number of its items and of those that failed."""
    if step.items is None:
        return metrics(step.metrics, _METRICS)
    bad = [f"{step.items[state]} {state}" for state in _UNSUCCESSFUL if step.items.get(state)]
    return ", ".join([f"{step.items.get('count', 0)} items", *bad])


def _excerpt(steps: list[Step]) -> list[Step]:
    """Select the failed and the longest of many steps, in the order of the pipeline."""
    bad = [step.key for step in steps if step.state not in ("succeeded", "cached", "skipped")][: _EXCERPT // 2]
    longest = sorted((step for step in steps if step.key not in bad), key=lambda step: -(step.seconds or 0.0))
    chosen = {*bad, *(step.key for step in longest[: _EXCERPT - len(bad)])}
    return [step for step in steps if step.key in chosen]


def _duration_of(step: Step, history: StepHistory | None) -> str:
    """Return the duration of the last attempt of a step; of a cancelled one until it was stopped."""
    if step.seconds is not None:
        return duration(step.seconds)
    last = history.last if history else None
    return duration(last.finished_at - last.started_at) if last and last.started_at and last.finished_at else ""


def _span(run: Run, step_histories: Mapping[str, StepHistory], width: int) -> Span:
    attempts = [attempt for history in step_histories.values() for attempt in history.attempts.values()]
    starts = [run.created_at] if run.created_at else []
    starts += [attempt.requested_at for attempt in attempts if attempt.requested_at]
    starts += [step.started_at for step in run.steps.values() if step.started_at]
    ends = [step.finished_at for step in run.steps.values() if step.finished_at]
    ends += [attempt.finished_at for attempt in attempts if attempt.finished_at]
    ends += [run.finished_at] if run.finished_at and not ends else []
    start = min(starts, default=0.0)
    return Span(start, max([start + 1e-3, *ends]), width)


def _bar(step: Step, history: StepHistory | None, span: Span) -> Segments:
    """Return a bar: light shade while the step was queued, solid while it ran; failed attempts in red."""
    cells: list[tuple[str, str]] = [(" ", "")] * span.width
    waiting, running = output.symbols("░█", ".#")
    attempts = list(history.attempts.values()) if history else []
    if not attempts and step.started_at:
        attempts = [Attempt(1, 0.0, step.started_at, step.finished_at or 0.0, step.state)]
    for attempt in attempts:
        style = {"succeeded": "green", "cached": "cyan"}.get(attempt.outcome or step.state, "red")
        if attempt.requested_at:
            until = attempt.started_at or attempt.finished_at or attempt.requested_at
            _fill(cells, span, attempt.requested_at, until, (waiting, "dim"), least=0)
        if attempt.started_at:
            _fill(cells, span, attempt.started_at, attempt.finished_at or span.end, (running, style), least=1)
    return _merge(cells)


def _fill(
    cells: list[tuple[str, str]], span: Span, start: float, end: float, cell: tuple[str, str], *, least: int
) -> None:
    first = min(span.column(start), span.width - least)
    for i in range(first, max(span.column(end), first + least)):
        cells[i] = cell


def _merge(cells: list[tuple[str, str]]) -> Segments:
    merged: Segments = []
    for text, style in cells:
        if merged and merged[-1][1] == style:
            merged[-1] = (merged[-1][0] + text, style)
        else:
            merged.append((text, style))
    return merged
