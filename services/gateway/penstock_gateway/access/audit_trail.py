"""The audit trail: requests that were refused, and those that may change something.

Entries are gathered and stored about once a second as one message, so no request waits for them; equal ones are
counted. A gateway that is killed loses the last second. What the requests did is in facts, with the principal.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from penstock_adapters.nats.audit_log import AuditLog
from penstock_contracts.audit import AuditBatch, AuditEntry, AuditOutcome, AuditPage
from penstock_core.errors import PenstockError
from penstock_gateway.errors import UnprocessableError
from penstock_servicekit.service_context import ServiceContext

_EVERY = 1.0
_BATCH = 500
"""Entries of a message."""

_PENDING = 20_000
"""Entries that wait for the broker; further ones are counted as lost."""

_ANONYMOUS = 10
"""Different requests without a valid token in a second; further ones are one entry: nobody can fill the disk."""

_TEXT = 300
"""Characters of a path, of a method and of an address: the client chooses them, and a message has a limit."""

_Key = tuple[str | None, str | None, str | None, str, str, str, AuditOutcome, int | None]


class AuditTrail:
    """Stores entries while it runs, and reads them."""

    def __init__(self, log: AuditLog, context: ServiceContext) -> None:
        self._log = log
        self._context = context
        self._pending: dict[_Key, tuple[float, int]] = {}
        self._lost = self._anonymous = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to store entries."""
        self._task = self._context.task(self._store_regularly())

    async def close(self) -> None:
        """Store the last entries."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._context.bus.client.is_connected:
            await self._store()

    def record(
        self,
        *,
        principal: str | None,
        token: str | None,
        operation: str | None,
        method: str,
        path: str,
        address: str,
        outcome: AuditOutcome,
        status: int | None,
    ) -> None:
        """Add an entry; see `AuditEntry`."""
        key = principal, token, operation, method[:_TEXT], path[:_TEXT], address[:_TEXT], outcome, status
        known = self._pending.get(key)
        if principal is None and known is None:
            self._anonymous += 1
            if self._anonymous > _ANONYMOUS:
                key = None, None, None, "", "", "", outcome, status
                known = self._pending.get(key)
        if known is None and len(self._pending) >= _PENDING:
            self._lost += 1
        else:
            self._pending[key] = (known[0], known[1] + 1) if known is not None else (time.time(), 1)

    async def page(
        self,
        *,
        principal: str | None,
        operation: str | None,
        outcome: AuditOutcome | None,
        since: float,
        until: float,
        limit: int,
        cursor: str | None,
    ) -> AuditPage:
        """Return entries, newest first.

        Raises:
            UnprocessableError: the cursor is not one of this API.
        """

        def matches(entry: AuditEntry) -> bool:
            wanted = (principal, operation, outcome)
            found = (entry.principal, entry.operation, entry.outcome)
            same = all(one is None or one == other for one, other in zip(wanted, found, strict=True))
            return same and since <= entry.at <= until

        entries, last = await self._log.page(matches, since, limit, _position(cursor))
        return AuditPage(entries=entries, next=f"{last[0]}-{last[1]}" if last is not None else None)

    async def _store_regularly(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self._store()

    async def _store(self) -> None:
        self._anonymous = 0
        try:
            while self._pending:
                keys = list(self._pending)[:_BATCH]
                taken = {key: self._pending.pop(key) for key in keys}
                lost, self._lost = self._lost, 0
                if lost:
                    self._context.log.warning("requests are missing in the audit trail: too many at once", lost=lost)
                try:
                    await self._log.append(AuditBatch(entries=[self._entry(*one) for one in taken.items()], lost=lost))
                except PenstockError:
                    self._restore(taken)
                    self._lost += lost
                    raise
        except PenstockError as error:
            self._context.log.warning("the audit trail is not stored; trying again", error=str(error))

    def _restore(self, taken: dict[_Key, tuple[float, int]]) -> None:
        """Put entries back, before those that arrived meanwhile."""
        later, self._pending = self._pending, taken
        for key, (at, count) in later.items():
            first, known = self._pending.get(key, (at, 0))
            self._pending[key] = first, known + count

    def _entry(self, key: _Key, value: tuple[float, int]) -> AuditEntry:
        principal, token, operation, method, path, address, outcome, status = key
        return AuditEntry(
            at=value[0],
            principal=principal,
            token=token,
            operation=operation,
            method=method,
            path=path,
            address=address,
            outcome=outcome,
            status=status,
            count=value[1],
            gateway=self._context.name,
        )


def _position(cursor: str | None) -> tuple[int, int] | None:
    if cursor is None:
        return None
    sequence, dash, index = cursor.partition("-")
    if not (dash and cursor.isascii() and sequence.isdecimal() and index.isdecimal() and len(cursor) < 30):
        raise UnprocessableError(
            "cursor is not one of this API", "use `next` of a page", errors=[("cursor", "is unknown")]
        )
    return int(sequence), int(index)
