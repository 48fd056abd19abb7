"""A run again, as a new run: a version of the user's choice, the inputs of the earlier run but for those given."""

from __future__ import annotations

import dataclasses
import time

from penstock_contracts import api, commands
from penstock_core.facts import CacheMode, RunRequested
from penstock_gateway import inputs
from penstock_gateway.problems import ProblemError
from penstock_gateway.service import PROJECT, Accepted, GatewayService, check_refresh, deadline, fingerprint


async def rerun(service: GatewayService, run_id: str, body: api.RerunBody, key: str | None) -> Accepted:
    """Ask for a run like an earlier one; with a key, the same key is the same run.

    Raises:
        ProblemError: 404 no such run; 409 the key was used for another request; 422 the version must be chosen.
        InvalidInputs: the inputs do not fit the version.
    """
    parent = await service.requested(run_id)
    request = fingerprint({"rerun": run_id, **body.model_dump()})
    new_id, known = await service.claim(parent.pipeline, key, request)
    if known is not None:
        return known
    version = await _version(service, parent, body.version)
    values = inputs.check(parent.pipeline, version.pipeline.params, body.inputs, parent.inputs)
    await service.artifacts.check_inputs(values)
    now = time.time()
    wanted = dataclasses.replace(
        parent,
        run_id=new_id,
        version=version.version,
        inputs=values,
        trigger={"type": "rerun", "parent": run_id, "request": request},
        requested_at=now,
        deadline=deadline(version.pipeline, body.deadline, now),
        reuses="",
        caller=None,  # nobody waits for this one
        cache=CacheMode(body.cache),
        refresh=check_refresh(version.pipeline, body.cache, body.refresh),
    )
    return await service.admit(wanted)


async def _version(service: GatewayService, parent: RunRequested, choice: str | None) -> commands.Version:
    if choice is None:
        latest = await service.versions.latest(PROJECT, parent.pipeline)
        if latest != parent.version:
            raise ProblemError(
                422,
                f"Run {parent.run_id} was of version {parent.version} of pipeline {parent.pipeline!r}, "
                f"the latest is {latest}",
                "choose the version: 'same' runs what ran then, 'latest' the newest",
                errors=[("version", "must be 'same' or 'latest'")],
            )
    return await service.version(parent.pipeline, None if choice == "latest" else parent.version)
