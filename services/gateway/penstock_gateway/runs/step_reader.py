"""One step or item of a run: its inputs, and where the time of its attempts went."""

from __future__ import annotations

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_contracts import subjects
from penstock_contracts.api import AttemptView, StepDetail, StepError
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    Fact,
    StepSuspended,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.values import Value
from penstock_core.ports import Recorded
from penstock_core.run.machine import StepState
from penstock_core.run.state import item_of
from penstock_core.run.step_inputs import step_inputs
from penstock_gateway.errors import NotFoundError
from penstock_gateway.http.responses import to_json
from penstock_gateway.runs import views
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.runs.step_progress import StepProgress
from penstock_gateway.runs.steps import find_step

_LONG_LIST = 1_000
"""Lists of results with more items remain references."""

_FACTS = ("queued", "suspended", "requested.*", "started", "finished")


class StepReader:
    """Reads steps with their inputs and attempts."""

    def __init__(self, reader: RunReader, log: ArchivedLog, progress: StepProgress) -> None:
        self._reader = reader
        self._log = log
        self._progress = progress

    async def get(self, run_id: str, key: str) -> bytes:
        """Return the `StepDetail` of a step or item as JSON.

        Raises:
            NotFoundError: the run, the step or the item does not exist.
        """
        run, found = await find_step(self._reader, run_id, key)
        await self._progress.refresh(run)
        node, index = item_of(key)
        step = found or StepState(key, node, index)
        inputs = step_inputs(run.state, step)
        return to_json(
            StepDetail(
                **views.vars_of(views.step_view(run, step)),
                run_id=run_id,
                key=key,
                inputs={name: await self._short(run, value) for name, value in inputs.items()},
                input_models=_models(run, inputs),
                history=await self._attempts(run_id, key),
            )
        )

    async def _short(self, run: FoldedRun, value: Value) -> Value:
        """Resolve a value, unless it is a long list or no longer in the log."""
        if isinstance(value, values.Collected) and value.collected.count > _LONG_LIST:
            return value
        try:
            return await self._reader.resolve(run, value)
        except UnavailableError:
            raise
        except (NotFoundError, PenstockError):
            return value

    async def _attempts(self, run_id: str, key: str) -> list[AttemptView]:
        places = [subjects.run(run_id, f"step.{key}.*.{tail}") for tail in _FACTS]
        attempts: dict[int, list[Recorded]] = {}
        for record in (await self._log.last(places)).values():
            if isinstance(
                record.fact, AttemptQueued | AttemptRequested | StepSuspended | AttemptStarted | AttemptFinished
            ):
                attempts.setdefault(record.fact.attempt, []).append(record)
        return [_attempt(number, records) for number, records in sorted(attempts.items())]


def _models(run: FoldedRun, inputs: dict[str, Value]) -> dict[str, str]:
    """Return the registered models among the inputs of a step: those that are inputs of the run."""
    given = run.requested.inputs
    known = {
        value.artifact.sha256: reference
        for name, reference in run.requested.models.items()
        if isinstance(value := given.get(name), values.Stored)
    }
    return {
        name: known[value.artifact.sha256]
        for name, value in inputs.items()
        if isinstance(value, values.Stored) and value.artifact.sha256 in known
    }


def _attempt(number: int, records: list[Recorded]) -> AttemptView:
    """Return an attempt from its facts."""
    due = min((_due_at(record) for record in records if not isinstance(record.fact, AttemptFinished)), default=None)
    known: dict[type[Fact], Fact] = {type(record.fact): record.fact for record in records}
    started, end = known.get(AttemptStarted), known.get(AttemptFinished)
    if isinstance(end, AttemptFinished):
        called = end.started_at or None
        return AttemptView(
            number=number,
            state=end.outcome.value,
            executor=end.executor or None,
            requested_at=due,
            started_at=called,
            finished_at=end.finished_at or None,
            queue_seconds=_between(due, called - end.load_seconds if called else None),
            load_seconds=end.load_seconds if called else None,
            run_seconds=_between(called, end.finished_at),
            save_seconds=end.save_seconds if called else None,
            error=StepError(type=end.error.type, message=end.error.message, traceback=end.error.traceback)
            if end.error
            else None,
        )
    if isinstance(started, AttemptStarted):
        return AttemptView(
            number=number,
            state="running",
            executor=started.executor,
            requested_at=due,
            started_at=started.started_at or None,
            queue_seconds=_between(due, started.started_at or None),
        )
    return AttemptView(number=number, state="suspended" if StepSuspended in known else "queued", requested_at=due)


def _due_at(record: Recorded) -> float:
    """Return when an attempt could have begun, as far as a fact says."""
    match record.fact:
        case AttemptRequested(not_before=float() as earliest) | AttemptQueued(since=earliest):
            return max(record.at, earliest)
        case _:
            return record.at


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
