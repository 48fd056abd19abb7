"""Drives backfills: requests the runs of their items, and starts further items when runs end.

In: facts of backfills, ends of runs, timers. Out: further facts, run requests, cancel requests.

Promise: each item has one run per round, also after kills and redeliveries. A fact says first which items start;
the handler of its delivery then requests their runs, whose ids derive from backfill, key and round. An end that was
missed is found by a timer, which compares the active items with the log of runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from penstock_adapters.backfill_items import BackfillItems
from penstock_adapters.nats.backfill_log import BackfillLog
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.partition_log import PartitionLog
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_adapters.nats.trigger_timers import Timers
from penstock_contracts import subjects
from penstock_core import ids, run_events
from penstock_core.deployments import backfills
from penstock_core.deployments.backfill_facts import BackfillAdvanced, BackfillCancelled, BackfillFact, ItemOutcome
from penstock_core.deployments.backfills import FINISHED, Backfill
from penstock_core.deployments.definition import Definition
from penstock_core.deployments.events import Event
from penstock_core.deployments.matching import Evaluator, ExpressionError
from penstock_core.deployments.state import Deployment, NoDeploymentError
from penstock_core.errors import InputError, InvalidIdError, UnavailableError
from penstock_core.facts import CancelRequested, RunFinished, RunRequested
from penstock_core.ports import Recorded
from penstock_triggers.keyed_locks import KeyedLocks
from penstock_triggers.run_starter import RunStarter

CHECK_INTERVAL = 30.0
"""Seconds between two comparisons of active items with the log of runs."""

_KEPT = 200
"""Backfills whose items are kept in memory."""


class BackfillDriver:
    """Advances the backfills of all projects."""

    def __init__(
        self,
        log: BackfillLog,
        deployments: DeploymentLog,
        partitions: PartitionLog,
        starter: RunStarter,
        runs: NatsRunLog,
        timers: Timers,
        evaluator: Evaluator,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._deployments = deployments
        self._partitions = partitions
        self._starter = starter
        self._runs = runs
        self._timers = timers
        self._evaluator = evaluator
        self._clock = clock
        self._locks = KeyedLocks()
        self._items: OrderedDict[tuple[str, str], BackfillItems] = OrderedDict()

    async def handle(self, project: str, id: str, number: int, fact: BackfillFact | None) -> None:
        """Handle a fact of a backfill: request the runs of the items that it started, or cancel them; then advance.

        Raises:
            UnavailableError: a part of the platform does not answer; handling the fact again is safe.
        """
        async with self._locks.lock((project, id)):
            backfill = await self._log.get(project, id)
            if backfill.number < number:
                raise UnavailableError(f"the log of backfill {id} lags behind its leader: try again")
            if backfill.started is None:
                return
            errors: dict[int, str] = {}
            if isinstance(fact, BackfillAdvanced):
                errors = await self._request(backfill, [one for one in fact.started if one in backfill.active])
            elif isinstance(fact, BackfillCancelled) and fact.runs:
                errors = await self._request(backfill, backfill.active)
                await self._cancel(backfill, fact)
            if not isinstance(fact, BackfillAdvanced):
                await self._set_timer(backfill)
            await self._advance(backfill, dict.fromkeys(errors, ItemOutcome.REJECTED), errors)

    async def run_finished(self, event: Event) -> None:
        """End the item of a finished run, and start the next one. Events of other runs are ignored.

        Raises:
            UnavailableError: as `handle`.
        """
        found = _end(event)
        if found is None:
            return
        id, run_id, outcome = found
        async with self._locks.lock((event.project, id)):
            backfill = await self._log.get(event.project, id)
            if backfill.started is None:
                return
            active = await self._run_ids(backfill, backfill.active)
            await self._advance(backfill, {number: outcome for number, one in active.items() if one == run_id})

    async def check(self, project: str, id: str) -> None:
        """Compare the active items of a backfill with the log of runs: request missing runs, take missed ends.

        Raises:
            UnavailableError: as `handle`.
        """
        async with self._locks.lock((project, id)):
            backfill = await self._log.get(project, id)
            if backfill.started is None:
                return
            active = await self._run_ids(backfill, backfill.active)
            tails = ("requested", "finished", "deleted")
            names = [subjects.run(run_id, tail) for run_id in active.values() for tail in tails]
            facts = await self._runs.last(names)
            known = {record.fact.run_id for record in facts.values()}
            ends = {number: end for number, run_id in active.items() if (end := _outcome(facts, run_id)) is not None}
            missing = [number for number in backfill.active if active.get(number) not in known]
            errors = await self._request(backfill, missing)
            await self._set_timer(backfill)
            await self._advance(backfill, ends | dict.fromkeys(errors, ItemOutcome.REJECTED), errors)

    # ----------------------------------------------------------------------------------------------------------- runs

    async def _request(self, backfill: Backfill, numbers: Collection[int]) -> dict[int, str]:
        """Request the runs of items that are not deleted; returns the errors of those that cannot run."""
        active = await self._run_ids(backfill, numbers)
        known = await self._runs.last([subjects.run(run_id, "deleted") for run_id in active.values()]) if active else {}
        deleted = {record.fact.run_id for record in known.values()}
        wanted = {number: run_id for number, run_id in active.items() if run_id not in deleted}
        built = await asyncio.gather(*(self._build(backfill, number, run_id) for number, run_id in wanted.items()))
        if requests := [one for one in built if isinstance(one, RunRequested)]:
            await self._starter.request(*requests)
        errors = {number: one for number, one in zip(wanted, built, strict=True) if isinstance(one, str)}
        return errors | dict.fromkeys(
            {*numbers} - {*active}, "the deployment, or this part of it, does not exist any more"
        )

    async def _build(self, backfill: Backfill, number: int, run_id: str) -> RunRequested | str:
        """The request of the run of an item, or the error of the user."""
        version = backfill.require().version
        items = await self._items_of(backfill)
        try:
            given, options = items.inputs(number, self._evaluator), items.options(number)
            return await self._starter.build_item(run_id, backfill.project, items.pipeline, version, given, options)
        except (ExpressionError, InputError, InvalidIdError) as error:
            return str(error)

    async def _cancel(self, backfill: Backfill, fact: BackfillCancelled) -> None:
        reason = fact.reason or f"backfill {backfill.id} was cancelled"
        active = await self._run_ids(backfill, backfill.active)
        await self._runs.append(
            [CancelRequested(run_id=one, by=fact.by, reason=reason, requested_at=fact.at) for one in active.values()]
        )

    async def _run_ids(self, backfill: Backfill, numbers: Collection[int]) -> dict[int, str]:
        """The ids of the latest runs of items, by number; items that do not exist any more are left out."""
        found: dict[int, str] = {}
        for number in numbers:
            try:
                found[number] = backfill.run_id(number, (await self._items_of(backfill)).key(number))
            except InputError:
                continue
        return found

    async def _items_of(self, backfill: Backfill) -> BackfillItems:
        started = backfill.require()
        name = (backfill.project, backfill.id)
        if name not in self._items:
            deployment = await self._deployments.get(backfill.project, started.deployment)
            if deployment.revision < started.revision:
                raise UnavailableError(f"the log of deployment {started.deployment!r} lags behind: try again")
            definition = _definition(deployment, started.revision)
            found = await self._partitions.of(backfill.project, started.deployment, definition)
            if found is not None and found.count(self._clock()) < sum(started.ranges[-1]):
                raise UnavailableError(f"the partitions of deployment {started.deployment!r} lag behind: try again")
            items = BackfillItems(started, definition, None if started.trigger else found)
            if started.trigger:  # thousands of ticks take a while: not in the event loop
                await asyncio.to_thread(items.compute_ticks, sum(started.ranges[-1]))
            self._items[name] = items
            while len(self._items) > _KEPT:
                self._items.popitem(last=False)
        return self._items[name]

    # -------------------------------------------------------------------------------------------------------- advance

    async def _advance(
        self, backfill: Backfill, ends: Mapping[int, ItemOutcome], errors: Mapping[int, str] | None = None
    ) -> None:
        now = self._clock()
        await self._log.change(backfill.project, backfill.id, lambda found: backfills.advance(found, ends, now, errors))

    async def _set_timer(self, backfill: Backfill) -> None:
        if backfill.status not in FINISHED:
            at = self._clock() + CHECK_INTERVAL
            await self._timers.set_backfill(backfill.project, backfill.require().deployment, backfill.id, at)


def _definition(deployment: Deployment, revision: int) -> Definition:
    try:
        return deployment.definition(revision)
    except NoDeploymentError as error:  # its log is damaged
        raise InputError(str(error)) from error


def _end(event: Event) -> tuple[str, str, ItemOutcome] | None:
    """Backfill, run and outcome of the event about a finished run; None if it is another event."""
    data = event.data
    if event.type != RunFinished.ce_type or event.source != run_events.SOURCE or not isinstance(data, dict):
        return None
    known = cast("dict[str, Any]", data)
    labels = known.get("labels")
    id = str(cast("dict[str, Any]", labels).get(backfills.LABEL, "")) if isinstance(labels, dict) else ""
    return (id, str(known.get("run_id")), backfills.outcome(str(known.get("state")))) if ids.is_name(id) else None


def _outcome(facts: Mapping[str, Recorded], run_id: str) -> ItemOutcome | None:
    """How a run ended, from the last facts of runs by subject; None if it has not."""
    if subjects.run(run_id, "deleted") in facts:
        return ItemOutcome.DELETED
    record = facts.get(subjects.run(run_id, "finished"))
    return backfills.outcome(record.fact.outcome.value) if record and isinstance(record.fact, RunFinished) else None
