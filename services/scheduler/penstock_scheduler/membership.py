"""Membership of this replica: it sends heartbeats, receives those of others, and holds its share of the shards.

Nothing is stored and there is no coordinator: replicas exchange heartbeats on core NATS, and each computes its share
alone (`penstock_core.shard_ownership`). A single replica holds everything from its start on. Heartbeats may be lost,
late or wrong: that costs folds of runs, never a decision.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import subjects
from penstock_contracts.commands import Replica, Replicas
from penstock_core.errors import UnavailableError
from penstock_core.shard_ownership import Membership

BEAT = 1.0
"""Seconds between two heartbeats."""


class ReplicaPresence:
    """Keeps `held` up to date and calls `hold` at each change.

    Args:
        bus: the connection.
        name: this replica, different from all others.
        hold: receives the shards that this replica holds from now on.
        warn: logs a warning.
    """

    def __init__(
        self, bus: Bus, name: str, hold: Callable[[frozenset[int]], None], warn: Callable[..., object]
    ) -> None:
        self._bus = bus
        self._members = Membership(name)
        self._hold = hold
        self._warn = warn
        self._open = False
        self._known: set[str] = set()

    @property
    def held(self) -> frozenset[int]:
        """The shards that this replica holds."""
        return self._members.held

    def report(self) -> Replicas:
        """Return the live replicas and their shards, as this replica knows them."""
        holdings = sorted(self._members.holdings.items())
        return Replicas(replicas=[Replica(name=name, shards=sorted(shards)) for name, shards in holdings])

    async def hello(self) -> None:
        """Request heartbeats from the others. Nobody waits for them: they answer while this replica starts."""
        await self._say("hello")

    async def open(self) -> None:
        """Start to hold shards."""
        self._open = True
        self._update_shards()
        await self._say("here")

    async def close(self) -> None:
        """Announce the end, once nothing is held any more: the others take the shards at once."""
        self._open = False
        await self._say("bye")

    async def run(self) -> None:
        """Send heartbeats, and detect missing ones."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            if now - began > 2 * BEAT or not self._bus.client.is_connected:
                self._members.deaf(now)
            self._update_shards()
            await self._say("here")

    async def reconnected(self) -> None:
        """The server was away, and with it the others' heartbeats."""
        self._members.deaf(time.monotonic())
        await self._say("hello")

    async def heard(self, replica: Replica) -> None:
        """Handle a heartbeat, or the announcement of an end."""
        if replica.name == self._members.name:
            return
        if replica.word == "bye":
            self._members.left(replica.name)
        else:
            self._members.heard(replica.name, replica.shards, time.monotonic())
        if self._update_shards() or replica.word == "hello":
            await self._say("here")

    def _update_shards(self) -> bool:
        """Update the held shards. Returns whether they changed."""
        if not self._open:
            return False
        before = self.held
        held = self._members.hold(time.monotonic())
        others = set(self._members.holdings) - {self._members.name}
        if others != self._known:
            came, went = sorted(others - self._known), sorted(self._known - others)
            self._warn("replicas changed", came=came, went=went, holds=len(held))
            self._known = others
        if held == before:
            return False
        self._hold(held)
        return True

    async def _say(self, word: str) -> None:
        if word == "here" and not self._open:
            return
        if not self._bus.client.is_connected:
            return  # a heartbeat would be sent late, when the connection is back
        shards = sorted(self.held) if self._open else []
        replica = Replica.model_validate({"name": self._members.name, "shards": shards, "word": word})
        try:
            await self._bus.send(subjects.replicas("scheduler"), replica.model_dump_json().encode())
        except (UnavailableError, BusError) as error:
            self._warn("a heartbeat could not be sent", error=str(error))
