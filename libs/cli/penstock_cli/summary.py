"""The end of a run: a Gantt-like chart, failures with the user's traceback, metrics, outputs, and where to look next.

Works from lines of (text, style) segments, so that a terminal and a file show the same.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.results import Run, Step
from penstock.store import FolderStore
from penstock_cli import output
from penstock_cli.model import Attempt, Track, metrics, number, seconds, size

CHART_LIMIT = 40
_EXCERPT = 24
_LABEL_LIMIT = 28
_METRICS_LIMIT = 44
# Where the platform unpacked the user's source.
_UNPACKED = re.compile(r'(?<=File ")[^"]*/sources/[0-9a-f]{64}/')

Segments = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a chart covers, and its width in characters."""

    start: float
    end: float
    width: int

    def column(self, at: float) -> int:
        """The character in which a moment lies."""
        whole = max(self.end - self.start, 1e-9)
        return min(self.width, max(0, round((at - self.start) / whole * self.width)))


def show(lines: Iterable[Segments]) -> None:
    """Write lines to standard output, coloured on a terminal."""
    if not output.terminal():
        for line in lines:
            output.line("".join(text for text, _ in line).rstrip())
        return
    # Only where it is drawn.
    from rich.text import Text

    for line in lines:
        output.console().print(Text.assemble(*line, no_wrap=False), soft_wrap=True)


def chart(run: Run, tracks: Mapping[str, Track]) -> Iterable[Segments]:
    """One line a step: when it waited in the queue, when it ran, how long, what it measured."""
    steps = list(run.steps.values())
    if not steps:
        return
    shown = steps if len(steps) <= CHART_LIMIT else _excerpt(steps)
    label = min(_LABEL_LIMIT, max(len(step.key) for step in shown))
    measured = min(_METRICS_LIMIT, max(len(metrics(step.metrics)) for step in shown))
    room = shutil.get_terminal_size((100, 24)).columns - label - measured - 30
    span = _span(run, tracks, max(16, min(60, room)))
    scale = seconds(span.end - span.start)
    ruler = "0 s " + "─" * max(0, span.width - len(scale) - 5) + " " + scale
    yield [(f"  {'step':<{label}}  {'':<9}  {'time':>9}  ", "dim"), (ruler, "dim")]
    for step in shown:
        key = step.key if len(step.key) <= label else step.key[: label - 1] + "…"
        took = _took(step, tracks.get(step.key))
        yield [
            (f"  {key:<{label}}  ", ""),
            (f"{step.state:<9}", output.STYLES.get(step.state, "")),
            (f"  {took:>9}  ", ""),
            *_bar(step, tracks.get(step.key), span),
            (f"  {metrics(step.metrics)}" if step.metrics else "", "dim"),
        ]
    if len(shown) < len(steps):
        yield [(f"  … and {len(steps) - len(shown)} more; shown are those that failed, and the longest", "dim")]


