"""A finished run as OpenLineage events: the run and its steps as jobs, with their inputs and outputs.

In: the state of a finished run. Out: events of the `openlineage-python` library, which must be installed. Pure; IDs are
derived from the run's ID, so sending the events again is idempotent.

A pipeline is a job `PIPELINE` in the namespace `penstock://PROJECT`, a step a child job `PIPELINE.STEP`, an output a
dataset `PIPELINE.STEP.OUTPUT` whose version is the SHA-256 of its artifact.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState, set_producer
from openlineage.client.facet_v2 import DatasetFacet, RunFacet, dataset_version_dataset, error_message_run, parent_run

from penstock_core.facts import Outcome
from penstock_core.pipeline import values
from penstock_core.run import state as states
from penstock_core.run.state import Status, StepState

PRODUCER = "https://penstock.dev/openlineage"

set_producer(PRODUCER)

_ENDS = {
    Outcome.SUCCEEDED: RunState.COMPLETE,
    Outcome.FAILED: RunState.FAIL,
    Outcome.CANCELLED: RunState.ABORT,
    Outcome.SKIPPED: RunState.ABORT,
    Status.SUCCEEDED: RunState.COMPLETE,
    Status.FAILED: RunState.FAIL,
    Status.CANCELLED: RunState.ABORT,
}


def events(state: states.RunState, requested_at: float, finished_at: float) -> list[RunEvent]:
    """Return the events of a finished run, ordered by time where that is defined.

    Cached, reused and skipped steps have none.

    Args:
        state: the run; it has been requested and is finished.
        requested_at: Unix seconds.
        finished_at: Unix seconds.
    """
    assert state.requested is not None and state.finished is not None  # noqa: S101 - a precondition
    job, run_id, error = _job(state), _id(state.run_id), state.finished.error
    found = [_event(RunState.START, requested_at, Run(run_id), job)]
    for step in state.steps.values():
        found += _step(state, step, requested_at)
    run = Run(run_id, {"errorMessage": _error(error)} if error else {})
    found.append(_event(_ENDS[state.finished.outcome], finished_at, run, job))
    return found


def _step(state: states.RunState, step: StepState, requested_at: float) -> Iterator[RunEvent]:
    end = _ENDS.get(step.status)
    if end is None or (not step.attempt and step.mapped is None) or step.from_run:
        return
    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(_id(state.run_id)),
        job=parent_run.Job(_job(state).namespace, _job(state).name),
    )
    job = Job(_namespace(state), f"{state.plan.pipeline.name}.{step.key}")
    run_id = _id(state.run_id, step.key)
    started = step.started_at or step.finished_at or requested_at
    inputs = list(_inputs(state, step))
    yield _event(RunState.START, started, Run(run_id, {"parent": parent}), job, inputs)
    facets: dict[str, RunFacet] = {"parent": parent}
    if step.error is not None:
        facets["errorMessage"] = _error(f"{step.error.type}: {step.error.message}", step.error.traceback)
    outputs = list(_outputs(state, step)) if end is RunState.COMPLETE else []
    yield _event(end, step.finished_at or started, Run(run_id, facets), job, inputs, outputs)


def _inputs(state: states.RunState, step: StepState) -> Iterator[InputDataset]:
    """Yield the datasets that a step reads: outputs of other steps, and inputs of the run that are artifacts."""
    seen: set[str] = set()
    for binding in state.plan.nodes[step.key].inputs.values():
        for source in values.sources(binding):
            name = f"{state.plan.pipeline.name}.{source.node}.{source.output}"
            made = state.steps[source.node].outputs.get(source.output)
            if name not in seen and state.steps[source.node].status in states.SUCCESSFUL_STATUSES:
                seen.add(name)
                yield InputDataset(_namespace(state), name, facets=_version(made))
        for param in values.params(binding):
            given = state.requested.inputs.get(param) if state.requested else None
            name = f"{state.plan.pipeline.name}.inputs.{param}"
            if name not in seen and given is not None and any(values.artifacts(given)):
                seen.add(name)
                yield InputDataset(_namespace(state), name, facets=_version(given))


def _outputs(state: states.RunState, step: StepState) -> Iterator[OutputDataset]:
    for port in state.plan.specs[step.node].outputs:
        name = f"{state.plan.pipeline.name}.{step.key}.{port.name}"
        yield OutputDataset(_namespace(state), name, facets=_version(step.outputs.get(port.name)))


def _version(value: values.Value | None) -> dict[str, DatasetFacet]:
    digests = list(values.artifacts(value)) if value is not None else []
    if not digests:
        return {}
    version = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(version)}


def _error(message: str, traceback: str = "") -> error_message_run.ErrorMessageRunFacet:
    return error_message_run.ErrorMessageRunFacet(message, "PYTHON", traceback or None)


def _job(state: states.RunState) -> Job:
    return Job(_namespace(state), state.plan.pipeline.name)


def _namespace(state: states.RunState) -> str:
    return f"penstock://{state.requested.project if state.requested else ''}"


def _id(*parts: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join((PRODUCER, *parts))))


def _event(
    kind: RunState,
    at: float,
    run: Run,
    job: Job,
    inputs: list[InputDataset] | None = None,
    outputs: list[OutputDataset] | None = None,
) -> RunEvent:
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return RunEvent(
        eventType=kind, eventTime=time, run=run, job=job, inputs=inputs or [], outputs=outputs or [], producer=PRODUCER
    )
