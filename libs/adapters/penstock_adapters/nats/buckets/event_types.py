"""The JSON Schemas of types of events, in their bucket.

Services keep the schemas in memory and follow the changes, because every event is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import nats.errors
import pydantic
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_adapters.event_schemas import EventSchema, InvalidSchemaError
from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.event_types import EventType
from penstock_core.deployments.events import Event
from penstock_core.errors import PenstockError

Name = tuple[str, str]
"""Project and type."""

_EVERY = 30.0
_PAUSE = 1.0


class EventTypes:
    """The registered types of all projects. `start` reads them and follows their changes."""

    def __init__(self, bus: Bus, warn: Callable[..., None]) -> None:
        self._bus = bus
        self._warn = warn
        self._bucket = Bucket(bus, subjects.EVENT_TYPES_BUCKET)
        self._known: dict[Name, tuple[int, EventType, EventSchema]] = {}
        self._subscription: Subscription | None = None
        self._wake = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the types, and follow their changes.

        Raises:
            UnavailableError: the server does not answer.
        """
        self._subscription = await self._bus.subscribe(f"$KV.{subjects.EVENT_TYPES_BUCKET}.>", self._changed)
        self._bus.on_reconnect(self._wake.set)
        await self._read()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop to follow changes."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):  # the connection may be closed already
                await subscription.unsubscribe()

    def schema(self, project: str, type: str) -> EventSchema | None:
        """Return the schema of a type; None if it has none."""
        found = self._known.get((project, type))
        return found[2] if found is not None else None

    async def problems(self, event: Event) -> list[tuple[str, str]]:
        """Return what in an event does not fit the schema of its type, with paths such as `data.rows`."""
        schema = self.schema(event.project, event.type)
        # In a thread, where jsonschema-rs lets others work meanwhile: many alternatives for many items take seconds.
        return await asyncio.to_thread(schema.problems, event.data) if schema is not None else []

    async def list(self, project: str) -> list[EventType]:
        """Return the types of a project, by name."""
        await self._read()
        return [found for (owner, _), (_, found, _) in sorted(self._known.items()) if owner == project]

    async def get(self, project: str, type: str) -> EventType | None:
        """Return a type, or None."""
        await self._read_one(project, type)
        found = self._known.get((project, type))
        return found[1] if found is not None else None

    async def put(self, project: str, found: EventType) -> None:
        """Register a type, or replace its schema."""
        await self._bucket.put(_key(project, found.type), found.model_dump_json().encode())
        await self._read_one(project, found.type)

    async def delete(self, project: str, type: str) -> bool:
        """Remove a type; returns whether there was one."""
        existed = await self._bucket.get_fresh(_key(project, type)) is not None
        await self._bucket.delete(_key(project, type))
        await self._read_one(project, type)
        return existed

    async def _read(self) -> None:
        entries = {_name(entry.key): entry for entry in await self._bucket.list()}
        for name in [*self._known]:
            if name not in entries:
                del self._known[name]
        for name, entry in entries.items():
            self._take(name, entry)

    async def _read_one(self, project: str, type: str) -> None:
        entry = await self._bucket.get_fresh(_key(project, type))
        if entry is None:
            self._known.pop((project, type), None)
        else:
            self._take((project, type), entry)

    def _take(self, name: Name, entry: Entry) -> None:
        known = self._known.get(name)
        if known is not None and known[0] >= entry.revision:
            return
        try:
            found = EventType.model_validate_json(entry.value)
            self._known[name] = (entry.revision, found, EventSchema(found.json_schema))
        except (pydantic.ValidationError, InvalidSchemaError) as error:
            self._known.pop(name, None)
            self._warn("the schema of a type of events is unreadable, and not checked", type=name[1], error=str(error))

    async def _changed(self, message: Msg) -> None:
        self._wake.set()

    async def _follow(self) -> None:
        """Read the types after each change and from time to time: a change that is announced may not be stored yet."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._wake.wait()
            self._wake.clear()
            for _ in range(2):
                try:
                    await self._read()
                except PenstockError as error:
                    self._warn("the types of events could not be read", error=str(error))
                await asyncio.sleep(_PAUSE)


def _key(project: str, type: str) -> str:
    return f"{project}.{type}"


def _name(key: str) -> Name:
    project, _, type = key.partition(".")
    return project, type
