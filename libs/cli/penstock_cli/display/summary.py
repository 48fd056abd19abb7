"""The result of a run: failures with the user's traceback, metrics, outputs and their paths; runs as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.client.views import Run, Step
from penstock.store import FolderStore
from penstock_cli.display import output
from penstock_cli.display.formats import number, plural, size
from penstock_cli.display.output import Segments
from penstock_core.pipeline import tagged

SUCCESSFUL_STATES = ("succeeded", "cached")
_LABEL_LIMIT = 28
_SHOWN = 20
_TEXT_LIMIT = 160
# The folder where the platform unpacked the user's source.
_UNPACKED = re.compile(r'(?<=File ")[^"]*/sources/[0-9a-f]{64}/')


def failures(run: Run, root: Path | None = None) -> Iterable[Segments]:
    """Yield each failed step with its traceback, then the skipped steps.

    Tracebacks refer to the user's source in `root`, or relative to its folder if that is not known.
    """
    folder = f"{root}/" if root else ""
    failed = [step for step in run.steps.values() if step.state == "failed"]
    for step in failed[:10]:
        attempts = f" after {step.attempts} attempts" if step.attempts > 1 else ""
        yield []
        why = str(step.error) if step.error else (step.reason or "unknown reason")
        yield [("step ", ""), (step.key, "bold"), (f" failed{attempts}: ", "bold red"), (why, "red")]
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
    """Yield metrics and parameters by step, outputs, logged artifacts, and checkpoints of unsuccessful steps."""
    steps = run.steps.values()
    yield from _measured("metrics", {step.key: step.metrics for step in steps if step.metrics})
    yield from _measured("parameters", {step.key: step.params for step in steps if step.params})
    yield from models(run)
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
    """Yield `name=value` by step, in lines that fit the terminal."""
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
    """Join texts to lines of at most `width`, if possible."""
    line = ""
    for text in texts:
        if line and len(line) + 2 + len(text) > width:
            yield line
            line = ""
        line = f"{line}  {text}" if line else text
    yield line


def models(run: Run) -> Iterable[Segments]:
    """Yield the model versions that a run registered, and whether they passed their gates."""
    if run.models:
        yield []
        yield [("models", "bold")]
    label = max((len(one.reference) for one in run.models), default=0)
    for one in run.models[:_SHOWN]:
        parts: Segments = [(f"  {one.reference:<{label}}  ", ""), (f"registered by {one.step}", "dim")]
        if one.promoted:
            parts.append((f", promoted to {one.alias}", "green"))
        elif one.alias is not None:
            why = [text for text in one.clauses if text.endswith("false")] or one.clauses
            parts.append((f", not promoted to {one.alias}: {'; '.join(why)}", "yellow"))
        yield parts
    if len(run.models) > _SHOWN:
        yield [(f"  … and {len(run.models) - _SHOWN} more", "dim")]


def inputs(
    values: Mapping[str, Any], references: Mapping[str, str], artifacts: FolderStore | None
) -> Iterable[Segments]:
    """Yield the inputs of a step; `references` are the registered models among them."""
    return _values("inputs", values, artifacts, references)


def _values(
    title: str, values: Mapping[str, Any], artifacts: FolderStore | None, references: Mapping[str, str] | None = None
) -> Iterable[Segments]:
    if not values:
        return
    yield []
    yield [(title, "bold")]
    label = min(_LABEL_LIMIT, max(len(name) for name in values))
    for name, value in list(values.items())[:_SHOWN]:
        model = [(f"{references[name]}  ", "bold")] if references and name in references else []
        yield [(f"  {name:<{label}}  ", ""), *model, *_value(value, artifacts)]
    if len(values) > _SHOWN:
        yield [(f"  … and {len(values) - _SHOWN} more", "dim")]


def short_value(value: Any, width: int) -> str:
    """Return a value of the API in a few characters."""
    text = "".join(part for part, _ in _value(value, None))
    return text if len(text) <= width else text[: width - 1] + output.symbols("…", "~")


def _value(value: Any, artifacts: FolderStore | None) -> Segments:
    match value:
        case {"collected": {"key": key, "count": count}}:
            return [(f"{plural(count, 'result')} of {key}", "dim")]
        case {"result": {"key": key}}:
            return [(f"the result of {key}", "dim")]
        case {"of": of, "path": [*path]}:
            return [(f"{''.join(f'[{part!r}]' for part in path)} of ", "dim"), *_value(of, artifacts)]
        case {"artifact": {"sha256": digest, **about}}:
            path = locate(digest, artifacts)
            kind = about.get("filename") or about.get("python_type", "").rpartition(":")[2] or about.get("format", "")
            where = str(path) if path else f"sha256:{digest[:16]}…"
            return [(f"{kind}, {size(about.get('total') or about.get('size', 0))}  ", "dim"), (where, "cyan")]
        case _:
            text = json.dumps(tagged.plain(plain(value, None)), ensure_ascii=False, default=str)
            return [(text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…", "")]


def locate(digest: str, artifacts: FolderStore | None) -> Path | None:
    """Return the path of an artifact on this machine, or None."""
    if artifacts is None:
        return None
    path = artifacts.path(digest)
    return path if path.exists() else None


def plain(value: Any, artifacts: FolderStore | None) -> Any:
    """Convert a value of the API to plain JSON: inline values as they are, artifacts as reference and path."""
    match value:
        case {"value": inline}:
            return inline
        case {"artifact": reference}:
            path = locate(reference["sha256"], artifacts)
            return {"artifact": reference, **({"path": str(path)} if path else {})}
        case {"items": items}:
            return [plain(item, artifacts) for item in items]
        case {"lists": lists}:
            return [item for one in lists for item in _items(plain(one, artifacts))]
        case {"fields": fields}:
            return {name: plain(item, artifacts) for name, item in fields.items()}
        case _:
            return value


def _items(found: Any) -> list[Any]:
    """The items of a part of a list; of a part that is an artifact, its reference."""
    return found if isinstance(found, list) else [found]


def plain_values(values: Mapping[str, Any], artifacts: FolderStore | None) -> dict[str, Any]:
    """Convert values of the API by name to plain JSON."""
    return {name: plain(value, artifacts) for name, value in values.items()}


def finite_or_text(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Return metrics as JSON, which has no NaN and no infinity: those are texts."""
    return {name: value if math.isfinite(value) else str(value) for name, value in metrics.items()}


