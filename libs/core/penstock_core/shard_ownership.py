"""Which replica of a service works on which shards: an agreement without messages about it.

In: the names of the live replicas and what each says that it holds. Out: the shards that one of them should take.

Every replica works this out alone. As long as their views are equal, each shard has one owner; while they differ, a
shard may have two, which costs time and nothing else, or its last holder keeps it. No shard stays without a holder:
it is given up only when its new owner says that it has it, and whoever misses a holder for too long takes it itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from penstock_core.ids import SHARDS

SILENCE = 3.0
"""Seconds without a sign of life after which a replica counts as dead, and a shard that nobody holds as free."""


def owners(replicas: Iterable[str], shards: int = SHARDS) -> list[str]:
    """The owner of each shard, the same for every order of the replicas.

    Rendezvous hashing (Thaler and Ravishankar, 1998) with quotas: pairs of shard and replica are served in the order
    of their weights, and none gets more than its share. So the numbers of shards differ by one at most, and a replica
    that comes or goes moves its own share and few other shards.

    Raises:
        ValueError: there is no replica.
    """
    names = sorted(set(replicas))
    if not names:
        raise ValueError("no replica is there to own a shard")
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
    """What one replica knows of the others, and what it should hold by it. Times are seconds of any steady clock."""

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
        """Every live replica, this one included, with the shards that it holds by its own word."""
        return {self.name: self.held, **self._holds}

    def heard(self, name: str, holds: Iterable[int], now: float) -> None:
        """Another replica lives and holds these shards."""
        if name != self.name:
            self._seen[name] = now
            self._holds[name] = frozenset(holds)

    def left(self, name: str) -> None:
        """A replica has gone, and said so."""
        self._seen.pop(name, None)
        self._holds.pop(name, None)

    def deaf(self, now: float) -> None:
        """This replica heard nobody for a while, by no fault of theirs: they get a new term."""
        self._seen = dict.fromkeys(self._seen, now)
        self._missing.clear()

    def hold(self, now: float) -> frozenset[int]:
        """The shards that this replica should hold from now on; the silent are given up as dead."""
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
        # Its owner may not know yet that it is. Who holds it keeps it until then; who misses a holder steps in.
        return shard in self.held or now - self._missing.setdefault(shard, now) > self._silence
