"""Progress as plain text: one line per change, with the time. Large runs print failures and counts only."""

from __future__ import annotations

import time
from types import TracebackType

from penstock.client.views import LogLine
from penstock_cli.display import output
from penstock_cli.display.formats import steps
from penstock_cli.display.progress import Change, Progress

LARGE = 200
_EVERY = 2.0
_NOTABLE = frozenset({"failed", "retrying", "cancelled"})


class Plain:
    """Writes one line per change, or none if `quiet`; for large runs, counts every two seconds."""

    live = False

    def __init__(self, progress: Progress, *, quiet: bool) -> None:
        self.progress = progress
        self.quiet = quiet
        self._width = min(40, max((len(key) for key in progress.step_histories), default=0))
        self._large = len(progress.step_histories) > LARGE
        self._last_count_at = time.monotonic()
        self._disconnected = False

    def __enter__(self) -> Plain:
        progress = self.progress
        count = steps(len(progress.step_histories))
        self.note(f"run {progress.run_id} of {progress.pipeline.name} v{progress.version}, {count}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        output.flush()

    def on_change(self, change: Change) -> None:
        """Print a change."""
        if self.quiet or change.state == "queued":
            return
        if self._large and change.key is not None and change.state not in _NOTABLE and not change.needs_action:
            self._count()
            return
        if change.key is None:
            why = change.text.removeprefix(f"{change.state}: ")
            self.note(f"run {change.state}" + (f": {why}" if why else ""), change.at)
            return
        text = f"{change.key:<{self._width}}  {change.state:<9}  {change.text}".rstrip()
        self.note(text, change.at)

    def _count(self) -> None:
        if time.monotonic() - self._last_count_at > _EVERY:
            self._last_count_at = time.monotonic()
            counts = ", ".join(f"{count} {status}" for status, count in self.progress.counts.items() if count)
            self.note(
                f"{self.progress.finished_count} of {len(self.progress.step_histories)} steps finished ({counts})"
            )

    def on_log_line(self, line: LogLine) -> None:
        """Print a line of a step's output."""
        for text in line.text.splitlines() if line.metric is None else ():
            if not self.quiet:
                output.log_line(f"{output.clock(line.at, precise=True)}  {line.step:<{self._width}}  |", text)
                output.flush()

    def connection_state(self, why: str | None) -> None:
        """Report once that the platform does not answer (with the reason), or answers again (None)."""
        if why is not None and not self._disconnected:
            self.note(f"waiting for the platform: {why}")
        elif why is None and self._disconnected:
            self.note("the platform answers again")
        self._disconnected = why is not None

    def note(self, text: str, at: float | None = None) -> None:
        """Print a line with the time."""
        if not self.quiet:
            output.line(f"{output.clock(at or time.time(), precise=True)}  {text}")
            output.flush()
