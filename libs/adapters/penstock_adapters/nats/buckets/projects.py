"""The records of projects in a bucket, one entry for each, and a copy in memory that follows the changes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

import nats.errors
import orjson
import pydantic
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_core.access import DEFAULT_PROJECT
from penstock_core.errors import PenstockError
from penstock_core.projects import DEFAULT, ProjectRecord

_RECORD = pydantic.TypeAdapter(ProjectRecord)
_TRIES = 100


class Projects:
    """Projects by name.

    Attributes:
        now: as they were read last.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, subjects.PROJECTS_BUCKET)
        self._subscription: Subscription | None = None
        self.now: Mapping[str, ProjectRecord] = {DEFAULT_PROJECT: DEFAULT}

    async def read(self) -> Mapping[str, ProjectRecord]:
        """Read the projects as they were last acknowledged.

        Raises:
            UnavailableError: the bucket does not answer.
        """
        found = [_read(entry.value) for entry in await self._bucket.list()]
        self.now = {DEFAULT_PROJECT: DEFAULT, **{record.name: record for record in found}}
        return self.now

    async def is_archived(self, name: str) -> bool:
        """Return whether a project is archived.

        Raises:
            UnavailableError: the bucket does not answer.
        """
        entry = await self._bucket.get(name)
        return entry is not None and _read(entry.value).archived_at is not None

    async def change(self, name: str, change: Callable[[ProjectRecord | None], ProjectRecord]) -> ProjectRecord:
        """Replace the record of a project by what `change` returns for it; None if there is none.

        Raises:
            UnavailableError: the bucket does not answer.
        """
        for _ in range(_TRIES):
            entry = await self._bucket.get_fresh(name)
            known = _read(entry.value) if entry is not None else DEFAULT if name == DEFAULT_PROJECT else None
            record = change(known)
            if record == known:
                return record
            body = orjson.dumps(dataclasses.asdict(record))
            if await self._bucket.put(name, body, entry.revision if entry else 0) is not None:
                await self.read()
                return record
        raise PenstockError(f"project {name!r} changed too often during this request: try again")

    async def watch(self, reread: Callable[[], None]) -> None:
        """Read the projects; `reread` is called whenever they may have changed."""

        async def changed(message: Msg) -> None:
            # A message may not be stored yet: it only triggers a read.
            reread()

        self._subscription = await self._bus.subscribe(f"$KV.{subjects.PROJECTS_BUCKET}.*", changed)
        self._bus.on_reconnect(reread)
        await self.read()

    async def close(self) -> None:
        """Unsubscribe."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):  # the connection may be closed already
                await subscription.unsubscribe()


def _read(value: bytes) -> ProjectRecord:
    try:
        return _RECORD.validate_json(value)
    except pydantic.ValidationError as error:
        raise PenstockError(f"the stored record of a project is unreadable: {error}") from error
