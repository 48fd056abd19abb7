"""The facts of runs of scripts, from what scripts recorded. Nothing in it is trusted."""

from __future__ import annotations

from typing import Any

import orjson

from penstock_contracts import fact_codec, subjects
from penstock_contracts.script_runs import ScriptEnvironment, ScriptRunBody, ScriptSource
from penstock_core import script_runs
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptFinished, AttemptRequested, ErrorInfo, Fact, Outcome, RunFinished, RunRequested
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored, Value

ATTEMPT = 1
_ENDS = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED})


class InvalidRecordingError(PenstockError):
    """It is not a valid run of a script; the message says why."""


def request(run_id: str, project: str, body: ScriptRunBody, by: str) -> RunRequested:
    """Return the request of a run.

    Raises:
        InvalidRecordingError: it could not be read back.
    """
    made = RunRequested(
        run_id=run_id,
        project=project,
        pipeline=script_runs.pipeline_name(body.name),
        version=script_runs.VERSION,
        inputs={name: Inline(value) for name, value in body.inputs.items()},
        trigger=_trigger(body),
        requested_at=body.began_at,
        requested_by=by,
    )
    found = fact_codec.decode(fact_codec.subject(made), fact_codec.encode(made))
    if isinstance(found, fact_codec.UnreadableFact):
        raise InvalidRecordingError(found.why)
    return made


def begin(made: RunRequested) -> list[Fact]:
    """Return the facts of a run that has started."""
    attempt = AttemptRequested(
        run_id=made.run_id,
        key=script_runs.STEP,
        attempt=ATTEMPT,
        pool=script_runs.POOL,
        project=made.project,
        pipeline=made.pipeline,
        version=made.version,
        entrypoint="",
    )
    return [made, attempt]


def read_end(run_id: str, began_at: float, fields: dict[str, Any]) -> AttemptFinished:
    """Return the end of the attempt of a script.

    Raises:
        InvalidRecordingError: it is not valid.
    """
    attempt = {"run_id": run_id, "key": script_runs.STEP, "attempt": ATTEMPT, "started_at": began_at}
    body = fields | attempt | {"executor": script_runs.STEP, "outputs": {}}
    fact = fact_codec.decode(subjects.finished(run_id, script_runs.STEP, ATTEMPT), orjson.dumps(body))
    if not isinstance(fact, AttemptFinished):
        why = fact.why if isinstance(fact, fact_codec.UnreadableFact) else "it is not the end of an attempt"
        raise InvalidRecordingError(why)
    if fact.outcome not in _ENDS:
        raise InvalidRecordingError(f"a script cannot have the outcome {fact.outcome}")
    return fact


def end(finished: AttemptFinished) -> list[Fact]:
    """Return the facts of the end of a run."""
    error = finished.error.message if finished.error is not None else None
    run = RunFinished(run_id=finished.run_id, outcome=finished.outcome, error=error, finished_at=finished.finished_at)
    return [finished, run]


def cancelled(made: RunRequested, reason: str, by: str, now: float) -> AttemptFinished:
    """Return the end of the attempt of a run that a principal has cancelled."""
    message = f"cancelled by {by}" + (f": {reason}" if reason else "")
    return AttemptFinished(
        run_id=made.run_id,
        key=script_runs.STEP,
        attempt=ATTEMPT,
        outcome=Outcome.CANCELLED,
        error=ErrorInfo(type="Cancelled", message=message),
        executor=script_runs.STEP,
        started_at=made.requested_at,
        finished_at=max(now, made.requested_at),
    )


def about(environment: ScriptEnvironment, source: ScriptSource | None) -> dict[str, Value]:
    """Return the artifacts beside those that the script logged: its packages and its own file."""
    found: dict[str, Value] = {}
    if environment.packages:
        found[script_runs.ENVIRONMENT] = Inline(environment.model_dump())
    if source is not None:
        found[script_runs.SOURCE] = Stored(
            ArtifactRef(**source.model_dump(), media_type="text/x-python", format="file")
        )
    return found


def _trigger(body: ScriptRunBody) -> dict[str, str]:
    git = {name: str(value).lower() if isinstance(value, bool) else value for name, value in (body.git or {}).items()}
    trigger = {
        "type": script_runs.TRIGGER,
        "name": body.name,
        "file": body.file,
        "host": body.host,
        "source": body.source.sha256 if body.source is not None else "",
        "python": body.environment.version,
        "environment": body.environment.digest,
        **{name: git[name][:1000] for name in ("commit", "branch", "remote", "dirty") if name in git},
    }
    return {name: text for name, text in trigger.items() if text}
