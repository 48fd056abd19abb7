"""Appends the end of a run of a script."""

from __future__ import annotations

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_contracts import fact_codec
from penstock_core.facts import AttemptFinished
from penstock_gateway.tracked import script_facts


async def append(log: ArchivedLog, fact: AttemptFinished) -> None:
    """Append the end of the attempt and of its run. If another end was first, the run ends with that one."""
    (first,) = await log.append([fact])
    if not first:
        place = fact_codec.subject(fact)
        known = (await log.last([place])).get(place)
        if known is not None and isinstance(known.fact, AttemptFinished):
            fact = known.fact
    await log.append(script_facts.end(fact)[1:])
