"""Events that steps wait for (`wait_for_event`): `Client.events`."""

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
        duplicate: an event with this id had been stored before; this one was ignored.
        delivered_to: the waiting steps that the event completed at once, as pairs of run id and step key.
    """

    id: str
    type: str
    key: str = ""
    duplicate: bool = False
    delivered_to: tuple[tuple[str, str], ...] = ()


class Events:
    """`Client.events`: send events to waiting steps."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(
        self, type: str, data: Any = None, *, key: str = "", id: str | None = None, source: str = "penstock.Client"
    ) -> EventReceipt:
        """Send an event to the steps that wait for its type and key, now or later in runs that exist already.

        Args:
            type: such as `com.acme.labels.ready`.
            data: JSON of at most 64 KiB, delivered as the output of the waiting steps; a dictionary for
                `wait_for_event`.
            key: distinguishes events of one type, such as the id of an order.
            id: idempotency key: a second event with the same id within a day is ignored; default a new one.
            source: the sender, as in CloudEvents.

        Raises:
            RefusedError: a field is not valid.
        """
        event: Mapping[str, Any] = {
            "specversion": "1.0",
            "id": id or secrets.token_hex(16),
            "type": type,
            "source": source,
            "key": key,
            "data": data,
        }
        answer = self._transport.json("POST", "/v1/events", body=event)
        delivered_to = tuple((row["run_id"], row["step"]) for row in answer.get("delivered_to") or ())
        return views.build(EventReceipt, answer, delivered_to=delivered_to)
