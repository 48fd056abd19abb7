"""Schedules in their bucket. The cron service watches the bucket; what is wrong is refused before that."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import orjson

from penstock_adapters.cron_expressions import ScheduleError, next_tick
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_contracts.commands import Schedule, Version
from penstock_core import ids, requests
from penstock_core.errors import InvalidIdError
from penstock_core.pipeline.values import Stored
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.service import PROJECT, GatewayService


async def list_all(bucket: Bucket) -> list[dict[str, Any]]:
    """All readable schedules, by name."""
    found = [orjson.loads(entry.value) for entry in await bucket.list()]
    return sorted(found, key=lambda schedule: str(schedule.get("name")))


async def get(bucket: Bucket, name: str) -> bytes:
    """A schedule as JSON.

    Raises:
        ProblemError: 404, there is none of this name.
    """
    return (await _entry(bucket, name)).value


async def put(service: GatewayService, schedule: Schedule) -> bytes:
    """Store a schedule that would work now; returns it as JSON.

    Raises:
        ProblemError: 404 no such pipeline or version; 422 the expression or the time zone is wrong, or the version is
            not published.
        InvalidInputs: the inputs do not fit.
    """
    if schedule.project != PROJECT:
        raise _wrong("project", f"there is no project {schedule.project[:100]!r} here")
    for field, cron, tz in (("cron", schedule.cron, "UTC"), ("tz", "* * * * *", schedule.tz)):
        try:
            next_tick(cron, tz, time.time())
        except ScheduleError as error:
            raise _wrong(field, str(error)) from error
    version = await service.version(schedule.pipeline, schedule.version)
    await _check_published(service, version)
    inputs = await service.run_inputs(version, schedule.inputs)
    values = requests.check_inputs(version.pipeline, inputs)
    await service.artifacts.check_inputs(values)
    # What is left out of a reference to an artifact is filled in; defaults of parameters stay those of the version, and
    # a model is looked up at each tick.
    given = {
        name: asdict(values[name]) if isinstance(values[name], Stored) and name not in (inputs.models or {}) else plain
        for name, plain in schedule.inputs.items()
    }
    schedule = schedule.model_copy(update={"inputs": given})
    body = schedule.model_dump_json().encode()
    await service.schedules.put(schedule.name, body)
    return body


async def _check_published(service: GatewayService, version: Version) -> None:
    published = await service.versions.published(PROJECT, version.name)
    if published is None or version.version not in published.versions:
        known = ", ".join(map(str, sorted(published.versions))) if published else "none"
        raise _wrong(
            "version",
            f"version {version.version} of pipeline {version.name!r} is an experiment (published versions: {known}): "
            "publish it with `penstock register FILE`",
        )


async def delete(bucket: Bucket, name: str) -> None:
    """Remove a schedule.

    Raises:
        ProblemError: 404, there is none of this name.
    """
    await _entry(bucket, name)
    await bucket.delete(name)


async def _entry(bucket: Bucket, name: str) -> Any:
    try:
        entry = await bucket.get(ids.check_name(name, "schedule"))
    except InvalidIdError:
        entry = None
    if entry is None:
        raise ProblemError(404, f"There is no schedule {name[:100]!r}", "see /v1/schedules for those that there are")
    return entry


def _wrong(field: str, message: str) -> ProblemError:
    return ProblemError(422, "The schedule is not valid", f"{field}: {message}", errors=[(field, message)])
