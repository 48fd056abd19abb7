"""Runs side by side: each run as plain data, which the core compares."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from penstock_contracts.api import RunSummary
from penstock_contracts.commands import Version
from penstock_contracts.tracking import Comparison, Difference, Present
from penstock_core import script_runs
from penstock_core.pipeline import values
from penstock_core.pipeline.values import Inline, Stored, Value
from penstock_core.queries import comparison
from penstock_core.queries.comparison import MISSING, Name, Row
from penstock_core.run.machine import StepState
from penstock_gateway.compare import item_names
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.runs import views
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.versions.pipeline_versions import PipelineVersions

ITEMS = 100
"""The first items of a mapped step are compared, up to this number; those with equal inputs with each other."""

_LONG = 2_000
_PACKAGE = "package "

Part = dict[Name, Any]


class RunComparison:
    """Compares runs."""

    def __init__(self, reader: RunReader, versions: PipelineVersions) -> None:
        self._reader = reader
        self._versions = versions

    async def compare(self, run_ids: Sequence[str], *, everything: bool) -> Comparison:
        """Return runs side by side; with `everything`, also the rows without a difference.

        Raises:
            NotFoundError: a run does not exist.
            UnprocessableError: fewer than two runs, or too many.
        """
        if not 2 <= len(run_ids) <= comparison.MOST:
            message = f"expected 2 to {comparison.MOST} run IDs separated by commas, got {len(run_ids)}"
            raise UnprocessableError(f"runs: {message}", errors=[("query.runs", message)])
        sides: list[dict[str, Part]] = []
        runs: list[RunSummary] = []
        for run_id in run_ids:
            run = await self._reader.get(run_id)
            version = await self._versions.find(run.requested.pipeline, run.requested.version)
            sides.append(await asyncio.to_thread(side, run, version))
            runs.append(views.summary(run))
        if not all(any(name.startswith(_PACKAGE) for _, name in one["environment"]) for one in sides):
            # The packages of one run are unknown: a comparison would show only noise.
            for one in sides:
                one["environment"] = {
                    at: text for at, text in one["environment"].items() if not at[1].startswith(_PACKAGE)
                }
        rows = comparison.compare(sides)
        shown = [_difference(row) for row in rows if everything or not row.same]
        return Comparison(runs=runs, rows=shown, compared=len(rows))


def _difference(row: Row) -> Difference:
    values = [None if value is MISSING else Present(value=value) for value in row.values]
    return Difference(section=row.section, step=row.step, name=row.name, values=values, same=row.same)


def side(folded: FoldedRun, version: Version | None) -> dict[str, Part]:
    """Return the data of a run by section."""
    request = folded.requested
    steps = dict(item_names.named_steps(folded.state, ITEMS))
    return {
        "run": {
            ("", "pipeline"): request.pipeline,
            ("", "version"): request.version,
            ("", "state"): folded.name,
            **{
                ("", f"trigger {name}"): text
                for name, text in request.trigger.items()
                if name in ("type", "deployment")
            },
        },
        "inputs": {("", name): _input(value, request.models.get(name)) for name, value in request.inputs.items()},
        "params": {(key, name): _short(value) for key, step in steps.items() for name, value in step.params.items()},
        "tags": {("", name): text for name, text in request.labels.items()}
        | {(key, name): text for key, step in steps.items() for name, text in step.tags.items()},
        "metrics": {
            (key, name): value
            for key, step in steps.items()
            for name, value in (step.metrics | step.non_finite).items()
        },
        "outputs": {
            (key, name): _value(value)
            for key, step in steps.items()
            for name, value in (step.outputs | step.artifacts).items()
            if name not in script_runs.ABOUT or folded.requested.version != script_runs.VERSION
        },
        "durations": _durations(folded, steps),
        **(_of_script(folded, list(steps.values())) if version is None else _of_version(version)),
    }


def _durations(folded: FoldedRun, steps: Mapping[str, StepState]) -> Part:
    found: Part = {}
    if folded.finished_at is not None:
        found["", "seconds"] = round(folded.finished_at - folded.requested_at, 3)
    for key, step in steps.items():
        if step.started_at and step.finished_at:
            found[key, "seconds"] = round(step.finished_at - step.started_at, 3)
        if step.attempt:
            found[key, "attempts"] = step.attempt
    return found


def _of_version(version: Version) -> dict[str, Part]:
    specs = version.pipeline.steps
    code = {(node.key, "code"): specs[node.step].code for node in version.pipeline.nodes if specs[node.step].code}
    return {
        "code": code | {("", "source"): version.source},
        "environment": _environments(version),
        "git": {("", name): value for name, value in (version.git.model_dump() if version.git else {}).items()},
    }


def _of_script(folded: FoldedRun, steps: Sequence[StepState]) -> dict[str, Part]:
    """Return what a script recorded about itself; empty for a run whose version does not exist."""
    trigger = folded.requested.trigger
    recorded = next((step.artifacts.get(script_runs.ENVIRONMENT) for step in steps if step.artifacts), None)
    about: Any = recorded.value if isinstance(recorded, Inline) and isinstance(recorded.value, dict) else {}
    packages = about.get("packages")
    return {
        "code": {("", name): trigger[name] for name in ("source", "file") if name in trigger},
        "environment": _environment(
            trigger.get("environment", ""), trigger.get("python", ""), packages if isinstance(packages, dict) else {}
        ),
        "git": {("", name): trigger[name] for name in ("commit", "branch", "remote", "dirty") if name in trigger},
    }


def _environments(version: Version) -> Part:
    own = version.environment
    found = _environment(own.digest, own.version, own.packages)
    for name, one in version.environments.items():
        parts = _environment(one.digest, one.version, one.packages)
        found |= {(key, f"{name}: {what}"): value for (key, what), value in parts.items()}
    return found


def _environment(digest: str, python: str, packages: dict[str, Any]) -> Part:
    found: Part = {("", name): text for name, text in (("digest", digest), ("python", python)) if text}
    return found | {("", f"{_PACKAGE}{name}"): version for name, version in packages.items()}


def _input(value: Value, model: str | None) -> Any:
    """Return an input of a run to compare; `model` is the registered model that it is."""
    found = _value(value)
    return found if model is None else {**found, "model": model}


def _value(value: Value) -> Any:
    """Return a value to compare: plain data, or the digest of an artifact."""
    match value:
        case Inline(plain):
            return _short(plain)
        case Stored(artifact):
            return {"artifact": artifact.sha256}
        case values.Items(items):
            return _short([_value(item) for item in items])
        case values.Fields(fields):
            return _short({name: _value(item) for name, item in fields.items()})
        case _:
            return _short(orjson.loads(orjson.dumps(asdict(value))))


def _short(value: Any) -> Any:
    """Return short data unchanged, and of long data the digest and the beginning."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer beyond 64 bits
        text = repr(value).encode()
    if len(text) <= _LONG:
        return value
    return {"sha256": hashlib.sha256(text).hexdigest(), "begins": text[:100].decode(errors="replace")}
