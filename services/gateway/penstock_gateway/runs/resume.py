"""What a resumed run takes over, written to its log before the request, so that whoever reads that has it all.

In: the earlier run, which must be over, and the request of the new one. Out: `StepReused` facts in the new run's log.
Asked again with the same key, the same facts are appended again, which changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson

from penstock_contracts import commands, fact_codec
from penstock_core import folders
from penstock_core.facts import Fact, RunRequested, StepReused
from penstock_core.pipeline import values
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.run import resume
from penstock_core.run.machine import SUCCESSFUL_STATUSES, Plan, RunState
from penstock_core.run.resume import Changes, Resumption
from penstock_core.run.state import item_of
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.service import PROJECT, GatewayService

_NAMES_SHOWN = 30
_AT_ONCE = 32
"""Objects that are asked for at the same time."""


async def prepare(
    service: GatewayService,
    parent: RunRequested,
    wanted: RunRequested,
    version: commands.Version,
    begin: tuple[str, ...],
    *,
    known_key: bool,
) -> dict[str, Any]:
    """Append what `wanted` takes over from `parent`; gives the fields of `api.Resumed`.

    Raises:
        ProblemError: 409 the earlier run is not over, or the key was used for another request; 422 no such step.
    """
    old = await service.folded(parent.run_id)
    if old.state.finished is None:
        raise ProblemError(
            409,
            f"Run {parent.run_id} is not over",
            "only a run that is over can be resumed: wait for its end, or cancel it first",
        )
    plan = old.state.plan if version.version == parent.version else Plan(version.pipeline)
    _check_steps(plan, begin)
    changes = await _changes(service, old, wanted, version, begin)
    found = await asyncio.to_thread(resume.resume, old.state, plan, wanted.run_id, changes)
    await service.runs.append(found.facts)
    if known_key:
        await _check_others(service, wanted.run_id, found)
    return {"from_run": parent.run_id, "steps": found.steps, "items": found.items, "rerun_steps": found.rerun_steps}


async def told(service: GatewayService, run_id: str) -> dict[str, Any]:
    """The same fields of a run that was resumed before, but why the other steps run again."""
    facts = [record.fact for record in await service.runs.read(run_id)]
    keys = [fact.key for fact in facts if isinstance(fact, StepReused)]
    items = Counter(node for key in keys if (node := item_of(key)[0]))
    parent = next((fact.reuses for fact in facts if isinstance(fact, RunRequested)), "")
    return {"from_run": parent, "steps": len(keys) - items.total(), "items": items, "rerun_steps": {}}


def _check_steps(plan: Plan, begin: tuple[str, ...]) -> None:
    unknown = resume.unknown(plan, begin)
    if unknown:
        shown = ", ".join([*plan.nodes][:_NAMES_SHOWN]) + (" …" if len(plan.nodes) > _NAMES_SHOWN else "")
        raise ProblemError(
            422,
            f"Pipeline {plan.pipeline.name!r} has no step {unknown[0][:100]!r} to begin again from",
            f"its steps: {shown}",
            errors=[("from_step", f"is no step of the pipeline: {unknown[0][:100]!r}")],
        )


async def _changes(
    service: GatewayService, old: FoldedRun, wanted: RunRequested, version: commands.Version, begin: tuple[str, ...]
) -> Changes:
    before, now = old.requested.inputs, wanted.inputs
    changed = {name for name in {*before, *now} if _text(before.get(name)) != _text(now.get(name))}
    source = environment = False
    if version.version != old.requested.version:
        earlier = await service.versions.get(PROJECT, old.requested.pipeline, old.requested.version)
        source = earlier is None or (earlier.code or earlier.source) != (version.code or version.source)
        environment = earlier is None or earlier.environment.digest != version.environment.digest
    return Changes(
        params=frozenset(changed),
        begin=begin,
        source=source,
        environment=environment,
        lost=await _lost(service, old.state),
    )


def _text(value: values.Value | None) -> bytes:
    """A value as it travels: 1 and True are not the same."""
    return orjson.dumps(value)


async def _lost(service: GatewayService, state: RunState) -> set[str]:
    """The artifacts of results that are not in the store any more."""
    named: dict[str, ArtifactRef] = {}
    for step in state.steps.values():
        for one in (step, *(step.mapped.items.values() if step.mapped is not None else ())):
            if one.status in SUCCESSFUL_STATUSES:
                for value in (*one.outputs.values(), *one.artifacts.values()):
                    named |= {ref.sha256: ref for ref in values.references(value)}
    lost: set[str] = set()
    asked = list(named.values())

    async def size(ref: ArtifactRef) -> int | None:
        # It is about to be named by the new run.
        return await service.artifacts.size(ref.sha256, keep=True, folder=ref.media_type == folders.MEDIA_TYPE)

    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        sizes = await asyncio.gather(*map(size, part))
        lost |= {ref.sha256 for ref, size in zip(part, sizes, strict=True) if size is None}
    return lost


async def _check_others(service: GatewayService, run_id: str, found: Resumption) -> None:
    """Another request with the same key may have been given up half way: what it took over must not count here."""
    mine = {fact.tail: fact_codec.encode(fact) for fact in found.facts}
    there: list[Fact] = [record.fact for record in await service.runs.read(run_id)]
    if any(isinstance(fact, StepReused) and mine.get(fact.tail) != fact_codec.encode(fact) for fact in there):
        raise ProblemError(
            409, "The idempotency key was used for another request", "that one was not accepted: use a new key"
        )
