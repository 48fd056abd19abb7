"""The types of events of a project, whose data must fit a JSON Schema."""

from __future__ import annotations

import time

import orjson

from penstock_adapters.event_schemas import EventSchema, InvalidSchemaError
from penstock_adapters.nats.buckets.event_types import EventTypes
from penstock_contracts.event_types import EventType, EventTypeBody, EventTypeList
from penstock_core.deployments import event_types
from penstock_core.deployments.events import Event
from penstock_gateway.errors import NotFoundError, UnprocessableError

TYPES_LIMIT = 10_000
"""Most registered types of a project."""


class EventTypeRegistry:
    """Registers types, and checks events."""

    def __init__(self, types: EventTypes, project: str) -> None:
        self._types = types
        self._project = project

    async def list(self) -> EventTypeList:
        """Return the registered types."""
        return EventTypeList(types=await self._types.list(self._project))

    async def get(self, type: str) -> EventType:
        """Return a type.

        Raises:
            NotFoundError: it is not registered.
        """
        found = await self._types.get(self._project, type)
        if found is None:
            raise _missing(type)
        return found

    async def set(self, type: str, body: EventTypeBody, by: str) -> EventType:
        """Register a type, or replace its schema. Events from now on must fit it.

        Raises:
            UnprocessableError: the type or the schema is not valid, or there are too many types.
        """
        if problem := event_types.type_problem(type):
            raise UnprocessableError(
                "The type of events is invalid", f"{type[:100]!r} {problem}", errors=[("type", problem)]
            )
        schema = body.json_schema
        if len(orjson.dumps(schema)) > event_types.SCHEMA_LIMIT:
            problems = [("schema", f"is larger than {event_types.SCHEMA_LIMIT} bytes as JSON")]
        else:
            problems = [*event_types.schema_problems(schema)][:20]
        if not problems:
            try:
                EventSchema(schema)
            except InvalidSchemaError as error:
                problems = [("schema", f"is not a JSON Schema: {error}")]
        known = await self._types.list(self._project)
        if len(known) >= TYPES_LIMIT and type not in {one.type for one in known}:
            problems = [("type", f"the project has {TYPES_LIMIT} types of events, which is the limit")]
        if problems:
            detail = "; ".join(f"{path} {message}" for path, message in problems)
            raise UnprocessableError("The schema is invalid", detail[:4_000], errors=problems)
        found = EventType(type=type, schema=schema, description=body.description, by=by, at=time.time())
        await self._types.put(self._project, found)
        return found

    async def delete(self, type: str) -> None:
        """Remove a type: its events are not checked any more.

        Raises:
            NotFoundError: it is not registered.
        """
        if not await self._types.delete(self._project, type):
            raise _missing(type)

    def schema(self, type: str) -> dict[str, object] | None:
        """Return the schema of a type, or None."""
        found = self._types.schema(self._project, type)
        return found.schema if found is not None else None

    async def problem(self, event: Event) -> str:
        """Return why an event does not fit the schema of its type; empty if it does."""
        return "; ".join(f"{path} {message}" for path, message in await self._types.problems(event))

    async def check(self, events: list[Event], *, batch: bool) -> None:
        """Refuse events that do not fit the schemas of their types.

        Raises:
            UnprocessableError: with the path of everything that does not fit.
        """
        errors = [
            (f"[{n}].{path}" if batch else path, message)
            for n, event in enumerate(events)
            for path, message in await self._types.problems(event)
        ]
        if errors:
            shown = "; ".join(f"{path}: {message}" for path, message in errors[:20])
            kind = "Events do" if batch else f"The event of type {events[0].type!r} does"
            raise UnprocessableError(f"{kind} not fit the schema", shown[:4_000], errors=errors[:100])


def _missing(type: str) -> NotFoundError:
    return NotFoundError(f"Event type {type[:100]!r} is not registered", "list types with `penstock events types list`")
