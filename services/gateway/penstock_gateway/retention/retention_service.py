"""Retention policies, and the jobs of the janitor in the artifacts service."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.retention import RetentionStore
from penstock_adapters.nats.bus import Bus
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
from penstock_core.errors import UnavailableError
from penstock_core.retention import InvalidPolicyError
from penstock_gateway.errors import BadReplyError, ConflictError, NotFoundError, UnprocessableError
from penstock_gateway.versions.pipeline_versions import PipelineVersions

_PATIENCE = 30.0
_LOOK = 0.05


class RetentionService:
    """Reads and changes the settings; starts jobs of the janitor and reads their reports."""

    def __init__(self, bus: Bus, versions: PipelineVersions) -> None:
        self._bus = bus
        self._versions = versions
        self._store = RetentionStore(bus)
        self._bucket = Bucket(bus, subjects.RETENTION_BUCKET)

    async def show(self) -> RetentionSettings:
        """Return the settings."""
        return await self._store.read()

    async def put(self, name: str, body: SetPolicy) -> RetentionSettings:
        """Set a policy. One that would delete all finished runs needs `confirm`.

        Raises:
            NotFoundError: the pipeline does not exist.
            ConflictError: it needs `confirm`.
            UnprocessableError: it is invalid.
            UnavailableError: the janitor does not answer.
        """
        try:
            policy = body.policy(name)
        except InvalidPolicyError as error:
            errors = [(error.field, str(error))]
            raise UnprocessableError("The policy is invalid", str(error), errors=errors) from error
        pattern = bool(set("*?[") & set(policy.pipeline))
        if not pattern and not await self._versions.exists(policy.pipeline):
            raise NotFoundError(
                f"Pipeline {policy.pipeline!r} does not exist",
                "list pipelines with `penstock versions list`, or use a pattern such as 'train*'",
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
        """Delete a policy.

        Raises:
            NotFoundError: it does not exist.
        """
        if name not in [one.name for one in (await self._store.read()).policies]:
            raise NotFoundError(f"Policy {name[:100]!r} does not exist", "list policies with GET /v1/retention")
        await self._store.change(
            lambda now: now.model_copy(update={"policies": [one for one in now.policies if one.name != name]})
        )

    async def archive_after(self, seconds: float | None) -> RetentionSettings:
        """Set how long after its end a run is archived; None: never."""
        return await self._store.change(lambda now: now.model_copy(update={"archive_after": seconds}))

    async def collect(self, body: CollectBody) -> JanitorReport:
        """Start a garbage collection, or a dry run of one."""
        return await self._start(job="collect", **body.model_dump())

    async def restore(self, body: RestoreBody) -> JanitorReport:
        """Start to restore archived runs into the log."""
        return await self._start(job="restore", run_id=body.run_id)

    async def archive(self, run_id: str) -> JanitorReport:
        """Start to archive a finished run."""
        return await self._start(job="archive", run_id=run_id)

    async def report(self, ident: str) -> JanitorReport:
        """Return the report of a job, which is updated while it runs.

        Raises:
            NotFoundError: the job does not exist.
        """
        entry = await self._bucket.get_fresh(f"report.{ident}") if ident.isalnum() else None
        if entry is None:
            raise NotFoundError(f"Job {ident[:100]!r} does not exist", "reports are stored for a day")
        return JanitorReport.model_validate_json(entry.value)

    async def delete_run(self, run_id: str, by: str) -> bool:
        """Delete a finished run; return False when it was deleted before.

        Raises:
            ConflictError: it has not finished, or is protected.
        """
        body = DeleteRun(run_id=run_id, by=by).model_dump_json().encode()
        answer = await self._bus.request(subjects.ARTIFACTS_DELETE_RUN, body, timeout=_PATIENCE)
        reply: DeleteReply = _read(DeleteReply, answer.data)
        if reply.unavailable:
            raise UnavailableError(reply.error or "the janitor does not answer")
        if reply.refused or reply.error:
            raise ConflictError(f"Run {run_id} cannot be deleted", reply.refused or reply.error or "")
        return reply.deleted

    async def _start(self, **fields: Any) -> JanitorReport:
        job = JanitorJob(id=secrets.token_hex(8), **fields)
        answer = await self._bus.request(subjects.ARTIFACTS_JOB, job.model_dump_json().encode(), timeout=_PATIENCE)
        reply: JanitorReply = _read(JanitorReply, answer.data)
        if reply.error is not None:
            raise UnavailableError(reply.error)
        return await self.report(job.id)

    async def _check(self, settings: RetentionSettings) -> None:
        report = await self._start(job="decide", settings=settings)
        deadline = time.monotonic() + _PATIENCE
        while report.state == "running" and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK)
            report = await self.report(report.id)
        if report.state != "finished":
            raise UnavailableError(report.error or "the janitor did not finish the dry run of the policy")
        if report.deletes_all_finished:
            raise ConflictError(
                f"The policy would delete all {report.deleted_count} finished runs", "confirm with `--yes`"
            )


def _read(model: type[Any], data: bytes) -> Any:
    try:
        return model.model_validate_json(data)
    except pydantic.ValidationError as error:
        raise BadReplyError("The artifacts service sent an invalid reply", "see its log") from error
