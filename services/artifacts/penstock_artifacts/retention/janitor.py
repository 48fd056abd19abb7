"""The janitor: rounds of deletion, archiving and garbage collection, periodically and on request.

In: the log, the retention policies, jobs. Out: archives, purged logs, removed objects, and a report of each job.

Any number of janitors may work at the same time, and each may be killed at any point: all operations are idempotent.
The lease of a round only avoids repeating the work of another janitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import orjson
import pydantic
from prometheus_client import Gauge
from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.retention import RetentionStore
from penstock_adapters.nats.bus import Bus, BusError
from penstock_artifacts.retention.archiver import ArchiveNotFoundError, Archiver
from penstock_artifacts.retention.collector import Collection, Collector
from penstock_artifacts.retention.deleter import Deleter
from penstock_artifacts.retention.protected_runs import ProtectedRuns
from penstock_artifacts.retention.run_index import RunIndex
from penstock_contracts import subjects
from penstock_contracts.retention import (
    DeletedRun,
    DeleteReply,
    DeleteRun,
    JanitorJob,
    JanitorReply,
    JanitorReport,
    RetentionSettings,
    Share,
)
from penstock_core import retention
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.retention import Decision, RunRecord

_SHOWN = 1000
_PROBLEMS = 50
_REPORT_INTERVAL = 1.0
_LEASE = "round"
_REMEMBERED = 86400.0

_LAST_ROUND = Gauge("penstock_janitor_last_round_seconds", "Time of the last round of the janitor, in Unix seconds.")


class Janitor:
    """Works on one store and one log.

    Args:
        bus: connection to the log.
        archiver: archives runs.
        deleter: deletes runs.
        collector: removes unreferenced objects.
        run_index: lists the runs.
        protected: knows which runs are protected from deletion.
        log: the log of the service.
        at_once: largest number of runs that a periodic round archives, and deletes.
    """

    def __init__(
        self,
        bus: Bus,
        archiver: Archiver,
        deleter: Deleter,
        collector: Collector,
        run_index: RunIndex,
        protected: ProtectedRuns,
        log: FilteringBoundLogger,
        *,
        at_once: int,
    ) -> None:
        self._bus = bus
        self._archiver = archiver
        self._deleter = deleter
        self._collector = collector
        self._run_index = run_index
        self._protected = protected
        self._log = log
        self._at_once = at_once
        self._settings = RetentionStore(bus)
        self._bucket = Bucket(bus, subjects.RETENTION_BUCKET)
        self._one = asyncio.Lock()
        self._purged: set[str] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._reported_at = 0.0

    async def run(self, first: float, interval: float) -> None:
        """Run a round `first` seconds from now, and then every `interval` seconds, until cancelled."""
        pause = first
        while True:
            await asyncio.sleep(pause)
            pause = interval
            try:
                if await self._take_lease(interval):
                    report = JanitorReport(id="", started_at=time.time())
                    await self._work(JanitorJob(id="round"), report, scheduled=True)
                    _LAST_ROUND.set_to_current_time()
                    if report.deleted_count or report.archived_count or report.removed.objects or report.problems:
                        counts = report.model_dump(include={"deleted_count", "archived_count", "problems"})
                        self._log.info("janitor round finished", removed=report.removed.objects, **counts)
            except (PenstockError, BusError) as error:
                self._log.warning("janitor round postponed", error=str(error))

    async def close(self) -> None:
        """Cancel running jobs; a later round continues their work."""
        for task in list(self._jobs):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -------------------------------------------------------------------------------------------------- requests

    async def begin(self, job: JanitorJob) -> JanitorReply:
        """Start a job; its report is available under its id from now on."""
        report = JanitorReport(id=job.id, job=job.job, dry_run=job.dry_run, started_at=time.time())
        await self._forget_reports()
        await self._write(report)
        task = asyncio.create_task(self._job(job, report))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return JanitorReply(id=job.id)

    async def delete(self, command: DeleteRun) -> DeleteReply:
        """Delete one run, unless it is running, protected, or needed by another one.

        Raises:
            UnavailableError: the log or the store does not answer.
        """
        async with self._one:
            await self._run_index.refresh()
            note = self._run_index.runs.get(command.run_id)
            if note is None:
                return DeleteReply(deleted=command.run_id in self._run_index.deleted)
            why = await self._is_protected(note)
            if why:
                return DeleteReply(refused=why)
            await self._deleter.delete(note, f"deleted by {command.by}" if command.by else "deleted")
            return DeleteReply(deleted=True)

    async def _is_protected(self, note: RunRecord) -> str:
        """Return why a run may not be deleted; empty when it may."""
        if not note.state:
            return "it is running: cancel it first"
        if protected := (await self._protected.runs([note.project])).get(note.run_id):
            return protected
        for by, needed in retention.needs(self._run_index.runs.values()).items():
            if note.run_id in needed and by in self._run_index.runs and by not in self._run_index.deleted:
                return f"run {by} needs its results: delete that run first"
        return ""

    async def _job(self, job: JanitorJob, report: JanitorReport) -> None:
        try:
            if job.job == "restore":
                await self._restore(job, report)
            else:
                await self._work(job, report, scheduled=False)
            report.state = "finished"
        except asyncio.CancelledError:
            report.state, report.error = "failed", "the service was stopped: start the job again"
            raise
        except Exception as error:
            report.state, report.error = "failed", str(error) or type(error).__name__
            if not isinstance(error, PenstockError):
                self._log.exception("janitor job failed", job=job.job)
        finally:
            with contextlib.suppress(PenstockError, BusError):
                await self._write(report)

    # ---------------------------------------------------------------------------------------------------------- rounds

    async def _work(self, job: JanitorJob, report: JanitorReport, *, scheduled: bool) -> None:
        async with self._one:
            await self._run_index.refresh()
            settings = job.settings or await self._settings.read()
            decisions = await self._decide(settings)
            deleted = self._deleted(decisions, report)
            most = self._at_once if scheduled else len(self._run_index.runs)
            if job.job == "decide":
                return
            if job.job == "collect" and not job.dry_run:
                await self._delete(decisions, list(deleted)[:most], report)
            if job.job == "archive" or settings.archive_after is not None:
                await self._archive(job, settings, report, most)
            if job.job == "collect" and (settings.policies or not scheduled):
                await self._collect(job, deleted, report)

    async def _decide(self, settings: RetentionSettings) -> dict[str, Decision]:
        policies = [policy.policy(policy.name) for policy in settings.policies]
        runs = [note for note in self._run_index.runs.values() if note.run_id not in self._run_index.deleted]
        protected = await self._protected.runs(note.project for note in runs) if policies else {}
        return retention.decide(runs, policies, time.time(), protected)

    def _deleted(self, decisions: Mapping[str, Decision], report: JanitorReport) -> dict[str, str]:
        """The runs to delete, the oldest first, each with its pipeline."""
        notes = [self._run_index.runs[run_id] for run_id, decision in decisions.items() if decision.goes]
        notes.sort(key=lambda note: (note.finished_at, note.run_id))
        known = [self._run_index.runs[run_id] for run_id in decisions]
        report.runs, report.deleted_count = len(known), len(notes)
        report.deletes_all_finished = retention.deletes_all_finished(known, decisions)
        report.deleted_runs = [
            DeletedRun(
                run_id=note.run_id,
                pipeline=note.pipeline,
                state=note.state,
                finished_at=note.finished_at,
                reason=decisions[note.run_id].reason,
            )
            for note in notes[:_SHOWN]
        ]
        for note in notes:
            report.pipelines.setdefault(note.pipeline, Share()).runs += 1
        return {note.run_id: note.pipeline for note in notes}

    async def _delete(self, decisions: Mapping[str, Decision], deleted: list[str], report: JanitorReport) -> None:
        left = [note for run_id, note in self._run_index.runs.items() if run_id in self._run_index.deleted]
        for note in left:
            await self._deleter.finish(note)
        for run_id in deleted:
            await self._publish_report(report)
            await self._deleter.delete(self._run_index.runs[run_id], decisions[run_id].reason)
        await self._deleter.forget(time.time())

    async def _archive(self, job: JanitorJob, settings: RetentionSettings, report: JanitorReport, most: int) -> None:
        after = settings.archive_after or 0.0
        due = retention.to_archive(list(self._run_index.runs.values()), 0.0 if job.run_id else after, time.time())
        if job.run_id is not None:
            due = [note for note in due if note.run_id == job.run_id]
        if job.dry_run:
            report.archived_count = len(due)
            return
        for note in due[:most]:
            await self._publish_report(report)
            try:
                archived = await self._archiver.archive(note)
                await self._archiver.purge(archived)
            except UnavailableError:
                raise
            except ArchiveNotFoundError:
                continue
            except PenstockError as error:
                self._problem(report, f"run {note.run_id} could not be archived: {error}")
                continue
            self._purged.add(note.run_id)
            report.archived_count += 1
        for run_id, archived in list(self._run_index.archived.items()):
            if run_id not in self._purged and run_id in self._run_index.runs:
                await self._publish_report(report)
                try:
                    # A janitor was stopped between the archive and the purge, or has just done both.
                    await self._archiver.purge(archived)
                    self._purged.add(run_id)
                except UnavailableError:
                    raise
                except PenstockError as error:
                    self._problem(report, f"the log of run {run_id} could not be purged: {error}")

    async def _collect(self, job: JanitorJob, deleted: Mapping[str, str], report: JanitorReport) -> None:
        wanted = Collection(
            deleted=deleted if job.dry_run else {},
            finished={note.run_id for note in self._run_index.runs.values() if note.state},
            dry_run=job.dry_run,
            older_than_log=job.older_than_log,
            log_created=self._run_index.created,
        )
        await self._collector.collect(wanted, report, lambda: self._publish_report(report))

    async def _restore(self, job: JanitorJob, report: JanitorReport) -> None:
        found = False
        async for archived in self._archiver.noted():
            if job.run_id not in (None, archived.run_id):
                continue
            found = True
            await self._publish_report(report)
            try:
                report.restored_count += await self._archiver.restore(archived)
            except UnavailableError:
                raise
            except PenstockError as error:
                self._problem(report, f"run {archived.run_id} could not be restored: {error}")
        if job.run_id is not None and not found:
            raise ArchiveNotFoundError(f"there is no archive of run {job.run_id[:100]!r}")

    # -------------------------------------------------------------------------------------------------------- reports

    def _problem(self, report: JanitorReport, text: str) -> None:
        self._log.error("retention", problem=text)
        if len(report.problems) < _PROBLEMS:
            report.problems.append(text)

    async def _publish_report(self, report: JanitorReport) -> None:
        now = time.monotonic()
        if report.id and now - self._reported_at > _REPORT_INTERVAL:
            self._reported_at = now
            await self._write(report)

    async def _write(self, report: JanitorReport) -> None:
        report.updated_at = time.time()
        if report.id:
            await self._bucket.put(f"report.{report.id}", report.model_dump_json().encode())

    async def _forget_reports(self) -> None:
        for entry in await self._bucket.list("report.*"):
            with contextlib.suppress(pydantic.ValidationError):
                if JanitorReport.model_validate_json(entry.value).updated_at + _REMEMBERED > time.time():
                    continue
            await self._bucket.purge(entry.key)

    async def _take_lease(self, interval: float) -> bool:
        """Whether no other janitor has started a round within half an interval."""
        entry = await self._bucket.get_fresh(_LEASE)
        now = time.time()
        if entry is not None:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                if now - float(orjson.loads(entry.value)["at"]) < interval / 2:
                    return False
        revision = entry.revision if entry is not None else 0
        return await self._bucket.put(_LEASE, orjson.dumps({"at": now}), revision) is not None
