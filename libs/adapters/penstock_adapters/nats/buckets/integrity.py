"""The record of the integrity of all streams in its bucket: one entry, replaced by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable

import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_core.errors import PenstockError
from penstock_core.integrity import IntegrityRecord

_TRIES = 100
_CODEC = pydantic.TypeAdapter(IntegrityRecord)


class IntegrityStore:
    """The record, at least as new as the last acknowledged change."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.INTEGRITY_BUCKET)

    async def read(self) -> IntegrityRecord:
        """Return the record; an empty one if there is none, or an unreadable one."""
        return (await self._read())[0]

    async def change(self, change: Callable[[IntegrityRecord], IntegrityRecord]) -> IntegrityRecord:
        """Replace the record by the result of `change`, which may be called several times."""
        for _ in range(_TRIES):
            record, revision = await self._read()
            wanted = change(record)
            if wanted == record or await self._bucket.put(
                subjects.INTEGRITY_RECORD, _CODEC.dump_json(wanted), revision
            ):
                return wanted
        raise PenstockError("the record of integrity changed too often: try again")

    async def _read(self) -> tuple[IntegrityRecord, int]:
        entry = await self._bucket.get_fresh(subjects.INTEGRITY_RECORD)
        if entry is None:
            return IntegrityRecord(), 0
        try:
            return _CODEC.validate_json(entry.value), entry.revision
        except pydantic.ValidationError:
            return IntegrityRecord(), entry.revision
