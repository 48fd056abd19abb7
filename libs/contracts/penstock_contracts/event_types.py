"""Types of events with JSON Schemas: as they are stored, and over HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.bodies import RequestBody


class EventTypeBody(RequestBody):
    """Register a type of events, or replace its schema."""

    json_schema: dict[str, Any] = Field(alias="schema", description="JSON Schema of the data of its events")
    description: str = Field(default="", max_length=4_000)


class EventType(BaseModel):
    """A type of events whose data must fit a JSON Schema. `at` is in Unix seconds, `by` the principal."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    type: str
    json_schema: dict[str, Any] = Field(alias="schema")
    description: str = ""
    by: str = ""
    at: float = 0.0


class EventTypeList(BaseModel):
    """Types of events by name."""

    types: list[EventType]
