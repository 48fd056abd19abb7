"""Facts become rows: pure functions, one for each kind of fact.

In: facts in log order, each with its sequence number and time. Out: `Changes`. Kinds without a function here change
only the run's `last_seq`, so that new kinds of facts are harmless. To project a new kind, write its
function and name it in `_PROJECT`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
import pydantic_core

from penstock_adapters.sql import changes
from penstock_adapters.sql.changes import AttemptId, Changes, LineageLink, Row, clean
from penstock_core import access, script_runs
from penstock_core.deployments.partitions import KEY_LIMIT
from penstock_core.deployments.partitions import LABEL as PARTITION
from penstock_core.facts import (
    SUCCESSFUL,
    ArtifactCommitted,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    RunDeleted,
    RunFinished,
    RunRequested,
    StepExpanded,
    StepReused,
    StepSkipped,
    StepSuspended,
)
from penstock_core.pipeline.values import (
    ArtifactRef,
    Collected,
    Inline,
    ResultOf,
    ResultRef,
    Stored,
    Value,
    components,
)
from penstock_core.ports import Recorded
from penstock_core.queries.search import number_of

_REASON_LIMIT = 2000
_PREVIEW_LIMIT = 500
_BIG = 2**63 - 1


def project(facts: Iterable[Recorded]) -> Changes:
    """Return the changes of `facts`."""
    found = Changes()
    for record in facts:
        found.run(record.fact.run_id, record.seq)
        change = _PROJECT.get(type(record.fact))
        if change is not None:
            change(found, record, record.fact)
    return found


def _run_requested(found: Changes, record: Recorded, fact: RunRequested) -> None:
    change = found.run(fact.run_id, record.seq)
    if change.new:
        return
    trigger = fact.trigger
    change.new = {
        "run_id": fact.run_id,
        "project": fact.project,
        "pipeline": fact.pipeline,
        "version": _whole(fact.version),
        "state": "queued",
        "created_at": _time(fact.requested_at) or record.at,
        "started_at": None,
        "finished_at": None,
        "duration": None,
        "deployment": clean(trigger["deployment"], 100) if "deployment" in trigger else None,
        "partition": clean(trigger[PARTITION], KEY_LIMIT) if PARTITION in trigger else None,
        "trigger_type": clean(trigger.get("type", ""), 100),
        "trigger": _json(trigger),
        "labels": _json(fact.labels),
        "priority": _whole(fact.priority),
        "error": None,
        "inputs": _json(_preview(fact.inputs)),
        "outputs": None,
        "seq": record.seq,
        "requested_by": clean(fact.requested_by, access.PRINCIPAL_LIMIT),
    }
    if fact.version == script_runs.VERSION and change.started_at is None:
        change.started_at = _time(fact.requested_at)  # a script run is complete when it is imported
    for name, text in fact.labels.items():
        found.name("labels", fact.run_id, name, "", {"value": clean(text, changes.TEXT_LIMIT)})
    for name, value in fact.inputs.items():
        if isinstance(value, Inline):
            found.name("params", fact.run_id, name, "", _param(value.value))
    _uses(found, AttemptId(fact.run_id, "", 0), "in", fact.inputs, record.seq)


def _run_finished(found: Changes, record: Recorded, fact: RunFinished) -> None:
    change = found.run(fact.run_id, record.seq)
    change.changed.setdefault("state", fact.outcome.value)
    change.changed.setdefault("finished_at", _time(fact.finished_at) or record.at)
    change.changed.setdefault("error", clean(fact.error, _REASON_LIMIT) if fact.error else None)
    change.changed.setdefault("outputs", _json(_preview(fact.outputs)))


def _attempt_held(found: Changes, record: Recorded, fact: AttemptQueued) -> None:
    row: Row = {"state": "queued_for_limit", "requested_at": record.at, "seq": record.seq}
    found.attempt(_begun(found, record, fact), row)


def _attempt_requested(found: Changes, record: Recorded, fact: AttemptRequested) -> None:
    attempt = _begun(found, record, fact)
    row: Row = {"state": "queued", "pool": fact.pool, "requested_at": record.at, "seq": record.seq}
    found.attempt(attempt, row | {"inputs": _json(_preview(fact.inputs))})
    _uses(found, attempt, "in", fact.inputs, record.seq)


def _step_suspended(found: Changes, record: Recorded, fact: StepSuspended) -> None:
    attempt = _begun(found, record, fact)
    row: Row = {"state": "suspended", "requested_at": record.at, "seq": record.seq}
    found.attempt(attempt, row | {"inputs": _json(_preview(fact.inputs))})
    _uses(found, attempt, "in", fact.inputs, record.seq)


def _attempt_started(found: Changes, record: Recorded, fact: AttemptStarted) -> None:
    row: Row = {"state": "running", "executor": clean(fact.executor, 200), "host": clean(fact.host, 200)}
    row |= {"started_at": _time(fact.started_at), "seq": record.seq}
    found.attempt(_begun(found, record, fact), row)


def _artifact_committed(found: Changes, record: Recorded, fact: ArtifactCommitted) -> None:
    _uses(found, _begun(found, record, fact), "logged", {fact.name: fact.value}, record.seq)


def _attempt_finished(found: Changes, record: Recorded, fact: AttemptFinished) -> None:
    attempt = _begun(found, record, fact)
    row: Row = {
        "state": fact.outcome.value,
        "finished_at": _time(fact.finished_at) or record.at,
        "error_type": clean(fact.error.type, 200) if fact.error else None,
        "reason": clean(fact.error.message, _REASON_LIMIT) if fact.error else None,
        "outputs": _json(_preview(fact.outputs)),
        "from_run": clean(fact.cache.from_run, 100) if fact.cache and fact.cache.hit else None,
        "seq": record.seq,
    }
    # A value that the fact lacks may be known from the start.
    row |= {"executor": clean(fact.executor, 200)} if fact.executor else {}
    row |= {"started_at": started} if (started := _time(fact.started_at)) else {}
    found.attempt(attempt, row)
    _measured(found, fact)
    if fact.outcome in SUCCESSFUL:
        _uses(found, attempt, "out", fact.outputs, record.seq)
    _uses(found, attempt, "logged", fact.artifacts, record.seq)


def _measured(found: Changes, fact: AttemptFinished | StepReused) -> None:
    number = fact.attempt if isinstance(fact, AttemptFinished) else 0
    for name, value in fact.metrics.items():
        if math.isfinite(value):
            found.name("metrics", fact.run_id, name, fact.key, {"value": value, "attempt": number})
    for name, value in fact.params.items():
        found.name("params", fact.run_id, name, fact.key, _param(value))
    for name, text in fact.tags.items():
        found.name("labels", fact.run_id, name, fact.key, {"value": clean(text, changes.TEXT_LIMIT)})


def _step_skipped(found: Changes, record: Recorded, fact: StepSkipped) -> None:
    state = "failed" if fact.error else "skipped"
    row: Row = {"state": state, "finished_at": record.at, "reason": clean(fact.reason, _REASON_LIMIT)}
    _step(found, record, fact, row | {"error_type": clean(fact.error.type, 200) if fact.error else None})


def _step_expanded(found: Changes, record: Recorded, fact: StepExpanded) -> None:
    row: Row = {"state": "failed" if fact.error else "expanded", "items": _whole(fact.count)}
    if fact.error:
        reason = clean(fact.error.message, _REASON_LIMIT)
        row |= {"finished_at": record.at, "reason": reason, "error_type": clean(fact.error.type, 200)}
    _step(found, record, fact, row)


def _step_reused(found: Changes, record: Recorded, fact: StepReused) -> None:
    # It precedes the request of its run, which has not started by this.
    attempt = AttemptId(fact.run_id, fact.key, 0)
    row: Row = {"state": "cached", "finished_at": record.at, "from_run": clean(fact.from_run, 100)}
    items = None if fact.count is None else _whole(fact.count)
    found.attempt(attempt, row | {"items": items, "outputs": _json(_preview(fact.outputs)), "seq": record.seq})
    _measured(found, fact)
    _uses(found, attempt, "reused", fact.outputs | fact.artifacts, record.seq)


def _run_deleted(found: Changes, record: Recorded, fact: RunDeleted) -> None:
    found.deleted.add(fact.run_id)


def _step(found: Changes, record: Recorded, fact: StepSkipped | StepExpanded, row: Row) -> None:
    _touch(found, record, fact.run_id)
    found.attempt(AttemptId(fact.run_id, fact.key, 0), row | {"seq": record.seq})


_PROJECT: dict[type, Callable[[Changes, Recorded, Any], None]] = {
    RunRequested: _run_requested,
    RunFinished: _run_finished,
    RunDeleted: _run_deleted,
    StepExpanded: _step_expanded,
    StepReused: _step_reused,
    StepSkipped: _step_skipped,
    StepSuspended: _step_suspended,
    AttemptQueued: _attempt_held,
    AttemptRequested: _attempt_requested,
    AttemptStarted: _attempt_started,
    ArtifactCommitted: _artifact_committed,
    AttemptFinished: _attempt_finished,
}

_OfAttempt = AttemptQueued | AttemptRequested | StepSuspended | AttemptStarted | ArtifactCommitted | AttemptFinished


def _begun(found: Changes, record: Recorded, fact: _OfAttempt) -> AttemptId:
    _touch(found, record, fact.run_id)
    return AttemptId(fact.run_id, fact.key, fact.attempt)


def _touch(found: Changes, record: Recorded, run_id: str) -> None:
    """A fact about a step: the run has started."""
    change = found.run(run_id, record.seq)
    if change.started_at is None:
        change.started_at = record.at


def _uses(found: Changes, attempt: AttemptId, direction: str, given: dict[str, Value], seq: int) -> None:
    for name, value in given.items():
        name = clean(name, changes.TEXT_LIMIT)
        for part in _parts(value):
            if isinstance(part, ArtifactRef):
                sha256 = clean(part.sha256, 64)
                found.artifacts.setdefault(sha256, _artifact(sha256, part))
                use = (*attempt, direction, name, sha256)
                columns = ("run_id", "key", "attempt", "direction", "name", "sha256")
                found.uses[use] = {**dict(zip(columns, use, strict=True)), "seq": seq}
            else:
                maker, output = _maker(attempt.run_id, part)
                found.links.append(LineageLink(attempt, name, maker, output, seq))


def _maker(run_id: str, part: ResultOf | Collected) -> tuple[AttemptId, str]:
    ref = part.result if isinstance(part, ResultOf) else part.collected
    number = ref.attempt if isinstance(ref, ResultRef) else 0
    return AttemptId(ref.run_id or run_id, ref.key, min(number, 2**31 - 1)), clean(ref.output, changes.TEXT_LIMIT)


def _parts(value: Value) -> Iterator[ArtifactRef | ResultOf | Collected]:
    match value:
        case Stored(artifact):
            yield artifact
        case ResultOf() | Collected():
            yield value
        case _:
            for part in components(value):
                yield from _parts(part)


def _artifact(sha256: str, ref: ArtifactRef) -> Row:
    texts = ("media_type", "format", "python_type", "filename")
    return {name: clean(getattr(ref, name), 500) for name in texts} | {"sha256": sha256, "size": _whole(ref.size)}


def _param(value: Any) -> Row:
    """A searchable parameter: as a number where it is one, and as text."""
    if isinstance(value, str):
        text = value
    else:
        text = _json(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    text = clean(text, changes.TEXT_LIMIT)
    return {"value": text, "number": None if isinstance(value, bool) else number_of(text)}


def _preview(given: dict[str, Value]) -> dict[str, Any]:
    """Values as lists show and compare them: long ones are truncated, the log has them in full."""
    shown: dict[str, Any] = {}
    for name, value in given.items():
        text = _json(value)
        if len(text) > _PREVIEW_LIMIT and not isinstance(value, Stored):
            shown[name] = {"cut": text[:_PREVIEW_LIMIT]}
        else:
            shown[name] = value
    return shown


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits
        return pydantic_core.to_json(value, serialize_unknown=True).decode()


def _time(at: float) -> float | None:
    return at if at and math.isfinite(at) else None


def _whole(number: int) -> int:
    return max(-_BIG, min(_BIG, number))
