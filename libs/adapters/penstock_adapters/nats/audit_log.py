"""The stream `AUDIT`: batches of entries, appended and never changed."""

from __future__ import annotations

from collections.abc import Callable

import pydantic
from nats.aio.msg import Msg

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.newest import newest, sequence
from penstock_contracts import subjects
from penstock_contracts.audit import AuditBatch, AuditEntry

_BATCHES = 50


class AuditLog:
    """Appends and reads batches."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def append(self, batch: AuditBatch) -> None:
        """Store a batch.

        Raises:
            UnavailableError: the stream does not answer; the batch may be stored.
            BusError: the server refused.
        """
        await self._bus.publish(f"{subjects.AUDIT.lower()}.gateway", batch.model_dump_json().encode())

    async def page(
        self, matches: Callable[[AuditEntry], bool], since: float, limit: int, before: tuple[int, int] | None
    ) -> tuple[list[AuditEntry], tuple[int, int] | None]:
        """Return the newest entries that match, and the position of the last one if there may be more.

        Args:
            matches: which entries.
            since: Unix seconds; batches that are older are not read.
            limit: maximum number of entries.
            before: only entries before this one: the sequence of its batch, and its index in there.
        """
        found: list[AuditEntry] = []
        end = before[0] + 1 if before is not None else None
        while batches := await newest(self._bus, subjects.AUDIT, "audit.>", _read, _BATCHES, end):
            for seq, batch in batches:
                stop = len(batch.entries)
                if before is not None and before[0] == seq:
                    stop = min(stop, before[1])
                for index in range(stop - 1, -1, -1):
                    if matches(batch.entries[index]):
                        found.append(batch.entries[index])
                        if len(found) == limit:
                            return found, (seq, index)
                if batch.entries and batch.entries[-1].at < since:
                    return found, None
            end = batches[-1][0]
        return found, None


def _read(message: Msg) -> tuple[int, AuditBatch] | None:
    try:
        return sequence(message), AuditBatch.model_validate_json(message.data)
    except pydantic.ValidationError:
        return None
