"""Events, which start runs and which steps wait for (`wait_for_event`): `Client.events`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.client import views
from penstock.client.http.transport import Transport


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


class Events:
    """`Client.events`: send events."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

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
        event: Mapping[str, Any] = {
            "specversion": "1.0",
            "id": id or secrets.token_hex(16),
            "type": type,
            "source": source,
            "data": data,
            **({"key": key} if key else {}),
        }
        return views.build(EventReceipt, self._transport.json("POST", "/v1/events", body=event))
