"""The retention policies in their bucket: one entry, replaced by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable

import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.retention import RetentionSettings
from penstock_core.errors import PenstockError

_TRIES = 100


class RetentionStore:
    """The settings, at least as new as the last acknowledged change."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, subjects.RETENTION_BUCKET)

    async def read(self) -> RetentionSettings:
        """Return the settings; defaults where there are none.

        Raises:
            PenstockError: the stored settings are unreadable; nothing may be deleted.
        """
        return (await self._read())[0]

    async def change(self, change: Callable[[RetentionSettings], RetentionSettings]) -> RetentionSettings:
        """Replace the settings by the result of `change`, which may be called several times."""
        for _ in range(_TRIES):
            settings, revision = await self._read()
            wanted = change(settings)
            if wanted == settings:
                return settings
            if await self._bucket.put(subjects.RETENTION_SETTINGS, wanted.model_dump_json().encode(), revision):
                return wanted
        raise PenstockError("the settings of retention changed too often during this request: try again")

    async def _read(self) -> tuple[RetentionSettings, int]:
        entry = await self._bucket.get_fresh(subjects.RETENTION_SETTINGS)
        if entry is None:
            return RetentionSettings(), 0
        try:
            return RetentionSettings.model_validate_json(entry.value), entry.revision
        except pydantic.ValidationError as error:
            raise PenstockError(f"the stored settings of retention are unreadable: {error}") from error
