"""Rejected events, notifications that were not accepted, and unreadable messages: `Client.dead_letters`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.client import views
from penstock.client.http.transport import Transport


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter.

    Attributes:
        id: its number.
        kind: `rejected` if a trigger rejected the event, `undelivered` if nobody accepted the notification,
            `unreadable` if a service could not read the message.
        at: when it was stored, in Unix seconds.
        subject: the NATS subject of the message.
        event: the sequence of the event; None if it is not one.
        data: the message, if it is JSON; only after `DeadLetters.get`.
        text: the message, if it is not JSON; only after `DeadLetters.get`.
    """

    id: int
    kind: str
    at: float
    service: str
    subject: str
    error: str
    deployment: str = ""
    trigger: str = ""
    event: int | None = None
    type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    data: Any = None
    text: str | None = None


class DeadLetters:
    """`Client.dead_letters`: list, replay and discard them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 100, before: int | None = None) -> list[DeadLetter]:
        """Return dead letters, newest first.

        Args:
            limit: maximum number.
            before: only those before this id.
        """
        found = self._transport.json("GET", "/v1/dead-letters", query={"limit": limit, "before": before})
        return [views.build(DeadLetter, row) for row in found["dead_letters"]]

    def get(self, id: int) -> DeadLetter:
        """Return a dead letter with its message.

        Raises:
            NotFoundError: it does not exist.
        """
        return views.build(DeadLetter, self._transport.json("GET", f"/v1/dead-letters/{id}"))

    def replay(self, id: int) -> int:
        """Send an event or a notification again, and remove the dead letter; returns the sequence of the event, or 0.

        A rejected event goes to the trigger that rejected it only, as its deployment is now.

        Raises:
            NotFoundError: it does not exist.
            ConflictError: it is neither.
        """
        return self._transport.json("POST", f"/v1/dead-letters/{id}/replay")["event"]

    def discard(self, id: int) -> None:
        """Remove a dead letter.

        Raises:
            NotFoundError: it does not exist.
        """
        self._transport.json("DELETE", f"/v1/dead-letters/{id}")
