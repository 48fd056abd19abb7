"""Progress as plain text: one line per change, with the time; counts of items every two seconds.

Large runs print failures and counts only.
"""

from __future__ import annotations

import time
from types import TracebackType

from penstock.client.views import LogLine
from penstock_cli.display import output
from penstock_cli.display.formats import plural
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
        lengths = [len(node.key) + len("[0]") * (node.mapped is not None) for node in progress.pipeline.nodes]
        self._width = min(40, max(lengths, default=0))
        self._large = len(progress.steps) > LARGE
        self._started_at = time.monotonic()
        self._counted_at: dict[str | None, float] = {}
        self._disconnected = False

    def __enter__(self) -> Plain:
        progress = self.progress
        count = plural(len(progress.steps), "step")
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
        if change.counts and not self._is_due(change.key):
            return
        if change.key is None:
            why = change.text.removeprefix(f"{change.state}: ")
            self.note(f"run {change.state}" + (f": {why}" if why else ""), change.at)
            return
        text = f"{change.key:<{self._width}}  {change.state:<9}  {change.text}".rstrip()
        self.note(text, change.at)

    def _count(self) -> None:
        if self._is_due(None):
            counts = ", ".join(f"{count} {status}" for status, count in self.progress.counts.items() if count)
            self.note(f"{self.progress.finished_count} of {len(self.progress.steps)} steps finished ({counts})")

    def _is_due(self, key: str | None) -> bool:
        """Whether counts of a step, or of the run, are to be printed again."""
        due = time.monotonic() - self._counted_at.setdefault(key, self._started_at) > _EVERY
        if due:
            self._counted_at[key] = time.monotonic()
        return due

    def on_log_line(self, line: LogLine) -> None:
        """Print a line of a step's output."""
        for text in line.text.splitlines() if line.metric is None and line.progress is None else ():
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