def run_fields(run: Run) -> dict[str, object]:
    """Return a run without its steps as JSON."""
    names = (
        "run_id", "pipeline", "version", "state", "created_at", "finished_at",
        "labels", "trigger", "requested_by", "error",
    )  # fmt: skip
    return {name: getattr(run, name) for name in names}


def as_object(run: Run, artifacts: FolderStore | None) -> dict[str, Any]:
    """Return the JSON object of `penstock run --json`."""
    return {
        "run_id": run.run_id,
        "state": run.state,
        "outputs": plain_values(run.outputs, artifacts),
        "error": run.error,
        "models": [dataclasses.asdict(one) for one in run.models],
        "steps": {key: step_state(step) for key, step in run.steps.items()},
    }


def step_state(step: Step) -> dict[str, Any]:
    """Return a step as `penstock run --json` shows it."""
    return {
        "state": step.state,
        "attempts": step.attempts,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "metrics": finite_or_text(step.metrics),
    }


def step_fields(step: Step, artifacts: FolderStore | None) -> dict[str, Any]:
    """Return what `penstock runs show --json` adds to the state of a step."""
    return {
        "params": step.params,
        "tags": step.tags,
        "reason": step.reason,
        "error": _optional(step.error),
        "outputs": plain_values(step.outputs, artifacts),
        "artifacts": plain_values(step.artifacts, artifacts),
        "checkpoint": _optional(step.checkpoint),
        "cache": _optional(step.cache),
        "waits_for": _optional(step.waits_for),
        "depends_on": list(step.depends_on),
        "items": step.items,
        "progress": _optional(step.progress),
        "last_failed": _optional(step.last_failed),
    }


def _optional(value: Any) -> dict[str, Any] | None:
    return dataclasses.asdict(value) if value is not None else None
