"""Events, which start runs and which steps wait for (`wait_for_event`): `Client.events`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock.client import deployments, views
from penstock.client.http.transport import Transport
from penstock_core import step_environment


@dataclass(frozen=True, slots=True)
class EventReceipt:
    """The platform's confirmation of an event.

    Attributes:
        duplicate: an event with this source and id had been stored before; this one was ignored.
        sequence: the place of the event in the stream of events.
        digest: identifies the event in the decisions of deployments.
    """

    id: str
    source: str
    type: str
    sequence: int
    digest: str
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event. `sequence` is its place in the stream, `digest` identifies it in decisions."""

    digest: str
    sequence: int
    type: str
    source: str
    id: str
    received_at: float
    time: str = ""
    subject: str = ""
    extensions: dict[str, Any] = field(default_factory=dict[str, Any])
    data: Any = None


@dataclass(frozen=True, slots=True)
class EventType:
    """A type of events whose data must fit a JSON Schema. `at` is in Unix seconds, `by` the principal."""

    type: str
    schema: dict[str, Any]
    description: str = ""
    by: str = ""
    at: float = 0.0


class EventTypes:
    """`Client.events.types`: types of events whose data must fit a JSON Schema."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[EventType]:
        """Return the registered types, by name."""
        return [views.build(EventType, row) for row in self._transport.json("GET", "/v1/event-types")["types"]]

    def get(self, type: str) -> EventType:
        """Return a type.

        Raises:
            NotFoundError: it is not registered.
        """
        return views.build(EventType, self._transport.json("GET", _type_path(type)))

    def set(self, type: str, schema: Mapping[str, Any], *, description: str = "") -> EventType:
        """Register a type, or replace its schema. Events of this type that do not fit are refused from now on.

        Raises:
            RefusedError: the type or the schema is not valid.
        """
        body = {"schema": dict(schema), "description": description}
        return views.build(EventType, self._transport.json("PUT", _type_path(type), body=body))

    def delete(self, type: str) -> None:
        """Remove a type: its events are not checked any more.

        Raises:
            NotFoundError: it is not registered.
        """
        self._transport.json("DELETE", _type_path(type))


def _type_path(type: str) -> str:
    return f"/v1/event-types/{quote(type, safe='')}"


class Events:
    """`Client.events`: send and list events, and explain decisions on them. `types` has the schemas of their types."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.types = EventTypes(transport)

    def send(
        self, type: str, data: Any = None, *, key: str = "", id: str | None = None, source: str = "penstock.Client"
    ) -> EventReceipt:
        """Send an event: deployments start runs for it, and steps that wait for its type and key continue.

        Steps of existing runs may wait for it later. When this returns, the event is stored.

        Args:
            type: such as `com.acme.labels.ready`.
            data: JSON of at most 64 KiB; the output of waiting steps, a dictionary for `wait_for_event`.
            key: distinguishes events of one type, such as the id of an order.
            id: with `source`, identifies the event: sent twice, it is one event; default a new one.
            source: the sender, as in CloudEvents.

        Raises:
            RefusedError: a field is not valid.
        """
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": id or secrets.token_hex(16),
            "type": type,
            "source": source,
            "data": data,
            **({"key": key} if key else {}),
        }
        if step_environment.TRACEPARENT in os.environ:  # runs for this event belong to the same trace
            event["traceparent"] = os.environ[step_environment.TRACEPARENT]
        return views.build(EventReceipt, self._transport.json("POST", "/v1/events", body=event))

    def list(self, type: str = "", *, limit: int = 100, before: int | None = None) -> list[Event]:
        """Return stored events, newest first.

        Args:
            type: a type, or a prefix such as `com.acme.*`; empty: all.
            limit: maximum number of events.
            before: only events before this sequence.
        """
        query = {"type": type, "limit": limit, "before": before}
        return [views.build(Event, row) for row in self._transport.json("GET", "/v1/events", query=query)["events"]]

    def follow(self, type: str = "", *, after: int = 0) -> Iterator[Event]:
        """Yield events as they are stored, without end.

        Args:
            type: a type, or a prefix such as `com.acme.*`; empty: all.
            after: also the stored events after this sequence; 0: only new ones.
        """
        query = {"type": type}
        for message in self._transport.follow("/v1/events/stream", query=query, after=after, is_last=lambda _: False):
            yield views.build(Event, message.data)

    def explain(self, event: str | int, deployment: str | None = None) -> tuple[Event, list[deployments.Decision]]:
        """Return an event, and what each deployment, or one, decided on it.

        Args:
            event: its digest or its sequence.
            deployment: only of this one.

        Raises:
            NotFoundError: the event is not stored, or no longer.
        """
        found = self._transport.json(
            "GET", f"/v1/events/{quote(str(event), safe='')}", query={"deployment": deployment}
        )
        return views.build(Event, found["event"]), [deployments.decision(row) for row in found["decisions"]]
