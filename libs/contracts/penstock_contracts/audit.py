"""The audit trail: who made which requests to the HTTP API, and what became of them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class AuditOutcome(StrEnum):
    """What became of a request."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    """Without a valid token, or without the permission."""
    FAILED = "failed"
    """Allowed, and answered with an error."""


class AuditEntry(BaseModel):
    """Equal requests within about a second. `at` is when the first one was answered, in Unix seconds.

    `token` is the beginning of the SHA-256 of the token, `address` that of the client's connection. `operation` is the
    `operationId` in the OpenAPI document; null if the request was refused before it was known.
    """

    model_config = ConfigDict(frozen=True)

    at: float
    principal: str | None
    token: str | None = None
    operation: str | None
    method: str
    path: str
    address: str
    outcome: AuditOutcome
    status: int | None
    count: int = 1
    gateway: str = ""


class AuditBatch(BaseModel):
    """A message of the stream `AUDIT`. `lost` is how many requests before it could not be stored."""

    entries: list[AuditEntry]
    lost: int = 0


class AuditPage(BaseModel):
    """Entries, newest first."""

    entries: list[AuditEntry]
    next: str | None = Field(default=None, description="cursor of the next page; null: there is none")
