"""Requests to cancel a run, or one of its steps."""

from __future__ import annotations

import time

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_contracts.api import CancelResult
from penstock_contracts.waits import StepCancelResult
from penstock_core import script_runs
from penstock_core.facts import CancelRequested, StepCancelRequested
from penstock_core.run.machine import TERMINAL_STATUSES
from penstock_core.run.state import item_of
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.steps import find_step
from penstock_gateway.tracked import script_ends, script_facts


class Cancellations:
    """Appends cancel requests; one for something that has finished changes nothing."""

    def __init__(self, log: ArchivedLog, reader: RunReader) -> None:
        self._log = log
        self._reader = reader

    async def cancel_run(self, run_id: str, reason: str, by: str) -> CancelResult:
        """Request to cancel a run; the result has the state of a finished run.

        Raises:
            NotFoundError: the run does not exist.
        """
        request = await self._reader.request(run_id)
        end = await self._reader.finished(run_id)
        if end is not None:
            return CancelResult(run_id=run_id, state=end[1].outcome.value)
        if request.version == script_runs.VERSION:  # no scheduler decides about it
            await script_ends.append(self._log, script_facts.cancelled(request, reason, by, time.time()))
            return CancelResult(run_id=run_id)
        fact = CancelRequested(run_id=run_id, by=by, reason=reason, requested_at=time.time())
        await self._log.append([fact])
        return CancelResult(run_id=run_id)

    async def cancel_step(self, run_id: str, key: str, reason: str, by: str) -> StepCancelResult:
        """Request to cancel a step or an item; the result has the state of a finished one.

        Raises:
            NotFoundError: the run, the step or the item does not exist.
        """
        run, step = await find_step(self._reader, run_id, key)
        owner = step or run.state.steps[item_of(key)[0]]
        if owner.status in TERMINAL_STATUSES:
            return StepCancelResult(run_id=run_id, step=key, state=owner.status.value)
        fact = StepCancelRequested(run_id=run_id, key=key, by=by, reason=reason, requested_at=time.time())
        await self._log.append([fact])
        return StepCancelResult(run_id=run_id, step=key)
