"""Submits runs: checks the request against the pipeline version and appends it to the log.

A request with an idempotency key can be repeated: the same key and the same body give the existing run.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.buckets.limits import LimitSizes
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.gathered_appends import GatheredAppends
from penstock_adapters.nats.known_pools import KnownPools
from penstock_contracts import fact_codec, subjects
from penstock_contracts.api import RunAccepted, RunBody
from penstock_contracts.commands import Version
from penstock_core import capacity, ids, requests
from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.facts import CacheMode, RunDeleted, RunRequested
from penstock_core.pipeline.ir import Pipeline
from penstock_core.requests import Options, Target
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.errors import ConflictError, UnprocessableError
from penstock_gateway.message_size import check_message_size
from penstock_gateway.registry import model_inputs
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.versions.pipeline_versions import PipelineVersions

_STARTING = 15.0
"""Seconds in which executors of a platform that has just started are expected."""


class RunRequests:
    """Submits runs of one project."""

    def __init__(
        self,
        bus: Bus,
        log: ArchivedLog,
        appends: GatheredAppends,
        reader: RunReader,
        versions: PipelineVersions,
        models: Registry,
        artifacts: Artifacts,
        pools: KnownPools,
        limit_sizes: LimitSizes,
        project: str,
        *,
        started: float,
    ) -> None:
        self._bus = bus
        self._log = log
        self._appends = appends
        self._reader = reader
        self._versions = versions
        self._models = models
        self._artifacts = artifacts
        self._limit_sizes = limit_sizes
        self._known_pools = pools
        self._project = project
        self._started = started

    async def submit(
        self,
        body: RunBody,
        key: str | None,
        by: str,
        trigger: Mapping[str, str] | None = None,
        limit: DeploymentLimit | None = None,
    ) -> RunAccepted:
        """Submit a run for the principal `by`; with an idempotency key, the same key is the same run.

        `trigger` has fields of the run's trigger in addition to its type, such as a deployment; `limit` is that of the
        active runs of the deployment.

        Raises:
            NotFoundError: the pipeline or the version does not exist.
            ConflictError: the key was used for another request.
            InvalidInputsError: inputs, labels or steps to refresh are invalid.
        """
        ids.check_name(body.pipeline, "pipeline")
        request = fingerprint(body.model_dump())
        run_id, existing = await self.claim(body.pipeline, key, request)
        if existing is not None:
            return existing
        version, pools = await asyncio.gather(
            self._versions.get(body.pipeline, body.version), self._limit_sizes.limited_pools()
        )
        options = Options(
            trigger={"type": "manual", "request": request, **(trigger or {})},
            requested_by=by,
            labels=body.labels,
            priority=body.priority,
            deadline=body.deadline,
            cache=CacheMode(body.cache),
            refresh=body.refresh,
            deployment_limit=limit,
        )
        accepted = await self.append(await self.build(run_id, version, body.inputs, options, pools=pools))
        warnings = await self._warnings(version.pipeline)
        return accepted.model_copy(update={"warnings": warnings}) if warnings else accepted

    async def _warnings(self, pipeline: Pipeline) -> list[str]:
        available = await self._known_pools.available(pipeline)
        # Executors of a platform that starts are about to be connected.
        starting = not available.executors and time.monotonic() - self._started < _STARTING
        return [] if starting else capacity.waiting(pipeline, available)

    async def build(
        self,
        run_id: str,
        version: Version,
        given: Mapping[str, Any],
        options: Options,
        earlier: RunRequested | None = None,
        pools: Collection[str] | None = None,
    ) -> RunRequested:
        """Build the request of a run.

        Args:
            run_id: of the run.
            version: of the pipeline.
            given: JSON inputs by parameter.
            options: of the run.
            earlier: the request of an earlier run, for parameters that are not given.
            pools: names of the pools with a limited size; None: they are read.

        Raises:
            InvalidInputsError: inputs, labels or steps to refresh are invalid, or a step has an unknown pool.
        """
        inputs = await model_inputs.resolve(self._models, version, given, earlier)
        target = Target(
            project=self._project,
            pipeline=version.pipeline,
            version=version.version,
            limited_pools=await self._limit_sizes.limited_pools() if pools is None else pools,
            available=await self._known_pools.available(version.pipeline),
            environments=version.declared(),
        )
        fact = requests.build(run_id, target, inputs, options, time.time())
        await self._artifacts.check_inputs(fact.inputs)
        return fact

    async def claim(self, pipeline: str, key: str | None, request: str) -> tuple[str, RunAccepted | None]:
        """Return the ID for a new run, and the existing run if the idempotency key was used before.

        Raises:
            ConflictError: the key was used for a request with another fingerprint, or its run was deleted.
        """
        if key is None:
            return ids.run_id(time.time_ns() // 1_000_000, os.urandom(10)), None
        run_id = ids.run_id_from_key(self._project, pipeline, key)
        requested, deleted = subjects.run(run_id, "requested"), subjects.run(run_id, "deleted")
        known = {subject: record.fact for subject, record in (await self._log.last([requested, deleted])).items()}
        existing = known.get(requested)
        if isinstance(existing, RunRequested):
            return run_id, _existing(existing, request)
        deletion = known.get(deleted)
        if isinstance(deletion, RunDeleted):
            raise ConflictError(
                f"The idempotency key belongs to run {run_id}, which was deleted",
                f"{deletion.reason or 'deleted'}; use a new key for a new run",
            )
        return run_id, None

    async def append(self, fact: RunRequested) -> RunAccepted:
        """Append the request of a run, whose trigger has the fingerprint as `request`.

        Raises:
            ConflictError: the run's ID belongs to another request.
            UnprocessableError: the inputs cannot be stored.
            ContentTooLargeError: the request does not fit into a message.
        """
        self._check_readable(fact)
        if await self._appends.append(fact):
            return RunAccepted(run_id=fact.run_id, pipeline=fact.pipeline, version=fact.version, created=True)
        # Another request with the same key was faster.
        existing = await self._reader.find_request(fact.run_id)
        if existing is None:
            raise ConflictError("The log has an unreadable request under this run ID", "use another idempotency key")
        return _existing(existing, fact.trigger["request"])

    def _check_readable(self, fact: RunRequested) -> None:
        """Refuse a fact that cannot be read back: its subject in the log could never be used again."""
        body = fact_codec.encode(fact)
        read = fact_codec.decode(fact_codec.subject(fact), body)
        if isinstance(read, fact_codec.UnreadableFact):
            raise UnprocessableError("The inputs cannot be stored", f"{read.why}: pass a file or an artifact instead")
        check_message_size(self._bus, len(body), "pass large inputs as files or artifacts")


def fingerprint(request: Any) -> str:
    """Return a digest of JSON data: equal for equal requests."""
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _existing(fact: RunRequested, request: str) -> RunAccepted:
    if fact.trigger.get("request") != request:
        raise ConflictError(
            "The idempotency key was used for another request", f"it belongs to run {fact.run_id}: use a new key"
        )
    return RunAccepted(run_id=fact.run_id, pipeline=fact.pipeline, version=fact.version, created=False)
