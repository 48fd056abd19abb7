"""A run as a Gantt chart: one line per step, on a common time scale. The scale of an unfinished run ends now."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.client.views import Run, Step
from penstock_cli.display import output
from penstock_cli.display.formats import duration, metrics, plural
from penstock_cli.display.output import Segments
from penstock_cli.display.progress import Attempt, StepHistory
from penstock_core.run.machine import TERMINAL_STATUSES

CHART_LIMIT = 40
_EXCERPT = 24
_GAUGE_WIDTH = 10
_LABEL_LIMIT = 28
_METRICS = 2
_METRICS_LIMIT = 36
_BAR_STYLES = {"succeeded": "green", "cached": "cyan", "running": "blue"}
_ACTIVE = ("running", "suspended")
_UNSUCCESSFUL = ("failed", "cancelled")
"""States of items of a mapped step that get a line of their own."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time span of a chart, and its width in characters. `now`: whether it ends now, in an unfinished run."""

    start: float
    end: float
    width: int
    now: bool = False

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
        history = step_histories.get(step.key)
        took, details = _duration_of(step, history, span), _details(step)
        yield [
            (f"  {key:<{label}}  ", ""),
            (f"{step.state:<9}", output.STYLES.get(step.state, "")),
            (f"  {took:>9}  ", ""),
            *bar(_attempts(step, history), step.state, span),
            *_gauge(step),
            (f"  {details}" if details else "", "dim"),
        ]
    if len(shown) < len(steps):
        yield [(f"  … and {len(steps) - len(shown)} more; failed and longest steps are shown", "dim")]


def _gauge(step: Step) -> Segments:
    return [("  ", ""), *output.gauge(step.progress.fraction, _GAUGE_WIDTH)] if step.progress is not None else []


def _details(step: Step) -> str:
    """Return progress and metrics of a step; of a mapped step, how many items have finished and how many failed."""
    if step.items is None:
        progress = [str(step.progress)] if step.progress is not None else []
        return "  ".join([*progress, metrics(step.metrics, _METRICS)]).rstrip()
    bad = [f"{step.items[state]} {state}" for state in _UNSUCCESSFUL if step.items.get(state)]
    done = f"{step.items.get('finished', 0)}/" if step.state not in TERMINAL_STATUSES else ""
    failed = f" (last: {step.last_failed})" if done and step.last_failed is not None else ""
    return ", ".join([f"{done}{plural(step.items.get('count', 0), 'item')}", *bad]) + failed


def _excerpt(steps: list[Step]) -> list[Step]:
    """Select the failed and the longest of many steps, in the order of the pipeline."""
    bad = [step.key for step in steps if step.state not in ("succeeded", "cached", "skipped")][: _EXCERPT // 2]
    longest = sorted((step for step in steps if step.key not in bad), key=lambda step: -(step.seconds or 0.0))
    chosen = {*bad, *(step.key for step in longest[: _EXCERPT - len(bad)])}
    return [step for step in steps if step.key in chosen]


def _duration_of(step: Step, history: StepHistory | None, span: Span) -> str:
    """Return the duration of the last attempt of a step; of one that runs, until now."""
    if step.seconds is not None:
        return duration(step.seconds)
    last = history.last if history else None
    if last and last.started_at and last.finished_at:
        return duration(last.finished_at - last.started_at)
    return duration(span.end - step.started_at) if span.now and step.started_at and step.state in _ACTIVE else ""


def _span(run: Run, step_histories: Mapping[str, StepHistory], width: int) -> Span:
    attempts = [attempt for history in step_histories.values() for attempt in history.attempts.values()]
    starts = [run.created_at] if run.created_at else []
    starts += [attempt.requested_at for attempt in attempts if attempt.requested_at]
    starts += [step.started_at for step in run.steps.values() if step.started_at]
    ends = [step.finished_at for step in run.steps.values() if step.finished_at]
    ends += [attempt.finished_at for attempt in attempts if attempt.finished_at]
    ends += [run.finished_at] if run.finished_at and not ends else []
    ends += [] if run.finished else [time.time()]
    start = min(starts, default=0.0)
    return Span(start, max([start + 1e-3, *ends]), width, now=not run.finished)


def _attempts(step: Step, history: StepHistory | None) -> list[Attempt]:
    if history is not None and history.attempts:
        return list(history.attempts.values())
    return [Attempt(1, 0.0, step.started_at, step.finished_at or 0.0, step.state)] if step.started_at else []


def bar(attempts: Sequence[Attempt], state: str, span: Span) -> Segments:
    """Return the bar of a step: light shade while it was queued, solid while it ran; failed attempts in red."""
    cells: list[tuple[str, str]] = [(" ", "")] * span.width
    waiting, running = output.symbols("░█", ".#")
    for attempt in attempts:
        style = _BAR_STYLES.get(attempt.outcome or (state if attempt.finished_at else "running"), "red")
        if attempt.requested_at:
            until = attempt.started_at or attempt.finished_at or (span.end if span.now else attempt.requested_at)
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
