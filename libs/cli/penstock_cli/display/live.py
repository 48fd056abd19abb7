"""Progress on a terminal: one line per step, redrawn; large runs show counts, running and failed steps."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live as RichLive
from rich.table import Table

from penstock.client.views import LogLine
from penstock_cli.display import chart, output
from penstock_cli.display.formats import duration, metrics
from penstock_cli.display.output import Segments
from penstock_cli.display.progress import Change, Progress, items
from penstock_core.run.machine import MappedState, Status, StepState

if TYPE_CHECKING:
    from rich.text import Text

MANY = 40
_CHART_WIDTH = 40
_LEAST_CHART_WIDTH = 16
_WIDTH_WITHOUT_CHART = 90
"""Columns that the other parts of a line need, before there is room for a chart."""

_GAUGE_WIDTH = 20
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"
ICONS = {
    "waiting": "·",
    "queued_for_limit": "◌",
    "queued": "○",
    "suspended": "◷",
    "retrying": "↻",
    "succeeded": "✔",
    "cached": "≡",
    "failed": "✘",
    "skipped": "↷",
    "cancelled": "■",
}
_ASCII = dict(zip(ICONS, (".", "l", "o", "w", "r", "+", "=", "x", ">", "#"), strict=True))
_SHOWN = (Status.FAILED, Status.RUNNING, Status.RETRYING, Status.QUEUED)


class Live:
    """Redraws the state of a run ten times a second, and clears it at the end."""

    live = True

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.footer = "Ctrl-C cancels"
        self._connection_error: str | None = None
        self._console = output.console()
        self._unicode = (self._console.encoding or "").lower().startswith("utf")
        self._live = RichLive(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=10,
            transient=True,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()

    def on_change(self, change: Change) -> None:
        """Draw a change with the next refresh; print one that needs action above the steps."""
        if change.needs_action:
            self._console.print(output.styled((f"{change.key} ", "bold"), (change.text, "")), soft_wrap=True)

    def on_log_line(self, line: LogLine) -> None:
        """Print a line of a step's output above the steps."""
        for text in line.text.splitlines() if line.metric is None and line.progress is None else ():
            self._console.print(output.styled_log_line(f"{line.step} | ", text), soft_wrap=True)

    def note(self, text: str, at: float | None = None) -> None:
        """Show a note below the steps."""
        self.footer = text

    def connection_state(self, why: str | None) -> None:
        """Show that the platform does not answer, or (None) answers again."""
        self._connection_error = why

    # --------------------------------------------------------------------------------------------------- drawing

    def _render(self) -> RenderableType:
        now = time.time()
        progress = self.progress
        many = len(progress.steps) > MANY
        room = max(3, self._console.height - 4)
        rows = self._chosen(room - 2) if many else list(progress.steps.values())
        hidden = 0
        if len(rows) > room:
            # Finished steps are hidden first on a small terminal.
            rows = [row for row in rows if row.status in _SHOWN][:room] or rows[:room]
            hidden = len(progress.steps) - len(rows)
        rows = [row for step in rows for row in (step, *self._last_failed(step))]
        parts: list[RenderableType] = [self._header(now)]
        if many:
            parts.append(self._counts())
        parts.append(self._steps(rows, now))
        parts.append(self._footer(hidden if not many else 0))
        return Group(*parts)

    def _header(self, now: float) -> Text:
        progress = self.progress
        since = progress.created_at or now
        state = progress.outcome
        return output.styled(
            (progress.pipeline.name, "bold"),
            (f" v{progress.version}  ", ""),
            (progress.run_id, "dim"),
            ("  ", ""),
            (state, output.STYLES.get(state, "")),
            (f"  {duration((progress.finished_at or now) - since)}", ""),
            one_line=True,
        )

    def _counts(self) -> Text:
        counts = self.progress.counts
        total = len(self.progress.steps)
        return output.styled(
            ("  ", ""),
            *output.gauge(self.progress.finished_count / max(total, 1), 30),
            (f"  {self.progress.finished_count}/{total}  ", ""),
            *(
                (f" {counts[status]} {status.value}", output.STYLES[status.value])
                for status in Status
                if counts[status]
            ),
            one_line=True,
        )

    def _chosen(self, room: int) -> list[StepState]:
        """Select the failed, running and retrying steps of a large run."""
        found: list[StepState] = []
        for status in _SHOWN[:3]:
            if self.progress.counts[status]:
                found += [step for step in self.progress.steps.values() if step.status is status][:room]
        return found[: min(room, 12)]

    def _steps(self, rows: list[StepState], now: float) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=2, justify="right")
        label = max(16, self._console.width // 3)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=label)
        table.add_column(no_wrap=True, justify="right", min_width=8)
        span = self._span(now)
        if span is not None:
            table.add_column(no_wrap=True, width=span.width)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for step in rows:
            elapsed = self.progress.elapsed(step.key, now)
            style = output.STYLES[step.status.value]
            table.add_row(
                output.styled((self._icon(step.status, now), style)),
                output.styled((output.short(step.key, label), "dim" if step.status is Status.WAITING else "")),
                duration(elapsed) if elapsed is not None else "",
                *(
                    [output.styled(*chart.bar(self.progress.attempts(step.key), step.status.value, span))]
                    if span is not None
                    else []
                ),
                self._detail(step, now),
            )
        return table

    def _span(self, now: float) -> chart.Span | None:
        """Return the time span of the chart; None on a terminal that is too narrow for one."""
        width = min(_CHART_WIDTH, self._console.width - _WIDTH_WITHOUT_CHART)
        if width < _LEAST_CHART_WIDTH:
            return None
        start = self.progress.created_at or now
        end = max(self.progress.finished_at or now, start + 1e-3)
        return chart.Span(start, end, width, now=not self.progress.finished_at)

    def _icon(self, status: Status, now: float) -> str:
        if status is Status.RUNNING:
            frames = _SPINNER if self._unicode else _ASCII_SPINNER
            return frames[int(now * 10) % len(frames)]
        return (ICONS if self._unicode else _ASCII)[status.value]

    def _detail(self, step: StepState, now: float) -> Text:
        parts: list[Segments] = []
        if step.status not in (Status.RUNNING, Status.SUCCEEDED, Status.WAITING):
            parts.append([(step.status.value, output.STYLES[step.status.value])])
        if step.attempt > 1:
            parts.append([(f"attempt {step.attempt}", "yellow")])
        if step.not_before and step.not_before > now and step.status in (Status.RETRYING, Status.QUEUED):
            parts.append([(f"in {duration(step.not_before - now)}", "yellow")])
        if step.mapped is not None:
            parts.append(self._items(step, step.mapped))
        elif step.status is Status.FAILED and step.error is not None:
            parts.append([(f"{step.error.type}: {step.error.message}", "")])
        elif step.status in (Status.SKIPPED, Status.CANCELLED) and step.reason:
            parts.append([(step.reason, "dim")])
        else:
            progress = self.progress.step_histories[step.key].progress
            if progress is not None and step.status is Status.RUNNING:
                parts.append([*output.gauge(progress.fraction, _GAUGE_WIDTH), (f" {progress}", "")])
            measured = step.metrics or self.progress.step_histories[step.key].live
            if measured:
                parts.append([(metrics(measured), "dim")])
        gap = ("  ", "")
        return output.styled(*(part for i, one in enumerate(parts) for part in ([gap] * (i > 0) + one)), one_line=True)

    def _items(self, step: StepState, mapped: MappedState) -> Segments:
        """Return how many items of a mapped step have finished."""
        gauge = output.gauge(mapped.done / max(mapped.count, 1), _GAUGE_WIDTH) if step.status is Status.RUNNING else []
        return [*gauge, (f" {items(step)}" if gauge else items(step), "")]

    def _last_failed(self, step: StepState) -> Iterable[StepState]:
        """Yield the item of a running mapped step that failed last."""
        failed = self.progress.step_histories[step.key].last_failed
        if failed is not None and step.status is Status.RUNNING:
            yield failed

    def _footer(self, hidden: int) -> Text:
        counts = self.progress.counts
        parts = [f"{self.progress.finished_count}/{len(self.progress.steps)} finished"]
        if counts[Status.RUNNING]:
            parts.append(f"{counts[Status.RUNNING]} running")
        if hidden:
            parts.append(f"{hidden} not shown")
        last = (
            (f"waiting for the platform: {self._connection_error}", "yellow")
            if self._connection_error
            else (self.footer, "")
        )
        return output.styled(("   " + ", ".join(parts) + "   ", "dim"), last, one_line=True)
