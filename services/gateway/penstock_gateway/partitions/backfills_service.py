"""Backfills as the API starts, reads and changes them. The triggers service drives them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from penstock_adapters.backfill_items import BackfillItems as Items
from penstock_adapters.cel import CelEvaluator
from penstock_adapters.nats.backfill_log import BackfillLog
from penstock_adapters.nats.partition_log import PartitionLog
from penstock_contracts.backfills import (
    KEYS_LIMIT,
    BackfillBody,
    BackfillCancel,
    BackfillChange,
    BackfillItem,
    BackfillItems,
    BackfillList,
    BackfillView,
)
from penstock_core import ids
from penstock_core.deployments import backfills, partitions
from penstock_core.deployments.backfill_facts import BackfillFact, BackfillStarted
from penstock_core.deployments.backfills import FINISHED, Backfill
from penstock_core.deployments.definition import CronTrigger, Definition
from penstock_core.errors import InputError
from penstock_gateway.deployments.deployments_service import Deployments
from penstock_gateway.errors import ConflictError, UnprocessableError
from penstock_gateway.partitions import selection
from penstock_gateway.partitions.partitions_service import DeploymentPartitions
from penstock_gateway.runs.run_requests import RunRequests, fingerprint
from penstock_gateway.versions.pipeline_versions import PipelineVersions

_INPUTS_LIMIT = 256 * 1024


class Backfills:
    """The backfills of one project."""

    def __init__(
        self,
        log: BackfillLog,
        deployments: Deployments,
        partition_log: PartitionLog,
        partitions: DeploymentPartitions,
        versions: PipelineVersions,
        requests: RunRequests,
        evaluator: CelEvaluator,
    ) -> None:
        self._log = log
        self._deployments = deployments
        self._partition_log = partition_log
        self._partitions = partitions
        self._versions = versions
        self._requests = requests
        self._evaluator = evaluator
        self._project = deployments.project

    async def start(self, body: BackfillBody, key: str | None, by: str) -> BackfillView:
        """Start a backfill for the principal `by`; with an idempotency key, the same key is the same backfill.

        Raises:
            NoDeploymentError: the deployment does not exist.
            UnprocessableError: nothing, or nothing that exists, is selected.
            InvalidInputsError: the inputs of its runs do not fit the pipeline.
            ConflictError: the key was used for another request.
        """
        request = fingerprint(body.model_dump())
        id = ids.run_id_from_key(self._project, "", f"\0backfill:{key}") if key else _new_id()
        known = await self._log.get(self._project, id)
        if known.started is not None:
            return await self._existing(known, request)
        started, items = await self._selected(id, body, by, request)
        view = _view(backfills.evolve(Backfill(self._project, id), started, 1))
        if body.dry_run:
            numbers = _in_order(started)[:KEYS_LIMIT]
            return view.model_copy(update={"id": "", "keys": [items.key(number) for number in numbers]})
        changed, found = await self._log.change(
            self._project, id, lambda backfill: [started] if backfill.started is None else []
        )
        return await self._existing(found, request) if not changed else _view(found, created=True)

    async def list(self, deployment: str | None, limit: int) -> BackfillList:
        """Return the latest backfills, of one deployment or of all, newest first."""
        found = [one for one in await self._log.all(self._project) if deployment in (None, one.deployment)]
        latest = sorted(found, key=lambda one: one.at, reverse=True)[:limit]
        return BackfillList(backfills=[_view(await self._log.get(self._project, one.backfill)) for one in latest])

    async def get(self, id: str) -> BackfillView:
        """Return a backfill.

        Raises:
            NoBackfillError: it does not exist.
        """
        return await self._shown(await self._log.get(self._project, id))

    async def items(self, id: str, first: int, limit: int) -> BackfillItems:
        """Return items of a backfill, from an index on. Raises as `get`."""
        backfill = await self._log.get(self._project, id)
        started = backfill.require()
        items = await self._items(started)
        numbers = partitions.expand(started.ranges)
        # Ticks are computed one after the other, from the first one on.
        shown = await asyncio.to_thread(_listed, backfill, numbers[first : first + limit], items)
        return BackfillItems(items=[*shown], next=first + limit if first + limit < len(numbers) else None)

    async def pause(self, id: str, body: BackfillChange, by: str) -> BackfillView:
        """Pause a backfill: no further items start.

        Raises:
            NoBackfillError: it does not exist.
            BackfillError: it has finished.
        """
        return await self._change(id, lambda found: backfills.pause(found, by, time.time(), body.reason))

    async def resume(self, id: str, body: BackfillChange, by: str) -> BackfillView:
        """Resume a paused backfill. Raises as `pause`."""
        return await self._change(id, lambda found: backfills.resume(found, by, time.time(), body.reason))

    async def cancel(self, id: str, body: BackfillCancel, by: str) -> BackfillView:
        """Cancel a backfill, with or without its active runs. Raises as `pause`."""
        return await self._change(
            id, lambda found: backfills.cancel(found, by, time.time(), body.reason, runs=body.runs)
        )

    async def retry(self, id: str, body: BackfillChange, by: str) -> BackfillView:
        """Run the items once more that did not succeed. Raises as `pause`, and if there are none."""
        return await self._change(id, lambda found: backfills.retry(found, by, time.time(), body.reason))

    async def _change(self, id: str, decide: Callable[[Backfill], Sequence[BackfillFact]]) -> BackfillView:
        _, found = await self._log.change(self._project, id, decide)
        return await self._shown(found)

    async def _selected(self, id: str, body: BackfillBody, by: str, request: str) -> tuple[BackfillStarted, Items]:
        """The first fact of a backfill whose runs can be requested."""
        name = body.deployment
        deployment = await self._deployments.log.get(self._project, name)
        definition = deployment.require()
        version = await self._versions.get(definition.pipeline, definition.version)
        found = await self._partition_log.of(self._project, name, definition)
        if found is None:
            chosen = await selection.select_ticks(definition, name, body)
        else:
            chosen = await selection.select_partitions(found, self._partitions, name, body)
        if not chosen.numbers:
            message = "nothing is selected: no partition or tick in this range, or in these states, exists yet"
            raise UnprocessableError("The backfill is empty", message, errors=[("from", message)])
        _check_inputs(body.inputs, definition, chosen.trigger)
        started = BackfillStarted(
            project=self._project,
            backfill=id,
            number=1,
            by=by,
            at=time.time(),
            deployment=name,
            revision=deployment.revision,
            pipeline=definition.pipeline,
            version=version.version,
            ranges=partitions.ranges(chosen.numbers),
            max_active=body.max_active,
            newest_first=body.order == "newest",
            inputs=body.inputs,
            request=request,
            trigger=chosen.trigger,
            since=chosen.since,
        )
        items = Items(started, definition, found)
        first = chosen.numbers[0]
        # The requests of all its runs are alike, so what is wrong is found before anything starts.
        given = items.inputs(first, self._evaluator)
        await self._requests.build(id, version, given, items.options(first))
        return started, items

    async def _items(self, started: BackfillStarted) -> Items:
        deployment = await self._deployments.log.get(self._project, started.deployment)
        definition = deployment.definition(started.revision)
        found = await self._partition_log.of(self._project, started.deployment, definition)
        return Items(started, definition, None if started.trigger else found)

    async def _existing(self, backfill: Backfill, request: str) -> BackfillView:
        if backfill.require().request != request:
            raise ConflictError(
                "The idempotency key was used for another request",
                f"it belongs to backfill {backfill.id}: use a new key",
            )
        return await self._shown(backfill)

    async def _shown(self, backfill: Backfill) -> BackfillView:
        view = _view(backfill)
        if not backfill.errors:
            return view
        items = await self._items(backfill.require())
        return view.model_copy(
            update={"errors": {_item(backfill, number, items).key: text for number, text in backfill.errors.items()}}
        )


def _new_id() -> str:
    return ids.run_id(time.time_ns() // 1_000_000, os.urandom(10))


def _in_order(started: BackfillStarted) -> Sequence[int]:
    """The numbers of the items of a backfill, in the order in which they run."""
    numbers = partitions.expand(started.ranges)
    return numbers[::-1] if started.newest_first else numbers


def _listed(backfill: Backfill, numbers: Sequence[int], items: Items) -> Sequence[BackfillItem]:
    return [_item(backfill, number, items) for number in numbers]


def _item(backfill: Backfill, number: int, items: Items) -> BackfillItem:
    outcome = backfill.ended.get(number)
    state = "active" if number in backfill.active else "pending" if outcome is None else outcome.value
    try:
        key = items.key(number)
    except InputError:  # the rules of a time zone have changed since
        return BackfillItem(key=f"tick {number}", state=state)
    run_id = None if state in ("pending", "rejected") else backfill.run_id(number, key)
    return BackfillItem(key=key, state=state, run_id=run_id, round=backfill.rounds.get(number, 0))


def _view(backfill: Backfill, *, created: bool = False) -> BackfillView:
    started, counts = backfill.require(), backfill.counts
    status = backfill.status
    return BackfillView(
        id=backfill.id,
        deployment=started.deployment,
        revision=started.revision,
        pipeline=started.pipeline,
        version=started.version,
        trigger=started.trigger,
        status=status,
        total=sum(length for _, length in started.ranges),
        finished=len(backfill.ended),
        counts=dict(counts),
        max_active=started.max_active,
        order="newest" if started.newest_first else "oldest",
        by=started.by,
        at=started.at,
        finished_at=backfill.finished_at if status in FINISHED else None,
        created=created,
    )


def _check_inputs(given: Mapping[str, Any], definition: Definition, trigger: str) -> None:
    """Refuse inputs that each item sets, and those that do not fit into a message.

    Raises:
        UnprocessableError: with their paths.
    """
    shape = definition.trigger(trigger)
    mapped: Mapping[str, str] = shape.inputs if isinstance(shape, CronTrigger) else {}
    if not trigger and definition.partitions is not None:
        mapped = definition.partitions.inputs
    owner = "tick" if trigger else "partition"
    errors = [(f"inputs.{name[:100]}", f"is an input that the {owner} sets") for name in given if name in mapped]
    if len(orjson.dumps(given)) > _INPUTS_LIMIT:
        errors.append(("inputs", f"have more than {_INPUTS_LIMIT} bytes as JSON: pass files or artifacts instead"))
    if errors:
        raise UnprocessableError("The inputs of the backfill are invalid", errors[0][1], errors=errors)
