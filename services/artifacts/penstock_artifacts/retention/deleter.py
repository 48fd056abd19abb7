"""Deletes runs: the note of the archive, the output, the log. Garbage collection then removes their artifacts.

The fact `deleted` comes first and stays for a while: it answers a request with the idempotency key of the run, and a
janitor that finds it beside the rest of the log completes an interrupted deletion.
"""

from __future__ import annotations

import time

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_artifacts.retention.archiver import note_name
from penstock_artifacts.retention.run_index import RunIndex
from penstock_contracts import subjects
from penstock_core.facts import RunDeleted
from penstock_core.ports import ArtifactStore
from penstock_core.retention import RunRecord

GUARD = 7 * 86400.0
"""Seconds that the fact about a deleted run is kept."""


class Deleter:
    """Deletes finished runs."""

    def __init__(self, bus: Bus, store: ArtifactStore, log: NatsRunLog, run_index: RunIndex) -> None:
        self._bus = bus
        self._store = store
        self._log = log
        self._run_index = run_index

    async def delete(self, note: RunRecord, reason: str) -> None:
        """Delete a run. Idempotent after any step."""
        fact = RunDeleted(
            run_id=note.run_id,
            project=note.project,
            pipeline=note.pipeline,
            deleted_at=time.time(),
            reason=reason[:500],
        )
        await self._log.append([fact])
        await self.finish(note)

    async def finish(self, note: RunRecord) -> None:
        """Remove the rest of a run whose log has the fact `deleted`."""
        archived = self._run_index.archived.get(note.run_id)
        if archived is not None:
            await self._store.delete_note(note_name(note, archived))
        await self._purge(subjects.LOGS, subjects.logs_all(note.run_id))
        await self._purge(subjects.METRICS, subjects.metrics_all(note.run_id))
        place = subjects.run(note.run_id, "deleted")
        sign = (await self._log.last([place])).get(place)
        if sign is not None:
            await self._purge(subjects.RUNS, subjects.run_all(note.run_id), sign.seq)
        self._run_index.forget_run(note.run_id)

    async def forget(self, now: float) -> None:
        """Purge the facts about runs that were deleted long ago."""
        for fact in list(self._run_index.deleted.values()):
            if fact.deleted_at + GUARD < now and fact.run_id not in self._run_index.runs:
                await self._purge(subjects.RUNS, subjects.run_all(fact.run_id))
                self._run_index.deleted.pop(fact.run_id, None)

    async def _purge(self, stream: str, subject: str, below: int = 0) -> None:
        body = {"filter": subject} | ({"seq": below} if below else {})
        await self._bus.api(f"STREAM.PURGE.{stream}", body, timeout=60.0)
