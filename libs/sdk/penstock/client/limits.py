"""Concurrency limits of a platform: their slots, holders and queues: `Client.limits`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """An attempt, or a run (`step` and `attempt` are None), that holds a slot or is queued for one.

    Attributes:
        since: when it acquired the slot, or was queued; Unix seconds.
        cancel_requested: it was asked to release the slot to a newer run.
        priority: the priority of a queued attempt.
        effective: that priority with its increase over waiting time; the highest is next.
    """

    run_id: str
    since: float
    step: str | None = None
    attempt: int | None = None
    cancel_requested: bool = False
    priority: int | None = None
    effective: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A concurrency limit.

    Attributes:
        slots: the configured number of slots; None where each step states its own.
        in_use: slots that are held.
        waiting: attempts and runs in the queue; with `more_waiting` there are more than this.
        holders: who holds the slots; only after `Limits.get`.
        waiters: the queue, next first; only after `Limits.get`.
    """

    name: str
    slots: int | None = None
    in_use: int = 0
    waiting: int = 0
    more_waiting: bool = False
    holders: tuple[SlotHolder, ...] = ()
    waiters: tuple[SlotHolder, ...] = ()


class Limits:
    """`Client.limits`. Names are those that steps use in `concurrency`; `pool:NAME` is the size of a pool."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Limit]:
        """Return all limits that are set or in use, by name."""
        return [_limit(row) for row in self._transport.json("GET", "/v1/limits")["limits"]]

    def get(self, name: str) -> Limit:
        """Return a limit with its holders and its queue.

        Raises:
            NotFoundError: the limit is neither set nor in use.
        """
        return _limit(self._transport.json("GET", _path(name)))

    def set(self, name: str, slots: int) -> Limit:
        """Set the number of slots of a limit, which overrides the numbers that steps state.

        Takes effect at once; running attempts keep their slots.

        Raises:
            RefusedError: the name or the number is not valid.
        """
        return _limit(self._transport.json("PUT", _path(name), body={"slots": slots}))

    def unset(self, name: str) -> None:
        """Remove the setting of a limit: the numbers that steps state apply again, and a pool has no size.

        Raises:
            NotFoundError: the limit is not set.
        """
        self._transport.json("DELETE", _path(name))


def _path(name: str) -> str:
    return f"/v1/limits/{quote(name, safe=':/')}"


def _limit(data: Mapping[str, Any]) -> Limit:
    holders = tuple(views.build(SlotHolder, row) for row in data.get("holders", ()))
    waiters = tuple(views.build(SlotHolder, row) for row in data.get("waiters", ()))
    return views.build(Limit, data, holders=holders, waiters=waiters)
