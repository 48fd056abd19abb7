"""Dead letters over HTTP: rejected events, notifications that were not accepted, and unreadable messages."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class DeadLetterSummary(BaseModel):
    """A dead letter in a list."""

    id: int
    kind: Literal["rejected", "undelivered", "unreadable"] = Field(
        description="a trigger rejected the event, nobody accepted the notification, "
        "or a service could not read the message"
    )
    at: float = Field(description="when it was stored, in Unix seconds")
    service: str
    subject: str = Field(description="the NATS subject of the message")
    error: str
    deployment: str = ""
    trigger: str = Field(default="", description="the trigger, or the rule of the notification")
    event: int | None = Field(default=None, description="the sequence of the event")
    type: str = Field(default="", description="the type of the event")


class DeadLetterView(DeadLetterSummary):
    """A dead letter with its message: as JSON if it is JSON, as text otherwise."""

    headers: dict[str, str] = Field(default_factory=dict[str, str])
    data: Any = None
    text: str | None = None


class DeadLetterList(BaseModel):
    """Dead letters, newest first. `before` continues the list, if there are more."""

    dead_letters: list[DeadLetterSummary]
    before: int | None = None


class Replayed(BaseModel):
    """The dead letter was sent again: as the event with this sequence, or as a notification (0)."""

    event: int
