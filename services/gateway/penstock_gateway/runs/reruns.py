"""Runs an earlier run again as a new run, with a chosen version and changed inputs.

A resumed run reuses the results of the earlier run that are still valid: see `resumption`.
"""

from __future__ import annotations

import dataclasses

from penstock_contracts.api import RerunBody, RunAccepted
from penstock_contracts.commands import Version
from penstock_core import script_runs
from penstock_core.deployments.partitions import LABEL
from penstock_core.facts import CacheMode, RunRequested
from penstock_core.requests import Options
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.runs.resumption import Resumptions
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_requests import RunRequests, fingerprint
from penstock_gateway.versions.pipeline_versions import PipelineVersions, script_experiment


class Reruns:
    """Reruns and resumes runs."""

    def __init__(
        self,
        requests: RunRequests,
        reader: RunReader,
        versions: PipelineVersions,
        resumptions: Resumptions,
    ) -> None:
        self._requests = requests
        self._reader = reader
        self._versions = versions
        self._resumptions = resumptions

    async def rerun(self, run_id: str, body: RerunBody, key: str | None, by: str) -> RunAccepted:
        """Rerun or resume a run for the principal `by`; with an idempotency key, the same key is the same run.

        Raises:
            NotFoundError: the run does not exist.
            ConflictError: the key was used for another request, or the run to resume has not finished.
            UnprocessableError: the version must be chosen, or a step does not exist.
            InvalidInputsError: the inputs do not fit the parameters of the version.
        """
        parent = await self._reader.request(run_id)
        if parent.version == script_runs.VERSION:
            raise script_experiment(parent.pipeline)
        request = fingerprint({"rerun": run_id, **body.model_dump()})
        new_id, existing = await self._requests.claim(parent.pipeline, key, request)
        resumes = body.resume or body.from_step is not None
        if existing is not None:
            if not resumes:
                return existing
            return existing.model_copy(update={"resumed": await self._resumptions.read(existing.run_id)})
        version = await self._version(parent, body.version)
        options = Options(
            trigger={"type": "rerun", "parent": run_id, "request": request, **_partition(parent)},
            requested_by=by,
            labels=parent.labels,
            priority=parent.priority,
            deadline=body.deadline,
            cache=CacheMode(body.cache),
            refresh=body.refresh,
            shadow=parent.shadow,
        )
        fact = await self._requests.build(new_id, version, body.inputs, options, parent)
        if not resumes:
            return await self._requests.append(fact)
        begin = (*fact.refresh, *(() if body.from_step is None else (body.from_step,)))
        resumed = await self._resumptions.prepare(parent, fact, version, begin, key_given=key is not None)
        trigger = fact.trigger | {"type": "resume"} | ({"from": body.from_step} if body.from_step else {})
        accepted = await self._requests.append(dataclasses.replace(fact, trigger=trigger, reuses=run_id))
        return accepted.model_copy(update={"resumed": resumed})

    async def _version(self, parent: RunRequested, choice: str | int | None) -> Version:
        if choice is None:
            published = await self._versions.publications(parent.pipeline)
            if published is not None and parent.version in published.versions and published.latest != parent.version:
                raise UnprocessableError(
                    f"Run {parent.run_id} used version {parent.version} of pipeline {parent.pipeline!r}, "
                    f"the latest is {published.latest}",
                    "choose the version: 'same', or 'latest' for the version that was published last",
                    errors=[("version", "must be 'same', 'latest' or a number")],
                )
        numbers = {None: parent.version, "same": parent.version, "latest": None}
        return await self._versions.get(parent.pipeline, choice if isinstance(choice, int) else numbers[choice])


def _partition(parent: RunRequested) -> dict[str, str]:
    """The deployment and the partition of a run: a rerun computes the same partition."""
    return {name: parent.trigger[name] for name in ("deployment", LABEL) if LABEL in parent.trigger}
