"""Backfills: runs of many partitions, or of past ticks: `Client.backfills`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
"""Statuses of a backfill that ended."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill as it is now. Times are Unix seconds.

    Attributes:
        id: empty in a dry run.
        revision: that of the deployment whose definition its runs use.
        trigger: the cron trigger whose ticks are its items; empty: its items are partitions.
        status: `running`, `paused`, `cancelling`, `cancelled`, `succeeded` or `failed`.
        total: its items, of which the runs of `finished` ended.
        counts: items by state: `pending`, `active`, or how their latest run ended.
        order: whether the `oldest` or the `newest` items run first.
        by: the principal that started it, at time `at`.
        errors: errors of items without a run, by key.
        keys: in a dry run: what would run, in order, at most 1000 keys.
        created: whether the request started it.
    """

    id: str
    deployment: str
    revision: int
    pipeline: str
    version: int
    status: str
    total: int
    trigger: str = ""
    finished: int = 0
    counts: dict[str, int] = field(default_factory=dict[str, int])
    max_active: int = 0
    order: str = "oldest"
    by: str = ""
    at: float = 0.0
    finished_at: float | None = None
    errors: dict[str, str] = field(default_factory=dict[str, str])
    keys: tuple[str, ...] = ()
    created: bool = False

    @property
    def has_finished(self) -> bool:
        """Whether no further runs start, and none is active."""
        return self.status in FINISHED


@dataclass(frozen=True, slots=True)
class BackfillItem:
    """An item of a backfill: a partition, or a tick.

    Attributes:
        state: `pending`, `active`, or how its latest run ended.
        round: how many times it was retried.
    """

    key: str
    state: str
    run_id: str | None = None
    round: int = 0


class Backfills:
    """`Client.backfills`: start, follow and change backfills."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def start(
        self,
        deployment: str,
        since: str = "",
        until: str = "",
        *,
        partitions: Sequence[str] = (),
        all: bool = False,
        only: Sequence[str] = (),
        trigger: str = "",
        inputs: Mapping[str, Any] | None = None,
        max_active: int = 4,
        order: str = "oldest",
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Backfill:
        """Start runs of a deployment for partitions, or for past ticks of its cron trigger.

        Args:
            deployment: its name.
            since: the first partition: its key, or a date or time at or before its start. Of ticks: a date or time.
            until: the last partition, likewise: it must start at this time or before. Of ticks: the latest time.
            partitions: keys of partitions, instead of a range.
            all: all partitions that exist, instead.
            only: of these, only those in these states: `missing`, `failed`.
            trigger: the cron trigger, if the deployment has several.
            inputs: JSON values by parameter, which override those of the deployment.
            max_active: runs that are active at the same time.
            order: `oldest` or `newest` first.
            dry_run: return what would run, and start nothing.
            idempotency_key: a repeated key returns the existing backfill; default a new key.

        Raises:
            NotFoundError: there is no deployment of this name.
            RefusedError: nothing that exists is selected, or the inputs of the runs do not fit the pipeline.
        """
        body = {
            "deployment": deployment,
            "from": since,
            "to": until,
            "partitions": [*partitions],
            "all": all,
            "only": [*only],
            "trigger": trigger,
            "inputs": dict(inputs or {}),
            "max_active": max_active,
            "order": order,
            "dry_run": dry_run,
        }
        headers = {"idempotency-key": idempotency_key or secrets.token_hex(16)}
        return _backfill(self._transport.json("POST", "/v1/backfills", body=body, headers=headers))

    def list(self, deployment: str | None = None, limit: int = 50) -> list[Backfill]:
        """Return backfills, newest first; of one deployment or of all."""
        rows = self._transport.json("GET", "/v1/backfills", query={"deployment": deployment, "limit": limit})
        return [_backfill(row) for row in rows["backfills"]]

    def get(self, id: str) -> Backfill:
        """Return a backfill.

        Raises:
            NotFoundError: there is none with this id.
        """
        return _backfill(self._transport.json("GET", _path(id)))

    def items(self, id: str) -> Iterator[BackfillItem]:
        """Return the items of a backfill, oldest first, in pages as they are consumed. Raises as `get`."""
        first: int | None = 0
        while first is not None:
            page = self._transport.json("GET", _path(id, "items"), query={"first": first})
            yield from (views.build(BackfillItem, row) for row in page["items"])
            first = page["next"]

    def wait(self, id: str, timeout: float | None = None, interval: float = 0.5) -> Backfill:
        """Wait until a backfill has finished. Raises as `get`, and `TimeoutError`.

        Args:
            id: of the backfill.
            timeout: seconds; None: for ever.
            interval: seconds between two looks.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (found := self.get(id)).has_finished:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"backfill {id} has not finished after {timeout:g} s: {found.status}")
            time.sleep(interval)
        return found

    def pause(self, id: str, reason: str = "") -> Backfill:
        """Start no further runs until it is resumed; active runs continue. Raises as `get`, and `RefusedError`."""
        return self._change(id, "pause", {"reason": reason})

    def resume(self, id: str, reason: str = "") -> Backfill:
        """Start runs again. Raises as `pause`."""
        return self._change(id, "resume", {"reason": reason})

    def cancel(self, id: str, reason: str = "", *, runs: bool = False) -> Backfill:
        """Start no further runs; with `runs`, cancel those that are active. Raises as `pause`."""
        return self._change(id, "cancel", {"reason": reason, "runs": runs})

    def retry(self, id: str, reason: str = "") -> Backfill:
        """Run the items once more whose runs did not succeed. Raises as `pause`, also if there are none."""
        return self._change(id, "retry", {"reason": reason})

    def _change(self, id: str, verb: str, body: dict[str, Any]) -> Backfill:
        return _backfill(self._transport.json("POST", _path(id, verb), body=body))


def _backfill(row: dict[str, Any]) -> Backfill:
    return views.build(Backfill, row, keys=tuple(row["keys"]))


def _path(id: str, verb: str = "") -> str:
    return f"/v1/backfills/{quote(id, safe='')}" + (f"/{verb}" if verb else "")
