"""The results that a resumed run reuses, appended to its log before its request, so that readers always see them all.

In: the earlier run, which must have finished, and the request of the new one. Out: `StepReused` facts in the new run's
log. Repeating it with the same idempotency key appends the same facts, which changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import orjson

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_contracts import fact_codec
from penstock_contracts.api import Resumed
from penstock_contracts.commands import Version
from penstock_core.artifacts import folders
from penstock_core.facts import Fact, RunRequested, StepReused
from penstock_core.pipeline import values
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.run import resume
from penstock_core.run.machine import SUCCESSFUL_STATUSES, Plan, RunState
from penstock_core.run.resume import Changes, Resumption
from penstock_core.run.state import item_of
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.errors import ConflictError, UnprocessableError
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.versions.pipeline_versions import PipelineVersions

_NAMES_SHOWN = 30
_AT_ONCE = 32
"""Artifacts that are looked up at the same time."""


class Resumptions:
    """Finds and appends the results that resumed runs reuse."""

    def __init__(self, log: ArchivedLog, reader: RunReader, versions: PipelineVersions, artifacts: Artifacts) -> None:
        self._log = log
        self._reader = reader
        self._versions = versions
        self._artifacts = artifacts

    async def prepare(
        self,
        parent: RunRequested,
        request: RunRequested,
        version: Version,
        begin: tuple[str, ...],
        *,
        key_given: bool,
    ) -> Resumed:
        """Append the results that a new run reuses.

        Args:
            parent: the request of the earlier run.
            request: that of the new run.
            version: of the new run.
            begin: keys of steps that run again in any case.
            key_given: whether the new run has an idempotency key.

        Raises:
            ConflictError: the earlier run has not finished, or the key was used for another request.
            UnprocessableError: a step in `begin` does not exist.
        """
        old = await self._reader.get(parent.run_id)
        if old.state.finished is None:
            raise ConflictError(
                f"Run {parent.run_id} has not finished", "only finished runs can be resumed: wait, or cancel it first"
            )
        plan = old.state.plan if version.version == parent.version else Plan(version.pipeline)
        _check_steps(plan, begin)
        changes = await self._changes(old, request, version, begin)
        found = await asyncio.to_thread(resume.resume, old.state, plan, request.run_id, changes)
        await self._log.append(found.facts)
        if key_given:
            await self._check_reused(request.run_id, found)
        return Resumed(from_run=parent.run_id, steps=found.steps, items=found.items, rerun_steps=found.rerun_steps)

    async def read(self, run_id: str) -> Resumed:
        """Return what an existing run reused; the reasons why the other steps ran are not stored."""
        facts = [record.fact for record in await self._log.read(run_id)]
        keys = [fact.key for fact in facts if isinstance(fact, StepReused)]
        items = Counter(node for key in keys if (node := item_of(key)[0]))
        parent = next((fact.reuses for fact in facts if isinstance(fact, RunRequested)), "")
        return Resumed(from_run=parent, steps=len(keys) - items.total(), items=items)

    async def _changes(
        self, old: FoldedRun, request: RunRequested, version: Version, begin: tuple[str, ...]
    ) -> Changes:
        before, now = old.requested.inputs, request.inputs
        changed = {name for name in {*before, *now} if _encoded(before.get(name)) != _encoded(now.get(name))}
        source, environments = False, frozenset[str]()
        if version.version != old.requested.version:
            earlier = await self._versions.find(old.requested.pipeline, old.requested.version)
            source = earlier is None or (earlier.code or earlier.source) != (version.code or version.source)
            environments = _changed_environments(earlier, version)
        return Changes(
            params=frozenset(changed),
            begin=begin,
            source=source,
            environments=environments,
            lost=await self._lost(old.state),
        )

    async def _lost(self, state: RunState) -> set[str]:
        """Return the digests of results' artifacts that are no longer in the store."""
        used: dict[str, ArtifactRef] = {}
        for step in state.steps.values():
            for one in (step, *(step.mapped.items.values() if step.mapped is not None else ())):
                if one.status in SUCCESSFUL_STATUSES:
                    for value in (*one.outputs.values(), *one.artifacts.values()):
                        used |= {ref.sha256: ref for ref in values.references(value)}
        refs = list(used.values())
        lost: set[str] = set()

        async def size(ref: ArtifactRef) -> int | None:
            # The new run is about to refer to it: protect it from garbage collection.
            return await self._artifacts.size(ref.sha256, keep=True, folder=ref.media_type == folders.MEDIA_TYPE)

        for start in range(0, len(refs), _AT_ONCE):
            part = refs[start : start + _AT_ONCE]
            sizes = await asyncio.gather(*map(size, part))
            lost |= {ref.sha256 for ref, size in zip(part, sizes, strict=True) if size is None}
        return lost

    async def _check_reused(self, run_id: str, found: Resumption) -> None:
        """Refuse the key when an abandoned request with the same key reused other results."""
        mine = {fact.tail: fact_codec.encode(fact) for fact in found.facts}
        existing: list[Fact] = [record.fact for record in await self._log.read(run_id)]
        if any(isinstance(fact, StepReused) and mine.get(fact.tail) != fact_codec.encode(fact) for fact in existing):
            raise ConflictError(
                "The idempotency key was used for another request", "that request was rejected: use a new key"
            )


def _check_steps(plan: Plan, begin: tuple[str, ...]) -> None:
    unknown = resume.unknown(plan, begin)
    if unknown:
        shown = ", ".join([*plan.nodes][:_NAMES_SHOWN]) + (" …" if len(plan.nodes) > _NAMES_SHOWN else "")
        raise UnprocessableError(
            f"Pipeline {plan.pipeline.name!r} has no step {unknown[0][:100]!r} to resume from",
            f"its steps: {shown}",
            errors=[("from_step", f"is not a step of the pipeline: {unknown[0][:100]!r}")],
        )


def _encoded(value: values.Value | None) -> bytes:
    """Return a value as JSON, in which 1 and True differ."""
    return orjson.dumps(value)


def _changed_environments(earlier: Version | None, version: Version) -> frozenset[str]:
    """Return the names of environments whose packages differ; empty for that which compiled the pipeline."""
    before = _digests(earlier) if earlier is not None else {}
    return frozenset(name for name, digest in _digests(version).items() if before.get(name) != digest)


def _digests(version: Version) -> dict[str, str]:
    return {"": version.environment.digest, **{name: one.digest for name, one in version.environments.items()}}
