"""Reads one run: its request, its end, its folded state, its values."""

from __future__ import annotations

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.results import Results, is_reference
from penstock_contracts import subjects
from penstock_core import ids, run_events
from penstock_core.errors import InvalidIdError
from penstock_core.facts import RunFinished, RunRequested
from penstock_core.pipeline.tagged import NoSuchPartError
from penstock_core.pipeline.values import Collected, Value
from penstock_gateway.errors import NotFoundError
from penstock_gateway.runs.run_states import FoldedRun, RunStates
from penstock_gateway.runs.run_values import LONG_LIST
from penstock_gateway.tracked.importer import TrackedRunImporter


class RunReader:
    """Reads runs of a project by ID; those of other projects do not exist for it. Without a project, reads all runs.

    Runs of scripts that finished meanwhile are imported first.
    """

    def __init__(
        self, log: ArchivedLog, states: RunStates, scripts: TrackedRunImporter, project: str | None = None
    ) -> None:
        self._project = project
        self._log = log
        self._states = states
        self._scripts = scripts

    async def get(self, run_id: str) -> FoldedRun:
        """Return the present state of a run.

        Raises:
            NotFoundError: it does not exist.
        """
        await self._import(run_id)
        run = await self._states.get(run_id)
        if run is None or not self._has(run.requested):
            raise _no_run(run_id)
        if run.state.finished is not None and run.outputs is None:
            run.outputs = {name: await self._short(run, one) for name, one in run.state.finished.outputs.items()}
        return run

    async def request(self, run_id: str) -> RunRequested:
        """Return the request of a run.

        Raises:
            NotFoundError: the run does not exist.
        """
        await self._import(run_id)
        found = await self.find_request(run_id)
        if found is None:
            raise _no_run(run_id)
        return found

    async def find_request(self, run_id: str) -> RunRequested | None:
        """Return the request of a run, or None when the log has none of this project."""
        subject = subjects.run(run_id, "requested")
        record = (await self._log.last([subject])).get(subject)
        found = record.fact if record and isinstance(record.fact, RunRequested) else None
        return found if found is not None and self._has(found) else None

    async def finished(self, run_id: str) -> tuple[int, RunFinished] | None:
        """Return the end of a run and its sequence in the log; None for an unfinished run."""
        subject = subjects.run(run_id, "finished")
        record = (await self._log.last([subject])).get(subject)
        return (record.seq, record.fact) if record and isinstance(record.fact, RunFinished) else None

    async def sent_events(self, run_id: str) -> list[tuple[str, str]]:
        """Return source and id of the events that steps of a run have sent, and of those about their artifacts."""
        run = await self._states.get(run_id)
        if run is None:
            return []
        sent = [
            (run_events.STEPS_SOURCE, run_events.step_event_id(run_id, key, n + 1))
            for key, count in run.details.events.items()
            for n in range(count)
        ]
        return sent + [
            (run_events.ARTIFACTS_SOURCE, run_events.artifact_event_id(run_id, key, name))
            for key, names in run.details.committed.items()
            for name in names
        ]

    async def resolve(self, run: FoldedRun, value: Value) -> Value:
        """Return a value with its references read from the log.

        Raises:
            NotFoundError: a part of the value does not exist.
        """
        if not is_reference(value):
            return value
        try:
            return await Results(run.requested.run_id, self._log.last).value(value)
        except NoSuchPartError as error:
            raise NotFoundError("A part of the value does not exist", str(error)) from error

    def _has(self, request: RunRequested) -> bool:
        return self._project in (None, request.project)

    async def _short(self, run: FoldedRun, value: Value) -> Value:
        """Resolve a value unless it is a long list."""
        long = isinstance(value, Collected) and value.collected.count > LONG_LIST
        return value if long else await self.resolve(run, value)

    async def _import(self, run_id: str) -> None:
        try:
            ids.check_name(run_id, "run ID")
        except InvalidIdError as error:
            raise NotFoundError("The run does not exist", str(error)) from error
        await self._scripts.import_runs(run_id)


def _no_run(run_id: str) -> NotFoundError:
    return NotFoundError(f"Run {run_id!r} does not exist", "`penstock runs list` lists the runs")
