"""Schedules in their bucket, which the cron service watches. Invalid schedules are refused before they are stored."""

from __future__ import annotations

import time
from dataclasses import asdict

from penstock_adapters.cron_expressions import ScheduleError, next_tick
from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_contracts.api import ScheduleList
from penstock_contracts.commands import Schedule, Version
from penstock_core import ids, requests
from penstock_core.errors import InvalidIdError
from penstock_core.pipeline.values import Stored
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.errors import NotFoundError, UnprocessableError
from penstock_gateway.project import PROJECT
from penstock_gateway.registry import model_inputs
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.versions.pipeline_versions import PipelineVersions


class Schedules:
    """Lists, gets, applies and deletes schedules."""

    def __init__(self, bucket: Bucket, versions: PipelineVersions, models: Registry, artifacts: Artifacts) -> None:
        self._bucket = bucket
        self._versions = versions
        self._models = models
        self._artifacts = artifacts

    async def list(self) -> ScheduleList:
        """Return all schedules by name."""
        found = [Schedule.model_validate_json(entry.value) for entry in await self._bucket.list()]
        return ScheduleList(schedules=sorted(found, key=lambda schedule: schedule.name))

    async def get(self, name: str) -> Schedule:
        """Return a schedule.

        Raises:
            NotFoundError: it does not exist.
        """
        return Schedule.model_validate_json((await self._entry(name)).value)

    async def apply(self, schedule: Schedule) -> Schedule:
        """Create or replace a schedule that would work now.

        Raises:
            NotFoundError: the pipeline or the version does not exist.
            UnprocessableError: the expression or the time zone is invalid, or the version is not published.
            InvalidInputsError: the inputs do not fit the parameters.
        """
        if schedule.project != PROJECT:
            raise _invalid("project", f"project {schedule.project[:100]!r} does not exist")
        for field, cron, tz in (("cron", schedule.cron, "UTC"), ("tz", "* * * * *", schedule.tz)):
            try:
                next_tick(cron, tz, time.time())
            except ScheduleError as error:
                raise _invalid(field, str(error)) from error
        version = await self._versions.get(schedule.pipeline, schedule.version)
        await self._check_published(version)
        inputs = await model_inputs.resolve(self._models, version, schedule.inputs)
        values = requests.check_inputs(version.pipeline, inputs)
        await self._artifacts.check_inputs(values)
        # References to artifacts are stored complete. Defaults of parameters stay those of the version that runs, and
        # models are resolved at each tick.
        given = {
            name: asdict(values[name])
            if isinstance(values[name], Stored) and name not in (inputs.models or {})
            else plain
            for name, plain in schedule.inputs.items()
        }
        schedule = schedule.model_copy(update={"inputs": given})
        await self._bucket.put(schedule.name, schedule.model_dump_json().encode())
        return schedule

    async def delete(self, name: str) -> None:
        """Delete a schedule.

        Raises:
            NotFoundError: it does not exist.
        """
        await self._entry(name)
        await self._bucket.delete(name)

    async def _check_published(self, version: Version) -> None:
        published = await self._versions.publications(version.name)
        if published is None or version.version not in published.versions:
            known = ", ".join(map(str, sorted(published.versions))) if published else "none"
            raise _invalid(
                "version",
                f"version {version.version} of pipeline {version.name!r} is an experiment (published versions: "
                f"{known}): publish it with `penstock register FILE`",
            )

    async def _entry(self, name: str) -> Entry:
        try:
            entry = await self._bucket.get(ids.check_name(name, "schedule"))
        except InvalidIdError:
            entry = None
        if entry is None:
            raise NotFoundError(f"Schedule {name[:100]!r} does not exist", "list schedules with GET /v1/schedules")
        return entry


def _invalid(field: str, message: str) -> UnprocessableError:
    return UnprocessableError("The schedule is invalid", f"{field}: {message}", errors=[(field, message)])
