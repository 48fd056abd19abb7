"""Progress where nothing can be redrawn: one line a change, with the time. Large runs tell failures and a count."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from penstock.results import LogLine
from penstock_cli import model, output
from penstock_cli.model import Change, Progress

LARGE = 200
_EVERY = 2.0
_WORTH = frozenset({"failed", "retrying", "cancelled"})


class Plain:
    """Writes lines as things happen. `quiet` writes none; `large` runs write counts every two seconds."""

    live = False

    def __init__(self, progress: Progress, *, quiet: bool) -> None:
        self.progress = progress
        self.quiet = quiet
        self._width = min(40, max((len(key) for key in progress.tracks), default=0))
        self._large = len(progress.tracks) > LARGE
        self._counted = time.monotonic()
        self._troubled = False

    def __enter__(self) -> Plain:
        progress = self.progress
        count = model.steps(len(progress.tracks))
        self.note(f"run {progress.run_id} of {progress.pipeline.name} v{progress.version}, {count}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        sys.stdout.flush()

    def changed(self, change: Change) -> None:
        """Something happened."""
        if self.quiet or change.state == "queued":
            return
        if self._large and change.key is not None and change.state not in _WORTH and not change.loud:
            self._count()
            return
        if change.key is None:
            why = change.text.removeprefix(f"{change.state}: ")
            self.note(f"run {change.state}" + (f": {why}" if why else ""), change.at)
            return
        text = f"{change.key:<{self._width}}  {change.state:<9}  {change.text}".rstrip()
        self.note(text, change.at)

    def _count(self) -> None:
        if time.monotonic() - self._counted > _EVERY:
            self._counted = time.monotonic()
            counts = ", ".join(f"{count} {status}" for status, count in self.progress.counts.items() if count)
            self.note(f"{self.progress.done} of {len(self.progress.tracks)} steps done ({counts})")

    def logged(self, line: LogLine) -> None:
        """A step wrote a line."""
        for text in line.text.splitlines() if line.metric is None else ():
            self.note(f"{line.step:<{self._width}}  | {text}", line.at)

    def trouble(self, why: str | None) -> None:
        """The platform does not answer, or (None) it does: told once each."""
        if why is not None and not self._troubled:
            self.note(f"waiting for the platform: {why}")
        elif why is None and self._troubled:
            self.note("the platform is back")
        self._troubled = why is not None

    def note(self, text: str, at: float | None = None) -> None:
        """Write a line with the time."""
        if not self.quiet:
            sys.stdout.write(f"{output.clock(at or time.time(), precise=True)}  {text}\n")
            sys.stdout.flush()
