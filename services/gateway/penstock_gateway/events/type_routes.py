"""`/v1/event-types`: types of events whose data must fit a JSON Schema."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from penstock_contracts.event_types import EventType, EventTypeBody, EventTypeList
from penstock_core.access import Permission
from penstock_gateway.events.event_types_service import EventTypeRegistry
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems

router = APIRouter(prefix="/v1/event-types", tags=["events"], route_class=JsonRoute, responses=COMMON)

Types = Annotated[EventTypeRegistry, feature(EventTypeRegistry)]
Type = Annotated[str, Path(max_length=300, description="such as `com.acme.dataset.updated`")]

_READ = [requires(Permission.EVENTS_READ)]
_WRITE = [requires(Permission.DEPLOYMENTS_WRITE)]


@router.get("", summary="List event types", dependencies=_READ)
async def list_types(types: Types) -> EventTypeList:
    """The types of events that have a schema, by name. Events of other types are not checked."""
    return await types.list()


@router.get("/{type}", summary="Get an event type", dependencies=_READ, responses=problems(404))
async def get_type(types: Types, type: Type) -> EventType:
    """A type of events with its schema."""
    return await types.get(type)


@router.put("/{type}", summary="Register an event type", dependencies=_WRITE, responses=problems(*BODY))
async def set_type(types: Types, type: Type, body: EventTypeBody, by: By) -> EventType:
    """Events of this type whose data does not fit are refused from now on; those sent to NATS become dead letters."""
    return await types.set(type, body, by)


@router.delete("/{type}", status_code=204, summary="Delete an event type", dependencies=_WRITE, responses=problems(404))
async def delete_type(types: Types, type: Type) -> None:
    """Events of this type are not checked any more."""
    await types.delete(type)