def _excerpt(steps: list[Step]) -> list[Step]:
    """Of many steps: those that failed, and the longest, in the pipeline's order."""
    bad = [step.key for step in steps if step.state not in ("succeeded", "cached", "skipped")][: _EXCERPT // 2]
    longest = sorted((step for step in steps if step.key not in bad), key=lambda step: -(step.seconds or 0.0))
    chosen = {*bad, *(step.key for step in longest[: _EXCERPT - len(bad)])}
    return [step for step in steps if step.key in chosen]


def _took(step: Step, track: Track | None) -> str:
    """How long the last try of a step ran; a cancelled one until it was stopped."""
    if step.seconds is not None:
        return seconds(step.seconds)
    last = track.last if track else None
    return seconds(last.finished_at - last.started_at) if last and last.started_at and last.finished_at else ""


def _span(run: Run, tracks: Mapping[str, Track], width: int) -> Span:
    tries = [attempt for track in tracks.values() for attempt in track.attempts.values()]
    starts = [run.requested_at] if run.requested_at else []
    starts += [attempt.requested_at for attempt in tries if attempt.requested_at]
    starts += [step.started_at for step in run.steps.values() if step.started_at]
    ends = [step.finished_at for step in run.steps.values() if step.finished_at]
    ends += [attempt.finished_at for attempt in tries if attempt.finished_at]
    ends += [run.finished_at] if run.finished_at and not ends else []
    start = min(starts, default=0.0)
    return Span(start, max([start + 1e-3, *ends]), width)


def _bar(step: Step, track: Track | None, span: Span) -> Segments:
    """Light shade while the step waited in the queue, solid while it ran; failed tries in red."""
    cells: list[tuple[str, str]] = [(" ", "")] * span.width
    tries = list(track.attempts.values()) if track else []
    if not tries and step.started_at:
        tries = [Attempt(1, 0.0, step.started_at, step.finished_at or 0.0, step.state)]
    for attempt in tries:
        style = {"succeeded": "green", "cached": "cyan"}.get(attempt.outcome or step.state, "red")
        if attempt.requested_at:
            until = attempt.started_at or attempt.finished_at or attempt.requested_at
            _fill(cells, span, attempt.requested_at, until, ("░", "dim"), least=0)
        if attempt.started_at:
            _fill(cells, span, attempt.started_at, attempt.finished_at or span.end, ("█", style), least=1)
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


def failures(run: Run, root: Path | None = None) -> Iterable[Segments]:
    """Why the run did not succeed: each failed step with its traceback, then what was skipped for it.

    Tracebacks name files of the user's source by their place under `root`, relative to it where it is not known.
    """
    folder = f"{root}/" if root else ""
    failed = [step for step in run.steps.values() if step.state == "failed"]
    for step in failed[:10]:
        tries = f" after {step.attempts} attempts" if step.attempts > 1 else ""
        yield []
        why = str(step.error) if step.error else (step.reason or "no reason is known")
        yield [("step ", ""), (step.key, "bold"), (f" failed{tries}: ", "bold red"), (why, "red")]
        if step.error is not None and step.error.traceback:
            own = _UNPACKED.sub(lambda _: folder, step.error.traceback)
            yield from ([(f"  {line}", "")] for line in own.rstrip().splitlines())
    if len(failed) > 10:
        yield [(f"… and {len(failed) - 10} more failed steps", "")]
    skipped = [step for step in run.steps.values() if step.state == "skipped"]
    if failed and skipped:
        yield []
    for step in skipped[:10] if failed else []:
        yield [(f"  {step.key} skipped: ", output.STYLES["skipped"]), (step.reason or "", "")]
    if failed and len(skipped) > 10:
        yield [(f"  … and {len(skipped) - 10} more skipped steps", "")]


def results(run: Run, artifacts: FolderStore | None) -> Iterable[Segments]:
    """Metrics and parameters by step, the outputs of the run, and the artifacts that were logged."""
    measured = [step for step in run.steps.values() if step.metrics]
    if measured:
        yield []
        yield [("metrics", "bold")]
    for step in measured[:20]:
        yield [(f"  {step.key}", ""), *[(f"  {name}={number(value)}", "") for name, value in step.metrics.items()]]
    if len(measured) > 20:
        yield [(f"  … and {len(measured) - 20} more steps with metrics", "dim")]
    if run.outputs:
        yield []
        yield [("outputs", "bold")]
        yield from (_value(name, value, artifacts) for name, value in run.outputs.items())
    logged = [(step.key, name, value) for step in run.steps.values() for name, value in step.artifacts.items()]
    if logged:
        yield []
        yield [("artifacts", "bold")]
        yield from (_value(f"{key}: {name}", value, artifacts) for key, name, value in logged[:30])
    if len(logged) > 30:
        yield [(f"  … and {len(logged) - 30} more", "dim")]


def _value(name: str, value: Any, artifacts: FolderStore | None) -> Segments:
    match value:
        case {"artifact": {"sha256": digest, **about}}:
            path = locate(digest, artifacts)
            kind = about.get("filename") or about.get("python_type") or about.get("format", "")
            where = str(path) if path else f"sha256:{digest[:16]}…"
            return [(f"  {name}  ", ""), (f"{kind}, {size(about.get('size', 0))}  ", "dim"), (where, "cyan")]
        case _:
            text = json.dumps(plain(value, None), ensure_ascii=False, default=str)
            return [(f"  {name}  ", ""), (text if len(text) <= 160 else text[:159] + "…", "")]


def locate(digest: str, artifacts: FolderStore | None) -> Path | None:
    """Where an artifact lies on this machine, if it does."""
    if artifacts is None:
        return None
    path = artifacts.path(digest)
    return path if path.exists() else None


def plain(value: Any, artifacts: FolderStore | None) -> Any:
    """A value of the API as plain JSON: inline values as they are, artifacts as their reference and path."""
    match value:
        case {"value": inline}:
            return inline
        case {"artifact": reference}:
            path = locate(reference["sha256"], artifacts)
            return {"artifact": reference, **({"path": str(path)} if path else {})}
        case {"items": items}:
            return [plain(item, artifacts) for item in items]
        case {"fields": fields}:
            return {name: plain(item, artifacts) for name, item in fields.items()}
        case _:
            return value


def as_object(run: Run, artifacts: FolderStore | None) -> dict[str, Any]:
    """The object of `penstock run --json`."""
    return {
        "run_id": run.run_id,
        "state": run.state,
        "outputs": {name: plain(value, artifacts) for name, value in run.outputs.items()},
        "error": run.error,
        "steps": {
            key: {
                "state": step.state,
                "attempts": step.attempts,
                "started_at": step.started_at,
                "finished_at": step.finished_at,
                "metrics": step.metrics,
            }
            for key, step in run.steps.items()
        },
    }
