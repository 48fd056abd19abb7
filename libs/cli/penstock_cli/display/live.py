"""Progress on a terminal: one line per step, redrawn; large runs show counts, running and failed steps."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live as RichLive
from rich.table import Table

from penstock.client.views import LogLine
from penstock_cli.display import output
from penstock_cli.display.formats import duration, metrics
from penstock_cli.display.progress import Change, Progress
from penstock_core.run.machine import Status, StepState

if TYPE_CHECKING:
    from rich.text import Text

MANY = 40
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
        for text in line.text.splitlines() if line.metric is None else ():
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
        many = len(progress.step_histories) > MANY
        room = max(3, self._console.height - 4)
        rows = self._chosen(room - 2) if many else list(progress.steps.values())
        hidden = 0
        if len(rows) > room:
            # Finished steps are hidden first on a small terminal.
            rows = [row for row in rows if row.status in _SHOWN][:room] or rows[:room]
            hidden = len(progress.step_histories) - len(rows)
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
        total = len(self.progress.step_histories)
        filled = round(30 * self.progress.finished_count / max(total, 1))
        return output.styled(
            ("  ", ""),
            ("━" * filled if self._unicode else "#" * filled, "green"),
            ("━" * (30 - filled) if self._unicode else "-" * (30 - filled), "dim"),
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
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for step in rows:
            elapsed = self.progress.elapsed(step.key, now)
            style = output.STYLES[step.status.value]
            table.add_row(
                output.styled((self._icon(step.status, now), style)),
                output.styled((output.short(step.key, label), "dim" if step.status is Status.WAITING else "")),
                duration(elapsed) if elapsed is not None else "",
                self._detail(step, now),
            )
        return table

    def _icon(self, status: Status, now: float) -> str:
        if status is Status.RUNNING:
            frames = _SPINNER if self._unicode else _ASCII_SPINNER
            return frames[int(now * 10) % len(frames)]
        return (ICONS if self._unicode else _ASCII)[status.value]

    def _detail(self, step: StepState, now: float) -> Text:
        parts: list[tuple[str, str]] = []
        if step.status not in (Status.RUNNING, Status.SUCCEEDED, Status.WAITING):
            parts.append((step.status.value, output.STYLES[step.status.value]))
        if step.attempt > 1:
            parts.append((f"attempt {step.attempt}", "yellow"))
        if step.not_before and step.not_before > now and step.status in (Status.RETRYING, Status.QUEUED):
            parts.append((f"in {duration(step.not_before - now)}", "yellow"))
        if step.status is Status.FAILED and step.error is not None:
            parts.append((f"{step.error.type}: {step.error.message}", ""))
        elif step.status in (Status.SKIPPED, Status.CANCELLED) and step.reason:
            parts.append((step.reason, "dim"))
        else:
            measured = step.metrics or self.progress.step_histories[step.key].live
            if measured:
                parts.append((metrics(measured), "dim"))
        spaced = [(f"  {part}" if i else part, style) for i, (part, style) in enumerate(parts)]
        return output.styled(*spaced, one_line=True)

    def _footer(self, hidden: int) -> Text:
        counts = self.progress.counts
        parts = [f"{self.progress.finished_count}/{len(self.progress.step_histories)} finished"]
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
