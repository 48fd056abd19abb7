"""Which replica of a service owns which shards: an agreement without a coordinator.

In: the names of the live replicas and the shards that each says it holds. Out: the shards that one of them should hold.
Every replica computes this alone. As long as their views are equal, each shard has one owner. While views differ, a
shard may have two, which only costs time, or its last holder keeps it. No shard stays without a holder: a holder gives
it up only when the new owner says that it holds it, and an owner that misses a holder for too long takes the shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from penstock_core.ids import SHARDS

SILENCE = 3.0
"""Seconds without a sign of life after which a replica counts as dead, and a shard without a holder as free."""


def owners(replicas: Iterable[str], shards: int = SHARDS) -> list[str]:
    """Return the owner of each shard; the order of the replicas does not matter.

    Rendezvous hashing (Thaler and Ravishankar, 1998) with quotas: pairs of shard and replica are assigned in the order
    of their weights, and no replica gets more than its share. So the numbers of shards differ by one at most, and a
    replica that joins or leaves moves its own share and few other shards.

    Raises:
        ValueError: there are no replicas.
    """
    names = sorted(set(replicas))
    if not names:
        raise ValueError("there are no replicas to own a shard")
    share, extra = divmod(shards, len(names))
    load = dict.fromkeys(names, 0)
    found = [""] * shards
    for _, shard, name in sorted((_weight(shard, name), shard, name) for shard in range(shards) for name in names):
        full = load[name] >= share and (load[name] > share or not extra)
        if found[shard] or full:
            continue
        extra -= load[name] == share
        load[name] += 1
        found[shard] = name
    return found


def _weight(shard: int, name: str) -> bytes:
    return hashlib.blake2b(f"{shard}/{name}".encode(), digest_size=8).digest()


class Membership:
    """What one replica knows of the others, and what it should hold. Times are seconds of any steady clock."""

    def __init__(self, name: str, shards: int = SHARDS, silence: float = SILENCE) -> None:
        self.name = name
        self.held: frozenset[int] = frozenset()
        """The shards that this replica holds, by the last call of `hold`."""
        self._shards = shards
        self._silence = silence
        self._seen: dict[str, float] = {}
        self._holds: dict[str, frozenset[int]] = {}
        self._missing: dict[int, float] = {}

    @property
    def holdings(self) -> dict[str, frozenset[int]]:
        """Every live replica, including this one, with the shards that it says it holds."""
        return {self.name: self.held, **self._holds}

    def heard(self, name: str, holds: Iterable[int], now: float) -> None:
        """Record that another replica lives and holds these shards."""
        if name != self.name:
            self._seen[name] = now
            self._holds[name] = frozenset(holds)

    def left(self, name: str) -> None:
        """Record that a replica has left."""
        self._seen.pop(name, None)
        self._holds.pop(name, None)

    def deaf(self, now: float) -> None:
        """Restart the time-to-live of all replicas after this replica was disconnected."""
        self._seen = dict.fromkeys(self._seen, now)
        self._missing.clear()

    def hold(self, now: float) -> frozenset[int]:
        """Return the shards that this replica should hold from now on; silent replicas are dropped."""
        for name in [name for name, seen in self._seen.items() if now - seen > self._silence]:
            self.left(name)
        owner = owners([self.name, *self._seen], self._shards)
        self.held = frozenset(shard for shard in range(self._shards) if self._should(shard, owner[shard], now))
        return self.held

    def _should(self, shard: int, owner: str, now: float) -> bool:
        if owner == self.name:
            self._missing.pop(shard, None)
            return True
        if shard in self._holds[owner]:
            self._missing.pop(shard, None)
            return False
        # The owner may not know yet that it is. The holder keeps the shard until then; an owner that misses one steps
        # in.
        return shard in self.held or now - self._missing.setdefault(shard, now) > self._silence
