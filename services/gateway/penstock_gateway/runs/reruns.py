"""A run again, as a new run: a version of the user's choice, the inputs of the earlier run but for those given.

Resumed, it takes over the results of the earlier run that still count: see `resuming`.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

from penstock_contracts import api, commands
from penstock_core import requests, script_runs
from penstock_core.facts import CacheMode, RunRequested
from penstock_core.requests import Options
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.runs import resume
from penstock_gateway.service import PROJECT, Accepted, GatewayService, fingerprint
from penstock_gateway.tracked import importer


class Rerun(NamedTuple):
    """What was accepted, and for a resumed run what it takes over."""

    accepted: Accepted
    resumed: dict[str, Any] | None = None


async def rerun(service: GatewayService, run_id: str, body: api.RerunBody, key: str | None) -> Rerun:
    """Ask for a run like an earlier one, or for the rest of it; with a key, the same key is the same run.

    Raises:
        ProblemError: 404 no such run; 409 the key was used for another request, or the run to be resumed is not over;
            422 the version must be chosen, or there is no such step.
        InvalidInputs: the inputs do not fit the version.
    """
    parent = await service.requested(run_id)
    if parent.version == script_runs.VERSION:
        raise importer.no_pipeline(parent.pipeline)
    request = fingerprint({"rerun": run_id, **body.model_dump()})
    new_id, known = await service.claim(parent.pipeline, key, request)
    resumes = body.resume or body.from_step is not None
    if known is not None:
        return Rerun(known, await resume.told(service, known.run_id) if resumes else None)
    version = await _version(service, parent, body.version)
    inputs = await service.run_inputs(version, body.inputs, parent.inputs)
    options = Options(
        trigger={"type": "rerun", "parent": run_id, "request": request},
        labels=parent.labels,
        priority=parent.priority,
        deadline=body.deadline,
        cache=CacheMode(body.cache),
        refresh=body.refresh,
    )
    wanted = requests.build(new_id, await service.target(version), inputs, options, time.time())
    await service.artifacts.check_inputs(wanted.inputs)
    if not resumes:
        return Rerun(await service.admit(wanted))
    begin = (*wanted.refresh, *(() if body.from_step is None else (body.from_step,)))
    found = await resume.prepare(service, parent, wanted, version, begin, known_key=key is not None)
    trigger = wanted.trigger | {"type": "resume"} | ({"from": body.from_step} if body.from_step else {})
    accepted = await service.admit(dataclasses.replace(wanted, trigger=trigger, reuses=run_id))
    return Rerun(accepted, found)


async def _version(service: GatewayService, parent: RunRequested, choice: str | int | None) -> commands.Version:
    if choice is None:
        published = await service.versions.published(PROJECT, parent.pipeline)
        if published is not None and parent.version in published.versions and published.latest != parent.version:
            raise ProblemError(
                422,
                f"Run {parent.run_id} was of version {parent.version} of pipeline {parent.pipeline!r}, "
                f"the latest is {published.latest}",
                "choose the version: 'same' runs what ran then, 'latest' the version that was published last",
                errors=[("version", "must be 'same', 'latest' or a number")],
            )
    numbers = {None: parent.version, "same": parent.version, "latest": None}
    return await service.version(parent.pipeline, choice if isinstance(choice, int) else numbers[choice])
