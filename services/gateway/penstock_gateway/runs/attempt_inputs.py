"""What an attempt was given: its inputs, its checkpoint, its source and its environment."""

from __future__ import annotations

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.results import resolve_inputs
from penstock_contracts import subjects
from penstock_core import script_runs
from penstock_core.artifacts import committed
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import ArtifactCommitted, AttemptRequested
from penstock_core.pipeline.ir import Kind
from penstock_core.pipeline.values import Value
from penstock_core.run.machine import SUCCESSFUL_STATUSES, StepState
from penstock_gateway.errors import ConflictError, NotFoundError
from penstock_gateway.http.responses import to_json
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.runs.steps import find_step
from penstock_gateway.versions.pipeline_versions import PipelineVersions

_ITEMS_SHOWN = 5


class AttemptInputsReader:
    """Reads what attempts were given from the log and the versions."""

    def __init__(self, reader: RunReader, log: ArchivedLog, versions: PipelineVersions, store: Versions) -> None:
        self._reader = reader
        self._log = log
        self._versions = versions
        self._store = store

    async def get(self, run_id: str, key: str, number: int | None) -> bytes:
        """Return the `AttemptInputs` of an attempt as JSON; by default of the last attempt.

        Raises:
            NotFoundError: the run, the step or the attempt does not exist.
            ConflictError: no function was called for the step.
        """
        run, step = await find_step(self._reader, run_id, key)
        if run.requested.version == script_runs.VERSION:
            raise ConflictError(f"Run {run_id} is one of a tracked script", "run the script itself in a debugger")
        if step is None:
            raise NotFoundError(f"Item {key!r} has not started", "the run has not reached it")
        _check_function(run, step)
        last = step.attempt
        request = await self._request(run, step, number or last) if last else None
        if not last:
            reason = f": {step.reason}" if step.reason else ""
            raise NotFoundError(f"Step {key!r} has no attempt", f"it is {step.status.value}{reason}")
        if request is None:
            exist = f"it has the attempts 1 to {last}" if last > 1 else "it has one attempt"
            raise NotFoundError(f"Step {key!r} has no attempt {number or last}", exist)
        version = await self._versions.get(request.pipeline, request.version)
        environment = version.environments.get(request.environment, version.environment)
        hints = await self._store.interpreters(environment.digest)
        try:
            resolved = await resolve_inputs(request, self._log.last)
        except UnavailableError:
            raise
        except PenstockError as error:
            raise ConflictError("The inputs are not complete", str(error)) from error
        return to_json(
            {
                "request": resolved,
                "checkpoint": await self._checkpoint(request),
                "state": step.status.value,
                "source": version.source,
                "environment": environment,
                "interpreters": [hint.python for hint in hints.interpreters],
            }
        )

    async def _request(self, run: FoldedRun, step: StepState, number: int) -> AttemptRequested | None:
        pool = run.state.plan.specs[step.node].pool
        subject = subjects.requested(run.requested.run_id, step.key, number, pool)
        record = (await self._log.last([subject])).get(subject)
        return record.fact if record is not None and isinstance(record.fact, AttemptRequested) else None

    async def _checkpoint(self, request: AttemptRequested) -> Value | None:
        """Return the last checkpoint of the earlier attempts."""
        if request.attempt == 1:
            return None
        found = await self._log.last([subjects.committed(request.run_id, request.key, "*", committed.CHECKPOINT)])
        facts = [record.fact for record in found.values() if isinstance(record.fact, ArtifactCommitted)]
        earlier = committed.checkpoints(facts, request.attempt)
        return earlier[0].value if earlier else None


def _check_function(run: FoldedRun, step: StepState) -> None:
    """Raise `ConflictError` unless attempts of the step call a function."""
    if run.state.plan.specs[step.node].kind is not Kind.FUNCTION:
        raise ConflictError(f"Step {step.key!r} waits and calls no function", "name another step")
    if run.state.plan.nodes[step.node].mapped is not None and step.index is None:
        items = sorted(step.mapped.items.values(), key=_notable) if step.mapped is not None else []
        names = ", ".join(item.key for item in items[:_ITEMS_SHOWN]) or f"{step.key}[0]"
        raise ConflictError(f"Step {step.key!r} is mapped", f"name one of its items, such as {names}")
    if step.from_run:
        raise ConflictError(f"Step {step.key!r} reuses the result of run {step.from_run}", "name that run")


def _notable(item: StepState) -> tuple[bool, int]:
    """Order unsuccessful items first."""
    return item.status in SUCCESSFUL_STATUSES, item.index or 0
