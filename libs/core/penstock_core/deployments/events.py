"""Events: CloudEvents 1.0 as triggers see them."""

from __future__ import annotations

import hashlib
from dataclasses import field
from datetime import UTC, datetime
from typing import Any

from penstock_core.frozen import frozen

RESERVED = "penstock"
"""Beginning of the names of extensions that only the platform gives to events."""

WEBHOOK = "penstockwebhook"
"""Extension of the event of a verified webhook: its trigger, as `DEPLOYMENT/TRIGGER`."""

TARGET = "penstocktarget"
"""Extension of an event that is for one trigger only, because it is a replay."""


REQUEST_ID = "requestid"
"""Extension of the event of a request to an endpoint: its idempotency key, by which callers know the request."""


@frozen(kw_only=True)
class Event:
    """An event in the stream `EVENTS`.

    Attributes:
        source, id: identify it: the same pair is the same event.
        time: when it happened, as its source says, in RFC 3339; may be empty.
        subject: what it is about; may be empty.
        extensions: other attributes.
        data: its payload, as JSON.
        received_at: when it was stored, in Unix seconds.
        sequence: its place in the stream.
    """

    project: str
    type: str
    source: str
    id: str
    time: str = ""
    subject: str = ""
    extensions: dict[str, Any] = field(default_factory=dict[str, Any])
    data: Any = None
    received_at: float = 0.0
    sequence: int = 0

    @property
    def digest(self) -> str:
        """The identity of the event, as a token of a subject."""
        return event_digest(self.project, self.source, self.id)

    @property
    def target(self) -> str:
        """The only trigger that the event is for, as `DEPLOYMENT/TRIGGER`; empty: all of them."""
        return str(self.extensions.get(TARGET, ""))

    @property
    def own_trigger(self) -> str:
        """The trigger that the event was made for, as `DEPLOYMENT/TRIGGER`: by a tick, a call or a verified webhook.

        Empty for others: the subject of an event that somebody sends can be any text.
        """
        return self.subject if self.type.startswith(f"{RESERVED}.") else str(self.extensions.get(WEBHOOK, ""))

    def scope(self) -> dict[str, Any]:
        """What expressions see of it: `data`, and its attributes as `event`."""
        received = datetime.fromtimestamp(self.received_at, UTC).isoformat(timespec="milliseconds")
        attributes = {
            "type": self.type,
            "source": self.source,
            "id": self.id,
            "time": self.time or received.replace("+00:00", "Z"),
            "subject": self.subject,
        }
        return {"data": self.data, "event": {**self.extensions, **attributes}}


def event_digest(project: str, source: str, id: str) -> str:
    """Return the identity of an event as a token of a subject."""
    return hashlib.sha256(f"{project}\0{source}\0{id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
