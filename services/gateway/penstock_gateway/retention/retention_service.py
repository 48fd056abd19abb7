"""Retention as the API shows and sets it, and what the janitor of the artifacts service is asked for."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.retention import RetentionStore
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_contracts.retention import (
    CollectBody,
    DeleteReply,
    DeleteRun,
    JanitorJob,
    JanitorReply,
    JanitorReport,
    PolicyView,
    RestoreBody,
    RetentionSettings,
    SetPolicy,
)
from penstock_core.facts import RunDeleted
from penstock_core.ports import UnavailableError
from penstock_core.retention import InvalidPolicyError
from penstock_gateway.http.problems import ProblemError

_PATIENCE = 30.0
_LOOK = 0.05


class RetentionService:
    """Reads and changes the settings; asks the janitor, whose reports it reads."""

    def __init__(self, bus: Bus, versions: Versions, project: str) -> None:
        self._bus = bus
        self._versions = versions
        self._project = project
        self._store = RetentionStore(bus)
        self._bucket = Bucket(bus, subjects.RETENTION_BUCKET)

    async def show(self) -> RetentionSettings:
        """What is set."""
        return await self._store.read()

    async def put(self, name: str, body: SetPolicy) -> RetentionSettings:
        """Set a policy; one that would leave no run at all has to be confirmed.

        Raises:
            ProblemError: 404 no such pipeline; 409 it has to be confirmed; 422 it makes no sense.
            Unavailable: the janitor does not answer.
        """
        try:
            policy = body.policy(name)
        except InvalidPolicyError as error:
            errors = [(error.field, str(error))]
            raise ProblemError(422, "The policy makes no sense", str(error), errors=errors) from error
        pattern = bool(set("*?[") & set(policy.pipeline))
        if not pattern and not await self._versions.exists(self._project, policy.pipeline):
            raise ProblemError(
                404,
                f"There is no pipeline {policy.pipeline!r}",
                "see `penstock versions list` for those that there are, or write a pattern such as 'train*'",
            )
        view = PolicyView(name=name, **body.model_dump(exclude={"confirm"}))

        def change(settings: RetentionSettings) -> RetentionSettings:
            others = [one for one in settings.policies if one.name != name]
            policies = sorted([*others, view], key=lambda one: one.name)
            return settings.model_copy(update={"policies": policies})

        if not body.confirm:
            await self._check(change(await self._store.read()))
        return await self._store.change(change)

    async def delete(self, name: str) -> None:
        """Remove a policy.

        Raises:
            ProblemError: 404, there is none of this name.
        """
        if name not in [one.name for one in (await self._store.read()).policies]:
            raise ProblemError(404, f"There is no policy {name[:100]!r}", "see /v1/retention for those that there are")
        await self._store.change(
            lambda now: now.model_copy(update={"policies": [one for one in now.policies if one.name != name]})
        )

    async def archive_after(self, seconds: float | None) -> RetentionSettings:
        """Set when runs move from the log to the archive."""
        return await self._store.change(lambda now: now.model_copy(update={"archive_after": seconds}))

    async def collect(self, body: CollectBody) -> JanitorReport:
        """Begin a collection, or tell what one would do."""
        return await self._begin(job="collect", **body.model_dump())

    async def restore(self, body: RestoreBody) -> JanitorReport:
        """Begin to put archived runs back into a log that has lost them."""
        return await self._begin(job="restore", run_id=body.run_id)

    async def archive(self, run_id: str) -> JanitorReport:
        """Begin to archive a run that is over."""
        return await self._begin(job="archive", run_id=run_id)

    async def report(self, ident: str) -> JanitorReport:
        """What a job has done so far.

        Raises:
            ProblemError: 404, there is none of this id.
        """
        entry = await self._bucket.get_fresh(f"report.{ident}") if ident.isalnum() else None
        if entry is None:
            raise ProblemError(404, f"There is no job {ident[:100]!r}", "reports are kept for a day")
        return JanitorReport.model_validate_json(entry.value)

    async def delete_run(self, run_id: str, by: str) -> bool:
        """Delete a run that is over; False when it was deleted before.

        Raises:
            ProblemError: 409, it is under way, or something needs it.
        """
        body = DeleteRun(run_id=run_id, by=by[:200]).model_dump_json().encode()
        answer = await self._bus.request(subjects.ARTIFACTS_DELETE_RUN, body, timeout=_PATIENCE)
        reply: DeleteReply = _read(DeleteReply, answer.data)
        if reply.unavailable:
            raise UnavailableError(reply.error or "the janitor cannot work now")
        if reply.refused or reply.error:
            raise ProblemError(409, f"Run {run_id} stays", reply.refused or reply.error or "")
        return reply.deleted

    async def _begin(self, **what: Any) -> JanitorReport:
        job = JanitorJob(id=secrets.token_hex(8), **what)
        answer = await self._bus.request(subjects.ARTIFACTS_JOB, job.model_dump_json().encode(), timeout=_PATIENCE)
        reply: JanitorReply = _read(JanitorReply, answer.data)
        if reply.error is not None:
            raise UnavailableError(reply.error)
        return await self.report(job.id)

    async def _check(self, wanted: RetentionSettings) -> None:
        report = await self._begin(job="decide", settings=wanted)
        deadline = time.monotonic() + _PATIENCE
        while report.state == "running" and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK)
            report = await self.report(report.id)
        if report.state != "finished":
            raise UnavailableError(report.error or "the janitor does not say what the policy would do")
        if report.deletes_all_finished:
            raise ProblemError(
                409,
                "The policy would leave no run at all",
                f"all {report.deleted_count} finished runs would be deleted: confirm with `--yes`",
            )


async def check_not_deleted(log: NatsRunLog, run_id: str) -> None:
    """Refuse an idempotency key whose run was deleted a while ago.

    Raises:
        ProblemError: 409, it was.
    """
    place = subjects.run(run_id, "deleted")
    record = (await log.last([place])).get(place)
    if record is not None and isinstance(record.fact, RunDeleted):
        raise ProblemError(
            409,
            "The idempotency key stands for a run that was deleted",
            f"run {run_id}: {record.fact.reason or 'deleted'}; use a new key for a new run",
        )


def _read(model: type[Any], data: bytes) -> Any:
    try:
        return model.model_validate_json(data)
    except pydantic.ValidationError as error:
        raise ProblemError(502, "The artifacts service gave an unreadable answer", "its log may say why") from error
