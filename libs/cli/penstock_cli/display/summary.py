"""The end of a run in words: failures with the user's traceback, metrics, outputs and where they lie."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.client.views import Run
from penstock.store import FolderStore
from penstock_cli.display import output
from penstock_cli.display.output import Segments
from penstock_cli.display.progress import number, size

SUCCESSFUL_STATES = ("succeeded", "cached")
_LABEL_LIMIT = 28
_SHOWN = 20
_TEXT_LIMIT = 160
# Where the platform unpacked the user's source.
_UNPACKED = re.compile(r'(?<=File ")[^"]*/sources/[0-9a-f]{64}/')


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
        if step.error is not None and step.error.traceback and step.items is None:  # its items have theirs
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
    """Metrics and parameters by step, the outputs of the run, what was logged, and checkpoints of unfinished steps."""
    steps = run.steps.values()
    yield from _measured("metrics", {step.key: step.metrics for step in steps if step.metrics})
    yield from _measured("parameters", {step.key: step.params for step in steps if step.params})
    yield from _values("outputs", run.outputs, artifacts)
    logged = {f"{step.key}: {name}": value for step in steps for name, value in step.artifacts.items()}
    yield from _values("artifacts", logged, artifacts)
    saved = {
        step.key: step.checkpoint
        for step in steps
        if step.checkpoint is not None and step.state not in SUCCESSFUL_STATES
    }
    yield from _values("checkpoints", {key: one.value for key, one in saved.items()}, artifacts)


def _measured(title: str, found: Mapping[str, Mapping[str, Any]]) -> Iterable[Segments]:
    """`name=value` by step, in lines that fit the terminal."""
    if not found:
        return
    yield []
    yield [(title, "bold")]
    label = min(_LABEL_LIMIT, max(len(key) for key in found))
    width = max(40, shutil.get_terminal_size((140, 24)).columns - label - 4)
    for key, values in list(found.items())[:_SHOWN]:
        texts = [f"{name}={number(value)}" for name, value in values.items()]
        for index, line in enumerate(_fill(texts, width)):
            yield [(f"  {key if index == 0 else '':<{label}}  ", ""), (line, "")]
    if len(found) > _SHOWN:
        yield [(f"  … and {len(found) - _SHOWN} more steps", "dim")]


def _fill(texts: list[str], width: int) -> Iterable[str]:
    """Texts put together in lines of at most `width`, where that is possible."""
    line = ""
    for text in texts:
        if line and len(line) + 2 + len(text) > width:
            yield line
            line = ""
        line = f"{line}  {text}" if line else text
    yield line


def _values(title: str, values: Mapping[str, Any], artifacts: FolderStore | None) -> Iterable[Segments]:
    if not values:
        return
    yield []
    yield [(title, "bold")]
    label = min(_LABEL_LIMIT, max(len(name) for name in values))
    for name, value in list(values.items())[:_SHOWN]:
        yield [(f"  {name:<{label}}  ", ""), *_value(value, artifacts)]
    if len(values) > _SHOWN:
        yield [(f"  … and {len(values) - _SHOWN} more", "dim")]


def _value(value: Any, artifacts: FolderStore | None) -> Segments:
    match value:
        case {"artifact": {"sha256": digest, **about}}:
            path = locate(digest, artifacts)
            kind = about.get("filename") or about.get("python_type", "").rpartition(":")[2] or about.get("format", "")
            where = str(path) if path else f"sha256:{digest[:16]}…"
            return [(f"{kind}, {size(about.get('total') or about.get('size', 0))}  ", "dim"), (where, "cyan")]
        case _:
            text = json.dumps(plain(value, None), ensure_ascii=False, default=str)
            return [(text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…", "")]


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
