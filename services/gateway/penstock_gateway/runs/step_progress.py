"""The progress that running steps report, beside the facts of their run."""

from __future__ import annotations

import pydantic

from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import AttemptProgress
from penstock_gateway.runs.run_states import FoldedRun


class StepProgress:
    """Reads the latest progress of the attempts of runs."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def refresh(self, run: FoldedRun) -> None:
        """Add to a run what its steps have reported since the last call. A finished run is not read again.

        Raises:
            UnavailableError: the log does not answer.
        """
        if run.progress_complete:
            return
        finished = run.state.finished is not None
        place = subjects.progress_all(run.requested.run_id)
        for message in await self._bus.read(subjects.LOGS, place, run.progress_seq):
            run.progress_seq = int((message.headers or {})["Nats-Sequence"])
            run.view = b""
            try:
                report = AttemptProgress.model_validate_json(message.data)
            except pydantic.ValidationError:
                continue
            known = run.progress.get(report.key)
            if known is None or known.attempt <= report.attempt:
                run.progress[report.key] = report
        run.progress_complete = finished
