"""The logs of backfills in the stream `PARTITIONS`, append-once, and their folds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.revisions import Message, append_all
from penstock_contracts import deployment_codec, subjects
from penstock_core import ids
from penstock_core.deployments import backfills
from penstock_core.deployments.backfill_facts import BACKFILL_FACTS, BackfillFact, BackfillStarted
from penstock_core.deployments.backfills import Backfill
from penstock_core.errors import UnavailableError

TRIES = 100
"""Times that a change is decided again because another one was faster, before giving up."""

_KEPT = 200
"""Folded backfills that are kept in memory."""


class BackfillLog:
    """The backfills of all projects. `source` names the writer in the CloudEvents envelope."""

    def __init__(self, bus: Bus, source: str) -> None:
        self._bus = bus
        self._source = source
        self._known: OrderedDict[tuple[str, str], tuple[Backfill, int]] = OrderedDict()
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def get(self, project: str, id: str) -> Backfill:
        """Return a backfill, as new as the last acknowledged fact; one without facts where it does not exist.

        Raises:
            UnavailableError: the log does not answer.
            InvalidIdError: no backfill can have this id.
        """
        ids.check_name(id, "backfill")
        name = (project, id)
        # Two readers at a time would fold the same facts into one state, each from its own sequence.
        async with self._locks.setdefault(name, asyncio.Lock()):
            state, seq = self._known.get(name) or (Backfill(project, id), 0)
            for message in await self._bus.read(subjects.PARTITIONS, subjects.backfill(project, id), seq):
                headers = message.headers or {}
                parsed = subjects.parse_backfill_subject(headers["Nats-Subject"])
                fact = deployment_codec.read(headers["Nats-Subject"], headers.get("ce-type", ""), message.data)
                seq = int(headers["Nats-Sequence"])
                if parsed is not None:
                    backfills.evolve(state, fact if isinstance(fact, BACKFILL_FACTS) else None, parsed[2])
            if state.number:
                self._known[name] = state, seq
                self._known.move_to_end(name)
            else:
                self._locks.pop(name, None)
        while len(self._known) > _KEPT:
            dropped, _ = self._known.popitem(last=False)
            self._locks.pop(dropped, None)
        return state

    async def all(self, project: str) -> list[BackfillStarted]:
        """Return the first facts of all backfills, oldest first. Raises as `get`."""
        found = await self._bus.read(subjects.PARTITIONS, subjects.backfill(project, number=1))
        ce_type = BackfillStarted.ce_type
        facts = [deployment_codec.read((one.headers or {})["Nats-Subject"], ce_type, one.data) for one in found]
        return [fact for fact in facts if isinstance(fact, BackfillStarted)]

    async def change(
        self, project: str, id: str, decide: Callable[[Backfill], Sequence[BackfillFact]]
    ) -> tuple[bool, Backfill]:
        """Decide on a backfill and append the facts.

        Returns:
            Whether anything changed, and the backfill after it.

        Raises:
            BackfillError: what `decide` raises.
            UnavailableError: the log does not answer, or others keep changing the backfill; trying again is safe.
        """
        for tried in range(TRIES):
            backfill = await self.get(project, id)
            facts = decide(backfill)
            if not facts:
                return False, backfill
            if await append_all(self._bus, [self._message(fact) for fact in facts]):
                return True, await self.get(project, id)
            await asyncio.sleep(0.002 * tried)
        raise UnavailableError(f"backfill {id!r} changed too often during this request: try again")

    def _message(self, fact: BackfillFact) -> Message:
        return Message(
            deployment_codec.subject(fact), deployment_codec.encode(fact), deployment_codec.headers(fact, self._source)
        )
