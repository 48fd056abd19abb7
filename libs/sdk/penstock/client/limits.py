"""Limits of a platform: how many steps may run at the same time, who does, and who waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.transport import Transport


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """An attempt, or a run (without step and attempt), that holds a slot or waits for one.

    Attributes:
        since: when it got its slot, or began to wait; Unix seconds.
        leaving: whether it was told to make room for a newer run.
        priority: for one that waits, its own priority.
        effective: and what that is now, with what it gained by waiting; the highest is next.
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
    """A limit. `slots` is what the platform has it set to; None where each step says its own number.

    `holders` and `waiters`, the latter in the order of their turns, are there when a single limit is read.
    `more_waiting` says that more wait than `waiting` counts.
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
        """All limits that are set or in use, by name."""
        return [_limit(row) for row in self._transport.json("GET", "/v1/limits")["limits"]]

    def get(self, name: str) -> Limit:
        """One limit, with who holds its slots and who waits.

        Raises:
            Refused: it is neither set nor in use.
        """
        return _limit(self._transport.json("GET", _path(name)))

    def set(self, name: str, slots: int) -> Limit:
        """Set how many slots a limit has. It counts instead of what steps say, at once; what runs already goes on.

        Raises:
            Refused: the name or the number is not valid.
        """
        return _limit(self._transport.json("PUT", _path(name), body={"slots": slots}))

    def unset(self, name: str) -> None:
        """Have steps say their own number again, or a pool have no size.

        Raises:
            Refused: it was not set.
        """
        self._transport.json("DELETE", _path(name))


def _path(name: str) -> str:
    return f"/v1/limits/{quote(name, safe=':/')}"


def _limit(data: Mapping[str, Any]) -> Limit:
    holders = tuple(views.build(SlotHolder, row) for row in data.get("holders", ()))
    waiters = tuple(views.build(SlotHolder, row) for row in data.get("waiters", ()))
    return views.build(Limit, data, holders=holders, waiters=waiters)


class LimitsMixin:
    """The part of `Client` that is about limits."""

    transport: Transport

    @property
    def limits(self) -> Limits:
        """How many steps may run at the same time, who does, and who waits."""
        return Limits(self.transport)
