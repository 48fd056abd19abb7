"""The audit trail of a platform: `Client.audit`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.client import views
from penstock.client.http.transport import Transport

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Equal requests to the HTTP API within about a second.

    Attributes:
        at: when the first one was answered, in Unix seconds.
        principal: who made them; None without a valid token.
        token: the beginning of the SHA-256 of the token.
        operation: the `operationId` in the OpenAPI document; None if it was refused before it was known.
        address: of the client.
        outcome: `allowed`, `refused` or `failed`.
        status: of the response.
        count: how many there were.
        gateway: which gateway answered.
    """

    at: float
    principal: str | None
    token: str | None
    operation: str | None
    method: str
    path: str
    address: str
    outcome: str
    status: int | None
    count: int = 1
    gateway: str = ""


def entries(
    transport: Transport,
    *,
    principal: str | None = None,
    operation: str | None = None,
    outcome: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int | None = None,
) -> Iterator[AuditEntry]:
    """Yield entries, newest first. See `Client.audit`."""
    left, cursor = limit, None
    query = {"principal": principal, "operation": operation, "outcome": outcome, "since": since, "until": until}
    while left is None or left > 0:
        size = _PAGE if left is None else min(left, _PAGE)
        page = transport.json("GET", "/v1/audit", query={**query, "limit": size, "cursor": cursor})
        yield from (views.build(AuditEntry, row) for row in page["entries"])
        left = None if left is None else left - len(page["entries"])
        cursor = page.get("next")
        if cursor is None:
            return
